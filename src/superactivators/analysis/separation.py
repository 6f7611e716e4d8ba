"""How far the activations of in-concept tokens stand apart from those of samples without the concept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from superactivators.ragged import segment_any
from superactivators.ranking import auroc

BINS = 50
FAR = 0.98
"""Quantile of D_out above which an activation counts as far out in the tail."""


@final
@dataclass(frozen=True, eq=False)
class Separation:
    """Statistics of every concept; NaN where D_in or D_out is empty.

    Attributes
    ----------
    overlap : float64 array of shape (concepts,)
        Common area of the two histograms, over `BINS` bins between the smallest and the largest activation.
    auroc : float64 array of shape (concepts,)
        Chance that an in-concept token has the higher activation, ties count one half.
    cohens_d : float64 array of shape (concepts,)
        Difference of means over the pooled standard deviation.
    skewness_in, skewness_out : float64 array of shape (concepts,)
        Third standardised moment.
    far : float64 array of shape (concepts,)
        The `FAR` quantile of D_out.
    tail_mass : float64 array of shape (concepts,)
        Share of in-concept tokens above it.
    coverage : float64 array of shape (concepts,)
        Share of positive samples with an in-concept token above it.
    """

    overlap: Float[np.ndarray, " c"]
    auroc: Float[np.ndarray, " c"]
    cohens_d: Float[np.ndarray, " c"]
    skewness_in: Float[np.ndarray, " c"]
    skewness_out: Float[np.ndarray, " c"]
    far: Float[np.ndarray, " c"]
    tail_mass: Float[np.ndarray, " c"]
    coverage: Float[np.ndarray, " c"]


def separation(
    activations: Float[np.ndarray, "tokens c"],
    inside: Bool[np.ndarray, "tokens c"],
    outside: Bool[np.ndarray, "tokens c"],
    offsets: Int[np.ndarray, " n_plus_1"],
) -> Separation:
    """Compare D_in with D_out for all concepts of a layer.

    Parameters
    ----------
    activations : float array of shape (tokens, concepts)
    inside : bool array of shape (tokens, concepts)
        In-concept tokens (D_in).
    outside : bool array of shape (tokens, concepts)
        Tokens of samples without the concept (D_out).
    offsets : int64 array of shape (samples + 1,)
        Tokens of each sample.

    Returns
    -------
    Separation

    Notes
    -----
    METHOD section 8. Memory is a few float64 arrays of the shape of ``activations``.
    """
    wide = activations.astype(np.float64)
    none = ~inside.any(axis=0) | ~outside.any(axis=0)
    moments = [_moments(wide, part) for part in (inside, outside)]
    (mean_in, var_in, skew_in, n_in), (mean_out, var_out, skew_out, n_out) = moments
    with np.errstate(invalid="ignore", divide="ignore"):
        pooled = np.sqrt(((n_in - 1) * var_in + (n_out - 1) * var_out) / (n_in + n_out - 2))
        distance = (mean_in - mean_out) / pooled
    far = _quantile(wide, outside, FAR)
    above = inside & (wide > far)
    positive = segment_any(inside, offsets)
    with np.errstate(invalid="ignore", divide="ignore"):
        tail_mass = above.sum(axis=0) / inside.sum(axis=0)
        coverage = segment_any(above, offsets).sum(axis=0) / positive.sum(axis=0)
    values = [
        _overlap(wide, inside, outside),
        _auroc(wide, inside, outside),
        distance,
        skew_in,
        skew_out,
        far,
        tail_mass,
        coverage,
    ]
    return Separation(*(np.where(none, np.nan, value) for value in values))


def _moments(
    values: Float[np.ndarray, "tokens c"], members: Bool[np.ndarray, "tokens c"]
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"], Float[np.ndarray, " c"], Int[np.ndarray, " c"]]:
    """Mean, variance (with n - 1), skewness and number of the members of each column."""
    count = members.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(members, values, 0).sum(axis=0) / count
        centred = np.where(members, values - mean, 0)
        second, third = (centred**2).sum(axis=0), (centred**3).sum(axis=0)
        return mean, second / (count - 1), (third / count) / (second / count) ** 1.5, count


def _quantile(
    values: Float[np.ndarray, "tokens c"], members: Bool[np.ndarray, "tokens c"], level: float
) -> Float[np.ndarray, " c"]:
    """Linear-interpolated quantile of the members of each column; NaN without any."""
    shown = np.sort(np.where(members, values, np.inf), axis=0)
    count = members.sum(axis=0)
    rank = np.maximum(count - 1, 0) * level
    low = np.floor(rank).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    column = np.arange(values.shape[1])
    below, over = shown[low, column], shown[high, column]
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, below + (rank - low) * (over - below), np.nan)


def _auroc(
    values: Float[np.ndarray, "tokens c"], inside: Bool[np.ndarray, "tokens c"], outside: Bool[np.ndarray, "tokens c"]
) -> Float[np.ndarray, " c"]:
    """Area under the ROC curve of each column; other tokens are moved above all, where they change nothing."""
    counted = inside | outside
    ranked = np.where(counted, values, np.inf)
    whole = auroc(ranked, inside)
    # `auroc` took the tokens that do not count for negatives above every positive
    negatives, further = outside.sum(axis=0), (~counted).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(whole * (negatives + further) / negatives)


def _overlap(
    values: Float[np.ndarray, "tokens c"], inside: Bool[np.ndarray, "tokens c"], outside: Bool[np.ndarray, "tokens c"]
) -> Float[np.ndarray, " c"]:
    counted = inside | outside
    lowest = np.where(counted, values, np.inf).min(axis=0)
    highest = np.where(counted, values, -np.inf).max(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        place = (values - lowest) / np.where(highest > lowest, highest - lowest, 1) * BINS
    shares = []
    for part in (inside, outside):
        row, column = np.nonzero(part)
        slot = column * BINS + np.clip(place[row, column], 0, BINS - 1).astype(np.int64)
        counts = np.bincount(slot, minlength=BINS * values.shape[1]).reshape(values.shape[1], BINS)
        shares.append(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    return np.asarray(np.minimum(shares[0], shares[1]).sum(axis=1))
