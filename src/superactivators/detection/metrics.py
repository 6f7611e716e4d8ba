"""Detection metrics from counts, for any number of concepts and thresholds at once (METHOD section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float

from superactivators.ranking import auroc, average_precision


def ratio(numerator: np.ndarray | float, denominator: np.ndarray | float) -> Float[np.ndarray, "..."]:
    """Quotient, with 0 where the denominator is 0 (METHOD: undefined counts as 0)."""
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.divide(top, bottom, out=np.zeros(np.broadcast_shapes(top.shape, bottom.shape)), where=bottom > 0)


def f1_of(hits: np.ndarray, fired: np.ndarray, positives: np.ndarray) -> Float[np.ndarray, "..."]:
    """F1 from true positives, all detections and all positives; 0 where there is neither."""
    return ratio(2 * np.asarray(hits, dtype=np.float64), np.asarray(fired, dtype=np.float64) + positives)


def fire_counts(
    scores: Float[np.ndarray, "n c"], labels: Bool[np.ndarray, "n c"], thresholds: Float[np.ndarray, "levels c"]
) -> tuple[Float[np.ndarray, "levels c"], Float[np.ndarray, "levels c"]]:
    """Count detections at many thresholds: score >= threshold, compared in float64.

    Parameters
    ----------
    scores : float array of shape (n, concepts)
    labels : bool array of shape (n, concepts)
    thresholds : float64 array of shape (levels, concepts)

    Returns
    -------
    hits, fired : float64 arrays of shape (levels, concepts)
        True positives and all detections.
    """
    fires = scores.astype(np.float64)[:, None, :] >= thresholds[None]
    return (fires & labels[:, None, :]).sum(axis=0).astype(float), fires.sum(axis=0).astype(float)


@final
@dataclass(frozen=True, eq=False)
class DetectionMetrics:
    """Metrics of every concept at one threshold each.

    Attributes
    ----------
    columns : dict of str to array of shape (concepts,)
        ``tp``, ``fp``, ``fn``, ``tn``, ``precision``, ``recall``, ``f1``, ``accuracy``, ``fpr``, ``auroc``,
        ``average_precision``, ``prevalence``, ``n``, ``n_positive`` and ``undefined`` (some ratio was 0/0 and reads 0;
        a ranking measure then reads NaN).
    """

    columns: dict[str, Any]

    @staticmethod
    def of(
        scores: Float[np.ndarray, "n c"], labels: Bool[np.ndarray, "n c"], thresholds: Float[np.ndarray, " c"]
    ) -> DetectionMetrics:
        """Measure scores against labels at one threshold per concept."""
        hits, fired = (counts[0] for counts in fire_counts(scores, labels, thresholds[None]))
        positives, n = labels.sum(axis=0).astype(float), len(labels)
        negatives = n - positives
        columns: dict[str, Any] = {
            "tp": hits,
            "fp": fired - hits,
            "fn": positives - hits,
            "tn": negatives - (fired - hits),
            "precision": ratio(hits, fired),
            "recall": ratio(hits, positives),
            "f1": f1_of(hits, fired, positives),
            "accuracy": ratio(hits + negatives - (fired - hits), np.full_like(positives, n)),
            "fpr": ratio(fired - hits, negatives),
            "auroc": auroc(scores, labels),
            "average_precision": average_precision(scores, labels),
            "prevalence": positives / n,
            "n": np.full(len(positives), n),
            "n_positive": positives,
            "undefined": (fired == 0) | (positives == 0) | (negatives == 0),
        }
        for name in ("tp", "fp", "fn", "tn", "n", "n_positive"):
            columns[name] = columns[name].astype(np.int64)
        return DetectionMetrics(columns)


def micro_f1(hits: np.ndarray, fired: np.ndarray, positives: np.ndarray) -> Float[np.ndarray, "*r"]:
    """F1 from counts summed over concepts (the last axis)."""
    hit, fire, positive = (np.asarray(part, dtype=np.float64).sum(axis=-1) for part in (hits, fired, positives))
    return ratio(2 * hit, fire + positive)


def aggregate(
    f1: Float[np.ndarray, "*r c"], positives: np.ndarray, counts: tuple[np.ndarray, np.ndarray] | None = None
) -> dict[str, Float[np.ndarray, "*r"]]:
    """Average F1 over concepts: weighted by positive samples (the paper's headline), plain, and from summed counts.

    Parameters
    ----------
    f1 : float array of shape (..., concepts)
    positives : array of the same shape or (concepts,)
    counts : pair of arrays of the same shape, optional
        Hits and detections, as of `fire_counts`.

    Returns
    -------
    dict with ``weighted`` and ``macro``, and ``micro`` if counts are given: arrays of shape (...)
    """
    weights = np.broadcast_to(np.asarray(positives, dtype=np.float64), f1.shape)
    averages = {
        "weighted": ratio((f1 * weights).sum(axis=-1), weights.sum(axis=-1)),
        "macro": np.asarray(f1.mean(axis=-1)),
    }
    if counts is not None:
        averages["micro"] = micro_f1(*counts, weights)
    return averages
