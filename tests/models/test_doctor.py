"""The self-check passes on sound backbones and fails on sabotaged ones."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from superactivators.models.backbone import Backbone
from superactivators.models.doctor import diagnose
from tiny_models import IMAGE_FAMILIES, TEXT_FAMILIES


def failed(model):
    return {check.name for check in diagnose(model).checks if not check.passed}


@pytest.mark.parametrize("family", [*TEXT_FAMILIES, *IMAGE_FAMILIES])
def test_every_family_passes(family, backbone):
    found = diagnose(backbone(family))
    assert found.passed, str(found)
    assert found.store_dtype == "float16"
    assert json.loads(json.dumps(found.as_dict()))["passed"] is True
    assert "FAIL" not in str(found)


@pytest.fixture
def sabotaged(checkpoint):
    return lambda family: Backbone.from_pretrained(checkpoint(family), device="cpu")


def change_inputs(model, change):
    honest = model.runner.run
    model.runner.run = lambda inputs, *args, **kwargs: honest(change(dict(inputs)), *args, **kwargs)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "gemma2"])
def test_ignoring_the_mask_is_noticed(family, sabotaged):
    model = sabotaged(family)
    change_inputs(model, lambda inputs: inputs | {"attention_mask": torch.ones_like(inputs["attention_mask"])})
    assert "padding" in failed(model)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_wrong_positions_are_noticed(family, sabotaged):
    model = sabotaged(family)
    model.reader._position_ids = False
    assert "padding" in failed(model)


def test_states_that_depend_on_the_batch_are_noticed(sabotaged):
    model = sabotaged("dinov2")
    model.model.layernorm.register_forward_hook(lambda module, args, output: output + 0.1 * output.shape[0])
    assert failed(model) == {"batch"}


def test_transposed_patches_are_noticed(sabotaged):
    model = sabotaged("dinov2")
    honest = model.model.embeddings.patch_embeddings.forward

    def transposed(pixels):
        rows = honest(pixels)
        return rows.reshape(len(rows), 4, 6, -1).transpose(1, 2).reshape(rows.shape)

    model.model.embeddings.patch_embeddings.forward = transposed
    assert "patches" in failed(model)


def test_shifted_characters_and_scored_specials_are_noticed(sabotaged):
    model = sabotaged("gpt2")
    honest = model.reader.encode
    model.reader.encode = lambda samples: replace(e := honest(samples), chars=e.chars[::-1].copy())
    assert "characters" in failed(model)
    model = sabotaged("bert")
    model.reader.special_ids = torch.arange(50, 300).numpy()
    assert "special tokens" not in failed(model)  # they are masked where the mask says so
    model = sabotaged("bert")
    honest_bert = model.reader.encode

    def scored(samples):
        encoding = honest_bert(samples)
        ids = encoding.token_ids.copy()
        ids[0] = 2
        return replace(encoding, token_ids=ids)

    model.reader.encode = scored
    with pytest.raises(ValueError, match="does not belong"):
        diagnose(model)


def test_overflow_and_nan_are_noticed(sabotaged):
    model = sabotaged("bert")
    model.blocks[1].register_forward_hook(lambda module, args, output: output * 1e6)
    found = diagnose(model)
    assert found.store_dtype == "bfloat16"
    assert "would overflow" in str(found)
    model = sabotaged("bert")
    model.blocks[3].register_forward_hook(lambda module, args, output: output * float("nan"))
    assert "finite" in failed(model)
