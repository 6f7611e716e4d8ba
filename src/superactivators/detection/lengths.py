"""False-positive rates: exact and approximate intervals, and how they grow with the length of samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int, Real
from scipy import stats

from superactivators.detection.metrics import ratio
from superactivators.errors import StudyError

ALL = "(all)"
"""Name under which the figures of all concepts together stand in the table."""

BINS = 5
Z = float(stats.norm.ppf(0.975))


def wilson(hits: Real[np.ndarray, "..."], trials: Real[np.ndarray, "..."]) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % score interval of a rate (Wilson 1927); NaN without trials.

    Parameters
    ----------
    hits, trials : arrays of one shape

    Returns
    -------
    low, high : float64 arrays of the same shape
    """
    n = np.asarray(trials, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.asarray(hits, dtype=np.float64) / n
        centre = (rate + Z**2 / (2 * n)) / (1 + Z**2 / n)
        half = Z / (1 + Z**2 / n) * np.sqrt(rate * (1 - rate) / n + Z**2 / (4 * n**2))
    return np.where(rate == 0, 0.0, centre - half), np.where(rate == 1, 1.0, centre + half)


def exact_bounds(hits: Real[np.ndarray, "..."], trials: Real[np.ndarray, "..."]) -> tuple[np.ndarray, np.ndarray]:
    """One-sided 95 % bounds of a rate from below and from above (Clopper and Pearson 1934).

    Together they are an exact 90 % interval.

    Parameters
    ----------
    hits, trials : arrays that broadcast

    Returns
    -------
    low, high : float64 arrays
        0 and 1 without trials.
    """
    k, n = np.broadcast_arrays(np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    low = np.where(k > 0, stats.beta.ppf(0.05, np.maximum(k, 1), n - k + 1), 0.0)
    high = np.where(k < n, stats.beta.ppf(0.95, k + 1, np.maximum(n - k, 1)), 1.0)
    return np.asarray(low), np.asarray(high)


def length_table(
    pooled: Float[np.ndarray, "n c"],
    thresholds: Float[np.ndarray, " c"],
    labels: Bool[np.ndarray, "n c"],
    lengths: Int[np.ndarray, " n"],
    bins: int = BINS,
    *,
    concepts: Sequence[str] | None = None,
) -> pa.Table:
    """Count false alarms of samples of different lengths.

    Parameters
    ----------
    pooled : float array of shape (samples, concepts)
        Scores of the samples of one split.
    thresholds : float64 array of shape (concepts,)
        Present if score >= threshold, compared in float64.
    labels : bool array of shape (samples, concepts)
    lengths : int array of shape (samples,)
        Tokens of each sample.
    bins : int
        Bins of about equally many samples. Bins that would have the same bounds are one: if all lengths are equal,
        there is a single bin.
    concepts : sequence of str, optional
        Names; numbers by default.

    Returns
    -------
    pyarrow Table
        A row for each bin, of all concepts together (``"(all)"``) and of each concept, with the columns ``concept``;
        ``low`` and ``high``, the fewest and most tokens of a sample in the bin; ``negatives``, its samples without the
        concept; ``false_positives``; ``fpr`` with its 95 % Wilson interval ``fpr_low``, ``fpr_high`` (null without
        negatives); and ``length_auroc``, the same in every row of a concept: the chance that a false alarm is longer
        than a true negative, ties counted one half (0.5: length does not matter; null without both).

        Under ``"(all)"`` every pair of a sample and a concept that it lacks counts once. The interval takes these pairs
        for independent, so it is too narrow where the alarms of several concepts go together.

    Raises
    ------
    StudyError
        If ``bins`` is less than 1, or there is no sample.
    """
    if bins < 1 or not len(lengths):
        raise StudyError(f"false alarms against length need samples and at least 1 bin; got {len(lengths)}, {bins}")
    names = [str(c) for c in range(pooled.shape[1])] if concepts is None else list(concepts)
    fires = pooled.astype(np.float64) >= thresholds
    alarms, quiet = fires & ~labels, ~fires & ~labels
    values, place = np.unique(lengths, return_inverse=True)
    by_length = [_with_all(_sums(part, place, len(values))) for part in (alarms, quiet)]
    trend = _auroc(*by_length)
    # Upper bounds are lengths that occur, so that no bin is empty.
    upper = np.unique(np.quantile(lengths, np.arange(1, bins + 1) / bins, method="inverted_cdf"))
    bin_of = np.searchsorted(upper, values)
    starts = np.searchsorted(bin_of, np.arange(len(upper)))
    hits, misses = (np.add.reduceat(part, starts, axis=0) for part in by_length)
    negatives = hits + misses
    low, high = wilson(hits, negatives)
    n_rows = len(names) + 1
    none = negatives.T.ravel() == 0
    return pa.table(
        {
            "concept": np.repeat([ALL, *names], len(upper)).tolist(),
            "low": np.tile(values[starts], n_rows).astype(np.int64),
            "high": np.tile(upper, n_rows).astype(np.int64),
            "negatives": negatives.T.ravel(),
            "false_positives": hits.T.ravel(),
            "fpr": pa.array(ratio(hits, negatives).T.ravel(), mask=none),
            "fpr_low": pa.array(low.T.ravel(), mask=none),
            "fpr_high": pa.array(high.T.ravel(), mask=none),
            "length_auroc": pa.array(np.repeat(trend, len(upper)), mask=np.repeat(np.isnan(trend), len(upper))),
        }
    )


def _sums(marked: Bool[np.ndarray, "n c"], place: Int[np.ndarray, " n"], groups: int) -> Int[np.ndarray, "groups c"]:
    """Count marks by group of samples; every group has a sample."""
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(groups))
    return np.asarray(np.add.reduceat(marked[order].astype(np.int64), starts, axis=0))


def _with_all(counts: Int[np.ndarray, "groups c"]) -> Int[np.ndarray, "groups c_plus_1"]:
    return np.concatenate([counts.sum(axis=1, keepdims=True), counts], axis=1)


def _auroc(alarms: Int[np.ndarray, "lengths c"], quiet: Int[np.ndarray, "lengths c"]) -> Float[np.ndarray, " c"]:
    """Area under the ROC curve from counts at every length, ascending; NaN where one of the two is missing."""
    shorter = np.cumsum(quiet, axis=0) - quiet / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((alarms * shorter).sum(axis=0) / (alarms.sum(axis=0) * quiet.sum(axis=0)).astype(np.float64))
