"""Folders on disk: whole or absent, checked when read, never pickled."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superactivators import artefacts
from superactivators.artefacts import (
    MANIFEST,
    FolderReader,
    Format,
    Manifest,
    array_fingerprint,
    fingerprint,
    is_current,
    partial_of,
    publish,
    write_bytes,
    writing,
)
from superactivators.errors import StoreError

quick = settings(derandomize=True, deadline=None, max_examples=30)

KIND = Format("superactivators/test", 3)
FILES = ("numbers.safetensors", "rows.parquet", "words.json", "inner/raw.bin")


def write_folder(folder: Path, made_from: str = "abc", number: float = 1.5) -> None:
    with writing(folder, KIND, made_from, {"answer": 42}) as writer:
        writer.arrays("numbers.safetensors", {"x": np.array([[number, -2.0]], dtype=np.float32)})
        writer.table("rows.parquet", pa.table({"name": ["a", "b"], "n": [1, 2]}))
        writer.json("words.json", {"Zürich": [1, None, "é"]})
        writer.bytes("inner/raw.bin", b"\x00\x01")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def edit_manifest(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(content | changes))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "made")
    return tmp_path / "made"


def test_round_trip(folder: Path) -> None:
    reader = FolderReader(folder, KIND)
    np.testing.assert_array_equal(reader.arrays("numbers.safetensors")["x"], np.float32([[1.5, -2.0]]))
    assert reader.table("rows.parquet").to_pydict() == {"name": ["a", "b"], "n": [1, 2]}
    assert reader.json("words.json") == {"Zürich": [1, None, "é"]}
    assert reader.bytes("inner/raw.bin") == b"\x00\x01"
    assert reader.manifest.parameters == {"answer": 42}
    assert set(reader.manifest.files) == set(FILES)
    assert {"superactivators", "torch", "numpy"} <= set(reader.manifest.packages)
    assert sorted(os.listdir(folder.parent)) == ["made"], "no temporary folder is left"


def test_equal_content_makes_equal_bytes(folder: Path, tmp_path: Path) -> None:
    write_folder(tmp_path / "again")
    assert snapshot(folder) == snapshot(tmp_path / "again")


def test_is_current_knows_fingerprint_format_and_version(folder: Path, tmp_path: Path) -> None:
    assert is_current(folder, KIND, "abc")
    assert not is_current(folder, KIND, "abd")
    assert not is_current(folder, Format(KIND.name, 4), "abc")
    assert not is_current(folder, Format("superactivators/other", 3), "abc")
    assert not is_current(tmp_path / "missing", KIND, "abc")


def test_an_error_inside_the_block_leaves_the_old_folder(folder: Path) -> None:
    before = snapshot(folder)

    def fail() -> None:
        with writing(folder, KIND, "new", {}) as writer:
            writer.bytes("half.bin", b"half")
            raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        fail()
    assert snapshot(folder) == before
    assert sorted(os.listdir(folder.parent)) == ["made"]


def test_a_killed_writer_leaves_the_old_folder_and_its_remains_do_no_harm(folder: Path) -> None:
    before, partial = snapshot(folder), partial_of(folder)
    partial.mkdir()
    (partial / "numbers.safetensors.tmp").write_bytes(b"half")
    (partial / "foreign.txt").write_bytes(b"left over")
    assert snapshot(folder) == before
    FolderReader(folder, KIND)
    write_folder(folder, "newer", 7.0)
    assert not partial.exists()
    assert "foreign.txt" not in snapshot(folder)
    assert is_current(folder, KIND, "newer")


def test_publish_after_a_kill_between_its_two_renames(folder: Path, tmp_path: Path) -> None:
    old = folder.with_name("made.replaced")
    folder.rename(old)  # the kill came when the old folder had been moved away, but the new one not yet in
    write_folder(tmp_path / "other", "newer")
    (tmp_path / "other").rename(partial_of(folder))
    publish(partial_of(folder), folder)
    assert is_current(folder, KIND, "newer")
    assert sorted(os.listdir(folder.parent)) == ["made"]


@pytest.mark.parametrize("name", FILES)
def test_damaged_missing_and_short_files_are_refused(folder: Path, name: str) -> None:
    path, good = folder / name, (folder / name).read_bytes()
    path.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    with pytest.raises(StoreError, match="is damaged") as caught:
        FolderReader(folder, KIND).bytes(name)
    assert str(path) in str(caught.value)
    path.write_bytes(good[:-1])
    with pytest.raises(StoreError, match=f"has {len(good) - 1} bytes instead of {len(good)}"):
        FolderReader(folder, KIND)
    assert not is_current(folder, KIND, "abc")
    path.unlink()
    with pytest.raises(StoreError, match="is missing"):
        FolderReader(folder, KIND)
    path.mkdir()
    with pytest.raises(StoreError, match="is missing"):
        FolderReader(folder, KIND)


def test_right_checksum_but_not_the_claimed_form(tmp_path: Path) -> None:
    with writing(tmp_path / "odd", KIND, "x", {}) as writer:
        for name in ("a.safetensors", "a.parquet", "a.json"):
            writer.bytes(name, b"\xffnot what it says")
    reader = FolderReader(tmp_path / "odd", KIND)
    with pytest.raises(StoreError, match="is not safetensors"):
        reader.arrays("a.safetensors")
    with pytest.raises(StoreError, match="is not Parquet"):
        reader.table("a.parquet")
    with pytest.raises(StoreError, match="is not JSON"):
        reader.json("a.json")
    with pytest.raises(StoreError, match=r"has no file 'b.json'"):
        reader.json("b.json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": "superactivators/other"}, "holds 'superactivators/other', but 'superactivators/test' is needed"),
        ({"version": 4}, "version 4, but this release reads version 3"),
        ({"version": 0}, "version 0, but this release reads version 3"),
        ({"version": "3"}, "not a readable manifest.*version must be a whole number"),
        ({"parameters": []}, "not a readable manifest.*parameters an object"),
        ({"files": []}, "not a readable manifest"),
        ({"files": {"a": {"bytes": "1", "sha256": "x"}}}, "not a readable manifest"),
        ({"files": {"a": {"bytes": 1}}}, "not a readable manifest"),
        ({"files": {"a": None}}, "not a readable manifest"),
        ({"files": {"../secret": {"bytes": 1, "sha256": "x"}}}, "outside its folder"),
        ({"files": {"a/../../secret": {"bytes": 1, "sha256": "x"}}}, "outside its folder"),
        ({"files": {"/etc/passwd": {"bytes": 1, "sha256": "x"}}}, "outside its folder"),
    ],
)
def test_foreign_newer_and_malicious_manifests(folder: Path, changes: dict[str, Any], says: str) -> None:
    edit_manifest(folder, **changes)
    with pytest.raises(StoreError, match=says) as caught:
        FolderReader(folder, KIND)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe", b"{}", b'{"format": 1}', b"[" * 100_000, b"\x00" * 100]
)
def test_unreadable_manifests(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(StoreError, match=r"not a readable manifest.*make the folder again"):
        FolderReader(folder, KIND)


def test_missing_folder_and_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no superactivators/test folder here \(manifest.json is missing\)"):
        FolderReader(tmp_path / "missing", KIND)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file"):
        FolderReader(tmp_path / "file", KIND)


@quick
@given(st.data())
def test_any_flipped_byte_of_any_file_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("flip") / "made"
    write_folder(folder)
    name = data.draw(st.sampled_from(FILES))
    content = bytearray((folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    (folder / name).write_bytes(content)
    with pytest.raises(StoreError):
        FolderReader(folder, KIND).bytes(name)


def test_numbers_that_are_not_finite_do_not_enter_json(tmp_path: Path) -> None:
    def write() -> None:
        with writing(tmp_path / "nan", KIND, "x", {}) as writer:
            writer.json("a.json", {"value": float("nan")})

    with pytest.raises(ValueError, match="JSON compliant"):
        write()
    assert not (tmp_path / "nan").exists()


# ------------------------------------------------------------------ never at the expense of the user's own files


@pytest.mark.parametrize("other", ["thesis.txt", MANIFEST])
def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path: Path, other: str) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / other).write_text('{"name": "a web page"}')
    with pytest.raises(StoreError, match=r"documents: .*choose another folder"):
        write_folder(tmp_path / "documents")
    assert snapshot(tmp_path) == {f"documents/{other}": b'{"name": "a web page"}'}


def test_a_folder_of_ours_of_another_format_is_never_replaced(folder: Path) -> None:
    before = snapshot(folder)

    def write() -> None:
        with writing(folder, Format("superactivators/other", 1), "x", {}):
            pass

    with pytest.raises(StoreError, match=r"holds 'superactivators/test'.*choose another folder"):
        write()
    assert snapshot(folder) == before


def test_a_file_in_the_place_of_the_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(StoreError, match="notes: is a file"):
        write_folder(tmp_path / "notes")
    assert snapshot(tmp_path) == {"notes": b"mine"}


def test_an_empty_folder_an_older_version_and_a_damaged_one_are_replaced(tmp_path: Path) -> None:
    for name in ("empty", "older", "damaged"):
        (tmp_path / name).mkdir()
    (tmp_path / "older" / MANIFEST).write_text(json.dumps({"format": KIND.name, "version": 1}))
    (tmp_path / "damaged" / MANIFEST).write_text('{"format": "superact')
    for name in ("empty", "older", "damaged"):
        write_folder(tmp_path / name)
        assert is_current(tmp_path / name, KIND, "abc")


def test_a_neighbour_that_somebody_kept_is_left_alone(folder: Path) -> None:
    (folder.parent / "made.old").mkdir()
    (folder.parent / "made.old" / "kept.txt").write_text("mine")
    write_folder(folder, "newer")
    assert snapshot(folder.parent / "made.old") == {"kept.txt": b"mine"}


def test_the_working_folder_itself_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="choose another folder"):
        write_folder(Path())
    assert snapshot(tmp_path) == {"mine.txt": b"mine"}


@pytest.mark.parametrize("where", ["file/made", "file/deeper/made"])
def test_a_place_where_nothing_can_be_written(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        write_folder(tmp_path / where)


def disk_that_is_full_after(files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []

    def flush(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) > files:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(artefacts.os, "fsync", flush)


@pytest.mark.parametrize("files", range(5))
def test_a_full_disk_is_one_clear_error_and_leaves_the_old_folder(
    folder: Path, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(folder)
    disk_that_is_full_after(files, monkeypatch)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\); mend that"):
        write_folder(folder, "newer")
    assert snapshot(folder) == before
    assert sorted(os.listdir(folder.parent)) == ["made"]


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    disk_that_is_full_after(0, monkeypatch)
    with pytest.raises(StoreError, match=r"a\.bin: cannot be written \(No space left"):
        write_bytes(path, b"new and longer")
    assert path.read_bytes() == b"old"


# ------------------------------------------------------------------ fingerprints

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


@quick
@given(st.dictionaries(st.text(max_size=4), json_values, min_size=1, max_size=5))
def test_fingerprints_count_content_not_order(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert fingerprint(value) == fingerprint(turned) == fingerprint(json.loads(json.dumps(value)))
    assert fingerprint(value) != fingerprint([value])


def test_array_fingerprints_see_shape_type_and_bytes() -> None:
    array = np.arange(6, dtype=np.float32)
    marks = [
        array_fingerprint(other)
        for other in (array, array.reshape(2, 3), array.astype(np.int32), array.view(np.int32), -array)
    ]
    assert len(set(marks)) == len(marks)
    assert array_fingerprint(np.asfortranarray(array.reshape(2, 3))) == array_fingerprint(array.reshape(2, 3))
    assert array_fingerprint(np.arange(12, dtype=np.float32)[::2] / 2) == array_fingerprint(array)


def test_manifest_is_replaced_in_one_step(folder: Path) -> None:
    manifest = Manifest.read(folder, KIND)
    manifest.write(folder)
    assert Manifest.read(folder, KIND) == manifest
    assert not list(folder.glob("*.tmp"))
