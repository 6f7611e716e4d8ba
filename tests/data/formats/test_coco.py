"""COCO's instances JSON: regions against plain loops, splits, exports of labelling tools, and every fault told."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.formats import mini_coco
from data.formats.mini_pictures import HEIGHT, WIDTH, Picture, pictures
from superactivators.data.dataset import ConceptDataset, ImageSample
from superactivators.data.formats.coco import read_coco
from superactivators.data.formats.coco_regions import RegionMask, coco_masks, encode_region
from superactivators.data.formats.dealing import deal
from superactivators.data.formats.held_out import split_in_three
from superactivators.data.formats.planes import class_ids, pack_planes
from superactivators.data.splits import ensure_splits
from superactivators.errors import DataError

ABOVE = {"car": "vehicle", "bus": "vehicle", "dog": "animal", "person": "person"}


def pixels_of(dataset: ConceptDataset, sample: ImageSample, concept: str) -> np.ndarray:
    """Pixels that carry a concept, by the data set's own rule."""
    mask = sample.load_mask()
    assert mask is not None
    ids = [number for number, names in dataset.classes.items() if concept in names]
    return np.isin(mask, ids).any(axis=0)


def images(dataset: ConceptDataset) -> list[ImageSample]:
    return [sample for sample in dataset.samples if isinstance(sample, ImageSample)]


def write(folder: Path, content: Any, made: list[Picture] | None = None) -> Path:
    """Write an instances file and its images beside it, as CVAT does."""
    mini_coco.write_images(folder / "images", made or [])
    path = folder / "annotations" / "instances_default.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mini_coco.build(tmp_path_factory.mktemp("coco2017"))


def test_every_notation_gives_the_pixels_of_its_object(mini: Path) -> None:
    dataset = read_coco(mini)
    assert dataset.concepts == mini_coco.CONCEPTS
    by_name = {picture.name: picture for picture in mini_coco.TRAIN + mini_coco.VAL}
    assert dataset.ids == list(by_name)
    overlaps = 0
    for sample in images(dataset):
        picture = by_name[sample.id]
        mask = sample.load_mask()
        assert mask is not None
        assert mask.dtype == np.uint16
        np.testing.assert_array_equal(np.asarray(sample.load_image()), picture.pixels)
        for concept in dataset.concepts:
            wanted = picture.mask(concept)
            for thing, above in ABOVE.items():
                if above == concept:
                    wanted = wanted | picture.mask(thing)
            np.testing.assert_array_equal(pixels_of(dataset, sample, concept), wanted, err_msg=f"{sample.id} {concept}")
        depth = sum(picture.mask(thing).astype(int) for thing in picture.boxes)
        assert len(mask) == max(1, int(np.max(depth)))
        overlaps += len(mask) > 1
    assert overlaps > 3, "the miniature must hold objects that overlap"
    assert any(not by_name[sample.id].boxes for sample in images(dataset)), "and images without objects"


def test_train_and_halves_of_val(mini: Path) -> None:
    dataset = ensure_splits(read_coco(mini))
    for sample in images(dataset):
        original = "train" if sample.id in {picture.name for picture in mini_coco.TRAIN} else "val"
        assert sample.split == split_in_three(original, f"{sample.id}.png")
    assert {"train", "cal", "test"} == set(dataset.splits.tolist())


@pytest.mark.parametrize(
    ("concepts", "names"),
    [("categories", ("person", "car", "bus", "dog")), ("supercategories", ("person", "vehicle", "animal"))],
)
def test_one_kind_of_concepts(mini: Path, concepts: str, names: tuple[str, ...]) -> None:
    whole, part = read_coco(mini), read_coco(mini, concepts=concepts)
    assert part.concepts == names
    for full, sample in zip(images(whole), images(part), strict=True):
        for name in names:
            np.testing.assert_array_equal(pixels_of(part, sample, name), pixels_of(whole, full, name))


def test_without_crowds_boxes_or_small_objects(mini: Path) -> None:
    content = json.loads((mini / "annotations" / "instances_val2017.json").read_text())

    def wanted(keep: Callable[[dict[str, Any]], bool]) -> list[list[bool]]:
        kept = [a for a in content["annotations"] if keep(a)]
        held = [{a["category_id"] for a in kept if a["image_id"] == image["id"]} for image in content["images"]]
        return [[mini_coco.IDS[name] in ids for name in ("person", "car", "bus", "dog")] for ids in held]

    def found(**options: Any) -> list[list[bool]]:
        dataset = read_coco(mini / "annotations" / "instances_val2017.json", concepts="categories", **options)
        return [[bool(pixels_of(dataset, s, name).any()) for name in dataset.concepts] for s in images(dataset)]

    assert found() == wanted(lambda a: True)
    assert found(crowd=False) == wanted(lambda a: not a["iscrowd"])
    assert found(boxes=False) == wanted(lambda a: a["segmentation"] != [])
    assert found(min_area=300) == wanted(lambda a: a["area"] >= 300)
    assert found() != found(crowd=False) != found(boxes=False) != found(min_area=300)


def test_area_is_measured_where_the_file_has_none(tmp_path: Path) -> None:
    made = pictures(8)
    content = mini_coco.instances(made)
    path = write(tmp_path, content, made)
    given = read_coco(path, min_area=300)
    for annotation in content["annotations"]:
        del annotation["area"]
    assert read_coco(write(tmp_path, content, made), min_area=300).fingerprint == given.fingerprint


def test_the_papers_split_cal_from_train_the_rest_from_val(mini: Path) -> None:
    train, val = "annotations/instances_train2017.json", "annotations/instances_val2017.json"
    options: dict[str, Any] = {"splits": {"train": val, "cal": train, "test": val}, "counts": {"cal": 6, "test": 9}}
    dataset = read_coco(mini, **options)
    of_split = {split: {s.id for s in dataset.samples if s.split == split} for split in ("train", "cal", "test")}
    assert {split: len(ids) for split, ids in of_split.items()} == {"train": 15, "cal": 6, "test": 9}
    assert of_split["cal"] <= {picture.name for picture in mini_coco.TRAIN}
    assert of_split["train"] | of_split["test"] == {picture.name for picture in mini_coco.VAL}
    assert read_coco(mini, **options).fingerprint == dataset.fingerprint
    assert read_coco(mini, **options, seed=1).fingerprint != dataset.fingerprint


def test_the_papers_metadata_chooses_images_and_gives_splits_and_labels(mini: Path, tmp_path: Path) -> None:
    chosen = [*mini_coco.VAL[3:9], *mini_coco.TRAIN[2:5]]
    lines = ["image_path,split,car,vehicle,dog"]
    for number, picture in enumerate(chosen):
        held = [any(ABOVE.get(t) == c or t == c for t in picture.boxes) for c in ("car", "vehicle", "dog")]
        split = ("train", "cal", "test")[number % 3]
        lines.append(f"Coco/{picture.name}.png,{split},{','.join(str(int(flag)) for flag in held)}")
    table = tmp_path / "metadata.csv"
    table.write_text("\n".join(lines))
    dataset = ensure_splits(read_coco(mini, metadata=str(table)))
    assert dataset.ids == [picture.name for picture in chosen]
    assert dataset.concepts == ("car", "vehicle", "dog")
    for sample, picture in zip(images(dataset), chosen, strict=True):
        assert sample.labels is not None
        assert ("vehicle" in sample.labels) == bool({"car", "bus"} & set(picture.boxes))
        np.testing.assert_array_equal(pixels_of(dataset, sample, "car"), picture.mask("car"))
    with pytest.raises(DataError, match="metadata gives the splits"):
        read_coco(mini, metadata=str(table), counts={"cal": 1})


def roboflow(folder: Path, parts: tuple[str, ...] = ("train", "valid", "test")) -> Path:
    """An export with images beside the file, a root category, and copies of one picture."""
    for number, part in enumerate(parts):
        made = [
            Picture(f"{p.name}_png.rf.{part}{copy_}", p.pixels, p.boxes)
            for p in pictures(6, part, number)
            for copy_ in "ab"
        ]
        content = mini_coco.instances(made)
        content["categories"] = [
            {"id": 0, "name": "things", "supercategory": "none"},
            *({**category, "supercategory": "things"} for category in mini_coco.CATEGORIES),
        ]
        mini_coco.write_images(folder / part, made)
        (folder / part / "_annotations.coco.json").write_text(json.dumps(content))
    return folder


def test_a_roboflow_export(tmp_path: Path) -> None:
    dataset = ensure_splits(read_coco(roboflow(tmp_path)))
    assert dataset.concepts == ("person", "car", "bus", "dog"), "neither the root nor 'none' is a concept"
    assert {s.split for s in dataset.samples if s.id.startswith("valid")} == {"cal"}
    assert {s.group for s in dataset.samples if s.split == "test"} == {f"test{n:03d}_png" for n in range(6)}


def test_a_roboflow_export_without_test(tmp_path: Path) -> None:
    dataset = read_coco(roboflow(tmp_path, ("train", "valid")))
    assert {s.split for s in dataset.samples if s.id.startswith("valid")} == {"cal", "test"}


@pytest.mark.parametrize("above", [None, "", "none", "absent"])
def test_no_supercategories(tmp_path: Path, above: str | None) -> None:
    made = pictures(6)
    content = copy.deepcopy(mini_coco.instances(made))
    for category in content["categories"]:
        category["supercategory"] = above
        if above == "absent":
            del category["supercategory"]
    dataset = read_coco(write(tmp_path, content, made))
    assert dataset.concepts == ("person", "car", "bus", "dog")
    assert not dataset.splits[0], "an export without splits leaves them open"


def test_a_category_and_a_wider_supercategory_of_one_name(tmp_path: Path) -> None:
    made = pictures(16)
    content = copy.deepcopy(mini_coco.instances(made))
    for category in content["categories"]:
        category["supercategory"] = "car"
    dataset = read_coco(write(tmp_path, content, made))
    assert dataset.concepts == ("person", "car", "bus", "dog")
    for sample, picture in zip(images(dataset), made, strict=True):
        wanted = np.any([picture.mask(thing) for thing in dataset.concepts], axis=0)
        np.testing.assert_array_equal(pixels_of(dataset, sample, "car"), wanted)


@pytest.mark.parametrize("style", ["{}.png", "val/{}.png", "..\\..\\upload\\{}.png", "/data/upload/{}.png"])
def test_file_names_with_folders(tmp_path: Path, style: str) -> None:
    made = pictures(4)
    content = mini_coco.instances(made)
    for image, picture in zip(content["images"], made, strict=True):
        image["file_name"] = style.format(picture.name)
    dataset = read_coco(write(tmp_path, content, made))
    assert [sample.image for sample in images(dataset)] == [tmp_path / "images" / f"{p.name}.png" for p in made]


def test_equal_file_names_of_two_folders_are_told_apart(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "valid", "test")):
        made = pictures(4, "same", number)
        mini_coco.write_images(tmp_path / part, made)
        (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(mini_coco.instances(made)))
    dataset = ensure_splits(read_coco(tmp_path))
    assert dataset.ids[0] == "train/same000.png"
    assert len(set(dataset.ids)) == 12


def test_missing_images_are_left_out_only_when_asked(tmp_path: Path) -> None:
    made = pictures(6)
    path = write(tmp_path, mini_coco.instances(made), made)
    (tmp_path / "images" / "p002.png").unlink()
    with pytest.raises(DataError, match=r"image 'p002.png' is not there; name its folder with the option images"):
        read_coco(path)
    assert read_coco(path, skip_missing=True).ids == ["p000", "p001", "p003", "p004", "p005"]


Change = Callable[[dict[str, Any]], object]
FAULTS: list[tuple[Change, str]] = [
    (
        lambda c: c["annotations"][0].update(image_id=99999),
        "annotation 1000 is of image 99999, which the file does not",
    ),
    (lambda c: c["annotations"][0].update(image_id=[1]), "is of image [1], which the file does not list"),
    (lambda c: c["annotations"][0].pop("image_id"), "is of image None"),
    (lambda c: c["annotations"][0].update(category_id=2), "annotation 1000 is of category 2, which the file does not"),
    (lambda c: c["annotations"][0].update(category_id="1"), "is of category '1', which the file does not list"),
    (lambda c: c["annotations"][0].update(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "it has 7 numbers"),
    (lambda c: c["annotations"][0].update(segmentation=[["a"] * 6]), "a polygon must be a list of numbers"),
    (
        lambda c: c["annotations"][0].update(segmentation=[[0, 0, 1e9, 0, 1e9, 1e9]]),
        "a polygon is far outside its image",
    ),
    (lambda c: c["annotations"][0].update(segmentation="x"), "segmentation must be a list of polygons"),
    (lambda c: c["annotations"][0].update(segmentation={"counts": [1]}), "run lengths are of size None"),
    (
        lambda c: c["annotations"][0].update(segmentation={"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}),
        "run lengths are of size [64, 48], but the image's height and width are [48, 64]",
    ),
    (
        lambda c: c["annotations"][0].update(segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 6]}),
        "run lengths sum to 11, but the image has 48 x 64 = 3072 pixels",
    ),
    (
        lambda c: c["annotations"][0].update(segmentation={"size": [HEIGHT, WIDTH], "counts": "~~"}),
        "are not in COCO's compressed notation",
    ),
    (
        lambda c: c["annotations"][0].update(segmentation={"size": [HEIGHT, WIDTH], "counts": "11"}),
        "run lengths sum to 2, but",
    ),
    (
        lambda c: c["annotations"][0].update(segmentation={"size": [HEIGHT, WIDTH], "counts": None}),
        "run lengths must be a list of whole numbers or a string",
    ),
    (lambda c: c["annotations"][0].update(segmentation=[], bbox=[1, 2, 3]), "bbox must be four numbers"),
    (lambda c: c["annotations"][0].update(segmentation=[], bbox=[1, 2, -3, 4]), "width and height of at least 0"),
    (lambda c: c["images"][1].update(id=1), "image id 1 comes twice"),
    (lambda c: c["images"][1].pop("id"), "images[1] needs an 'id'"),
    (lambda c: c["images"][1].update(file_name=""), "image 8 needs a 'file_name'"),
    (lambda c: c["images"][1].update(width=65), "'p001.png' is 65 x 48 pixels here, but the file has 64 x 48"),
    (lambda c: c["images"][1].update(width=48, height=64), "turn its pixels as its EXIF orientation says"),
    (lambda c: c["images"][1].update(width="64"), "width and height must be whole numbers"),
    (lambda c: c["images"][1].update(file_name="nowhere.png"), "image 'nowhere.png' is not there"),
    (lambda c: c["images"][1].update(file_name="p000.png"), "is listed twice"),
    (lambda c: c["categories"][1].update(id=1), "category id 1 comes twice"),
    (lambda c: c["categories"][1].update(name=" "), "categories[1] needs a whole number 'id' and a 'name'"),
    (lambda c: c["categories"][1].update(supercategory=4), "'supercategory' must be a string; got 4"),
]


@pytest.mark.parametrize(("change", "says"), FAULTS, ids=[says[:40] for _, says in FAULTS])
def test_every_fault_is_told(tmp_path: Path, change: Change, says: str) -> None:
    made = pictures(6)[1:]
    made = [Picture(f"p{number:03d}", p.pixels, p.boxes) for number, p in enumerate(made)]
    content = copy.deepcopy(mini_coco.instances(made))
    change(content)
    with pytest.raises(DataError) as caught:
        read_coco(write(tmp_path, content, made))
    assert says in str(caught.value)


def test_faults_are_told_together(tmp_path: Path) -> None:
    made = pictures(6)
    content = mini_coco.instances(made)
    for image in content["images"]:
        image["width"] = 63
    with pytest.raises(DataError, match="6 faults"):
        read_coco(write(tmp_path, content, made))


WRONG: list[tuple[Any, str]] = [
    ("{", "is not JSON"),
    ("\x00\x01", "is not JSON"),
    (5, "must be a JSON object"),
    ([{"image_id": 1, "category_id": 1, "score": 0.5}], "is a list, as files of detection results are"),
    ({"images": [], "annotations": [{"image_id": 1, "id": 1, "caption": "A dog."}]}, "is a captions file"),
    ({"images": [], "annotations": [{"segments_info": []}], "categories": []}, "is a panoptic file"),
    (
        {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person", "keypoints": ["nose"]}]},
        "is a keypoints file",
    ),
    ({"images": [], "categories": []}, "lists images without annotations"),
    ({"images": [], "annotations": []}, "needs a list of objects 'categories'"),
    ({"images": [3], "annotations": [], "categories": []}, "needs a list of objects 'images'"),
    ({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}, "lists no images that can be read"),
]


@pytest.mark.parametrize(("content", "says"), WRONG, ids=[says[:30] for _, says in WRONG])
def test_files_of_another_kind_are_named(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_coco(write(tmp_path, content))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concepts": "all"}, "option concepts: 'all' is unknown; Known: both, categories, supercategories"),
        ({"splits": {"dev": "x"}}, "option splits: 'dev' is no split"),
        ({"splits": {"train": "none.json"}}, "cannot be read"),
        ({"counts": {"cal": 3}}, "option counts needs the option splits"),
        ({"splits": {"cal": "annotations/instances_val2017.json"}, "counts": {"cal": 0}}, "at least 1; got 0"),
        ({"splits": {"cal": "annotations/instances_val2017.json"}, "counts": {"cal": 99}}, "asks for 99 of them"),
        ({"images": "nowhere"}, "is no folder; give the one that holds the image files"),
    ],
)
def test_wrong_options(mini: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_coco(mini, **options)
    assert says in str(caught.value)


def test_folders_without_or_with_several_instance_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no COCO instances JSON"):
        read_coco(tmp_path)
    for name in ("a", "b"):
        (tmp_path / f"instances_{name}.json").write_text("{}")
    with pytest.raises(DataError, match=r"several instance files \(instances_a.json, instances_b.json\)"):
        read_coco(tmp_path)


def inside(x: float, y: float, polygon: list[float]) -> bool:
    """Whether a point is in a polygon, by counting the edges to its right."""
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    crossings = 0
    for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
        if (y1 > y) != (y2 > y) and x < x1 + (y - y1) / (y2 - y1) * (x2 - x1):
            crossings += 1
    return crossings % 2 == 1


def distance(x: float, y: float, polygon: list[float]) -> float:
    """Distance of a point to the nearest edge."""
    points = [np.array(p) for p in zip(polygon[::2], polygon[1::2], strict=True)]
    best, here = np.inf, np.array([x, y])
    for one, other in zip(points, points[1:] + points[:1], strict=True):
        along = other - one
        share = np.clip(np.dot(here - one, along) / max(np.dot(along, along), 1e-12), 0, 1)
        best = min(best, float(np.linalg.norm(here - one - share * along)))
    return best


def test_slanted_polygons_hold_the_pixels_inside_them() -> None:
    rng = np.random.default_rng(3)
    far = 0
    for _ in range(12):
        polygon = (rng.random(8) * np.tile([30.0, 20.0], 4)).round(2).tolist()
        region = encode_region([polygon], None, 20, 30, True)
        assert isinstance(region, bytes)
        painted = RegionMask(20, 30, ((1, region),)).load()[0]
        for y in range(20):
            for x in range(30):
                if distance(x + 0.5, y + 0.5, polygon) > 1:
                    far += 1
                    assert bool(painted[y, x]) == inside(x + 0.5, y + 0.5, polygon), (polygon, x, y)
    assert far > 1000


def test_compressed_and_plain_run_lengths_are_one() -> None:
    rng = np.random.default_rng(4)
    for density in (0, 0.02, 0.5, 1):
        mask = rng.random((37, 41)) < density
        plain = mini_coco.runs(mask)
        one = encode_region({"size": [37, 41], "counts": plain}, None, 37, 41, True)
        other = encode_region({"size": [37, 41], "counts": mini_coco.compressed(plain)}, None, 37, 41, True)
        assert isinstance(one, bytes)
        assert one == other
        np.testing.assert_array_equal(RegionMask(37, 41, ((3, one),)).load()[0], mask * 3)


def test_the_order_of_regions_does_not_matter(mini: Path) -> None:
    for sample in images(read_coco(mini)):
        mask = sample.mask
        assert isinstance(mask, RegionMask)
        turned = RegionMask(mask.height, mask.width, mask.regions[::-1])
        np.testing.assert_array_equal(mask.load(), turned.load())
        assert mask.content() == turned.content()


def test_what_is_changed_shows_in_the_content() -> None:
    mask = RegionMask(4, 4, ((1, b"04"),))
    assert (
        len({mask.content(), RegionMask(4, 4, ((2, b"04"),)).content(), RegionMask(4, 5, ((1, b"04"),)).content()}) == 3
    )


def test_planes_hold_every_pair_of_class_and_pixel() -> None:
    rng = np.random.default_rng(0)
    masks = [(number, rng.random((9, 7)) < 0.4) for number in (1, 2, 254, 256, 300)]
    planes = pack_planes(masks, (9, 7))
    for number, mask in masks:
        np.testing.assert_array_equal((planes == number).any(axis=0), mask)
        assert ((planes == number).sum(axis=0) <= 1).all()
    assert len(planes) == sum(mask.astype(int) for _, mask in masks).max()
    assert pack_planes([], (2, 3)).tolist() == [[[0, 0, 0], [0, 0, 0]]]


def test_class_ids_leave_out_what_means_unlabelled() -> None:
    assert class_ids(0) == []
    assert class_ids(254) == list(range(1, 255))
    assert class_ids(256) == [*range(1, 255), 256, 257]


def test_dealing_does_not_depend_on_the_order() -> None:
    ids = [f"i{number}" for number in range(11)]
    dealt = deal(ids, ("cal", "test", "train"), {"cal": 3, "other": 2}, 5, "set")
    assert dealt == deal(ids[::-1], ("train", "test", "cal"), {"cal": 3}, 5, "set")
    assert sorted(dealt) == sorted(ids)
    assert [list(dealt.values()).count(split) for split in ("train", "cal", "test")] == [4, 3, 4]
    assert [*deal(ids, ("cal",), {"cal": 3}, 5, "set").values()] == ["cal"] * 3
    assert [list(deal(ids, ("cal", "test"), {}, 0, "s").values()).count(s) for s in ("cal", "test")] == [6, 5]


def test_the_package_that_paints_outlines_may_be_missing(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco_masks.cache_clear()
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(DataError, match=r"need the package pycocotools; pip install 'superactivators\[data\]'"):
        read_coco(mini)


def test_a_data_set_is_named_after_its_folder(mini: Path) -> None:
    assert read_coco(mini).name == read_coco(mini / "annotations" / "instances_val2017.json").name == mini.name


def test_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    made = pictures(4)
    path = write(tmp_path, mini_coco.instances(made), made)
    (tmp_path / "images" / "p001.png").write_text("no picture")
    with pytest.raises(DataError, match=r"p001.png: cannot be read as an image"):
        read_coco(path)


def test_sizes_may_be_left_out_of_the_file(tmp_path: Path) -> None:
    made = pictures(4)
    content = mini_coco.instances(made)
    path = write(tmp_path, content, made)
    before = read_coco(path).fingerprint
    for image in content["images"]:
        del image["width"], image["height"]
    assert read_coco(write(tmp_path, content)).fingerprint == before
