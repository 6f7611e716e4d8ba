"""Several finished studies side by side, with paired tests where they resampled the same test samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, final

import numpy as np

from superactivators.detection.bootstrap import centred_interval
from superactivators.detection.results import REFERENCE
from superactivators.errors import StudyError
from superactivators.report.cells import Cell, Column, Table
from superactivators.report.exports import AVERAGES as MEANINGS
from superactivators.report.exports import FORMATS, in_order, methods_table, write_tables
from superactivators.report.study_results import BOLD, INTERVALS, Pair, StudyTables, best_of
from superactivators.report.verdicts import name_of, verdict, with_interval
from superactivators.study.finished import open_studies
from superactivators.study.paired import (
    AVERAGES,
    NOT_STORED,
    Differences,
    Pairing,
    SharedResults,
    holm,
    match,
)
from superactivators.study.side_by_side import settings_table, studies_table

BEST_KIND = "best on cal"
"""Stands for the kind that was best on cal in each study."""


@final
@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare_studies` found.

    Attributes
    ----------
    folders : dict of str to Path
        By the studies' names.
    concepts : tuple of str
        Those that all studies share.
    pairings : tuple of Pairing
        How any two studies can be compared.
    overview : tuple of Table
        ``studies``, ``settings`` (what differs), ``methods``, ``methods-macro`` and ``differences``.
    details : tuple of Table
        ``differences-concepts``.
    sentences : tuple of str
        The outcome in words.
    """

    folders: Mapping[str, Path]
    concepts: tuple[str, ...]
    pairings: tuple[Pairing, ...]
    overview: tuple[Table, ...]
    details: tuple[Table, ...]
    sentences: tuple[str, ...]

    def tables(self) -> list[Table]:
        """All tables."""
        return [*self.overview, *self.details]

    def render(self) -> list[str]:
        """Say in lines what is compared and what came out."""
        return list(self.sentences)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        return {
            "studies": {name: str(folder) for name, folder in self.folders.items()},
            "shared_concepts": list(self.concepts),
            "pairings": [
                {"first": item.first, "second": item.second, "state": item.state, "why": item.why}
                for item in self.pairings
            ],
            "findings": list(self.sentences),
            "tables": {table.name: table.as_dict() for table in self.tables()},
        }

    def write(self, folder: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
        """Write all tables with an index, as `superactivators.report.exports.write_tables` does."""
        return write_tables({"Comparison": ("", self.tables())}, folder, formats)


def compare_studies(folders: Sequence[str | Path], *, names: Sequence[str] | None = None) -> Comparison:
    """Put finished studies side by side.

    Averages are taken over the concepts that all studies share, with weights of these alone. Differences are paired
    over the stored resamples where two studies drew the same test samples; otherwise their resamples are independent.

    Parameters
    ----------
    folders : sequence of str or Path
        Two studies or more.
    names : sequence of str, optional
        What to call them; by default as their folders.

    Returns
    -------
    Comparison

    Raises
    ------
    StoreError
        If a folder holds no finished study.
    StudyError
        If fewer than two folders are given, names are missing or one comes twice.
    """
    studies = open_studies(folders, names=names)
    return compare(studies, {name: Path(folder) for name, folder in zip(studies, folders, strict=True)})


def compare(studies: Mapping[str, StudyTables], folders: Mapping[str, Path] | None = None) -> Comparison:
    """Put studies that are at hand side by side, as `compare_studies` does.

    Parameters
    ----------
    studies : mapping of str to StudyTables
        Two or more, by name.
    folders : mapping of str to Path, optional
        Where they are.

    Raises
    ------
    StudyError
        If there are fewer than two.
    """
    if len(studies) < 2:
        raise StudyError(f"comparing needs two studies or more; got {len(studies)}")
    places = dict(folders or {})
    listed = [set(study.summary["concepts"]) for study in studies.values()]
    concepts = tuple(c for c in next(iter(studies.values())).summary["concepts"] if set.intersection(*listed) >= {c})
    first = [studies_table(studies), settings_table(studies)]
    if not concepts:
        lines = ("The studies share no concept, so their results are only listed.",)
        return Comparison(places, (), (), tuple(first), (), lines)
    shared = {name: SharedResults.of(study, concepts) for name, study in studies.items()}
    pairings = tuple(
        Pairing.of(pair, (studies[pair[0]], studies[pair[1]]), (shared[pair[0]], shared[pair[1]]))
        for pair in combinations(studies, 2)
    )
    rows = list(_average_rows(studies, shared, pairings))
    overview = (
        *first,
        *(_methods(studies, shared, average) for average in AVERAGES),
        _differences_table(rows, shared, pairings),
    )
    details = (_concepts_table(shared, pairings),)
    return Comparison(places, concepts, pairings, overview, details, _sentences(studies, concepts, pairings, rows))


def _methods(studies: Mapping[str, StudyTables], shared: Mapping[str, SharedResults], average: str) -> Table:
    """Methods by study on the shared concepts: a study's own numbers where these are all it has."""
    names = [name for name, study in studies.items() if len(study.summary["concepts"]) > len(shared[name].concepts)]
    if not names:
        return methods_table(studies, average)
    pairs = in_order([list(held.f1) for held in shared.values()])
    best = {name: best_of(held.average_on_cal(average)) for name, held in shared.items()}

    def cell(name: str, pair: Pair) -> Cell:
        held = shared[name]
        if pair not in held.f1:
            return Cell(None)
        value, resampled = held.average(pair, average), held.resampled(pair, average)
        low, high = centred_interval(resampled, value, 0.0, 1.0) if resampled is not None else (None, None)
        mark = NOT_STORED if resampled is None and studies[name].summary.get("resamples") != 0 else ""
        return Cell.of({"value": value, "low": low, "high": high}, mark, best=best[name] == pair)

    return Table(
        "methods" if average == "weighted" else f"methods-{average}",
        f"{average.capitalize()} test F1 by kind and method, on the shared concepts",
        (Column("kind", text=True), Column("method", text=True), *(Column(n, interval=True) for n in studies)),
        tuple((Cell(pair[0]), Cell(pair[1]), *(cell(name, pair) for name in studies)) for pair in pairs),
        (
            f"F1 is {MEANINGS[average]}, over the {len(next(iter(shared.values())).concepts)} shared concepts alone.",
            INTERVALS,
            f"{BOLD} One cell per column.",
        ),
    )


@final
@dataclass(frozen=True)
class _Row:
    """A difference of averages between two studies."""

    pairing: Pairing
    average: str
    kind: str
    method: str
    found: Differences
    stored: bool


def _average_rows(
    studies: Mapping[str, StudyTables], shared: Mapping[str, SharedResults], pairings: Sequence[Pairing]
) -> Iterator[_Row]:
    for average in AVERAGES:
        for pairing in pairings:
            first, second = shared[pairing.first], shared[pairing.second]
            best = tuple(str(studies[name].summary["best_kind_on_cal"]) for name in (pairing.first, pairing.second))
            wanted = [(pair[0], pair, pair) for pair in first.f1]
            wanted.append((BEST_KIND, (best[0], REFERENCE), (best[1], REFERENCE)))
            for kind, one, other in wanted:
                if one not in first.f1 or other not in second.f1:
                    continue
                gain = second.average(other, average) - first.average(one, average)
                drawn = first.resampled(one, average), second.resampled(other, average)
                resampled = _resampled(*drawn, pairing)
                found = Differences.of(np.array([gain]), None if resampled is None else resampled[:, None])
                yield _Row(pairing, average, kind, one[1], found, resampled is not None)


def _resampled(first: np.ndarray | None, second: np.ndarray | None, pairing: Pairing) -> np.ndarray | None:
    if pairing.state == "not stored" or first is None or second is None:
        return None
    one, other = match(first, second, paired=pairing.state == "paired")
    return np.asarray(other - one)


KEYS = ("first", "second", "kind", "method")


def _columns(*further: str) -> tuple[Column, ...]:
    return (
        *(Column(name, text=True) for name in (*further, *KEYS)),
        Column("second minus first", interval=True, signed=True),
        Column("p", places=None),
        Column("p (Holm)", places=None),
        Column("resamples", text=True),
    )


def _differences_table(rows: Sequence[_Row], shared: Mapping[str, SharedResults], pairings: Sequence[Pairing]) -> Table:
    corrected = np.full(len(rows), np.nan)
    for average in AVERAGES:
        family = [number for number, row in enumerate(rows) if row.average == average]
        corrected[family] = holm(np.array([rows[number].found.p[0] for number in family]))
    n = len(next(iter(shared.values())).concepts)
    return Table(
        "differences",
        f"Differences of average test F1 between studies, on {n} shared concepts",
        _columns("average"),
        tuple(
            (
                *(Cell(text) for text in (row.average, row.pairing.first, row.pairing.second, row.kind, row.method)),
                *_judged(row.found, 0, corrected[number]),
                Cell(_state(row.pairing, row.stored)),
            )
            for number, row in enumerate(rows)
        ),
        (
            PAIRED,
            *(f"{_named(pairing)}." for pairing in pairings if pairing.why),
            "Holm's procedure corrects for all rows with the same average.",
            f"Kind '{BEST_KIND}': each study's own best kind on cal; that choice is not repeated in the resamples.",
        ),
    )


PAIRED = (
    "Paired: both studies resampled the same test samples alike. Unpaired: their resamples are independent, and "
    "intervals are wider than those of paired ones would be."
)


def _concepts_table(shared: Mapping[str, SharedResults], pairings: Sequence[Pairing]) -> Table:
    content = []
    for pairing in pairings:
        first, second = shared[pairing.first], shared[pairing.second]
        for pair in first.f1:
            if pair not in second.f1:
                continue
            resampled = _resampled(first.nested.get(pair), second.nested.get(pair), pairing)
            found = Differences.of(second.f1[pair] - first.f1[pair], resampled)
            corrected = holm(found.p)
            state = Cell(_state(pairing, resampled is not None))
            for number, concept in enumerate(first.concepts):
                texts = (Cell(text) for text in (concept, pairing.first, pairing.second, *pair))
                content.append((*texts, *_judged(found, number, corrected[number]), state))
    return Table(
        "differences-concepts",
        "Differences of test F1 between studies, by concept",
        _columns("concept"),
        tuple(content),
        (PAIRED, "Holm's procedure corrects for the concepts of one kind and method between two studies."),
    )


def _judged(found: Differences, number: int, corrected: float) -> tuple[Cell, Cell, Cell]:
    parts = {name: float(getattr(found, name)[number]) for name in ("value", "low", "high")}
    return Cell.of(parts), Cell.of(float(found.p[number])), Cell.of(float(corrected))


def _state(pairing: Pairing, stored: bool) -> str:
    if pairing.state == "not stored":
        return pairing.why
    if not stored:
        return NOT_STORED
    return pairing.state


def _named(pairing: Pairing) -> str:
    why = f" ({pairing.why})" if pairing.why else ""
    return f"{pairing.first} and {pairing.second}: {pairing.state}{why}"


def _sentences(
    studies: Mapping[str, StudyTables], concepts: Sequence[str], pairings: Sequence[Pairing], rows: Sequence[_Row]
) -> tuple[str, ...]:
    lines = [f"Compared on {len(concepts)} shared concepts."]
    for name, study in studies.items():
        left = [concept for concept in study.summary["concepts"] if concept not in concepts]
        if left:
            lines.append(f"Left out of {name}, because not all studies have them: {', '.join(left)}.")
    for pairing in pairings:
        lines.append(f"{_named(pairing)}.")
        for row in rows:
            if (row.pairing, row.average, row.method) == (pairing, "weighted", REFERENCE):
                gain = {
                    name: None if np.isnan(part[0]) else float(part[0])
                    for name, part in (("value", row.found.value), ("low", row.found.low), ("high", row.found.high))
                }
                judged = verdict(gain)
                words = {"unclear": ": no clear difference", "unknown": ""}.get(
                    judged, f": {pairing.second} is {judged}"
                )
                kind = "best kind on cal" if row.kind == BEST_KIND else f"{row.kind} vectors"
                lines.append(
                    f"  {name_of(REFERENCE)}, {kind}, weighted F1: {with_interval(gain, 3, signed=True)}{words}"
                )
    return tuple(lines)
