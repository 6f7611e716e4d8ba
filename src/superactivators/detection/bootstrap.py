"""Resampling of samples, with the choice of threshold and candidate repeated inside (METHOD section 6).

Samples are drawn with replacement, cal and test independently of each other; the tokens of a sample stay together.
The same draws serve every method and kind, so that differences between methods are paired. What intervals are made of
the resampled values, and what they claim, is the subject of `superactivators.detection.intervals`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np
from jaxtyping import Bool, Float, Int32, Integer

from superactivators.detection.intervals import damped
from superactivators.detection.metrics import aggregate, f1_of, micro_f1
from superactivators.detection.selection import Calibration, Choice, Ranked
from superactivators.detection.tail import compact

CHUNK_BYTES = 2**25
"""Memory of the largest array of a chunk of resamples."""

MOST_TOGETHER = 256
"""Most resamples that are worked on together; more are no faster."""


@final
@dataclass(frozen=True, eq=False)
class Resamples:
    """How often each sample is drawn.

    Attributes
    ----------
    cal : int32 array of shape (resamples, cal samples)
    test : int32 array of shape (resamples, test samples)
    """

    cal: Int32[np.ndarray, "r n_cal"]
    test: Int32[np.ndarray, "r n_test"]

    @staticmethod
    def draw(n_cal: int, n_test: int, resamples: int, seed: int) -> Resamples:
        """Draw ``resamples`` times ``n`` of ``n`` samples with replacement, for both splits."""
        generator = np.random.default_rng(seed)

        def counts(n: int) -> Int32[np.ndarray, "r n"]:
            return generator.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.int32)

        return Resamples(counts(n_cal), counts(n_test))

    def __len__(self) -> int:
        return len(self.cal)

    def chunks(self, bytes_each: int) -> Iterator[slice]:
        """Slices of resamples that are worked on together, when one needs so many bytes."""
        size = min(max(CHUNK_BYTES // max(bytes_each, 1), 1), MOST_TOGETHER)
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))


@final
@dataclass(frozen=True, eq=False)
class Bootstrapped:
    """Resampled results of one kind and method.

    Attributes
    ----------
    nested : float64 array of shape (resamples, concepts)
        Test F1, with candidate, level and threshold chosen anew on each resample of cal.
    fixed : float64 array of shape (resamples, concepts)
        Test F1 with the thresholds of the study.
    positives : float64 array of shape (resamples, concepts)
        Positive test samples drawn.
    thresholds : float64 array of shape (resamples, concepts)
        Threshold at the study's own candidate and level, fitted on each resample of cal.
    nested_micro, fixed_micro : float64 arrays of shape (resamples,)
        F1 from counts summed over concepts.
    """

    nested: Float[np.ndarray, "r c"]
    fixed: Float[np.ndarray, "r c"]
    positives: Float[np.ndarray, "r c"]
    thresholds: Float[np.ndarray, "r c"]
    nested_micro: Float[np.ndarray, " r"]
    fixed_micro: Float[np.ndarray, " r"]

    @property
    def damped(self) -> Float[np.ndarray, "r c"]:
        """F1 whose spread is that of the procedure, for nested intervals (`intervals.damped`)."""
        return damped(self.nested, self.fixed)

    @property
    def damped_micro(self) -> Float[np.ndarray, " r"]:
        """Micro F1 whose spread is that of the procedure."""
        return damped(self.nested_micro, self.fixed_micro)

    def averages(self, kind: Literal["nested", "fixed", "damped"]) -> dict[str, Float[np.ndarray, " r"]]:
        """Weighted, macro and micro F1 of every resample."""
        f1, micro = {
            "nested": (self.nested, self.nested_micro),
            "fixed": (self.fixed, self.fixed_micro),
            "damped": (self.damped, self.damped_micro),
        }[kind]
        return {**aggregate(f1, self.positives), "micro": micro}


def bootstrap(
    calibration: Calibration,
    cal_scores: Sequence[Float[np.ndarray, "n_cal c"]],
    cal_labels: Bool[np.ndarray, "n_cal c"],
    test_scores: Float[np.ndarray, "candidates n_test c"],
    test_labels: Bool[np.ndarray, "n_test c"],
    resamples: Resamples,
    deltas: tuple[float, ...],
) -> Bootstrapped:
    """Resample one kind and method.

    Parameters
    ----------
    calibration : Calibration
        As fitted on the whole cal split.
    cal_scores : sequence of arrays of shape (cal samples, concepts)
        Pooled scores of each candidate; not looked at (may be empty) where the thresholds are given.
    cal_labels, test_labels : bool arrays of shape (samples, concepts)
    test_scores : float array of shape (candidates, test samples, concepts)
    resamples : Resamples
    deltas : ascending sparsity levels
        Looked at where thresholds are quantiles.
    """
    judge = _Judge(test_scores, test_labels, resamples)
    fixed, fixed_micro = judge.fixed(calibration.choice, calibration.chosen_thresholds())
    shape = fixed.shape
    if calibration.rule == "fixed":
        thresholds = np.broadcast_to(calibration.chosen_thresholds(), shape).copy()
        return Bootstrapped(fixed, fixed, judge.positives, thresholds, fixed_micro, fixed_micro)
    chooser = _Chooser(calibration, cal_scores, cal_labels, deltas)
    nested, thresholds, nested_micro = np.empty(shape), np.empty(shape), np.empty(shape[0])
    for part in resamples.chunks(max(chooser.bytes_each, judge.bytes_each)):
        choice, chosen, own = chooser.choose(resamples.cal[part])
        nested[part], nested_micro[part] = judge.nested(choice, chosen, part)
        thresholds[part] = own
    return Bootstrapped(nested, fixed, judge.positives, thresholds, nested_micro, fixed_micro)


@final
class _Chooser:
    """Chooses candidate, level and threshold anew on resamples of cal."""

    def __init__(
        self,
        calibration: Calibration,
        scores: Sequence[Float[np.ndarray, "n c"]],
        labels: Bool[np.ndarray, "n c"],
        deltas: tuple[float, ...],
    ) -> None:
        self._calibration, self._deltas = calibration, deltas
        self._labels = labels.astype(np.int32)
        self._ranked = [Ranked(candidate, labels) for candidate in scores]
        self._most_repeated = max((tail.most_repeated for tail in calibration.tails), default=1)
        self._levels = calibration.thresholds.shape[1]
        longest = max((len(tail.values) for tail in calibration.tails), default=0)
        per_concept = 8 * self._levels * labels.shape[1]
        # Free thresholds look at every positive sample of every concept in double precision.
        every_positive = 8 * int(labels.sum()) if calibration.rule == "free" else 0
        self.bytes_each = max(2 * labels.size, 4 * longest, per_concept, every_positive)

    def choose(
        self, weights: Integer[np.ndarray, "r n"]
    ) -> tuple[Choice, Float[np.ndarray, "r c"], Float[np.ndarray, "r c"]]:
        """Choice of each resample, its thresholds, and the thresholds at the study's own candidate and level."""
        n_resamples, n_concepts = len(weights), self._labels.shape[1]
        drawn = compact(weights)
        positives = (weights @ self._labels).T
        own = np.empty((n_concepts, n_resamples))
        best = np.full((self._levels, n_concepts, n_resamples), -1.0)
        candidate = np.zeros(best.shape, dtype=np.int64)
        chosen = np.full(best.shape, np.inf)
        concepts, kept = np.arange(n_concepts), self._calibration.choice
        for number, (thresholds, f1) in enumerate(self._candidates(weights, drawn, positives)):
            better = f1 > best
            best, chosen = np.where(better, f1, best), np.where(better, thresholds, chosen)
            candidate[better] = number
            mine = kept.candidate == number
            own[mine] = thresholds[kept.level[mine], concepts[mine]]
        level = best.argmax(axis=0)

        def at_level(values: np.ndarray) -> np.ndarray:
            return np.asarray(np.take_along_axis(values, level[None], axis=0)[0].T)

        return Choice(at_level(candidate), np.asarray(level.T)), at_level(chosen), np.asarray(own.T)

    def _candidates(
        self,
        weights: Integer[np.ndarray, "r n"],
        drawn: Integer[np.ndarray, "n r"],
        positives: Integer[np.ndarray, "c r"],
    ) -> Iterator[tuple[Float[np.ndarray, "levels c r"], Float[np.ndarray, "levels c r"]]]:
        """Thresholds of each candidate and their F1 on cal."""
        if self._calibration.rule == "free":
            for ranked in self._ranked:
                thresholds, f1, _ = ranked.best(drawn)
                yield thresholds[None], f1[None]
            return
        wide = compact(weights, self._most_repeated)
        last, thresholds = None, np.empty((0, 0, 0))
        for tail, ranked in zip(self._calibration.tails, self._ranked, strict=True):
            if tail is not last:  # variants of a site may share their tail
                last, thresholds = tail, tail.resampled_side_by_side(wide, self._deltas)
            yield thresholds, f1_of(*ranked.counts(drawn, thresholds), positives)


@final
class _Judge:
    """Measures F1 on resamples of test."""

    def __init__(
        self, scores: Float[np.ndarray, "k n c"], labels: Bool[np.ndarray, "n c"], resamples: Resamples
    ) -> None:
        self._scores = np.ascontiguousarray(scores.transpose(0, 2, 1))
        self._labels = np.ascontiguousarray(labels.T)
        self._drawn = resamples.test.astype(np.float32)
        self.positives = (resamples.test @ labels.astype(np.int32)).astype(np.float64)
        self.bytes_each = 8 * labels.size

    def fixed(
        self, choice: Choice, thresholds: Float[np.ndarray, " c"]
    ) -> tuple[Float[np.ndarray, "r c"], Float[np.ndarray, " r"]]:
        """F1 of every resample with given candidates and thresholds, and its micro average."""
        chosen = self._scores[choice.candidate, np.arange(len(thresholds))]
        fires = chosen.astype(np.float64) >= thresholds[:, None]
        hits, fired = (self._drawn @ part.astype(np.float32).T for part in (fires & self._labels, fires))
        return f1_of(hits, fired, self.positives), micro_f1(hits, fired, self.positives)

    def nested(
        self, choice: Choice, thresholds: Float[np.ndarray, "r c"], part: slice
    ) -> tuple[Float[np.ndarray, "r c"], Float[np.ndarray, " r"]]:
        """F1 of a part of the resamples, each with candidates and thresholds of its own, and its micro average."""
        chosen = self._scores[choice.candidate, np.arange(thresholds.shape[1])]
        fires = chosen >= thresholds[:, :, None]
        drawn, positives = self._drawn[part][:, :, None], self.positives[part]
        fired = np.matmul(fires.astype(np.float32), drawn)[:, :, 0]
        hits = np.matmul((fires & self._labels).astype(np.float32), drawn)[:, :, 0]
        return f1_of(hits, fired, positives), micro_f1(hits, fired, positives)
