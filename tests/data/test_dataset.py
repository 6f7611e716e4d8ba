"""The container of labelled samples: what it refuses, what it gives, and what its fingerprint depends on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_data import picture, write_image
from superactivators.data.dataset import ConceptDataset, ImageSample, Sample, Span, TextSample
from superactivators.data.summary import summarise
from superactivators.errors import DataError

A = TextSample("a", "a fox runs", (Span(2, 5, "fox"),), split="train", group="g")
B = TextSample("b", "nothing", labels=frozenset({"sad"}), split="cal")
C = TextSample("c", "a fox", (Span(2, 5, "fox"),), frozenset({"fox", "sad"}), "test")


def dataset(*samples: Sample, concepts: tuple[str, ...] = ("fox", "sad"), **more: Any) -> ConceptDataset:
    return ConceptDataset("made", concepts, samples or (A, B, C), **more)


def test_what_it_gives() -> None:
    made = dataset()
    assert len(made) == 3
    assert made.ids == ["a", "b", "c"]
    assert made.splits.tolist() == ["train", "cal", "test"]
    assert made.modality == "text"
    assert made.has_token_labels
    assert "3 samples (train 1, cal 1, test 1), 2 concepts" in repr(made)
    labels, known = made.given_labels()
    assert labels.tolist() == [[False, False], [False, True], [True, True]]
    assert known.tolist() == [False, True, True]
    assert dataset(replace(B, split=None)).splits.tolist() == [""]


def test_labels_of_other_concepts_are_left_out() -> None:
    made = dataset().with_concepts(["sad"])
    assert made.concepts == ("sad",)
    assert made.given_labels()[0].tolist() == [[False], [True], [True]]
    assert dataset().with_concepts(["sad", "fox", "sad"]).concepts == ("sad", "fox")
    with pytest.raises(DataError, match="has no concept 'sat'; did you mean 'sad'"):
        made.with_concepts(["sat"])


def test_subset_keeps_the_given_order() -> None:
    assert dataset().subset([2, 0]).ids == ["c", "a"]


IMAGE = ImageSample("i", picture(4, 3))


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: ConceptDataset("made", ("x",), ()), "has no samples"),
        (lambda: dataset(concepts=()), "names no concept"),
        (lambda: dataset(A, IMAGE), "mixes texts and images"),
        (lambda: dataset(A, replace(C, id="a")), "id 'a' comes twice"),
        (lambda: dataset(replace(A, split="tests")), "sample 'a' is in split 'tests'; did you mean 'test'"),
        (lambda: dataset(replace(A, spans=(Span(2, 11, "fox"),))), r"sample 'a': span of 'fox' is \[2, 11\).*10"),
        (lambda: dataset(replace(A, spans=(Span(-3, 5, "fox"),))), r"sample 'a': span of 'fox' is \[-3, 5\)"),
        (lambda: dataset(replace(A, spans=(Span(5, 5, "fox"),))), r"sample 'a': span of 'fox' is \[5, 5\)"),
        (lambda: dataset(replace(A, spans=(Span(1, 2, "fox"),))), "holds only blanks"),
    ],
)
def test_what_it_refuses(made: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        made()
    assert "\n" not in str(caught.value)


def test_the_fingerprint_depends_on_everything_that_a_study_reads() -> None:
    changed = [
        dataset(),
        dataset(concepts=("sad", "fox")),
        dataset(A, B),
        dataset(B, A, C),
        dataset(replace(A, id="z"), B, C),
        dataset(replace(A, text="a fox sits"), B, C),
        dataset(replace(A, spans=()), B, C),
        dataset(replace(A, spans=(Span(2, 5, "sad"),)), B, C),
        dataset(replace(A, spans=(Span(2, 6, "fox"),)), B, C),
        dataset(replace(A, labels=frozenset()), B, C),
        dataset(replace(A, split="cal"), B, C),
        dataset(replace(A, group="h"), B, C),
    ]
    assert len({made.fingerprint for made in changed}) == len(changed)
    assert dataset().fingerprint == dataset().fingerprint
    assert replace(dataset(), name="other").fingerprint == dataset().fingerprint, "a name changes nothing"


def test_the_fingerprint_of_images_depends_on_pixels_masks_and_classes(tmp_path: Path) -> None:
    pixels, mask = picture(4, 3), np.zeros((3, 4), np.uint8)
    write_image(tmp_path / "a.png", pixels)
    write_image(tmp_path / "b.png", pixels)
    sample = ImageSample("i", pixels, mask)
    changed = [
        dataset(sample),
        dataset(sample, classes={1: ("fox",)}),
        dataset(replace(sample, image=255 - pixels)),
        dataset(replace(sample, image=pixels.reshape(4, 3, 3), mask=None)),
        dataset(replace(sample, mask=mask + 1)),
        dataset(replace(sample, mask=None)),
        dataset(replace(sample, mask=mask.astype(np.int32))),
        dataset(replace(sample, image=tmp_path / "a.png")),
    ]
    assert len({made.fingerprint for made in changed}) == len(changed)
    other = dataset(replace(sample, image=tmp_path / "b.png")).fingerprint
    assert other == changed[-1].fingerprint, "bytes count, not the path"
    write_image(tmp_path / "b.png", 255 - pixels)
    assert dataset(replace(sample, image=tmp_path / "b.png")).fingerprint != other


def test_summary_counts_given_and_derived_positives() -> None:
    found = summarise(dataset())
    assert found["samples"] == {"train": 1, "cal": 1, "test": 1}
    assert found["positives"] == {
        "fox": {"train": 1, "cal": 0, "test": 1},
        "sad": {"train": 0, "cal": 1, "test": 1},
    }
    mask = np.array([[0, 1, 255]], dtype=np.uint8)
    images = dataset(
        ImageSample("i", picture(3, 1), mask, split="train"),
        ImageSample("j", picture(3, 1), split="test"),
        classes={1: ("fox", "sad"), 2: ("sad",)},
    )
    assert summarise(images)["positives"] == {
        "fox": {"train": 1, "cal": 0, "test": 0},
        "sad": {"train": 1, "cal": 0, "test": 0},
    }


def test_image_sizes_are_read_from_pixels_and_files(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(5, 3))
    assert ImageSample("i", picture(5, 3)).size() == ImageSample("i", tmp_path / "a.png").size() == (5, 3)
    with pytest.raises(DataError, match="cannot be read as an image"):
        ImageSample("i", tmp_path / "none.png").size()
