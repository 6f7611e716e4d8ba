"""The open text format: what is written is read, and every fault is told at once with file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_data import write_texts
from superactivators.data.dataset import Span, TextSample
from superactivators.data.text_folder import read_text_folder
from superactivators.errors import DataError

quick = settings(derandomize=True, deadline=None, max_examples=50)
GOOD = {"id": "good", "text": "a good text"}


def test_round_trip(tmp_path: Path) -> None:
    folder = write_texts(
        tmp_path / "reviews",
        [
            {
                "id": "a",
                "text": "Zürich is  nice\t🎉!",
                "spans": [
                    {"start": 0, "end": 6, "label": "place"},
                    {"start": 11, "end": 17, "label": "mood"},
                    {"start": 3, "end": 17, "label": "place", "who": "ignored"},
                ],
                "labels": ["place", "mood", "wit"],
                "split": "cal",
                "group": "doc 1",
                "source": "ignored",
            },
            "",
            {"id": "b", "text": "plain", "spans": None, "labels": None, "split": None, "group": None},
            {"id": "c", "text": "none", "labels": []},
        ],
    )
    dataset = read_text_folder(folder)
    assert dataset.name == "reviews"
    assert dataset.modality == "text"
    assert dataset.concepts == ("mood", "place", "wit")
    spans = (Span(0, 6, "place"), Span(11, 17, "mood"), Span(3, 17, "place"))
    assert dataset.samples == (
        TextSample("a", "Zürich is  nice\t🎉!", spans, frozenset({"place", "mood", "wit"}), "cal", "doc 1"),
        TextSample("b", "plain"),
        TextSample("c", "none", labels=frozenset()),
    )


@quick
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
    st.booleans(),
)
def test_any_text_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], ascii_only: bool, windows: bool
) -> None:
    folder = tmp_path_factory.mktemp("any")
    end = "\r\n" if windows else "\n"
    lines = [
        json.dumps({"id": str(number), "text": text, "labels": ["x"]}, ensure_ascii=ascii_only)
        for number, text in enumerate(texts)
    ]
    (folder / "data.jsonl").write_bytes(end.join(lines).encode())
    assert [sample.text for sample in read_text_folder(folder).samples] == texts  # type: ignore[union-attr]


def span(start: Any, end: Any, label: Any = "x") -> dict[str, Any]:
    return {"id": "bad", "text": "some words", "spans": [{"start": start, "end": end, "label": label}]}


FAULTS: list[tuple[dict[str, Any] | str | bytes, str]] = [
    ("{not json", "is not JSON"),
    ('{"id": "x", "text": "y"', "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ("[1, 2]", "must be a JSON object; got [1, 2]"),
    ('"text"', "must be a JSON object"),
    (b'{"id": "x", "text": "\xff"}', "is not UTF-8"),
    ({"text": "no id"}, "field 'id' is missing"),
    ({"id": None, "text": "x"}, "field 'id' must be a string; got null"),
    ({"id": 7, "text": "x"}, "field 'id' must be a string; got 7"),
    ({"id": " ", "text": "x"}, "field 'id' is empty"),
    ({"id": "bad"}, "field 'text' is missing"),
    ({"id": "bad", "text": None}, "field 'text' must be a string"),
    ({"id": "bad", "text": ["a"]}, "field 'text' must be a string"),
    ({"id": "bad", "text": ""}, "field 'text' is empty"),
    ({"id": "bad", "text": " \t\n\u2003"}, "field 'text' is empty"),
    ({"id": "bad", "text": "half \ud83d of a sign"}, "field 'text' holds half of a surrogate pair"),
    ({"id": "bad\udc80", "text": "x"}, "field 'id' holds half of a surrogate pair"),
    ({"id": "bad", "text": "x", "labels": "joy"}, "field 'labels' must be a list of non-empty strings"),
    ({"id": "bad", "text": "x", "labels": ["joy", ""]}, "field 'labels' must be a list of non-empty strings"),
    ({"id": "bad", "text": "x", "labels": [1]}, "field 'labels' must be a list of non-empty strings"),
    ({"id": "bad", "text": "x", "labels": {"joy": True}}, "field 'labels' must be a list of non-empty strings"),
    ({"id": "bad", "text": "x", "labels": ["\ud83d"]}, "field 'labels' must be a list of non-empty strings"),
    ({"id": "bad", "text": "x", "split": "training"}, "split 'training' is unknown; did you mean 'train'?"),
    ({"id": "bad", "text": "x", "split": 1}, "field 'split' must be a string"),
    ({"id": "bad", "text": "x", "group": 4}, "field 'group' must be a string"),
    ({"id": "bad", "text": "x", "spans": "0-3"}, "field 'spans' must be a list of objects"),
    ({"id": "bad", "text": "x", "spans": [[0, 1, "x"]]}, "field 'spans' must be a list of objects"),
    (span(0, 11), "[0, 11), but 0 <= start < end <= 10"),
    (span(-1, 3), "[-1, 3), but 0 <= start < end"),
    (span(3, 3), "[3, 3), but 0 <= start < end"),
    (span(5, 3), "[5, 3), but 0 <= start < end"),
    (span(4, 5), "span of 'x' [4, 5) holds only blanks"),
    (span("0", 3), "needs whole numbers 'start' and 'end'; got '0' and 3"),
    (span(0, 3.0), "needs whole numbers"),
    (span(True, 3), "needs whole numbers"),
    (span(None, None), "needs whole numbers"),
    (span(0, 3, ""), "needs a 'label' that is a non-empty string"),
    (span(0, 3, None), "needs a 'label'"),
    (span(0, 3, ["x"]), "needs a 'label'"),
    (span(0, 3, "\ud83d"), "needs a 'label'"),
    (span(0, 3, "joi") | {"labels": ["joy"]}, "'joi' is not among the sample's labels; did you mean 'joy'?"),
    (GOOD, "id 'good' is a duplicate of line 1"),
]


@pytest.mark.parametrize(("record", "says"), FAULTS, ids=[says[:40] for _, says in FAULTS])
def test_every_fault_is_told_with_file_and_line(
    tmp_path: Path, record: dict[str, Any] | str | bytes, says: str
) -> None:
    folder = write_texts(tmp_path / "data", [GOOD, "", record])
    with pytest.raises(DataError) as caught:
        read_text_folder(folder)
    first, *faults = str(caught.value).splitlines()
    assert first == f"data set {folder}: 1 fault; mend the lines named and try again"
    assert len(faults) == 1
    assert faults[0].startswith(f"{folder / 'data.jsonl'}:3: ")
    assert says in faults[0]


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    records = [
        record | {"id": f"bad {number}"} if isinstance(record, dict) and record.get("id") == "bad" else record
        for number, (record, _) in enumerate(FAULTS)
    ]
    folder = write_texts(tmp_path / "data", [GOOD, *records])
    with pytest.raises(DataError) as caught:
        read_text_folder(folder)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"data set {folder}: {len(FAULTS)} faults; ")
    places = [line.split(": ")[0] for line in lines[1:] if line.startswith(str(folder))]
    for number in range(2, 2 + len(FAULTS)):
        assert f"{folder / 'data.jsonl'}:{number}" in places


def test_several_faults_of_one_line_and_the_first_fifty_of_many(tmp_path: Path) -> None:
    folder = write_texts(tmp_path / "data", [{"text": "", "labels": 3, "split": "x"}] * 20)
    with pytest.raises(DataError) as caught:
        read_text_folder(folder)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"data set {folder}: 80 faults")
    assert len(lines) == 52
    assert lines[-1] == "… and 30 more"
    assert sum(line.startswith(f"{folder / 'data.jsonl'}:1: ") for line in lines) == 4


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="has no samples; give one JSON object a line"):
        read_text_folder(tmp_path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.jsonl: cannot be read \(No such file or directory\); check the path"):
        read_text_folder(tmp_path)


def test_no_concept_anywhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names no concept; label at least one"):
        read_text_folder(write_texts(tmp_path / "data", [GOOD]))
