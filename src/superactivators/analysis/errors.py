"""Errors of detection against prevalence, the size of concepts and the length of samples (METHOD section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from superactivators.detection.metrics import ratio

FIFTHS = 5


def token_shares(
    inside: sp.csr_matrix, offsets: Int[np.ndarray, " n_plus_1"], present: Bool[np.ndarray, "n c"]
) -> Float[np.ndarray, "n c"]:
    """Share of each positive sample's tokens that carry the concept: its size.

    Parameters
    ----------
    inside : CSR bool matrix of shape (tokens, concepts)
        In-concept tokens.
    offsets : int64 array of shape (samples + 1,)
    present : bool array of shape (samples, concepts)

    Returns
    -------
    float64 array of shape (samples, concepts)
        NaN where the concept is absent, or no token of the sample carries it.
    """
    n = len(offsets) - 1
    owner = sp.csr_matrix(
        (np.ones(int(offsets[-1]), dtype=np.int64), np.arange(offsets[-1]), offsets), shape=(n, len(inside.indptr) - 1)
    )
    counts = (owner @ inside.astype(np.int64)).toarray()
    shares = counts / np.maximum(np.diff(offsets), 1)[:, None]
    return np.where(present & (counts > 0), shares, np.nan)


def fifths(
    values: Float[np.ndarray, " n"] | Int[np.ndarray, " n"], bins: int = FIFTHS
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Sort numbers into bins of about equally many.

    Parameters
    ----------
    values : array of shape (n,)
    bins : int
        Bins that would have the same bounds are one, so that there may be fewer.

    Returns
    -------
    place : int64 array of shape (n,)
        Bin of each number.
    low, high : float64 array of shape (bins,)
        Smallest and largest number of each bin.
    """
    if not len(values):
        nothing = np.empty(0)
        return np.empty(0, dtype=np.int64), nothing, nothing
    # upper bounds are numbers that occur, so that no bin is empty
    high = np.unique(np.quantile(values, np.arange(1, bins + 1) / bins, method="inverted_cdf"))
    place = np.searchsorted(high, values)
    low = np.full(len(high), np.inf)
    np.minimum.at(low, place, values)
    return place, low, high.astype(np.float64)


def recall_by_size(sizes: Float[np.ndarray, "n c"], fired: Bool[np.ndarray, "n c"]) -> Mapping[str, Any]:
    """Recall of pairs of a sample and a concept that it holds, by the concept's size in it.

    Parameters
    ----------
    sizes : float64 array of shape (samples, concepts)
        As of `token_shares`; NaN entries do not count.
    fired : bool array of shape (samples, concepts)
        Whether the concept was detected.

    Returns
    -------
    mapping
        Columns ``low, high, n, recall``.
    """
    held = ~np.isnan(sizes)
    place, low, high = fifths(sizes[held])
    n = np.bincount(place, minlength=len(low))
    hits = np.bincount(place, weights=fired[held], minlength=len(low))
    return {"low": low, "high": high, "n": n, "recall": hits / n}


def rates_by_length(
    lengths: Int[np.ndarray, " n"], fired: Bool[np.ndarray, "n c"], present: Bool[np.ndarray, "n c"]
) -> Mapping[str, Any]:
    """Recall and false-positive rate over all pairs of a sample and a concept, by the sample's number of tokens.

    Parameters
    ----------
    lengths : int64 array of shape (samples,)
    fired, present : bool array of shape (samples, concepts)

    Returns
    -------
    mapping
        Columns ``low, high, n, recall, fpr``; ``n`` counts samples. NaN without positive or without negative pairs.
    """
    place, low, high = fifths(lengths)

    def summed(pairs: Bool[np.ndarray, "n c"]) -> Float[np.ndarray, " bins"]:
        return np.bincount(place, weights=pairs.sum(axis=1), minlength=len(low))

    positives, negatives = summed(present), summed(~present)
    return {
        "low": low,
        "high": high,
        "n": np.bincount(place, minlength=len(low)),
        "recall": np.where(positives > 0, ratio(summed(fired & present), positives), np.nan),
        "fpr": np.where(negatives > 0, ratio(summed(fired & ~present), negatives), np.nan),
    }


def median_size(sizes: Float[np.ndarray, "n c"]) -> Float[np.ndarray, " c"]:
    """Median of each column's numbers; NaN without any."""
    held = sizes.copy()
    none = np.isnan(held).all(axis=0)
    held[:, none] = 0.0
    return np.where(none, np.nan, np.nanmedian(held, axis=0)) if len(held) else np.full(sizes.shape[1], np.nan)
