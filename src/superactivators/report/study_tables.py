"""The printed tables of one study: layers, sparsity levels, concepts, comparisons (METHOD sections 5, 6 and 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from superactivators.analysis.choices import together
from superactivators.detection.results import KINDLESS, REFERENCE
from superactivators.report.analysis_tables import analysis_tables
from superactivators.report.attribution_tables import attribution_tables
from superactivators.report.cells import Cell, Column, Table
from superactivators.report.recorded_tables import recorded_tables
from superactivators.report.study_results import BOLD, INTERVALS, Pair, StudyTables, best_of
from superactivators.report.tables import selected

NO_VECTORS = "no vectors"
"""Heads the column of kinds without concept vectors."""
NOT_ESTIMABLE = "not estimable"


def study_tables(study: StudyTables) -> list[Table]:
    """Make every table of one study; those without content are left out."""
    found = (
        layers_table(study),
        *deltas_tables(study),
        concepts_table(study),
        best_layers_table(study),
        *recorded_tables(study),
        *attribution_tables(study.attribution),
        *analysis_tables(study.analysis, study.summary),
    )
    return [table for table in found if table is not None and table.rows]


def layers_table(study: StudyTables) -> Table:
    """Weighted test F1 of every site and method, by kind; each site at its own best levels."""
    rows = [row for row in study.result.aggregates.to_pylist() if row["site"] != "chosen"]
    columns = list(dict.fromkeys(_column(row["kind"]) for row in rows))
    columns.sort(key=lambda name: name == NO_VECTORS)
    held = {split: _by_place(rows, split) for split in ("cal", "test")}
    best = {
        name: best_of({place: f1 for place, f1 in held["cal"].items() if place[2] == name and f1 is not None})
        for name in columns
    }
    places = dict.fromkeys((site, method) for site, method, _ in held["test"])
    return Table(
        "layers",
        "Weighted test F1 by layer and method",
        (Column("layer", text=True), Column("method", text=True), *(Column(name) for name in columns)),
        tuple(
            (
                Cell(site),
                Cell(method),
                *(
                    Cell.of(held["test"].get((site, method, name)), best=best[name] == (site, method, name))
                    for name in columns
                ),
            )
            for site, method in places
        ),
        ("Each layer has its own best δ per concept, chosen on cal.", f"{BOLD} One cell per column."),
    )


def deltas_tables(study: StudyTables) -> list[Table]:
    """Weighted test F1 with one sparsity level for all concepts, at the last layer and at the best layer on cal."""
    curves = selected(study.result.curves, method=REFERENCE)
    kinds = list(dict.fromkeys(curves.column("kind").to_pylist()))
    found = {kind: {split: _together(study, kind, split) for split in ("cal", "test")} for kind in kinds}
    last = {kind: next(reversed(by_split["test"]))[0] for kind, by_split in found.items() if by_split["test"]}
    best = {kind: best_of(found[kind]["cal"])[0] for kind in last}
    title = "Weighted test F1 of the SuperActivators with one δ for all concepts"
    return [
        _deltas_table("deltas", f"{title}, at the last layer", found, last),
        _deltas_table("deltas-best-layer", f"{title}, at each kind's best layer on cal", found, best),
    ]


def _deltas_table(
    name: str, title: str, found: Mapping[str, Mapping[str, Mapping[tuple[str, float], float]]], at: Mapping[str, str]
) -> Table:
    deltas = sorted({delta for by_split in found.values() for _, delta in by_split["test"]})
    best = {
        kind: best_of({delta: f1 for (place, delta), f1 in found[kind]["cal"].items() if place == site})
        for kind, site in at.items()
    }
    return Table(
        name,
        title,
        (Column("δ", places=None), *(Column(f"{kind} at {site}") for kind, site in at.items())),
        tuple(
            (
                Cell(delta),
                *(Cell.of(found[k]["test"].get((site, delta)), best=best[k] == delta) for k, site in at.items()),
            )
            for delta in deltas
        ),
        (f"{BOLD} One cell per column.",),
    )


def concepts_table(study: StudyTables) -> Table:
    """Test metrics of every concept with each kind's SuperActivators (or best method on cal)."""
    rows, cal = study.chosen_rows(), study.chosen_rows("cal")
    focus = [(kind, study.focus(kind)) for kind in study.kinds]
    concepts: list[str] = list(study.summary["concepts"])
    shown = [(pair, concept) for pair in focus for concept in concepts if (*pair, concept) in rows]
    best = {concept: _best_pair(cal, focus, concept) for concept in concepts}
    held = [rows[*pair, concept] for pair, concept in shown]
    # Kinds that mix others say whose vector they took; units exist only where they are matched.
    mixed = any(row.get("vectors", row["kind"]) != row["kind"] for row in held if row["kind"] not in KINDLESS)
    matched = any(row.get("unit") is not None for row in held)
    names = {"precision": "precision", "recall": "recall", "auroc": "AUROC"}
    columns = (
        *(Column(name, text=True) for name in ("kind", "method", "concept")),
        Column("positives"),
        Column("prevalence"),
        Column("F1", interval=True),
        *(Column(name) for name in names.values()),
        Column("layer", text=True),
        Column("δ", places=None),
        *([Column("vectors", text=True)] if mixed else []),
        *([Column("unit")] if matched else []),
    )
    content = tuple(
        (
            *(Cell(text) for text in (*pair, concept)),
            Cell.of(row["n_positive"]),
            Cell.of(row["prevalence"]),
            _f1(row, pair == best[concept]),
            *(Cell.of(row[name]) for name in names),
            Cell.of(row["site"]),
            Cell.of(row["delta"]),
            *([Cell.of(row["vectors"])] if mixed else []),
            *([Cell.of(row.get("unit"))] if matched else []),
        )
        for (pair, concept), row in zip(shown, held, strict=True)
    )
    notes = (INTERVALS, f"{BOLD} One kind per concept.", *_doubts(held))
    return Table("concepts", "Detection of each concept on test", columns, content, notes)


def best_layers_table(study: StudyTables) -> Table:
    """Layer and level that every kind and method chose for each concept on cal, with its own test F1."""
    rows, cal = study.chosen_rows(), study.chosen_rows("cal")
    content, held = [], []
    for concept in study.summary["concepts"]:
        best = _best_pair(cal, study.pairs, concept)
        for pair in study.pairs:
            row = rows.get((*pair, concept))
            if row is not None:
                before = cal.get((*pair, concept), {}).get("f1")
                texts = (Cell(text) for text in (concept, *pair, row["site"]))
                content.append((*texts, Cell.of(row["delta"]), Cell.of(before), _f1(row, pair == best)))
                held.append(row)
    columns = (
        *(Column(name, text=True) for name in ("concept", "kind", "method", "layer")),
        Column("δ", places=None),
        Column("F1 on cal"),
        Column("F1 on test", interval=True),
    )
    notes = (
        "Each kind and method reads its own results.",
        INTERVALS,
        f"{BOLD} One row per concept.",
        *_doubts(held),
    )
    return Table("best-layers", "Best layer for each concept, kind and method", columns, tuple(content), notes)


def _best_pair(cal: Mapping[tuple[str, str, str], Mapping[str, Any]], pairs: Sequence[Pair], concept: str) -> Pair:
    """Kind and method with the highest F1 on cal for a concept."""
    found: Pair = best_of({pair: cal[*pair, concept]["f1"] for pair in pairs if (*pair, concept) in cal})
    return found


def _f1(row: Mapping[str, Any], is_best: bool) -> Cell:
    """F1 with its nested interval, or a remark where the interval cannot be estimated."""
    if row.get("estimable") is False:
        return Cell.of(row["f1"], NOT_ESTIMABLE, best=is_best)
    return Cell.of({"value": row["f1"], "low": row.get("f1_low"), "high": row.get("f1_high")}, best=is_best)


def _doubts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if all(row.get("estimable") is not False for row in rows):
        return []
    return ["Not estimable: too few positive test samples for an interval, so the value tells little."]


def _column(kind: str) -> str:
    return NO_VECTORS if kind in KINDLESS else kind


def _by_place(rows: list[dict[str, Any]], split: str) -> dict[tuple[str, str, str], Any]:
    return {
        (row["site"], row["method"], _column(row["kind"])): row["weighted_f1"] for row in rows if row["split"] == split
    }


def _together(study: StudyTables, kind: str, split: str) -> dict[tuple[str, float], float]:
    """Weighted F1 of the SuperActivators by site and level, one level for all concepts."""
    rows = selected(study.result.curves, kind=kind, method=REFERENCE, split=split)
    return together(rows, list(study.summary["concepts"]), _positives(study, kind, split))


def _positives(study: StudyTables, kind: str, split: str) -> np.ndarray:
    """Positive samples of each concept on a split."""
    rows = study.chosen_rows(split)
    return np.array([rows[kind, REFERENCE, concept]["n_positive"] for concept in study.summary["concepts"]])
