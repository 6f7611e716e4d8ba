"""Lay out the outcomes of all explainers as tables: averages with intervals, concepts, and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Integer

from superactivators.attribution.evaluation import MEASURES, Outcome
from superactivators.attribution.measures import SCALES
from superactivators.detection.comparisons import ROUNDING, holm
from superactivators.detection.intervals import MIN_POSITIVES, MOST_WITHOUT, interval
from superactivators.errors import StudyError


@final
@dataclass(frozen=True, eq=False)
class Tables:
    """What `tabulate` lays out.

    Attributes
    ----------
    aggregates : pyarrow Table
        ``explainer, objective, measure, value, low, high, macro, macro_low, macro_high, cases``: averages over
        concepts, weighted by their cases, and plain; ``cases`` are those that have the measure.
    concepts : pyarrow Table
        ``explainer, objective, concept, cases, scale, delta, threshold`` and a column for each measure; NaN (scale:
        null) where it is not estimable.
    comparisons : pyarrow Table
        ``explainer, measure, difference, low, high, p, p_holm``: SuperActivators minus concept for every measure, so
        that for deletion less is better.
    """

    aggregates: pa.Table
    concepts: pa.Table
    comparisons: pa.Table


def tabulate(
    outcomes: Mapping[tuple[str, str], Outcome], names: Sequence[str], draws: Integer[np.ndarray, "r n"]
) -> Tables:
    """Lay out the outcomes of all explainers as tables.

    Ends are percentiles of the resampled averages, NaN with fewer than 5 test samples or if more than 5 % of the
    resamples hold no case with the measure. Differences are of weighted averages on the same draws; the test is a
    two-sided bootstrap test: how often resampled differences, moved to mean 0, are at least as large as the
    difference: (1 + count) / (1 + resamples). Holm's correction has one family for each measure: its explainers.

    Parameters
    ----------
    outcomes : mapping of (explainer, objective) to Outcome
        All on the same test cases.
    names : sequence of str
        Of the concepts.
    draws : int array of shape (resamples, test samples)
        See `superactivators.attribution.evaluation.draw`.

    Raises
    ------
    StudyError
        If outcomes are of other test cases, or names or draws do not fit them.
    """
    _check(outcomes, names, draws)
    weights = draws.astype(np.float64)
    enough = draws.shape[1] >= MIN_POSITIVES
    averages: dict[tuple[str, str, str], _Average] = {}
    aggregates: dict[str, list[Any]] = {name: [] for name in _AGGREGATES}
    concepts = []
    for (explainer, objective), outcome in outcomes.items():
        columns: dict[str, Any] = {}
        for name in MEASURES:
            columns[name] = np.full(len(names), np.nan)
            if name not in outcome.parts:
                continue
            study = outcome.of_concepts(name, np.ones((1, outcome.n_samples)))
            drawn = outcome.of_concepts(name, weights)
            columns[name] = study.value[0]
            mine = _Average(float(study.weighted()[0]), drawn.weighted(), enough)
            macro = _Average(float(study.macro()[0]), drawn.macro(), enough)
            averages[explainer, objective, name] = mine
            values = (mine.value, *mine.ends(), macro.value, *macro.ends(), int(outcome.defined(name).sum()))
            for key, value in zip(_AGGREGATES, (explainer, objective, name, *values), strict=True):
                aggregates[key].append(value)
        concepts.append(_concepts(explainer, objective, outcome, names, columns))
    return Tables(
        aggregates=pa.table({key: pa.array(values, _AGGREGATES[key]) for key, values in aggregates.items()}),
        concepts=pa.concat_tables(concepts),
        comparisons=_comparisons(averages, list(dict.fromkeys(explainer for explainer, _ in outcomes))),
    )


_NUMBERS = dict.fromkeys(("value", "low", "high", "macro", "macro_low", "macro_high"), pa.float64())
_AGGREGATES = {**dict.fromkeys(("explainer", "objective", "measure"), pa.string()), **_NUMBERS, "cases": pa.int64()}


@final
@dataclass(frozen=True, eq=False)
class _Average:
    """A value of the study and of resamples, NaN where nothing was drawn."""

    value: float
    resampled: Float[np.ndarray, " r"]
    enough: bool

    def drawn(self) -> Float[np.ndarray, " r"]:
        """Resamples that have a value; none if too few do."""
        known = ~np.isnan(self.resampled)
        usable = self.enough and known.mean() >= 1 - MOST_WITHOUT if len(known) else False
        return self.resampled[known] if usable else np.zeros(0)

    def ends(self) -> tuple[float, float]:
        """Percentile interval."""
        low, high = interval(self.drawn())
        return float(low), float(high)

    def p(self) -> float:
        """Two-sided bootstrap test against 0."""
        drawn = self.drawn()
        if not len(drawn):
            return float("nan")
        extreme = np.abs(drawn - drawn.mean()) >= abs(self.value) - ROUNDING
        return float((1 + extreme.sum()) / (1 + len(drawn)))

    def minus(self, other: _Average) -> _Average:
        """Difference on the same draws."""
        return _Average(self.value - other.value, self.resampled - other.resampled, self.enough)


def _check(
    outcomes: Mapping[tuple[str, str], Outcome], names: Sequence[str], draws: Integer[np.ndarray, "r n"]
) -> None:
    if not outcomes:
        raise StudyError("there is no explainer to make tables of; name at least one")
    first_key, first = next(iter(outcomes.items()))
    for key, outcome in outcomes.items():
        if not (np.array_equal(outcome.samples, first.samples) and np.array_equal(outcome.concepts, first.concepts)):
            raise StudyError(f"{'/'.join(key)} and {'/'.join(first_key)} are of other test cases; evaluate all alike")
        if outcome.n_concepts != len(names) or outcome.n_samples != draws.shape[1]:
            raise StudyError(
                f"{'/'.join(key)} has {outcome.n_concepts} concepts and {outcome.n_samples} test samples, but "
                f"{len(names)} names and draws of {draws.shape[1]} samples are given"
            )


def _concepts(
    explainer: str, objective: str, outcome: Outcome, names: Sequence[str], columns: Mapping[str, np.ndarray]
) -> pa.Table:
    choice, n = outcome.choice, len(names)
    scales: list[str | None] = [
        None if np.isnan(delta) else SCALES[scale] for scale, delta in zip(choice.scale, choice.delta, strict=True)
    ]
    return pa.table(
        {
            "explainer": pa.array([explainer] * n, pa.string()),
            "objective": pa.array([objective] * n, pa.string()),
            "concept": pa.array(list(names), pa.string()),
            "cases": outcome.cases,
            "scale": pa.array(scales, pa.string()),
            "delta": choice.delta,
            "threshold": np.where(np.isnan(choice.delta), np.nan, choice.threshold),
            **columns,
        }
    )


def _comparisons(averages: Mapping[tuple[str, str, str], _Average], explainers: Sequence[str]) -> pa.Table:
    """Differences between the objectives, explainer by explainer."""
    rows: list[tuple[str, str, _Average]] = []
    for explainer in explainers:
        for name in MEASURES:
            pair = [averages.get((explainer, side, name)) for side in ("superactivators", "concept")]
            if pair[0] is not None and pair[1] is not None:
                rows.append((explainer, name, pair[0].minus(pair[1])))
    p = np.array([average.p() for _, _, average in rows], dtype=np.float64)
    measures = np.array([name for _, name, _ in rows])
    corrected = np.full(len(p), np.nan)
    for name in MEASURES:
        family = np.flatnonzero(measures == name)
        corrected[family] = holm(p[family])
    ends = np.array([average.ends() for _, _, average in rows], dtype=np.float64).reshape(-1, 2)
    return pa.table(
        {
            "explainer": pa.array([explainer for explainer, _, _ in rows], pa.string()),
            "measure": pa.array([name for _, name, _ in rows], pa.string()),
            "difference": np.array([average.value for _, _, average in rows], dtype=np.float64),
            "low": ends[:, 0],
            "high": ends[:, 1],
            "p": p,
            "p_holm": corrected,
        }
    )
