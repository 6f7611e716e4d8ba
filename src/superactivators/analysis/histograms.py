"""Histograms of activations inside and outside each concept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

BINS = 60


@final
@dataclass(frozen=True, eq=False)
class Histograms:
    """Counts of every concept, in bins of equal width between its own ends.

    Attributes
    ----------
    low, high : float64 array of shape (concepts,)
        Smallest and largest activation that counts; NaN where none does.
    inside, outside : int64 array of shape (concepts, bins)
        Tokens of D_in and D_out. Bins hold their lower edge, the last one both edges.
    """

    low: Float[np.ndarray, " c"]
    high: Float[np.ndarray, " c"]
    inside: Int[np.ndarray, "c bins"]
    outside: Int[np.ndarray, "c bins"]


def histograms(
    activations: Float[np.ndarray, "tokens c"],
    inside: Bool[np.ndarray, "tokens c"],
    outside: Bool[np.ndarray, "tokens c"],
    bins: int = BINS,
) -> Histograms:
    """Count the tokens of D_in and D_out of all concepts of a layer (METHOD section 8).

    Parameters
    ----------
    activations : float array of shape (tokens, concepts)
    inside, outside : bool array of shape (tokens, concepts)
        In-concept tokens (D_in), and tokens of samples without the concept (D_out). Others do not count.
    bins : int

    Returns
    -------
    Histograms
        Every token is counted; nothing is cut off at the ends.
    """
    wide = activations.astype(np.float64)
    counted = inside | outside
    low = np.where(counted, wide, np.inf).min(axis=0, initial=np.inf)
    high = np.where(counted, wide, -np.inf).max(axis=0, initial=-np.inf)
    width = np.where(high > low, high - low, 1.0)
    counts = []
    for part in (inside, outside):
        row, column = np.nonzero(part)
        place = np.floor((wide[row, column] - low[column]) / width[column] * bins).astype(np.int64)
        slot = column * bins + np.minimum(place, bins - 1)
        counts.append(np.bincount(slot, minlength=bins * wide.shape[1]).reshape(wide.shape[1], bins))
    some = counted.any(axis=0)
    return Histograms(np.where(some, low, np.nan), np.where(some, high, np.nan), *counts)
