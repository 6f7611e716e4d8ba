"""Reader of GoEmotions (Demszky et al., ACL 2020) in Google's layouts, as paragraphs or as single comments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, final

from superactivators.data.augmentation import SourceText
from superactivators.data.dataset import ConceptDataset
from superactivators.data.faults import Faults
from superactivators.data.filler import read_augmented, single_texts
from superactivators.data.formats.csv_table import Table
from superactivators.data.formats.text_files import decode, read_bytes
from superactivators.errors import DataError, allowed

NEUTRAL: Final = "neutral"
LABELS: Final = (
    *("admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion", "curiosity", "desire"),
    *("disappointment", "disapproval", "disgust", "embarrassment", "excitement", "fear", "gratitude", "grief", "joy"),
    *("love", "nervousness", "optimism", "pride", "realization", "relief", "remorse", "sadness", "surprise", NEUTRAL),
)
"""The labels by id, as in ``emotions.txt``."""
PAPER_EMOTIONS: Final = tuple(
    name
    for name in LABELS
    if name not in ("desire", "embarrassment", "fear", "grief", "nervousness", "pride", "relief", "remorse", NEUTRAL)
)
"""The 19 emotions of the paper's augmented set; it evaluates 14 of them."""
TSV: Final = {"train.tsv": "train", "dev.tsv": "cal", "test.tsv": "test"}
RATINGS: Final = ("goemotions_1.csv", "goemotions_2.csv", "goemotions_3.csv")
_IDS = re.compile(r"\d{1,4}(,\d{1,4})*")
_UNCLEAR = {"True": True, "False": False, "1": True, "0": False}


def read_goemotions(
    path: Path,
    *,
    augment: bool = True,
    concepts: list[str] | str | None = None,
    single: bool = True,
    raters: int = 2,
    filler: str = "",
    report: str = "",
    seed: int = 0,
    two: float = 0.35,
    none: float = 0.10,
    min_filler: int = 3,
    max_filler: int = 6,
    min_words: int = 3,
    max_words: int = 40,
    per_concept: int | None = None,
) -> ConceptDataset:
    """Read GoEmotions, by default as paragraphs in which emotional comments stand among neutral ones.

    The folder holds either ``train.tsv``, ``dev.tsv`` and ``test.tsv`` (text, label ids, comment id; no header), or the
    ratings ``goemotions_1.csv`` to ``goemotions_3.csv`` of the full data set; both are also looked for in its folders
    ``data`` and ``full_dataset``, the three first. Names of the label ids come from ``emotions.txt`` or ``labels.txt``
    beside the files, which also allows the grouped versions (Ekman, sentiment); without one they are the 28 of
    `LABELS`.

    Splits of the tsv files are kept: train, dev as cal, test. The ratings have none. A row of the ratings is one
    rater's: a comment carries the labels that at least ``raters`` of its raters chose, where a rater who found it
    unclear chose none and a rater who comes twice counts once. Comments without any such label are left out, as in the
    tsv files.

    Parameters
    ----------
    path : Path
    augment : bool
        False: single comments with labels of the whole comment, all of them, text as it is; tokens are unknown.
        Comments of the ratings then have their thread (``link_id``) as group.
    concepts : list of str, optional
        Emotions wanted; ``"paper"`` for the 19 of the paper's augmented set. Left out: all but neutral.
    single : bool
        Augmented: embed only comments with exactly one label, and leave the others out. False: a comment carries all
        its wanted emotions.
    raters : int
        Ratings: raters who must agree on a label.
    filler : str
        Augmented: path of a file with one neutral text a line, used in place of the comments labelled neutral only.
    report : str
        Augmented: path to which counts of what was used, dropped and left out are written as JSON.
    seed, two, none, min_filler, max_filler, min_words, max_words, per_concept
        As for `superactivators.data.augmentation.augment`. Ratings are cut 60/20/20.

    Returns
    -------
    ConceptDataset

    Raises
    ------
    DataError
        If the folder holds neither layout, a file is of another version, or lines have faults (all are listed).
    """
    if not path.is_dir():
        raise DataError(f"{path}: is no folder; give the one that holds {', '.join(TSV)} or {RATINGS[0]}")
    faults = Faults()
    folder = _folder(path, tuple(TSV))
    if folder is not None:
        names = _names(folder)
        comments = _read_tsv(folder, names, faults)
    elif (folder := _folder(path, RATINGS)) is not None:
        names = LABELS
        comments = _read_ratings(folder, raters, faults)
    else:
        parquet = "; Parquet files are read by the Hugging Face format" if any(path.rglob("*.parquet")) else ""
        raise DataError(
            f"{path}: holds neither {', '.join(TSV)} nor {', '.join(RATINGS)}, also not in its folders data and "
            f"full_dataset{parquet}"
        )
    wanted = _wanted(concepts, names, augment=augment)
    faults.raise_if_any(f"data set {path}")
    agreed = [comment for comment in comments if comment.concepts]
    if not augment:
        if filler or report:
            raise DataError("goemotions: filler and report are for augment = true; leave them out")
        return single_texts(agreed, "goemotions", wanted)
    texts, left_out = _choose(agreed, frozenset(wanted), single=single)
    left_out["no_agreement"] = len(comments) - len(agreed)
    return read_augmented(
        texts,
        filler=filler,
        report=report,
        left_out=left_out,
        seed=seed,
        name="goemotions",
        concepts=wanted,
        two=two,
        none=none,
        min_filler=min_filler,
        max_filler=max_filler,
        min_words=min_words,
        max_words=max_words,
        per_concept=per_concept,
    )


def _folder(path: Path, files: Sequence[str]) -> Path | None:
    """Where the files are: the first place that holds any of them must hold all."""
    for place in (path, path / "data", path / "full_dataset", path / "data" / "full_dataset"):
        missing = [file for file in files if not (place / file).is_file()]
        if not missing:
            return place
        if len(missing) < len(files):
            raise DataError(f"{place}: holds no {' and no '.join(missing)}; all of {', '.join(files)} are needed")
    return None


def _names(folder: Path) -> tuple[str, ...]:
    """Label names by id."""
    for file in ("emotions.txt", "labels.txt"):
        if (folder / file).is_file():
            names = tuple(line.strip() for line in decode(read_bytes(folder / file), folder / file).strip().split("\n"))
            if len(set(names)) < len(names) or "" in names or NEUTRAL not in names:
                raise DataError(
                    f"{folder / file}: must hold one label name a line, each once, 'neutral' among them; "
                    f"got {', '.join(names)[:80]!r}"
                )
            return names
    return LABELS


def _wanted(concepts: list[str] | str | None, names: tuple[str, ...], *, augment: bool) -> tuple[str, ...]:
    if concepts is None:
        return tuple(name for name in names if name != NEUTRAL)
    given = [concepts] if isinstance(concepts, str) else concepts
    chosen = PAPER_EMOTIONS if concepts == "paper" else tuple(dict.fromkeys(given))
    for name in chosen:
        if name not in names:
            raise DataError(f"goemotions: no emotion {name!r}; {allowed(name, names)}")
    if augment and NEUTRAL in chosen:
        raise DataError(
            "goemotions: neutral comments are the filler; leave 'neutral' out of concepts, or set augment = false"
        )
    return chosen


def _choose(
    comments: list[SourceText], wanted: frozenset[str], *, single: bool
) -> tuple[list[SourceText], Counter[str]]:
    """Comments to embed and neutral ones, and why the others are left out."""
    texts: list[SourceText] = []
    left_out = Counter(several_labels=0, other_emotions=0)
    for comment in comments:
        carried = comment.concepts & wanted
        if comment.concepts == {NEUTRAL}:
            texts.append(replace(comment, concepts=frozenset()))
        elif single and len(comment.concepts) > 1:
            left_out["several_labels"] += 1
        elif not carried:
            left_out["other_emotions"] += 1
        else:
            texts.append(replace(comment, concepts=carried))
    return texts, left_out


def _read_tsv(folder: Path, names: tuple[str, ...], faults: Faults) -> list[SourceText]:
    comments: list[SourceText] = []
    first: dict[str, str] = {}
    for file, split in TSV.items():
        path = folder / file
        # Not splitlines(): texts may hold U+2028 and other characters that Python also takes for line ends.
        lines = decode(read_bytes(path), path).split("\n")
        for number, line in enumerate(lines, start=1):
            parts = line.rstrip("\r").rsplit("\t", 2)
            if not line.strip() and number == len(lines):
                continue
            if len(parts) < 3:
                faults.add(path, number, "must be text, label ids and comment id, with tabs between them")
                continue
            text, ids, name = _unquoted(parts[0]), parts[1].strip(), parts[2].strip()
            if not _IDS.fullmatch(ids):
                header = "; the original files have no header" if number == 1 else ""
                faults.add(
                    path, number, f"label ids must be numbers with commas between them; got {ids[:40]!r}{header}"
                )
                continue
            if unknown := [label for label in ids.split(",") if int(label) >= len(names)]:
                faults.add(path, number, f"label id {unknown[0]} has no name; there are {len(names)}, counted from 0")
                continue
            if not text.strip() or not name:
                faults.add(path, number, f"{'text' if name else 'comment id'} is empty")
                continue
            if name in first:
                faults.add(path, number, f"comment id {name!r} is a duplicate of {first[name]}; ids must be unique")
                continue
            first[name] = f"{file}:{number}"
            comments.append(SourceText(name, text, frozenset(names[int(label)] for label in ids.split(",")), split))
    if not len(faults) and names == LABELS and not any(NEUTRAL in comment.concepts for comment in comments):
        faults.add(
            folder / "train.tsv",
            None,
            f"no comment of the three files is neutral (id {len(LABELS) - 1}), so this is another version of the "
            "labels; put their names into emotions.txt, one a line in the order of the ids",
        )
    return comments


def _unquoted(text: str) -> str:
    """Take off the quotes of a text that holds quotes itself: the files double those inside and put two around."""
    inner = text[1:-1]
    if len(text) >= 2 and text[0] == text[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return text


@final
@dataclass
class _Rated:
    """One comment with the labels that each of its raters chose."""

    text: str
    group: str | None
    line: str
    chosen: dict[str, set[str]] = field(default_factory=dict)


def _read_ratings(folder: Path, raters: int, faults: Faults) -> list[SourceText]:
    if raters < 1:
        raise DataError(f"goemotions: raters must be at least 1; got {raters}")
    rated: dict[str, _Rated] = {}
    for file in RATINGS:
        _rate(folder / file, rated, faults)
    comments: list[SourceText] = []
    for name, comment in rated.items():
        votes = Counter(label for labels in comment.chosen.values() for label in labels)
        agreed = frozenset(label for label, count in votes.items() if count >= raters)
        comments.append(SourceText(name, comment.text, agreed, None, comment.group))
    if not any(comment.concepts for comment in comments) and not len(faults):
        faults.add(folder / RATINGS[0], None, f"no comment has a label that {raters} raters chose; lower raters")
    return comments


def _rate(path: Path, rated: dict[str, _Rated], faults: Faults) -> None:
    """Add the ratings of one file."""
    table = Table(path, faults, ("text", "id", "rater_id", "example_very_unclear", *LABELS), "the original ratings")
    place = table.column
    for line, cells in table:
        name, text, unclear = cells[place["id"]].strip(), cells[place["text"]], cells[place["example_very_unclear"]]
        marks = {label: cells[place[label]] for label in LABELS}
        if not name or not text.strip():
            table.fault(line, f"{'text' if name else 'id'} is empty")
            continue
        if unclear not in _UNCLEAR:
            table.fault(line, f"example_very_unclear must be True or False; got {unclear[:40]!r}")
            continue
        if wrong := [label for label, mark in marks.items() if mark not in ("0", "1")]:
            table.fault(line, f"column {wrong[0]!r} must be 0 or 1; got {marks[wrong[0]][:40]!r}")
            continue
        thread = cells[place["link_id"]].strip() or None if "link_id" in place else None
        comment = rated.setdefault(name, _Rated(text, thread, f"{path.name}:{line}"))
        if comment.text != text:
            table.fault(line, f"comment {name!r} has another text than at {comment.line}; ids must be unique")
            continue
        chosen = comment.chosen.setdefault(cells[place["rater_id"]], set())
        if not _UNCLEAR[unclear]:
            chosen.update(label for label, mark in marks.items() if mark == "1")
