"""Candidate thresholds: exact quantiles of the scores that carry a concept (METHOD section 5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int, Integer

from superactivators.errors import StudyError

PAPER_DELTAS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
DELTAS = (0.005, 0.01, *PAPER_DELTAS)
"""Default sparsity levels: the paper's grid and two smaller ones."""

SNAP = 1e-6


def check_deltas(deltas: object) -> tuple[float, ...]:
    """Return sparsity levels as an ascending tuple; raises ``StudyError`` unless they are distinct and in (0, 1)."""
    try:
        levels = tuple(sorted(float(delta) for delta in deltas))  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        levels = ()
    if not levels or len(set(levels)) != len(levels) or not all(0 < level < 1 for level in levels):
        raise StudyError(f"deltas must be distinct numbers between 0 and 1, at least one; got {deltas!r}")
    return levels


def level_ranks(counts: Integer[np.ndarray, "*rest"], deltas: tuple[float, ...]) -> Float[np.ndarray, "levels *rest"]:
    """Ranks (n - 1)(1 - delta), delta on the first axis; near-integers are snapped, so that ties stay ties."""
    ranks = np.multiply.outer(1 - np.array(deltas), np.maximum(counts.astype(np.int64), 1) - 1)
    nearest = np.rint(ranks)
    return np.asarray(np.where(np.abs(ranks - nearest) <= SNAP, nearest, ranks))


def compact(weights: Integer[np.ndarray, "r n"], most_repeated: int = 1) -> Integer[np.ndarray, "n r"]:
    """Turn weights so that resamples lie side by side, in the smallest unsigned type that holds every sum of theirs.

    Parameters
    ----------
    weights : integer array of shape (resamples, samples)
    most_repeated : int
        How often a sample may count at most in one sum.
    """
    most = int(weights.sum(axis=1, dtype=np.int64).max(initial=0)) * most_repeated
    return np.ascontiguousarray(weights.T, dtype=np.uint16 if most < 2**16 else np.uint32)


def running_weights(
    weights: Integer[np.ndarray, "n r"], owners: Integer[np.ndarray, " m"]
) -> Integer[np.ndarray, "m_plus_1 r"]:
    """Cumulate the weights of a sequence of samples; row ``k`` sums the first ``k`` of them, for all resamples.

    Sums wrap around in the type of ``weights``: the difference of two rows is right as long as it fits in the type.
    """
    n, n_resamples = len(owners), weights.shape[1]
    # Blocks of sqrt(n) rows are summed side by side, then their totals: few steps, each over many numbers.
    block = max(1, math.isqrt(n))
    n_blocks = -(-n // block)
    running = np.zeros((n_blocks * block + 1, n_resamples), dtype=weights.dtype)
    np.take(weights, owners, axis=0, out=running[1 : n + 1], mode="clip")
    blocks = running[1:].reshape(n_blocks, block, n_resamples)
    for row in range(1, block):
        blocks[:, row] += blocks[:, row - 1]
    for number in range(1, n_blocks):
        blocks[number] += blocks[number - 1, -1]
    return running[: n + 1]


@final
@dataclass(frozen=True, eq=False)
class Tail:
    """Scores that carry each concept on the calibration split, sorted: D_in of METHOD section 1.

    Attributes
    ----------
    values : float64 array of shape (pairs,)
        Ascending within each concept.
    owners : int64 array of shape (pairs,)
        Which sample of the split each comes from.
    bounds : int64 array of shape (concepts + 1,)
        Concept ``c`` owns ``values[bounds[c]:bounds[c + 1]]``.
    """

    values: Float[np.ndarray, " pairs"]
    owners: Int[np.ndarray, " pairs"]
    bounds: Int[np.ndarray, " c_plus_1"]

    @staticmethod
    def of_tokens(
        scores: Float[np.ndarray, "tokens c"], labels: sp.csr_matrix, owners: Int[np.ndarray, " tokens"]
    ) -> Tail:
        """Collect the activations of in-concept tokens (the SuperActivators' thresholds)."""
        pairs = labels.tocoo()
        return Tail.of_pairs(scores[pairs.row, pairs.col], owners[pairs.row], pairs.col, scores.shape[1])

    @staticmethod
    def of_samples(scores: Float[np.ndarray, "n c"], labels: Bool[np.ndarray, "n c"]) -> Tail:
        """Collect the pooled scores of positive samples (the baselines' thresholds)."""
        row, column = np.nonzero(labels)
        return Tail.of_pairs(scores[row, column], row, column, scores.shape[1])

    @staticmethod
    def of_pairs(
        values: Float[np.ndarray, " pairs"],
        owners: Integer[np.ndarray, " pairs"],
        concepts: Integer[np.ndarray, " pairs"],
        n_concepts: int,
    ) -> Tail:
        """Collect scores of which each belongs to one sample and one concept."""
        order = np.lexsort((values, concepts))
        bounds = np.searchsorted(concepts[order], np.arange(n_concepts + 1))
        return Tail(values[order].astype(np.float64), owners[order].astype(np.int64), bounds.astype(np.int64))

    @property
    def most_repeated(self) -> int:
        """Most scores that one sample gives (over all concepts)."""
        return int(np.bincount(self.owners).max(initial=1))

    @property
    def counts(self) -> Int[np.ndarray, " c"]:
        """Number of scores of each concept."""
        return np.diff(self.bounds)

    def of_concept(self, concept: int) -> Tail:
        """Keep one concept's scores."""
        part = slice(self.bounds[concept], self.bounds[concept + 1])
        values = self.values[part]
        return Tail(values, self.owners[part], np.array([0, len(values)], dtype=np.int64))

    def quantiles(self, deltas: tuple[float, ...]) -> Float[np.ndarray, "levels c"]:
        """Thresholds: the linearly interpolated (1 - delta) quantile of every concept.

        Returns
        -------
        float64 array of shape (deltas, concepts)
            Infinite (never reached) where a concept has no score.
        """
        ranks = level_ranks(self.counts, deltas)
        low = np.floor(ranks).astype(np.int64)
        high = np.minimum(low + 1, np.maximum(self.counts - 1, 0))
        return self._between(self.bounds[:-1] + low, self.bounds[:-1] + high, ranks - low, self.counts > 0)

    def resampled(
        self, weights: Integer[np.ndarray, "resamples n"], deltas: tuple[float, ...]
    ) -> Float[np.ndarray, "resamples levels c"]:
        """Thresholds of many resamples of the samples: sample ``i`` counts ``weights[r, i]`` times in resample ``r``.

        Equal to `quantiles` of the tail in which each score is repeated as often as its sample.
        """
        return np.moveaxis(self.resampled_side_by_side(compact(weights, self.most_repeated), deltas), -1, 0)

    def resampled_side_by_side(
        self, drawn: Integer[np.ndarray, "n resamples"], deltas: tuple[float, ...]
    ) -> Float[np.ndarray, "levels c resamples"]:
        """`resampled` with resamples on the last axis; ``drawn`` comes from `compact` with `most_repeated`."""
        running = running_weights(drawn, self.owners)
        base = running[self.bounds[:-1]]
        counts = running[self.bounds[1:]] - base
        ranks = level_ranks(counts, deltas)
        low = np.floor(ranks).astype(drawn.dtype)
        high = np.minimum(low + 1, np.maximum(counts, 1) - 1).astype(drawn.dtype)
        places = self._places(running, base, np.concatenate([low, high]))
        return self._between(places[: len(deltas)], places[len(deltas) :], ranks - low, counts > 0)

    def _places(
        self,
        running: Integer[np.ndarray, "pairs_plus_1 r"],
        base: Integer[np.ndarray, "c r"],
        ranks: Integer[np.ndarray, "ranks c r"],
    ) -> Int[np.ndarray, "ranks c r"]:
        """Positions of the scores of given ranks in resamples: bisection for all of them at once."""
        n_resamples = running.shape[1]
        # Half as wide as the usual positions, where they fit: the bisection moves little else.
        kind = np.int32 if running.size < 2**31 else np.int64
        flat, column = running.ravel(), np.arange(n_resamples, dtype=kind)
        bounds = self.bounds.astype(kind)[:, None]
        low = np.broadcast_to(bounds[:-1], ranks.shape).copy()
        high = np.broadcast_to(np.maximum(bounds[1:] - 1, bounds[:-1]), ranks.shape).copy()
        for _ in range(int(self.counts.max(initial=0)).bit_length()):
            middle = (low + high) >> 1
            reached = np.take(flat, (middle + 1) * n_resamples + column, mode="clip")
            further = (reached - base <= ranks) & (middle < high)
            np.copyto(low, middle + 1, where=further)
            np.copyto(high, middle, where=~further)
        return low.astype(np.int64)

    def _between(
        self, low: np.ndarray, high: np.ndarray, share: np.ndarray, filled: np.ndarray
    ) -> Float[np.ndarray, "..."]:
        if not len(self.values):
            return np.full(low.shape, np.inf)
        last = len(self.values) - 1
        below, above = self.values[np.minimum(low, last)], self.values[np.minimum(high, last)]
        # Samples too short for a pooling score minus infinity; between it and a number there is no middle.
        step = np.subtract(above, below, out=np.zeros_like(above), where=np.isfinite(below))
        between = np.where(np.isfinite(below) | (share == 0), below + share * step, above)
        return np.asarray(np.where(filled, between, np.inf))
