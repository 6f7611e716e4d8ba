"""The open image format: what is written is read, and every fault is told at once with file and line."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from small_data import picture, planted_images, write_image, write_lines
from superactivators.data.dataset import ImageSample
from superactivators.data.image_folder import read_image_folder
from superactivators.data.pixels import open_image
from superactivators.errors import DataError

GOOD = {"id": "good", "image": "good.png", "mask": "good-mask.png"}


def png_of_size(width: int, height: int) -> bytes:
    """Make the start of a PNG that claims to be of any size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b"\x00" * 100), b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with a good pair and all kinds of bad files, still without ``samples.jsonl``."""
    root = tmp_path / "photos"
    write_image(root / "good.png", picture(12, 8))
    mask = np.zeros((8, 12), dtype=np.uint8)
    mask[2:4], mask[5:] = 1, 255
    write_image(root / "good-mask.png", mask)
    write_image(root / "turned-mask.png", mask.T.copy())
    write_image(root / "unknown-mask.png", np.full((8, 12), 9, dtype=np.uint8))
    write_image(root / "rgb-mask.png", picture(12, 8))
    (root / "text.png").write_text("this is no image")
    (root / "empty.png").write_bytes(b"")
    (root / "cut.png").write_bytes((root / "good.png").read_bytes()[:120])
    (root / "cut-mask.png").write_bytes((root / "good-mask.png").read_bytes()[:50])
    (root / "huge.png").write_bytes(png_of_size(60_000, 60_000))
    (root / "a-folder.png").mkdir()
    (root / "classes.json").write_text('{"0": "background", "1": "cat", "2": ["dog", "pet"], "255": "void"}')
    (tmp_path / "outside.png").write_bytes((root / "good.png").read_bytes())
    return root


def test_round_trip(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "good.png").rename(folder / "inner" / "é.png")
    write_lines(
        folder / "samples.jsonl",
        [
            GOOD | {"image": "inner/é.png", "labels": ["cat", "pet"], "split": "test", "group": "film"},
            {"id": "bare", "image": "inner/é.png"},
        ],
    )
    dataset = read_image_folder(folder)
    assert dataset.name == "photos"
    assert dataset.modality == "image"
    assert dataset.concepts == ("cat", "dog", "pet")
    assert dataset.classes == {1: ("cat",), 2: ("dog", "pet")}, "0 and 255 are no classes"
    image = folder / "inner" / "é.png"
    assert dataset.samples == (
        ImageSample("good", image, folder / "good-mask.png", frozenset({"cat", "pet"}), "test", "film"),
        ImageSample("bare", image),
    )
    loaded, mask = dataset.samples[0].load_image(), dataset.samples[0].load_mask()  # type: ignore[union-attr]
    np.testing.assert_array_equal(np.asarray(loaded), picture(12, 8))
    assert mask is not None
    assert np.unique(mask).tolist() == [0, 1, 255]
    assert dataset.samples[1].load_mask() is None  # type: ignore[union-attr]


def test_labels_without_masks_need_no_classes(folder: Path) -> None:
    (folder / "classes.json").unlink()
    write_lines(folder / "samples.jsonl", [{"id": "a", "image": "good.png", "labels": ["sun", "sea"]}])
    dataset = read_image_folder(folder)
    assert dataset.concepts == ("sea", "sun")
    assert not dataset.has_token_labels


@pytest.mark.parametrize("mode", ["P", "L", "I;16"])
def test_masks_of_one_channel_are_read_as_ids(folder: Path, mode: str) -> None:
    ids = np.array([[0, 1, 2, 255] * 3] * 8)
    if mode == "P":
        made = Image.fromarray(ids.astype(np.uint8))
        made.putpalette(list(range(256)) * 3)
    else:
        made = Image.fromarray(ids.astype({"L": np.uint8, "I;16": np.uint16}[mode]))
    assert made.mode == mode
    made.save(folder / "mode.png")
    write_lines(folder / "samples.jsonl", [{"id": "a", "image": "good.png", "mask": "mode.png"}])
    mask = read_image_folder(folder).samples[0].load_mask()  # type: ignore[union-attr]
    np.testing.assert_array_equal(mask, ids[None])


def bad(**fields: Any) -> dict[str, Any]:
    return {"id": "bad", "image": "good.png"} | fields


FAULTS: list[tuple[dict[str, Any] | str | bytes, str]] = [
    ("{", "is not JSON"),
    ({"image": "good.png"}, "field 'id' is missing"),
    ({"id": "bad"}, "field 'image' is missing"),
    (bad(image=3), "field 'image' must be a string"),
    (bad(image="nowhere.png"), "image 'nowhere.png' does not exist"),
    (bad(image="a-folder.png"), "image 'a-folder.png' does not exist"),
    (bad(image="n" * 5000), "does not exist"),
    (bad(image="../outside.png"), "image '../outside.png' must be a path within the data folder"),
    (bad(image="/etc/hostname"), "image '/etc/hostname' must be a path within the data folder"),
    (bad(mask="inner/../../outside.png"), "must be a path within the data folder"),
    (bad(image="text.png"), "image 'text.png' cannot be read"),
    (bad(image="empty.png"), "image 'empty.png' cannot be read"),
    (bad(image="cut.png"), "image 'cut.png' cannot be read"),
    (bad(image="huge.png"), "image 'huge.png' cannot be read"),
    (bad(mask="nowhere.png"), "mask 'nowhere.png' does not exist"),
    (bad(mask="text.png"), "mask 'text.png': cannot be read"),
    (bad(mask="cut-mask.png"), "mask 'cut-mask.png': "),
    (bad(mask="huge.png"), "mask 'huge.png': cannot be read"),
    (bad(mask="turned-mask.png"), "mask 'turned-mask.png' is 8 x 12 pixels, but its image is 12 x 8"),
    (bad(mask="unknown-mask.png"), "mask 'unknown-mask.png' has ids that classes.json does not name: [9]"),
    (bad(mask="rgb-mask.png"), "must have one channel of class ids, but its mode is 'RGB'"),
    (bad(labels=["cow"]), "label 'cow' is not in classes.json; Known: cat, dog, pet"),
    (bad(labels="cat"), "field 'labels' must be a list"),
    (bad(split="valid"), "split 'valid' is unknown"),
    (bad(group=1), "field 'group' must be a string"),
    (bad(id="good"), "id 'good' is a duplicate of line 1"),
]


@pytest.mark.parametrize(("record", "says"), FAULTS, ids=[says[:40] for _, says in FAULTS])
def test_every_fault_is_told_with_file_and_line(folder: Path, record: dict[str, Any] | str | bytes, says: str) -> None:
    write_lines(folder / "samples.jsonl", [GOOD, record])
    with pytest.raises(DataError) as caught:
        read_image_folder(folder)
    first, *faults = str(caught.value).splitlines()
    assert first == f"data set {folder}: 1 fault; mend the lines named and try again"
    assert len(faults) == 1
    assert faults[0].startswith(f"{folder / 'samples.jsonl'}:2: ")
    assert says in faults[0]


def test_all_faults_are_told_at_once(folder: Path) -> None:
    (folder / "classes.json").write_text('{"1": "cat", "x": "dog"}')
    write_lines(folder / "samples.jsonl", [GOOD, *(record for record, _ in FAULTS)])
    with pytest.raises(DataError) as caught:
        read_image_folder(folder)
    lines = str(caught.value).splitlines()
    assert any(line.startswith(f"{folder / 'classes.json'}: mask id 'x'") for line in lines)
    for number in range(2, 2 + len(FAULTS)):
        assert any(line.startswith(f"{folder / 'samples.jsonl'}:{number}: ") for line in lines), number


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not readable JSON"),
        ("[" * 100_000, "is not readable JSON"),
        ('["cat"]', "must be an object that maps mask ids to names"),
        ('{"one": "cat"}', "mask id 'one' must be a whole number from 0 to 65535"),
        ('{"-1": "cat"}', "mask id '-1' must be a whole number"),
        ('{"70000": "cat"}', "mask id '70000' must be a whole number"),
        ('{"' + "9" * 5000 + '": "cat"}', "must be a whole number"),
        ('{"1": ""}', "mask id 1 must map to a name or a list of names"),
        ('{"1": []}', "mask id 1 must map to a name"),
        ('{"1": [1]}', "mask id 1 must map to a name"),
        ('{"1": null}', "mask id 1 must map to a name"),
        ('{"1": "\\ud83d"}', "mask id 1 must map to a name"),
    ],
)
def test_faults_of_the_classes(folder: Path, content: str, says: str) -> None:
    (folder / "classes.json").write_text(content)
    write_lines(folder / "samples.jsonl", [{"id": "a", "image": "good.png"}])
    with pytest.raises(DataError) as caught:
        read_image_folder(folder)
    assert f"{folder / 'classes.json'}: " in str(caught.value)
    assert says in str(caught.value)


def test_masks_without_classes(folder: Path) -> None:
    (folder / "classes.json").unlink()
    write_lines(folder / "samples.jsonl", [GOOD])
    with pytest.raises(DataError, match=r"classes\.json: is missing, but masks are given"):
        read_image_folder(folder)


def test_headers_only_when_asked(folder: Path) -> None:
    write_lines(
        folder / "samples.jsonl", [GOOD, bad(mask="unknown-mask.png"), bad(id="turned", mask="turned-mask.png")]
    )
    with pytest.raises(DataError, match="1 fault") as caught:
        read_image_folder(folder, check_masks=False)
    assert "turned-mask.png" in str(caught.value), "sizes are in the headers"


def test_an_empty_file(folder: Path) -> None:
    write_lines(folder / "samples.jsonl", [""])
    with pytest.raises(DataError, match="has no samples"):
        read_image_folder(folder)


def test_any_damage_of_an_image_is_one_clear_error(tmp_path: Path) -> None:
    good = (planted_images(tmp_path / "data", 1) / "i000.png").read_bytes()
    path, rng = tmp_path / "damaged.png", np.random.default_rng(0)
    for number in range(300):
        content = bytearray(good)
        if number % 2:
            del content[int(rng.integers(1, len(good))) :]
        else:
            for place in rng.integers(8, min(len(good), 120 + number), 3):
                content[int(place)] ^= int(rng.integers(1, 256))
        path.write_bytes(content)
        for read in (lambda: open_image(path), lambda: ImageSample("a", path, path).load_mask()):
            try:
                read()
                continue
            except DataError as error:
                message = str(error)
            assert str(path) in message
            assert "\n" not in message


def test_json_escapes_in_names(folder: Path) -> None:
    (folder / "good.png").rename(folder / "ü.png")
    write_lines(folder / "samples.jsonl", [json.dumps({"id": "ü", "image": "ü.png", "labels": ["cat"]})])
    assert read_image_folder(folder).ids == ["ü"]
