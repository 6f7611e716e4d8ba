"""The printed tables of a study's analyses: distributions, shares, choices, errors, confusions (METHOD section 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from superactivators.analysis.results import AnalysisResult
from superactivators.detection.results import REFERENCE
from superactivators.report.cells import Cell, Column, Table
from superactivators.report.recorded_tables import arrow_table

MEASURES = {
    "overlap": "overlap",
    "auroc": "AUROC",
    "cohens_d": "Cohen's d",
    "skewness_in": "skewness inside",
    "skewness_out": "skewness outside",
    "tail_mass": "tail mass",
    "coverage": "coverage",
}
TAIL = (
    "Test tokens. Tail mass and coverage: share of in-concept tokens, and of positive samples with one, above the 98 % "
    "quantile of tokens of samples without the concept."
)
CHOSEN = "At the layer and threshold that each concept chose on cal."
CONFUSED = 20
"""Most pairs of concepts listed for a kind."""
FEWEST = 5
"""Pairs with fewer samples are not listed."""


def analysis_tables(result: AnalysisResult | None, summary: Mapping[str, Any]) -> list[Table | None]:
    """Make every table of the analyses; none without a result.

    Parameters
    ----------
    result : AnalysisResult or None
    summary : mapping
        The study's: says which layer each concept chose.
    """
    if result is None:
        return []
    return [
        distributions_table(result),
        separation_table(result, summary),
        wide_table(
            "sparsity",
            "Share of a sample's in-concept tokens that are SuperActivators: cumulative share of positive test samples",
            result.sparsity,
            ("kind", "concept"),
            ("share", "cumulative", "≤ {:g}"),
            (CHOSEN,),
        ),
        wide_table(
            "layers-deltas",
            "Weighted test F1 by layer with one δ for all concepts",
            result.deltas,
            ("kind", "site"),
            ("delta", "test", "δ = {:g}"),
            (),
        ),
        wide_table(
            "best-deltas",
            "Concepts by the sparsity level that is best on cal",
            result.best_deltas,
            ("kind",),
            ("delta", "concepts", "δ = {:g}"),
            (),
        ),
        arrow_table(
            "best-layers-counts",
            "Concepts by the layer that is best on cal",
            result.best_layers,
            (),
            names={"site": "layer"},
        ),
        arrow_table(
            "errors",
            "Errors of the SuperActivators by concept, with its prevalence and size",
            result.errors,
            (f"{CHOSEN} Size: median share of a positive sample's tokens that carry the concept.",),
            names={"n_positive": "positives", "f1": "F1", "fpr": "FPR"},
        ),
        _fifths("sizes", "Recall by the share of a sample's tokens that carry the concept", result.sizes, "share"),
        _fifths("lengths-recall", "Recall and false alarms by the length of texts", result.lengths, "tokens"),
        confusion_table(result),
    ]


def distributions_table(result: AnalysisResult) -> Table:
    """Statistics of activations inside and outside concepts by kind and layer, as plain means over concepts."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in result.separation.to_pylist():
        groups.setdefault((row["kind"], row["site"]), []).append(row)
    return Table(
        "distributions",
        "Activations inside and outside concepts by layer",
        (Column("kind", text=True), Column("layer", text=True), *(Column(title) for title in MEASURES.values())),
        tuple((Cell(kind), Cell(site), *map(Cell.of, means(rows))) for (kind, site), rows in groups.items()),
        (TAIL, "Plain means over concepts."),
    )


def means(rows: Sequence[Mapping[str, Any]], names: Sequence[str] = tuple(MEASURES)) -> list[float | None]:
    """Plain means of some columns over the rows that have them; None without any."""
    held = [[row[name] for row in rows if row[name] is not None] for name in names]
    return [float(np.mean(values)) if values else None for values in held]


def separation_table(result: AnalysisResult, summary: Mapping[str, Any]) -> Table:
    """Statistics of every concept at the layer that it chose on cal."""
    rows = []
    for row in result.separation.to_pylist():
        picks = summary["chosen"].get(row["kind"], {}).get(REFERENCE, {})
        if picks.get(row["concept"], {}).get("site") == row["site"]:
            texts = (Cell(row[name]) for name in ("kind", "concept", "site"))
            rows.append((*texts, *(Cell.of(row[name]) for name in ("n_in", "n_out", *MEASURES))))
    order = {name: place for place, name in enumerate(summary["concepts"])}
    kinds = list(dict.fromkeys(row[0].value for row in rows))
    rows.sort(key=lambda cells: (kinds.index(cells[0].value), order[str(cells[1].value)]))
    columns = (
        *(Column(name, text=True) for name in ("kind", "concept", "layer")),
        Column("tokens inside"),
        Column("tokens outside"),
        *(Column(title) for title in MEASURES.values()),
    )
    return Table("separation", "Activations inside and outside each concept", columns, tuple(rows), (TAIL, CHOSEN))


def wide_table(
    name: str,
    title: str,
    table: pa.Table,
    keys: Sequence[str],
    spread: tuple[str, str, str],
    notes: tuple[str, ...],
) -> Table:
    """Spread one column over the columns of a printed table.

    Parameters
    ----------
    name, title : str
    table : pyarrow Table
    keys : sequence of str
        Columns that name a row.
    spread : (str, str, str)
        Numbers that head the columns, values under them, and how the headings are written.
    notes : tuple of str
    """
    heading, value, text = spread
    found: dict[tuple[str, ...], dict[float, Any]] = {}
    for row in table.to_pylist():
        found.setdefault(tuple(row[key] for key in keys), {})[row[heading]] = row[value]
    heads = sorted({head for held in found.values() for head in held})
    titles = {"site": "layer"}
    return Table(
        name,
        title,
        (*(Column(titles.get(key, key), text=True) for key in keys), *(Column(text.format(head)) for head in heads)),
        tuple((*map(Cell, key), *(Cell.of(held.get(head)) for head in heads)) for key, held in found.items()),
        notes,
    )


def _fifths(name: str, title: str, table: pa.Table, unit: str) -> Table | None:
    names = {"low": f"{unit} from", "high": f"{unit} to", "fpr": "FPR"}
    return arrow_table(name, title, table, (f"{CHOSEN} Fifths of the test split.",), names=names)


def confusion_table(result: AnalysisResult) -> Table:
    """Pairs of concepts of which the absent one fires most beyond its base rate where the other is present."""
    rows = []
    for kind in dict.fromkeys(result.confusion["kind"].to_pylist()):
        pairs = [row for row in result.confusion.to_pylist() if row["kind"] == kind and row["n"] >= FEWEST]
        pairs = [row for row in pairs if row["rate"] > row["base"]]
        pairs.sort(key=lambda row: float(row["base"] - row["rate"]))
        for row in pairs[:CONFUSED]:
            texts = (Cell(row[name]) for name in ("kind", "present", "absent"))
            numbers = (Cell.of(row[name]) for name in ("n", "fired", "rate", "base"))
            rows.append((*texts, *numbers, Cell.of(row["rate"] - row["base"])))
    columns = (
        *(Column(name, text=True) for name in ("kind", "present", "absent")),
        *(Column(name) for name in ("samples", "fired", "rate", "base rate")),
        Column("difference", signed=True),
    )
    notes = (
        f"{CHOSEN} Test samples with the one and without the other concept; base rate: over all without it.",
        f"Up to {CONFUSED} pairs of each kind with at least {FEWEST} samples.",
    )
    return Table("confusion", "Absent concepts that fire where another one is present", columns, tuple(rows), notes)
