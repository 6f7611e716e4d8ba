"""GoEmotions: both original layouts, their oddities, and versions that are not them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data.formats.mini_goemotions import (
    NAMES,
    OPTIONS,
    THINGS,
    build,
    build_ratings,
    comments,
    quoted,
    rating,
    write_ratings,
)
from superactivators.data.dataset import SPLITS, ConceptDataset, TextSample
from superactivators.data.formats.goemotions import LABELS, PAPER_EMOTIONS, read_goemotions
from superactivators.data.splits import ensure_splits
from superactivators.errors import DataError

OURS = {"train": "train", "dev": "cal", "test": "test"}


def expected_singles(concepts: set[str]) -> dict[str, tuple[str, frozenset[str], str]]:
    return {
        identity: (text, frozenset(set(labels.split(",")) & concepts), OURS[split])
        for split in THINGS
        for text, labels, identity in comments(split)
    }


def singles(dataset: ConceptDataset) -> dict[str, tuple[Any, ...]]:
    return {s.id: (s.text, s.labels, s.split) for s in dataset.samples if isinstance(s, TextSample)}


def test_single_comments_as_they_are(tmp_path: Path) -> None:
    dataset = read_goemotions(build(tmp_path), augment=False)
    assert dataset.concepts == tuple(NAMES[:-1])
    assert singles(dataset) == expected_singles(set(NAMES[:-1]))
    assert not dataset.has_token_labels
    assert dataset.samples[0].id == "trjo000"
    few = read_goemotions(tmp_path / "data", augment=False, concepts=["neutral", "joy"])
    assert few.concepts == ("neutral", "joy")
    assert singles(few) == expected_singles({"neutral", "joy"})


def test_paragraphs(tmp_path: Path) -> None:
    report = tmp_path / "counts.json"
    dataset = read_goemotions(build(tmp_path), report=str(report), **OPTIONS)
    assert dataset.concepts == ("joy", "anger", "gratitude")
    texts = {
        " ".join(text.split()): (set(labels.split(",")), OURS[split])
        for split in THINGS
        for text, labels, _ in comments(split)
    }
    embedded = set()
    for sample in dataset.samples:
        assert isinstance(sample, TextSample)
        for span in sample.spans:
            piece = sample.text[span.start : span.end]
            assert texts[piece] == ({span.concept}, sample.split)
            embedded.add(piece)
    once = {text for text, (labels, _) in texts.items() if len(labels) == 1 and labels & {"joy", "anger", "gratitude"}}
    assert embedded == once - {"Nope."}
    counts = json.loads(report.read_text())
    assert counts["left_out"] == {"several_labels": 3, "other_emotions": 3, "no_agreement": 0}
    assert counts["dropped"]["labelled"] == {
        "too_short": 3,
        "too_long": 0,
        "near_duplicates": 0,
        "over_per_concept": 0,
    }
    ensure_splits(dataset)
    for split in SPLITS:
        assert {span.concept for s in dataset.samples if s.split == split for span in s.spans} == {
            "joy",
            "anger",
            "gratitude",
        }
    assert read_goemotions(tmp_path, **OPTIONS).fingerprint == dataset.fingerprint
    assert read_goemotions(tmp_path, seed=1, **OPTIONS).fingerprint != dataset.fingerprint


def test_comments_with_several_labels_on_request(tmp_path: Path) -> None:
    dataset = read_goemotions(build(tmp_path), single=False, two=0.0, none=0.0, **OPTIONS)
    both = [s for s in dataset.samples if isinstance(s, TextSample) and s.labels == {"joy", "gratitude"}]
    assert len(both) == 3
    for sample in both:
        assert {sample.text[span.start : span.end][:5] for span in sample.spans} == {"Great"}
        assert len(sample.spans) == 2


def test_names_are_known_without_their_file(tmp_path: Path) -> None:
    whole = read_goemotions(build(tmp_path), augment=False)
    (tmp_path / "data" / "emotions.txt").unlink()
    assert read_goemotions(tmp_path, augment=False).fingerprint == whole.fingerprint
    assert tuple(NAMES) == LABELS
    assert len(PAPER_EMOTIONS) == 19
    assert read_goemotions(tmp_path, augment=False, concepts="paper").concepts == PAPER_EMOTIONS


def test_a_grouped_version_has_its_own_names(tmp_path: Path) -> None:
    for file in ("train.tsv", "dev.tsv", "test.tsv"):
        (tmp_path / file).write_text(f"so sad\t1\t{file}1\nnothing here\t2\t{file}2\nhello\t0,1\t{file}3\n")
    with pytest.raises(DataError, match=r"no comment of the three files is neutral .id 27.* put their names into emot"):
        read_goemotions(tmp_path, augment=False)
    (tmp_path / "labels.txt").write_text("joy\r\nsadness\r\nneutral\r\n")
    dataset = read_goemotions(tmp_path, augment=False)
    assert dataset.concepts == ("joy", "sadness")
    assert [sorted(sample.labels or ()) for sample in dataset.samples[:3]] == [["sadness"], [], ["joy", "sadness"]]
    (tmp_path / "labels.txt").write_text("joy\njoy\nneutral\n")
    with pytest.raises(DataError, match="must hold one label name a line, each once, 'neutral' among them"):
        read_goemotions(tmp_path)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('"He said ""no"" twice"', 'He said "no" twice'),
        ('"""Freedom is a cage"" -[NAME]"', '"Freedom is a cage" -[NAME]'),
        ('"Yes" and "no"', '"Yes" and "no"'),
        ('"', '"'),
        ("plain \u2028 text ", "plain \u2028 text "),
        ('"with a\ttab"', "with a\ttab"),
    ],
)
def test_quotes_of_the_tsv_files(tmp_path: Path, written: str, text: str) -> None:
    build(tmp_path)
    with (tmp_path / "data" / "dev.tsv").open("a", encoding="utf-8") as stream:
        stream.write(f"{written}\t27\tlast\r\n")
    assert singles(read_goemotions(tmp_path, augment=False))["last"] == (text, frozenset(), "cal")


FAULTS = {
    "a text without tabs": "must be text, label ids and comment id, with tabs between them",
    "text\tlabels\tid": "label ids must be numbers with commas between them; got 'labels'",
    "a text\t3,\tx1": "got '3,'",
    "a text\t28\tx2": "label id 28 has no name; there are 28, counted from 0",
    " \t3\tx3": "text is empty",
    "a text\t3\t ": "comment id is empty",
    "a text\t3\ttrjo000": "comment id 'trjo000' is a duplicate of train.tsv:1",
    "": "must be text, label ids",
}


def test_every_fault_is_told_with_its_line(tmp_path: Path) -> None:
    build(tmp_path)
    path = tmp_path / "data" / "dev.tsv"
    path.write_text("\n".join([*FAULTS, "good\t27\tx9", ""]), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_goemotions(tmp_path)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"data set {tmp_path}: {len(FAULTS)} faults; ")
    for number, (line, says) in enumerate(zip(lines[1:], FAULTS.values(), strict=True), start=1):
        assert line.startswith(f"{path}:{number}: ")
        assert says in line
    path.write_text("text\tlabels\tid\ngood\t27\tx9\n")
    with pytest.raises(DataError, match="the original files have no header"):
        read_goemotions(tmp_path)
    path.write_bytes(b"good\t27\tx1\ncaf\xe9\t27\tx2\n")
    with pytest.raises(DataError, match=r"dev.tsv:2: is not UTF-8"):
        read_goemotions(tmp_path)


def test_missing_files_and_other_layouts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds neither train.tsv, dev.tsv, test.tsv nor goemotions_1.csv"):
        read_goemotions(tmp_path)
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="Parquet files are read by the Hugging Face format"):
        read_goemotions(tmp_path)
    (build(tmp_path) / "data" / "test.tsv").unlink()
    with pytest.raises(DataError, match=r"holds no test.tsv; all of train.tsv, dev.tsv, test.tsv are needed"):
        read_goemotions(tmp_path)
    with pytest.raises(DataError, match="is no folder; give the one that holds"):
        read_goemotions(tmp_path / "data" / "train.tsv")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"concepts": ["joi"]}, "no emotion 'joi'; did you mean 'joy'"),
        ({"concepts": ["joy", "neutral"]}, "neutral comments are the filler"),
        ({"augment": False, "filler": "x.txt"}, "filler and report are for augment = true"),
        ({"augment": False, "report": "x.json"}, "filler and report are for augment = true"),
        ({"filler": "no/such.txt"}, "no/such.txt: cannot be read"),
        ({"max_filler": 40}, "neutral text.s. are left for train"),
    ],
)
def test_options_that_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_goemotions(build(tmp_path), **options)


# ------------------------------------------------------------------ ratings


def test_raters_are_put_together(tmp_path: Path) -> None:
    dataset = read_goemotions(build_ratings(tmp_path / "data" / "full_dataset").parents[1], augment=False)
    expected = expected_singles(set(NAMES[:-1]))
    assert singles(dataset) == {name: (text, labels, None) for name, (text, labels, _) in expected.items()}
    assert {sample.group for sample in dataset.samples} == {f"t3_{n}" for n in range(7)}
    one = read_goemotions(tmp_path / "data", augment=False, raters=1)
    for number, (_, labels, identity) in enumerate(comments("train")):
        alone = set() if number % 2 else {"admiration"}
        assert singles(one)[identity][1] == (set(labels.split(",")) | alone) - {"neutral"}


def test_paragraphs_of_the_ratings_are_cut(tmp_path: Path) -> None:
    dataset = read_goemotions(build_ratings(tmp_path), **OPTIONS)
    held = {split: sum(len(s.spans) for s in dataset.samples if s.split == split) for split in SPLITS}
    assert sum(held.values()) == 75
    assert abs(held["train"] - 45) <= 3
    ensure_splits(dataset)


def test_votes(tmp_path: Path) -> None:
    rows = [
        rating("one", "a", 1, "joy,love"), rating("one", "a", 2, "joy"), rating("one", "a", 3, "love,neutral"),
        rating("two", "b", 1, "fear"), rating("two", "b", 1, "fear"), rating("two", "b", 2, "joy"),
        rating("three", "c", 1, "pride"), rating("three", "c", 2, "pride", unclear=True),
        rating("four", "d", 1, "neutral"), rating("four", "d", 2, "neutral"),
    ]  # fmt: skip
    found = singles(read_goemotions(write_ratings(tmp_path, rows), augment=False))
    assert {name: labels for name, (_, labels, _) in found.items()} == {"a": {"joy", "love"}, "d": frozenset()}
    with pytest.raises(DataError, match="no comment has a label that 4 raters chose; lower raters"):
        read_goemotions(tmp_path, raters=4)
    with pytest.raises(DataError, match="raters must be at least 1"):
        read_goemotions(tmp_path, raters=0)


def test_faults_of_ratings(tmp_path: Path) -> None:
    odd = rating("five", "e", 1, "joy")
    odd[8] = "maybe"
    worse = rating("six", "f", 1, "joy")
    worse[9 + NAMES.index("joy")] = "1.0"
    rows = [
        rating("one", "a", 1, "joy"), rating("other", "a", 2, "joy"), rating(" ", "b", 1, "joy"),
        rating("two", "", 1, "joy"), odd, worse, ["short", "row"],
    ]  # fmt: skip
    write_ratings(tmp_path, rows)
    with pytest.raises(DataError) as caught:
        read_goemotions(tmp_path)
    said = str(caught.value)
    for part in (
        "goemotions_2.csv:2: comment 'a' has another text than at goemotions_1.csv:2",
        "goemotions_3.csv:2: text is empty",
        "goemotions_1.csv:3: id is empty",
        "goemotions_2.csv:3: example_very_unclear must be True or False; got 'maybe'",
        "goemotions_3.csv:3: column 'joy' must be 0 or 1; got '1.0'",
        "goemotions_1.csv:4: has 2 cells, but the header has 37",
    ):
        assert part in said
    assert said.splitlines()[0].endswith("6 faults; mend the lines named and try again")
    (tmp_path / "goemotions_2.csv").write_text("text,id,joy\nhello,a,1\n")
    with pytest.raises(DataError, match=r"goemotions_2.csv: has no column 'rater_id'"):
        read_goemotions(tmp_path)
    (tmp_path / "goemotions_2.csv").unlink()
    with pytest.raises(DataError, match=r"holds no goemotions_2.csv; all of"):
        read_goemotions(tmp_path)


def test_the_miniature_writes_quotes_as_the_original() -> None:
    assert quoted('"Freedom" he said') == '"""Freedom"" he said"'
