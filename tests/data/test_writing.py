"""Data sets written in the open formats come back as they were, whatever they are made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from small_data import picture, planted_images, planted_texts, write_image, write_texts
from superactivators.data.dataset import ConceptDataset, ImageSample, Span, TextSample
from superactivators.data.image_folder import read_image_folder
from superactivators.data.text_folder import read_text_folder
from superactivators.data.writing import write_dataset
from superactivators.errors import DataError, StoreError

quick = settings(derandomize=True, deadline=None, max_examples=40)
CONCEPTS = ("wit", "joy", "anger")
signs = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)


@dataclass(frozen=True)
class Made:
    """A source of pixels."""

    pixels: tuple[tuple[tuple[int, ...], ...], ...]

    def load(self) -> np.ndarray:
        return np.array(self.pixels, dtype=np.uint8)

    def content(self) -> bytes:
        return repr(self.pixels).encode()


def source(pixels: np.ndarray) -> Made:
    return Made(tuple(tuple(tuple(part) if part.ndim else int(part) for part in row) for row in pixels))  # type: ignore[misc]


def texts(draw: Any) -> ConceptDataset:
    samples = []
    for number in range(draw(st.integers(1, 5))):
        text = draw(signs)
        spans = []
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, len(text) - 1))
            end = draw(st.integers(start + 1, len(text)))
            if text[start:end].strip():
                spans.append(Span(start, end, draw(st.sampled_from(CONCEPTS))))
        labels = draw(st.none() | st.frozensets(st.sampled_from(CONCEPTS)))
        labels = None if labels is None else labels | {span.concept for span in spans}
        split = draw(st.sampled_from([None, "train", "cal", "test"]))
        name = f"{draw(signs)}{number}"
        samples.append(TextSample(name, text, tuple(spans), labels, split, draw(st.none() | signs)))
    return ConceptDataset("made", CONCEPTS, tuple(samples))


def used(dataset: ConceptDataset) -> set[str]:
    """Concepts that some sample or class has."""
    found = {label for sample in dataset.samples for label in sample.labels or ()}
    found |= {span.concept for sample in dataset.samples if isinstance(sample, TextSample) for span in sample.spans}
    return found | {name for names in dataset.classes.values() for name in names}


@quick
@given(st.data())
def test_texts_come_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    dataset = texts(data.draw)
    folder = tmp_path_factory.mktemp("out") / "set"
    assert write_dataset(dataset, folder) == folder
    assert json.loads((folder / "concepts.json").read_text()) == list(CONCEPTS)
    if not used(dataset):
        return
    back = read_text_folder(folder)
    assert back.samples == dataset.samples
    assert set(back.concepts) >= used(dataset)


def images(draw: Any) -> tuple[ConceptDataset, list[Any]]:
    """Data set of images whose masks have one or several planes, and the expected planes."""
    ids = draw(st.sampled_from([[1, 2, 3], [7, 254, 256], [1, 300, 65535]]))
    classes: dict[int, tuple[str, ...]] = {ids[0]: ("wit",), ids[1]: ("joy", "wit"), ids[2]: ("anger",)}
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    samples, planes = [], []
    for number in range(draw(st.integers(1, 3))):
        wide, high = draw(st.integers(1, 7)), draw(st.integers(1, 5))
        pixels = picture(wide, high, number)
        count = draw(st.integers(0, 3))
        allowed = [0, 255, *(k for k in ids if k < 256)]
        mask: Any = rng.choice(allowed if draw(st.booleans()) else [0, 255, *ids], (max(count, 1), high, wide))
        mask = mask.astype(draw(st.sampled_from([np.uint16, np.int64])))
        planes.append(mask if count else None)
        shape = draw(st.sampled_from(["array", "tuple", "plane"]))
        given_mask: Any = None
        if count:
            given_mask = mask if shape == "array" else tuple(mask) if shape == "tuple" else mask[0]
            planes[-1] = mask[:1] if shape == "plane" else mask
        labels = draw(st.none() | st.frozensets(st.sampled_from(CONCEPTS)))
        image = pixels if draw(st.booleans()) else source(pixels)
        samples.append(ImageSample(f"a/{number}:?", image, given_mask, labels, draw(st.sampled_from([None, "cal"]))))
    return ConceptDataset("made", CONCEPTS, tuple(samples), classes), planes


@quick
@given(st.data())
def test_images_come_back(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    dataset, planes = images(data.draw)
    folder = tmp_path_factory.mktemp("out") / "set"
    write_dataset(dataset, folder)
    back = read_image_folder(folder)
    assert back.concepts == CONCEPTS
    assert dict(back.classes) == dict(dataset.classes)
    for old, new, mask in zip(dataset.samples, back.samples, planes, strict=True):
        assert isinstance(old, ImageSample)
        assert isinstance(new, ImageSample)
        assert (new.id, new.labels, new.split, new.group) == (old.id, old.labels, old.split, old.group)
        np.testing.assert_array_equal(np.asarray(new.load_image()), np.asarray(old.load_image()))
        found = new.load_mask()
        if mask is None:
            assert found is None
        else:
            np.testing.assert_array_equal(found, mask)


def one(mask: Any = None, classes: dict[int, tuple[str, ...]] | None = None, **more: Any) -> ConceptDataset:
    sample = ImageSample("a", picture(4, 3), mask, **more)
    return ConceptDataset("made", CONCEPTS, (sample,), classes or {})


def test_files_are_copied_as_they_are_and_only_once(tmp_path: Path) -> None:
    source_folder = planted_images(tmp_path / "from", 6)
    Image.fromarray(picture(40, 32)).save(tmp_path / "from" / "photo.jpg", quality=60)
    dataset = read_image_folder(source_folder)
    photo = tmp_path / "from" / "photo.jpg"
    samples = [replace(sample, image=photo) if n in (1, 3) else sample for n, sample in enumerate(dataset.samples)]  # type: ignore[type-var]
    dataset = replace(dataset, samples=tuple(samples))
    back = read_image_folder(write_dataset(dataset, tmp_path / "to"))
    assert back.fingerprint == dataset.fingerprint, "bytes of all files included"
    first, second = back.samples[1], back.samples[3]
    assert isinstance(first, ImageSample)
    assert isinstance(second, ImageSample)
    assert first.image == second.image == tmp_path / "to" / "images" / "i001.jpg"
    assert len(list((tmp_path / "to" / "images").iterdir())) == 5


def test_a_written_text_set_is_the_same_to_a_study(tmp_path: Path) -> None:
    dataset = read_text_folder(write_texts(tmp_path / "from", planted_texts(24)))
    back = read_text_folder(write_dataset(dataset, tmp_path / "to"))
    assert back.fingerprint == dataset.fingerprint
    assert back.concepts == dataset.concepts


def test_names_of_files(tmp_path: Path) -> None:
    ids = ["a/b", "a_b", "A_B", "../up", "con", "ü🙂", ".", "x" * 300, "a b.png", "nul.txt", "~"]
    samples = tuple(ImageSample(name, picture(3, 2, n), np.zeros((2, 3), np.uint8)) for n, name in enumerate(ids))
    folder = write_dataset(ConceptDataset("made", CONCEPTS, samples), tmp_path / "to")
    back = read_image_folder(folder)
    assert back.ids == ids
    files = sorted(file.name for file in (folder / "images").iterdir())
    assert len(files) == len({name.lower() for name in files}) == len(ids), "whatever the case"
    assert all(len(name) < 100 and name.isascii() and name[0] != "." for name in files)
    assert not {name.lower().split(".")[0] for name in files} & {"con", "nul"}
    for n, sample in enumerate(back.samples):
        assert isinstance(sample, ImageSample)
        np.testing.assert_array_equal(np.asarray(sample.load_image()), picture(3, 2, n))


def test_only_the_concepts_of_the_data_set_are_written(tmp_path: Path) -> None:
    mask = np.array([[1, 2, 3, 0]] * 3, dtype=np.uint8)
    dataset = one(mask, {1: ("wit", "joy"), 2: ("joy",), 3: ("anger",)}, labels=frozenset({"wit", "joy"}))
    back = read_image_folder(write_dataset(dataset.with_concepts(["anger", "wit"]), tmp_path / "a"))
    assert back.classes == {1: ("wit",), 3: ("anger",)}
    assert back.samples[0].labels == {"wit"}
    assert back.samples[0].load_mask().tolist() == [[[1, 0, 3, 0]] * 3]  # type: ignore[union-attr]
    text = TextSample("t", "a b", (Span(0, 1, "joy"), Span(2, 3, "wit")), frozenset({"joy", "wit"}))
    texts = ConceptDataset("made", ("wit", "joy"), (text,)).with_concepts(["wit"])
    back = read_text_folder(write_dataset(texts, tmp_path / "b"))
    assert back.samples == (TextSample("t", "a b", (Span(2, 3, "wit"),), frozenset({"wit"})),)


def test_ids_beyond_the_format_are_renumbered(tmp_path: Path) -> None:
    mask = np.array([[1, 70_000, 70_001, 255], [0, 70_002, 1, 0], [0, 0, 0, 0]], dtype=np.int64)
    classes = {1: ("wit",), 70_000: ("joy",), 70_001: ("anger", "joy"), 70_002: ("joy",)}
    back = read_image_folder(write_dataset(one(mask, classes), tmp_path / "a"))
    assert back.classes == {1: ("wit",), 2: ("joy",), 3: ("anger", "joy")}
    assert back.samples[0].load_mask().tolist() == [[[1, 2, 3, 255], [0, 2, 1, 0], [0, 0, 0, 0]]]  # type: ignore[union-attr]


def test_many_classes(tmp_path: Path) -> None:
    names = tuple(f"c{n}" for n in range(700))
    classes = {n + 1 + (n >= 254): (name,) for n, name in enumerate(names)}
    mask = np.array(list(classes)[:700]).reshape(20, 35)
    dataset = ConceptDataset("made", names, (ImageSample("a", picture(35, 20), mask),), classes)
    folder = write_dataset(dataset, tmp_path / "a")
    with Image.open(folder / "masks" / "a.png") as opened:
        assert opened.mode == "I;16"
    back = read_image_folder(folder)
    assert back.concepts == names
    np.testing.assert_array_equal(back.samples[0].load_mask()[0], mask)  # type: ignore[union-attr,index]


def test_masks_of_files_are_written_anew_only_where_ids_change(tmp_path: Path) -> None:
    mask = np.array([[1, 2, 0, 255]] * 3, dtype=np.uint8)
    made = Image.fromarray(mask)
    made.putpalette([5, 6, 7] * 256)
    made.save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as opened:
        assert opened.mode == "P"
    dataset = one(tmp_path / "m.png", {1: ("wit",), 2: ("joy",)})
    folder = write_dataset(dataset, tmp_path / "a")
    assert (folder / "masks" / "a.png").read_bytes() == (tmp_path / "m.png").read_bytes()
    folder = write_dataset(dataset.with_concepts(["joy"]), tmp_path / "b")
    assert (folder / "masks" / "a.png").read_bytes() != (tmp_path / "m.png").read_bytes()
    assert read_image_folder(folder).samples[0].load_mask().tolist() == [[[0, 2, 0, 255]] * 3]  # type: ignore[union-attr]


@pytest.mark.parametrize("parts", [1, 2])
def test_planes_of_files_and_arrays_together(tmp_path: Path, parts: int) -> None:
    first, second = np.ones((3, 4), np.uint8), np.array([[[2] * 4] * 3, [[0] * 4] * 3])
    write_image(tmp_path / "m.png", first)
    mask = (tmp_path / "m.png", second)[:parts]
    folder = write_dataset(one(mask, {1: ("wit",), 2: ("joy",)}), tmp_path / "a")
    found = read_image_folder(folder).samples[0].load_mask()  # type: ignore[union-attr]
    np.testing.assert_array_equal(found, np.concatenate([first[None], second])[: 1 if parts == 1 else 3])
    record = json.loads((folder / "samples.jsonl").read_text())
    assert record["mask"] == ("masks/a.png" if parts == 1 else ["masks/a-0.png", "masks/a-1.png", "masks/a-2.png"])


def test_labels_without_masks(tmp_path: Path) -> None:
    folder = write_dataset(one(labels=frozenset({"joy"}), group="g"), tmp_path / "a")
    assert not (folder / "classes.json").exists()
    back = read_image_folder(folder)
    assert (back.samples[0].labels, back.samples[0].group) == ({"joy"}, "g")


def bad(**more: Any) -> ConceptDataset:
    return ConceptDataset("made", CONCEPTS, (replace(TextSample("t", "a b"), **more),))


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (bad(id=" "), "an id that is empty"),
        (bad(id="\ud83d"), "an id that is empty or not UTF-8"),
        (bad(text=" \n"), "its text is blank"),
        (bad(group=""), "group '' is empty"),
        (bad(spans=(Span(0, 1, "joy"),), labels=frozenset({"wit"})), "a span of 'joy', which is not among its labels"),
        (replace(bad(), concepts=("",)), "concept '' is empty"),
        (one(np.zeros((9, 9), np.uint8)), "its mask is 9 x 9 pixels, but its image is 4 x 3"),
        (one(np.full((3, 4), 9)), "mask id 9 is not among the classes"),
        (one(np.full((3, 4), -1)), "mask id -1 is not among the classes"),
        (replace(one(), samples=(ImageSample("a", Path("none.png")),)), "cannot be read as an image"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path, dataset: ConceptDataset, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        write_dataset(dataset, tmp_path / "to")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_only_our_own_folders_are_replaced(tmp_path: Path) -> None:
    mine = write_texts(tmp_path / "mine", planted_texts(12))
    dataset = read_text_folder(mine)
    before = (mine / "data.jsonl").read_bytes()
    with pytest.raises(StoreError, match="holds other files"):
        write_dataset(dataset, mine)
    assert (mine / "data.jsonl").read_bytes() == before
    folder = write_dataset(dataset, tmp_path / "to")
    write_dataset(dataset.subset(range(3)), folder)
    assert len(read_text_folder(folder)) == 3
    with pytest.raises(DataError):
        write_dataset(bad(group=""), folder)
    assert len(read_text_folder(folder)) == 3, "a failure leaves the old one"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["mine", "to"]
    (tmp_path / "empty").mkdir()
    write_dataset(dataset, tmp_path / "empty")


def test_one_sample_at_a_time_is_in_memory(tmp_path: Path) -> None:
    live: list[int] = []

    @dataclass(frozen=True)
    class Watched:
        number: int

        def load(self) -> np.ndarray:
            live.append(self.number)
            return picture(5, 4, self.number)

        def content(self) -> bytes:
            return bytes([self.number])

    samples: Sequence[ImageSample] = [ImageSample(str(n), Watched(n), labels=frozenset({"joy"})) for n in range(5)]
    write_dataset(ConceptDataset("made", CONCEPTS, tuple(samples)), tmp_path / "to")
    order = [n for n, before in zip(live, [None, *live], strict=False) if n != before]
    assert order == [0, 1, 2, 3, 4], "each source is done with before the next is asked"
