"""The paper's tables from finished studies, beside the published figures where there are any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from superactivators.analysis.sparsity import GRID
from superactivators.detection.metrics import aggregate
from superactivators.detection.results import REFERENCE
from superactivators.paper.catalogue import DATASETS, MODELS
from superactivators.paper.finished import Finished
from superactivators.paper.published import (
    CHOSEN_ON_TEST,
    COCO_ATTRIBUTION,
    COCO_DELTAS,
    DETECTION,
    FAULTY_ROWS,
    NOTEBOOK,
    PAPER,
)
from superactivators.report.analysis_tables import MEASURES, TAIL, means
from superactivators.report.cells import Cell, Column, Table
from superactivators.report.study_tables import deltas_tables, layers_table

Studies: TypeAlias = Mapping[tuple[str, str], Finished]
"""Finished studies by data set and model."""

PLACE = (Column("data", text=True), Column("model", text=True), Column("in fact", text=True))
POOLED = ("superactivators", "max", "mean", "last", "random", "cls", "prompt")
DIFFERENCE = (
    "The difference is to the paper, or else to the notebooks; it is left out where another model or data in another "
    "format were used."
)
INTERVALS = (
    "Brackets hold 95 % intervals by test sample; choices made on cal are held fixed under the paper's protocol and "
    "are repeated otherwise."
)


def _place(cell: tuple[str, str], study: Finished) -> tuple[Cell, Cell, Cell]:
    """Name a study by its place in the paper, and by what it was run on."""
    return Cell(DATASETS[cell[0]].title), Cell(MODELS[cell[1]].title), Cell(study.run_on)


def _kinds(separators: str) -> dict[str, str]:
    """Kinds of the study by the names of the published figures."""
    return {separators: "linear", "mean": "mean", "kmeans": "kmeans"}


def detection(studies: Studies, separators: str) -> list[Table]:
    """Weighted test F1 of every method beside the published one."""
    published = {(p.source, p.data, p.model, p.kind, p.method): p.value for p in DETECTION}
    rows = []
    for cell, study in studies.items():
        for kind, by_method in study.tables.summary[_f1(study)].items():
            known = {**_kinds(separators), "prompt": "linear"}.get(kind)
            for method, estimate in by_method.items():
                if known not in ("linear", "mean") or method not in POOLED:
                    continue
                told = [published.get((source, *cell, known, method)) for source in (PAPER, NOTEBOOK)]
                nearest = told[0] if told[0] is not None else told[1]
                gap = None if nearest is None or not study.as_published(cell) else estimate["value"] - nearest
                rows.append(
                    (
                        *_place(cell, study),
                        Cell(kind),
                        Cell(method),
                        Cell.of(estimate),
                        *map(Cell.of, told),
                        Cell.of(gap),
                    )
                )
    columns = (
        *PLACE,
        Column("kind", text=True),
        Column("method", text=True),
        Column("weighted F1", interval=True),
        Column("paper"),
        Column("notebooks"),
        Column("difference", signed=True),
    )
    notes = (INTERVALS, DIFFERENCE, FAULTY_ROWS, CHOSEN_ON_TEST)
    return [Table("detection", "Detection by data set, model and method, on test", columns, tuple(rows), notes)]


def kinds(studies: Studies, separators: str) -> list[Table]:
    """Weighted test F1 of the SuperActivators by kind of vector."""
    names = list(dict.fromkeys(kind for study in studies.values() for kind in study.tables.summary[_f1(study)]))
    rows = []
    for cell, study in studies.items():
        found = study.tables.summary[_f1(study)]
        rows.append((*_place(cell, study), *(Cell.of(found.get(kind, {}).get(REFERENCE)) for kind in names)))
    columns = (*PLACE, *(Column(kind, interval=True) for kind in names))
    notes = (INTERVALS, "Clusters are matched to concepts on cal; the published tables match them on test.")
    return [
        Table("kinds", "SuperActivators by kind of concept vector: weighted F1 on test", columns, tuple(rows), notes)
    ]


def practical(studies: Studies, separators: str) -> list[Table]:
    """Thresholds from sample labels beside those from labelled tokens."""
    methods = ("superactivators", "top-tokens", "top-tokens-max")
    rows = []
    for cell, study in studies.items():
        found = study.tables.summary[_f1(study)].get(separators, {})
        rows.append((*_place(cell, study), *(Cell.of(found.get(method)) for method in methods)))
    columns = (*PLACE, *(Column(method, interval=True) for method in methods))
    title = "The practical variant: weighted F1 on test with linear separators"
    return [Table("practical", title, columns, tuple(rows), (INTERVALS,))]


def layers(studies: Studies, separators: str) -> list[Table]:
    """Weighted test F1 by layer and method of every study."""
    found = []
    for cell, study in studies.items():
        table = layers_table(study.tables)
        found.append(_renamed(table, f"layers-{'-'.join(cell)}", f"{table.title}: {_named(cell)}"))
    return found


def deltas(studies: Studies, separators: str) -> list[Table]:
    """F1 against δ of every study; COCO with Llama's vision tower beside the published curve."""
    found = []
    for cell, study in studies.items():
        table = deltas_tables(study.tables)[0]
        found.append(_renamed(table, f"deltas-{'-'.join(cell)}", f"{table.title}: {_named(cell)}"))
        if cell == ("coco", "llama-vision"):
            found.append(_beside_published(study, separators))
    return found


def _beside_published(study: Finished, separators: str) -> Table:
    table = deltas_tables(study.tables)[0]
    at = {column.name.split(" at ")[0]: place for place, column in enumerate(table.columns)}
    ours = {(row[0].value, kind): row[place].value for row in table.rows for kind, place in at.items()}
    rows = []
    for kind, known in _kinds(separators).items():
        if kind in at:
            for delta, value in COCO_DELTAS[known].items():
                own = ours.get((delta, kind))
                gap = own - value if isinstance(own, float) and study.as_published(("coco", "llama-vision")) else None
                rows.append((Cell(kind), Cell(delta), Cell.of(own), Cell(value), Cell.of(gap)))
    columns = (
        Column("kind", text=True),
        Column("δ", places=None),
        Column("weighted F1"),
        Column("paper"),
        Column("difference", signed=True),
    )
    return Table("deltas-published", "F1 against δ at the last layer, beside the published curve", columns, tuple(rows))


def best_deltas(studies: Studies, separators: str) -> list[Table]:
    """How many concepts chose each sparsity level on cal."""
    counts: dict[tuple[tuple[str, str], str], Counter[float]] = {}
    for cell, study in studies.items():
        for row in _analyses(study, "best_deltas", separators):
            counts.setdefault((cell, row["kind"]), Counter())[row["delta"]] += row["concepts"]
    levels = sorted({delta for counter in counts.values() for delta in counter})
    columns = (*PLACE, Column("kind", text=True), *(Column(f"{delta:g}") for delta in levels))
    rows = tuple(
        (*_place(cell, studies[cell]), Cell(kind), *(Cell(counter[delta]) for delta in levels))
        for (cell, kind), counter in counts.items()
    )
    return [Table("best-deltas", "Concepts by the sparsity level that is best on cal", columns, rows)]


def attribution(studies: Studies, separators: str) -> list[Table]:
    """Explainers under both objectives beside the published figures."""
    measures = {"token F1": "token_f1", "insertion": "insertion", "deletion": "deletion"}
    rows = []
    for cell, study in studies.items():
        if study.tables.attribution is None:
            continue
        held = {
            (row["explainer"], row["objective"], row["measure"]): row
            for row in study.tables.attribution.aggregates.to_pylist()
        }
        for measure, column in measures.items():
            for explainer, values in COCO_ATTRIBUTION[measure].items():
                ours = [held.get((explainer, name, column)) for name in ("concept", "superactivators")]
                told = values if cell == ("coco", "llama-vision") else (None, None)
                rows.append(
                    (*_place(cell, study), Cell(measure), Cell(explainer), *map(Cell.of, ours), *map(Cell.of, told))
                )
    columns = (
        *PLACE,
        Column("measure", text=True),
        Column("explainer", text=True),
        Column("concept", interval=True),
        Column("SuperActivators", interval=True),
        Column("paper, concept"),
        Column("paper, SuperActivators"),
    )
    title = "Attribution by explainer and objective"
    return [Table("attribution", title, columns, tuple(rows), ("For deletion, less is better.",))]


def distributions(studies: Studies, separators: str) -> list[Table]:
    """Statistics of the activations inside and outside concepts by layer, averaged over concepts."""
    rows = [
        (*_place(cell, study), Cell(kind), Cell(site), *map(Cell.of, means(found)))
        for cell, study in studies.items()
        for (kind, site), found in _layers(study, separators).items()
    ]
    columns = (
        *PLACE,
        Column("kind", text=True),
        Column("layer", text=True),
        *(Column(title) for title in MEASURES.values()),
    )
    notes = (TAIL, "Plain means over concepts.")
    return [Table("distributions", "Activations inside and outside concepts", columns, tuple(rows), notes)]


def coverage(studies: Studies, separators: str) -> list[Table]:
    """Share of positive samples with a token far in the tail, by layer."""
    rows = []
    for cell, study in studies.items():
        for (kind, site), found in _layers(study, separators).items():
            values = [row["coverage"] for row in found if row["coverage"] is not None]
            mean, worst = means(found, ["coverage"])[0], min(values, default=None)
            rows.append((*_place(cell, study), Cell(kind), Cell(site), Cell.of(mean), Cell.of(worst)))
    columns = (
        *PLACE,
        Column("kind", text=True),
        Column("layer", text=True),
        Column("coverage"),
        Column("lowest concept"),
    )
    notes = ("Share of positive test samples with an in-concept token above the 98 % quantile of absent concepts.",)
    return [Table("coverage", "Coverage of positive samples by the tail", columns, tuple(rows), notes)]


def sparsity(studies: Studies, separators: str) -> list[Table]:
    """Cumulative distribution of the share of in-concept tokens that are SuperActivators, at the chosen layers."""
    rows = []
    for cell, study in studies.items():
        for kind in (separators, "mean"):
            curve = _sparsity(study, kind)
            if curve is not None:
                rows.append((*_place(cell, study), Cell(kind), *map(Cell.of, curve)))
    columns = (*PLACE, Column("kind", text=True), *(Column(f"≤ {share:g}") for share in GRID))
    title = "Share of a sample's in-concept tokens that are SuperActivators: cumulative share of positive test samples"
    return [Table("sparsity", title, columns, tuple(rows), ("Weighted by each concept's positive samples.",))]


def _sparsity(study: Finished, kind: str) -> list[float] | None:
    curves: dict[str, list[float]] = {}
    for row in _analyses(study, "sparsity", kind):
        if row["kind"] == kind and row["cumulative"] is not None:
            curves.setdefault(row["concept"], []).append(row["cumulative"])
    if not curves:
        return None
    counts = [study.tables.summary["positives"][concept] for concept in curves]
    return [float(value) for value in aggregate(np.array(list(curves.values())).T, np.array(counts))["weighted"]]


def _analyses(study: Finished, name: str, separators: str) -> list[dict[str, Any]]:
    """Rows of one table of a study's analyses, of the separators and of the means."""
    found = study.tables.analysis
    rows = [] if found is None else getattr(found, name).to_pylist()
    return [row for row in rows if row["kind"] in (separators, "mean")]


def _layers(study: Finished, separators: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Separation of every concept, by kind and layer."""
    layers: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in _analyses(study, "separation", separators):
        layers.setdefault((row["kind"], row["site"]), []).append(row)
    return layers


def _f1(study: Finished) -> str:
    """Entry of the summary with the intervals that the study has."""
    return "weighted_f1_fixed" if study.tables.summary.get("intervals") == "fixed" else "weighted_f1"


def _named(cell: tuple[str, str]) -> str:
    return f"{DATASETS[cell[0]].title}, {MODELS[cell[1]].title}"


def _renamed(table: Table, name: str, title: str) -> Table:
    return Table(name, title, table.columns, table.rows, table.notes)
