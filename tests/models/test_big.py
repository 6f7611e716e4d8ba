"""Checkpoints in several files, models over several places, and what is said when something of them is missing."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from superactivators.data.dataset import TextSample
from superactivators.errors import ModelError
from superactivators.models.backbone import Backbone
from superactivators.models.doctor import _images, diagnose
from superactivators.models.placement import Spread, input_device, placement_of
from superactivators.models.quiet import quiet_transformers

SITES = ["embed", "all", "final_norm"]
TEXTS = [TextSample("a", "the lazy dog"), TextSample("b", "a model of language reads tokens and the fox jumps")]


def states(backbone: Backbone) -> dict[str, torch.Tensor]:
    samples = TEXTS if backbone.modality == "text" else _images(backbone)
    found: dict[str, list[torch.Tensor]] = {}
    for batch in backbone.capture(samples, backbone.encode(samples), SITES, max_batch_tokens=64):
        for site in batch.tokens:
            found.setdefault(site, []).extend([batch.tokens[site], batch.samples[site]])
    return {site: torch.cat(parts) for site, parts in found.items()}


def equal(first: Backbone, second: Backbone) -> bool:
    one, other = states(first), states(second)
    return list(one) == list(other) and all(torch.equal(one[site], other[site]) for site in one)


@pytest.fixture(scope="module")
def sharded(checkpoint, tmp_path_factory):
    """Folder of a tiny checkpoint in several files."""
    root, made = tmp_path_factory.mktemp("sharded"), {}

    def get(family: str, dtype: torch.dtype = torch.float32) -> Path:
        folder = root / f"{family}-{dtype}"
        if folder not in made:
            made[folder] = shutil.copytree(checkpoint(family), folder)
            (folder / "model.safetensors").unlink()
            with quiet_transformers():
                model = transformers.AutoModel.from_pretrained(checkpoint(family), dtype=dtype)
                model.save_pretrained(folder, max_shard_size="40KB")
        return folder

    return get


@pytest.mark.parametrize("family", ["bert", "llama", "gemma3", "dinov2", "clip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shards_are_read_as_they_are_stored_wherever_they_go(family, dtype, sharded, checkpoint):
    folder = sharded(family, dtype)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    plain = Backbone.from_pretrained(checkpoint(family), device="cpu", dtype=dtype)
    for device in ("cpu", "auto"):
        backbone = Backbone.from_pretrained(folder, device=device)
        assert backbone.dtype == dtype
        assert equal(plain, backbone), device
    assert backbone.device == torch.device("cpu")


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "vit", "clip"])
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_states_of_blocks_that_are_kept_on_disk_are_seen(family, dtype, sharded, tmp_path):
    folder = sharded(family)
    plain = Backbone.from_pretrained(folder, device="cpu", dtype=dtype)
    size = sum(value.numel() * value.element_size() for value in plain.model.parameters())
    spread = Backbone.from_pretrained(
        folder, device="auto", max_memory={"cpu": size // 2}, offload_folder=tmp_path, dtype=dtype
    )
    away = [name for name, value in spread.model.named_parameters() if value.device.type == "meta"]
    assert any(name.startswith(spread.blocks_path) for name in away), "some block is not in memory"
    assert (spread.device, spread.dtype) == (torch.device("cpu"), plain.dtype)
    assert equal(plain, spread)
    assert spread.fingerprint == plain.fingerprint, "the weights are the same wherever they lie"
    assert (
        spread.forward_plain(
            TEXTS if spread.modality == "text" else _images(spread),
            spread.encode(TEXTS if spread.modality == "text" else _images(spread)),
        )
        > 0
    )
    assert diagnose(spread).passed


def test_a_missing_shard_or_index_is_told_in_one_line(sharded, tmp_path):
    folder = Path(shutil.copytree(sharded("bert"), tmp_path / "bert"))
    index = folder / "model.safetensors.index.json"
    shards = sorted(folder.glob("model-*.safetensors"))
    shards[1].unlink()
    for device in ("cpu", "auto"):
        with pytest.raises(
            ModelError, match=rf"1 of {len(shards)} weight files .* missing \({shards[1].name}\)"
        ) as told:
            Backbone.from_pretrained(folder, device=device)
        assert "\n" not in str(told.value)
    shards[2].write_bytes(b"\x00" * 50)
    shards[1].write_bytes(shards[0].read_bytes())
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        Backbone.from_pretrained(folder, device="cpu")
    for damaged in ("{", "[]", '{"weight_map": 3}'):
        index.write_text(damaged)
        with pytest.raises(ModelError, match="is no readable index of weights"):
            Backbone.from_pretrained(folder, device="cpu")
        with pytest.raises(ModelError, match="is no readable index of weights"):
            Backbone.sketch(folder)


def test_without_accelerate_auto_says_what_to_install(checkpoint, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "accelerate" else real(name))
    with pytest.raises(ModelError, match=r"needs accelerate.*pip install accelerate"):
        Backbone.from_pretrained(checkpoint("bert"), device="auto")


def test_limits_of_memory_need_auto(checkpoint, tmp_path):
    with pytest.raises(ModelError, match="need device='auto'"):
        Backbone.from_pretrained(checkpoint("bert"), device="cpu", max_memory={"cpu": 10})
    with pytest.raises(ModelError, match="need device='auto'"):
        Backbone.from_pretrained(checkpoint("bert"), offload_folder=tmp_path)
    with pytest.raises(ModelError, match="weights cannot be loaded") as told:
        Backbone.from_pretrained(checkpoint("bert"), device="auto", max_memory={"cpu": "much"})
    assert "\n" not in str(told.value)


def test_where_inputs_of_a_spread_model_go():
    model = torch.nn.Linear(1, 1)
    assert input_device(model) == torch.device("cpu")
    for places, device in (
        ({"embeddings": 0, "encoder": 1}, "cuda:0"),
        ({"embeddings": "cpu", "encoder": 1}, "cuda:1"),
        ({"embeddings": "cpu", "encoder": "disk"}, "cpu"),
        ({"": "cuda:1"}, "cuda:1"),
    ):
        model.hf_device_map = places
        assert input_device(model) == torch.device(device)
    spread = placement_of("auto", {"0": "1GiB", "cpu": "2GiB"}, "there")
    assert isinstance(spread, Spread)
    assert spread.options() == {
        "device_map": "auto",
        "max_memory": {0: "1GiB", "cpu": "2GiB"},
        "offload_folder": "there",
    }


@pytest.mark.gpu
def test_states_of_blocks_on_a_gpu_and_on_the_host_are_all_seen(sharded):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    folder = sharded("llama")
    plain = Backbone.from_pretrained(folder, device="cpu")
    size = sum(value.numel() * value.element_size() for value in plain.model.parameters())
    spread = Backbone.from_pretrained(folder, device="auto", max_memory={0: size // 2, "cpu": "1GiB"})
    assert spread.device.type == "cuda"
    assert spread.fingerprint == plain.fingerprint
    one, other = states(plain), states(spread)
    for site in one:
        assert other[site].device.type == "cpu"
        torch.testing.assert_close(one[site], other[site], rtol=1e-4, atol=1e-4)
