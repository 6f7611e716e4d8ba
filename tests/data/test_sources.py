"""One entry for every data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from small_data import planted_images, planted_texts, write_texts
from superactivators.data.dataset import SPLITS
from superactivators.data.sources import datasets, load_dataset
from superactivators.errors import DataError


def test_folders_are_told_apart_by_their_files(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "texts", planted_texts(12))
    images = planted_images(tmp_path / "images", 6)
    assert load_dataset(texts).modality == "text"
    assert load_dataset(str(images)).modality == "image"


def test_missing_splits_are_made_with_the_given_seed(tmp_path: Path) -> None:
    bare = [{key: value for key, value in record.items() if key != "split"} for record in planted_texts(40)]
    folder = write_texts(tmp_path / "texts", bare)
    first, other = load_dataset(folder), load_dataset(folder, split_seed=1)
    assert set(first.splits) == set(SPLITS)
    assert (first.splits != other.splits).any()
    assert (first.splits == load_dataset(folder, split_seed=0).splits).all()


@pytest.mark.parametrize("name", ["passages", "scenes"])
def test_built_in_names(name: str) -> None:
    made = load_dataset(name, size=40, seed=3)
    assert len(made) == 40
    assert set(made.splits) == set(SPLITS)


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("pasages", {}, "no such folder and no data set of this name; did you mean 'passages'"),
        ("no/such/folder", {}, "no such folder"),
        ("", {}, "holds neither data.jsonl"),
        ("a text in place of a path " * 300, {}, "no such folder"),
        ("nul\0byte", {}, "no such folder"),
        ("passages", {"colour": 3}, "has no option .colour.; Known: seed, size"),
        ("no/such/folder", {"size": 3}, "options size are for registered data sets"),
    ],
)
def test_what_is_refused(
    source: str, options: dict[str, int], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=says) as caught:
        load_dataset(source, **options)
    assert len(str(caught.value)) < 500


def test_a_file_and_an_empty_folder(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "texts", planted_texts(12))
    with pytest.raises(DataError, match="is a file; give the folder that holds it"):
        load_dataset(folder / "data.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds neither data\.jsonl .* nor samples\.jsonl"):
        load_dataset(tmp_path / "empty")


def test_a_registered_set_without_splits_gets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = [{key: value for key, value in record.items() if key != "split"} for record in planted_texts(20)]
    folder = write_texts(tmp_path / "texts", bare)
    from superactivators.data.text_folder import read_text_folder

    monkeypatch.setitem(datasets._known, "mine", lambda: read_text_folder(folder))
    assert set(load_dataset("mine").splits) == set(SPLITS)
