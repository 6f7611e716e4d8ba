"""Files of attribution: what is written is read back, and what was not written by us is not believed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from superactivators.artefacts import MANIFEST, FolderReader, Format, writing
from superactivators.attribution.records import Record
from superactivators.attribution.results import AttributionResult, ExampleMaps
from superactivators.attribution.store import FORMAT, TABLES, load_attribution, save_attribution
from superactivators.errors import StoreError

INF = float("inf")


def a_record(tokens: int = 5, concepts: tuple[str, ...] = ("é <b>", "b"), **changes: Any) -> Record:
    random, c = np.random.default_rng(tokens), len(concepts)
    held: dict[str, Any] = {
        "concepts": concepts,
        "maps": random.normal(size=(3, tokens, 2 * c)).astype(np.float32),
        "fired": random.random((tokens, c)) < 0.5,
        "fallback": random.random(c) < 0.5,
        "hybrid": random.normal(size=(11, tokens, c)).astype(np.float32),
        "insertion": random.normal(size=(3, 2 * c, 4)),
        "deletion": random.normal(size=(3, 2 * c, 4)),
        "sanity": {"vectors": np.full((3, 2 * c), np.nan), "model": random.normal(size=(3, 2 * c))},
        "seconds": random.random(4),
        "forwards": np.array([1, 2, 3, 4]),
    }
    return Record(**{**held, **changes})


def alike(one: Record, other: Record) -> None:
    for name in (field.name for field in fields(Record)):
        mine, theirs = getattr(one, name), getattr(other, name)
        if name == "concepts":
            assert mine == theirs
        elif name == "sanity":
            assert set(mine) == set(theirs)
            for what in mine:
                np.testing.assert_array_equal(mine[what], theirs[what])
        else:
            assert mine.dtype == theirs.dtype, name
            np.testing.assert_array_equal(mine, theirs, err_msg=name)


# ------------------------------------------------------------------ records


@pytest.mark.parametrize(
    "record",
    [
        a_record(),
        a_record(tokens=1, concepts=("one",)),
        a_record(sanity={}, insertion=np.zeros((0, 4, 4)), deletion=np.zeros((0, 4, 4))),
        a_record(hybrid=np.zeros((0, 5, 2), np.float32)),
        a_record(maps=np.moveaxis(np.random.default_rng(0).normal(size=(5, 4, 3)).astype(np.float32), 2, 0)),
    ],
    ids=["whole", "one token", "of cal", "of latents", "not contiguous"],
)
def test_a_record_is_read_back_as_it_was(record: Record, tmp_path: Path) -> None:
    record.save(tmp_path / "r.safetensors", "question")
    read = Record.load(tmp_path / "r.safetensors", "question")
    assert read is not None
    alike(read, record)
    assert Record.load(tmp_path / "r.safetensors", "another question") is None
    assert [path.name for path in tmp_path.iterdir()] == ["r.safetensors"]


def test_records_are_plain_safetensors(tmp_path: Path) -> None:
    a_record().save(tmp_path / "r.safetensors", "question")
    with safe_open(tmp_path / "r.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["concepts"]) == ["é <b>", "b"]
        assert {"maps", "fired", "sanity.model"} <= set(file.keys())
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads((tmp_path / "r.safetensors").read_bytes())


def test_no_flipped_bit_goes_unseen(tmp_path: Path) -> None:
    """Whatever byte is changed: the record is made again, or reads the same."""
    record = a_record(tokens=2, concepts=("a",), hybrid=np.zeros((1, 2, 1), np.float32))
    path = tmp_path / "r.safetensors"
    record.save(path, "question")
    content, refused = path.read_bytes(), 0
    places = range(0, len(content), 2)
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1 << (place // 2 % 8)
        path.write_bytes(changed)
        read = Record.load(path, "question")
        refused += read is None
        if read is not None:
            alike(read, record)
    assert refused > 0.98 * len(places)


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, -1])
def test_a_cut_off_record_is_made_again(length: int, tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    a_record().save(path, "question")
    path.write_bytes(path.read_bytes()[:length])
    assert Record.load(path, "question") is None


def foreign(path: Path) -> None:
    save_file({"maps": np.zeros((1, 1, 1), np.float32)}, path, {"made_from": "question"})


class Trap:
    """A pickle that leaves a trace when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trap"),))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        lambda path: path.mkdir(),
        foreign,
        lambda path: torch.save({"maps": 1}, path),
        lambda path: path.write_bytes(pickle.dumps(Trap())),
        lambda path: path.write_bytes((2**63 - 1).to_bytes(8, "little") + b"{}"),
    ],
    ids=["missing", "a folder", "other arrays", "of torch", "a pickle", "a huge header"],
)
def test_files_of_others_are_made_again(
    make: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "r.safetensors")
    assert Record.load(tmp_path / "r.safetensors", "question") is None
    assert not (tmp_path / "trap").exists()


def test_a_record_that_cannot_be_written_gives_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written") as caught:
        a_record().save(tmp_path / "nowhere" / "r.safetensors", "question")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ the result


KEYS = (("rise", "concept"), ("rise", "superactivators"), ("gräd <i>", "concept"))


def an_example(number: int, tokens: int, **changes: Any) -> ExampleMaps:
    random = np.random.default_rng(number)
    held: dict[str, Any] = {
        "sample": number,
        "concept": "é <b>",
        "truth": random.random(tokens) < 0.4,
        "known": random.random(tokens) < 0.9,
        "fired": random.random(tokens) < 0.4,
        "fallback": number % 2 == 0,
        "maps": {key: random.normal(size=tokens).astype(np.float32) for key in KEYS},
        "thresholds": dict(zip(KEYS, (0.1 + 0.2, INF, -INF), strict=True)),
    }
    return ExampleMaps(**{**held, **changes})


def a_result(**changes: Any) -> AttributionResult:
    tables = {
        name: pa.table({column: pa.array([0.25, float("nan"), None]) for column in columns})
        for name, columns in TABLES.items()
    }
    held = {**tables, "examples": tuple(an_example(n, n + 2) for n in range(3)), "summary": {"cases": {"test": 3}}}
    return AttributionResult(**{**held, **changes})


def stored(tmp_path: Path, result: AttributionResult | None = None) -> Path:
    save_attribution(tmp_path / "result", result or a_result(), "made from this")
    return tmp_path / "result"


@pytest.mark.parametrize(
    "result",
    [
        a_result(),
        a_result(examples=()),
        a_result(examples=(an_example(0, 3, maps={}, thresholds={}),)),
        a_result(hybrid=pa.table({c: pa.array([], pa.float64()) for c in TABLES["hybrid"]})),
    ],
    ids=["whole", "no examples", "no maps", "no mixtures"],
)
def test_a_result_is_read_back_as_it_was(result: AttributionResult, tmp_path: Path) -> None:
    read = load_attribution(stored(tmp_path, result))
    for name in TABLES:
        assert getattr(read, name).schema == getattr(result, name).schema
        assert str(getattr(read, name).to_pydict()) == str(getattr(result, name).to_pydict())
    assert read.summary == result.summary
    assert len(read.examples) == len(result.examples)
    for mine, theirs in zip(read.examples, result.examples, strict=True):
        assert (mine.sample, mine.concept, mine.fallback) == (theirs.sample, theirs.concept, theirs.fallback)
        assert dict(mine.thresholds) == dict(theirs.thresholds), "infinite ones too"
        assert list(mine.maps) == list(theirs.maps), "in the same order"
        for key, values in theirs.maps.items():
            assert mine.maps[key].dtype == np.float32
            np.testing.assert_array_equal(mine.maps[key], values)
        for name in ("truth", "known", "fired"):
            assert getattr(mine, name).dtype == bool
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


def test_a_result_is_made_of_open_formats(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    names = {path.name for path in folder.iterdir()}
    plain = {MANIFEST, "examples.safetensors", "examples.json", "summary.json"}
    assert names == plain | {f"{name}.parquet" for name in TABLES}
    for path in folder.glob("*.json"):
        json.loads(path.read_text("utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_writing_again_replaces_and_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    save_attribution(folder, a_result(examples=()), "made from that")
    assert load_attribution(folder).examples == ()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    with pytest.raises(StoreError, match="holds other files"):
        save_attribution(tmp_path / "mine", a_result(), "x")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["diary.txt"]


def rewritten(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change one file and sign the folder again, as somebody who knows the format would."""
    reader = FolderReader(folder, FORMAT)
    content = {file: reader.bytes(file) for file in reader.manifest.files}
    if name.endswith(".parquet"):
        value = change(reader.table(name))
    elif name.endswith(".safetensors"):
        value = change(reader.arrays(name))
    else:
        value = change(reader.json(name))
    with writing(folder, FORMAT, "x", {}) as writer:
        for file, old in content.items():
            if file != name:
                writer.bytes(file, old)
            elif isinstance(value, bytes):
                writer.bytes(file, value)
            elif name.endswith(".parquet"):
                writer.table(file, value)
            elif name.endswith(".safetensors"):
                writer.arrays(file, value)
            else:
                writer.json(file, value)


def first(entry: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**entry, "examples": [{**entry["examples"][0], **changes}, *entry["examples"][1:]]}


SIGNED: list[tuple[str, Callable[[Any], Any]]] = [
    ("examples.json", lambda told: []),
    ("examples.json", lambda told: {}),
    ("examples.json", lambda told: {**told, "maps": [["rise"]]}),
    ("examples.json", lambda told: {**told, "maps": told["maps"][:2]}),
    ("examples.json", lambda told: {**told, "examples": [1]}),
    ("examples.json", lambda told: {**told, "examples": told["examples"] * 2}),
    ("examples.json", lambda told: first(told, sample="many")),
    ("examples.json", lambda told: first(told, thresholds=["0.1"])),
    ("examples.json", lambda told: first(told, thresholds=["0.1", "a lot", "1"])),
    ("examples.json", lambda told: first(told, thresholds=None)),
    ("examples.json", lambda told: b"{"),
    ("examples.json", lambda told: b"[" * 100_000),
    ("examples.safetensors", lambda arrays: {}),
    ("examples.safetensors", lambda arrays: {**arrays, "0.truth": np.zeros(9, np.uint8)}),
    ("examples.safetensors", lambda arrays: {**arrays, "1.fired": np.zeros((3, 1), np.uint8)}),
    ("examples.safetensors", lambda arrays: {**arrays, "0.maps": np.zeros((3, 9), np.float32)}),
    ("examples.safetensors", lambda arrays: {**arrays, "0.maps": np.zeros((2, 2), np.float32)}),
    ("examples.safetensors", lambda arrays: {**arrays, "0.maps": np.ones((), np.float32)}),
    ("examples.safetensors", lambda arrays: pickle.dumps(Trap())),
    ("aggregates.parquet", lambda table: table.drop_columns(["value"])),
    ("sanity.parquet", lambda table: pa.table({"colour": ["red"]})),
    ("concepts.parquet", lambda table: b"PAR1"),
    ("summary.json", lambda told: []),
    ("summary.json", lambda told: None),
]


@pytest.mark.parametrize(("name", "change"), SIGNED, ids=[f"{n}-{name}" for n, (name, _) in enumerate(SIGNED)])
def test_a_signed_folder_of_wrong_content_is_refused(
    name: str, change: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = stored(tmp_path)
    rewritten(folder, name, change)
    with pytest.raises(StoreError) as caught:
        load_attribution(folder)
    assert str(folder) in str(caught.value)
    assert "again" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "trap").exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


HARMS: list[tuple[str, Callable[[Path], Any], str]] = [
    ("no folder", lambda at: at.rename(at.with_name("elsewhere")), "no superactivators/attribution folder here"),
    ("flipped table", lambda at: flip(at / "aggregates.parquet"), "is damaged"),
    ("flipped maps", lambda at: flip(at / "examples.safetensors"), "is damaged"),
    ("flipped summary", lambda at: flip(at / "summary.json"), "is damaged"),
    ("lost table", lambda at: (at / "hybrid.parquet").unlink(), "is missing"),
    ("broken manifest", lambda at: (at / MANIFEST).write_text("{"), "not a readable manifest"),
]


@pytest.mark.parametrize("case", HARMS, ids=[name for name, *_ in HARMS])
def test_a_damaged_folder_is_refused(case: tuple[str, Callable[[Path], Any], str], tmp_path: Path) -> None:
    folder = stored(tmp_path)
    case[1](folder)
    with pytest.raises(StoreError, match=case[2]) as caught:
        load_attribution(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "part"),
    [(Format("superactivators/states", 1), "is needed"), (replace(FORMAT, version=99), "version 99")],
    ids=["other", "newer"],
)
def test_folders_of_another_format_are_refused(kind: Format, part: str, tmp_path: Path) -> None:
    with writing(tmp_path / "result", kind, "x", {}) as writer:
        writer.json("summary.json", {})
    with pytest.raises(StoreError, match=part):
        load_attribution(tmp_path / "result")


def test_a_summary_with_numbers_that_json_lacks_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_attribution(tmp_path / "result", a_result(summary={"x": INF}), "x")
    assert not (tmp_path / "result").exists()
