"""Ragged rows: the tokens of all samples laid end to end, with ``offsets`` telling where each sample begins.

``offsets`` has ``n + 1`` entries; sample ``i`` owns the rows ``offsets[i]:offsets[i + 1]`` (the CSR convention).
Nothing is padded. Every function is a segment reduction without a Python loop over samples or tokens.
"""

from __future__ import annotations

import hashlib

import numpy as np
from jaxtyping import Bool, Float, Int

from superactivators.errors import DataError


def check_offsets(offsets: Int[np.ndarray, " n_plus_1"], n_rows: int) -> Int[np.ndarray, " n_plus_1"]:
    """Return ``offsets`` as int64 after checking that they describe ``n_rows`` rows.

    Raises
    ------
    DataError
        If they do not start at 0, do not end at ``n_rows`` or go down anywhere.
    """
    offsets = np.asarray(offsets, dtype=np.int64)
    if offsets.ndim != 1 or len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != n_rows:
        raise DataError(
            f"offsets must be one-dimensional, start at 0 and end at the number of rows ({n_rows}); "
            f"got shape {offsets.shape}" + (f" from {offsets.flat[0]} to {offsets.flat[-1]}" if offsets.size else "")
        )
    if (np.diff(offsets) < 0).any():
        where = int(np.flatnonzero(np.diff(offsets) < 0)[0])
        raise DataError(f"offsets must never go down; they do after sample {where}")
    return offsets


def segment_ids(offsets: Int[np.ndarray, " n_plus_1"]) -> Int[np.ndarray, " rows"]:
    """Sample number of every row."""
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets))


def rows_of(offsets: Int[np.ndarray, " n_plus_1"], samples: Int[np.ndarray, " k"]) -> Int[np.ndarray, " rows"]:
    """Row numbers of the given samples, in the given order.

    Examples
    --------
    >>> rows_of(np.array([0, 2, 5]), np.array([1, 0]))
    array([2, 3, 4, 0, 1])
    """
    lengths = np.diff(offsets)[samples]
    starts = np.repeat(offsets[samples] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return np.asarray(starts + np.arange(lengths.sum()), dtype=np.int64)


def offsets_of(lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n_plus_1"]:
    """Offsets of samples with the given numbers of rows."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def cut_into_runs(offsets: Int[np.ndarray, " n_plus_1"], rows: int) -> Int[np.ndarray, " k_plus_1"]:
    """Cut samples into runs of at most ``rows`` rows each (a longer sample is a run of its own)."""
    bounds = [0]
    while bounds[-1] < len(offsets) - 1:
        limit = int(np.searchsorted(offsets, offsets[bounds[-1]] + rows, side="right")) - 1
        bounds.append(max(limit, bounds[-1] + 1))
    return np.array(bounds, dtype=np.int64)


def _reduce(
    ufunc: np.ufunc, values: Float[np.ndarray, "rows c"], offsets: Int[np.ndarray, " n_plus_1"], empty: float
) -> Float[np.ndarray, "n c"]:
    result = np.full((len(offsets) - 1, values.shape[1]), empty, dtype=values.dtype)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        result[filled] = ufunc.reduceat(values, offsets[filled], axis=0)
    return result


def segment_max(values: Float[np.ndarray, "rows c"], offsets: Int[np.ndarray, " n_plus_1"]) -> Float[np.ndarray, "n c"]:
    """Maximum over each sample's rows; minus infinity for a sample without rows."""
    return _reduce(np.maximum, values, offsets, -np.inf)


def segment_mean(
    values: Float[np.ndarray, "rows c"], offsets: Int[np.ndarray, " n_plus_1"]
) -> Float[np.ndarray, "n c"]:
    """Mean over each sample's rows, summed in float64; minus infinity for a sample without rows."""
    lengths = np.diff(offsets)[:, None]
    sums = _reduce(np.add, values.astype(np.float64), offsets, 0.0)
    means = np.divide(sums, lengths, out=np.full_like(sums, -np.inf), where=lengths > 0)
    return np.asarray(means, dtype=values.dtype)


def segment_any(values: Bool[np.ndarray, "rows c"], offsets: Int[np.ndarray, " n_plus_1"]) -> Bool[np.ndarray, "n c"]:
    """Whether any row of each sample is true; false for a sample without rows."""
    result = np.zeros((len(offsets) - 1, values.shape[1]), dtype=bool)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        result[filled] = np.logical_or.reduceat(values, offsets[filled], axis=0)
    return result


def last_rows(offsets: Int[np.ndarray, " n_plus_1"]) -> Int[np.ndarray, " n"]:
    """Row number of each sample's last row; -1 for a sample without rows."""
    return np.where(np.diff(offsets) > 0, offsets[1:] - 1, -1)


def random_rows(offsets: Int[np.ndarray, " n_plus_1"], ids: list[str], seed: int) -> Int[np.ndarray, " n"]:
    """One uniformly drawn row of each sample; -1 for a sample without rows.

    The draw depends on ``seed`` and on the sample's own id only, so that neither the order of the samples nor the
    way they are batched or sharded changes it.
    """
    lengths = np.diff(offsets)
    digests = b"".join(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest() for name in ids)
    draws = (np.frombuffer(digests, dtype="<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.where(lengths > 0, offsets[:-1] + np.minimum((draws * lengths).astype(np.int64), lengths - 1), -1)
