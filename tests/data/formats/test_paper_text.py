"""The paper's augmented texts: spans of labelled words against the sentences that the texts were made of."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from data.formats import mini_paper_text
from data.formats.mini_paper_text import CONCEPTS, pieces, text_of
from superactivators.data.dataset import ConceptDataset, Span, TextSample
from superactivators.data.formats.paper_concepts import EVALUATED
from superactivators.data.formats.paper_metadata import label_disagreements
from superactivators.data.formats.paper_text import read_paper_text
from superactivators.data.splits import ensure_splits
from superactivators.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return mini_paper_text.build(tmp_path)


def text_sample(dataset: ConceptDataset, row: int) -> TextSample:
    sample = dataset.samples[row]
    assert isinstance(sample, TextSample)
    return sample


def labelled_characters(sample: TextSample, concept: str) -> set[int]:
    return {place for span in sample.spans if span.concept == concept for place in range(span.start, span.end)}


def test_spans_are_the_labelled_sentences(root: Path) -> None:
    dataset = read_paper_text(root)
    assert dataset.name == "Augmented_GoEmotions"
    assert dataset.concepts == CONCEPTS
    assert dataset.ids == [f"p{number}" for number in range(16)]
    assert dataset.splits.tolist() == ["train", "cal", "test", "train"] * 4
    assert ensure_splits(dataset) is dataset
    for number, sample in enumerate(dataset.samples):
        assert isinstance(sample, TextSample)
        assert sample.text == text_of(pieces(number)), "no byte order mark, no carriage returns"
        start = 0
        expected: dict[str, set[int]] = {concept: set() for concept in CONCEPTS}
        for sentence, names in pieces(number):
            start = sample.text.index(sentence, start)
            for name in names:
                expected[name] |= set(range(start, start + len(sentence)))
            start += len(sentence)
        for concept in CONCEPTS:
            found = labelled_characters(sample, concept)
            blanks = {place for place, sign in enumerate(sample.text) if sign.isspace()}
            assert found - blanks == expected[concept] - blanks, "neighbouring sentences make one span"
        assert sample.labels == {name for _, names in pieces(number) for name in names}
    assert label_disagreements(dataset) == {}


def edit(path: Path, change: Any) -> None:
    """Rewrite a table: ``change`` gets its rows, header included."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    rows = change(rows) or rows
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def small(tmp_path: Path, text: str, words: list[str], flags: list[int], label: int = 1) -> Path:
    root = tmp_path / "Sarcasm"
    root.mkdir()
    (root / "0.txt").write_bytes(text.encode())
    (root / "metadata.csv").write_text(f"text_path,split,sarcasm\n0.txt,train,{label}\n")
    rows: list[list[Any]] = [[1, word, flag] for word, flag in zip(words, flags, strict=True)]
    mini_paper_text.save(root / "word_level_sarcasm.csv", ["paragraph_id", "word", "sarcasm"], rows)
    return root


def test_runs_of_words(tmp_path: Path) -> None:
    text = "\tOh, \u201cgreat\u201d!\n\nAnother\u00a0rainy  day \u2014 , so nice. "
    words = ["Oh,", "\u201cgreat\u201d!", "Another", "rainy", "day", "\u2014", ",", "so", "nice."]
    root = small(tmp_path, text, words, [1, 1, 0, 1, 0, 0, 1, 1, 1])
    sample = text_sample(read_paper_text(root), 0)
    assert sample.text == text
    assert [text[span.start : span.end] for span in sample.spans] == ["Oh, \u201cgreat\u201d!", "rainy", ", so nice."]
    assert sample.labels == {"sarcasm"}, "without a table of paragraphs, those of metadata.csv"


def test_sarcasm_by_its_names(tmp_path: Path) -> None:
    dataset = read_paper_text(small(tmp_path, "Oh great", ["Oh", "great"], [1, 0]))
    assert dataset.name == "Sarcasm"
    assert dataset.samples == (TextSample("0", "Oh great", (Span(0, 2, "sarcasm"),), frozenset({"sarcasm"}), "train"),)


def test_spelling_of_words(tmp_path: Path) -> None:
    root = small(tmp_path, "Can't \u2014 STOP!", ["cant", "", "stop"], [0, 0, 1])
    assert len(text_sample(read_paper_text(root), 0).spans) == 1, "letters and digits count"
    (root / "0.txt").write_text("Can't -- stay!")
    with pytest.raises(DataError, match=r"word_level_sarcasm\.csv:4: word 'stop' of paragraph 1 is 'stay!'"):
        read_paper_text(root)
    assert len(text_sample(read_paper_text(root, check_words=False), 0).spans) == 1


def test_paragraphs_that_the_table_of_words_lacks(root: Path) -> None:
    edit(root / "word_level_emotion.csv", lambda rows: [row for row in rows if row[0] not in ("1", "4")])
    dataset = read_paper_text(root)
    assert text_sample(dataset, 0).spans == ()
    assert text_sample(dataset, 0).labels == {"joy", "gratitude"}, "unknown tokens, since a label has no span"
    assert text_sample(dataset, 3) == TextSample("p3", text_of(pieces(3)), (), frozenset(), "train")
    assert text_sample(dataset, 1).spans, "those after it are not shifted"


def test_labels_of_paragraphs_come_before_those_of_the_metadata(root: Path) -> None:
    edit(root / "paragraph_level_emotion.csv", lambda rows: [rows[0], ["1", "0", "1", "0", "0"], *rows[2:]])
    dataset = read_paper_text(root)
    assert dataset.samples[0].labels == {"sadness"}
    assert label_disagreements(dataset) == {"joy": (0, 1), "sadness": (1, 0), "gratitude": (0, 1)}
    (root / "paragraph_level_emotion.csv").unlink()
    assert read_paper_text(root).samples[0].labels == {"joy", "gratitude"}


def test_rows_in_any_order_of_paragraphs(root: Path) -> None:
    expected = read_paper_text(root).samples
    edit(root / "word_level_emotion.csv", lambda rows: [rows[0], *sorted(rows[1:], key=lambda row: -int(row[0]))])
    assert read_paper_text(root).samples == expected


def test_evaluated_concepts(tmp_path: Path) -> None:
    names = [*EVALUATED["goemotions"], "surprise", "disgust"]
    root = tmp_path / "GoEmotions"
    root.mkdir()
    (root / "0.txt").write_text("Wow, yuck")
    flags = ",".join(["0"] * 14)
    (root / "metadata.csv").write_text(f"text_path,split,{','.join(names)}\n0.txt,test,{flags},1,1\n")
    (root / "word_level_emotion.csv").write_text(
        f'paragraph_id,word,{",".join(names)}\n1,"Wow,",{flags},1,0\n1,yuck,{flags},0,1\n'
    )
    dataset = read_paper_text(root)
    assert dataset.concepts == EVALUATED["goemotions"]
    assert dataset.samples == (TextSample("0", "Wow, yuck", (), frozenset(), "test"),)
    everything = read_paper_text(root, evaluated=False)
    assert everything.concepts == tuple(names)
    assert text_sample(everything, 0).spans == (Span(0, 4, "surprise"), Span(5, 9, "disgust"))


def test_isarcasm_is_told_by_its_columns() -> None:
    from superactivators.data.formats.paper_concepts import evaluated_of, paper_data_set

    columns = ("sarcastic", "sarcasm", "irony", "satire", "understatement", "overstatement", "rhetorical_question")
    assert paper_data_set(columns) == "isarcasm"
    assert evaluated_of(columns) == ("sarcastic",)
    assert paper_data_set(("sarcasm",)) == "sarcasm"
    assert evaluated_of(("wet", "dry")) == ("wet", "dry")


def test_faults_are_told_together(root: Path) -> None:
    (root / "texts" / "p0.txt").unlink()
    (root / "texts" / "p1.txt").write_bytes(b"\xff\xfeab")
    (root / "texts" / "p2.txt").write_text(" \n")
    (root / "texts" / "p3.txt").write_text("too short")
    edit(root / "word_level_emotion.csv", lambda rows: [*rows, ["17", "x", *"0000"], ["0", "x", *"0000"], ["x"]])
    with pytest.raises(DataError) as caught:
        read_paper_text(root)
    message = str(caught.value)
    assert "7 faults" in message
    for says in (
        "metadata.csv:2: text_path 'texts/p0.txt' does not exist",
        "p1.txt: cannot be read as UTF-8",
        "p2.txt: is empty",
        "words here, but 2 in its text",
        "paragraph_id '17' must be the number of a row of metadata.csv, from 1 to 16",
        "paragraph_id '0' must be",
        "has 1 cells, but the header has 6",
    ):
        assert says in message


def test_words_that_are_not_zero_or_one(root: Path) -> None:
    edit(root / "word_level_emotion.csv", lambda rows: [rows[0], *([*row[:2], "2", *row[3:]] for row in rows[1:])])
    with pytest.raises(DataError, match=r"1 fault.*\n.*:2: column 'joy' holds '2', but"):
        read_paper_text(root)


def test_tables_of_other_sets(root: Path) -> None:
    edit(root / "paragraph_level_emotion.csv", lambda rows: rows[:-1])
    with pytest.raises(DataError, match=r"has 15 rows, but metadata\.csv has 16"):
        read_paper_text(root)
    edit(root / "paragraph_level_emotion.csv", lambda rows: [rows[0], *rows[2:]])
    with pytest.raises(DataError, match="paragraph_id is '2', but row 1 must have 1"):
        read_paper_text(root)
    edit(root / "paragraph_level_emotion.csv", lambda rows: [row[:2] for row in rows])
    with pytest.raises(DataError, match="has no column 'sadness'"):
        read_paper_text(root)
    edit(root / "word_level_emotion.csv", lambda rows: [[*row[:2], "0"] for row in rows])
    with pytest.raises(DataError, match=r"none of its columns .* is a concept of metadata\.csv"):
        read_paper_text(root)
    edit(root / "word_level_emotion.csv", lambda rows: [row[1:] for row in rows])
    with pytest.raises(DataError, match=r"has no column 'paragraph_id' .* give the paper's word_level_sarcasm"):
        read_paper_text(root)


def test_which_tables(root: Path) -> None:
    twin = root / "word_level_sarcasm.csv"
    twin.write_bytes((root / "word_level_emotion.csv").read_bytes())
    with pytest.raises(DataError, match=r"holds word_level_emotion\.csv, word_level_sarcasm\.csv; exactly one"):
        read_paper_text(root)
    assert len(read_paper_text(root, words="word_level_sarcasm.csv")) == 16
    twin.unlink()
    (root / "word_level_emotion.csv").unlink()
    with pytest.raises(DataError, match=r"holds no word_level_\*\.csv; exactly one is needed"):
        read_paper_text(root)
    with pytest.raises(DataError, match=r"'gone\.csv': no such file"):
        read_paper_text(root, words="gone.csv")
    (root / "metadata.csv").unlink()
    with pytest.raises(DataError, match=r"holds no metadata\.csv; give the folder of one of the paper's"):
        read_paper_text(root)
