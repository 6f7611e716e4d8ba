"""Figures of one kind and method on test: F1 of every concept and its averages, with both intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float

from superactivators.detection.comparisons import AVERAGES, Series
from superactivators.detection.intervals import estimable, f1_interval
from superactivators.detection.metrics import aggregate, f1_of, fire_counts
from superactivators.detection.results import Evaluated
from superactivators.states.labels import Labels


@final
@dataclass(frozen=True, eq=False)
class Figures:
    """Test F1 at the choice made on cal.

    Attributes
    ----------
    series : Series
        For comparisons with other methods.
    averages : dict of str to float
        Weighted, macro and micro F1.
    nested, fixed : pair of float64 arrays of shape (3 + concepts,)
        Ends of the 95 % intervals of the averages and of every concept; see `superactivators.detection.intervals`.
    estimable : bool array of shape (concepts,)
        Whether a concept has enough positives for an interval.
    """

    series: Series
    averages: dict[str, float]
    nested: tuple[Float[np.ndarray, " q"], Float[np.ndarray, " q"]]
    fixed: tuple[Float[np.ndarray, " q"], Float[np.ndarray, " q"]]
    estimable: Bool[np.ndarray, " c"]

    @staticmethod
    def of(item: Evaluated, labels: Labels) -> Figures:
        """Measure on test."""
        rows = labels.in_split("test")
        truth = labels.samples[rows]
        scores, values = item.calibration.chosen(item.pooled)[rows], item.calibration.chosen_thresholds()
        hits, fired = (part[0] for part in fire_counts(scores, truth, values[None]))
        positives = truth.sum(axis=0)
        series = Series.of(item.boot, hits, fired, positives)
        f1 = f1_of(hits, fired, positives)
        averages = aggregate(f1, positives, (hits, fired))
        points = np.concatenate([[float(averages[name]) for name in AVERAGES], f1])
        counted = fired + positives - hits
        counted = np.concatenate([np.full(len(AVERAGES), counted.sum()), counted])
        fixed = item.boot.averages("fixed")
        resampled = np.column_stack([*(fixed[name] for name in AVERAGES), item.boot.fixed])
        return Figures(
            series=series,
            averages={name: float(averages[name]) for name in AVERAGES},
            nested=series.quantities(AVERAGES).ends,
            fixed=f1_interval(resampled, points, counted),
            estimable=estimable(positives.astype(np.float64), item.boot.positives),
        )

    def of_concepts(
        self, ends: tuple[Float[np.ndarray, " q"], Float[np.ndarray, " q"]]
    ) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
        """Give the ends of single concepts; NaN where a concept is not estimable."""
        low, high = (np.where(self.estimable, end[len(AVERAGES) :], np.nan) for end in ends)
        return low, high
