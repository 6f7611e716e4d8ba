"""Differences between methods: paired intervals, bootstrap tests, and Holm's correction (METHOD section 6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeAlias, final

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from superactivators.detection.bootstrap import Bootstrapped
from superactivators.detection.intervals import MIN_POSITIVES, estimable, f1_interval
from superactivators.detection.metrics import aggregate, f1_of, micro_f1
from superactivators.errors import StudyError, allowed

AVERAGES = ("weighted", "macro", "micro")
CHUNK_BYTES = 2**26
"""Memory of the differences of a chunk of pairs."""

ROUNDING = 1e-12
"""Equal sums in another order differ in the last digits; a tie counts as no less extreme."""

Ends: TypeAlias = tuple[np.ndarray, np.ndarray]


@final
@dataclass(frozen=True, eq=False)
class Series:
    """Test results of one method, as `compare` needs them.

    Attributes
    ----------
    f1 : float64 array of shape (concepts,)
        Of the study.
    positives : float64 array of shape (concepts,)
        Positive test samples.
    resampled : float array of shape (resamples, concepts)
        Resampled F1, `superactivators.detection.intervals.damped`.
    drawn : float array of shape (resamples, concepts)
        Positive test samples in each resample.
    counted : float64 array of shape (concepts,), optional
        Samples that are positive or detected: hits, misses and false alarms.
    micro : float, optional
        Micro F1; without it (or without its resamples) micro averages are left out.
    resampled_micro : float array of shape (resamples,), optional
    """

    f1: Float[np.ndarray, " c"]
    positives: Float[np.ndarray, " c"]
    resampled: Float[np.ndarray, "r c"]
    drawn: Float[np.ndarray, "r c"]
    counted: Float[np.ndarray, " c"] | None = None
    micro: float | None = None
    resampled_micro: Float[np.ndarray, " r"] | None = None

    @staticmethod
    def of(boot: Bootstrapped, hits: np.ndarray, fired: np.ndarray, positives: np.ndarray) -> Series:
        """Take what was resampled, and the test counts of every concept.

        Parameters
        ----------
        boot : Bootstrapped
        hits, fired, positives : arrays of shape (concepts,)
            True positives, detections and positive samples on test.
        """
        return Series(
            f1_of(hits, fired, positives),
            np.asarray(positives, dtype=np.float64),
            boot.damped,
            boot.positives,
            np.asarray(fired + positives - hits, dtype=np.float64),
            float(micro_f1(hits, fired, positives)),
            boot.damped_micro,
        )

    def averages(self) -> tuple[str, ...]:
        """Averages that can be taken."""
        return AVERAGES if self.micro is not None and self.resampled_micro is not None else AVERAGES[:2]

    def quantities(self, averages: Sequence[str]) -> _Quantities:
        """Lay out the averages, then every concept."""
        points = aggregate(self.f1, self.positives)
        drawn = aggregate(self.resampled.astype(np.float64), self.drawn)
        if self.micro is not None and self.resampled_micro is not None:
            points["micro"], drawn["micro"] = np.asarray(self.micro), self.resampled_micro.astype(np.float64)
        value = np.concatenate([[float(points[name]) for name in averages], self.f1])
        resampled = np.column_stack([*(drawn[name] for name in averages), self.resampled.astype(np.float64)])
        counted = None
        if self.counted is not None:
            counted = np.concatenate([np.full(len(averages), self.counted.sum()), self.counted])
        enough = np.full(len(averages), self.positives.sum() >= MIN_POSITIVES)
        mask = np.concatenate([enough, estimable(self.positives, self.drawn)])
        return _Quantities(value, resampled, f1_interval(resampled, value, counted), mask)


@final
@dataclass(frozen=True, eq=False)
class _Quantities:
    """Averages and concepts of one method: value, resamples, interval, and whether there is one."""

    value: Float[np.ndarray, " q"]
    resampled: Float[np.ndarray, "r q"]
    ends: Ends
    estimable: Bool[np.ndarray, " q"]


def holm(p: Float[np.ndarray, " q"]) -> Float[np.ndarray, " q"]:
    """Correct p-values for their number by Holm's step-down procedure (Holm 1979); NaN stays and does not count."""
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return corrected


def compare(
    series: Mapping[str, Series],
    pairs: Sequence[tuple[str, str]],
    concepts: Sequence[str],
    *,
    paired: bool = True,
    seed: int = 0,
) -> pa.Table:
    """Compare methods two at a time: their averages and every concept.

    Intervals combine the two methods' own intervals with the correlation of their resamples (square-and-add: Newcombe
    1998, Zou 2007), so that they stay right for rare concepts; methods that decide alike get cautious ones. The test
    is a two-sided bootstrap test: how often resampled differences, moved to mean 0, are at least as large as the
    difference: (1 + count) / (1 + resamples).

    Holm's correction has one family for each average (its pairs) and one for the single concepts (pairs times
    concepts); what is not estimable does not count.

    Parameters
    ----------
    series : mapping of str to Series
        By name.
    pairs : sequence of (a, b)
        Names; the difference is a minus b.
    concepts : sequence of str
        In the order of the series' columns.
    paired : bool
        Whether resample ``r`` of all series holds the same test samples. If not, resamples are independent: one
        method's are shuffled, and the shorter list is repeated.
    seed : int
        Of the shuffling.

    Returns
    -------
    pyarrow Table
        ``quantity`` ("average" or "concept"), ``name``, ``a``, ``b``, ``difference``, ``low``, ``high``, ``p``,
        ``p_holm``, ``n_compared`` (size of the family), ``paired``, ``estimable``. Pair by pair; averages come first.
        Ends and p are NaN where nothing was resampled or a concept has too few positives. Micro averages are left
        out where a series has none.

    Raises
    ------
    StudyError
        If a name is unknown, a series has another number of concepts, or paired ones have other numbers of resamples.
    """
    _check(series, pairs, concepts, paired=paired)
    averages = AVERAGES if all(len(series[name].averages()) == 3 for pair in pairs for name in pair) else AVERAGES[:2]
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    held = {name: series[name].quantities(averages) for name in names}
    quantities = [*(("average", name) for name in averages), *(("concept", name) for name in concepts)]
    n_quantities = len(quantities)
    found = {key: np.full((len(pairs), n_quantities), np.nan) for key in ("difference", "low", "high", "p")}
    known = np.zeros((len(pairs), n_quantities), dtype=bool)
    for part in _chunks(pairs, held):
        ab = [[held[pair[side]] for pair in pairs[part]] for side in (0, 1)]
        for key, values in _differences(*ab, paired=paired, seed=seed).items():
            found[key][part] = values
        known[part] = np.array([a.estimable & b.estimable for a, b in zip(*ab, strict=True)])
    for key in ("low", "high", "p"):
        found[key][~known] = np.nan
    corrected, family = _corrected(found["p"], len(averages))
    columns: dict[str, Any] = {
        "quantity": [quantity for quantity, _ in quantities] * len(pairs),
        "name": [name for _, name in quantities] * len(pairs),
        "a": np.repeat(np.array([a for a, _ in pairs], dtype=object), n_quantities),
        "b": np.repeat(np.array([b for _, b in pairs], dtype=object), n_quantities),
        **{key: values.ravel() for key, values in found.items()},
        "p_holm": corrected.ravel(),
        "n_compared": family.ravel(),
        "paired": np.full(known.size, paired),
        "estimable": known.ravel(),
    }
    strings = ("quantity", "name", "a", "b")
    return pa.table({key: pa.array(value, pa.string()) if key in strings else value for key, value in columns.items()})


def _check(
    series: Mapping[str, Series], pairs: Sequence[tuple[str, str]], concepts: Sequence[str], *, paired: bool
) -> None:
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        if name not in series:
            raise StudyError(f"nothing to compare is called {name!r}; {allowed(name, series)}")
        if len(series[name].f1) != len(concepts):
            raise StudyError(f"{name!r} has {len(series[name].f1)} concepts, but {len(concepts)} names are given")
    for a, b in pairs:
        sizes = len(series[a].resampled), len(series[b].resampled)
        if paired and sizes[0] != sizes[1]:
            raise StudyError(
                f"{a!r} and {b!r} have {sizes[0]} and {sizes[1]} resamples; compare them with paired=False, or "
                "resample both alike"
            )


def _chunks(pairs: Sequence[tuple[str, str]], held: Mapping[str, _Quantities]) -> Iterator[slice]:
    """Slices of pairs with equal numbers of resamples, within the memory of a chunk."""
    start = 0
    for sizes, group in groupby(pairs, key=lambda pair: tuple(len(held[name].resampled) for name in pair)):
        stop = start + len(list(group))
        width = len(held[pairs[start][0]].value)
        step = max(1, CHUNK_BYTES // max(8 * max(sizes) * width, 1))
        for first in range(start, stop, step):
            yield slice(first, min(first + step, stop))
        start = stop


def _differences(
    a: Sequence[_Quantities], b: Sequence[_Quantities], *, paired: bool, seed: int
) -> dict[str, Float[np.ndarray, "pairs q"]]:
    """Difference, interval and p of several pairs."""
    values = [np.stack([item.value for item in side]) for side in (a, b)]
    difference = values[0] - values[1]
    if not len(a[0].resampled) or not len(b[0].resampled):
        return {"difference": difference}
    centred = [np.stack([item.resampled - item.resampled.mean(axis=0) for item in side]) for side in (a, b)]
    correlation = np.zeros_like(difference)
    if paired:
        together = (centred[0] * centred[1]).mean(axis=1)
        spread = np.sqrt((centred[0] ** 2).mean(axis=1) * (centred[1] ** 2).mean(axis=1))
        correlation = np.divide(together, spread, out=correlation, where=spread > 0)
    else:
        centred = _partners(centred[0], centred[1], seed)
    (low_a, high_a), (low_b, high_b) = (
        tuple(np.stack([item.ends[end] for item in side]) for end in (0, 1)) for side in (a, b)
    )
    below = _arm(values[0] - low_a, high_b - values[1], correlation)
    above = _arm(high_a - values[0], values[1] - low_b, correlation)
    extreme = (np.abs(centred[0] - centred[1]) >= np.abs(difference)[:, None] - ROUNDING).sum(axis=1)
    return {
        "difference": difference,
        "low": np.maximum(difference - below, -1.0),
        "high": np.minimum(difference + above, 1.0),
        "p": (1 + extreme) / (1 + centred[0].shape[1]),
    }


def _arm(one: np.ndarray, other: np.ndarray, correlation: np.ndarray) -> Float[np.ndarray, "pairs q"]:
    """Length of one side of a difference's interval from those of the two intervals."""
    return np.asarray(np.sqrt(np.maximum(one**2 + other**2 - 2 * correlation * one * other, 0.0)))


def _partners(a: np.ndarray, b: np.ndarray, seed: int) -> list[np.ndarray]:
    """Independent resamples side by side: equal seeds draw equal places even from different samples."""
    n = max(a.shape[1], b.shape[1])
    order: Int[np.ndarray, " n"] = np.random.default_rng(seed).permutation(n)
    return [a[:, np.arange(n) % a.shape[1]], b[:, order % b.shape[1]]]


def _corrected(
    p: Float[np.ndarray, "pairs q"], averages: int
) -> tuple[Float[np.ndarray, "pairs q"], Int[np.ndarray, "pairs q"]]:
    """Holm's correction in each family, and the families' sizes."""
    corrected, sizes = np.full_like(p, np.nan), np.zeros(p.shape, dtype=np.int64)
    families = [slice(number, number + 1) for number in range(averages)] + [slice(averages, None)]
    for family in families:
        corrected[:, family] = holm(p[:, family].ravel()).reshape(p[:, family].shape)
        sizes[:, family] = int((~np.isnan(p[:, family])).sum())
    return corrected, sizes
