"""How few of a concept's tokens are SuperActivators: shares by sample, and their distribution."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

GRID = tuple(round(0.05 * step, 2) for step in range(21))
"""Shares at which the distribution is read."""


def shares(
    fired: Bool[np.ndarray, "tokens c"], inside: Bool[np.ndarray, "tokens c"], offsets: Int[np.ndarray, " n_plus_1"]
) -> Float[np.ndarray, "n c"]:
    """Share of each sample's in-concept tokens that are SuperActivators.

    Parameters
    ----------
    fired : bool array of shape (tokens, concepts)
        Activation at or above the concept's threshold.
    inside : bool array of shape (tokens, concepts)
        In-concept tokens.
    offsets : int64 array of shape (samples + 1,)

    Returns
    -------
    float64 array of shape (samples, concepts)
        NaN where a sample has no in-concept token.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(_counts(fired & inside, offsets) / _counts(inside, offsets))


def cumulative(values: Float[np.ndarray, "n c"], grid: tuple[float, ...] = GRID) -> Float[np.ndarray, "g c"]:
    """Share of each column's numbers that are at most each grid value (METHOD section 8).

    Parameters
    ----------
    values : float array of shape (samples, concepts)
        NaN entries do not count.
    grid : ascending numbers

    Returns
    -------
    float64 array of shape (grid, concepts)
        NaN for a column without any number.
    """
    counts = np.stack([(values <= edge).sum(axis=0) for edge in grid])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(counts / (~np.isnan(values)).sum(axis=0))


def _counts(members: Bool[np.ndarray, "tokens c"], offsets: Int[np.ndarray, " n_plus_1"]) -> Int[np.ndarray, "n c"]:
    """Count the members of each column in each sample, in whole numbers."""
    running = np.zeros((len(members) + 1, members.shape[1]), dtype=np.int64)
    np.cumsum(members, axis=0, out=running[1:])
    return np.asarray(running[offsets[1:]] - running[offsets[:-1]])
