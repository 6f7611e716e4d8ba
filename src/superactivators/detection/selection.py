"""The choice of sparsity level and candidate for each concept, by F1 on the calibration split (METHOD section 5).

A *candidate* is one way to score a sample: a site, or a site with a variant (one of several clusters, a number of
tokens). Candidates are ordered from shallow to deep, variants within their site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from superactivators.detection.metrics import f1_of, fire_counts
from superactivators.detection.tail import Tail, running_weights

Rule: TypeAlias = Literal["quantile", "free", "fixed"]
"""Where thresholds come from: quantiles of scores, every positive sample's score, or nowhere (given)."""


@final
@dataclass(frozen=True, eq=False)
class Choice:
    """One (candidate, level) for each concept.

    Attributes
    ----------
    candidate, level : int64 arrays of shape (..., concepts)
        Positions among the candidates and among the sparsity levels.
    """

    candidate: Int[np.ndarray, "*r c"]
    level: Int[np.ndarray, "*r c"]


def choose(f1: Float[np.ndarray, "*r candidates levels c"]) -> Choice:
    """Take the best F1 of each concept; ties go to the smallest level, then to the first candidate.

    Parameters
    ----------
    f1 : float array of shape (..., candidates, levels, concepts)
        Levels ascending, candidates from shallow to deep.
    """
    n_candidates, n_levels, n_concepts = f1.shape[-3:]
    flat = np.swapaxes(f1, -3, -2).reshape(*f1.shape[:-3], n_levels * n_candidates, n_concepts)
    best = flat.argmax(axis=-2)
    return Choice(candidate=best % n_candidates, level=best // n_candidates)


@final
class Ranked:
    """Samples of a split sorted by score within each concept, for weighted counts above any threshold.

    Parameters
    ----------
    scores : float array of shape (n, concepts)
    labels : bool array of shape (n, concepts)
    """

    def __init__(self, scores: Float[np.ndarray, "n c"], labels: Bool[np.ndarray, "n c"]) -> None:
        n, n_concepts = scores.shape
        order = scores.argsort(axis=0, kind="stable")
        self._owners = order.T.ravel()
        # Complex numbers sort by real, then by imaginary part: one search serves all concepts.
        self._keys = np.empty(scores.size, dtype=np.complex128)
        self._keys.real = np.repeat(np.arange(n_concepts), n)
        self._keys.imag = np.take_along_axis(scores, order, axis=0).T.ravel()
        self._ends = (np.arange(n_concepts) + 1) * n
        positive = np.take_along_axis(labels, order, axis=0).T.ravel()
        self._positives = np.flatnonzero(positive)
        self._positives_before = np.concatenate([[0], np.cumsum(positive)])

    def counts(
        self, drawn: Integer[np.ndarray, "n r"], thresholds: Float[np.ndarray, "levels c r"]
    ) -> tuple[Integer[np.ndarray, "levels c r"], Integer[np.ndarray, "levels c r"]]:
        """Weighted true positives and detections of every level, concept and resample; ``drawn`` as from `compact`."""
        wanted = np.empty(thresholds.shape, dtype=np.complex128)
        wanted.real = np.arange(len(self._ends))[:, None]
        wanted.imag = thresholds
        first = np.searchsorted(self._keys, wanted.ravel(), side="left").reshape(thresholds.shape)
        before = self._positives_before
        hits = self._above(running_weights(drawn, self._owners[self._positives]), before[self._ends], before[first])
        return hits, self._above(running_weights(drawn, self._owners), self._ends, first)

    @staticmethod
    def _above(
        running: Integer[np.ndarray, "m r"], ends: Int[np.ndarray, " c"], first: Int[np.ndarray, "levels c r"]
    ) -> Integer[np.ndarray, "levels c r"]:
        below = np.take(running.ravel(), first * running.shape[1] + np.arange(running.shape[1]), mode="clip")
        return np.asarray(running[ends] - below)

    def best(
        self, drawn: Integer[np.ndarray, "n r"]
    ) -> tuple[Float[np.ndarray, "c r"], Float[np.ndarray, "c r"], Float[np.ndarray, "c r"]]:
        """Best of all thresholds that are scores of drawn positive samples; ties go to the highest.

        Returns
        -------
        thresholds, f1, share : float64 arrays of shape (concepts, resamples)
            Share: of the drawn positive samples, those at or above the threshold. Without any the threshold is
            infinite, F1 and share are 0.
        """
        n_concepts, n_resamples = len(self._ends), drawn.shape[1]
        thresholds = np.full((n_concepts, n_resamples), np.inf)
        f1, share = np.zeros_like(thresholds), np.zeros_like(thresholds)
        concept = self._keys.real[self._positives].astype(np.int64)
        kept, starts = np.unique(concept, return_index=True)
        if not len(kept):
            return thresholds, f1, share
        first = np.searchsorted(self._keys, self._keys[self._positives], side="left")
        before, ends = self._positives_before, self._ends[concept]
        running = running_weights(drawn, self._owners[self._positives])
        hits = running[before[ends]] - running[before[first]]
        positives = running[before[ends]] - running[starts][np.searchsorted(kept, concept)]
        running = running_weights(drawn, self._owners)
        fired = running[ends] - running[first]
        # A score that was not drawn never wins: the next drawn positive score above it is at least as good.
        quality = f1_of(hits, fired, positives)
        f1[kept] = np.maximum.reduceat(quality, starts)
        place = np.where(quality == f1[concept], np.arange(len(concept))[:, None], -1)
        winner = np.maximum.reduceat(place, starts)
        columns = np.arange(n_resamples)
        found = f1[kept] > 0
        thresholds[kept] = np.where(found, self._keys.imag[self._positives][winner], np.inf)
        share[kept] = np.where(found, hits[winner, columns] / np.maximum(positives[winner, columns], 1), 0.0)
        return thresholds, f1, share


@final
@dataclass(frozen=True, eq=False)
class Calibration:
    """Candidate thresholds of one kind and method on the calibration split, and the choice among them.

    Attributes
    ----------
    rule : {"quantile", "free", "fixed"}
        Where thresholds come from: `fit`, `fit_free` or `fixed`.
    tails : list of Tail
        One for each candidate; empty unless the rule is ``quantile``.
    thresholds, f1 : float64 arrays of shape (candidates, levels, concepts)
        Every candidate threshold and its F1 on cal. One level only unless the rule is ``quantile``. F1 is NaN for
        given thresholds without cal scores.
    deltas : float64 array of shape (candidates, levels, concepts)
        Sparsity levels; for free thresholds the share of positive samples at or above; NaN for given ones.
    counts : int64 array of shape (candidates, concepts)
        How many scores each threshold was taken from.
    choice : Choice
        Best candidate and level together.
    best_level : int64 array of shape (candidates, concepts)
        Best level of each candidate.
    """

    rule: Rule
    tails: list[Tail]
    thresholds: Float[np.ndarray, "candidates levels c"]
    f1: Float[np.ndarray, "candidates levels c"]
    deltas: Float[np.ndarray, "candidates levels c"]
    counts: Int[np.ndarray, "candidates c"]
    choice: Choice
    best_level: Int[np.ndarray, "candidates c"]

    @staticmethod
    def fit(
        tails: Sequence[Tail],
        scores: Sequence[Float[np.ndarray, "n c"]],
        labels: Bool[np.ndarray, "n c"],
        deltas: tuple[float, ...],
    ) -> Calibration:
        """Fit on the calibration split, thresholds at quantiles.

        Parameters
        ----------
        tails : sequence of Tail
            One for each candidate, from shallow to deep.
        scores : sequence of float arrays of shape (n, concepts)
            Pooled scores of the cal samples of each candidate; the candidate's own column for every concept.
        labels : bool array of shape (n, concepts)
        deltas : ascending sparsity levels
        """
        thresholds = np.stack([tail.quantiles(deltas) for tail in tails])
        positives = labels.sum(axis=0)
        f1 = np.stack(
            [
                f1_of(*fire_counts(score, labels, values), positives)
                for score, values in zip(scores, thresholds, strict=True)
            ]
        )
        grid = np.broadcast_to(np.array(deltas)[:, None], thresholds.shape)
        counts = np.stack([tail.counts for tail in tails])
        return Calibration("quantile", list(tails), thresholds, f1, grid, counts, choose(f1), f1.argmax(axis=1))

    @staticmethod
    def fit_free(scores: Sequence[Float[np.ndarray, "n c"]], labels: Bool[np.ndarray, "n c"]) -> Calibration:
        """Fit on the calibration split, each threshold the positive sample's score with the best F1.

        Ties go to the highest threshold, then to the first candidate.

        Parameters
        ----------
        scores : sequence of float arrays of shape (n, concepts)
            Pooled scores of the cal samples of each candidate, from shallow to deep.
        labels : bool array of shape (n, concepts)
        """
        once = np.ones((len(labels), 1), dtype=np.uint32)
        best = [Ranked(score, labels).best(once) for score in scores]
        thresholds, f1, share = (np.stack([part[:, 0] for part in parts])[:, None] for parts in zip(*best, strict=True))
        counts = np.tile(labels.sum(axis=0, dtype=np.int64), (len(thresholds), 1))
        return Calibration("free", [], thresholds, f1, share, counts, choose(f1), np.zeros_like(counts))

    @staticmethod
    def fixed(
        threshold: float,
        concepts: int,
        scores: Float[np.ndarray, "n c"] | None = None,
        labels: Bool[np.ndarray, "n c"] | None = None,
    ) -> Calibration:
        """Take one given threshold for all concepts; nothing is chosen, and there is one candidate.

        Parameters
        ----------
        threshold : float
        concepts : int
        scores : float array of shape (n, concepts), optional
            Cal scores; without them (or without labels) F1 on cal is NaN.
        labels : bool array of shape (n, concepts), optional
        """
        thresholds = np.full((1, 1, concepts), float(threshold))
        f1 = np.full_like(thresholds, np.nan)
        if scores is not None and labels is not None:
            f1[0] = f1_of(*fire_counts(scores, labels, thresholds[0]), labels.sum(axis=0))
        nothing = np.zeros((1, concepts), dtype=np.int64)
        unknown = np.full_like(thresholds, np.nan)
        return Calibration("fixed", [], thresholds, f1, unknown, nothing, Choice(nothing[0], nothing[0]), nothing)

    def __len__(self) -> int:
        return len(self.thresholds)

    def _at_choice(self, values: Float[np.ndarray, "candidates levels c"]) -> Float[np.ndarray, " c"]:
        return np.asarray(values[self.choice.candidate, self.choice.level, np.arange(values.shape[2])])

    def _at_candidate(self, values: Float[np.ndarray, "candidates levels c"], number: int) -> Float[np.ndarray, " c"]:
        return np.asarray(values[number, self.best_level[number], np.arange(values.shape[2])])

    def chosen_thresholds(self) -> Float[np.ndarray, " c"]:
        """Threshold of every concept at its chosen candidate and level."""
        return self._at_choice(self.thresholds)

    def chosen_deltas(self) -> Float[np.ndarray, " c"]:
        """Sparsity level of every concept's chosen threshold."""
        return self._at_choice(self.deltas)

    def chosen_f1(self) -> Float[np.ndarray, " c"]:
        """Cal F1 of every concept's chosen threshold."""
        return self._at_choice(self.f1)

    def chosen_counts(self) -> Int[np.ndarray, " c"]:
        """How many scores every concept's chosen threshold was taken from."""
        return np.asarray(self.counts[self.choice.candidate, np.arange(self.counts.shape[1])])

    def candidate_thresholds(self, number: int) -> Float[np.ndarray, " c"]:
        """Threshold of every concept for one candidate, at that candidate's best level."""
        return self._at_candidate(self.thresholds, number)

    def candidate_deltas(self, number: int) -> Float[np.ndarray, " c"]:
        """Sparsity level of every concept for one candidate, at that candidate's best level."""
        return self._at_candidate(self.deltas, number)

    def chosen(self, by_candidate: Float[np.ndarray, "candidates n c"]) -> Float[np.ndarray, "n c"]:
        """Take every concept's column from its chosen candidate."""
        return np.asarray(by_candidate[self.choice.candidate, :, np.arange(by_candidate.shape[2])].T)
