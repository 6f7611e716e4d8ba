"""95 % intervals from resampled values (METHOD section 6), and what they claim.

``fixed`` intervals speak of the *detector*: its F1 on infinitely many samples, thresholds as they are. ``nested``
intervals speak of the *procedure*: the mean test F1 of studies of this size, with candidate, level and threshold chosen
anew on each. Both are `f1_interval`; they differ in the resamples.

Percentiles of resampled F1 cover too little for rare concepts (80 % with 8 positives: F1 is skewed, and its resamples
know nothing of what no sample showed) and too much for nested choices (`damped` says why). Wilson score intervals with
the resampled variance covered 93 to 97 % of 1,000 simulated studies for the F1 of rare and common concepts with 15
positives or more, 92 to 98 % with 8 to 12 positives and for averages over concepts; least (92 %) for macro averages of
very rare concepts with fixed thresholds, which F1 underestimates (``benchmarks/interval_coverage.py`` with
``benchmarks/results/interval_coverage.jsonl``).
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float

LEVEL = 0.95
QUANTILE = NormalDist().inv_cdf((1 + LEVEL) / 2)
"""Of the normal distribution: 1.96."""

DAMPING = math.sqrt(0.5)

MIN_POSITIVES = 5
"""With fewer positive test samples the F1 of a concept has no interval."""

MOST_WITHOUT = 0.05
"""Nor has it one if a larger share of the resamples holds no positive test sample."""


def interval(values: Float[np.ndarray, "r *rest"]) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Percentile interval over the first axis; NaN without any resample."""
    if not len(values):
        empty = np.full(values.shape[1:], np.nan)
        return empty, empty
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return np.asarray(low), np.asarray(high)


def damped(nested: Float[np.ndarray, "r *rest"], fixed: Float[np.ndarray, "r *rest"]) -> Float[np.ndarray, "r *rest"]:
    """Resamples whose spread is that of the procedure: half of the variance that repeated choices add.

    A choice made on a resample of cal errs twice, once with cal and once with the resample. Near the best choice the
    loss is quadratic in the error, so that the loss of resamples varies more than that of studies: three times as
    much for two normal errors of equal size. With several methods, averages and concepts simulated, between 1/8 and
    1/2 of the added variance was real; one half is taken, on the safe side. The damping is linear in the resamples:
    differences and averages of damped resamples are those of the methods.

    Parameters
    ----------
    nested, fixed : float arrays of shape (resamples, ...)
        The same draws of test, with choices repeated and as they are.
    """
    return np.asarray(fixed + DAMPING * (nested - fixed))


def estimable(
    positives: Float[np.ndarray, " c"], drawn: Float[np.ndarray, "r c"], least: int = MIN_POSITIVES
) -> Bool[np.ndarray, " c"]:
    """Whether each concept has enough positive test samples for an interval.

    Parameters
    ----------
    positives : float array of shape (concepts,)
        Positive test samples.
    drawn : float array of shape (resamples, concepts)
        Positive test samples in each resample.
    least : int
    """
    without = (drawn == 0).mean(axis=0) if len(drawn) else np.zeros(len(positives))
    return np.asarray((positives >= least) & (without <= MOST_WITHOUT))


def f1_interval(
    values: Float[np.ndarray, "r *rest"],
    estimate: Float[np.ndarray, "*rest"],
    counted: Float[np.ndarray, "*rest"] | None = None,
) -> tuple[Float[np.ndarray, "*rest"], Float[np.ndarray, "*rest"]]:
    """Interval of an F1 or an average of several, in [0, 1] and never without width.

    F1 is 2J / (1 + J), where J is the share of hits among all samples that are positive or detected, a binomial
    proportion for fixed thresholds. Its Wilson score interval (Wilson 1927; for F1: Lam, Gopal and Qian, "Confidence
    Intervals for the F1 Score", arXiv 2309.14621, "indirect") is taken with as many samples as give J the variance of
    the resamples, and no more than were counted.

    Parameters
    ----------
    values : float array of shape (resamples, ...)
        Resampled F1: `damped` for the procedure, fixed for the detector.
    estimate : float array of shape (...)
        F1 of the study.
    counted : float array of shape (...), optional
        Samples that are positive or detected (hits + misses + false alarms), summed for averages. Keeps intervals of
        rare concepts from being too narrow.

    Returns
    -------
    low, high : float64 arrays of shape (...)
        NaN without any resample.
    """
    if not len(values):
        nothing = np.full(estimate.shape, np.nan)
        return nothing, nothing
    share = estimate / (2 - estimate)
    variance = values.var(axis=0) * (2 / (2 - estimate) ** 2) ** 2
    most = np.full(estimate.shape, np.inf) if counted is None else np.maximum(counted, 1.0)
    # Where all or none were hits the plain variance is 0: two more hits and two more misses are imagined.
    weight = 1 / (1 + QUANTILE**2 / most)
    imagined = weight * share + (1 - weight) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        n = imagined * (1 - imagined) / variance
    n = np.maximum(np.minimum(np.where(np.isnan(n), np.inf, n), most), 1.0)
    scale = 1 / (1 + QUANTILE**2 / n)
    middle = scale * (share + QUANTILE**2 / (2 * n))
    half = scale * QUANTILE * np.sqrt(share * (1 - share) / n + (QUANTILE / (2 * n)) ** 2)
    low, high = np.clip(middle - half, 0.0, share), np.clip(middle + half, share, 1.0)
    return np.asarray(2 * low / (1 + low)), np.asarray(2 * high / (1 + high))
