"""Broden: segmentations of smaller size, coded in two channels, against pixel-by-pixel look-ups."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.formats import mini_broden
from data.formats.mini_broden import HEIGHT, LABELS, PICTURES, SMALL, WIDTH, object_labels, part_labels
from superactivators.data.dataset import VOID, ConceptDataset, ImageSample
from superactivators.data.formats.broden import read_broden
from superactivators.data.formats.broden_masks import enlarge
from superactivators.data.formats.paper_metadata import apply_paper_metadata, label_disagreements
from superactivators.data.splits import ensure_splits
from superactivators.errors import DataError

NAMES = {number: name for number, name, _ in LABELS}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return mini_broden.build(tmp_path)


def concepts_at(dataset: ConceptDataset, row: int) -> list[list[set[str]]]:
    """Concepts of every pixel as the mask says."""
    sample = dataset.samples[row]
    assert isinstance(sample, ImageSample)
    mask = sample.load_mask()
    assert mask is not None
    assert VOID not in mask
    return [
        [{name for plane in mask for name in dataset.classes.get(int(plane[y, x]), ())} for x in range(mask.shape[2])]
        for y in range(mask.shape[1])
    ]


def painted(named: list[tuple[np.ndarray, dict[int, str]]]) -> list[list[set[str]]]:
    """Concepts of every pixel of the picture, from small label arrays with the names of their labels."""
    expected = []
    for y in range(HEIGHT):
        line = []
        for x in range(WIDTH):
            row = math.floor((y + 0.5) * SMALL[1] / HEIGHT)
            column = math.floor((x + 0.5) * SMALL[0] / WIDTH)
            line.append({names[int(labels[row, column])] for labels, names in named if labels[row, column] in names})
        expected.append(line)
    return expected


def test_enlarging_is_nearest_neighbour() -> None:
    rng = np.random.default_rng(0)
    for old, new in (((112, 112), (224, 224)), ((113, 113), (227, 227)), ((24, 31), (48, 64)), ((5, 7), (5, 7))):
        labels = rng.integers(0, 200, old, dtype=np.uint8)
        expected = np.asarray(Image.fromarray(labels).resize(new[::-1], Image.Resampling.NEAREST))
        np.testing.assert_array_equal(enlarge(labels, new[::-1]), expected)


def test_pascal(root: Path) -> None:
    dataset = read_broden(root)
    assert dataset.name == "broden-pascal"
    assert dataset.concepts == ("dog", "head", "object::chair", "part::chair", "sky", "leg, arm")
    assert len(dataset) == PICTURES
    assert dataset.ids[3] == "pascal/2008_000003"
    objects = {7: "dog", 30: "object::chair", 255: "sky"}
    parts = {12: "head", 30: "part::chair", 300: "leg, arm"}
    for number in range(PICTURES):
        named = [(object_labels(number), objects), *((labels, parts) for labels in part_labels(number))]
        assert concepts_at(dataset, number) == painted(named), number
        present = {name for labels, names in named for label, name in names.items() if (labels == label).any()}
        assert dataset.samples[number].labels == present
    assert label_disagreements(dataset) == {}


def test_splits_of_the_index(root: Path) -> None:
    dataset = read_broden(root)
    held_out = [number % 5 in (0, 2, 3) for number in range(PICTURES)]
    assert ((dataset.splits == "train") == ~np.array(held_out)).all()
    assert set(dataset.splits[held_out]) == {"cal", "test"}
    assert ensure_splits(dataset) is dataset
    again = read_broden(root, categories=["part"], keep_unlabelled=False)
    splits = dict(zip(dataset.ids, dataset.splits, strict=True))
    assert [splits[name] for name in again.ids] == again.splits.tolist()


def test_names(root: Path) -> None:
    full = read_broden(root, names="full")
    assert full.concepts == (
        *("object::dog", "part::head", "object::chair", "part::chair", "object::sky", "part::leg, arm"),
    )
    merged = read_broden(root, names="merged")
    assert merged.concepts == ("object::dog", "part::head", "part::chair", "object::sky", "part::leg, arm")
    both = {30: "part::chair", 7: "object::dog", 255: "object::sky", 12: "part::head", 300: "part::leg, arm"}
    for number in (1, 7):
        named = [(labels, both) for labels in (object_labels(number), *part_labels(number))]
        assert concepts_at(merged, number) == painted(named)
    assert read_broden(root, categories=["object"]).concepts == ("dog", "chair", "sky")
    assert read_broden(root, categories=["color"]).concepts == ("black-c",)


def test_pictures_without_labels(root: Path) -> None:
    dataset = read_broden(root, categories=["part"])
    assert len(dataset) == PICTURES
    sample = dataset.samples[0]
    assert isinstance(sample, ImageSample)
    assert sample.labels == frozenset()
    np.testing.assert_array_equal(sample.load_mask(), np.zeros((1, HEIGHT, WIDTH)))
    assert read_broden(root, categories=["part"], keep_unlabelled=False).ids == [
        name for number, name in enumerate(dataset.ids) if number % 3
    ]


def test_rare_concepts(root: Path) -> None:
    objects, parts = [object_labels(n) for n in range(PICTURES)], [part_labels(n) for n in range(PICTURES)]
    counts = {NAMES[number]: sum((labels == number).any() for labels in objects) for number in (7, 255)}
    counts |= {NAMES[number]: sum(any((p == number).any() for p in planes) for planes in parts) for number in (12, 300)}
    counts["object::chair"] = sum((labels == 30).any() for labels in objects)
    counts["part::chair"] = sum(any((plane == 30).any() for plane in planes) for planes in parts)
    dataset = read_broden(root)
    assert {name: sum(name in (s.labels or ()) for s in dataset.samples) for name in dataset.concepts} == counts
    for least in sorted({int(count) for count in counts.values()}):
        kept = {name for name, count in counts.items() if count >= least}
        assert set(read_broden(root, min_images=least).concepts) == kept
    with pytest.raises(DataError, match="no label of object, part is in at least 41 pictures of pascal"):
        read_broden(root, min_images=PICTURES + 1)


def test_materials_and_whole_picture_labels(root: Path) -> None:
    surfaces = read_broden(root, dataset="opensurfaces")
    assert surfaces.concepts == ("wood",)
    labels = np.zeros(SMALL[::-1], dtype=np.int64)
    labels[2:11] = 301
    assert concepts_at(surfaces, 2) == painted([(labels, {301: "wood"})])
    textures = read_broden(root, dataset="dtd")
    assert textures.concepts == ("striped", "street-s", "texture::street-s"), "used in a category not its own"
    assert concepts_at(textures, 0) == [[{"striped", "street-s"}] * WIDTH] * HEIGHT
    everything = read_broden(root, dataset="")
    assert len(everything) == PICTURES + 6
    assert everything.name == "broden"


def test_the_papers_metadata(root: Path, tmp_path: Path) -> None:
    columns = ["object::dog", "part::chair", "object::sky", "part::head", "part::leg, arm"]
    path = mini_broden.write_metadata(tmp_path / "metadata.csv", columns)
    dataset = read_broden(root, metadata=str(path))
    assert dataset.concepts == tuple(columns)
    assert dataset.ids == [f"pascal/2008_{number:06d}" for number in (9, 2, 4, 0, 7, 5)]
    assert dataset.splits.tolist() == ["train", "cal", "test"] * 2
    assert label_disagreements(dataset) == {}
    merged = read_broden(root, names="merged")
    assert apply_paper_metadata(merged, path).samples[1].labels == dataset.samples[1].labels
    number = 7
    both = {30: "part::chair", 7: "object::dog", 255: "object::sky", 12: "part::head", 300: "part::leg, arm"}
    named = [(labels, both) for labels in (object_labels(number), *part_labels(number))]
    assert concepts_at(dataset, 4) == painted(named)
    (root / "metadata.csv").write_bytes(path.read_bytes())
    assert read_broden(root, metadata="metadata.csv").fingerprint == dataset.fingerprint


def test_metadata_of_another_data_set(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "metadata.csv"
    path.write_text("image_path,split,object::dog\nimages/other.jpg,train,1\n")
    with pytest.raises(DataError, match=r"none of its pictures is in the metadata"):
        read_broden(root, metadata=str(path))
    path = mini_broden.write_metadata(path, ["object::dog", "part::wheel"])
    with pytest.raises(DataError, match="column 'part::wheel' is no concept of the data"):
        read_broden(root, metadata=str(path))


def test_masks_are_sources_with_a_fingerprint(root: Path) -> None:
    first, again = read_broden(root), read_broden(root)
    assert first.samples == again.samples
    mini_broden.segmentation(root, "pascal/2008_000000_object.png", object_labels(1))
    assert first.fingerprint != read_broden(root).fingerprint


def change(root: Path, old: str, new: str, file: str = "index.csv") -> None:
    path = root / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_faults_are_told_together(root: Path) -> None:
    images = root / "images" / "pascal"
    (images / "2008_000000.jpg").unlink()
    (images / "2008_000001_object.png").unlink()
    (images / "2008_000002_object.png").write_text("no image")
    Image.new("L", SMALL).save(images / "2008_000003_object.png")
    Image.new("RGB", SMALL, (0, 0, 3)).save(images / "2008_000004_object.png")
    Image.new("RGB", SMALL, (8, 0, 0)).save(images / "2008_000005_object.png")
    Image.new("RGB", (WIDTH, HEIGHT)).save(images / "2008_000006_object.png")
    Image.new("RGB", (50, 48)).save(images / "2008_000007.jpg")
    with pytest.raises(DataError) as caught:
        read_broden(root)
    lines = str(caught.value).splitlines()
    assert "8 faults" in lines[0]
    index = root / "index.csv"
    for line, says in zip(
        range(2, 10),
        [
            "image 'pascal/2008_000000.jpg' does not exist",
            "2008_000001_object.png: cannot be read as an image",
            "2008_000002_object.png: cannot be read as an image",
            "its mode is 'L', but a segmentation of Broden is RGB",
            "has blue pixels",
            "has 8, which label.csv does not list",
            "says that segmentations are 31 x 24, but 2008_000006_object.png is 64 x 48",
            "says 64 x 48, but pascal/2008_000007.jpg is 50 x 48",
        ],
        strict=True,
    ):
        found = [text for text in lines if text.startswith(f"{index}:{line}: ")]
        assert len(found) == 1
        assert says in found[0]


@pytest.mark.parametrize(
    ("old", "new", "file", "says"),
    [
        ("7,dog,", "7.5,dog,", "label.csv", "number '7.5' must be a whole number"),
        ("7,dog,", "1,dog,", "label.csv", "needs a number and a name of its own"),
        ("7,dog,", "7,head,", "label.csv", "needs a number and a name of its own"),
        ("val,48,64", "val,48,wide", "index.csv", "must be whole numbers; got wide, 48"),
        ("2008_000001.jpg", "2008_000000.jpg", "index.csv", "is a duplicate of line 2"),
        ("2008_000000.jpg,val", "2008_000000.jpg", "index.csv", "has 11 cells, but the header has 12"),
    ],
)
def test_faults_of_the_tables(root: Path, old: str, new: str, file: str, says: str) -> None:
    change(root, old, new, file)
    with pytest.raises(DataError) as caught:
        read_broden(root)
    assert says in str(caught.value)
    assert f"{root / file}:" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"names": "long"}, "'long' is unknown"),
        ({"min_images": 0}, "at least 1"),
        ({"dataset": "pascall"}, "has no pictures of 'pascall'; did you mean 'pascal'"),
        ({"categories": ["colour"]}, "'colour' is unknown; did you mean 'color'"),
        ({"metadata": "nothing.csv"}, "no such file"),
    ],
)
def test_options_that_are_refused(root: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_broden(root, **options)


def test_other_folders(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no index\.csv"):
        read_broden(tmp_path)
    (tmp_path / "segmentations.pt").write_bytes(b"")
    with pytest.raises(DataError, match=r"segmentations\.pt is a pickle, which is not read"):
        read_broden(tmp_path)
    (root / "label.csv").unlink()
    with pytest.raises(DataError, match=r"label\.csv: cannot be read .* give the label\.csv of Broden"):
        read_broden(root)
    change(root, "image,split,ih", "file,split,ih")
    with pytest.raises(DataError, match="has no column 'image'"):
        read_broden(root)
    (root / "index.csv").write_text("image,split,ih,iw,sh,sw\n")
    with pytest.raises(DataError, match="has no column of a category"):
        read_broden(root)
