"""VOC's folders: palette and colour masks, lists, CVAT's exports of the layout, and every fault told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.formats import mini_voc
from superactivators.data.dataset import ConceptDataset, ImageSample
from superactivators.data.faults import Faults
from superactivators.data.formats.colour_codes import ColourMask, read_labelmap, voc_colour
from superactivators.data.formats.held_out import split_in_three
from superactivators.data.formats.voc import CLASSES, read_voc
from superactivators.data.splits import ensure_splits
from superactivators.errors import DataError

BY_NAME = {picture.name: picture for picture in mini_voc.TRAIN + mini_voc.VAL}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return mini_voc.build(tmp_path) / "VOCdevkit" / "VOC2012"


def images(dataset: ConceptDataset) -> list[ImageSample]:
    return [sample for sample in dataset.samples if isinstance(sample, ImageSample)]


def same_masks(dataset: ConceptDataset) -> None:
    for sample in images(dataset):
        np.testing.assert_array_equal(sample.load_mask(), mini_voc.ids(BY_NAME[sample.id])[None], err_msg=sample.id)


@pytest.mark.parametrize("given", [".", "..", "../.."])
def test_the_listed_images_with_their_ids(root: Path, given: str) -> None:
    dataset = ensure_splits(read_voc(root / given, check_masks=True))
    assert dataset.name == "VOC2012"
    assert dataset.concepts == CLASSES
    assert dataset.classes == {number: (name,) for number, name in enumerate(CLASSES, start=1)}
    assert {CLASSES[number - 1] for number in mini_voc.IDS.values()} == set(mini_voc.IDS)
    assert dataset.ids == list(BY_NAME), "the images that no list names are left alone"
    same_masks(dataset)
    for sample in images(dataset):
        original = "train" if sample.id.startswith("2007") else "val"
        assert sample.split == split_in_three(original, sample.id)


def test_masks_in_colour_or_of_one_channel_hold_the_same(root: Path) -> None:
    for number, picture in enumerate([*BY_NAME.values()]):
        path = root / "SegmentationClass" / f"{picture.name}.png"
        if number % 2:
            Image.fromarray(mini_voc.ids(picture)).save(path)
        else:
            with Image.open(path) as opened:
                opened.convert("RGB").save(path)
    dataset = read_voc(root, check_masks=True)
    assert sum(isinstance(sample.mask, ColourMask) for sample in images(dataset)) == len(BY_NAME) / 2
    same_masks(dataset)


def test_a_colour_that_is_no_class_is_told(root: Path) -> None:
    path = root / "SegmentationClass" / "2007_00001.png"
    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB")).copy()
    pixels[3, 4] = (1, 2, 3)
    Image.fromarray(pixels).save(path)
    sample = images(read_voc(root))[1]
    with pytest.raises(DataError, match=r"2007_00001.png: holds the colour 1,2,3, which the colour table does not"):
        sample.load_mask()
    with pytest.raises(DataError, match=r"1 fault;.*\n.*holds the colour 1,2,3"):
        read_voc(root, check_masks=True)


def test_other_masks_and_lists(root: Path) -> None:
    """The augmented set has masks of one channel elsewhere, and lists of paths."""
    lists = root / "ImageSets" / "Segmentation"
    for picture in mini_voc.OTHER + mini_voc.VAL:
        mini_voc.save_palette(root / "SegmentationClassAug" / f"{picture.name}.png", mini_voc.ids(picture))
    lines = [f"/JPEGImages/{p.name}.jpg /SegmentationClassAug/{p.name}.png" for p in mini_voc.OTHER]
    (lists / "train_aug.txt").write_text("\n".join(lines) + "\n\n")
    dataset = read_voc(root, masks="SegmentationClassAug", sets={"train": "train_aug", "val": "val"})
    assert [s.id for s in dataset.samples if s.split == "train"] == [p.name for p in mini_voc.OTHER]
    direct = read_voc(root, sets={"train": "train", "cal": "ImageSets/Segmentation/val.txt"})
    assert (direct.splits == "cal").sum() == len(mini_voc.VAL)


def test_lists_with_flags_as_in_main(root: Path) -> None:
    (root / "ImageSets" / "Segmentation" / "car.txt").write_text("2007_00000 -1\n2007_00001  1\n")
    assert read_voc(root, sets={"train": "car"}).ids == ["2007_00000", "2007_00001"]


def test_an_export_of_cvat(root: Path) -> None:
    lists = root / "ImageSets" / "Segmentation"
    for path in lists.iterdir():
        path.unlink()
    (lists / "default.txt").write_text("".join(f"{name}\n" for name in list(BY_NAME)[:8]))
    colours = {"background": (0, 0, 0), "a:car": (10, 0, 0), "bus": (0, 10, 0), "ignored": (9, 9, 9), "dog": (0, 0, 10)}
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\n" + "".join(f"{n}:{r},{g},{b}::\n" for n, (r, g, b) in colours.items())
    )
    wanted = {}
    for name in list(BY_NAME)[:8]:
        ids = np.random.default_rng(len(wanted)).integers(0, 5, (48, 64))
        Image.fromarray(np.array([*colours.values()], dtype=np.uint8)[ids]).save(
            root / "SegmentationClass" / f"{name}.png"
        )
        wanted[name] = np.array([0, 1, 2, 255, 3])[ids]
    dataset = read_voc(root, check_masks=True)
    assert dataset.concepts == ("a:car", "bus", "dog")
    assert not any(dataset.splits), "a list of no split leaves them open"
    for sample in images(dataset):
        np.testing.assert_array_equal(sample.load_mask(), wanted[sample.id][None])


def test_vocs_palette() -> None:
    colours = mini_voc.palette()
    assert [voc_colour(number) for number in range(256)] == [tuple(colours[3 * n : 3 * n + 3]) for n in range(256)]
    assert voc_colour(15) == (192, 128, 128)
    assert voc_colour(255) == (224, 224, 192)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("car", "must be name:red,green,blue::"),
        ("car:1,2::", "must be name:red,green,blue::"),
        ("car:1,2,256::", "must be name:red,green,blue::"),
        (":1,2,3::", "must be name:red,green,blue::"),
        ("bus:9,9,9::", "name 'bus' comes twice"),
        ("car:1,1,1::", "'car' has the colour of 'bus'"),
        ("\ufffe", "must be name:red,green,blue::"),
    ],
)
def test_faults_of_a_colour_table(tmp_path: Path, line: str, says: str) -> None:
    path, faults = tmp_path / "labelmap.txt", Faults()
    path.write_text(f"bus:1,1,1::\n{line}\n", encoding="utf-8")
    read_labelmap(path, faults)
    assert [(fault.line, says in fault.message) for fault in faults] == [(2, True)]


def add(root: Path, name: str, text: str) -> None:
    path = root / "ImageSets" / "Segmentation" / f"{name}.txt"
    path.write_text(path.read_text() + text)


def test_every_fault_is_told(root: Path) -> None:
    (root / "JPEGImages" / "2007_00001.jpg").unlink()
    (root / "SegmentationClass" / "2007_00002.png").unlink()
    (root / "SegmentationClass" / "2007_00003.png").write_text("no mask")
    mini_voc.save_palette(root / "SegmentationClass" / "2007_00004.png", np.zeros((64, 48), dtype=np.uint8))
    mini_voc.save_palette(root / "SegmentationClass" / "2007_00005.png", np.full((48, 64), 21, dtype=np.uint8))
    add(root, "val", "2007_00006\nnowhere\n")
    with pytest.raises(DataError, match="7 faults") as caught:
        read_voc(root, check_masks=True)
    for says in (
        "train.txt:2: '2007_00001' has no image in JPEGImages",
        "train.txt:3: '2007_00002' has no mask in SegmentationClass",
        "2007_00003.png: cannot be read as an image",
        "2007_00004.png: is 48 x 64 pixels, but its image 2007_00004.jpg is 64 x 48",
        "2007_00005.png: has ids that are no classes: [21]",
        "val.txt:25: '2007_00006' is also in train.txt, line 7",
        "val.txt:26: 'nowhere' has no image in JPEGImages",
    ):
        assert says in str(caught.value), says


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"masks": "SegmentationObject"}, "its ids count objects and name no class"),
        ({"masks": "Nothing"}, "has no folder 'Nothing' of masks"),
        ({"sets": {"dev": "val"}}, "option sets: 'dev' is no split"),
        ({"sets": {"cal": "nowhere"}}, "cannot be read as a set list"),
    ],
)
def test_wrong_options(root: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_voc(root, **options)
    assert says in str(caught.value)


def test_folders_of_another_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no folder JPEGImages"):
        read_voc(tmp_path)
    for year in ("VOC2007", "VOC2012"):
        (tmp_path / year / "JPEGImages").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds several years \(VOC2007, VOC2012\)"):
        read_voc(tmp_path)
    (tmp_path / "VOC2007" / "SegmentationClass").mkdir()
    with pytest.raises(DataError, match="holds no set lists"):
        read_voc(tmp_path / "VOC2007")
