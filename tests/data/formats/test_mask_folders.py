"""Plain folders of images with masks: the layouts, what tells them apart, and every fault told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.formats import mini_mask_folders as mini
from data.formats.mini_pictures import COLOURS
from superactivators.data.dataset import ConceptDataset, ImageSample
from superactivators.data.formats.mask_folders import read_mask_folders
from superactivators.data.splits import ensure_splits
from superactivators.errors import DataError

BY_NAME = {picture.name: picture for made in mini.PARTS.values() for picture in made}
SPLIT = {
    p.name: {"train": "train", "val": "cal", "test": "test"}[part] for part, made in mini.PARTS.items() for p in made
}


def images(dataset: ConceptDataset) -> list[ImageSample]:
    return [sample for sample in dataset.samples if isinstance(sample, ImageSample)]


def stem(sample: ImageSample) -> str:
    return sample.id.rpartition("/")[2]


def carried(dataset: ConceptDataset, sample: ImageSample, concept: str) -> np.ndarray:
    mask = sample.load_mask()
    assert mask is not None
    return np.isin(mask, [key for key, names in dataset.classes.items() if concept in names]).any(axis=0)


def check_classes(dataset: ConceptDataset, splits: bool = True) -> None:
    """Ids as painted, whatever they are called."""
    assert len(dataset) == len(BY_NAME)
    for sample in images(dataset):
        np.testing.assert_array_equal(sample.load_mask(), mini.ids(BY_NAME[stem(sample)])[None])
        assert sample.split == (SPLIT[stem(sample)] if splits else None)


def test_masks_of_class_ids_in_split_folders(tmp_path: Path) -> None:
    dataset = ensure_splits(read_mask_folders(mini.build(tmp_path)))
    assert dataset.concepts == ("person", "car", "bus", "dog")
    assert dataset.classes == {1: ("person",), 2: ("car",), 7: ("bus",), 9: ("dog",)}
    assert "train/images/t000" in dataset.ids
    check_classes(dataset)


def test_split_folders_within_images_and_masks(tmp_path: Path) -> None:
    root, other = mini.build(tmp_path / "a"), tmp_path / "b"
    for part, name in (("train", "Training"), ("val", "valid"), ("test", "testing")):
        shutil.copytree(root / part / "images", other / "images" / name)
        shutil.copytree(root / part / "masks", other / "masks" / name)
    shutil.copy(root / "classes.json", other)
    check_classes(ensure_splits(read_mask_folders(other)))


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """``images`` and ``masks`` without splits."""
    root, other = mini.build(tmp_path / "a"), tmp_path / "flat"
    for part in mini.PARTS:
        shutil.copytree(root / part, other, dirs_exist_ok=True)
    shutil.copy(root / "classes.json", other)
    return other


def test_one_folder_without_splits(flat: Path) -> None:
    check_classes(read_mask_folders(flat), splits=False)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("1 person\n2 a car\n7\tbus\n9: dog\n255 void\n0 sky\n", ("person", "a car", "bus", "dog")),
        (
            "# names\n__ignore__\n_background_\nperson\ncar\n\nc\nd\ne\nf\nbus\nh\ndog\n",
            ("person", "car", "c", "d", "e", "f", "bus", "h", "dog"),
        ),
        ("person\ncar\nc\nd\ne\nf\nbus\nh\ndog\n", ("person", "car", "c", "d", "e", "f", "bus", "h", "dog")),
    ],
)
def test_names_in_a_text(flat: Path, text: str, names: tuple[str, ...]) -> None:
    (flat / "classes.json").unlink()
    (flat / "classes.txt").write_text(text)
    dataset = read_mask_folders(flat)
    assert dataset.concepts == names
    assert dataset.classes[7] == ("bus",)
    check_classes(dataset, splits=False)


def test_an_id_of_several_concepts_and_a_file_of_another_name(flat: Path) -> None:
    (flat / "classes.json").rename(flat / "legend.json")
    with pytest.raises(DataError, match=r"holds none of labelmap.txt, classes.json, classes.txt"):
        read_mask_folders(flat)
    (flat / "legend.json").write_text('{"1": ["person", "living"], "2": "car", "7": "bus", "9": ["dog", "living"]}')
    assert read_mask_folders(flat, names="legend.json").concepts == ("person", "living", "car", "bus", "dog")


def test_masks_in_colour(flat: Path) -> None:
    colours = {**COLOURS, "background": (0, 0, 0), "void": (255, 255, 255)}
    (flat / "labelmap.txt").write_text("".join(f"{n}:{r},{g},{b}::\n" for n, (r, g, b) in colours.items()))
    for name in BY_NAME:
        mask, pixels = mini.ids(BY_NAME[name]), np.zeros((48, 64, 3), dtype=np.uint8)
        for thing, identity in mini.IDS.items():
            pixels[mask == identity] = COLOURS[thing]
        pixels[mask == 255] = 255
        mini.save(flat / "masks" / f"{name}.png", pixels)
    dataset = read_mask_folders(flat)
    assert dataset.concepts == ("person", "car", "bus", "dog")
    for sample in images(dataset):
        mask = sample.load_mask()
        assert mask is not None
        painted = mini.ids(BY_NAME[stem(sample)])
        np.testing.assert_array_equal(mask[0] == 255, painted == 255)
        for thing, identity in mini.IDS.items():
            np.testing.assert_array_equal(carried(dataset, sample, thing), painted == identity)
    Image.fromarray(np.full((48, 64, 3), 7, dtype=np.uint8)).save(flat / "masks" / "t001.png")
    with pytest.raises(DataError, match=r"t001.png: holds the colour 7,7,7, which the colour table does not name"):
        read_mask_folders(flat)
    assert len(read_mask_folders(flat, check_masks=False)) == len(BY_NAME)


def test_a_colour_table_with_masks_of_one_channel(flat: Path) -> None:
    names = ["background", "person", "car", "c", "d", "e", "f", "bus", "h", "dog"]
    (flat / "labelmap.txt").write_text("".join(f"{name}:{n},0,{n}::\n" for n, name in enumerate(names)))
    check_classes(read_mask_folders(flat), splits=False)


def test_the_folders_of_cvat_and_of_other_names(flat: Path) -> None:
    for one, other in (("images", "JPEGImages"), ("masks", "SegmentationClass")):
        (flat / one).rename(flat / other)
    check_classes(read_mask_folders(flat), splits=False)
    (flat / "JPEGImages").rename(flat / "photos")
    with pytest.raises(
        DataError, match="photos and SegmentationClass hold files of the same names, as images and masks"
    ):
        read_mask_folders(flat)
    check_classes(read_mask_folders(flat, images="photos", masks="SegmentationClass"), splits=False)


def test_masks_of_each_concept(tmp_path: Path) -> None:
    dataset = ensure_splits(read_mask_folders(mini.build_concepts(tmp_path)))
    assert dataset.concepts == ("bus", "car", "dog", "person")
    depths = set()
    for sample in images(dataset):
        picture = BY_NAME[stem(sample)]
        for thing in dataset.concepts:
            np.testing.assert_array_equal(carried(dataset, sample, thing), picture.mask(thing), err_msg=sample.id)
        assert sample.split == SPLIT[picture.name]
        mask = sample.load_mask()
        assert mask is not None
        depths.add(len(mask))
    assert len(depths) > 1, "the miniature must hold concepts that overlap"


def test_masks_of_each_concept_in_split_folders(tmp_path: Path) -> None:
    flat, root = mini.build_concepts(tmp_path / "flat"), tmp_path / "parts"
    for name in BY_NAME:
        part = {"train": "train", "cal": "cal", "test": "test"}[SPLIT[name]]
        (root / part / "images").mkdir(parents=True, exist_ok=True)
        shutil.copy(flat / "images" / f"{name}.jpg", root / part / "images")
        for thing in BY_NAME[name].boxes:
            (root / part / "masks" / thing).mkdir(parents=True, exist_ok=True)
            shutil.copy(flat / "masks" / thing / f"{name}.png", root / part / "masks" / thing)
    dataset = ensure_splits(read_mask_folders(root))
    for sample in images(dataset):
        assert sample.split == SPLIT[stem(sample)]
        np.testing.assert_array_equal(carried(dataset, sample, "dog"), BY_NAME[stem(sample)].mask("dog"))


@pytest.mark.parametrize("parts", [True, False])
def test_a_folder_for_each_concept(tmp_path: Path, parts: bool) -> None:
    dataset = ensure_splits(read_mask_folders(mini.build_labels(tmp_path, parts)))
    assert dataset.concepts == ("bus", "car", "dog", "person")
    assert not dataset.has_token_labels
    for sample in images(dataset):
        assert sample.labels == frozenset({sample.id.split("/")[-2]})
        assert not parts or sample.split == SPLIT[stem(sample)]


def test_a_layout_may_be_forced(tmp_path: Path) -> None:
    mini.build(tmp_path)
    forced = read_mask_folders(tmp_path, layout="labels")
    assert forced.concepts == ("images", "masks"), "as folders of a classification tree these are concepts"
    with pytest.raises(DataError, match="holds neither masks nor a folder of masks for each concept"):
        read_mask_folders(tmp_path, layout="concepts")


def test_every_fault_of_masks_is_told(flat: Path) -> None:
    masks = flat / "masks"
    (masks / "t001.png").unlink()
    (masks / "t002.png").write_text("no mask")
    mini.save(masks / "t003.png", np.zeros((64, 48), dtype=np.uint8))
    mini.save(masks / "t004.png", np.full((48, 64), 5, dtype=np.uint8))
    mini.save(masks / "t005.png", np.zeros((48, 64, 3), dtype=np.uint8))
    mini.save(masks / "alone.png", np.zeros((48, 64), dtype=np.uint8))
    mini.save(masks / "t006.bmp", np.zeros((48, 64), dtype=np.uint8))
    with pytest.raises(DataError, match="7 faults") as caught:
        read_mask_folders(flat)
    for says in (
        "t001.png: has no mask of its name in masks; or set skip_unmasked",
        "t002.png: cannot be read as an image",
        "t003.png: is 48 x 64 pixels, but its image t003.png is 64 x 48",
        "t004.png: has ids that classes.json does not name: [5]",
        "t005.png: is in colour (mode 'RGB'), but classes.json gives ids; add a labelmap.txt",
        "alone.png: has no image of its name in images",
        "t006.png: has the same name as t006.bmp",
    ):
        assert says in str(caught.value), says


def test_images_without_mask_are_left_out_only_when_asked(flat: Path) -> None:
    (flat / "masks" / "t001.png").unlink()
    dataset = read_mask_folders(flat, skip_unmasked=True)
    assert len(dataset) == len(BY_NAME) - 1
    assert not any(sample.id.endswith("t001") for sample in dataset.samples)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("classes.json", "{", "is not readable JSON"),
        ("classes.json", "[]", "must be an object that maps mask ids to names"),
        ("classes.json", '{"x": "cat"}', "mask id 'x' must be a whole number"),
        ("classes.json", '{"1": []}', "mask id 1 must map to a name or a list of names"),
        ("classes.json", '{"0": "none"}', "names no class"),
        ("classes.txt", "1 cat\ndog\n", "classes.txt:2: has no id, but other lines have"),
        ("classes.txt", "1 cat\n1 dog\n", "classes.txt:2: id 1 comes twice"),
        ("classes.txt", "70000 cat\n", "classes.txt:1: id 70000 must be"),
        ("classes.txt", "1 cat\n2 void\n", "classes.txt:2: 'void' stands for unlabelled pixels"),
        ("classes.txt", "".join(f"c{n}\n" for n in range(256)), "classes.txt:255: would have the id 255"),
        ("classes.txt", "", "names no class"),
        ("labelmap.txt", "cat:1,2,3::\ndog\n", "labelmap.txt:2: must be name:red,green,blue::"),
    ],
)
def test_faults_of_the_names(flat: Path, name: str, text: str, says: str) -> None:
    (flat / "classes.json").unlink()
    (flat / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_mask_folders(flat)
    assert says in str(caught.value)


def test_faults_of_masks_of_each_concept(tmp_path: Path) -> None:
    mini.build_concepts(tmp_path)
    person = tmp_path / "masks" / "person"
    held = sorted(path.stem for path in person.iterdir())
    (person / f"{held[0]}.png").write_bytes((person / f"{held[0]}.png").read_bytes()[:60])
    mini.save(person / f"{held[1]}.png", np.zeros((64, 48), dtype=np.uint8))
    mini.save(person / "alone.png", np.zeros((48, 64), dtype=np.uint8))
    with pytest.raises(DataError, match="3 faults") as caught:
        read_mask_folders(tmp_path)
    for says in (f"{held[0]}.png", f"{held[1]}.png: is 48 x 64 pixels", "alone.png: has no image of its name"):
        assert says in str(caught.value), says


def test_faults_of_a_folder_for_each_concept(tmp_path: Path) -> None:
    mini.build_labels(tmp_path)
    (tmp_path / "train" / "car" / "bad.png").write_text("no image")
    mini.save(tmp_path / "train" / "stray.png", np.zeros((4, 4, 3), dtype=np.uint8))
    mini.save(tmp_path / "train" / "car" / "more" / "deep.png", np.zeros((4, 4, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="3 faults") as caught:
        read_mask_folders(tmp_path)
    for says in (
        "bad.png: cannot be read",
        "stray.png: lies in no concept's folder",
        "more: lies in a concept's folder",
    ):
        assert says in str(caught.value), says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,split\n", "needs the columns file and split; got name, split"),
        ("file,split\nnowhere,train\n", "splits.csv:2: file 'nowhere' is no image here"),
        ("file,split\nt001,dev1\n", "splits.csv:2: split 'dev1' is unknown"),
        ("file,split\nt001.png,train\nt001,test\n", "splits.csv:3: file 't001.png' has a split already"),
        ("file,split\nt001,train\n", "gives 'images/s000' no split; list every image"),
        ("file,split\nt001\n", "splits.csv:2: split '' is unknown"),
    ],
)
def test_faults_of_the_splits(flat: Path, text: str, says: str) -> None:
    (flat / "splits.csv").write_text(text)
    with pytest.raises(DataError) as caught:
        read_mask_folders(flat)
    assert says.replace("'t001.png' has", "'t001' has") in str(caught.value)


def test_splits_in_another_file(flat: Path) -> None:
    lines = ["split,file", *(f"{split},images/{name}.png" for name, split in SPLIT.items())]
    (flat / "folds.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    check_classes(ensure_splits(read_mask_folders(flat, splits="folds.csv")))
    with pytest.raises(DataError, match=r"none.csv: cannot be read as CSV"):
        read_mask_folders(flat, splits="none.csv")


@pytest.mark.parametrize(
    ("options", "says"),
    [({"layout": "coco"}, "option layout: 'coco' is unknown"), ({"images": "photos"}, "is none of the layouts")],
)
def test_wrong_options(flat: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_mask_folders(flat, **options)
    assert says in str(caught.value)


def test_folders_of_no_layout_say_what_they_hold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_mask_folders(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"it holds no folders and 0 images. Give images/ with masks/"):
        read_mask_folders(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.json").write_text(json.dumps({}))
    with pytest.raises(DataError, match="it holds docs and 0 images"):
        read_mask_folders(tmp_path)
