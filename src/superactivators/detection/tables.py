"""Lay out everything that was evaluated as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from superactivators.data.dataset import SPLITS
from superactivators.detection.comparisons import compare
from superactivators.detection.figures import Figures
from superactivators.detection.intervals import interval
from superactivators.detection.lengths import length_table
from superactivators.detection.localisation import Localisation
from superactivators.detection.metrics import DetectionMetrics, aggregate, f1_of, fire_counts
from superactivators.detection.results import KINDLESS, REFERENCE, DetectionResult, Evaluated
from superactivators.detection.summary import summarise
from superactivators.detection.thresholds import Threshold
from superactivators.scores.pooling import MIN_TOKENS
from superactivators.states.labels import Labels

IN_SAMPLE = {"train": "vectors", "cal": "thresholds", "test": ""}
"""What was fitted on each split; metrics on it are marked with this."""

CHOSEN = "chosen"
"""Stands for the site in averages over concepts that each take the site chosen for them."""


def tabulate(
    found: Sequence[Evaluated],
    located: Mapping[str, Localisation],
    oracles: Sequence[tuple[str, str, Mapping[str, np.ndarray]]],
    labels: Labels,
    deltas: tuple[float, ...],
    seed: int,
    min_tokens: int = MIN_TOKENS,
) -> DetectionResult:
    """Lay out everything that was evaluated as tables.

    Parameters
    ----------
    found : sequence of Evaluated
        One for each kind and method.
    located : mapping of str to Localisation
        By kind.
    oracles : sequence of (kind, site, columns)
        What test would match; see `superactivators.scores.site_scores.SiteScores`.
    labels : Labels
    deltas : ascending sparsity levels
    seed : int
        That the resamples were drawn with.
    min_tokens : int
        Tokens that evidence of several tokens asked for.
    """
    thresholds = [threshold for item in found for threshold in _thresholds(item, labels, min_tokens)]
    figures = {(item.kind, item.method.name): Figures.of(item, labels) for item in found}
    resamples = {f"{item.kind}/{item.method.name}": item.boot.damped.astype(np.float32) for item in found}
    comparisons = _comparisons(figures, labels)
    return DetectionResult(
        metrics=pa.concat_tables(
            [table for item in found for table in _metrics(item, labels, figures[item.kind, item.method.name])]
        ),
        curves=_curves(found, labels, deltas),
        aggregates=pa.Table.from_pylist([row for item in found for row in _aggregates(item, labels)]),
        localisation=_localisation(located, labels, deltas),
        oracle=_oracle(oracles, labels),
        lengths=pa.concat_tables([_lengths(item, labels) for item in found]),
        comparisons=comparisons,
        thresholds=thresholds,
        resamples={**resamples, "positives": found[0].boot.positives.astype(np.float32)},
        summary=summarise(found, labels, figures, comparisons, thresholds, deltas, seed),
    )


def measured_splits(item: Evaluated, labels: Labels) -> list[str]:
    """Name the splits whose samples were all scored (a prompt is asked for test only)."""
    scored = ~np.isnan(item.pooled).any(axis=(0, 2))
    return [split for split in SPLITS if scored[labels.in_split(split)].all()]


def _repeated(values: Mapping[str, object], n: int) -> dict[str, list[object]]:
    return {name: [value] * n for name, value in values.items()}


def _metrics(item: Evaluated, labels: Labels, figures: Figures) -> list[pa.Table]:
    fitted, n_concepts = item.calibration, len(labels.concepts)
    concepts, place = np.arange(n_concepts), fitted.choice.candidate
    chosen, chosen_values = fitted.chosen(item.pooled), fitted.chosen_thresholds()
    nothing = (np.full(n_concepts, np.nan),) * 2
    tables = []
    for split in measured_splits(item, labels):
        rows = labels.in_split(split)
        for number, site in enumerate([*item.sites, None]):
            at_choice = site is None
            values = chosen_values if at_choice else fitted.candidate_thresholds(number)
            scores = chosen if at_choice else item.pooled[number]
            units = item.units[place, concepts] if at_choice else item.units[number]
            judged = at_choice and split == "test"
            nested = figures.of_concepts(figures.nested) if judged else nothing
            fixed = figures.of_concepts(figures.fixed) if judged else nothing
            named = {"split": split, "kind": item.kind, "method": item.method.name, "chosen": at_choice}
            columns: dict[str, Any] = {
                **_repeated({**named, "in_sample": IN_SAMPLE[split]}, n_concepts),
                "concept": list(labels.concepts),
                "site": [item.sites[k] for k in place] if at_choice else [site] * n_concepts,
                "vectors": (item.vectors[place, concepts] if at_choice else item.vectors[number]).tolist(),
                "unit": pa.array(units, type=pa.int32(), mask=units < 0),
                "delta": fitted.chosen_deltas() if at_choice else fitted.candidate_deltas(number),
                "threshold": values,
                **DetectionMetrics.of(scores[rows], labels.samples[rows], values).columns,
                "estimable": figures.estimable,
                "f1_low": nested[0],
                "f1_high": nested[1],
                "f1_fixed_low": fixed[0],
                "f1_fixed_high": fixed[1],
            }
            tables.append(pa.table(columns))
    return tables


def _curves(found: Sequence[Evaluated], labels: Labels, deltas: tuple[float, ...]) -> pa.Table:
    """F1 at every level, of methods whose thresholds are quantiles."""
    n_concepts = len(labels.concepts)
    schema = {"split": pa.string(), "site": pa.string(), "kind": pa.string(), "method": pa.string()}
    schema |= {"delta": pa.float64(), "concept": pa.string(), "threshold": pa.float64(), "f1": pa.float64()}
    tables = [pa.table({name: pa.array([], kind) for name, kind in schema.items()})]
    for item in found:
        if item.calibration.rule != "quantile":
            continue
        for split in ("cal", "test"):
            rows = labels.in_split(split)
            truth = labels.samples[rows]
            for number, site in enumerate(item.sites):
                thresholds = item.calibration.thresholds[number]
                f1 = f1_of(*fire_counts(item.pooled[number][rows], truth, thresholds), truth.sum(axis=0))
                named = {"split": split, "site": site, "kind": item.kind, "method": item.method.name}
                columns: dict[str, Any] = {
                    **_repeated(named, f1.size),
                    "delta": np.repeat(deltas, n_concepts),
                    "concept": list(labels.concepts) * len(deltas),
                    "threshold": thresholds.ravel(),
                    "f1": f1.ravel(),
                }
                tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def _aggregates(item: Evaluated, labels: Labels) -> list[dict[str, object]]:
    fitted, records = item.calibration, []
    for split in measured_splits(item, labels):
        rows = labels.in_split(split)
        truth = labels.samples[rows]
        positives = truth.sum(axis=0)
        for number, site in enumerate([*item.sites, None]):
            scores = fitted.chosen(item.pooled) if site is None else item.pooled[number]
            values = fitted.chosen_thresholds() if site is None else fitted.candidate_thresholds(number)
            hits, fired = (part[0] for part in fire_counts(scores[rows], truth, values[None]))
            averages = aggregate(f1_of(hits, fired, positives), positives, (hits, fired))
            records.append(
                {
                    "split": split,
                    "site": site or CHOSEN,
                    "kind": item.kind,
                    "method": item.method.name,
                    "in_sample": IN_SAMPLE[split],
                    **{f"{name}_f1": float(value) for name, value in averages.items()},
                }
            )
    return records


def _localisation(located: Mapping[str, Localisation], labels: Labels, deltas: tuple[float, ...]) -> pa.Table:
    tables = [
        pa.table(
            {
                "kind": [kind] * len(labels.concepts),
                "concept": list(labels.concepts),
                "delta": np.array(deltas)[result.level],
                "threshold": result.thresholds,
                **result.columns,
            }
        )
        for kind, result in located.items()
    ]
    return pa.concat_tables(tables) if tables else pa.table({"kind": pa.array([], pa.string())})


def _oracle(oracles: Sequence[tuple[str, str, Mapping[str, np.ndarray]]], labels: Labels) -> pa.Table:
    positives = labels.samples[labels.in_split("test")].sum(axis=0)
    fields = {"kind": pa.string(), "method": pa.string(), "site": pa.string(), "chosen": pa.bool_()}
    fields |= {"concept": pa.string(), "unit": pa.int32(), "delta": pa.float64(), "threshold": pa.float64()}
    fields |= {"f1": pa.float64(), "n_positive": pa.int64()}
    rows: list[dict[str, object]] = []
    for kind in dict.fromkeys(kind for kind, _, _ in oracles):
        held = [(site, columns) for owner, site, columns in oracles if owner == kind]
        best = np.stack([columns["best"] for _, columns in held]).argmax(axis=0)
        for number, site in enumerate([*(site for site, _ in held), None]):
            for c, concept in enumerate(labels.concepts):
                place = int(best[c]) if site is None else number
                source = held[place][1]
                row: dict[str, object] = {"kind": kind, "method": "superactivators", "site": held[place][0]}
                row |= {"chosen": site is None, "concept": concept, "unit": int(source["unit"][c])}
                row |= {name: float(source[name][c]) for name in ("delta", "threshold", "f1")}
                rows.append({**row, "n_positive": int(positives[c])})
    return pa.Table.from_pylist(rows, schema=pa.schema(list(fields.items())))


def _comparisons(figures: Mapping[tuple[str, str], Figures], labels: Labels) -> pa.Table:
    """Compare the SuperActivators of each kind with its other methods and with methods of no kind, and kinds in pairs.

    The comparisons of one kind are a family of Holm's correction, those between kinds another.
    """
    names = {pair: "/".join(pair) for pair in figures}
    series = {names[pair]: held.series for pair, held in figures.items()}
    kindless = [pair for pair in figures if pair[0] in KINDLESS]
    references = [pair for pair in figures if pair[1] == REFERENCE]
    families = [
        [
            (names[reference], names[other])
            for other in [*(pair for pair in figures if pair[0] == reference[0] and pair != reference), *kindless]
        ]
        for reference in references
    ]
    families.append([(names[a], names[b]) for place, a in enumerate(references) for b in references[place + 1 :]])
    return pa.concat_tables([compare(series, pairs, labels.concepts) for pairs in families])


def _lengths(item: Evaluated, labels: Labels) -> pa.Table:
    test = labels.in_split("test")
    table = length_table(
        item.calibration.chosen(item.pooled)[test],
        item.calibration.chosen_thresholds(),
        labels.samples[test],
        np.diff(labels.offsets)[test],
        concepts=labels.concepts,
    )
    for name, value in (("method", item.method.name), ("kind", item.kind)):
        table = table.add_column(0, name, pa.array([value] * len(table)))
    return table


def _thresholds(item: Evaluated, labels: Labels, min_tokens: int) -> list[Threshold]:
    fitted = item.calibration
    # A rare concept loses all its scores in some resamples: an end between infinite thresholds is not a number.
    with np.errstate(invalid="ignore"):
        low, high = interval(item.boot.thresholds)
    values, deltas, counts = fitted.chosen_thresholds(), fitted.chosen_deltas(), fitted.chosen_counts()
    place, several = fitted.choice.candidate, item.method.pool in ("kth", "segment")
    return [
        Threshold(
            value=float(values[c]),
            delta=float(deltas[c]),
            concept=name,
            kind=item.kind,
            method=item.method.name,
            site=item.sites[int(place[c])],
            n=int(counts[c]),
            low=float(low[c]),
            high=float(high[c]),
            unit=None if item.units[place[c], c] < 0 else int(item.units[place[c], c]),
            min_tokens=min_tokens if several else 1,
            within="segment" if item.method.pool == "segment" else "sample",
        )
        for c, name in enumerate(labels.concepts)
    ]
