"""Candidate thresholds: exact quantiles of the scores that carry a concept (METHOD section 5)."""

from __future__ import annotations

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


def _ranks(counts: Integer[np.ndarray, "..."], deltas: tuple[float, ...]) -> Float[np.ndarray, "..."]:
    """Ranks (n - 1)(1 - delta), delta on the last but one axis; near-integers are snapped, so that ties stay ties."""
    ranks = (np.maximum(counts, 1)[..., None, :] - 1) * (1 - np.array(deltas))[:, None]
    nearest = np.rint(ranks)
    return np.asarray(np.where(np.abs(ranks - nearest) <= SNAP, nearest, ranks))


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
        return Tail._of_pairs(scores[pairs.row, pairs.col], owners[pairs.row], pairs.col, scores.shape[1])

    @staticmethod
    def of_samples(scores: Float[np.ndarray, "n c"], labels: Bool[np.ndarray, "n c"]) -> Tail:
        """Collect the pooled scores of positive samples (the baselines' thresholds)."""
        row, column = np.nonzero(labels)
        return Tail._of_pairs(scores[row, column], row, column, scores.shape[1])

    @staticmethod
    def _of_pairs(values: np.ndarray, owners: np.ndarray, concepts: np.ndarray, n_concepts: int) -> Tail:
        order = np.lexsort((values, concepts))
        bounds = np.searchsorted(concepts[order], np.arange(n_concepts + 1))
        return Tail(values[order].astype(np.float64), owners[order].astype(np.int64), bounds.astype(np.int64))

    @property
    def counts(self) -> Int[np.ndarray, " c"]:
        """Number of scores of each concept."""
        return np.diff(self.bounds)

    def quantiles(self, deltas: tuple[float, ...]) -> Float[np.ndarray, "levels c"]:
        """Thresholds: the linearly interpolated (1 - delta) quantile of every concept.

        Returns
        -------
        float64 array of shape (deltas, concepts)
            Infinite (never reached) where a concept has no score.
        """
        ranks = _ranks(self.counts, deltas)
        low = np.floor(ranks).astype(np.int64)
        high = np.minimum(low + 1, np.maximum(self.counts - 1, 0))
        return self._between(self.bounds[:-1] + low, self.bounds[:-1] + high, ranks - low, self.counts > 0)

    def resampled(
        self, weights: Integer[np.ndarray, "resamples n"], deltas: tuple[float, ...]
    ) -> Float[np.ndarray, "resamples levels c"]:
        """Thresholds of many resamples of the samples: sample ``i`` counts ``weights[r, i]`` times in resample ``r``.

        Equal to `quantiles` of the tail in which each score is repeated as often as its sample.
        """
        n_resamples, n_pairs = len(weights), len(self.values)
        running = np.zeros((n_resamples, n_pairs + 1), dtype=np.int64)
        np.cumsum(weights[:, self.owners], axis=1, out=running[:, 1:])
        base, counts = running[:, self.bounds[:-1]], np.diff(running[:, self.bounds], axis=1)
        ranks = _ranks(counts, deltas)
        low = np.floor(ranks).astype(np.int64)
        high = np.minimum(low + 1, np.maximum(counts - 1, 0)[:, None, :])
        # All rows become one ascending sequence, so that a single search finds every rank of every resample.
        stride = int(running[:, -1].max(initial=0)) + 1
        shift = np.arange(n_resamples, dtype=np.int64) * stride
        sequence = (running[:, 1:] + shift[:, None]).ravel()

        def place(rank: Int[np.ndarray, "resamples levels c"]) -> Int[np.ndarray, "resamples levels c"]:
            wanted = rank + base[:, None, :] + shift[:, None, None]
            found = np.searchsorted(sequence, wanted, side="right")
            return np.asarray(found - (np.arange(n_resamples) * n_pairs)[:, None, None])

        return self._between(place(low), place(high), ranks - low, (counts > 0)[:, None, :])

    def _between(
        self, low: np.ndarray, high: np.ndarray, share: np.ndarray, filled: np.ndarray
    ) -> Float[np.ndarray, "..."]:
        if not len(self.values):
            return np.full(low.shape, np.inf)
        last = len(self.values) - 1
        below, above = self.values[np.minimum(low, last)], self.values[np.minimum(high, last)]
        return np.asarray(np.where(filled, below + share * (above - below), np.inf))
