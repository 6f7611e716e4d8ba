"""Attention rollout against the model's own ``output_attentions``, one matrix product at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from attribution.conftest import SENTENCE, random_detector
from superactivators.attribution import rollout
from superactivators.attribution.rollout import Rollout
from superactivators.attribution.scene import Scene
from superactivators.detection.detector import Detector
from superactivators.errors import ModelError, StudyError
from superactivators.models.quiet import quiet_transformers
from tiny_models import IMAGE_FAMILIES, TEXT_FAMILIES

Make = Callable[..., Scene]
LONG = " ".join([SENTENCE] * 8)
DEPTH = {"block[1]": 2, "block[2]": 3}


def slow_rollout(scene: Scene) -> np.ndarray:
    """Whole products of whole matrices, then rows of tokens, one at a time."""
    model = scene.backbone.model
    before = model.config._attn_implementation
    with quiet_transformers(), torch.no_grad():
        model.set_attn_implementation("eager")
        attentions = model(**scene.hidden.inputs, output_attentions=True).attentions
        model.set_attn_implementation(before)
    shows = scene.forward.shows()
    pieces, sequence = attentions[0].shape[0], attentions[0].shape[-1]
    shown = np.full((pieces, sequence), -1)
    shown[:, sequence - shows[0].size :] = shows.reshape(pieces, -1)  # patches stand behind special tokens
    rows = scene.forward.layout(sequence).rows
    result = np.zeros((scene.n_tokens, scene.n_columns))
    for column, site in enumerate(scene.objectives.sites):
        product = np.stack([np.eye(sequence)] * pieces)
        for attention in attentions[: DEPTH[site]]:
            mixed = 0.5 * attention.double().numpy().mean(axis=1) + 0.5 * np.eye(sequence)
            product = mixed @ product
        local = scene.objectives.objectives[column] == "superactivators"
        chosen = np.flatnonzero(scene.objectives.fired[:, column]) if local else range(scene.n_tokens)
        for token in chosen:
            piece, place = divmod(int(rows[token]), sequence)
            for other in range(sequence):
                if shown[piece, other] >= 0:
                    result[shown[piece, other], column] += product[piece, place, other] / len(chosen)
    return result


@pytest.mark.parametrize("family", [*TEXT_FAMILIES, *IMAGE_FAMILIES])
def test_rollout_equals_a_loop(text_scene: Make, image_scene: Make, family: str) -> None:
    scene = (text_scene if family in TEXT_FAMILIES else image_scene)(family)
    maps = Rollout().maps(scene)
    np.testing.assert_allclose(maps, slow_rollout(scene), atol=1e-5)
    np.testing.assert_array_equal(maps[:, 0], maps[:, 4])  # two concepts at one site
    assert np.abs(maps[:, 0] - maps[:, 2]).max() > 1e-4
    assert (maps.sum(axis=0) <= 1 + 1e-5).all()


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_windows_of_a_long_text(text_scene: Make, family: str) -> None:
    scene = text_scene(family, text=LONG)
    assert len(scene.forward.pieces) > 1
    maps = Rollout().maps(scene)
    np.testing.assert_allclose(maps, slow_rollout(scene), atol=1e-5)
    np.testing.assert_allclose(Rollout().maps(text_scene(family, text=LONG, max_batch_tokens=1)), maps, atol=1e-6)


def test_nothing_is_mixed_at_the_embedding(text_scene: Make) -> None:
    detector = random_detector(32)
    banks = {"embed": detector.banks[0]}
    object.__setattr__(banks["embed"], "site", "embed")
    thresholds = [t for t in detector.thresholds if t.concept in banks["embed"].concepts]
    for threshold in thresholds:
        object.__setattr__(threshold, "site", "embed")
    scene = text_scene(detector=Detector.of(banks, thresholds))
    maps = Rollout().maps(scene)
    np.testing.assert_allclose(maps[:, 0], 1 / scene.n_tokens)
    fired = scene.objectives.fired[:, 1]
    np.testing.assert_allclose(maps[:, 1], fired / fired.sum(), rtol=1e-6)


def test_the_residual_has_a_weight(text_scene: Make) -> None:
    scene = text_scene(concepts=["red"], objectives=["superactivators"])
    fired = scene.objectives.fired[:, 0]
    much, little = (Rollout(residual).maps(scene)[fired, 0].sum() for residual in (0.99, 0.0))
    assert much > 0.95 > little
    for wrong in (-0.1, 1.0):
        with pytest.raises(StudyError, match="residual"):
            Rollout(wrong)


def test_the_implementation_is_restored_and_missing_attention_told(
    text_scene: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = text_scene()
    model = scene.backbone.model
    before = model.config._attn_implementation
    assert before == "sdpa"
    config = model.config.to_dict()
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with rollout.eager_attention(scene.backbone):
        assert model.config._attn_implementation == "eager"
    monkeypatch.setattr(model, "set_attn_implementation", lambda name: None)  # the model stays with sdpa
    with pytest.raises(ModelError, match="BertModel gives the attention of 0 of its first 3 blocks") as caught:
        Rollout().maps(scene)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert model.config._attn_implementation == before
    assert model.config.to_dict() == config
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
