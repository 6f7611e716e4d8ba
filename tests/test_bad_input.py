"""Whatever a user gets wrong, the command says so in one clear line, with code 2 and without a traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from small_data import picture, planted_images, planted_texts, write_image, write_lines, write_texts
from superactivators.artefacts import MANIFEST, FolderReader, writing
from superactivators.cli.app import run
from superactivators.data.sources import load_dataset
from superactivators.detection.detector import FORMAT as DETECTOR
from superactivators.detection.detector import Detector
from superactivators.models.backbone import Backbone
from superactivators.states.extraction import extract, open_states
from superactivators.study.fit import fit_detector
from tiny_models import build_checkpoint

Case = tuple[list[str], str]


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of good things: data, models, states, a detector and a finished study. Never changed."""
    root = tmp_path_factory.mktemp("good")
    for family in ("bert", "vit", "clip", "gpt2"):
        build_checkpoint(family, root / family)
    write_texts(root / "texts", planted_texts(36))
    planted_images(root / "images", 18)
    for model, data in (("bert", "texts"), ("vit", "images")):
        backbone = Backbone.from_pretrained(root / model, device="cpu")
        extract(backbone, load_dataset(root / data), [1, 3], out=root / f"{data}-states", shard_bytes=20_000)
        fit_detector(root / f"{data}-states", root / f"{data}-detector", kind="mean", min_positives=1)
    (root / "study.toml").write_text(study(model='name = "bert"\nlayers = [1]'))
    code, _, err = call(["run", str(root / "study.toml"), "--out", str(root / "study"), "--json"])
    assert code == 0, err
    return root


def study(**sections: str) -> str:
    """Text of a study file; a section replaces the good one of the same name."""
    content = {
        "data": 'path = "texts"\nmin_positives = 1',
        "model": 'name = "bert"\nlayers = [1]',
        "concepts": 'kinds = ["mean"]',
        "detection": "resamples = 10",
    }
    return "\n".join(f"[{name}]\n{lines}" for name, lines in (content | sections).items())


def call(arguments: Sequence[str], stdin: str | None = None) -> tuple[int, str, str]:
    """Run the command line in this process and return code, standard output and standard error."""
    import io
    from contextlib import redirect_stderr, redirect_stdout

    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["superactivators", *arguments])
        patch.setenv("HF_HUB_OFFLINE", "1")
        if stdin is not None:
            patch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            run()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def refused(arguments: Sequence[str], *says: str, lines: int = 1, stdin: str | None = None) -> str:
    """Assert that a command is refused as it should be, and give its message."""
    code, _, err = call(arguments, stdin)
    assert code == 2, (code, err)
    assert "Traceback" not in err
    message = [line for line in err.splitlines() if not line.startswith("· ")]  # what began before it failed
    assert len(message) == lines, err
    assert message[0].startswith("superactivators: "), err
    for part in says:
        assert part in err, err
    assert len(message[0]) < 900, "a message is read by people"
    return err


# ------------------------------------------------------------------ data


def a_text(**fields: Any) -> dict[str, Any]:
    return {"id": "a", "text": "some words"} | fields


DATA: list[tuple[str, Callable[[Path], Path], list[str], int]] = [
    ("missing folder", lambda at: at / "no-such-folder", ["no-such-folder: no such folder", "Known:"], 1),
    ("mistyped name", lambda at: Path("pasages"), ["did you mean 'passages'?"], 1),
    ("a text as path", lambda at: Path("words and more words " * 300), ["no such folder"], 1),
    ("empty folder", lambda at: at, ["holds neither data.jsonl", "see docs/data.md"], 1),
    ("a file", lambda at: write_texts(at, [a_text()]) / "data.jsonl", ["is a file; give the folder"], 1),
    ("empty file", lambda at: write_texts(at, [""]), ["has no samples; give one JSON object a line"], 2),
    ("no labels", lambda at: write_texts(at, [a_text()]), ["names no concept; label at least one"], 1),
    ("not JSON", lambda at: write_texts(at, ["{oops"]), ["data.jsonl:1: is not JSON"], 2),
    ("not UTF-8", lambda at: write_texts(at, [b'{"id": "\xff"}']), ["data.jsonl:1: is not UTF-8"], 2),
    (
        "several faults",
        lambda at: write_texts(at, [a_text(text=""), a_text(id="b", split="tset"), "[]"]),
        ["3 faults", "data.jsonl:1: field 'text' is empty", "data.jsonl:2: split 'tset'", "data.jsonl:3: must be"],
        4,
    ),
    (
        "bad span",
        lambda at: write_texts(at, [a_text(spans=[{"start": 3, "end": 99, "label": "x"}])]),
        ["data.jsonl:1: span of 'x' is [3, 99), but 0 <= start < end <= 10"],
        2,
    ),
    (
        "half a sign",
        lambda at: write_texts(at, [a_text(text="\ud83d", labels=["x"])]),
        ["data.jsonl:1: field 'text' holds half of a surrogate pair"],
        2,
    ),
    (
        "too few groups",
        lambda at: write_texts(at, [a_text(id=str(k), labels=["x"], group="g") for k in range(9)]),
        ["at least three are needed to split it"],
        1,
    ),
    (
        "some splits",
        lambda at: write_texts(at, [a_text(id=str(k), labels=["x"], split="cal" if k else None) for k in range(3)]),
        ["1 of 3 samples have no split (first: '0')"],
        1,
    ),
    (
        "one split",
        lambda at: write_texts(at, [a_text(id=str(k), labels=["x"], split="cal") for k in range(3)]),
        ["has no train samples"],
        1,
    ),
    (
        "group in two splits",
        lambda at: write_texts(
            at, [a_text(id=s, text=s, labels=["x"], split=s, group="g") for s in ("train", "cal", "test")]
        ),
        ["group 'g' is in two splits"],
        1,
    ),
    (
        "missing image",
        lambda at: write_lines(at / "samples.jsonl", [{"id": "a", "image": "none.png"}]),
        ["samples.jsonl:1: image 'none.png' does not exist"],
        2,
    ),
    (
        "image outside",
        lambda at: write_lines(at / "samples.jsonl", [{"id": "a", "image": "../x.png"}]),
        ["must be a path within the data folder"],
        2,
    ),
]


@pytest.mark.parametrize("case", DATA, ids=[name for name, *_ in DATA])
def test_data(case: tuple[str, Callable[[Path], Path], list[str], int], tmp_path: Path) -> None:
    _, make, says, lines = case
    (tmp_path / "data").mkdir()
    source = make(tmp_path / "data")
    refused(["data", "check", str(source)], *says, lines=lines)


def test_unreadable_images_and_masks(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_image(folder / "good.png", picture(8, 6))
    write_image(folder / "mask.png", np.full((6, 8), 7, np.uint8))
    (folder / "bad.png").write_text("no image")
    (folder / "classes.json").write_text('{"1": "cat"}')
    records = [
        {"id": "a", "image": "bad.png"},
        {"id": "b", "image": "good.png", "mask": "bad.png"},
        {"id": "c", "image": "good.png", "mask": "mask.png"},
        {"id": "d", "image": "good.png", "labels": ["cats"]},
    ]
    write_lines(folder / "samples.jsonl", records)
    says = ["4 faults", ":1: image 'bad.png' cannot", ":2: mask 'bad.png'", "does not name: [7]", "did you mean 'cat'?"]
    refused(["data", "check", str(folder)], *says, lines=5)


# ------------------------------------------------------------------ models


def config_of(at: Path, **changes: Any) -> None:
    path = at / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop(*names: str) -> Callable[[Path], None]:
    return lambda at: [(at / name).unlink() for name in names] and None


def pickled(at: Path) -> None:
    (at / "model.safetensors").unlink()
    torch.save({}, at / "pytorch_model.bin")


MODELS: list[tuple[str, str, Callable[[Path], Any], list[str]]] = [
    ("no config", "bert", drop("config.json"), ["no config.json; give the folder of a model saved by save_pretrained"]),
    ("broken config", "bert", lambda at: (at / "config.json").write_text("{"), ["config.json: is not readable JSON"]),
    ("config is a list", "bert", lambda at: (at / "config.json").write_text("[]"), ["names no model_type"]),
    ("unknown kind", "bert", lambda at: config_of(at, model_type="bort"), ["unknown model type 'bort'"]),
    ("other kind", "bert", lambda at: config_of(at, model_type="t5"), ["config.json"]),
    ("no weights", "bert", drop("model.safetensors"), ["no weights; a file model.safetensors is needed"]),
    ("pickle", "bert", pickled, ["the weights are a pickle (pytorch_model.bin)", "convert them to safetensors"]),
    ("broken weights", "bert", lambda at: (at / "model.safetensors").write_bytes(b"x" * 99), ["cannot be loaded"]),
    ("cut weights", "bert", lambda at: os.truncate(at / "model.safetensors", 20_000), ["cannot be loaded"]),
    ("wrong width", "bert", lambda at: config_of(at, hidden_size=64), ["weights"]),
    ("more blocks", "bert", lambda at: config_of(at, num_hidden_layers=6), ["are missing", "so the model is not used"]),
    ("broken tokenizer", "bert", lambda at: (at / "tokenizer.json").write_text("{"), ["tokenizer cannot be loaded"]),
    ("no processor", "vit", drop("preprocessor_config.json"), ["no preprocessor_config.json"]),
    (
        "broken processor",
        "vit",
        lambda at: (at / "preprocessor_config.json").write_text("{"),
        ["image processor cannot"],
    ),
]


@pytest.mark.parametrize("case", MODELS, ids=[name for name, *_ in MODELS])
def test_models(case: tuple[str, str, Callable[[Path], Any], list[str]], good: Path, tmp_path: Path) -> None:
    _, family, damage, says = case
    shutil.copytree(good / family, tmp_path / "model")
    damage(tmp_path / "model")
    refused(["layers", str(tmp_path / "model")], str(tmp_path / "model"), *says)


LAYERS = {
    "9": "layer 9 does not exist: the model has 4 blocks",
    "-5": "layer -5 does not exist",
    "block[4]": "does not exist",
    "": "no layer was given",
    ",": "no layer was given",
    "some": "'some' is not a layer; allowed are",
    "1;2": "is not a layer",
    "0%": "percents of the depth lie in (0, 100]",
    "101%": "percents of the depth lie in (0, 100]",
    "1.5": "a fraction of the depth lies in (0, 1]",
    "0.0": "a fraction of the depth lies in (0, 1]",
    "nan": "a fraction of the depth lies in (0, 1]",
    "inf": "a fraction of the depth lies in (0, 1]",
    "every:0": "the step must be at least 1",
    "every:x": "is not a layer",
    "sweep:80-20": "did you mean 'sweep:20-80'?",
    "sweep:20": "is not a layer",
    "0,nowhere": "'nowhere' is not a layer",
    "9" * 5000: "",
}


@pytest.mark.parametrize("spec", LAYERS, ids=[spec[:12] or "empty" for spec in LAYERS])
def test_layers(spec: str, good: Path) -> None:
    refused(["layers", str(good / "bert"), "--spec", spec], LAYERS[spec])


COMMANDS: list[Case] = [
    (["layers", "{good}/nowhere"], "nowhere: no such folder; give the folder of a saved model"),
    (["layers", "nobody/no-such-model"], "is neither a folder here nor in the local cache"),
    (["layers", "bundled:minilmm"], "unknown bundled model 'minilmm'; did you mean 'minilm'?"),
    (["layers", "{good}/study.toml"], "is a file; give the folder that holds config.json"),
    (["layers", ""], "no config.json"),
    (["doctor", "{good}/bert", "--dtype", "float8"], "unknown dtype 'float8'"),
    (["doctor", "{good}/bert", "--device", "warp"], "device 'warp' cannot be used here"),
    (["extract", "{good}/images", "-m", "{good}/bert", "-o", "{tmp}/s"], "reads texts, not images"),
    (["extract", "{good}/texts", "-m", "{good}/vit", "-o", "{tmp}/s"], "reads images, not texts"),
    (
        ["extract", "{good}/texts", "-m", "{good}/bert", "-o", "{tmp}/s", "--dtype", "int8"],
        "unknown store dtype 'int8'",
    ),
    (["extract", "{good}/texts", "-m", "{good}/bert", "-o", "{tmp}/s", "--layers", "77"], "layer 77 does not exist"),
    (["extract", "{good}/texts", "-m", "{good}/bert", "-o", "{good}/study.toml"], "study.toml: is a file"),
    (["extract", "{good}/texts", "-m", "{good}/bert", "-o", "{good}/study.toml/s"], "cannot be written"),
    (["extract", "{good}/texts", "-m", "{good}/bert", "-o", "{good}/texts"], "holds other files"),
    (
        ["extract", "{good}/texts", "-m", "{good}/bert", "-o", "{good}/texts-detector"],
        "holds 'superactivators/detector'",
    ),
    (["extract", "{good}/texts", "-m", "{good}/bert", "-o", "."], "choose another folder"),
    (["extract", "{good}/texts", "-o", "{tmp}/s"], "Missing option '--model'"),
    (["extract", "{good}/texts", "-m", "{good}/bert"], "Missing option '--out'"),
    (["fit", "{good}/texts", "-o", "{tmp}/d"], "no superactivators/states folder here"),
    (["fit", "{good}/nowhere", "-o", "{tmp}/d"], "nowhere: no superactivators/states folder here"),
    (["fit", "{good}/texts-detector", "-o", "{tmp}/d"], "holds 'superactivators/detector', but"),
    (
        ["fit", "{good}/texts-states", "-o", "{tmp}/d", "--kind", "liner", "--min-positives", "1"],
        "unknown concept kind 'liner'; did you mean",
    ),
    (["fit", "{good}/texts-states", "-o", "{tmp}/d", "--min-positives", "500"], "no concept can be studied"),
    (["fit", "{good}/texts-states", "-o", "{tmp}/d", "--min-positives", "0"], "Invalid value for '--min-positives'"),
    (["fit", "{good}/texts-states", "-o", "{tmp}/d", "--seed", "-1"], "Invalid value for '--seed'"),
    (["fit", "{good}/texts-states", "-o", "{good}/texts"], "holds other files"),
    (["fit", "{good}/texts-states", "-o", "{good}/texts-states"], "holds 'superactivators/states'"),
    (["evaluate", "{good}/texts-detector", "{good}/texts-states", "--split", "cal"], "fitted on the cal split"),
    (["evaluate", "{good}/texts-detector", "{good}/texts-states", "--split", "train"], "learned on the train split"),
    (["evaluate", "{good}/texts-detector", "{good}/images-states"], "no concept"),
    (["evaluate", "{good}/texts-detector", "{good}/nowhere"], "no superactivators/states folder"),
    (["evaluate", "{good}/nowhere", "{good}/texts-states"], "neither a detector nor a finished study"),
    (["evaluate", "{good}/study", "{good}/texts-states", "--kind", "linear"], "no detector of kind 'linear'"),
    (["detect", "{good}/nowhere", "a text"], "neither a detector nor a finished study"),
    (["detect", "{good}/texts", "a text"], "neither a detector nor a finished study"),
    (["detect", "{good}/texts-states", "a text"], "neither a detector nor a finished study"),
    (["detect", "many words " * 500, "a text"], "neither a detector nor a finished study"),
    (["detect", "{good}/texts-detector"], "Missing argument"),
    (["detect", "{good}/texts-detector", ""], "input 0 must be a text that is not blank"),
    (["detect", "{good}/texts-detector", "good", " \t "], "input 1 must be a text that is not blank"),
    (["detect", "{good}/texts-detector", "half \udc80 of a sign"], "texts must be valid Unicode"),
    (["detect", "{good}/texts-detector", "a text", "--model", "{good}/gpt2"], "has other weights or settings"),
    (["detect", "{good}/texts-detector", "a text", "--model", "{good}/vit"], ""),
    (["detect", "{good}/images-detector", "{good}/nowhere.png"], "nowhere.png: cannot be read as an image"),
    (["detect", "{good}/images-detector", "{good}/study.toml"], "study.toml: cannot be read as an image"),
    (["detect", "{good}/images-detector", "{good}"], "cannot be read as an image"),
    (["attribute", "{good}/nowhere", "a text"], "neither a detector nor a finished study"),
    (["attribute", "{good}/texts-detector"], "Missing argument"),
    (["attribute", "{good}/texts-detector", " "], "input 0 must be a text that is not blank"),
    (["attribute", "{good}/texts-detector", "fine", " "], "input 1 must be a text that is not blank"),
    (["attribute", "{good}/texts-detector", "half \udc80 of a sign"], "texts must be valid Unicode"),
    (["attribute", "{good}/images-detector", "{good}/nowhere.png"], "nowhere.png: cannot be read as an image"),
    (["attribute", "{good}/images-detector", "{good}"], "cannot be read as an image"),
    (["attribute", "{good}/texts-detector", "a text", "--model", "{good}/gpt2"], "has other weights or settings"),
    (["attribute", "{good}/study", "a text", "--kind", "linear"], "no detector of kind 'linear'"),
    (
        ["attribute", "{good}/texts-detector", "a text", "--concept", "animals"],
        "unknown concept 'animals'; did you mean 'animal'?",
    ),
    (
        ["attribute", "{good}/texts-detector", "a text", "--concept", "animal", "--concept", "animal"],
        "name at least one, each once",
    ),
    (
        ["attribute", "{good}/texts-detector", "a text", "--objective", "concepts"],
        "unknown objective 'concepts'; did you mean 'concept'?",
    ),
    (["attribute", "{good}/texts-detector", "a text", "--objective", ""], "unknown objective ''"),
    (
        ["attribute", "{good}/texts-detector", "a text", "--method", "risee"],
        "unknown explainer 'risee'; did you mean 'rise'?",
    ),
    (["attribute", "{good}/texts-detector", "a text", "--method", ""], "unknown explainer ''"),
    (["attribute", "{good}/texts-detector", "a text", "--method", "rise,rise"], "each once, or 'all'"),
    (["attribute", "{good}/texts-detector", "a text", "--method", "rise,all"], "unknown explainer 'all'"),
    (["attribute", "{good}/texts-detector", "a text", "--budget", "1"], "Invalid value for '--budget'"),
    (["attribute", "{good}/texts-detector", "a text", "--budget", "many"], "Invalid value for '--budget'"),
    (["attribute", "{good}/texts-detector", "a text", "--seed", "-1"], "Invalid value for '--seed'"),
    (
        ["attribute", "{good}/texts-detector", "a text", "--hiding", "blur"],
        "unknown way 'blur' to hide tokens of a model of texts; Known: mask, pad, remove",
    ),
    (["attribute", "{good}/texts-detector", "a text", "--method", "activation", "--html", "."], "is a folder"),
    (["attribute", "{good}/texts-detector", "a text", "--method", "activation", "--html", "{good}"], "is a folder"),
    (
        ["attribute", "{good}/texts-detector", "a text", "--method", "activation", "--html", "{tmp}/none/maps.html"],
        "its folder does not exist",
    ),
    (["report", "{good}/texts-states"], "no finished study here"),
    (["report", "{good}/nowhere"], "no finished study here"),
    (["report", "{good}/study.toml"], "no finished study here"),
    (["run", "{good}/nowhere.toml", "-o", "{tmp}/s"], "nowhere.toml: no such study file"),
    (["run", "{good}/bert", "-o", "{tmp}/s"], "cannot be read"),
    (["run", "{good}/study.toml"], "Missing option '--out'"),
    (["run", "{good}/study.toml", "-o", "{good}/study.toml"], "study.toml: cannot be made"),
    (["run", "{good}/study.toml", "-o", "{tmp}/s", "--fast"], "No such option"),
    (["demo", "--data", "sounds"], "--data must be passages, scenes or both; got 'sounds'"),
    (["demo", "--size", "3"], "Invalid value for '--size'"),
    (["demo", "--size", "many"], "Invalid value for '--size'"),
    (["dmeo"], "No such command 'dmeo'"),
    (["data", "chekc", "x"], "No such command 'chekc'"),
]


@pytest.mark.parametrize("case", COMMANDS, ids=[" ".join(arguments)[:60] for arguments, _ in COMMANDS])
def test_commands(case: Case, good: Path, tmp_path: Path) -> None:
    arguments = [part.replace("{good}", str(good)).replace("{tmp}", str(tmp_path)) for part in case[0]]
    refused(arguments, case[1])
    assert open_states(good / "texts-states").labels.ids, "finished work stays usable"


# ------------------------------------------------------------------ stores, detectors and studies that are damaged


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def rewrite(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Write a detector folder again, whole and with right checksums, with one file changed."""
    reader = FolderReader(folder, DETECTOR)
    content = {file: reader.bytes(file) for file in reader.manifest.files}
    value = change(reader.table(name) if name.endswith(".parquet") else reader.json(name))
    with writing(folder, DETECTOR, reader.manifest.fingerprint, reader.manifest.parameters) as writer:
        for file, old in content.items():
            if file != name:
                writer.bytes(file, old)
            elif isinstance(value, pa.Table):
                writer.table(file, value)
            else:
                writer.json(file, value)


STATES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("no manifest", lambda at: (at / MANIFEST).unlink(), "no superactivators/states folder here"),
    ("broken manifest", lambda at: (at / MANIFEST).write_text("{"), "not a readable manifest"),
    ("newer version", lambda at: edit(at / MANIFEST, version=99), "version 99, but this release reads version 1"),
    ("foreign", lambda at: edit(at / MANIFEST, format="other/thing"), "holds 'other/thing'"),
    ("names outside", lambda at: edit(at / MANIFEST, files={"../x": {"bytes": 1, "sha256": ""}}), "outside its folder"),
    ("no parameters", lambda at: edit(at / MANIFEST, parameters={}), "lacks a needed entry"),
    ("cut shard", lambda at: os.truncate(at / "layer=block[1]/shard-00000.safetensors", 99), "bytes instead of"),
    ("lost shard", lambda at: (at / "layer=block[1]/shard-00000.safetensors").unlink(), "is missing"),
    ("flipped shard", lambda at: flip(at / "layer=block[1]/shard-00001.safetensors"), "is damaged"),
    ("flipped encoding", lambda at: flip(at / "encoding.safetensors"), "is damaged"),
    ("no labels", lambda at: shutil.rmtree(at / "labels"), "no superactivators/labels folder here"),
    ("flipped labels", lambda at: flip(at / "labels" / "labels.safetensors"), "is damaged"),
    ("labels without concepts", lambda at: edit(at / "labels" / MANIFEST, parameters={}), "does not fit the format"),
    ("unfinished", lambda at: at.rename(at.with_name(at.name + ".partial")), "was interrupted; run the same command"),
]


@pytest.mark.parametrize("case", STATES, ids=[name for name, *_ in STATES])
def test_states(case: tuple[str, Callable[[Path], Any], str], good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "texts-states", tmp_path / "states")
    case[1](tmp_path / "states")
    given = ["fit", str(tmp_path / "states"), "-o", str(tmp_path / "d"), "--kind", "mean", "--min-positives", "1"]
    assert str(tmp_path / "states") in refused(given, case[2])
    assert not (tmp_path / "d").exists()


def threshold_table(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: pa.Table.from_pylist([change(row) for row in table.to_pylist()])


DETECTORS: list[tuple[str, Callable[[Path], Any], str]] = [
    ("broken manifest", lambda at: (at / MANIFEST).write_text("[]"), "not a readable manifest"),
    ("newer version", lambda at: edit(at / MANIFEST, version=7), "version 7, but this release reads version 2"),
    ("flipped vectors", lambda at: flip(at / "vectors-00.safetensors"), "is damaged"),
    ("flipped config", lambda at: flip(at / "config.json"), "is damaged"),
    ("lost thresholds", lambda at: (at / "thresholds.parquet").unlink(), "is missing"),
    (
        "a column too few",
        lambda at: rewrite(at, "thresholds.parquet", lambda table: table.drop_columns(["site"])),
        "does not fit the format",
    ),
    (
        "a column too many",
        lambda at: rewrite(at, "thresholds.parquet", threshold_table(lambda row: row | {"colour": "red"})),
        "does not fit the format",
    ),
    (
        "no value",
        lambda at: rewrite(at, "thresholds.parquet", threshold_table(lambda row: row | {"value": float("nan")})),
        "does not fit the format",
    ),
    (
        "other concepts",
        lambda at: rewrite(at, "thresholds.parquet", threshold_table(lambda row: row | {"concept": "else"})),
        "name different concepts",
    ),
    (
        "no thresholds",
        lambda at: rewrite(at, "thresholds.parquet", lambda table: table.slice(0, 0)),
        "name different concepts",
    ),
    ("empty config", lambda at: rewrite(at, "config.json", lambda config: {}), "does not fit the format"),
    ("config is a list", lambda at: rewrite(at, "config.json", lambda config: []), "does not fit the format"),
    (
        "no banks",
        lambda at: rewrite(at, "config.json", lambda config: config | {"banks": []}),
        "does not fit the format",
    ),
    ("model of other weights", lambda at: rewrite(at, "config.json", other_model), "has other weights or settings"),
    ("model that moved", lambda at: rewrite(at, "config.json", moved_model), "no such folder"),
    ("no model", lambda at: rewrite(at, "config.json", lambda config: config | {"model": {}}), "names no model"),
]


def other_model(config: Any) -> Any:
    return config | {"model": config["model"] | {"fingerprint": "0" * 64}}


def moved_model(config: Any) -> Any:
    return config | {"model": config["model"] | {"name": "/nowhere/model"}}


@pytest.mark.parametrize("case", DETECTORS, ids=[name for name, *_ in DETECTORS])
def test_detectors(case: tuple[str, Callable[[Path], Any], str], good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "texts-detector", tmp_path / "detector")
    case[1](tmp_path / "detector")
    refused(["detect", str(tmp_path / "detector"), "the fox and the dog"], case[2])
    assert Detector.from_pretrained(good / "texts-detector").concepts


STUDIES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("no summary", lambda at: (at / "summary.json").unlink(), "no finished study here"),
    ("broken summary", lambda at: (at / "summary.json").write_text("{"), "no finished study here"),
    ("empty summary", lambda at: (at / "summary.json").write_text("{}"), "no finished study here"),
    ("summary is a list", lambda at: (at / "summary.json").write_text("[]"), "no finished study here"),
    ("no settings", lambda at: edit(at / "summary.json", settings={}), "section [data] is missing"),
    ("settings is a list", lambda at: edit(at / "summary.json", settings=[]), "no finished study here"),
    ("no data", lambda at: edit(at / "summary.json", data={}), "lacks"),
    ("no concepts", lambda at: edit(at / "summary.json", concepts=None), "lacks"),
    ("other data", lambda at: edit(at / "summary.json", data={"fingerprint": "x"}), "has changed since"),
    ("no detection", lambda at: shutil.rmtree(at / "detection"), "no superactivators/detection folder here"),
    ("flipped tables", lambda at: flip(at / "detection" / "metrics.parquet"), "is damaged"),
    ("no scores", lambda at: shutil.rmtree(at / "scores"), "no superactivators/scores folder here"),
    ("no states", lambda at: shutil.rmtree(at / "states"), "no superactivators/states folder here"),
]


@pytest.mark.parametrize("case", STUDIES, ids=[name for name, *_ in STUDIES])
def test_reports_of_damaged_studies(case: tuple[str, Callable[[Path], Any], str], good: Path, tmp_path: Path) -> None:
    shutil.copytree(good / "study", tmp_path / "study")
    case[1](tmp_path / "study")
    message = refused(["report", str(tmp_path / "study")], case[2], lines=2 if case[0] == "no settings" else 1)
    assert str(tmp_path / "study") in message
    assert (tmp_path / "study" / "report" / "index.html").exists(), "the old report stays"


# ------------------------------------------------------------------ study files

FILES: list[tuple[str, str, list[str], int]] = [
    ("not TOML", "[data\n", ["is not TOML"], 1),
    ("deep", "a = " + "[" * 5000, ["is not TOML"], 1),
    ("empty", "", ["section [data] is missing", "section [model] is missing"], 2),
    ("unknown section", study(detectoin="x = 1"), ["unknown section [detectoin]; did you mean 'detection'?"], 1),
    ("top-level key", "seed = 3\n" + study(), ["unknown section [seed]"], 1),
    ("section is a value", study().replace("[concepts]", "[[concepts]]"), ["[concepts]"], 1),
    ("unknown key", study(run="sede = 1"), ["unknown key 'sede' in [run]; did you mean 'seed'?"], 1),
    ("missing key", study(model="layers = [1]"), ["key 'name' in [model] is missing"], 1),
    ("no source", study(data="min_positives = 1"), ["give either 'path' (a folder) or 'name'"], 1),
    ("two sources", study(data='path = "texts"\nname = "scenes"'), ["give either 'path' (a folder) or 'name'"], 1),
    ("size of a path", study(data='path = "texts"\nsize = 50'), ["'size' and 'seed' are for registered data sets"], 1),
    ("negative seed", study(run="seed = -1"), ["[run] seed", "greater than or equal to 0", "got -1"], 1),
    ("text for a number", study(run='seed = "one"'), ["[run] seed", "got 'one'"], 1),
    ("number for a text", study(model="name = 3"), ["[model] name", "got 3"], 1),
    ("float seed", study(run="seed = 1.5"), ["[run] seed", "got 1.5"], 1),
    ("bool layers", study(model='name = "bert"\nlayers = true'), ["[model] layers", "got True"], 1),
    ("bad dtype", study(states='dtype = "int8"'), ["[states] dtype", "'float16'", "got 'int8'"], 1),
    ("bad rule", study(data='path = "texts"\ntext_rule = "any"'), ["[data] text_rule", "got 'any'"], 1),
    ("bad share", study(data='path = "texts"\npatch_rule = 1.5'), ["[data] patch_rule", "got 1.5"], 1),
    ("bad geometry", study(model='name = "bert"\ngeometry = "crop"'), ["[model] geometry", "got 'crop'"], 1),
    ("bad long texts", study(model='name = "bert"\nlong_texts = "cut"'), ["[model] long_texts", "got 'cut'"], 1),
    ("no kinds", study(concepts="kinds = []"), ["[concepts] kinds", "name at least one kind"], 1),
    ("unknown kind", study(concepts='kinds = ["maen"]'), ["unknown concept kind 'maen'; did you mean 'mean'?"], 1),
    ("kind is no text", study(concepts="kinds = [1]"), ["[concepts] kinds", "got 1"], 1),
    ("doubled kind", study(concepts='kinds = ["mean", "mean"]'), ["twice"], 1),
    ("no memory", study(concepts="memory_mib = 0"), ["[concepts] memory_mib", "got 0"], 1),
    ("no methods", study(detection="methods = []"), ["at least one"], 1),
    (
        "unknown method",
        study(detection='methods = ["maxx"]'),
        ["unknown detection method 'maxx'; did you mean 'max'?"],
        1,
    ),
    ("doubled method", study(detection='methods = ["max", "max"]'), ["twice"], 1),
    ("no deltas", study(detection="deltas = []"), ["deltas must be distinct numbers between 0 and 1"], 1),
    ("delta of 1", study(detection="deltas = [0.1, 1.0]"), ["deltas must be distinct numbers"], 1),
    ("negative delta", study(detection="deltas = [-0.1]"), ["deltas must be distinct numbers"], 1),
    ("doubled delta", study(detection="deltas = [0.1, 0.1]"), ["deltas must be distinct numbers"], 1),
    ("nan delta", study(detection="deltas = [nan]"), ["[detection] deltas", "got nan"], 1),
    ("nan among deltas", study(detection="deltas = [0.1, nan, 0.2]"), ["[detection] deltas", "got nan"], 1),
    ("text delta", study(detection='deltas = ["small"]'), ["[detection] deltas", "got 'small'"], 1),
    ("negative resamples", study(detection="resamples = -5"), ["[detection] resamples", "got -5"], 1),
    ("missing data", study(data='path = "no-texts"'), ["no-texts: no such folder"], 1),
    ("unknown data", study(data='name = "scnes"'), ["did you mean 'scenes'?"], 1),
    ("unknown concept", study(data='path = "texts"\nconcepts = ["animals"]'), ["did you mean 'animal'?"], 1),
    ("no concepts", study(data='path = "texts"\nconcepts = []'), ["names no concept"], 1),
    (
        "rare concepts",
        study(data='path = "texts"\nmin_positives = 90'),
        ["no concept can be studied", "min_positives"],
        1,
    ),
    ("missing model", study(model='name = "no/bert"'), ["'no/bert' is neither a folder here"], 1),
    ("wrong model", study(model='name = "vit"'), ["reads images, not texts"], 1),
    ("bad layer", study(model='name = "bert"\nlayers = 12'), ["layer 12 does not exist"], 1),
    ("no layer", study(model='name = "bert"\nlayers = []'), ["no layer was given"], 1),
    ("wrong device", study(model='name = "bert"\ndevice = "warp"'), ["device 'warp' cannot be used here"], 1),
    (
        "unknown explainer",
        study(attribution='explainers = ["lme"]'),
        ["unknown explainer 'lme'; did you mean 'lime'?"],
        1,
    ),
    ("no explainers", study(attribution="explainers = []"), ["name at least one, each once, or 'all'"], 1),
    ("doubled explainer", study(attribution='explainers = ["rise", "rise"]'), ["each once"], 1),
    ("explainers is a text", study(attribution='explainers = "rise"'), ["[attribution] explainers", "got 'rise'"], 1),
    (
        "unknown attribution key",
        study(attribution="buget = 9"),
        ["unknown key 'buget' in [attribution]; did you mean 'budget'?"],
        1,
    ),
    ("budget of 1", study(attribution="budget = 1"), ["[attribution] budget", "got 1"], 1),
    ("no steps", study(attribution="steps = 0"), ["[attribution] steps", "got 0"], 1),
    ("negative samples", study(attribution="samples = -1"), ["[attribution] samples", "got -1"], 1),
    ("text for samples", study(attribution='cal_samples = "all"'), ["[attribution] cal_samples", "got 'all'"], 1),
    (
        "unknown option",
        study(attribution='explainers = ["rise"]\noptions = {rise = {buget = 9}}'),
        ["the explainer 'rise' has no option 'buget'; did you mean 'budget'?"],
        1,
    ),
    (
        "option of another explainer",
        study(attribution='explainers = ["rise"]\n[attribution.options.lime]\nbudget = 9'),
        ["options for the explainer 'lime', which is not among those wanted: ['rise']"],
        1,
    ),
    (
        "own budget of 1",
        study(attribution='explainers = ["rise"]\noptions.rise.budget = 1'),
        ["budget"],
        1,
    ),
    ("options is a number", study(attribution="options = 3"), ["[attribution] options", "got 3"], 1),
    ("option is no table", study(attribution="options = {rise = 3}"), ["[attribution] options", "got 3"], 1),
    (
        "hiding of images",
        study(attribution='explainers = ["rise"]\nhiding = "blur"'),
        ["unknown way 'blur' to hide tokens of a model of texts; Known: mask, pad, remove"],
        1,
    ),
    (
        "kind without detector",
        study(attribution='explainers = ["rise"]\nkind = "linear"'),
        ["[attribution] kind 'linear' has no detector in this study", "Known: mean"],
        1,
    ),
    (
        "mistyped kind",
        study(attribution='explainers = ["rise"]\nkind = "maen"'),
        ["[attribution] kind 'maen'", "did you mean 'mean'?"],
        1,
    ),
    (
        "attribution without detector",
        study(attribution='explainers = ["rise"]', detection='resamples = 5\nmethods = ["max"]'),
        ["[attribution] needs a detector; name 'superactivators' among the methods"],
        1,
    ),
    (
        "attribution without token labels",
        study(attribution='explainers = ["rise"]', data='path = "texts"\nsupervision = "samples"\nmin_positives = 1'),
        ["this data set has labels of whole samples only", "leave [attribution] out"],
        1,
    ),
    (
        "several faults",
        study(run="seed = -1\nsede = 2", states="batch_tokens = 0"),
        ["[run] seed", "'sede'", "batch"],
        3,
    ),
]


@pytest.mark.parametrize("case", FILES, ids=[name for name, *_ in FILES])
def test_study_files(case: tuple[str, str, list[str], int], good: Path, tmp_path: Path) -> None:
    _, content, says, lines = case
    for name in ("bert", "vit", "texts"):
        (tmp_path / name).symlink_to(good / name)
    (tmp_path / "study.toml").write_text(content)
    refused(["run", str(tmp_path / "study.toml"), "-o", str(tmp_path / "out"), "--json"], *says, lines=lines)


def test_a_study_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_bytes(b"[data]\nname = '\xff'")
    refused(["run", str(tmp_path / "study.toml"), "-o", str(tmp_path / "out")], "give a TOML file in UTF-8")


# ------------------------------------------------------------------ what is right although it looks odd


@pytest.mark.parametrize(
    "text", ["a [/b] fox [bold]dog[/bold]", "[", "fox :smile: [link=x]", "日本 🎉 fox", "\x1b[31mfox"]
)
def test_markup_in_a_text_is_only_text(text: str, good: Path) -> None:
    code, out, err = call(["detect", str(good / "texts-detector"), text, "--all"])
    assert code == 0, err
    assert re.sub(r"\s", "", text.replace("\x1b", ""))[:3] in re.sub(r"\s", "", out.replace("\x1b", ""))


def test_markup_in_names_is_only_text(good: Path, tmp_path: Path) -> None:
    records = [
        record | {"spans": [span | {"label": f"[/x] {span['label']}"} for span in record["spans"]]}
        for record in planted_texts(36)
    ]
    folder = write_texts(tmp_path / "a [/b] c", records)
    shutil.copytree(good / "bert", tmp_path / "a [/b] model")
    for arguments, part in [
        (["data", "check", str(folder)], "[/x] animal"),
        (["layers", str(tmp_path / "a [/b] model")], "block[3]"),
        (["extract", str(folder), "-m", str(good / "bert"), "-o", str(tmp_path / "[/s]"), "--layers", "1"], "[/s]"),
        (
            ["fit", str(tmp_path / "[/s]"), "-o", str(tmp_path / "d[/b]"), "--kind", "mean", "--min-positives", "1"],
            "[/x]",
        ),
    ]:
        code, out, err = call(arguments)
        assert code == 0, err
        assert part in out


def test_lines_of_standard_input(good: Path) -> None:
    code, out, err = call(["detect", str(good / "texts-detector"), "-", "--json"], "a fox\n\n  \nthe dog\n")
    assert code == 0, err
    assert [item["input"] for item in json.loads(out)["detections"]] == ["a fox", "the dog"]


def test_the_doctor_tells_the_shell_when_a_check_fails(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(["doctor", str(good / "bert"), "--json"])[0] == 0
    from superactivators.models.doctor import Diagnosis

    monkeypatch.setattr(Diagnosis, "passed", property(lambda self: False))
    assert call(["doctor", str(good / "bert"), "--json"])[0] == 1


def test_interrupted_by_the_user(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from superactivators.data import sources

    def interrupted(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sources, "load_dataset", interrupted)
    code, _, err = call(["data", "check", "x"])
    assert code == 130
    assert err.strip() == "superactivators: stopped; the same command goes on from what is finished"


@pytest.mark.parametrize("arguments", [[], ["data"]])
def test_no_command_shows_the_help(arguments: list[str]) -> None:
    code, out, err = call(arguments)
    assert code == 2
    assert "Usage: " in out + err


SHELL: list[Case] = [
    (["detect", "{good}/texts-detector", " "], "input 0 must be a text that is not blank"),
    (["run", "{good}/bad.toml", "-o", "{tmp}/s"], "unknown key 'nmae' in [model]; did you mean 'name'?"),
    (["extract", "{good}/images", "-m", "{good}/bert", "-o", "{tmp}/s"], "reads texts, not images"),
]


@pytest.mark.parametrize("case", SHELL, ids=["blank text", "study file", "wrong model"])
def test_from_a_shell(case: Case, good: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(study(model='name = "bert"\nnmae = 3'))
    given = [part.replace("{good}/bad", f"{tmp_path}/bad").replace("{tmp}", str(tmp_path)) for part in case[0]]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from superactivators.cli import main; main()",
            *(p.replace("{good}", str(good)) for p in given),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("superactivators: ")
    assert case[1] in done.stderr
    assert not done.stdout
