"""Reader of iSarcasmEval (SemEval-2022 task 6; Abu Farha et al. 2022) in its original files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

from superactivators.data.augmentation import SourceText, hold_out, near_duplicate_key
from superactivators.data.dataset import ConceptDataset
from superactivators.data.faults import Faults
from superactivators.data.filler import read_augmented, single_texts
from superactivators.data.formats.csv_table import Table
from superactivators.errors import DataError, allowed

SARCASTIC: Final = "sarcastic"
SUBTYPES: Final = ("sarcasm", "irony", "satire", "understatement", "overstatement", "rhetorical_question")
"""Kinds of ironic speech, given for sarcastic English texts."""
LANGUAGES: Final = {"en": "En", "ar": "Ar"}
_MARKS = {"0": False, "1": True, "0.0": False, "1.0": True}


def read_isarcasm(
    path: Path,
    *,
    augment: bool = True,
    language: str = "en",
    subtypes: bool | None = None,
    cal_share: float = 0.25,
    filler: str = "",
    report: str = "",
    seed: int = 0,
    two: float = 0.0,
    none: float = 0.5,
    min_filler: int = 3,
    max_filler: int = 6,
    min_words: int = 3,
    max_words: int = 40,
    per_concept: int | None = None,
) -> ConceptDataset:
    """Read iSarcasmEval, by default as paragraphs in which sarcastic texts stand among others.

    Looks for ``train.En.csv`` (tweet, sarcastic, the kinds of irony) in the folder or its folder ``train``, and for
    ``task_A_En_test.csv`` (text, sarcastic) and ``task_B_En_test.csv`` (text, the kinds of irony) in the folder or its
    folder ``test``. The two test files hold the same texts in different orders and are matched by text, without regard
    to case and punctuation. With test files the original splits are kept, and ``cal_share`` of train becomes cal
    (there is no development set), near-duplicates together. Without them no text has a split.

    Rows without a text, of which the original train file has one, are left out. Rephrasings and dialects are not read.

    Parameters
    ----------
    path : Path
        The folder, or a train file.
    augment : bool
        False: single texts with labels of the whole text; tokens are unknown.
    language : str
        ``"en"``, or ``"ar"`` for the Arabic files.
    subtypes : bool, optional
        Whether the kinds of irony are concepts beside ``sarcastic``. Left out: in English, which alone has them.
    cal_share : float
        Share of train that becomes cal.
    filler, report, seed, two, none, min_filler, max_filler, min_words, max_words, per_concept
        As for `superactivators.data.formats.goemotions.read_goemotions`. Every labelled text is sarcastic, so that no
        two of them can share a paragraph; half of the paragraphs hold none.

    Returns
    -------
    ConceptDataset

    Raises
    ------
    DataError
        If files are missing or of another version (the first iSarcasm, of 2020, has tweet ids in place of texts), or
        lines have faults (all are listed).
    """
    if language not in LANGUAGES:
        raise DataError(f"isarcasm: unknown language {language!r}; {allowed(language, LANGUAGES)}")
    if subtypes and language != "en":
        raise DataError("isarcasm: only the English files have kinds of irony; leave subtypes out")
    kinds = SUBTYPES if subtypes or (subtypes is None and language == "en") else ()
    name, faults = f"isarcasm-{language}", Faults()
    train, test, more = _files(path, LANGUAGES[language])
    texts, empty = _read(train, "tweet" if language == "en" else "text", kinds, faults, "train")
    if test is not None:
        tested, blank = _read(test, "text", (), faults, "test")
        empty += blank
        texts += _with_kinds(tested, test, more, kinds, faults) if kinds else tested
    faults.raise_if_any(f"data set {path}")
    texts = (
        hold_out(texts, cal_share, seed)
        if test is not None
        else [SourceText(text.id, text.text, text.concepts) for text in texts]
    )
    concepts = (SARCASTIC, *kinds)
    if not augment:
        if filler or report:
            raise DataError("isarcasm: filler and report are for augment = true; leave them out")
        return single_texts(texts, name, concepts)
    return read_augmented(
        texts,
        filler=filler,
        report=report,
        left_out=Counter(empty=empty),
        seed=seed,
        name=name,
        concepts=concepts,
        two=two,
        none=none,
        min_filler=min_filler,
        max_filler=max_filler,
        min_words=min_words,
        max_words=max_words,
        per_concept=per_concept,
    )


def _files(path: Path, language: str) -> tuple[Path, Path | None, Path | None]:
    """Train file, and the test files of tasks A and B where they are."""
    if path.is_file():
        return path, None, None
    wanted = (f"train.{language}.csv", f"task_A_{language}_test.csv", f"task_B_{language}_test.csv")
    places = (path, path / "train", path / "test")
    train, test, more = (next((place / file for place in places if (place / file).is_file()), None) for file in wanted)
    if train is None:
        if any((place / "isarcasm_train.csv").is_file() for place in places):
            raise DataError(
                f"{path}: is iSarcasm of 2020, which holds tweet ids and labels but no texts; "
                "give iSarcasmEval (SemEval-2022 task 6), which holds texts"
            )
        raise DataError(f"{path}: holds no {wanted[0]}, also not in a folder 'train'; give the folder of iSarcasmEval")
    return train, test, more


def _read(path: Path, column: str, kinds: tuple[str, ...], faults: Faults, split: str) -> tuple[list[SourceText], int]:
    """Texts of a file with the label sarcastic, and how many rows have no text."""
    header = Table(path, faults, (), "a file of iSarcasmEval").columns
    if "tweet_id" in header and column not in header:
        raise DataError(
            f"{path}: has tweet ids but no texts, as iSarcasm of 2020; "
            "give iSarcasmEval (SemEval-2022 task 6), which holds texts"
        )
    table = Table(path, faults, (column, SARCASTIC, *kinds), f"the original {path.name}")
    texts: list[SourceText] = []
    empty = 0
    for number, (line, cells) in enumerate(table):
        text = cells[table.column[column]]
        sarcastic = _mark(table, line, cells, SARCASTIC)
        carried = {kind for kind in kinds if _mark(table, line, cells, kind, blank=sarcastic is False)}
        if sarcastic is False and carried:
            table.fault(line, f"is not sarcastic, but {sorted(carried)[0]!r} is 1")
        if not text.strip():
            empty += 1
        else:
            concepts = frozenset({SARCASTIC} | carried) if sarcastic else frozenset()
            texts.append(SourceText(f"{split}-{number:04d}", text, concepts, split))
    if not texts and not len(faults):
        table.fault(None, "holds no text")
    return texts, empty


def _mark(table: Table, line: int, cells: list[str], name: str, *, blank: bool = False) -> bool | None:
    """Read a cell that is 0 or 1; where a blank is allowed it counts as 0. None: a fault was noted."""
    cell = cells[table.column[name]].strip()
    if blank and not cell:
        return False
    if cell not in _MARKS:
        table.fault(line, f"column {name!r} must be 0 or 1; got {cell[:40]!r}")
    return _MARKS.get(cell)


def _with_kinds(
    texts: list[SourceText], test: Path, more: Path | None, kinds: tuple[str, ...], faults: Faults
) -> list[SourceText]:
    """Add the kinds of irony that task B gives to the sarcastic texts of task A."""
    if more is None:
        raise DataError(
            f"{test}: task_B_En_test.csv, which holds the kinds of irony of the same texts, is not beside it; "
            "add it, or set subtypes = false"
        )
    table = Table(more, faults, ("text", *kinds), f"the original {more.name}")
    found: dict[str, set[str]] = {}
    for line, cells in table:
        key = near_duplicate_key(cells[table.column["text"]])
        found.setdefault(key, set()).update(kind for kind in kinds if _mark(table, line, cells, kind))
    whole: list[SourceText] = []
    for text in texts:
        key = near_duplicate_key(text.text)
        if text.concepts and key not in found:
            faults.add(test, None, f"sarcastic text {text.text[:40]!r} is not in {more.name}; or set subtypes = false")
        concepts = text.concepts | found.get(key, set()) if text.concepts else text.concepts
        whole.append(SourceText(text.id, text.text, concepts, text.split))
    return whole
