"""ADE20K: both releases, their names and splits, and every fault told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.formats import mini_ade20k
from data.formats.mini_pictures import Picture
from superactivators.data.dataset import ConceptDataset, ImageSample
from superactivators.data.formats.ade20k import read_ade20k
from superactivators.data.formats.held_out import split_in_three
from superactivators.data.splits import ensure_splits
from superactivators.errors import DataError

BY_NAME = {picture.name: picture for picture in mini_ade20k.TRAIN + mini_ade20k.VAL}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return mini_ade20k.build(tmp_path)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return mini_ade20k.build_full(tmp_path)


def images(dataset: ConceptDataset) -> list[ImageSample]:
    return [sample for sample in dataset.samples if isinstance(sample, ImageSample)]


def carried(dataset: ConceptDataset, sample: ImageSample, concept: str) -> np.ndarray:
    mask = sample.load_mask()
    assert mask is not None
    return np.isin(mask, [key for key, names in dataset.classes.items() if concept in names]).any(axis=0)


def split_of(picture: Picture) -> str | None:
    return split_in_three("train" if picture in mini_ade20k.TRAIN else "val", picture.name)


@pytest.mark.parametrize("stuff", [True, False])
def test_the_release_of_2016(tmp_path: Path, stuff: bool) -> None:
    mini_ade20k.build(tmp_path, stuff)
    dataset = ensure_splits(read_ade20k(tmp_path, check_masks=True))
    assert dataset.name == "ADEChallengeData2016"
    assert dataset.concepts == ("person", "car", "bus", "dog", "screen, silver screen", "screen, CRT screen")
    assert dataset.classes[81] == ("bus",)
    assert dataset.ids == list(BY_NAME)
    for sample in images(dataset):
        np.testing.assert_array_equal(sample.load_mask(), mini_ade20k.ids(BY_NAME[sample.id])[None])
        assert sample.split == split_of(BY_NAME[sample.id])


def test_the_most_frequent_concepts(root: Path, tmp_path: Path) -> None:
    assert read_ade20k(root, top=3).concepts == ("person", "car", "dog"), "bus has the smaller share"
    assert read_ade20k(root, top=99).concepts == read_ade20k(root).concepts


def test_the_full_release(full: Path) -> None:
    dataset = ensure_splits(read_ade20k(full, check_masks=True))
    assert set(dataset.concepts) == {"person", "car", "bus", "dog"}, "parts are no concepts unless they are asked for"
    assert not {0, 255} & set(dataset.classes)
    assert set(dataset.ids) == set(BY_NAME)
    for sample in images(dataset):
        picture = BY_NAME[sample.id]
        np.testing.assert_array_equal(np.asarray(sample.load_image()).shape, (48, 64, 3))
        whole, _ = mini_ade20k.codes(picture)
        for thing, code in mini_ade20k.CODES.items():
            np.testing.assert_array_equal(carried(dataset, sample, thing), whole == code, err_msg=sample.id)
        assert sample.split == split_of(picture)


def test_parts_of_the_full_release(full: Path) -> None:
    dataset = read_ade20k(full, parts=True, check_masks=True)
    assert set(dataset.concepts) == {"person", "car", "bus", "dog", "wheel"}
    for sample in images(dataset):
        whole, parts = mini_ade20k.codes(BY_NAME[sample.id])
        np.testing.assert_array_equal(carried(dataset, sample, "wheel"), parts == mini_ade20k.WHEEL)
        np.testing.assert_array_equal(carried(dataset, sample, "car"), whole == mini_ade20k.CODES["car"])


def test_the_most_frequent_of_the_full_release(full: Path) -> None:
    counts = {t: sum(t in picture.boxes for picture in mini_ade20k.TRAIN) for t in mini_ade20k.CODES}
    order = sorted(counts, key=lambda thing: (-counts[thing], mini_ade20k.CODES[thing]))
    assert set(read_ade20k(full, top=2).concepts) == set(order[:2])


def test_a_class_that_255_would_name_is_not_void(full: Path) -> None:
    dataset = read_ade20k(full)
    for sample in images(dataset):
        mask = sample.load_mask()
        assert mask is not None
        assert not (mask == 255).any()


def test_the_same_files_have_the_same_fingerprint_and_others_another(full: Path) -> None:
    before = read_ade20k(full).fingerprint
    assert read_ade20k(full).fingerprint == before
    mask = next(path for path in full.rglob("*_seg.png") if "car" in BY_NAME[path.stem[: -len("_seg")]].boxes)
    Image.fromarray(np.zeros((48, 64, 3), dtype=np.uint8)).save(mask)
    assert read_ade20k(full).fingerprint != before


def test_every_fault_of_2016_is_told(root: Path) -> None:
    masks = root / "annotations" / "training"
    (masks / "ADE_train_00000001.png").unlink()
    (masks / "ADE_train_00000002.png").write_text("no mask")
    Image.fromarray(np.zeros((64, 48), dtype=np.uint8)).save(masks / "ADE_train_00000003.png")
    Image.fromarray(np.full((48, 64), 99, dtype=np.uint8)).save(masks / "ADE_train_00000004.png")
    Image.fromarray(np.zeros((48, 64, 3), dtype=np.uint8)).save(masks / "ADE_train_00000005.png")
    Image.fromarray(np.zeros((48, 64), dtype=np.uint8)).save(masks / "alone.png")
    with pytest.raises(DataError, match="6 faults") as caught:
        read_ade20k(root, check_masks=True)
    for says in (
        "ADE_train_00000001.jpg: has no mask ADE_train_00000001.png in annotations/training",
        "ADE_train_00000002.png: cannot be read as an image",
        "ADE_train_00000003.png: is 48 x 64 pixels, but its image",
        "ADE_train_00000004.png: has ids that objectInfo150.txt does not name: [99]",
        "ADE_train_00000005.png: has mode 'RGB', but masks of this release have one channel",
        "alone.png: has no image in images/training",
    ):
        assert says in str(caught.value), says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must have the tab-separated columns Idx, Ratio, ..., Name"),
        ("Idx,Ratio,Train,Val,Name\n1,0.1,1,1,wall\n", "must have the tab-separated columns"),
        ("Idx\tRatio\tTrain\tVal\tName\nx\t0.1\t1\t1\twall\n", "objectInfo150.txt:2: must hold Idx, Ratio"),
        ("Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t1\n", "objectInfo150.txt:2: must hold Idx, Ratio"),
        ("Idx\tRatio\tTrain\tVal\tName\n0\t0.1\t1\t1\twall\n", ":2: needs an id from 1 to 254"),
        ("Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t1\t1\t \n", ":2: needs an id from 1 to 254"),
        ("Idx\tRatio\tTrain\tVal\tName\n1\t0\t1\t1\ta\n1\t0\t1\t1\tb\n", ":3: needs an id from 1 to 254"),
    ],
)
def test_faults_of_the_names(root: Path, text: str, says: str) -> None:
    (root / "objectInfo150.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        read_ade20k(root)
    assert says in str(caught.value)


def test_the_names_may_lie_elsewhere(root: Path) -> None:
    before = read_ade20k(root).concepts
    (root / "objectInfo150.txt").rename(root / "names.tsv")
    with pytest.raises(DataError, match=r"objectInfo150.txt: cannot be read .*; it comes with the release"):
        read_ade20k(root)
    assert read_ade20k(root, names="names.tsv").concepts == before


def content_of(path: Path) -> dict[str, Any]:
    """The miniature's files hold one sign beyond ASCII, in UTF-8 or in Latin-1."""
    content: dict[str, Any] = json.loads(path.read_bytes().replace("é".encode(), b"\xe9").decode("latin-1"))
    return content


def objects(content: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = content["annotation"]["object"]
    return found


def test_every_fault_of_the_full_release_is_told(full: Path) -> None:
    files = [path for path in sorted(full.rglob("*.json")) if objects(content_of(path))]
    change = [content_of(path) for path in files]
    del objects(change[0])[0]["name_ndx"]
    objects(change[1])[0]["name"] = "unicorn"
    change[2] = {"annotation": {"objects": []}}
    for path, content in zip(files[:3], change, strict=False):
        path.write_text(json.dumps(content))
    files[3].write_text("{")
    files[4].with_name(files[4].stem + "_seg.png").unlink()
    Image.fromarray(np.zeros((48, 64), dtype=np.uint8)).save(files[5].with_name(files[5].stem + "_seg.png"))
    with pytest.raises(DataError, match="6 faults") as caught:  # two names of one class are told once, not by each file
        read_ade20k(full)
    for path, says in zip(
        files,
        (
            "object 0 needs a name and its number name_ndx",
            "here, but",
            "must hold annotation.object",
            "is not readable JSON",
            "has no mask",
            "has mode 'L', but masks of this release are in colour",
        ),
        strict=False,
    ):
        assert says in str(caught.value), says
        line = next(line for line in str(caught.value).splitlines() if says in line)
        assert path.stem in line, line


def test_codes_that_no_json_names(full: Path) -> None:
    mask = next(full.rglob("*_seg.png"))
    Image.fromarray(np.full((48, 64, 3), 77, dtype=np.uint8)).save(mask)
    with pytest.raises(DataError, match=r"_seg.png: holds the class code 1869, which no .json names"):
        read_ade20k(full, check_masks=True)


@pytest.mark.parametrize("top", [-1, True])
def test_wrong_options(root: Path, top: Any) -> None:
    with pytest.raises(DataError, match="option top must be a whole number"):
        read_ade20k(root, top=top)
    with pytest.raises(DataError, match="the release of 2016 has no parts"):
        read_ade20k(root, parts=True)


def test_folders_of_another_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no ADE20K folder; give ADEChallengeData2016"):
        read_ade20k(tmp_path)
    with pytest.raises(DataError, match="is no ADE20K folder"):
        read_ade20k(tmp_path / "nowhere")
