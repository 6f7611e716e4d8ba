"""What a model will take is known from a sketch, and is what it takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file

from superactivators.data.dataset import ConceptDataset, ImageSample, TextSample
from superactivators.errors import ModelError
from superactivators.models import folders
from superactivators.models.backbone import Backbone
from superactivators.models.budget import measure, weight_bytes
from superactivators.models.doctor import _images, _texts
from superactivators.states.extraction import extract, plan_extraction
from tiny_models import IMAGE_FAMILIES, TEXT_FAMILIES

FAMILIES = [(family, {}) for family in (*TEXT_FAMILIES, *IMAGE_FAMILIES)]
FAMILIES += [(family, {"modality": "text"}) for family in ("clip", "siglip")]


def texts(n: int) -> ConceptDataset:
    samples = [TextSample(f"t{k}", "the lazy dog and the fox " * (1 + k % 3), split="train") for k in range(n)]
    return ConceptDataset("texts", ("c",), tuple(samples))


@pytest.mark.parametrize(("family", "options"), FAMILIES)
@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
def test_weights_of_a_sketch_are_those_in_memory_and_all_else_is_alike(family, options, dtype, checkpoint):
    folder = checkpoint(family)
    sketch = Backbone.sketch(folder, dtype=dtype, **options)
    loaded = Backbone.from_pretrained(folder, device="cpu", dtype=dtype, **options)
    assert {value.device.type for value in sketch.model.parameters()} == {"meta"}
    # counted from the loaded model in another way
    size = sum(value.numel() * value.element_size() for value in {*loaded.model.parameters(), *loaded.model.buffers()})
    assert sum(weight_bytes(sketch.model).values()) == size
    assert weight_bytes(sketch.model) == weight_bytes(loaded.model)
    assert sketch.stored_bytes == (folder / "model.safetensors").stat().st_size
    for name in ("modality", "tower", "n_blocks", "width", "blocks_path", "dtype", "options"):
        assert getattr(sketch, name) == getattr(loaded, name), name
    assert sketch.resolve_layers("all") == loaded.resolve_layers("all")
    samples = _texts(loaded) if loaded.modality == "text" else _images(loaded)
    one, other = sketch.encode(samples), loaded.encode(samples)
    for part in ("offsets", "token_ids", "chars", "grids", "cells", "views", "cut"):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
    given = {"n_sites": 3, "batch_tokens": 500}
    assert measure(sketch, samples, one, **given) == measure(loaded, samples, other, **given)


def test_a_sketch_reads_no_weights_and_cannot_run(checkpoint, tmp_path):
    folder = Path(shutil.copytree(checkpoint("bert"), tmp_path / "bert"))
    (folder / "model.safetensors").unlink()
    sketch = Backbone.sketch(folder)
    assert sketch.is_sketch
    assert sketch.stored_bytes is None
    samples = texts(2).samples
    encoding = sketch.encode(samples)
    for use in (
        lambda: list(sketch.capture(samples, encoding, "all")),
        lambda: sketch.forward_plain(samples, encoding),
        lambda: sketch.fingerprint,
        lambda: extract(sketch, texts(2), out=tmp_path / "states"),
    ):
        with pytest.raises(ModelError, match="a sketch without weights; load it with") as told:
            use()
        assert "\n" not in str(told.value)
    assert not (tmp_path / "states").exists()
    assert Backbone.sketch(folder, device="cuda").is_sketch, "a plan needs no device"
    with pytest.raises(ModelError, match="no weights"):
        Backbone.from_pretrained(folder, device="cpu")


def test_without_a_dtype_in_the_config_the_stored_one_counts(checkpoint, tmp_path):
    folder = Path(shutil.copytree(checkpoint("bert"), tmp_path / "bert"))
    settings = json.loads((folder / "config.json").read_text())
    settings.pop("dtype")
    (folder / "config.json").write_text(json.dumps(settings))
    weights = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert Backbone.sketch(folder).dtype == Backbone.from_pretrained(folder, device="cpu").dtype == torch.float16
    (folder / "model.safetensors").unlink()
    assert Backbone.sketch(folder).dtype == torch.float32


def test_an_index_says_the_size_of_weights_that_are_not_here(checkpoint, tmp_path):
    folder = Path(shutil.copytree(checkpoint("bert"), tmp_path / "bert"))
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1234}, "weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert Backbone.sketch(folder).stored_bytes == 1234


def test_a_hub_id_is_planned_without_its_weights_and_fetched_in_full_later(checkpoint, tmp_path, monkeypatch):
    hub, cache = checkpoint("bert"), tmp_path / "cache"
    asked = []

    def snapshot(name, *, revision, local_files_only, allow_patterns, ignore_patterns):
        if not local_files_only:
            asked.append(allow_patterns)
            cache.mkdir(exist_ok=True)
            for pattern in allow_patterns:
                for file in hub.glob(pattern):
                    shutil.copy(file, cache)
        elif not cache.exists():
            raise LocalEntryNotFoundError("not cached")
        return str(cache)

    monkeypatch.setattr(folders, "snapshot_download", snapshot)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    sketch = Backbone.sketch("org/name")
    assert len(asked) == 1
    assert "*.safetensors" not in asked[0]
    assert not list(cache.glob("*.safetensors"))
    assert Backbone.sketch("org/name").width == sketch.width
    assert len(asked) == 1, "settings are cached"
    with pytest.raises(ModelError, match="no weights"):
        Backbone.from_pretrained("org/name", device="cpu", local_files_only=True)
    assert not Backbone.from_pretrained("org/name", device="cpu").is_sketch
    assert "*.safetensors" in asked[1]
    Backbone.from_pretrained("org/name", device="cpu")
    assert len(asked) == 2, "and now everything is"


def test_the_plan_of_a_sketch_is_that_of_the_model(checkpoint):
    data = texts(30)
    sketch, loaded = Backbone.sketch(checkpoint("bert")), Backbone.from_pretrained(checkpoint("bert"), device="cpu")
    plans = [plan_extraction(model, data, "all", batch_tokens=200).as_dict() for model in (sketch, loaded)]
    prints = [plan.pop("fingerprint") for plan in plans]
    assert prints[0] is None
    assert len(prints[1]) == 64
    assert plans[0] == plans[1]
    plan = json.loads(json.dumps(plans[0], allow_nan=False))
    parts = ("shard_memory_bytes", "input_bytes", "activation_bytes", "captured_bytes", "spare_bytes")
    assert plan["memory_bytes"] == sum(plan[part] for part in parts)
    assert plan["weights_bytes"] == sum(plan["weights_parts"].values())
    assert plan["total_bytes"] == plan["memory_bytes"] + plan["weights_bytes"]
    assert set(plan["weights_parts"]) == {"embeddings", "encoder"}


def test_figures_of_a_batch_by_hand(checkpoint):
    """Width 32, widest weight 48, 4 bytes a number, the formula written out."""
    backbone = Backbone.sketch(checkpoint("bert"))
    data = texts(30)
    encoding = backbone.encode(data.samples)
    longest = int(np.diff(encoding.offsets).max()) + 2
    found = measure(backbone, data.samples, encoding, n_sites=3, batch_tokens=100)
    assert found.inputs == 3 * 8 * 100
    assert found.activations == 100 * 4 * (6 * 32 + 2 * 48) + 100 * longest * 4
    assert found.captured == 100 * 32 * (2 * 3 * 4 + 8)
    few = measure(backbone, data.samples[:1], backbone.encode(data.samples[:1]), n_sites=3, batch_tokens=10**6)
    assert few.inputs == 3 * 8 * (len(encoding.token_ids[encoding.offsets[0] : encoding.offsets[1]]) + 2)
    viewer = Backbone.sketch(checkpoint("dinov2"))
    images = [ImageSample(f"i{k}", np.zeros((60, 90, 3), dtype=np.uint8)) for k in range(9)]
    found = measure(viewer, images, viewer.encode(images), n_sites=1, batch_tokens=4 * 25)
    assert found.inputs == 2 * 4 * (3 * 32 * 48 * 4), "4 images of 4 x 6 patches and CLS, prepared and converted"
    assert measure(viewer, images, viewer.encode(images), n_sites=1, batch_tokens=1).inputs == 2 * (3 * 32 * 48 * 4)


def test_attention_matrices_count_where_they_are_kept(checkpoint):
    backbone = Backbone.sketch(checkpoint("bert"))
    samples = texts(30).samples
    encoding = backbone.encode(samples)
    plain = measure(backbone, samples, encoding, n_sites=1, batch_tokens=100).activations
    backbone.model.config._attn_implementation = "eager"
    longest = int(np.diff(encoding.offsets).max()) + 2
    eager = measure(backbone, samples, encoding, n_sites=1, batch_tokens=100).activations
    assert eager - plain == 2 * 100 * longest * 4 * 8
