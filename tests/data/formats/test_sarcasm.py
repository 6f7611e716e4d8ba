"""Headlines: JSON lines of either version, and what is not them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data.formats.mini_sarcasm import build, records
from superactivators.data.dataset import SPLITS, TextSample
from superactivators.data.formats.sarcasm import read_sarcasm
from superactivators.data.splits import ensure_splits
from superactivators.errors import DataError


def test_single_headlines(tmp_path: Path) -> None:
    dataset = read_sarcasm(build(tmp_path), augment=False)
    assert dataset.concepts == ("sarcasm",)
    found = [(s.id, s.text, bool(s.labels), s.split) for s in dataset.samples if isinstance(s, TextSample)]
    assert found == [
        (f"headline-{number:06d}", record["headline"], record["is_sarcastic"] == 1, None)
        for number, record in enumerate(records(), start=1)
    ]
    split = {sample.text: sample.split for sample in ensure_splits(dataset).samples if isinstance(sample, TextSample)}
    assert all(split[s.text] == s.split for s in ensure_splits(dataset).samples if isinstance(s, TextSample))


def test_paragraphs(tmp_path: Path) -> None:
    report = tmp_path / "counts.json"
    dataset = read_sarcasm(build(tmp_path) / "Sarcasm_Headlines_Dataset.json", report=str(report), seed=2)
    ensure_splits(dataset)
    pieces = [s.text[span.start : span.end] for s in dataset.samples for span in s.spans]
    assert sorted(pieces) == sorted({record["headline"] for record in records() if record["is_sarcastic"]})
    counts = json.loads(report.read_text())
    assert counts["dropped"]["labelled"]["near_duplicates"] == 1
    assert [counts["splits"][split]["one"] for split in SPLITS] == [12, 4, 4]


def test_which_file_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds neither of .* give the path of one file"):
        read_sarcasm(tmp_path)
    old = build(tmp_path) / "Sarcasm_Headlines_Dataset.json"
    new = tmp_path / "Sarcasm_Headlines_Dataset_v2.json"
    new.write_bytes(old.read_bytes())
    with pytest.raises(DataError, match=r"holds both of .* give the path of one file"):
        read_sarcasm(tmp_path)
    whole = read_sarcasm(old).fingerprint
    old.unlink()
    assert read_sarcasm(tmp_path).fingerprint == whole


def test_faults_are_told_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "Sarcasm_Headlines_Dataset.json"
    good = json.dumps({"headline": "all is well today", "is_sarcastic": 0})
    bad = [
        '{"headline": 3, "is_sarcastic": 1}',
        '{"headline": "x"}',
        '{"headline": "x", "is_sarcastic": true}',
        '{"headline": " ", "is_sarcastic": 1}',
        "{'headline': 'x'}",
        "3",
        '{"headline": "\\ud800", "is_sarcastic": 1}',
        '{"headline": "x", "is_sarcastic": "1"}',
        '{"headline": "x", "is_sarcastic": [1]}',
    ]
    file.write_text("\n".join([good, *bad]))
    with pytest.raises(DataError) as caught:
        read_sarcasm(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"data set {tmp_path}: {len(bad)} faults; mend the lines named and try again"
    assert [line.split(": ")[0] for line in lines[1:]] == [f"{file}:{number}" for number in range(2, 2 + len(bad))]
    file.write_text("\n")
    with pytest.raises(DataError, match=r"holds no headline"):
        read_sarcasm(file)
    file.write_text(json.dumps([json.loads(good)]))
    with pytest.raises(DataError, match="is a JSON array, but the original has one object a line"):
        read_sarcasm(file)
    file.write_bytes(b'{"headline": "caf\xe9"}')
    with pytest.raises(DataError, match=r":1: is not UTF-8"):
        read_sarcasm(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_sarcasm(tmp_path / "none.json")


def test_options_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="filler and report are for augment = true"):
        read_sarcasm(build(tmp_path), augment=False, filler="x")
