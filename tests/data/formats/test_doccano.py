"""doccano's exports of all ages: the same spans and labels, and no offset is taken in the wrong unit."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.formats import mini_doccano
from superactivators.data.dataset import Span, TextSample
from superactivators.data.formats.doccano import read_doccano
from superactivators.data.formats.offsets import place_span, to_code_points
from superactivators.errors import DataError

TEXT = "EU rejects German call"
SPANS = (Span(0, 2, "ORG"), Span(11, 17, "MISC"))
TRIPLES = [[0, 2, "ORG"], [11, 17, "MISC"]]
OBJECTS = [
    {"id": 1, "label": "ORG", "start_offset": 0, "end_offset": 2, "user": 1},
    {"id": 2, "label": "MISC", "start_offset": 11, "end_offset": 17, "user": 1},
]


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_zip_with_emoji_and_windows_line_ends(tmp_path: Path) -> None:
    dataset = read_doccano(mini_doccano.build(tmp_path), **mini_doccano.OPTIONS)
    assert dataset.concepts == ("anger", "joy", "place")
    for sample, (identity, text, spans) in zip(dataset.samples, mini_doccano.documents(), strict=True):
        assert isinstance(sample, TextSample)
        assert (sample.id, sample.text, sample.labels, sample.split) == (str(identity), text, None, None)
        assert [(s.concept, text[s.start : s.end]) for s in sample.spans] == spans, "cut again from the text"
        assert sample.group == f"b{identity % 8}"


def test_offsets_that_may_be_of_two_units_are_not_guessed(tmp_path: Path) -> None:
    path = mini_doccano.build(tmp_path)
    with pytest.raises(DataError) as caught:
        read_doccano(path, annotator="admin")
    line = str(caught.value).splitlines()[1]
    assert line.startswith(f"{path / 'admin.jsonl'}:2: span of 'joy' [25, 34) reads ")
    assert "'delighted' (utf-16)" in line
    assert "say which is right with the options offsets and newlines" in line


@pytest.mark.parametrize(
    ("offsets", "newlines"),
    [("code-points", "two"), ("code-points", "one"), ("utf-16", "two"), ("utf-16", "one"), ("graphemes", "one")],
)
def test_every_unit(tmp_path: Path, offsets: str, newlines: str) -> None:
    text = "👨🏻\u200d🚒👩\u200d🚒\r\n éx firetrucks!"
    real = text.index("x fire")
    before = text[:real]
    counted = {
        "code-points": len(before),
        "utf-16": len(before.encode("utf-16-le")) // 2,
        "graphemes": 5,
    }[offsets] - (newlines == "one" and offsets != "graphemes")
    path = write(tmp_path / "a.jsonl", {"id": 1, "text": text, "label": [[counted, counted + 12, "x"]]})
    (sample,) = read_doccano(path, offsets=offsets, newlines=newlines).samples
    assert isinstance(sample, TextSample)
    assert [text[s.start : s.end] for s in sample.spans] == ["x firetrucks"]


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.text(st.sampled_from("ab é🙂\r\n𝔘"), min_size=1, max_size=12), st.data())
def test_offsets_against_counting_by_hand(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    units = [len(text[:cut].encode("utf-16-le")) // 2 for cut in (start, end)]
    assert to_code_points(text, *units, "utf-16") == (start, end)
    assert to_code_points(text, start, end, "code-points") == (start, end)
    if "\r\n" not in (text[start - 1 : start + 1], text[end - 1 : end + 1]):
        shorter = [cut - text[:cut].count("\r\n") for cut in (start, end)]
        assert to_code_points(text, *shorter, "code-points", one_newline=True) == (start, end)


def test_half_an_emoji() -> None:
    assert "cuts a character in two" in str(place_span("🙂 a", 1, 4, "x", "utf-16"))
    assert "<= 4 (the text's length)" in str(place_span("🙂 a", 0, 5, "x", "utf-16"))


@pytest.mark.parametrize(
    "record",
    [
        {"id": 7, "text": TEXT, "label": TRIPLES},
        {"id": 7, "text": TEXT, "labels": TRIPLES},
        {"doc_id": 7, "text": TEXT, "entities": TRIPLES, "username": "admin"},
        {"id": 7, "data": TEXT, "label": TRIPLES},
        {"id": 7, "text": TEXT, "entities": OBJECTS, "relations": [{"from_id": 1, "to_id": 2, "type": "r"}]},
        {"id": 7, "text": TEXT, "label": {"entities": TRIPLES}},
        {"id": 7, "text": TEXT, "annotations": OBJECTS, "meta": {}},
    ],
)
def test_spans_of_all_ages(tmp_path: Path, record: dict[str, Any]) -> None:
    dataset = read_doccano(write(tmp_path / "all.jsonl", record, {"id": 8, "text": "none", "label": []}))
    assert dataset.samples == (TextSample("7", TEXT, SPANS), TextSample("8", "none"))


def test_numbers_in_place_of_labels_need_names(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        {"id": 1, "text": TEXT, "annotations": [{"label": 7, "start_offset": 0, "end_offset": 2, "user": 1}]},
        {"id": 2, "text": TEXT, "annotations": [{"label": 8, "start_offset": 0, "end_offset": 2, "user": 1}]},
    )
    with pytest.raises(DataError, match=r"a\.jsonl:1: label 7 is a number"):
        read_doccano(path)
    dataset = read_doccano(path, names={"7": "ORG", "8": ""})
    assert [s.spans for s in dataset.samples] == [(Span(0, 2, "ORG"),), ()]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "folder"])
def test_classification(tmp_path: Path, kind: str) -> None:
    rows = [("1", 'said "no",\nthen left', ["pos", "short"]), ("2", "plain", [])]
    path = tmp_path / f"admin.{kind}"
    if kind == "csv":
        path.write_text('id,data,label\n1,"said ""no"",\nthen left",pos#short\n2,plain,\n')
    elif kind == "json":
        path.write_text(json.dumps([{"id": i, "text": t, "label": labels} for i, t, labels in rows]))
    else:
        path = write(tmp_path / "admin.jsonl", *({"id": int(i), "text": t, "label": labels} for i, t, labels in rows))
        write(tmp_path / "unknown.jsonl", {"id": 3, "text": "unseen", "label": []})
        path = tmp_path if kind == "folder" else path
    assert read_doccano(path).samples == (
        TextSample("1", rows[0][1], labels=frozenset({"pos", "short"})),
        TextSample("2", "plain", labels=frozenset()),
    )


def test_spans_beside_labels_of_whole_texts(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"id": 1, "text": TEXT, "label": TRIPLES, "cats": ["news"]})
    (sample,) = read_doccano(path).samples
    assert sample.labels == {"news", "ORG", "MISC"}


FAULTS: list[tuple[Any, str]] = [
    ("{", ":2: is not JSON"),
    ({"id": 1, "label": []}, ":2: needs a text under one of text, data"),
    ({"id": 1, "text": " ", "label": []}, ":2: needs a text"),
    ({"id": 1.5, "text": "a", "label": []}, ":2: id must be a string or whole number; got 1.5"),
    ({"id": 7, "text": "a", "label": []}, r":2: id '7' is a duplicate of a\.jsonl:1"),
    ({"id": 1, "text": "a"}, ":2: has none of the fields label, labels, entities.*its fields are id, text"),
    ({"id": 1, "text": "a", "label": 3}, ":2: field 'label' must be a list"),
    ({"id": 1, "text": "a", "label": [[0, 1]]}, ":2: a label must be a name, .start, end, name."),
    ({"id": 1, "text": "a", "label": [[0, 2, "x"]]}, r":2: span of 'x' is \[0, 2\), but 0 <= start < end <= 1"),
    ({"id": 1, "text": "a", "label": [[0, "1", "x"]]}, ":2: span of 'x' needs whole numbers"),
    ({"id": 1, "text": "a b", "label": [[1, 2, "x"]]}, ":2: .*holds only blanks"),
    ({"id": 1, "text": "a", "label": [{"label": "x", "start_offset": 0}]}, ":2: span of 'x' needs whole numbers"),
]


@pytest.mark.parametrize(("record", "says"), FAULTS, ids=[says[4:40] for _, says in FAULTS])
def test_faults_have_lines(tmp_path: Path, record: Any, says: str) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        json.dumps({"id": 7, "text": TEXT, "label": TRIPLES}),
        record if isinstance(record, str) else json.dumps(record),
    ]
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=says):
        read_doccano(path)


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no JSON Lines, JSON or CSV file"):
        read_doccano(tmp_path)
    for name in ("admin", "eve"):
        write(tmp_path / f"{name}.jsonl", {"id": 1, "text": "a", "label": ["x"]})
    with pytest.raises(DataError, match="several annotators: admin, eve; set the option annotator"):
        read_doccano(tmp_path)
    with pytest.raises(DataError, match="no file of annotator 'adam'; did you mean 'admin'"):
        read_doccano(tmp_path, annotator="adam")
    assert len(read_doccano(tmp_path, annotator="eve")) == 1
    (tmp_path / "a.zip").write_text("no zip")
    with pytest.raises(DataError, match="is not a readable zip file"):
        read_doccano(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("unknown.jsonl", "")
    with pytest.raises(DataError, match=r"holds no labelled texts \(unknown\)"):
        read_doccano(tmp_path / "b.zip")
    (tmp_path / "a.csv").write_text("text,topic\n")
    with pytest.raises(DataError, match="is no doccano CSV: its columns are text, topic"):
        read_doccano(tmp_path / "a.csv")
    (tmp_path / "a.xml").write_text("")
    with pytest.raises(DataError, match="is no doccano export"):
        read_doccano(tmp_path / "a.xml")
    with pytest.raises(DataError, match="cannot be read"):
        read_doccano(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="option offsets 'bytes' is unknown"):
        read_doccano(tmp_path, offsets="bytes")
    with pytest.raises(DataError, match="option newlines must be"):
        read_doccano(tmp_path, newlines="three")
