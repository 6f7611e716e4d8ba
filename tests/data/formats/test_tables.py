"""Tables of any type give the same samples; every quirk of spreadsheets is read, or told with its line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.formats import mini_table
from small_data import picture, write_image
from superactivators.data.dataset import ImageSample, Span, TextSample
from superactivators.data.formats.tables import read_table
from superactivators.errors import DataError

EXPECTED = tuple(
    TextSample(
        name,
        text,
        labels=frozenset(part for part in labels.split("|") if part),
        split={"train": "train", "dev": "cal", "test": "test"}[split],
    )
    for name, text, labels, split in mini_table.samples()
)


def test_a_file_as_windows_writes_it(tmp_path: Path) -> None:
    dataset = read_table(mini_table.build(tmp_path), **mini_table.OPTIONS)
    assert dataset.samples == EXPECTED
    assert dataset.concepts == ("anger", "calm", "joy")
    assert dataset.name == "export"


@pytest.mark.parametrize("kind", ["comma", "tab", "sep", "jsonl", "json", "parquet", "lists", "python"])
def test_all_types_of_table_give_the_same_samples(tmp_path: Path, kind: str) -> None:
    rows: list[dict[str, Any]] = [
        {"id": name, "text": text, "labels": labels, "split": split}
        for name, text, labels, split in mini_table.samples()
    ]
    options = dict(mini_table.OPTIONS)
    if kind in ("lists", "python"):
        options = {}
        for row in rows:
            row["labels"] = [part for part in row["labels"].split("|") if part]
    path = tmp_path / {"tab": "t.tsv", "jsonl": "t.jsonl", "json": "t.json"}.get(kind, "t.csv")
    if kind in ("comma", "tab", "sep", "python"):
        with path.open("w", newline="", encoding="utf-8") as stream:
            if kind == "sep":
                stream.write("sep=\t\r\n")
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if kind in ("tab", "sep") else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif kind == "jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        path = tmp_path / "t.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=5)
    assert read_table(path, **options).samples == EXPECTED


def test_a_folder_with_a_file_for_each_split(tmp_path: Path) -> None:
    for name, text in (
        ("train-00000-of-00002", "a"),
        ("train-00001-of-00002", "b"),
        ("Validation", "c"),
        ("test", "d"),
    ):
        (tmp_path / f"{name}.csv").write_text(f"sentence,label\n{text},x\n")
    (tmp_path / "README.md").write_text("not a table")
    dataset = read_table(tmp_path)
    assert [(s.text, s.split) for s in dataset.samples] == [  # type: ignore[union-attr]
        ("c", "cal"),
        ("d", "test"),
        ("a", "train"),
        ("b", "train"),
    ]
    assert dataset.ids == ["Validation-1", "test-1", "train-00000-of-00002-1", "train-00001-of-00002-1"]
    (tmp_path / "other.csv").write_text("sentence,label\n")
    with pytest.raises(DataError, match=r"cannot tell the split of other\.csv"):
        read_table(tmp_path)


def test_a_folder_whose_files_are_named_otherwise(tmp_path: Path) -> None:
    for name in ("fit", "tune", "final"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{name},x\n")
    dataset = read_table(tmp_path, splits={"fit": "train", "tune": "cal", "final": "test"})
    assert {s.text: s.split for s in dataset.samples} == {  # type: ignore[union-attr]
        "fit": "train",
        "tune": "cal",
        "final": "test",
    }
    with pytest.raises(DataError, match="splits maps 'fit' to 'training'; did you mean 'train'"):
        read_table(tmp_path, splits={"fit": "training"})


def test_one_column_for_each_concept(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("content,joy,anger,n\none,1,0,3\ntwo,0,0,1\nthree,True,yes,1\n")
    dataset = read_table(tmp_path / "a.csv", concepts=["joy", "anger"])
    assert dataset.concepts == ("joy", "anger"), "the given order"
    assert [sorted(s.labels or ()) for s in dataset.samples] == [["joy"], [], ["anger", "joy"]]
    assert dataset.ids == ["a-1", "a-2", "a-3"]


def test_label_values_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,1\nb,0\n")
    dataset = read_table(tmp_path / "a.csv", names={"0": "", "1": "sarcasm"})
    assert [s.labels for s in dataset.samples] == [{"sarcasm"}, frozenset()]
    with pytest.raises(DataError, match=r"a\.csv:3: label '0' is not among the option names"):
        read_table(tmp_path / "a.csv", names={"1": "sarcasm"})


@pytest.mark.parametrize("shape", ["objects", "triples", "structs"])
def test_spans(tmp_path: Path, shape: str) -> None:
    text = "🙂 so happy\r\nand sad"
    spans = [(5, 10, "joy"), (16, 19, "grief")]
    value: Any = {
        "objects": [{"start": a, "end": b, "label": c} for a, b, c in spans],
        "triples": [list(span) for span in spans],
        "structs": {"start": [5, 16], "end": [10, 19], "label": ["joy", "grief"]},
    }[shape]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([["text", "spans"], [text, json.dumps(value)], ["none", "[]"], ["blank", ""]])
    dataset = read_table(tmp_path / "a.csv")
    first = dataset.samples[0]
    assert isinstance(first, TextSample)
    assert first.spans == (Span(5, 10, "joy"), Span(16, 19, "grief"))
    assert [text[s.start : s.end] for s in first.spans] == ["happy", "sad"]
    assert all(s.labels is None for s in dataset.samples)


def test_offsets_of_javascript(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "🙂 yes", "spans": [[3, 6, "x"]]}))
    (sample,) = read_table(tmp_path / "a.jsonl", offsets="utf-16").samples
    assert isinstance(sample, TextSample)
    assert sample.spans == (Span(2, 5, "x"),)


def test_spans_with_labels_of_the_whole_text(tmp_path: Path) -> None:
    rows = [{"text": "ab cd", "spans": [[0, 2, "x"]], "label": ["x", "y"]}, {"text": "ef", "spans": [[0, 2, "x"]]}]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    dataset = read_table(tmp_path / "a.jsonl")
    assert [s.labels for s in dataset.samples] == [{"x", "y"}, None], "no cell: those that have a span"
    (tmp_path / "b.csv").write_text('text,spans,label\nab cd,"[[0, 2, ""x""]]",y\n')
    with pytest.raises(
        DataError, match=r"b\.csv:2: span label 'x' is not among the sample's labels.*Set labels to '-'"
    ):
        read_table(tmp_path / "b.csv")
    assert read_table(tmp_path / "b.csv", labels="-").concepts == ("x",)


def test_images_with_masks(tmp_path: Path) -> None:
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4] = 7
    write_image(tmp_path / "im" / "a.png", picture(8, 6))
    write_image(tmp_path / "im" / "a-mask.png", mask)
    (tmp_path / "t.csv").write_text("image,mask,group\nim/a.png,im/a-mask.png,g\nim/a.png,,\n")
    dataset = read_table(tmp_path / "t.csv", classes={"7": ["cat", "pet"]})
    assert dataset.samples == (
        ImageSample("t-1", tmp_path / "im/a.png", tmp_path / "im/a-mask.png", group="g"),
        ImageSample("t-2", tmp_path / "im/a.png"),
    )
    assert dataset.classes == {7: ("cat", "pet")}
    assert dataset.concepts == ("cat", "pet")
    (tmp_path / "classes.json").write_text('{"7": "cat"}')
    assert read_table(tmp_path / "t.csv").concepts == ("cat",)


def test_faults_of_images(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(8, 6))
    write_image(tmp_path / "turned.png", np.zeros((8, 6), np.uint8))
    write_image(tmp_path / "nine.png", np.full((6, 8), 9, np.uint8))
    (tmp_path / "bad.png").write_text("no image")
    rows = ["none.png,", "http://x.org/a.png,", "bad.png,", "a.png,turned.png", "a.png,nine.png", "a.png,a.png"]
    (tmp_path / "t.csv").write_text("\n".join(["image,mask", *rows]))
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "t.csv", classes={"1": "cat"})
    lines = str(caught.value).splitlines()[1:]
    for number, says in enumerate(
        [
            "'none.png' does not exist",
            "http://x.org/a.png is not fetched",
            "cannot be read as an image",
            "mask is 6 x 8 pixels, but its image is 8 x 6",
            "mask has ids that the option classes does not name: [9]",
            "must have one channel",
        ],
        start=2,
    ):
        assert any(f"t.csv:{number}: " in line and says in line for line in lines), says


FAULTS: list[tuple[str, str]] = [
    ("short", r":3: has 1 cells, but the header names 5 columns"),
    ("a,x,s,1,more,cells", r":3: has 6 cells"),
    (",x,test,9,", r":3: column 'text' is empty"),
    ("t,x,holdout,9,", r":3: split 'holdout' is unknown; .*Known: cal, calibration, dev"),
    ("t,x,test,1,", r":3: id '1' is a duplicate of a\.csv:2"),
    ("t,x,test,,", r":3: column 'id' is empty"),
    ('t,x,test,9,"{"', r":3: column 'spans' must hold a JSON list"),
    ("t,x,test,9,3", r":3: column 'spans' must hold a list"),
    ('t,x,test,9,"[[0, 9, ""x""]]"', r":3: span of 'x' is \[0, 9\), but 0 <= start < end <= 1"),
    ('t,x,test,9,"[[0, 1]]"', r":3: a span must be \{start, end, label\}"),
    ('t,x,test,9,"[[0, 1, """"]]"', r":3: span \[0, 1\) needs a label"),
    ('t,x,test,9,"[[0.5, 1, ""x""]]"', r":3: span of 'x' needs whole numbers"),
    ('t,"[1.5]",test,9,', r":3: column 'label' must hold labels"),
    ('"t,x,test,9,', r":3: is not CSV with the delimiter ',' \(unexpected end of data\); check its quotes"),
    ('"t"t,x,test,9,', r":3: is not CSV"),
]


@pytest.mark.parametrize(("row", "says"), FAULTS, ids=[says[4:50] for _, says in FAULTS])
def test_faults_have_lines(tmp_path: Path, row: str, says: str) -> None:
    (tmp_path / "a.csv").write_text(f"text,label,split,id,spans\na b,x,train,1,\n{row}\n")
    with pytest.raises(DataError, match=says):
        read_table(tmp_path / "a.csv")


def test_lines_are_counted_over_newlines_in_cells(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'text,label\r\n"a\r\nb\r\nc",x\r\n\r\n"  ",x\r\n,y\r\n')
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "a.csv")
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in str(caught.value).splitlines()[1:]] == ["6", "7"]


def test_other_encodings(tmp_path: Path) -> None:
    content = "text;label\r\nfine;joy\r\ncafé;joy\r\n"
    (tmp_path / "a.csv").write_bytes(content.encode("cp1252"))
    with pytest.raises(DataError, match=r"a\.csv:3: is not UTF-8 \(byte 0xe9\); .* 'cp1252'"):
        read_table(tmp_path / "a.csv")
    assert read_table(tmp_path / "a.csv", encoding="cp1252").samples[1].text == "café"  # type: ignore[union-attr]
    (tmp_path / "a.csv").write_bytes(content.encode("utf-16"))
    with pytest.raises(DataError, match="is UTF-16, not UTF-8"):
        read_table(tmp_path / "a.csv")
    assert len(read_table(tmp_path / "a.csv", encoding="utf-16")) == 2
    with pytest.raises(DataError, match="encoding 'klingon' is unknown"):
        read_table(tmp_path / "a.csv", encoding="klingon")


def test_a_huge_cell_changes_no_setting_of_the_process(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    (tmp_path / "a.csv").write_text("text,label\n" + "word " * 100_000 + ",x\n")
    assert len(read_table(tmp_path / "a.csv").samples[0].text) == 500_000  # type: ignore[union-attr]
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("header", "options", "says"),
    [
        ("body,label", {}, r"which column holds the text\? Set the option text \(or image\)\. Columns: body, label"),
        ("text,topic", {}, r"which column holds the labels\? Set one of labels.*Columns: text, topic"),
        ("text,sentence,label", {}, "several columns could be meant by option text: text, sentence"),
        ("text,label,category", {}, "several columns could be meant by option labels: label, category"),
        ("text,image,label", {}, "holds texts and images; set one of text and image to '-'"),
        ("text,label", {"text": "txt"}, r"has no column 'txt' \(option text\); did you mean 'text'"),
        ("text,joy", {"concepts": ["joi"]}, r"has no column 'joi' \(option concepts\); did you mean 'joy'"),
        ("text,joy,label", {"concepts": ["joy"], "labels": "label"}, "not both"),
        ("text,label,mask", {"mask": "mask"}, "option mask does not go with texts"),
        ("text,text,label", {}, "several columns could be meant"),
        ("text,label,x,x", {"group": "x"}, "column 'x' comes twice"),
        ("text,label", {"offsets": "bytes"}, "option offsets 'bytes' is unknown"),
        ("text,label", {"delimiter": "::"}, "delimiter must be one character"),
    ],
)
def test_columns_that_are_unclear(tmp_path: Path, header: str, options: dict[str, Any], says: str) -> None:
    (tmp_path / "a.csv").write_text(header + "\n" + ",".join("a" * len(header.split(","))) + "\n")
    with pytest.raises(DataError, match=says) as caught:
        read_table(tmp_path / "a.csv", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.xlsx", b"PK", "is no table that can be read"),
        ("a.parquet", b"PAR0", "is not readable Parquet"),
        ("a.jsonl", b"{\n[1]\n", r"a\.jsonl:1: is not JSON"),
        ("a.jsonl", b"\n", "has no rows"),
        ("a.json", b'{"a": 1}', "must hold a list of objects"),
        ("a.json", b"[\n[", r"a\.json:2: is not JSON"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b",\n,\n", "the first line must name the columns"),
        ("a.csv", b"text,label\n", "has no samples"),
        ("a.csv", b"text,label\na,\n", "no sample has a label"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_table(tmp_path / name)


def test_paths_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(DataError, match="holds no table"):
        read_table(tmp_path)
    (tmp_path / "train.csv").write_text("text,label\na,x\n")
    (tmp_path / "train.jsonl").write_text('{"text": "a", "label": "x"}')
    with pytest.raises(DataError, match="two types for split train"):
        read_table(tmp_path)


def test_rows_of_parquet_are_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", None, "c"], "label": ["x", "x", "y"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: row 2: column 'text' is empty"):
        read_table(tmp_path / "a.parquet")
