"""The paper's metadata.csv by itself, and put on data sets that other readers made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from superactivators.data.dataset import VOID, ConceptDataset, ImageSample, Span, TextSample
from superactivators.data.faults import Faults
from superactivators.data.formats.held_out import split_in_three
from superactivators.data.formats.paper_concepts import EVALUATED, paper_data_set
from superactivators.data.formats.paper_metadata import (
    PaperRow,
    apply_paper_metadata,
    label_disagreements,
    read_paper_metadata,
)
from superactivators.errors import DataError


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def read(path: Path) -> tuple[tuple[str, ...], tuple[PaperRow, ...]]:
    faults = Faults()
    table = read_paper_metadata(path, faults)
    faults.raise_if_any("table")
    return table.concepts, table.rows


def test_the_evaluated_concepts_are_as_many_as_in_the_paper() -> None:
    counts = {name: len(concepts) for name, concepts in EVALUATED.items()}
    assert counts == {
        "coco": 29,
        "broden-pascal": 83,
        "broden-opensurfaces": 26,
        "clevr": 6,
        "goemotions": 14,
        "isarcasm": 1,
        "sarcasm": 1,
    }
    assert all(len(set(concepts)) == len(concepts) for concepts in EVALUATED.values())
    for name, concepts in EVALUATED.items():
        assert paper_data_set((*concepts, "another")) == name


def test_what_pandas_and_spreadsheets_add(tmp_path: Path) -> None:
    text = (
        '\ufeff,image_path,class,"color::red",person,split\r\n'
        '0,a/1.jpg,x,1.0,False,train\r\n\r\n1,"a,2.jpg",,0,1, cal\r\n'
    )
    concepts, rows = read(write(tmp_path / "metadata.csv", text))
    assert concepts == ("color::red", "person")
    assert rows == (
        PaperRow(2, "a/1.jpg", "train", frozenset({"color::red"}), "x"),
        PaperRow(4, "a,2.jpg", "cal", frozenset({"person"}), ""),
    )
    concepts, _ = read(write(tmp_path / "metadata.csv", "Unnamed: 0,text_path,joy,split\n0,a,1,test\n"))
    assert concepts == ("joy",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no column 'split'"),
        ("image_path,dog\na,1\n", "has no column 'split'"),
        ("split,dog\ntrain,1\n", "has neither image_path nor text_path"),
        ("image_path,text_path,split,dog\na,a,train,1\n", "has image_path and text_path"),
        ("image_path,split\na,train\n", "has no concept column"),
        ("image_path,split,dog,dog\na,train,1,1\n", "column 'dog' comes twice"),
        ("image_path,split,dog\n", "has no rows"),
        ("image_path,split,dog\na,train,1\nb,val,0\n", ":3: split 'val' is unknown; did you mean 'cal'"),
        ("image_path,split,dog\n,train,1\n", ":2: image_path is empty"),
        ("image_path,split,dog\na,train,1\nb,cal,0\na,train,1\n", ":4: image_path 'a' is a duplicate of line 2"),
        ("image_path,split,dog\na,train,\nb,train,\n", ":2: column 'dog' holds ''"),
        ("image_path,split,dog\na,train,yes\n", "but a concept's column holds 0 or 1"),
        ("image_path,split,dog\na,train\n", ":2: has 2 cells, but the header has 3"),
        ('image_path,split,dog\na,train,1\n"b,train,1\n', ":3: is not CSV"),
        ("image_path,split,dog\na\0,train,1\nb\n", ":3: has 1 cells"),
    ],
)
def test_faults_of_the_table(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path / "metadata.csv", text)
    with pytest.raises(DataError) as caught:
        read(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)


def test_unreadable_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path / "metadata.csv")
    (tmp_path / "metadata.csv").write_bytes(b"image_path,split,dog\na\xff,train,1\n")
    with pytest.raises(DataError, match=r"metadata\.csv:2: is not UTF-8"):
        read(tmp_path / "metadata.csv")


def pictures(tmp_path: Path) -> ConceptDataset:
    """Four pictures of COCO, two of which have the same name in other folders."""
    masks = [np.full((2, 2), value, dtype=np.uint8) for value in (1, 2, 0, VOID)]
    names = ("val2017/000000000001.jpg", "val2017/000000000002.jpg", "train2017/000000000002.jpg", "val2017/3.jpg")
    samples = tuple(
        ImageSample(str(number), tmp_path / name, mask, frozenset({"dog"}), None, "group")
        for number, (name, mask) in enumerate(zip(names, masks, strict=True))
    )
    return ConceptDataset(
        "coco", ("dining table", "dog", "animal"), samples, {1: ("dog", "animal"), 2: ("dining table",)}
    )


TABLE = (
    "image_path,animal,Dining_Table,split\n"
    "../Coco-Cal/train2017/000000000002.jpg,1,0,cal\n"
    "val2017/000000000001.png,0,1,test\n"
    "val2017/000000000002.jpg,1,1,train\n"
)


def test_rows_find_their_samples_and_columns_their_concepts(tmp_path: Path) -> None:
    dataset = pictures(tmp_path)
    given = apply_paper_metadata(dataset, write(tmp_path / "metadata.csv", TABLE))
    assert given.ids == ["2", "0", "1"]
    assert given.splits.tolist() == ["cal", "test", "train"]
    assert given.concepts == ("animal", "Dining_Table")
    assert given.classes == {1: ("dog", "animal"), 2: ("Dining_Table",)}
    assert [sample.labels for sample in given.samples] == [{"animal"}, {"Dining_Table"}, {"animal", "Dining_Table"}]
    assert [sample.group for sample in given.samples] == ["group"] * 3
    assert label_disagreements(given) == {"animal": (2, 1), "Dining_Table": (1, 0)}


def test_evaluated_concepts_only(tmp_path: Path) -> None:
    names = EVALUATED["clevr"]
    sample = ImageSample("a", tmp_path / "a.png", np.array([[1]]), None)
    dataset = ConceptDataset("x", (*names, "size::large"), (sample,), {1: (*names, "size::large")})
    text = f"image_path,size::large,{','.join(names)},split\nimages/a.png,1,1,0,0,0,0,1,cal\n"
    path = write(tmp_path / "metadata.csv", text)
    given = apply_paper_metadata(dataset, path)
    assert given.concepts == names
    assert given.samples[0].labels == {names[0], names[-1]}
    everything = apply_paper_metadata(dataset, path, evaluated=False)
    assert everything.concepts == ("size::large", *names)
    assert everything.samples[0].labels == {"size::large", names[0], names[-1]}


def test_texts_are_found_by_id_and_their_spans_renamed(tmp_path: Path) -> None:
    samples = tuple(
        TextSample(name, "Thank you", (Span(0, 5, "emotion::joy"),), None) for name in ("a.b", "a.c", "d.txt", "e/f")
    )
    dataset = ConceptDataset("x", ("emotion::joy", "calm"), samples)
    path = write(
        tmp_path / "metadata.csv", "text_path,Joy,split\nt/d.txt,1,cal\nt/a.c.txt,0,test\na.b,1,train\nf.txt,0,cal\n"
    )
    given = apply_paper_metadata(dataset, path)
    assert given.ids == ["d.txt", "a.c", "a.b", "e/f"]
    assert given.samples[0] == TextSample("d.txt", "Thank you", (Span(0, 5, "Joy"),), frozenset({"Joy"}), "cal")
    assert label_disagreements(given) == {"Joy": (0, 2)}


def test_faults_are_told_together(tmp_path: Path) -> None:
    dataset = pictures(tmp_path)
    text = (
        "image_path,dog,cat,animal::dog,split\n"
        "val2017/9.jpg,1,0,0,train\n"
        "000000000002.jpg,1,0,0,train\n"
        "a/3.jpg,1,0,0,train\n"
        "b/3.jpg,1,0,0,train\n"
    )
    with pytest.raises(DataError) as caught:
        apply_paper_metadata(dataset, write(tmp_path / "metadata.csv", text))
    message = str(caught.value)
    assert message.startswith("data set 'coco' with ")
    assert "5 faults" in message
    for says in (
        "column 'cat' is no concept of the data",
        "columns 'dog' and 'animal::dog' are both the concept 'dog'",
        ":2: 'val2017/9.jpg' is no sample of the data",
        ":3: '000000000002.jpg' could be any of the samples 1, 2",
        ":5: 'b/3.jpg' is the sample of line 4",
    ):
        assert says in message


def test_columns_with_several_concepts_and_long_lists(tmp_path: Path) -> None:
    path = write(tmp_path / "metadata.csv", "image_path,chair,split\na.png,1,train\n")
    sample = ImageSample("a", tmp_path / "a.png")
    with pytest.raises(DataError, match="'chair' could be any of object::chair, part::chair"):
        apply_paper_metadata(ConceptDataset("x", ("object::chair", "part::chair"), (sample,)), path)
    many = ConceptDataset("x", tuple(f"concept {number}" for number in range(300)), (sample,))
    with pytest.raises(DataError, match="it has 300 concepts, such as") as caught:
        apply_paper_metadata(many, path)
    assert len(str(caught.value)) < 600


def test_disagreements_need_both(tmp_path: Path) -> None:
    mask = np.array([[[1, VOID]], [[0, 2]]], dtype=np.uint8)
    samples = (
        ImageSample("both", tmp_path / "a", mask, frozenset()),
        ImageSample("void", tmp_path / "a", np.full((2, 2), VOID), frozenset({"a"})),
        ImageSample("no mask", tmp_path / "a", None, frozenset({"a"})),
        ImageSample("no labels", tmp_path / "a", mask, None),
    )
    assert label_disagreements(ConceptDataset("x", ("a", "b"), samples, {1: ("a",), 2: ("b",)})) == {"a": (0, 1)}


def test_held_out_samples_are_divided_by_name() -> None:
    names = [f"val/{number}.png" for number in range(400)]
    dealt = [split_in_three("val", name) for name in names]
    assert set(dealt) == {"cal", "test"}
    assert 160 < dealt.count("cal") < 240
    assert [split_in_three(split, "a") for split in ("train", "test", "new", "")] == ["train", "test", None, None]
