"""Result tables and summary of the detection stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from superactivators.data.dataset import SPLITS
from superactivators.detection.bootstrap import Bootstrapped, centred_interval, interval
from superactivators.detection.localisation import Localisation
from superactivators.detection.methods import Method
from superactivators.detection.metrics import DetectionMetrics, aggregate, f1_of, fire_counts
from superactivators.detection.selection import Calibration
from superactivators.detection.thresholds import Threshold
from superactivators.states.labels import Labels

REFERENCE = "superactivators"
IN_SAMPLE = {"train": "vectors", "cal": "thresholds", "test": ""}
"""What was fitted on each split; metrics on it are marked with this."""


@final
@dataclass(frozen=True, eq=False)
class DetectionResult:
    """Tables and summary of a study's detection stage.

    Attributes
    ----------
    metrics : pyarrow Table
        A row per split, site, kind, method and concept at that site's best level (``chosen`` false), and one per
        split, kind, method and concept at the site and level chosen on cal (``chosen`` true).
    curves : pyarrow Table
        F1 on cal and test at every sparsity level, per site, kind, method and concept.
    aggregates : pyarrow Table
        Weighted and macro F1 per split, site (or the chosen ones), kind and method.
    localisation : pyarrow Table
        Direct localisation per kind and concept; no rows without token labels.
    thresholds : list of Threshold
        The chosen ones.
    summary : dict
        JSON types: ``weighted_f1[kind][method]`` and ``macro_f1[kind][method]`` on test with intervals, paired
        differences to the SuperActivators, chosen layers and sparsity levels, best kind by cal.
    """

    metrics: pa.Table
    curves: pa.Table
    aggregates: pa.Table
    localisation: pa.Table
    thresholds: list[Threshold]
    summary: dict[str, Any]

    def __repr__(self) -> str:
        lines = [f"DetectionResult, weighted F1 on test ({self.summary['resamples']} resamples):"]
        for kind, by_method in self.summary["weighted_f1"].items():
            for method, estimate in by_method.items():
                low, high = (f"{estimate[end]:.3f}" if estimate[end] is not None else "?" for end in ("low", "high"))
                lines.append(f"  {kind:>14} {method:<16} {estimate['value']:.3f} [{low}, {high}]")
        return "\n".join(lines)


@final
@dataclass(frozen=True, eq=False)
class Evaluated:
    """One kind and method, calibrated and resampled.

    Attributes
    ----------
    kind : str
    method : Method
    sites : sequence of str
        From shallow to deep.
    pooled : float32 array of shape (sites, samples, concepts)
        One score per sample.
    calibration : Calibration
    boot : Bootstrapped
    """

    kind: str
    method: Method
    sites: Sequence[str]
    pooled: Float[np.ndarray, "layers n c"]
    calibration: Calibration
    boot: Bootstrapped


def tabulate(
    found: Sequence[Evaluated],
    located: Mapping[str, Localisation],
    labels: Labels,
    deltas: tuple[float, ...],
    resamples: int,
) -> DetectionResult:
    """Lay out everything that was evaluated as tables.

    Parameters
    ----------
    found : sequence of Evaluated
        One for each kind and method.
    located : mapping of str to Localisation
        By kind.
    labels : Labels
    deltas : ascending sparsity levels
    resamples : int
    """
    return DetectionResult(
        metrics=_metrics_table(found, labels, deltas),
        curves=_curves_table(found, labels, deltas),
        aggregates=_aggregates_table(found, labels),
        localisation=_localisation_table(located, labels, deltas),
        thresholds=[threshold for item in found for threshold in _thresholds(item, labels, deltas)],
        summary=_summary(found, labels, deltas, resamples),
    )


def _repeated(values: Mapping[str, object], n: int) -> dict[str, list[object]]:
    return {name: [value] * n for name, value in values.items()}


def _metrics_table(found: Sequence[Evaluated], labels: Labels, deltas: tuple[float, ...]) -> pa.Table:
    grid, concepts = np.array(deltas), np.arange(len(labels.concepts))
    tables = []
    for item in found:
        fitted = item.calibration
        chosen, chosen_values = fitted.chosen(item.pooled), fitted.chosen_thresholds()
        nested, fixed = interval(item.boot.nested), interval(item.boot.fixed)
        nothing = np.full(len(concepts), np.nan)
        for split in SPLITS:
            rows = labels.in_split(split)
            for number, site in enumerate([*item.sites, None]):
                at_choice = site is None
                values = chosen_values if at_choice else fitted.layer_thresholds(number)
                scores = chosen if at_choice else item.pooled[number]
                level = fitted.choice.level if at_choice else fitted.level_of_layer[number]
                bounds = (nested, fixed) if at_choice and split == "test" else ((nothing,) * 2,) * 2
                named = {"split": split, "kind": item.kind, "method": item.method.name, "chosen": at_choice}
                columns: dict[str, Any] = {
                    **_repeated({**named, "in_sample": IN_SAMPLE[split]}, len(concepts)),
                    "concept": list(labels.concepts),
                    "site": [item.sites[k] for k in fitted.choice.layer] if at_choice else [site] * len(concepts),
                    "delta": grid[level],
                    "threshold": values,
                    **DetectionMetrics.of(scores[rows], labels.samples[rows], values).columns,
                    "f1_low": bounds[0][0],
                    "f1_high": bounds[0][1],
                    "f1_fixed_low": bounds[1][0],
                    "f1_fixed_high": bounds[1][1],
                }
                tables.append(pa.table(columns))
    return pa.concat_tables(tables)


def _curves_table(found: Sequence[Evaluated], labels: Labels, deltas: tuple[float, ...]) -> pa.Table:
    n_concepts = len(labels.concepts)
    tables = []
    for item in found:
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


def _aggregates_table(found: Sequence[Evaluated], labels: Labels) -> pa.Table:
    records: list[dict[str, object]] = []
    for item in found:
        fitted = item.calibration
        for split in SPLITS:
            rows = labels.in_split(split)
            truth = labels.samples[rows]
            positives = truth.sum(axis=0)
            for number, site in enumerate([*item.sites, None]):
                scores = fitted.chosen(item.pooled) if site is None else item.pooled[number]
                values = fitted.chosen_thresholds() if site is None else fitted.layer_thresholds(number)
                hits, fired = fire_counts(scores[rows], truth, values[None])
                averages = aggregate(f1_of(hits, fired, positives)[0], positives)
                records.append(
                    {
                        "split": split,
                        "site": site or "chosen",
                        "kind": item.kind,
                        "method": item.method.name,
                        "in_sample": IN_SAMPLE[split],
                        "weighted_f1": float(averages["weighted"]),
                        "macro_f1": float(averages["macro"]),
                    }
                )
    return pa.Table.from_pylist(records)


def _localisation_table(located: Mapping[str, Localisation], labels: Labels, deltas: tuple[float, ...]) -> pa.Table:
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


def _thresholds(item: Evaluated, labels: Labels, deltas: tuple[float, ...]) -> list[Threshold]:
    fitted = item.calibration
    # A rare concept loses all its scores in some resamples: an end between infinite thresholds is not a number.
    with np.errstate(invalid="ignore"):
        low, high = interval(item.boot.thresholds)
    values = fitted.chosen_thresholds()
    return [
        Threshold(
            value=float(values[c]),
            delta=deltas[int(fitted.choice.level[c])],
            concept=name,
            kind=item.kind,
            method=item.method.name,
            site=item.sites[int(fitted.choice.layer[c])],
            n=int(fitted.tails[int(fitted.choice.layer[c])].counts[c]),
            low=float(low[c]),
            high=float(high[c]),
        )
        for c, name in enumerate(labels.concepts)
    ]


def _estimate(
    value: float | np.ndarray, ends: tuple[float | np.ndarray, float | np.ndarray]
) -> dict[str, float | None]:
    low, high = (None if np.isnan(end) else float(end) for end in ends)
    return {"value": float(value), "low": low, "high": high}


def _summary(found: Sequence[Evaluated], labels: Labels, deltas: tuple[float, ...], resamples: int) -> dict[str, Any]:
    test, cal = labels.in_split("test"), labels.in_split("cal")
    truth, positives = labels.samples[test], labels.samples[test].sum(axis=0)
    cal_positives = labels.samples[cal].sum(axis=0)
    content: dict[str, Any] = {
        "resamples": resamples,
        "deltas": list(deltas),
        "concepts": list(labels.concepts),
        "positives": {name: int(count) for name, count in zip(labels.concepts, positives, strict=True)},
    }
    for average in ("weighted", "macro"):
        content[f"{average}_f1"], content[f"{average}_f1_fixed"] = {}, {}
        content[f"{average}_f1_minus_{REFERENCE}"] = {}
    content["cal_weighted_f1"], content["chosen"] = {}, {}
    points: dict[tuple[str, str], dict[str, Any]] = {}
    for item in found:
        fitted = item.calibration
        hits, fired = fire_counts(fitted.chosen(item.pooled)[test], truth, fitted.chosen_thresholds()[None])
        point = aggregate(f1_of(hits, fired, positives)[0], positives)
        nested = aggregate(item.boot.nested, item.boot.positives)
        fixed = aggregate(item.boot.fixed, item.boot.positives)
        points[item.kind, item.method.name] = {"point": point, "nested": nested}
        for average in ("weighted", "macro"):
            content[f"{average}_f1"].setdefault(item.kind, {})[item.method.name] = _estimate(
                point[average], centred_interval(nested[average], float(point[average]), 0.0, 1.0)
            )
            content[f"{average}_f1_fixed"].setdefault(item.kind, {})[item.method.name] = _estimate(
                point[average], interval(fixed[average])
            )
        best = fitted.f1[fitted.choice.layer, fitted.choice.level, np.arange(len(labels.concepts))]
        content["cal_weighted_f1"].setdefault(item.kind, {})[item.method.name] = float(
            aggregate(best, cal_positives)["weighted"]
        )
        content["chosen"].setdefault(item.kind, {})[item.method.name] = {
            threshold.concept: {"site": threshold.site, "delta": threshold.delta, "threshold": threshold.value}
            for threshold in _thresholds(item, labels, deltas)
        }
    for (kind, method), result in points.items():
        reference = points.get((kind, REFERENCE))
        if reference is None or method == REFERENCE:
            continue
        for average in ("weighted", "macro"):
            gain = float(result["point"][average] - reference["point"][average])
            resampled = result["nested"][average] - reference["nested"][average]
            content[f"{average}_f1_minus_{REFERENCE}"].setdefault(kind, {})[method] = _estimate(
                gain, centred_interval(resampled, gain, -1.0, 1.0)
            )
    by_kind = {
        kind: by_method.get(REFERENCE, max(by_method.values()))
        for kind, by_method in content["cal_weighted_f1"].items()
    }
    content["best_kind_on_cal"] = max(by_kind, key=lambda kind: by_kind[kind])
    return content
