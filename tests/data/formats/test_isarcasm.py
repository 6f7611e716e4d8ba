"""iSarcasmEval: train and both test files, an empty tweet, duplicates, and what is not it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data.formats.mini_isarcasm import (
    KINDS,
    TESTED,
    TOPICS,
    build,
    build_arabic,
    kinds_of,
    plain,
    sarcastic,
    train_rows,
    write,
)
from superactivators.data.augmentation import near_duplicate_key
from superactivators.data.dataset import SPLITS, TextSample
from superactivators.data.formats.isarcasm import read_isarcasm
from superactivators.data.splits import ensure_splits
from superactivators.errors import DataError


def carried(number: int) -> set[str]:
    return {"sarcastic"} | {kind for kind, mark in zip(KINDS, kinds_of(number), strict=True) if mark}


def test_single_texts(tmp_path: Path) -> None:
    dataset = read_isarcasm(build(tmp_path), augment=False)
    assert dataset.concepts == ("sarcastic", *KINDS)
    found = [(s.text, s.labels) for s in dataset.samples if isinstance(s, TextSample)]
    expected: list[tuple[str, set[str]]] = [(sarcastic(topic), carried(n)) for n, topic in enumerate(TOPICS)]
    expected += [(row[1], set()) for row in train_rows()[1 + len(TOPICS) :] if row[1]]
    expected += [(sarcastic(topic), carried(n)) for n, topic in enumerate(TESTED)]
    expected += [(text, set()) for topic in TESTED for text in plain(topic)]
    assert found == expected
    assert "A line here\n\nand another one 🥰 there" in {text for text, _ in found}
    split = {sample.id: sample.split for sample in dataset.samples}
    assert {split[f"test-{n:04d}"] for n in range(3 * len(TESTED))} == {"test"}
    sarcastic_splits = Counter(split[f"train-{n:04d}"] for n in range(len(TOPICS)))
    assert sarcastic_splits["cal"] in (2, 3, 4)
    assert sarcastic_splits["train"] + sarcastic_splits["cal"] == 12
    # The file holds two texts twice; the pair stays together, so that cal is clean.
    home: dict[str, str | None] = {}
    for sample in dataset.samples:
        assert isinstance(sample, TextSample)
        assert home.setdefault(near_duplicate_key(sample.text), sample.split) == sample.split
    more = Counter(read_isarcasm(tmp_path, augment=False, cal_share=0.5).splits.tolist())
    assert more["cal"] > Counter(split.values())["cal"]
    ensure_splits(dataset)


def test_paragraphs(tmp_path: Path) -> None:
    report = tmp_path / "counts.json"
    dataset = read_isarcasm(build(tmp_path), report=str(report))
    where = {sarcastic(topic): carried(n) for topics in (TOPICS, TESTED) for n, topic in enumerate(topics)}
    seen: Counter[str] = Counter()
    for sample in dataset.samples:
        assert isinstance(sample, TextSample)
        pieces = {sample.text[span.start : span.end] for span in sample.spans}
        assert len(pieces) <= 1
        for piece in pieces:
            assert {span.concept for span in sample.spans} == where[piece]
            seen[piece] += 1
    assert seen == Counter(dict.fromkeys(where, 1))
    counts = json.loads(report.read_text())
    assert counts["left_out"] == {"empty": 1}
    assert counts["dropped"]["neutral"]["near_duplicates"] == 2
    for split in SPLITS:
        shape = counts["splits"][split]
        assert shape["none"] == shape["one"]
        assert shape["two"] == 0
    assert counts["splits"]["test"]["one"] == len(TESTED)
    ensure_splits(dataset)


def test_without_test_files_no_text_has_a_split(tmp_path: Path) -> None:
    train = build(tmp_path) / "train" / "train.En.csv"
    alone = read_isarcasm(train, augment=False)
    assert set(alone.splits) == {""}
    assert len(alone) == len(train_rows()) - 2
    cut = read_isarcasm(train.parent, max_filler=3)
    assert set(cut.splits) == set(SPLITS)
    ensure_splits(cut)


def test_without_subtypes(tmp_path: Path) -> None:
    build(tmp_path)
    more = tmp_path / "test" / "task_B_En_test.csv"
    content = more.read_bytes()
    more.unlink()
    with pytest.raises(DataError, match=r"task_B_En_test.csv, .* is not beside it; add it, or set subtypes = false"):
        read_isarcasm(tmp_path)
    dataset = read_isarcasm(tmp_path, subtypes=False, augment=False)
    assert dataset.concepts == ("sarcastic",)
    assert sum(bool(sample.labels) for sample in dataset.samples) == len(TOPICS) + len(TESTED)
    more.write_bytes(content.replace(b"toaster", b"boaster"))
    with pytest.raises(DataError, match=r"sarcastic text 'Oh great, I just love another hour with .* is not in task_B"):
        read_isarcasm(tmp_path)


def test_arabic_on_request(tmp_path: Path) -> None:
    dataset = read_isarcasm(build_arabic(tmp_path), language="ar", augment=False)
    assert dataset.concepts == ("sarcastic",)
    assert Counter(bool(sample.labels) for sample in dataset.samples) == {True: 17, False: 41}
    ensure_splits(read_isarcasm(tmp_path, language="ar"))
    with pytest.raises(DataError, match=r"holds no train.En.csv"):
        read_isarcasm(tmp_path)
    with pytest.raises(DataError, match="only the English files have kinds of irony"):
        read_isarcasm(tmp_path, language="ar", subtypes=True)
    with pytest.raises(DataError, match="has no column 'tweet'"):
        read_isarcasm(tmp_path / "train.Ar.csv")


def test_numbers_that_pandas_wrote_anew(tmp_path: Path) -> None:
    rows = train_rows()
    for row in rows[1:]:
        row[4:] = [f"{mark}.0" if mark != "" else "" for mark in row[4:]]
    write(tmp_path / "new" / "train.En.csv", rows)
    write(tmp_path / "old" / "train.En.csv", train_rows())
    new, old = (read_isarcasm(tmp_path / name, augment=False) for name in ("new", "old"))
    assert new.fingerprint == old.fingerprint


@pytest.mark.parametrize("folder", ["", "train"])
def test_the_first_isarcasm_has_no_texts(tmp_path: Path, folder: str) -> None:
    file = tmp_path / folder / "isarcasm_train.csv"
    write(file, [["tweet_id", "sarcasm_label", "sarcasm_type"], ["1197", "sarcastic", "irony"]])
    with pytest.raises(DataError, match="is iSarcasm of 2020, which holds tweet ids and labels but no texts; give"):
        read_isarcasm(tmp_path)
    with pytest.raises(DataError, match="has tweet ids but no texts, as iSarcasm of 2020; give"):
        read_isarcasm(file)


def test_faults_are_told_with_their_lines(tmp_path: Path) -> None:
    rows = train_rows()[:6]
    rows[1][2] = "yes"
    rows[2][4] = ""
    rows[3][2] = 0
    rows.append([9, "short", 1])
    file = tmp_path / "train.En.csv"
    write(file, rows)
    with pytest.raises(DataError) as caught:
        read_isarcasm(tmp_path)
    said = str(caught.value)
    for part in (
        f"{file}:2: column 'sarcastic' must be 0 or 1; got 'yes'",
        f"{file}:3: column 'sarcasm' must be 0 or 1; got ''",
        f"{file}:4: is not sarcastic, but 'satire' is 1",
        f"{file}:7: has 3 cells, but the header has 10",
    ):
        assert part in said
    assert "4 faults" in said
    write(file, [*train_rows()[:1], *([n, "", 0, "", *[""] * 6] for n in range(3))])
    with pytest.raises(DataError, match="holds no text"):
        read_isarcasm(tmp_path)
    write(file, [["text", "label"], ["hello", 1]])
    with pytest.raises(DataError, match=r"has no column 'tweet' .*give the original train.En.csv"):
        read_isarcasm(tmp_path)
    file.write_bytes(b",tweet,sarcastic\n0,caf\xe9,1\n")
    with pytest.raises(DataError, match=r"train.En.csv:2: is not UTF-8"):
        read_isarcasm(tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"language": "de"}, "unknown language 'de'; Known: ar, en"),
        ({"cal_share": 1.0}, "cal_share must be above 0 and below 1"),
        ({"augment": False, "filler": "x"}, "filler and report are for augment = true"),
    ],
)
def test_options_that_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_isarcasm(build(tmp_path), **options)
