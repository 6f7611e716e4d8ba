"""The summary of the detection stage, as JSON types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from superactivators.artefacts import array_fingerprint, fingerprint
from superactivators.detection.comparisons import AVERAGES
from superactivators.detection.figures import Figures
from superactivators.detection.metrics import aggregate
from superactivators.detection.results import KINDLESS, REFERENCE, Evaluated
from superactivators.detection.thresholds import Threshold
from superactivators.states.labels import Labels


def summarise(
    found: Sequence[Evaluated],
    labels: Labels,
    figures: Mapping[tuple[str, str], Figures],
    comparisons: pa.Table,
    thresholds: Sequence[Threshold],
    deltas: tuple[float, ...],
    seed: int,
) -> dict[str, Any]:
    """Average what was evaluated, with intervals, and say what was chosen.

    Parameters
    ----------
    found : sequence of Evaluated
    labels : Labels
    figures : mapping of (kind, method) to Figures
    comparisons : pyarrow Table
        Of the SuperActivators with the other methods.
    thresholds : sequence of Threshold
        The chosen ones.
    deltas : ascending sparsity levels
    seed : int
        That the resamples were drawn with.

    Returns
    -------
    dict
        See ``docs/study.md``.
    """
    test, cal = labels.in_split("test"), labels.in_split("cal")
    positives = labels.samples[test].sum(axis=0)
    content: dict[str, Any] = {
        "resamples": len(found[0].boot.nested),
        "draws": {"seed": seed, "cal": len(cal), "test": len(test)},
        "test_fingerprint": _fingerprint_of_test(labels),
        "test_ids_fingerprint": fingerprint([labels.ids[row] for row in test]),
        "token_labels": labels.tokens is not None,
        "deltas": list(deltas),
        "concepts": list(labels.concepts),
        "positives": {name: int(count) for name, count in zip(labels.concepts, positives, strict=True)},
    }
    for average in AVERAGES:
        content |= {f"{average}_f1{ending}": {} for ending in ("", "_fixed", f"_minus_{REFERENCE}")}
    content |= {"cal_weighted_f1": {}, "chosen": {}}
    for item in found:
        kind, method = item.kind, item.method.name
        held = figures[kind, method]
        for number, average in enumerate(AVERAGES):
            for ending, ends in (("", held.nested), ("_fixed", held.fixed)):
                value = estimate(held.averages[average], (ends[0][number], ends[1][number]))
                content[f"{average}_f1{ending}"].setdefault(kind, {})[method] = value
        content["cal_weighted_f1"].setdefault(kind, {})[method] = _on_cal(item, labels)
        content["chosen"].setdefault(kind, {})[method] = {
            threshold.concept: {
                "site": threshold.site,
                "delta": None if np.isnan(threshold.delta) else threshold.delta,
                "threshold": threshold.value if np.isfinite(threshold.value) else None,
            }
            for threshold in thresholds
            if (threshold.kind, threshold.method) == (kind, method)
        }
    for row in comparisons.filter(pc.field("quantity") == "average").to_pylist():
        (kind, reference), (other, method) = row["a"].split("/", 1), row["b"].split("/", 1)
        if reference == REFERENCE and (other == kind or other in KINDLESS):
            content[f"{row['name']}_f1_minus_{REFERENCE}"].setdefault(kind, {})[method] = estimate(
                -row["difference"], (-row["high"], -row["low"])
            )
    content["best_kind_on_cal"] = _best_kind(found, content["cal_weighted_f1"])
    return content


def estimate(value: float, ends: tuple[float | np.ndarray, float | np.ndarray]) -> dict[str, float | None]:
    """Value with the ends of its interval; None where there is none."""
    low, high = (None if np.isnan(end) else float(end) for end in ends)
    return {"value": float(value), "low": low, "high": high}


def _on_cal(item: Evaluated, labels: Labels) -> float | None:
    """Weighted cal F1 at the choice; None where nothing was asked on cal."""
    f1 = item.calibration.chosen_f1()
    if np.isnan(f1).any():
        return None
    return float(aggregate(f1, labels.samples[labels.in_split("cal")].sum(axis=0))["weighted"])


def _best_kind(found: Sequence[Evaluated], on_cal: dict[str, dict[str, float | None]]) -> str:
    """Kind of vectors whose SuperActivators (or, without them, best method) are best on cal; not the mixed kind."""
    single = [item.kind for item in found if bool((item.vectors == item.kind).all())]
    vectors = [item.kind for item in found if item.method.source == "vectors" and item.kind in single] or single

    def quality(kind: str) -> float:
        value = on_cal[kind].get(REFERENCE)
        return max((v for v in on_cal[kind].values() if v is not None), default=0.0) if value is None else value

    return max(dict.fromkeys(vectors), key=quality)


def _fingerprint_of_test(labels: Labels) -> str:
    """SHA-256 of ids and labels of the test samples: studies that share them can be compared in pairs."""
    test = labels.in_split("test")
    return fingerprint([[labels.ids[row] for row in test], labels.concepts, array_fingerprint(labels.samples[test])])
