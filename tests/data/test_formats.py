"""Every data format through `load_dataset`: its miniature is read, written in the open format, and read back equal."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from superactivators.data.formats.catalogue import formats
from superactivators.data.sources import load_dataset
from superactivators.data.summary import summarise
from superactivators.data.writing import write_dataset
from superactivators.errors import DataError
from support import MINIATURES, record


def miniature(name: str):
    return importlib.import_module(f"data.formats.mini_{name}")


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_is_read_and_survives_conversion(name: str, tmp_path: Path) -> None:
    made = miniature(name)
    path = made.build(tmp_path / "original")
    data = load_dataset(path, format=made.FORMAT, **made.OPTIONS)
    assert set(data.splits) == {"train", "cal", "test"}
    again = load_dataset(write_dataset(data, tmp_path / "open"))
    assert again.modality == data.modality
    assert again.concepts == data.concepts
    assert summarise(again)["positives"] == summarise(data)["positives"]
    places = {"text": "with spans", "image": "with masks"}[data.modality]
    held = places if data.has_token_labels else "with sample labels"
    record(table="datasets", format=made.FORMAT, check="read", value=f"{data.modality}s {held}")
    record(table="datasets", format=made.FORMAT, check="convert", value="passed")
    assert [(s.id, s.split, s.labels) for s in again.samples] == [(s.id, s.split, s.labels) for s in data.samples]


def test_every_format_has_a_miniature() -> None:
    shown = {miniature(name).FORMAT for name in MINIATURES}
    assert shown | {"csv", "jsonl", "table"} >= set(formats)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"colour": 1}, "has no option 'colour'"),
        ({"top": 1.5}, "option 'top' is 1.5, which does not fit"),
        ({"metadata": 3}, "'metadata' must be the path of a CSV file"),
        ({"metadata": "gone.csv"}, "no such file"),
    ],
)
def test_options_that_do_not_fit(options, says, tmp_path: Path) -> None:
    path = miniature("ade20k").build(tmp_path / "x")
    with pytest.raises(DataError, match=says) as caught:
        load_dataset(path, format="ade20k", **options)
    assert "\n" not in str(caught.value)
