"""Maps of a whole data set judged: thresholds chosen on cal, measures on test, intervals, paired differences.

A threshold is chosen for every concept on its cases of cal: a (1 - delta) quantile of the map values of in-concept
tokens, on maps as they are or relative to the largest value of their case, whichever gives the best token F1. On test,
token F1 and IoU are pooled over the tokens of a concept's cases, all other measures are means over its cases. Intervals
are 95 % bootstrap intervals over *samples* of test, with thresholds fixed: a sample is drawn with all of its cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int, Int32

from superactivators.attribution.cases import Cases
from superactivators.attribution.measures import MEASURES as PER_CASE
from superactivators.attribution.measures import SCALES, check_maps, measure, scaled, token_counts
from superactivators.detection.bootstrap import Resamples
from superactivators.detection.metrics import f1_of
from superactivators.detection.tail import DELTAS, Tail
from superactivators.errors import CalibrationError, StudyError

AREAS = ("insertion", "deletion", "insertion_raw", "deletion_raw")
MEASURES = ("token_f1", "iou", *PER_CASE, *AREAS)
"""Names of the measures in tables, in their order."""

ALL_TOKENS, RANDOM, NO_OBJECTIVE = "(all tokens)", "(random)", "none"
"""Names of the references, and of their objective."""

RESAMPLES = 1000


@final
@dataclass(frozen=True, eq=False)
class Choice:
    """What was chosen on cal for every concept.

    Attributes
    ----------
    scale : int64 array of shape (concepts,)
        Position in `superactivators.attribution.measures.SCALES`.
    delta, threshold, f1 : float64 arrays of shape (concepts,)
        Sparsity level, threshold in units of the scale and token F1 on cal. Without a known in-concept token on cal
        delta and F1 are NaN, and the threshold is infinite.
    """

    scale: Int[np.ndarray, " c"]
    delta: Float[np.ndarray, " c"]
    threshold: Float[np.ndarray, " c"]
    f1: Float[np.ndarray, " c"]

    @staticmethod
    def on_cal(
        cal: Cases, maps: Float[np.ndarray, " rows"], n_concepts: int, deltas: tuple[float, ...] = DELTAS
    ) -> Choice:
        """Choose by token F1, pooled over a concept's cases; of equals raw maps, then the smallest delta.

        Parameters
        ----------
        cal : Cases
        maps : float array of shape (rows,)
        n_concepts : int
        deltas : ascending sparsity levels
        """
        check_maps(maps, cal)
        measured = np.flatnonzero(cal.positives)
        maps, cal = maps[cal.rows(measured)], cal.subset(measured)
        owners, rows = cal.owners, np.flatnonzero(cal.counted)
        candidates, f1 = [], []
        for scale in SCALES:
            values = scaled(maps, cal, scale)
            tail = Tail.of_pairs(values[rows], owners[rows], cal.concepts[owners[rows]], n_concepts)
            thresholds = tail.quantiles(deltas)
            counts = token_counts(values, cal, thresholds[:, cal.concepts])
            candidates.append(thresholds)
            f1.append(f1_of(*(_pooled(part, cal.concepts, n_concepts) for part in counts)))
        stacked, concepts = np.concatenate(f1), np.arange(n_concepts)
        best = stacked.argmax(axis=0)
        held = np.bincount(cal.concepts, minlength=n_concepts) > 0
        return Choice(
            best // len(deltas),
            np.where(held, np.array(deltas)[best % len(deltas)], np.nan),
            np.concatenate(candidates)[best, concepts],
            np.where(held, stacked[best, concepts], np.nan),
        )


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """What one explainer and objective reaches on test.

    Attributes
    ----------
    choice : Choice
    n_concepts : int
    n_samples : int
        Distinct test samples.
    estimable : bool array of shape (concepts,)
        Concepts with a known in-concept token on cal and on test; the others are left out of averages.
    samples : int64 array of shape (cases,)
        Sample of each case as its place among the test samples, the columns of `draw`.
    concepts : int64 array of shape (cases,)
    parts : mapping of str to pair of float64 arrays of shape (cases,)
        By measure: what to sum over the cases of a concept above and below the line.
    left_out : int
        Test cases without a known in-concept token, which are in none of the arrays.
    """

    choice: Choice
    n_concepts: int
    n_samples: int
    estimable: Bool[np.ndarray, " c"]
    samples: Int[np.ndarray, " cases"]
    concepts: Int[np.ndarray, " cases"]
    parts: Mapping[str, tuple[Float[np.ndarray, " cases"], Float[np.ndarray, " cases"]]]
    left_out: int

    @property
    def cases(self) -> Int[np.ndarray, " c"]:
        """Test cases of every concept."""
        return np.bincount(self.concepts, minlength=self.n_concepts).astype(np.int64)

    def defined(self, name: str) -> Bool[np.ndarray, " cases"]:
        """Cases that have a measure, of concepts that are estimable."""
        return np.asarray((self.parts[name][1] > 0) & self.estimable[self.concepts])

    def of_concepts(self, name: str, weights: Float[np.ndarray, "r n"]) -> OfConcepts:
        """Measure every concept, sample ``s`` counting ``weights[r, s]`` times."""
        chosen = self.defined(name)
        above, below = (part[chosen] for part in self.parts[name])
        shape = (self.n_concepts, weights.shape[1])
        place = (self.concepts[chosen], self.samples[chosen])

        def sums(numbers: np.ndarray) -> Float[np.ndarray, "r c"]:
            return np.asarray((sp.csr_matrix((numbers, place), shape=shape) @ weights.T).T)

        top, bottom = sums(above), sums(below)
        value = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
        return OfConcepts(value, sums(np.ones(len(above))))


@final
@dataclass(frozen=True, eq=False)
class OfConcepts:
    """A measure of every concept, NaN where nothing was drawn, and how many cases it is from."""

    value: Float[np.ndarray, "r c"]
    cases: Float[np.ndarray, "r c"]

    def weighted(self) -> Float[np.ndarray, " r"]:
        """Average over concepts by their cases."""
        return _mean(self.value, self.cases)

    def macro(self) -> Float[np.ndarray, " r"]:
        """Plain average over the concepts that have a case."""
        return _mean(self.value, (self.cases > 0).astype(np.float64))


def evaluate_maps(
    cal: Cases,
    cal_maps: Float[np.ndarray, " cal_rows"],
    test: Cases,
    test_maps: Float[np.ndarray, " test_rows"],
    n_concepts: int,
    deltas: tuple[float, ...] = DELTAS,
    areas: Mapping[str, Float[np.ndarray, " test_cases"]] | None = None,
) -> Outcome:
    """Choose thresholds on cal and measure on test, for one explainer and objective.

    Parameters
    ----------
    cal, test : Cases
        Their samples are numbered alike.
    cal_maps, test_maps : float arrays of shape (rows,)
    n_concepts : int
    deltas : ascending sparsity levels
    areas : mapping of str to float array of shape (test cases,), optional
        Any of `AREAS`, see `superactivators.attribution.faithfulness.Curves.areas`. NaN where not defined.

    Returns
    -------
    Outcome

    Raises
    ------
    StudyError
        If there is not one finite number for each row, or areas have an unknown name or another length.
    CalibrationError
        If a sample is in both cal and test.
    """
    shared = np.intersect1d(cal.samples, test.samples)
    if len(shared):
        raise CalibrationError(
            f"{len(shared)} samples are in cal and in test, the first is number {shared[0]}; thresholds must be chosen "
            "on other samples than they are judged on"
        )
    given = dict(areas or {})
    for name, values in given.items():
        if name not in AREAS or len(values) != len(test):
            raise StudyError(f"areas {name!r} of {len(values)} cases; give any of {', '.join(AREAS)} of {len(test)}")
    choice = Choice.on_cal(cal, cal_maps, n_concepts, deltas)
    check_maps(test_maps, test)
    measured = np.flatnonzero(test.positives)
    kept, maps = test.subset(measured), test_maps[test.rows(measured)]
    relative = (choice.scale == SCALES.index("relative"))[kept.concepts[kept.owners]]
    values = np.where(relative, scaled(maps, kept, "relative"), scaled(maps, kept, "raw"))
    hits, fired, positives = token_counts(values, kept, choice.threshold[kept.concepts][None])
    hit, fire, positive = (part.ravel().astype(np.float64) for part in (hits, fired, positives))
    parts = {"token_f1": (2 * hit, fire + positive), "iou": (hit, fire + positive - hit)}
    means = {**measure(maps, kept), **{name: given[name][measured] for name in AREAS if name in given}}
    for name, found in means.items():
        known = ~np.isnan(found)
        parts[name] = (np.where(known, found, 0.0).astype(np.float64), known.astype(np.float64))
    held = np.bincount(kept.concepts, minlength=n_concepts) > 0
    return Outcome(
        choice=choice,
        n_concepts=n_concepts,
        n_samples=_n_samples(test),
        estimable=held & ~np.isnan(choice.delta),
        samples=np.searchsorted(np.unique(test.samples), kept.samples).astype(np.int64),
        concepts=kept.concepts,
        parts=parts,
        left_out=len(test) - len(kept),
    )


def references(cal: Cases, test: Cases, n_concepts: int, seed: int = 0) -> dict[tuple[str, str], Outcome]:
    """Evaluate what needs no explainer: every token marked, and maps of uniform random numbers.

    Returns
    -------
    dict of (explainer, objective) to Outcome
        Named `ALL_TOKENS` and `RANDOM`, with the objective `NO_OBJECTIVE`.
    """
    draws = np.random.default_rng(seed)
    constant, noise = (
        tuple(make(len(cases.inside)).astype(np.float32) for cases in (cal, test)) for make in (np.ones, draws.random)
    )
    return {
        (name, NO_OBJECTIVE): evaluate_maps(cal, maps[0], test, maps[1], n_concepts)
        for name, maps in ((ALL_TOKENS, constant), (RANDOM, noise))
    }


def draw(test: Cases, resamples: int = RESAMPLES, seed: int = 0) -> Int32[np.ndarray, "r n"]:
    """Draw the distinct samples of test with replacement: how often each one is in each resample."""
    return Resamples.draw(1, _n_samples(test), resamples, seed).test


def _n_samples(test: Cases) -> int:
    return max(1, len(np.unique(test.samples)))


def _pooled(
    counts: Int[np.ndarray, "*levels cases"], concepts: Int[np.ndarray, " cases"], n_concepts: int
) -> Int[np.ndarray, "*levels c"]:
    """Sum counts over the cases of each concept."""
    sums = np.zeros((n_concepts, *counts.shape[:-1]), dtype=np.int64)
    np.add.at(sums, concepts, counts.T)
    return np.asarray(sums.T)


def _mean(values: Float[np.ndarray, "r c"], weights: Float[np.ndarray, "r c"]) -> Float[np.ndarray, " r"]:
    """Weighted mean over concepts; NaN where all weights are 0."""
    sums, total = np.where(weights > 0, values * weights, 0.0).sum(axis=1), weights.sum(axis=1)
    return np.asarray(np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0))
