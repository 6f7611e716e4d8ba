"""Ragged rows: the tokens of all samples laid end to end, with ``offsets`` telling where each sample begins.

``offsets`` has ``n + 1`` entries; sample ``i`` owns the rows ``offsets[i]:offsets[i + 1]`` (the CSR convention).
Nothing is padded, except that order statistics work on runs of samples of similar length. Every function is a segment
reduction without a Python loop over samples or tokens.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int

from superactivators.errors import DataError, StudyError

PADDED = 2**22
"""Most numbers in a block of padded samples (a longer sample is a block of its own)."""

SNAP = 1e-6
"""Shares of a sample this close above a whole number of rows count as that number: .1 of 30 rows are 3."""


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


def _padded(
    values: Float[np.ndarray, "rows c"], offsets: Int[np.ndarray, " n_plus_1"], samples: Int[np.ndarray, " k"]
) -> Iterator[tuple[Int[np.ndarray, " m"], Float[np.ndarray, "m longest c"]]]:
    """Yield the given samples (all with rows) in blocks of similar length, filled up with minus infinity."""
    lengths, columns = np.diff(offsets)[samples], max(1, values.shape[1])
    if len(samples) == len(offsets) - 1 and len(set(lengths.tolist())) == 1:
        longest = int(lengths[0])
        whole, step = values.reshape(-1, longest, values.shape[1]), max(1, PADDED // (longest * columns))
        for start in range(0, len(samples), step):
            yield samples[start : start + step], whole[start : start + step]
        return
    order = np.argsort(lengths, kind="stable")
    # Lengths within a block differ by less than a factor of the square root of two.
    classes = np.floor(2 * np.log2(lengths[order]))
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(classes)) + 1, [len(order)]]).tolist() if len(order) else [0]
    for begin, end in itertools.pairwise(bounds):
        longest = int(lengths[order[end - 1]])
        step = max(1, PADDED // (longest * columns))
        for start in range(begin, end, step):
            chosen = order[start : min(start + step, end)]
            places = np.arange(longest)
            held = places < lengths[chosen, None]
            block = values[np.where(held, offsets[samples[chosen], None] + places, 0)]
            block[~held] = -np.inf
            yield samples[chosen], block


def segment_kth(
    values: Float[np.ndarray, "rows c"], offsets: Int[np.ndarray, " n_plus_1"], k: int
) -> Float[np.ndarray, "n c"]:
    """Give the k-th highest of each sample's rows; minus infinity for a sample with fewer rows.

    Parameters
    ----------
    values : float array of shape (rows, columns)
    offsets : int array of shape (samples + 1,)
    k : int
        1 is the maximum. Equal values count one by one.

    Returns
    -------
    float array of shape (samples, columns)
        At least ``k`` rows of a sample reach a threshold exactly if this value does.

    Raises
    ------
    StudyError
        If ``k`` is less than 1.
    """
    if k < 1:
        raise StudyError(f"the k-th highest row needs k of at least 1; got {k}")
    if k == 1:
        return segment_max(values, offsets)
    result = np.full((len(offsets) - 1, values.shape[1]), -np.inf, dtype=values.dtype)
    for chosen, block in _padded(values, offsets, np.flatnonzero(np.diff(offsets) >= k)):
        place = block.shape[1] - k
        result[chosen] = np.partition(block, place, axis=1)[:, place]
    return result


def _segment_top(
    values: Float[np.ndarray, "rows c"], offsets: Int[np.ndarray, " n_plus_1"], kept: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "n c"]:
    """Mean of the ``kept`` highest rows of each sample, summed in float64 from the highest down."""
    result = np.full((len(offsets) - 1, values.shape[1]), -np.inf, dtype=values.dtype)
    for chosen, block in _padded(values, offsets, np.flatnonzero(np.diff(offsets))):
        numbers = kept[chosen]
        rest = block.shape[1] - int(numbers.max())
        highest = np.partition(block, rest, axis=1)[:, rest:] if rest else block
        sums = np.cumsum(np.sort(highest, axis=1)[:, ::-1], axis=1, dtype=np.float64)
        result[chosen] = sums[np.arange(len(chosen)), numbers - 1] / numbers[:, None]
    return result


def segment_top_mean(
    values: Float[np.ndarray, "rows c"], offsets: Int[np.ndarray, " n_plus_1"], k: int
) -> Float[np.ndarray, "n c"]:
    """Mean of the k highest of each sample's rows, or of all if there are fewer; minus infinity without rows.

    Parameters
    ----------
    values : float array of shape (rows, columns)
    offsets : int array of shape (samples + 1,)
    k : int
        At least 1, else ``StudyError``.

    Returns
    -------
    float array of shape (samples, columns)
        Summed in float64.
    """
    if k < 1:
        raise StudyError(f"a mean of the k highest rows needs k of at least 1; got {k}")
    return _segment_top(values, offsets, np.minimum(np.diff(offsets), k))


def segment_top_share_mean(
    values: Float[np.ndarray, "rows c"], offsets: Int[np.ndarray, " n_plus_1"], share: float
) -> Float[np.ndarray, "n c"]:
    """Mean of the highest ``ceil(share * rows)`` of each sample's rows; minus infinity without rows.

    Parameters
    ----------
    values : float array of shape (rows, columns)
    offsets : int array of shape (samples + 1,)
    share : float
        In (0, 1], else ``StudyError``. A product within 1e-6 above a whole number counts as that number.

    Returns
    -------
    float array of shape (samples, columns)
        Summed in float64.
    """
    if not 0 < share <= 1:
        raise StudyError(f"a share of rows must be above 0 and at most 1; got {share}")
    lengths = np.diff(offsets)
    return _segment_top(values, offsets, np.maximum(np.ceil(share * lengths - SNAP), 1).astype(np.int64))


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
