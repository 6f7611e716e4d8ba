"""Several finished studies side by side, with paired tests where they resampled the same test samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, final

from superactivators.detection.results import REFERENCE
from superactivators.errors import StudyError
from superactivators.report.cells import Cell, Column, Table
from superactivators.report.exports import AVERAGES as MEANINGS
from superactivators.report.exports import FORMATS, in_order, methods_table, write_tables
from superactivators.report.study_results import BOLD, INTERVALS, Pair, StudyTables, best_of
from superactivators.report.study_tables import NOT_ESTIMABLE
from superactivators.report.verdicts import name_of, verdict, with_interval
from superactivators.study.finished import open_studies
from superactivators.study.paired import AVERAGES, NOT_STORED, Pairing, SharedResults, differences
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
    found = list(_compared(studies, shared, pairings))
    averages, single = _differences_tables(found, concepts, pairings)
    overview = (*first, *(_methods(studies, shared, average) for average in AVERAGES), averages)
    return Comparison(places, concepts, pairings, overview, (single,), _sentences(studies, concepts, found, pairings))


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
        value, ends = held.average(pair, average), held.interval(pair, average)
        low, high = ends or (None, None)
        mark = NOT_STORED if ends is None and studies[name].summary.get("resamples") != 0 else ""
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
class _Found:
    """One kind and method compared between two studies."""

    pairing: Pairing
    kind: str
    method: str
    rows: list[dict[str, Any]]


def _compared(
    studies: Mapping[str, StudyTables], shared: Mapping[str, SharedResults], pairings: Sequence[Pairing]
) -> Iterator[_Found]:
    for pairing in pairings:
        first, second = shared[pairing.first], shared[pairing.second]
        wanted = [(pair[0], pair, pair) for pair in first.f1 if pair in second.f1]
        best = {name: (str(studies[name].summary["best_kind_on_cal"]), REFERENCE) for name in shared}
        one, other = best[pairing.first], best[pairing.second]
        if one != other and one in first.f1 and other in second.f1:
            wanted.append((BEST_KIND, one, other))
        found = differences(pairing, first, second, [(one, other) for _, one, other in wanted])
        for (kind, (_, method), _), rows in zip(wanted, found, strict=True):
            yield _Found(pairing, kind, method, rows)


def _differences_tables(found: Sequence[_Found], concepts: Sequence[str], pairings: Sequence[Pairing]) -> list[Table]:
    """Averages in one table, single concepts in another."""
    notes = [
        PAIRED,
        *(f"{_named(pairing)}." for pairing in pairings if pairing.why),
        INTERVALS_OF_DIFFERENCES,
    ]
    best = f"Kind '{BEST_KIND}': each study's own best kind on cal; that choice is not repeated in the resamples."
    has_best = any(item.kind == BEST_KIND for item in found)
    tables = []
    for quantity, name, title, correction in (
        ("average", "differences", "Differences of average test F1 between studies", "of one average"),
        ("concept", "differences-concepts", "Differences of test F1 between studies, by concept", "of single concepts"),
    ):
        columns = (
            *(Column(key, text=True) for key in (quantity, "first", "second", "kind", "method")),
            Column("second minus first", interval=True, signed=True),
            Column("p", places=None),
            Column("p (Holm)", places=None),
            Column("resamples", text=True),
        )
        wanted = [(item, row) for item in found for row in item.rows if row["quantity"] == quantity]
        if quantity == "average":
            wanted.sort(key=lambda entry: AVERAGES.index(entry[1]["name"]))
        rows = tuple(
            (
                *(
                    Cell(text)
                    for text in (row["name"], item.pairing.first, item.pairing.second, item.kind, item.method)
                ),
                _difference(row),
                Cell.of(row["p"]),
                Cell.of(row["p_holm"]),
                Cell(_state(item.pairing, row["stored"])),
            )
            for item, row in wanted
        )
        holm = f"Holm's procedure corrects for all comparisons {correction} between the same two studies."
        shown = (*notes, holm, best) if has_best else (*notes, holm)
        tables.append(Table(name, f"{title}, on {len(concepts)} shared concepts", columns, rows, shown))
    return tables


def _difference(row: Mapping[str, Any]) -> Cell:
    doubtful = row["stored"] and not row["estimable"]
    parts = {"value": row["difference"], "low": row["low"], "high": row["high"]}
    return Cell.of(parts, NOT_ESTIMABLE if doubtful else "")


INTERVALS_OF_DIFFERENCES = "Brackets hold 95 % intervals that combine those of the two studies (square-and-add)."
PAIRED = (
    "Paired: both studies resampled the same test samples alike. Unpaired: their resamples are independent, and "
    "intervals are wider than those of paired ones would be."
)


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
    studies: Mapping[str, StudyTables], concepts: Sequence[str], found: Sequence[_Found], pairings: Sequence[Pairing]
) -> tuple[str, ...]:
    lines = [f"Compared on {len(concepts)} shared concepts."]
    for name, study in studies.items():
        left = [concept for concept in study.summary["concepts"] if concept not in concepts]
        if left:
            lines.append(f"Left out of {name}, because not all studies have them: {', '.join(left)}.")
    for pairing in pairings:
        lines.append(f"{_named(pairing)}.")
        for item in found:
            if (item.pairing, item.method) == (pairing, REFERENCE):
                row = next(row for row in item.rows if (row["quantity"], row["name"]) == ("average", "weighted"))
                cell = _difference(row)
                gain = {"value": row["difference"], "low": cell.low, "high": cell.high}
                judged = verdict(gain)
                words = {"unclear": ": no clear difference", "unknown": ""}.get(
                    judged, f": {pairing.second} is {judged}"
                )
                kind = "best kind on cal" if item.kind == BEST_KIND else f"kind {item.kind}"
                shown = with_interval(gain, 3, signed=True)
                lines.append(f"  {name_of(REFERENCE)}, {kind}, weighted F1: {shown}{words}")
    return tuple(lines)
