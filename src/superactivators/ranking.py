"""Threshold-free measures of scores against labels, for all columns together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata


def auroc(scores: Float[np.ndarray, "n c"], labels: Bool[np.ndarray, "n c"]) -> Float[np.ndarray, " c"]:
    """Area under the ROC curve of every column; ties count one half; NaN where only one class is present.

    Parameters
    ----------
    scores : float array of shape (n, columns)
    labels : bool array of shape (n, columns)

    Returns
    -------
    float64 array of shape (columns,)
    """
    positives = labels.sum(axis=0).astype(np.float64)
    negatives = len(labels) - positives
    ranks = (rankdata(scores, axis=0) * labels).sum(axis=0) if len(labels) else positives
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((ranks - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(scores: Float[np.ndarray, "n c"], labels: Bool[np.ndarray, "n c"]) -> Float[np.ndarray, " c"]:
    """Average precision of every column: precision at each distinct score, weighted by the recall it adds.

    Parameters
    ----------
    scores : float array of shape (n, columns)
    labels : bool array of shape (n, columns)

    Returns
    -------
    float64 array of shape (columns,)
        NaN where a column has no positive.
    """
    n = len(scores)
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked, hits = np.take_along_axis(scores, order, axis=0), np.take_along_axis(labels, order, axis=0)
    # Equal scores enter together: each row takes the precision at the last row of its tie.
    last = np.ones_like(hits)
    last[:-1] = ranked[:-1] != ranked[1:]
    numbers = np.arange(n)[:, None]
    ends = np.minimum.accumulate(np.where(last, numbers, n)[::-1], axis=0)[::-1]
    found = np.cumsum(hits, axis=0)
    precision = np.take_along_axis(found, ends, axis=0) / (ends + 1)
    positives = labels.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((precision * hits).sum(axis=0) / positives)
