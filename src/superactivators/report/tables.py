"""Result tables rearranged for the page: methods, layers, curves and concepts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float

from superactivators.detection.lengths import ALL
from superactivators.detection.metrics import aggregate, ratio
from superactivators.detection.results import KINDLESS, REFERENCE, DetectionResult
from superactivators.report.inputs import ReportInputs
from superactivators.report.verdicts import advantage
from superactivators.states.labels import Labels

AVERAGES = ("weighted", "macro")


def selected(table: pa.Table, **wanted: object) -> pa.Table:
    """Rows of a table whose columns have the wanted values."""
    condition = None
    for name, value in wanted.items():
        term = pc.field(name) == value
        condition = term if condition is None else condition & term
    return table if condition is None else table.filter(condition)


def always_yes(truth: Bool[np.ndarray, "n c"]) -> Float[np.ndarray, " c"]:
    """F1 of saying yes to every sample: 2p / (1 + p) at prevalence p. Below it a detector is of no use."""
    positives = truth.sum(axis=0)
    return ratio(2 * positives, positives + len(truth))


def method_rows(inputs: ReportInputs) -> list[dict[str, Any]]:
    """One entry for each kind and method: test F1 with interval, both averages, and the SuperActivators' lead.

    Methods without vectors are compared with the SuperActivators of the kind that is best on cal.
    """
    summary = inputs.result.summary
    best = summary["best_kind_on_cal"]
    judged = {(row["a"], row["b"], row["name"]): row for row in inputs.result.comparisons.to_pylist()}
    rows = []
    for kind, by_method in summary["weighted_f1"].items():
        for method in by_method:
            row: dict[str, Any] = {"kind": kind, "method": method}
            for average in AVERAGES:
                owner = best if kind in KINDLESS else kind
                difference = summary[f"{average}_f1_minus_{REFERENCE}"].get(owner, {}).get(method)
                compared = judged.get((f"{owner}/{REFERENCE}", f"{kind}/{method}", average), {})
                row[average] = {
                    "f1": summary[f"{average}_f1"][kind][method],
                    "fixed": summary[f"{average}_f1_fixed"][kind][method],
                    "gain": None if difference is None else advantage(difference),
                    "p_holm": compared.get("p_holm"),
                    "n_compared": compared.get("n_compared"),
                }
            row["cal_weighted"] = summary["cal_weighted_f1"][kind][method]
            rows.append(row)
    return rows


def floor(labels: Labels) -> dict[str, float]:
    """Average test F1 of saying yes to every sample."""
    truth = labels.samples[labels.in_split("test")]
    return {name: float(value) for name, value in aggregate(always_yes(truth), truth.sum(axis=0)).items()}


def layer_f1(inputs: ReportInputs) -> dict[str, dict[str, dict[str, list[float | None]]]]:
    """Test F1 of every layer, by kind, method and average, in the order of the sites."""
    place = {site: number for number, site in enumerate(inputs.sites)}
    content: dict[str, dict[str, dict[str, list[float | None]]]] = {}
    for row in selected(inputs.result.aggregates, split="test").to_pylist():
        if row["site"] not in place:
            continue
        by_method = content.setdefault(row["kind"], {})
        lists = by_method.setdefault(row["method"], {name: [None] * len(place) for name in AVERAGES})
        for name in AVERAGES:
            lists[name][place[row["site"]]] = row[f"{name}_f1"]
    return content


def curve(
    result: DetectionResult, sites: list[str], kind: str, method: str, split: str
) -> Float[np.ndarray, "sites deltas c"]:
    """F1 of one kind and method at every site, sparsity level and concept."""
    deltas, concepts = result.summary["deltas"], result.summary["concepts"]
    places = [{name: number for number, name in enumerate(names)} for names in (sites, deltas, concepts)]
    table = selected(result.curves, kind=kind, method=method, split=split)
    index = [
        [place[value] for value in table.column(name).to_pylist()]
        for place, name in zip(places, ("site", "delta", "concept"), strict=True)
    ]
    values = np.full((len(sites), len(deltas), len(concepts)), np.nan)
    values[tuple(index)] = table.column("f1").to_numpy()
    return values


def curves(inputs: ReportInputs) -> dict[str, Any]:
    """F1 against the sparsity level.

    Returns
    -------
    dict
        ``together[kind][method][average]``: test F1 as [sites, deltas], one level for all concepts.
        ``concepts[kind][split]``: F1 of the method in focus as [concepts, sites, deltas], on cal and test.
    """
    positives = inputs.labels.samples[inputs.labels.in_split("test")].sum(axis=0)
    together: dict[str, Any] = {}
    single: dict[str, Any] = {}
    held = inputs.result.curves
    drawn = set(zip(held["kind"].to_pylist(), held["method"].to_pylist(), strict=True))
    for kind in inputs.kinds:
        together[kind], single[kind] = {}, {}
        for method in inputs.result.summary["weighted_f1"][kind]:
            if (kind, method) not in drawn:
                continue
            values = curve(inputs.result, inputs.sites, kind, method, "test")
            together[kind][method] = aggregate(values, positives)
            if method == inputs.focus:
                cal = curve(inputs.result, inputs.sites, kind, method, "cal")
                single[kind] = {"test": values.transpose(2, 0, 1), "cal": cal.transpose(2, 0, 1)}
    return {"together": together, "concepts": single}


METRICS = (
    *("site", "delta", "threshold", "tp", "fp", "fn", "tn", "precision", "recall", "f1", "accuracy", "fpr", "auroc"),
    *("average_precision", "prevalence", "n", "n_positive", "undefined"),
    *("f1_low", "f1_high", "f1_fixed_low", "f1_fixed_high"),
)
"""Columns of the metrics table that the page shows."""


def concept_rows(inputs: ReportInputs) -> dict[str, list[dict[str, Any]]]:
    """Test metrics of every concept at its chosen layer and level, by kind, in the order of the concepts.

    Each entry also holds the ``interval`` of its threshold, the number ``n_tail`` of scores it was fitted on, direct
    localisation (``tokens``, or None), the F1 of saying ``always_yes`` and the F1 of each method (``by_method``).
    """
    names, result = inputs.result.summary["concepts"], inputs.result
    chosen = selected(result.metrics, split="test", chosen=True)
    yes = always_yes(inputs.labels.samples[inputs.labels.in_split("test")])
    thresholds = {(item.kind, item.method, item.concept): item.as_dict() for item in result.thresholds}
    located = {(row["kind"], row["concept"]): row for row in result.localisation.to_pylist()}
    rows = {(row["kind"], row["method"], row["concept"]): row for row in chosen.to_pylist()}
    content: dict[str, list[dict[str, Any]]] = {}
    for kind in inputs.kinds:
        methods = list(result.summary["weighted_f1"][kind])
        content[kind] = []
        for number, name in enumerate(names):
            row, threshold = rows[kind, inputs.focus, name], thresholds[kind, inputs.focus, name]
            content[kind].append(
                {metric: row[metric] for metric in METRICS}
                | {
                    "concept": name,
                    "interval": [threshold["low"], threshold["high"]],
                    "n_tail": threshold["n"],
                    "tokens": located.get((kind, name)),
                    "always_yes": float(yes[number]),
                    "by_method": {
                        method: {
                            part: rows[kind, method, name][part]
                            for part in ("f1", "f1_low", "f1_high", "site", "delta")
                        }
                        for method in methods
                    },
                }
            )
    return content


def oracle_rows(inputs: ReportInputs) -> dict[str, dict[str, float]]:
    """Average test F1 of matched kinds if *test* chose the units, by kind: an upper bound, for comparison only."""
    table = inputs.result.oracle
    content = {}
    for kind in dict.fromkeys(table.column("kind").to_pylist()):
        rows = selected(table, kind=kind, chosen=True)
        averages = aggregate(rows["f1"].to_numpy(), rows["n_positive"].to_numpy())
        content[kind] = {name: float(value) for name, value in averages.items()}
    return content


def length_rows(inputs: ReportInputs) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """False-positive rate of all concepts together in each bin of lengths, by kind and method."""
    names = ("low", "high", "negatives", "fpr", "fpr_low", "fpr_high", "length_auroc")
    content: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in selected(inputs.result.lengths, concept=ALL).to_pylist():
        rows = content.setdefault(row["kind"], {}).setdefault(row["method"], [])
        rows.append({name: row[name] for name in names})
    return content
