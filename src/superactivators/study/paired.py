"""Differences between the results of two studies, paired where both drew the same test samples (METHOD section 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import numpy as np
from jaxtyping import Float, Int

from superactivators.detection.bootstrap import interval
from superactivators.detection.metrics import aggregate
from superactivators.report.study_results import Pair, StudyTables

State: TypeAlias = Literal["paired", "unpaired", "not stored"]
NOT_STORED = "not stored; run the study again"
AVERAGES = ("weighted", "macro")


@final
@dataclass(frozen=True, eq=False)
class SharedResults:
    """Test results of one study on some of its concepts.

    Attributes
    ----------
    concepts : tuple of str
    f1, cal_f1 : mapping of (kind, method) to float64 array of shape (concepts,)
        On test and on cal, as chosen on cal.
    positives, cal_positives : float64 arrays of shape (concepts,)
        Positive samples.
    nested : mapping of (kind, method) to float64 array of shape (resamples, concepts)
        Test F1 with every choice repeated; empty where the study has not stored it.
    drawn : float64 array of shape (resamples, concepts)
        Positive test samples in each resample; without rows where the study has not stored it.
    """

    concepts: tuple[str, ...]
    f1: Mapping[Pair, Float[np.ndarray, " c"]]
    cal_f1: Mapping[Pair, Float[np.ndarray, " c"]]
    positives: Float[np.ndarray, " c"]
    cal_positives: Float[np.ndarray, " c"]
    nested: Mapping[Pair, Float[np.ndarray, "r c"]]
    drawn: Float[np.ndarray, "r c"]

    @staticmethod
    def of(study: StudyTables, concepts: Sequence[str]) -> SharedResults:
        """Take the results of a study on some of its concepts, in the given order."""
        own = list(study.summary["concepts"])
        columns = [own.index(concept) for concept in concepts]
        stored: Mapping[str, np.ndarray] = getattr(study.result, "resamples", None) or {}

        def held(name: str) -> Float[np.ndarray, "r c"]:
            return np.asarray(stored[name], dtype=np.float64)[:, columns]

        test, cal = study.chosen_rows(), study.chosen_rows("cal")
        pairs = [pair for pair in study.pairs if all((*pair, concept) in test for concept in concepts)]
        return SharedResults(
            tuple(concepts),
            {pair: _column(test, pair, concepts, "f1") for pair in pairs},
            {pair: _column(cal, pair, concepts, "f1") for pair in pairs if (*pair, concepts[0]) in cal},
            _column(test, pairs[0], concepts, "n_positive"),
            _column(cal, pairs[0], concepts, "n_positive"),
            {pair: held("/".join(pair)) for pair in pairs if "/".join(pair) in stored},
            held("positives") if "positives" in stored else np.empty((0, len(columns))),
        )

    def average(self, pair: Pair, average: str) -> float:
        """Average test F1, weights taken over these concepts alone."""
        return float(aggregate(self.f1[pair], self.positives)[average])

    def average_on_cal(self, average: str) -> dict[Pair, float]:
        """Average cal F1 of every kind and method."""
        return {pair: float(aggregate(f1, self.cal_positives)[average]) for pair, f1 in self.cal_f1.items()}

    def resampled(self, pair: Pair, average: str) -> Float[np.ndarray, " r"] | None:
        """Average test F1 of every resample; None where it is not stored."""
        if pair not in self.nested or not len(self.drawn):
            return None
        return np.asarray(aggregate(self.nested[pair], self.drawn)[average])


def _column(
    rows: Mapping[tuple[str, str, str], Mapping[str, Any]], pair: Pair, concepts: Sequence[str], name: str
) -> Float[np.ndarray, " c"]:
    return np.array([rows[*pair, concept][name] for concept in concepts], dtype=np.float64)


@final
@dataclass(frozen=True)
class Pairing:
    """How two studies can be compared.

    Attributes
    ----------
    first, second : str
        Differences are second minus first.
    state : str
        ``"paired"``: both resampled the same test samples alike, so differences are taken within each resample;
        ``"unpaired"``: resamples are independent, and intervals wider; ``"not stored"``: no intervals.
    why : str
        What stands against pairing.
    """

    first: str
    second: str
    state: State
    why: str = ""

    @staticmethod
    def of(
        names: Pair, studies: tuple[StudyTables, StudyTables], shared: tuple[SharedResults, SharedResults]
    ) -> Pairing:
        """Find out how two studies can be compared."""
        summaries = [study.summary for study in studies]
        for name, summary, results in zip(names, summaries, shared, strict=True):
            if summary.get("resamples") == 0:
                return Pairing(*names, "not stored", f"{name} has no resamples; run it with more than 0")
            if not len(results.drawn):
                return Pairing(*names, "not stored", f"{name}: {NOT_STORED}")
        one, other = summaries
        # With equal samples but other lists of concepts, equal positives of the shared ones below vouch for the labels.
        if not (
            any(_same(one, other, name) for name in ("test_fingerprint", "test_ids_fingerprint"))
            or _same(one.get("data"), other.get("data"), "fingerprint")
        ):
            return Pairing(*names, "unpaired", "other test samples, labels or concepts")
        if not (_same(one, other, "draws") and _same(one, other, "resamples")):
            return Pairing(
                *names, "unpaired", "other draws: seed, sizes of cal and test, or number of resamples differ"
            )
        if not np.array_equal(shared[0].drawn, shared[1].drawn):
            return Pairing(*names, "unpaired", "other labels: the positives of the resamples differ")
        return Pairing(*names, "paired")


def _same(one: Any, other: Any, name: str) -> bool:
    found = [held.get(name) if isinstance(held, Mapping) else None for held in (one, other)]
    return found[0] is not None and found[0] == found[1]


def match(
    first: Float[np.ndarray, "r *rest"], second: Float[np.ndarray, "s *rest"], *, paired: bool, seed: int = 0
) -> tuple[Float[np.ndarray, "t *rest"], Float[np.ndarray, "t *rest"]]:
    """Bring the resamples of two studies side by side.

    Paired ones stay as they are. Otherwise the second study's are shuffled, because equal seeds draw equal places even
    from different samples, and the shorter list is repeated until every resample of the longer one has a partner.
    """
    if paired:
        return first, second
    n = max(len(first), len(second))
    order: Int[np.ndarray, " t"] = np.random.default_rng(seed).permutation(n)
    return first[np.arange(n) % len(first)], second[order % len(second)]


@final
@dataclass(frozen=True, eq=False)
class Differences:
    """Differences of some quantities, second study minus first.

    Attributes
    ----------
    value, low, high, p : float64 arrays of shape (quantities,)
        Difference, 95 % interval and two-sided bootstrap p (uncorrected); NaN where there are no resamples.
    """

    value: Float[np.ndarray, " q"]
    low: Float[np.ndarray, " q"]
    high: Float[np.ndarray, " q"]
    p: Float[np.ndarray, " q"]

    @staticmethod
    def of(value: Float[np.ndarray, " q"], resampled: Float[np.ndarray, "r q"] | None) -> Differences:
        """Judge differences by their resamples, moved so that their mean lies at the difference."""
        if resampled is None or not len(resampled):
            nothing = np.full(len(value), np.nan)
            return Differences(value, nothing, nothing, nothing)
        centred = resampled - resampled.mean(axis=0)
        low, high = interval(np.clip(centred + value, -1.0, 1.0))
        # Equal sums in another order differ in the last digits: without the margin a tie might count as less extreme.
        extreme = (np.abs(centred) >= np.abs(value) - 1e-12).sum(axis=0)
        return Differences(value, low, high, (1 + extreme) / (1 + len(resampled)))


def holm(p: Float[np.ndarray, " q"]) -> Float[np.ndarray, " q"]:
    """Correct p-values for their number by Holm's step-down procedure (Holm 1979); NaN stays and does not count."""
    corrected = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * factors), 1.0)
    return corrected
