"""CLEVR: pictures painted by hand, so that every mask is known pixel by pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data.formats import mini_clevr
from data.formats.mini_clevr import paint, solid, write_scene
from superactivators.data.dataset import VOID, ConceptDataset, ImageSample
from superactivators.data.formats.clevr import read_clevr
from superactivators.data.formats.clevr_masks import ColouredObject, coloured
from superactivators.data.splits import ensure_splits
from superactivators.errors import DataError


def image_sample(dataset: ConceptDataset, name: str) -> ImageSample:
    found = dataset.samples[dataset.ids.index(name)]
    assert isinstance(found, ImageSample)
    return found


def concepts_at(dataset: ConceptDataset, name: str) -> list[list[frozenset[str] | None]]:
    """Concepts of every pixel as the mask says; None where it is void."""
    mask = image_sample(dataset, name).load_mask()
    assert mask is not None
    (plane,) = mask
    return [
        [None if value == VOID else frozenset(dataset.classes.get(int(value), ())) for value in row] for row in plane
    ]


def painted(things: list[dict[str, Any]]) -> list[list[frozenset[str] | None]]:
    """Concepts of every pixel as the painter says."""
    names = [frozenset(), *(frozenset({f"color::{t['color']}", f"shape::{t['shape']}"}) for t in things)]
    return [[names[value] for value in row] for row in paint(things)[1].tolist()]


def test_the_colour_rule_compares_all_pairs_of_channels() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    picture[:20] = picture[:20, :, :1] + rng.integers(0, 30, (20, 30, 3), dtype=np.uint8)
    for tolerance in (0, 20, 254):
        found = coloured(picture, tolerance)
        for y in range(40):
            for x in range(30):
                r, g, b = (int(value) for value in picture[y, x])
                assert found[y, x] == (abs(r - g) > tolerance or abs(r - b) > tolerance or abs(g - b) > tolerance)
    exact = np.array([[[100, 120, 110], [100, 121, 110]]], dtype=np.uint8)
    assert coloured(exact).tolist() == [[False, True]], "more than 20, not 20"


def test_pictures_of_one_object(tmp_path: Path) -> None:
    dataset = read_clevr(mini_clevr.build(tmp_path))
    assert dataset.name == "clevr"
    assert dataset.concepts == mini_clevr.COLUMNS
    assert len(dataset) == mini_clevr.PICTURES
    assert set(dataset.splits) == {""}, "the generator's split 'new' is none of ours"
    assert set(ensure_splits(dataset).splits) == {"train", "cal", "test"}
    sample = image_sample(dataset, "CLEVR_new_000004")
    assert sample.labels == {"color::green", "shape::sphere"}
    assert concepts_at(dataset, "CLEVR_new_000004") == painted([mini_clevr.single(4)])
    assert VOID not in dataset.classes


def test_masks_are_made_when_asked_and_hashed_by_content(tmp_path: Path) -> None:
    root = mini_clevr.build(tmp_path)
    first, again = read_clevr(root), read_clevr(root)
    assert isinstance(image_sample(first, "CLEVR_new_000000").mask, ColouredObject)
    assert first.samples == again.samples
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != read_clevr(root, tolerance=30).fingerprint
    Image.new("RGB", (64, 48), (90, 20, 20)).save(root / "images" / "CLEVR_new_000000.png")
    changed = read_clevr(root)
    assert first.samples == changed.samples, "the same files"
    assert first.fingerprint != changed.fingerprint, "with other pixels"


def test_all_attributes(tmp_path: Path) -> None:
    dataset = read_clevr(mini_clevr.build(tmp_path), attributes=["shape", "material", "size"])
    assert dataset.concepts == (
        *("material::metal", "material::rubber", "shape::cube", "shape::cylinder", "shape::sphere", "size::large"),
    )
    assert image_sample(dataset, "CLEVR_new_000000").labels == {"shape::cube", "material::metal", "size::large"}


def test_a_grey_object_is_void(tmp_path: Path) -> None:
    root = mini_clevr.build(tmp_path)
    write_scene(root, "grey", "new", 99, [solid("gray", "cube", 30, 20)])
    picture = paint([solid("gray", "cube", 30, 20)])[0]
    picture[10:30, 2:20] = (200, 100, 90)  # coloured light on the ground
    mini_clevr.save(root / "images" / "grey.png", picture)
    for attributes in (["color", "shape"], ["shape"]):
        dataset = read_clevr(root, attributes=attributes)
        mask = image_sample(dataset, "grey").load_mask()
        assert (mask == VOID).all(), "whatever the concepts, a grey object cannot be told from the ground"
        assert "shape::cube" in (image_sample(dataset, "grey").labels or ())


def test_a_picture_without_any_colour_is_void(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (6, 4), (90, 95, 100)).save(path)
    assert (ColouredObject(path, 3).load() == VOID).all()


APART = [solid("red", "cube", 12, 12), solid("blue", "sphere", 46, 14, 7), solid("green", "cylinder", 30, 36)]
TOUCHING = [solid("red", "cube", 20, 20), solid("blue", "sphere", 30, 20)]
WITH_GREY = [solid("red", "cube", 12, 12), solid("gray", "sphere", 46, 24)]
SWAPPED = [solid("red", "cube", 12, 12) | {"pixel_coords": [46, 14, 9.0]}, solid("blue", "sphere", 46, 14, 7)]


@pytest.fixture
def several(tmp_path: Path) -> Path:
    root = tmp_path / "multi"
    write_scene(root, "apart", "new", 0, APART)
    write_scene(root, "touching", "new", 1, TOUCHING)
    write_scene(root, "grey", "new", 2, WITH_GREY)
    write_scene(root, "empty", "new", 3, [])
    write_scene(root, "swapped", "new", 4, SWAPPED)
    Image.fromarray(paint([solid("red", "cube", 12, 12), solid("blue", "sphere", 46, 14, 7)])[0]).save(
        root / "images" / "swapped.png"
    )
    return root


def test_pictures_of_several_objects_have_labels_only(several: Path) -> None:
    dataset = read_clevr(several)
    assert image_sample(dataset, "apart").mask is None
    assert image_sample(dataset, "touching").labels == {"color::red", "color::blue", "shape::cube", "shape::sphere"}
    assert image_sample(dataset, "empty").labels == frozenset()


def test_components_that_are_one_to_one(several: Path) -> None:
    dataset = read_clevr(several, regions="components")
    assert concepts_at(dataset, "apart") == painted(APART)
    for name in ("touching", "grey", "swapped"):
        assert (image_sample(dataset, name).load_mask() == VOID).all(), name
    assert (image_sample(dataset, "empty").load_mask() == 0).all(), "nothing is there"


def test_holes_and_specks_of_components(several: Path) -> None:
    picture, owner = paint(APART)
    picture[8:16, 8:16] = 200  # a highlight on the centre of the cube
    picture[44:46, 2:5] = (200, 90, 90)  # a reflection on the ground
    Image.fromarray(picture).save(several / "images" / "apart.png")
    (mask,) = image_sample(read_clevr(several, regions="components"), "apart").load_mask()  # type: ignore[misc]
    assert (mask[44:46, 2:5] == VOID).all(), "specks belong to no one"
    assert (mask[8:16, 8:16] == 0).all(), "the rule does not find highlights"
    expected = owner > 0
    expected[8:16, 8:16] = False
    expected[44:46, 2:5] = True
    np.testing.assert_array_equal(mask > 0, expected)


def test_no_regions(tmp_path: Path) -> None:
    dataset = read_clevr(mini_clevr.build(tmp_path), regions="none")
    assert not dataset.has_token_labels
    assert all(sample.labels for sample in dataset.samples)


def test_instance_masks(several: Path) -> None:
    folder = several / "instances"
    for number, (name, things) in enumerate({"apart": APART, "touching": TOUCHING, "grey": WITH_GREY}.items()):
        mini_clevr.save(folder / f"{name}{'_mask' if number else ''}.png", paint(things)[1])
    for name in ("empty", "swapped"):
        mini_clevr.save(folder / f"{name}.png", np.zeros((48, 64), dtype=np.uint8))
    dataset = read_clevr(several, masks="instances")
    assert concepts_at(dataset, "touching") == painted(TOUCHING)
    assert concepts_at(dataset, "grey") == painted(WITH_GREY), "grey objects too"
    assert read_clevr(several, masks=str(folder)).fingerprint == dataset.fingerprint
    mini_clevr.save(folder / "apart.png", np.full((48, 64), 4, dtype=np.uint8))
    with pytest.raises(DataError, match=r"apart\.png: a pixel is 4, but the scene has 3 objects"):
        image_sample(dataset, "apart").load_mask()


def test_faults_of_instance_masks(several: Path) -> None:
    folder = several / "instances"
    mini_clevr.save(folder / "apart.png", np.zeros((64, 48), dtype=np.uint8))
    mini_clevr.save(folder / "touching.png", np.zeros((48, 64, 3), dtype=np.uint8))
    (folder / "grey.png").write_text("no image")
    mini_clevr.save(folder / "empty.png", np.zeros((48, 64), dtype=np.uint8))
    with pytest.raises(DataError) as caught:
        read_clevr(several, masks="instances")
    message = str(caught.value)
    assert "4 faults" in message
    for part in ("apart.png: is 48 x 64 pixels, but its picture is 64 x 48", "mode is 'RGB'", "grey.png: cannot be"):
        assert part in message
    assert "has no mask for swapped.png; its name must be swapped.png or swapped_mask.png" in message


def test_the_published_layout(tmp_path: Path) -> None:
    pictures = {split: [[solid("red", "cube", 20 + n, 20)] for n in range(9)] for split in ("train", "val", "test")}
    root = mini_clevr.published(tmp_path, pictures)
    dataset = read_clevr(root)
    assert len(dataset) == 18, "the test pictures have no scenes"
    splits = dict(zip(dataset.ids, dataset.splits.tolist(), strict=True))
    assert {split for name, split in splits.items() if "train" in name} == {"train"}
    assert {split for name, split in splits.items() if "val" in name} == {"cal", "test"}
    alone = read_clevr(root, splits=["val"])
    assert {name: splits[name] for name in alone.ids} == dict(zip(alone.ids, alone.splits.tolist(), strict=True))
    (root / "scenes" / "CLEVR_train_scenes.json").write_text("never read")
    assert read_clevr(root, splits=["val"]).ids == alone.ids
    with pytest.raises(DataError, match="has no scenes of the splits dev; it has train, val"):
        read_clevr(root, splits=["dev"])


def test_a_merged_file_beside_the_pictures(tmp_path: Path) -> None:
    root = mini_clevr.build(tmp_path)
    scenes = [json.loads(path.read_text()) for path in sorted((root / "scenes").iterdir())]
    (root / "CLEVR_scenes.json").write_text(json.dumps({"info": {}, "scenes": scenes}))
    whole = read_clevr(root)
    for path in (root / "scenes").iterdir():
        path.unlink()
    (root / "scenes").rmdir()
    assert read_clevr(root).samples == whole.samples
    scenes.reverse()
    (root / "CLEVR_scenes.json").write_text(json.dumps({"info": {}, "scenes": scenes}))
    assert read_clevr(root).ids == whole.ids, "in the order of names"


def test_the_papers_layout(tmp_path: Path) -> None:
    dataset = read_clevr(mini_clevr.paper_layout(tmp_path))
    assert dataset.concepts == mini_clevr.COLUMNS
    assert dataset.splits.tolist() == ["train", "test", "cal", "train"] * 3
    assert dataset.samples[4].labels == {"color::green", "shape::sphere"}
    assert concepts_at(dataset, "CLEVR_new_000004") == painted([solid("green", "sphere", 24, 24)])
    assert not read_clevr(tmp_path / "CLEVR", regions="none").has_token_labels
    assert read_clevr(tmp_path / "CLEVR", attributes=["shape"]).concepts == mini_clevr.COLUMNS[3:]


def test_several_colours_in_the_papers_layout_have_labels_only(tmp_path: Path) -> None:
    root = mini_clevr.paper_layout(tmp_path)
    path = root / "metadata.csv"
    path.write_text(path.read_text().replace("red_cube,0,0,1,", "none,0,1,1,", 1))
    sample = read_clevr(root).samples[0]
    assert isinstance(sample, ImageSample)
    assert sample.mask is None
    assert sample.labels == {"color::green", "color::red", "shape::cube"}


def test_faults_of_the_papers_layout(tmp_path: Path) -> None:
    root = mini_clevr.paper_layout(tmp_path)
    path = root / "metadata.csv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace("red_cube", "blue_cube")
    lines[2] = lines[2].replace("000001", "999999")
    (root / "images" / "CLEVR_new_000002.png").write_text("no image")
    path.write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        read_clevr(root)
    message = str(caught.value)
    assert "3 faults" in message
    assert "metadata.csv:2: class is 'blue_cube', but the columns say 'red_cube'" in message
    assert "metadata.csv:3: image_path 'images/CLEVR_new_999999.png' does not exist" in message
    assert "CLEVR_new_000002.png: cannot be read as an image" in message
    with pytest.raises(DataError, match="options masks and splits are for folders without one"):
        read_clevr(root, splits=["val"])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ("[]", "is no CLEVR scene file"),
        ('{"questions": []}', "holds questions"),
        ('{"scenes": [1]}', "scene 0 must be an object"),
        ('{"objects": []}', "needs an image_filename"),
        ('{"image_filename": "CLEVR_new_000000.png", "objects": {}}', "needs a list of objects"),
        ('{"image_filename": "no.png", "objects": []}', "picture 'no.png' is neither in images/ nor"),
        ('{"image_filename": "\\u0000", "objects": []}', "is neither in images/ nor"),
        (
            '{"image_filename": "CLEVR_new_000000.png", "objects": [{"shape": "cube"}]}',
            "an object needs color and shape",
        ),
        ('{"image_filename": "CLEVR_new_000000.png", "objects": [7]}', "an object needs color and shape"),
        ('{"image_filename": "CLEVR_new_000001.png", "objects": []}', "is already in"),
    ],
)
def test_faults_of_scenes(tmp_path: Path, content: str, says: str) -> None:
    root = mini_clevr.build(tmp_path)
    (root / "scenes" / "CLEVR_new_000000.json").write_text(content)
    with pytest.raises(DataError, match="1 fault") as caught:
        read_clevr(root)
    assert says in str(caught.value)


@pytest.mark.parametrize("coordinates", [None, [1], [64, 3, 0], [3, -1], [float("nan"), 3], ["3", 4], [True, 3]])
def test_faults_of_coordinates(several: Path, coordinates: object) -> None:
    path = several / "scenes" / "apart.json"
    scene = json.loads(path.read_text())
    scene["objects"][1]["pixel_coords"] = coordinates
    path.write_text(json.dumps(scene))
    with pytest.raises(DataError, match=r"1 fault.*\n.*apart\.json: .*pixel_coords"):
        read_clevr(several, regions="components")
    assert len(read_clevr(several)) == 5, "nobody needs them otherwise"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"attributes": ["colour"]}, "'colour' is unknown; did you mean 'color'"),
        ({"attributes": []}, "is empty"),
        ({"regions": "component"}, "did you mean 'components'"),
        ({"tolerance": 255}, "from 0 to 254"),
        ({"tolerance": True}, "from 0 to 254"),
        ({"masks": "nowhere"}, "'nowhere' is no folder"),
    ],
)
def test_options_that_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_clevr(mini_clevr.build(tmp_path), **options)


def test_other_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder; give a folder with images/ and scenes/"):
        read_clevr(tmp_path / "missing")
    with pytest.raises(DataError, match="holds no scene files"):
        read_clevr(tmp_path)
    (tmp_path / "metadata.csv").write_text("image_path,split,dog\na.png,train,1\n")
    with pytest.raises(DataError, match="no concept column is of color, shape"):
        read_clevr(tmp_path)
