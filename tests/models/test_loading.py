"""What is wrong with a checkpoint is said in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.utils import logging

from superactivators.errors import ModelError
from superactivators.models.backbone import Backbone
from superactivators.models.blocks import find_blocks
from superactivators.models.quiet import quiet_transformers


@pytest.fixture
def copy(checkpoint, tmp_path):
    def make(family):
        return Path(shutil.copytree(checkpoint(family), tmp_path / family))

    return make


def refused(name, match, **options):
    with pytest.raises(ModelError, match=match) as caught:
        Backbone.from_pretrained(name, device="cpu", **options)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_paths_that_do_not_exist_are_not_tried_as_hub_ids(tmp_path):
    for name in ("./gone", "~/gone-model", "/gone/model", "a/b/c", "..\\gone", tmp_path / "gone", f"{tmp_path}/gone"):
        refused(name, "no such folder")


def test_a_hub_id_that_is_not_cached(tmp_path, monkeypatch):
    refused("nobody/none-such-model", "neither a folder here nor in the local cache", local_files_only=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused("nobody/none-such-model", "neither a folder here nor in the local cache")


def test_folders_and_configs_that_are_no_use(copy, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, r"no config\.json")
    folder = copy("bert")
    refused(folder / "config.json", "is a file")
    (folder / "config.json").write_text("{not json")
    refused(folder, "is not readable JSON")
    (folder / "config.json").write_text("[]")
    refused(folder, "names no model_type")
    (folder / "config.json").write_text('{"model_type": "no-such-kind"}')
    refused(folder, "unknown model type 'no-such-kind'")
    (folder / "config.json").write_text(
        '{"model_type": "no-such-kind", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}'
    )
    (folder / "code.py").write_text("raise SystemExit('code of the checkpoint was run')")
    refused(folder, "never run")
    (folder / "config.json").write_text('{"model_type": "t5"}')
    refused(folder, "encoder-decoder")
    (folder / "config.json").write_text('{"model_type": "whisper"}')
    refused(folder, "input_features")


def test_weights_that_are_missing_damaged_or_pickled(copy):
    folder = copy("bert")
    file = folder / "model.safetensors"
    weights = load_file(file)
    kept = {name: value for name, value in weights.items() if "layer.2.attention" not in name}
    save_file(kept, file, metadata={"format": "pt"})
    refused(folder, r"weights of BertModel are missing or of another shape \(encoder\.layer\.2\.attention")
    wider = {name: torch.zeros(*value.shape[:-1], 7) if value.ndim == 2 else value for name, value in weights.items()}
    save_file(wider, file, metadata={"format": "pt"})
    refused(folder, "weights")
    file.write_bytes(b"\x00" * 100)
    refused(folder, "weights cannot be loaded")
    file.unlink()
    refused(folder, "no weights")
    torch.save(weights, folder / "pytorch_model.bin")
    refused(folder, r"are a pickle \(pytorch_model\.bin\)")


def test_a_missing_pooler_is_no_fault_and_a_head_is_left_out(copy):
    folder = copy("bert")
    weights = {name: value for name, value in load_file(folder / "model.safetensors").items() if "pooler" not in name}
    heads = {"cls.predictions.bias": torch.zeros(3)}
    save_file({f"bert.{name}": value for name, value in weights.items()} | heads, folder / "model.safetensors")
    model = Backbone.from_pretrained(folder, device="cpu")
    assert torch.equal(model.model.encoder.layer[0].output.dense.bias, weights["encoder.layer.0.output.dense.bias"])
    assert model.model.pooler is None


def test_missing_tokenizers_and_processors(copy):
    folder = copy("vit")
    (folder / "preprocessor_config.json").unlink()
    refused(folder, r"no preprocessor_config\.json")
    folder = copy("gpt2")
    (folder / "tokenizer.json").write_text("{}")
    refused(folder, "tokenizer cannot be loaded")
    folder = copy("llama")
    rich = json.loads((folder / "tokenizer.json").read_text())
    rich["post_processor"]["single"].insert(0, rich["post_processor"]["single"][0])
    (folder / "tokenizer.json").write_text(json.dumps(rich))
    refused(folder, "twice")


def test_a_tokenizer_of_another_model_is_noticed(copy, checkpoint):
    folder = copy("bert")
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] = 20
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][:20].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    from superactivators.data.dataset import TextSample

    with pytest.raises(ModelError, match="beyond the model's 20 embeddings"):
        Backbone.from_pretrained(folder, device="cpu").encode([TextSample("a", "the lazy dog")])


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_dual_models_load_the_tower_that_is_meant(family, copy, checkpoint):
    assert Backbone.from_pretrained(checkpoint(family), device="cpu").modality == "image"
    folder = copy(family)
    (folder / "preprocessor_config.json").unlink()
    text = Backbone.from_pretrained(checkpoint(family), device="cpu", modality="text")
    assert (text.modality, text.tower, text.n_blocks) == ("text", "language", 3)
    assert Backbone.from_pretrained(folder, device="cpu").modality == "text"
    refused(checkpoint(family), "texts are read by its language model", modality="text", tower="vision")
    refused(checkpoint(family), "not known where its language model has image tokens", tower="language")
    refused(checkpoint(family), "unknown tower 'visual'", tower="visual")
    refused(checkpoint("bert"), "has no vision tower", tower="vision")
    refused(checkpoint(family), "has no setting 'sise'; did you mean 'size'", processor={"sise": 3})
    refused(folder, "no preprocessor_config", modality="image")
    refused(checkpoint("bert"), "reads texts", modality="image")
    refused(checkpoint("bert"), "did you mean 'text'", modality="texts")


def test_dtypes_and_devices(checkpoint):
    assert Backbone.from_pretrained(checkpoint("bert"), device="cpu", dtype="fp16").dtype == torch.float16
    refused(checkpoint("bert"), "did you mean 'float16'", dtype="float61")
    with pytest.raises(ModelError, match="cannot be used here"):
        Backbone.from_pretrained(checkpoint("bert"), device="nonsense")


def test_blocks_are_found_by_structure():
    config = transformers.BertConfig(num_hidden_layers=3)

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
            self.second = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    with pytest.raises(ModelError, match="first, second"):
        find_blocks(Two(), config)
    outer = nn.Module()
    outer.inner = Two().first
    outer.other = nn.Module()
    outer.other.deep = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert find_blocks(outer, config)[0] == "inner"
    mixed = nn.Module()
    mixed.parts = nn.ModuleList([nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)])
    with pytest.raises(ModelError, match="no list of 3 modules"):
        find_blocks(mixed, config)


def test_loading_is_quiet_and_leaves_logging_as_it_was(checkpoint, capfd):
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    Backbone.from_pretrained(checkpoint("clip"), device="cpu")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    with pytest.raises(ZeroDivisionError), quiet_transformers():
        raise ZeroDivisionError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    out = capfd.readouterr()
    assert out.out == ""
    assert out.err == ""
