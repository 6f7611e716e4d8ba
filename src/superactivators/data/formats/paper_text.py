"""Reader of the paper's augmented texts: paragraphs in files, with labels by word and by paragraph in CSV files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from superactivators.data.dataset import ConceptDataset, Span, TextSample
from superactivators.data.faults import Faults
from superactivators.data.formats.csv_table import Flags, Table, find_file
from superactivators.data.formats.paper_concepts import evaluated_of
from superactivators.data.formats.paper_metadata import FILE, PaperMetadata, read_paper_metadata
from superactivators.errors import DataError

WORDS: Final = (
    "the paper's word_level_sarcasm.csv or word_level_emotion.csv (columns paragraph_id, word, then one of 0 and 1 "
    "for each concept)"
)
PARAGRAPHS: Final = "the paper's paragraph_level_….csv (one row a text, a column of 0 and 1 for each concept)"
_WORD = re.compile(r"\S+")
_SIGNS = re.compile(r"[\W_]+")


def read_paper_text(
    path: Path, *, words: str = "", paragraphs: str = "", evaluated: bool = True, check_words: bool = True
) -> ConceptDataset:
    """Read Sarcasm, iSarcasm or GoEmotions as augmented by the paper's authors (``Augmented_iSarcasm`` and the like).

    ``metadata.csv`` lists the text files and splits. In ``word_level_*.csv`` the rows of a ``paragraph_id`` (counted
    from 1 in the order of ``metadata.csv``) are the words of that text, in order; words are what stands between
    blanks. Neighbouring words labelled with a concept make one span, from the first letter of the first word to the
    last one of the last. Labels of texts are those of ``paragraph_level_*.csv``, in row order, as in the paper; where
    there is no such file, those of ``metadata.csv``. They may disagree with the words (see `label_disagreements`): a
    text whose label has no word is one with unknown tokens. So is a text with labels whose ``paragraph_id`` is not in
    the table of words at all; without labels, all its words are negatives.

    Texts are read as UTF-8; a byte order mark is dropped, and all line ends become line feeds, as Python reads.
    A cell without a word stands for any word: pandas writes words such as ``null`` and ``NA`` so.

    Parameters
    ----------
    path : Path
        The folder.
    words, paragraphs : str
        Names of the two tables within the folder; empty: the only ``word_level_*.csv`` and ``paragraph_level_*.csv``.
    evaluated : bool
        Only the concepts that the paper evaluates; where the columns are of none of its data sets, all.
    check_words : bool
        Compare letters and digits of every word with those of the text. Off, only the numbers of words must agree.

    Returns
    -------
    ConceptDataset
        Samples in the order of ``metadata.csv``; their ids are file names without ending. Concepts in the order of
        the table of words.

    Raises
    ------
    DataError
        If a table is missing or another one; or one error with every fault: a text that is missing, empty or not
        UTF-8, words that are not those of the text, a ``paragraph_id`` that is no row, another number of paragraphs.
    """
    if not os.path.isfile(path / FILE):
        raise DataError(
            f"{path!s:.200}: holds no {FILE}; give the folder of one of the paper's augmented text sets, with {FILE}, "
            "the texts, word_level_….csv and paragraph_level_….csv"
        )
    faults = Faults()
    table = read_paper_metadata(path / FILE, faults)
    word_table = Table(_table(path, words, "word_level_*.csv", WORDS), faults, ("paragraph_id", "word"), WORDS)
    columns = tuple(name for name in word_table.columns if name in table.concepts)
    if not columns:
        raise DataError(
            f"{word_table.path}: none of its columns ({', '.join(word_table.columns[:12])}) is a concept of {FILE} "
            f"({', '.join(table.concepts[:12])}); are they of the same data set?"
        )
    concepts = evaluated_of(columns) if evaluated else columns
    labels = _paragraph_labels(path, paragraphs, table, concepts, faults)
    labelled = _labelled_words(word_table, concepts, len(table.rows))
    stems = [Path(row.path.replace("\\", "/")).stem for row in table.rows]
    unique = len(set(stems)) == len(stems)
    samples = []
    for number, row in enumerate(table.rows):
        text = _text(path, row.path, table.path, row.line, faults)
        if text is None:
            continue
        spans = _spans(text, number + 1, labelled.get(number + 1), word_table, check_words)
        samples.append(TextSample(stems[number] if unique else row.path, text, spans, labels[number], row.split))
    faults.raise_if_any(f"data set {path}")
    return ConceptDataset(path.resolve().name, concepts, tuple(samples))


def _table(folder: Path, given: str, pattern: str, what: str) -> Path:
    if given:
        return find_file(given, folder, "paper-text: table")
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        said = f"holds {', '.join(path.name for path in found)}" if found else f"holds no {pattern}"
        raise DataError(f"{folder}: {said}; exactly one is needed, {what} (or name it with an option)")
    return found[0]


def _paragraph_labels(
    folder: Path, given: str, metadata: PaperMetadata, concepts: Sequence[str], faults: Faults
) -> list[frozenset[str]]:
    if not given and not any(folder.glob("paragraph_level_*.csv")):
        return [row.labels & frozenset(concepts) for row in metadata.rows]
    table = Table(_table(folder, given, "paragraph_level_*.csv", PARAGRAPHS), faults, concepts, PARAGRAPHS)
    flags, labels = Flags(table, concepts), []
    place = table.column.get("paragraph_id")
    for line, cells in table:
        labels.append(frozenset(flags(line, cells)))
        if place is not None and cells[place].strip() not in (str(len(labels)), f"{len(labels)}.0"):
            table.fault(line, f"paragraph_id is {cells[place]!r:.20}, but row {len(labels)} must have {len(labels)}")
    if len(labels) != len(metadata.rows) and not len(faults):
        table.fault(None, f"has {len(labels)} rows, but {FILE} has {len(metadata.rows)}; they must be of the same set")
    missing = len(metadata.rows) - len(labels)
    return labels + [frozenset[str]()] * missing


def _labelled_words(table: Table, concepts: Sequence[str], count: int) -> dict[int, list[tuple[int, str, list[str]]]]:
    """Line, word and concepts of every word of each paragraph."""
    flags = Flags(table, concepts)
    identity_at, word_at = table.column["paragraph_id"], table.column["word"]
    found: dict[int, list[tuple[int, str, list[str]]]] = {}
    for line, cells in table:
        given = cells[identity_at].strip().removesuffix(".0")
        if not given.isdecimal() or len(given) > 9 or not 1 <= int(given) <= count:
            table.fault(line, f"paragraph_id {given!r:.20} must be the number of a row of {FILE}, from 1 to {count}")
            continue
        found.setdefault(int(given), []).append((line, cells[word_at], flags(line, cells)))
    return found


def _text(folder: Path, name: str, metadata: Path, line: int, faults: Faults) -> str | None:
    path = folder / name.replace("\\", "/")
    if not os.path.isfile(path):
        faults.add(metadata, line, f"text_path {name!r:.80} does not exist within {folder}")
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        faults.add(path, None, f"cannot be read as UTF-8 ({error}); save it as UTF-8")
        return None
    if not text.strip():
        faults.add(path, None, "is empty; a text must hold at least one word")
        return None
    return text


def _spans(
    text: str, paragraph: int, rows: list[tuple[int, str, list[str]]] | None, table: Table, check: bool
) -> tuple[Span, ...]:
    """Make one span of each run of words that are labelled with a concept."""
    if rows is None:
        return ()
    places = [found.span() for found in _WORD.finditer(text)]
    if len(places) != len(rows):
        table.fault(
            rows[0][0], f"paragraph {paragraph} has {len(rows)} words here, but {len(places)} in its text; mend one"
        )
        return ()
    for (start, end), (line, word, _) in zip(places, rows, strict=True):
        if check and word.strip() and _plain(word) != _plain(text[start:end]):
            table.fault(
                line,
                f"word {word!r:.40} of paragraph {paragraph} is {text[start:end]!r:.40} in its text; mend one, or set "
                "check_words to false if only the spelling differs",
            )
            return ()
    spans = []
    for concept in dict.fromkeys(name for _, _, names in rows for name in names):
        carried = [(concept in names, place) for (_, _, names), place in zip(rows, places, strict=True)]
        for inside, run in groupby(carried, key=lambda pair: pair[0]):
            if inside:
                taken = [place for _, place in run]
                spans.append(Span(taken[0][0], taken[-1][1], concept))
    return tuple(sorted(spans, key=lambda span: (span.start, span.end, span.concept)))


def _plain(word: str) -> str:
    """Letters and digits of a word; the word itself where it has none."""
    return _SIGNS.sub("", word).casefold() or word.strip()
