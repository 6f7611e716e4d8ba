"""Extraction to disk: right numbers, and the same bytes however often it was interrupted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from superactivators import artefacts
from superactivators.artefacts import partial_of
from superactivators.data.dataset import ConceptDataset, TextSample
from superactivators.errors import DataError, StoreError, StudyError
from superactivators.models.backbone import Backbone
from superactivators.states.extraction import extract, open_states, plan_extraction
from superactivators.states.store import DTYPES, StateStore

SITES = ["embed", "block[1]", "final_norm"]
SHARD = 32 * 2 * len(SITES) * 40  # 40 tokens in float16


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# ------------------------------------------------------------------ the numbers


@pytest.mark.parametrize("modality", ["text", "image"])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_stored_states_are_the_captured_ones(
    modality: str, dtype: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    backbone: Backbone = request.getfixturevalue("reader" if modality == "text" else "viewer")
    dataset: ConceptDataset = request.getfixturevalue("texts" if modality == "text" else "images")
    states = extract(backbone, dataset, SITES, out=tmp_path / "states", dtype=dtype, shard_bytes=40 * 32 * 3 * 4)
    values = states.values
    assert isinstance(values, StateStore)
    assert values.dtype == dtype
    assert states.sites == tuple(SITES)
    rounding = {"float32": 1e-6, "float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    alone = [next(iter(backbone.capture([s], backbone.encode([s]), SITES))) for s in dataset.samples]
    for site in SITES:
        parts = [block for _, block in values.blocks(site)]
        assert len(parts) > 3
        assert all(part.dtype == DTYPES[dtype] for part in parts)
        tokens = torch.cat([captured.tokens[site] for captured in alone])
        samples = torch.cat([captured.samples[site] for captured in alone])
        torch.testing.assert_close(torch.cat(parts).float(), tokens, rtol=rounding, atol=2e-5)
        torch.testing.assert_close(values.samples(site), samples, rtol=rounding, atol=2e-5)


def test_blocks_hold_whole_samples_and_follow_each_other(
    reader: Backbone, texts: ConceptDataset, tmp_path: Path
) -> None:
    states = extract(reader, texts, SITES, out=tmp_path / "states", shard_bytes=SHARD)
    at = 0
    for first, block in states.values.blocks("embed"):
        assert first == at
        assert first in states.offsets
        at += len(block)
        assert at in states.offsets
        assert len(block) <= 40 or np.count_nonzero((states.offsets >= first) & (states.offsets < at)) == 1
    assert at == states.offsets[-1]
    assert isinstance(states.values, StateStore)
    assert states.values.ids == texts.ids
    assert open_states(tmp_path / "states").fingerprint == states.fingerprint


def test_the_plan_says_what_will_be(reader: Backbone, texts: ConceptDataset, tmp_path: Path) -> None:
    plan = plan_extraction(reader, texts, SITES, shard_bytes=SHARD)
    states = extract(reader, texts, SITES, out=tmp_path / "states", shard_bytes=SHARD)
    shards = [file for name, file in snapshot(tmp_path / "states").items() if name.startswith("layer=")]
    told = plan.as_dict()
    assert told["samples"] == 36
    assert told["tokens"] == states.offsets[-1]
    assert told["shards"] * len(SITES) == len(shards)
    assert 0 < sum(map(len, shards)) - told["bytes"] < 300 * len(shards), "headers only"
    assert told["fingerprint"] == states.values.fingerprint


def test_a_finished_store_is_used_as_it_is(
    reader: Backbone, texts: ConceptDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract(reader, texts, [1], out=tmp_path / "states")
    before = snapshot(tmp_path / "states")

    def never(*args: object, **more: object) -> None:
        raise AssertionError("the model ran again")

    monkeypatch.setattr(Backbone, "capture", never)
    again = extract(reader, texts, ["block[1]"], out=tmp_path / "states")
    assert snapshot(tmp_path / "states") == before
    assert again.fingerprint == first.fingerprint
    spanless = replace(texts, samples=tuple(replace(s, spans=()) for s in texts.samples[:1]) + texts.samples[1:])
    relabelled = extract(reader, spanless, [1], out=tmp_path / "states")
    assert relabelled.values.fingerprint == first.values.fingerprint, "new labels need no new states"
    assert relabelled.fingerprint != first.fingerprint


@pytest.mark.parametrize("change", ["layers", "dtype", "text", "order"])
def test_a_store_of_another_fingerprint_is_replaced(
    reader: Backbone, texts: ConceptDataset, tmp_path: Path, change: str
) -> None:
    small = texts.subset(range(8))
    first = extract(reader, small, [1], out=tmp_path / "states")
    changed = {"layers": [2] if change == "layers" else [1], "dtype": "float32" if change == "dtype" else "float16"}
    data = small.subset(range(7, -1, -1)) if change == "order" else small
    if change == "text":
        data = replace(small, samples=(*small.samples[:-1], TextSample("t007", "another text", split="test")))
    second = extract(reader, data, changed["layers"], out=tmp_path / "states", dtype=str(changed["dtype"]))
    assert second.values.fingerprint != first.values.fingerprint
    extract(reader, data, changed["layers"], out=tmp_path / "fresh", dtype=str(changed["dtype"]))
    assert snapshot(tmp_path / "states") == snapshot(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"dtype": "float8"}, "unknown store dtype 'float8'"),
        ({"layers": "block[9]"}, "layer block"),
        ({"batch_tokens": 0}, "must be positive"),
        ({"shard_bytes": 0}, "must be positive"),
    ],
)
def test_impossible_settings(
    reader: Backbone, texts: ConceptDataset, tmp_path: Path, more: dict[str, object], says: str
) -> None:
    with pytest.raises(StudyError, match=says):
        extract(reader, texts, **{"layers": [1], "out": tmp_path / "states", **more})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_texts_for_an_image_model(viewer: Backbone, texts: ConceptDataset, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"holds texts, but .* reads images; choose a model for the data"):
        extract(viewer, texts, out=tmp_path / "states")


def test_a_sample_without_tokens(reader: Backbone, texts: ConceptDataset, tmp_path: Path) -> None:
    bare = replace(texts, samples=(*texts.samples, TextSample("zero", "\u200b", split="test")))
    with pytest.raises(DataError, match="'zero'"):
        extract(reader, bare, out=tmp_path / "states")


# ------------------------------------------------------------------ interruptions

DRIVER = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from superactivators import artefacts
from superactivators.data.sources import load_dataset
from superactivators.models.backbone import Backbone
from superactivators.states.extraction import extract

root, out, shard, sites = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(",")
backbone = Backbone.from_pretrained(root / "bert", device="cpu")
dataset = load_dataset(root / "texts").subset(range(0, 36, 2))


def run(folder, killed_at=None):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    done = []

    def counted(call):
        def wrapper(*args):
            done.append(call)
            if len(done) == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args)
        return wrapper

    artefacts.os.fsync = counted(os.fsync)
    Path.rename = counted(Path.rename)
    extract(backbone, dataset, sites, out=folder, shard_bytes=shard)
    (out / "calls").write_text(str(len(done)))
    os._exit(0)


assert run(out / "whole") == 0
total = int((out / "calls").read_text())
moments = sorted({1, 3, 4, 5, 6, 8, total // 2, *range(total - 5, total + 1)})
for moment in moments:
    folder = out / f"killed-{moment}"
    assert run(folder, moment) == signal.SIGKILL
    partial = folder.with_name(folder.name + ".partial")
    shards = sorted(partial.glob("layer=*/*.safetensors")) if partial.exists() else []
    if moment % 3 == 0 and shards:
        (shards[0].parent / "shard-00005.safetensors.tmp").write_bytes(b"litter")
    if moment % 4 == 0:
        assert run(folder, 2) == signal.SIGKILL
    if moment % 5 == 0 and shards:
        content = bytearray(shards[0].read_bytes())
        content[-1] ^= 1
        shards[0].write_bytes(content)
    assert run(folder) == 0
print(total, *moments)
"""


def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(root: Path, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(root), str(tmp_path), str(SHARD), ",".join(SITES)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whole = snapshot(tmp_path / "whole")
    shards = {name for name in whole if name.startswith("layer=")}
    assert len(shards) >= 4 * len(SITES)
    total, *moments = map(int, done.stdout.split())
    assert total >= 3 + len(shards) + len(shards) // len(SITES) + 3, "every file was flushed once"
    assert len(moments) >= 11
    for moment in moments:
        resumed = snapshot(tmp_path / f"killed-{moment}")
        assert sorted(resumed) == sorted(whole), moment
        assert resumed == whole, moment
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".partial", ".replaced", ".tmp")]


class FullDisk:
    """A disk that takes a number of files and no more."""

    def __init__(self, files: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = files
        monkeypatch.setattr(artefacts.os, "fsync", self.flush)

    def flush(self, descriptor: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")


@pytest.mark.parametrize("files", [0, 1, 2, 3, 4, 7, 11, 14])
def test_a_full_disk_is_one_error_and_keeps_whole_shards(
    reader: Backbone, texts: ConceptDataset, tmp_path: Path, files: int
) -> None:
    folder = tmp_path / "states"
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(files, patch)
        with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)") as caught:
            extract(reader, texts, SITES, out=folder, shard_bytes=SHARD)
    assert "\n" not in str(caught.value)
    whole = max(0, files - 3) // (len(SITES) + 1)
    if files >= 3:
        assert f"{whole} of " in str(caught.value)
        assert "shards are kept" in str(caught.value)
    assert not folder.exists()
    with pytest.raises(StoreError, match="was interrupted; run the same command again"):
        open_states(folder)
    runs: list[int] = []
    capture = Backbone.capture

    def counted(self: Backbone, *args: object, **more: object) -> object:
        runs.append(1)
        return capture(self, *args, **more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "capture", counted)
        extract(reader, texts, SITES, out=folder, shard_bytes=SHARD)
    extract(reader, texts, SITES, out=tmp_path / "whole", shard_bytes=SHARD)
    assert snapshot(folder) == snapshot(tmp_path / "whole")
    assert len(runs) == len(open_states(folder).values._shards) - 1 - whole  # type: ignore[attr-defined]


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "encoding", "manifest"])
def test_a_damaged_partial_store_is_mended(
    reader: Backbone, texts: ConceptDataset, tmp_path: Path, damage: str
) -> None:
    folder, partial = tmp_path / "states", partial_of(tmp_path / "states")
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(15, patch)
        with pytest.raises(StoreError, match="3 of"):
            extract(reader, texts, SITES, out=folder, shard_bytes=SHARD)
    names = {"encoding": "encoding.safetensors", "manifest": "manifest.json"}
    path = partial / names.get(damage, "layer=block[1]/shard-00001.safetensors")
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[:-3])
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]) if damage != "manifest" else content[:50])
    extract(reader, texts, SITES, out=folder, shard_bytes=SHARD)
    extract(reader, texts, SITES, out=tmp_path / "whole", shard_bytes=SHARD)
    assert snapshot(folder) == snapshot(tmp_path / "whole")


def test_a_partial_store_of_something_else_is_replaced(reader: Backbone, texts: ConceptDataset, tmp_path: Path) -> None:
    folder = tmp_path / "states"
    with pytest.MonkeyPatch.context() as patch:
        FullDisk(12, patch)
        with pytest.raises(StoreError):
            extract(reader, texts, SITES, out=folder, shard_bytes=SHARD)
    extract(reader, texts, [2], out=folder, shard_bytes=SHARD)
    extract(reader, texts, [2], out=tmp_path / "whole", shard_bytes=SHARD)
    assert snapshot(folder) == snapshot(tmp_path / "whole")


def test_a_model_that_fails_half_way_keeps_whole_shards(
    reader: Backbone, texts: ConceptDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture, calls = Backbone.capture, []

    def failing(self: Backbone, *args: object, **more: object) -> object:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return capture(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Backbone, "capture", failing)
    with pytest.raises(KeyboardInterrupt):
        extract(reader, texts, SITES, out=tmp_path / "states", shard_bytes=SHARD)
    assert len(list(partial_of(tmp_path / "states").glob("layer=embed/*"))) == 3
    extract(reader, texts, SITES, out=tmp_path / "states", shard_bytes=SHARD)
    assert len(calls) == 4 + plan_extraction(reader, texts, SITES, shard_bytes=SHARD).layout.n_shards - 3


def test_a_damaged_shard_of_a_finished_store_is_refused_when_read(
    reader: Backbone, texts: ConceptDataset, tmp_path: Path
) -> None:
    extract(reader, texts, SITES, out=tmp_path / "states", shard_bytes=SHARD)
    path = tmp_path / "states" / "layer=block[1]" / "shard-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    store = StateStore(tmp_path / "states")
    assert len(list(store.blocks("embed"))) > 3, "the others can be read"
    with pytest.raises(StoreError, match=r"shard-00002.safetensors: is damaged"):
        list(store.blocks("block[1]"))
    with pytest.raises(StoreError, match="is damaged"):
        store.samples("block[1]")
    path.write_bytes(content[:-5])
    with pytest.raises(StoreError, match="bytes instead of"):
        StateStore(tmp_path / "states")
    again = extract(reader, texts, SITES, out=tmp_path / "states", shard_bytes=SHARD)
    assert len(list(again.values.blocks("block[1]"))) > 3, "a store that is not whole is made again"


# ------------------------------------------------------------------ numbers that do not fit


@pytest.mark.parametrize(
    ("factor", "dtype", "says"),
    [
        (1e9, "float16", r"a state at block\[0\] \(.*\) does not fit float16 \(largest 6.55e\+04\); store bfloat16"),
        (float("nan"), "float32", r"the model's states at block\[0\] are not finite; load it in another dtype"),
        (float("inf"), "bfloat16", r"the model's states at block\[0\] are not finite"),
    ],
)
def test_numbers_that_do_not_fit(
    root: Path, texts: ConceptDataset, tmp_path: Path, factor: float, dtype: str, says: str
) -> None:
    backbone = Backbone.from_pretrained(root / "bert", device="cpu")
    with torch.no_grad():
        backbone.blocks[0].output.LayerNorm.bias[3] = factor
    with pytest.raises(StoreError, match=says):
        extract(backbone, texts, [0], out=tmp_path / "states", dtype=dtype)
    assert not (tmp_path / "states").exists()


def test_large_numbers_that_fit_are_kept(root: Path, texts: ConceptDataset, tmp_path: Path) -> None:
    backbone = Backbone.from_pretrained(root / "bert", device="cpu")
    with torch.no_grad():
        backbone.blocks[0].output.LayerNorm.bias[3] = 3e38
    states = extract(backbone, texts, [0], out=tmp_path / "states", dtype="float32")
    assert all(bool((block[:, 3] > 2e38).all()) for _, block in states.values.blocks("block[0]"))


# ------------------------------------------------------------------ never at the expense of the user's own files


def test_a_folder_of_the_user_is_never_replaced(reader: Backbone, texts: ConceptDataset, tmp_path: Path) -> None:
    mine = tmp_path / "thesis"
    shutil.copytree(Path(__file__).parent, mine / "chapters", ignore=shutil.ignore_patterns("__pycache__"))
    before = snapshot(mine)
    with pytest.raises(StoreError, match="holds other files and is no superactivators/states folder"):
        extract(reader, texts, [1], out=mine)
    assert snapshot(mine) == before
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]
