"""Differences between the results of two studies, paired where both drew the same test samples (METHOD section 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import numpy as np
from jaxtyping import Float

from superactivators.detection.comparisons import Series, compare
from superactivators.detection.intervals import f1_interval
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
    counted : mapping of (kind, method) to float64 array of shape (concepts,)
        Test samples that are positive or detected.
    nested : mapping of (kind, method) to float64 array of shape (resamples, concepts)
        Resampled test F1; without entries that the study has not stored.
    drawn : float64 array of shape (resamples, concepts)
        Positive test samples in each resample; without rows where the study has not stored it.
    """

    concepts: tuple[str, ...]
    f1: Mapping[Pair, Float[np.ndarray, " c"]]
    cal_f1: Mapping[Pair, Float[np.ndarray, " c"]]
    positives: Float[np.ndarray, " c"]
    cal_positives: Float[np.ndarray, " c"]
    counted: Mapping[Pair, Float[np.ndarray, " c"]]
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
        on_cal = [pair for pair in pairs if all((*pair, concept) in cal for concept in concepts)]
        return SharedResults(
            tuple(concepts),
            {pair: _column(test, pair, concepts, "f1") for pair in pairs},
            {pair: _column(cal, pair, concepts, "f1") for pair in on_cal},
            _column(test, pairs[0], concepts, "n_positive"),
            _column(cal, on_cal[0], concepts, "n_positive"),
            {pair: _counted(test, pair, concepts) for pair in pairs},
            {pair: held("/".join(pair)) for pair in pairs if "/".join(pair) in stored},
            held("positives") if "positives" in stored else np.empty((0, len(columns))),
        )

    def average(self, pair: Pair, average: str) -> float:
        """Average test F1, weights taken over these concepts alone."""
        return float(aggregate(self.f1[pair], self.positives)[average])

    def average_on_cal(self, average: str) -> dict[Pair, float]:
        """Average cal F1 of every kind and method."""
        return {pair: float(aggregate(f1, self.cal_positives)[average]) for pair, f1 in self.cal_f1.items()}

    def interval(self, pair: Pair, average: str) -> tuple[float, float] | None:
        """95 % interval of an average test F1; None where its resamples are not stored."""
        if pair not in self.nested or not len(self.drawn):
            return None
        drawn = np.asarray(aggregate(self.nested[pair], self.drawn)[average])
        point, counted = np.array(self.average(pair, average)), np.array(self.counted[pair].sum())
        low, high = f1_interval(drawn, point, counted)
        return float(low), float(high)

    def series(self, pair: Pair, *, stored: bool = True) -> Series:
        """Results of one kind and method for comparisons, with resamples if these are ``stored``."""
        nothing = np.empty((0, len(self.concepts)))
        nested, drawn = (self.nested[pair], self.drawn) if stored else (nothing, nothing)
        return Series(self.f1[pair], self.positives, nested, drawn, self.counted[pair])


def _column(
    rows: Mapping[tuple[str, str, str], Mapping[str, Any]], pair: Pair, concepts: Sequence[str], name: str
) -> Float[np.ndarray, " c"]:
    return np.array([rows[*pair, concept][name] for concept in concepts], dtype=np.float64)


def _counted(
    rows: Mapping[tuple[str, str, str], Mapping[str, Any]], pair: Pair, concepts: Sequence[str]
) -> Float[np.ndarray, " c"]:
    hits, alarms, misses = (_column(rows, pair, concepts, name) for name in ("tp", "fp", "fn"))
    return np.asarray(hits + alarms + misses)


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


def differences(
    pairing: Pairing, first: SharedResults, second: SharedResults, wanted: Sequence[tuple[Pair, Pair]]
) -> list[list[dict[str, Any]]]:
    """Compare two studies by `superactivators.detection.comparisons.compare`.

    Parameters
    ----------
    pairing : Pairing
    first, second : SharedResults
    wanted : sequence of (pair, pair)
        Kind and method of the first study, and of the second.

    Returns
    -------
    list of lists of dict
        Rows of each comparison: the averages, then every concept. ``difference`` is second minus first; ends and p are
        NaN where one of the two was not stored (``stored`` false) or is not estimable.
    """
    series: dict[str, Series] = {}
    stored: list[bool] = []
    for number, (one, other) in enumerate(wanted):
        stored.append(pairing.state != "not stored" and one in first.nested and other in second.nested)
        for side, results, pair in (("first", first, one), ("second", second, other)):
            series[f"{side}/{number}"] = results.series(pair, stored=stored[-1])
    pairs = [(f"second/{number}", f"first/{number}") for number in range(len(wanted))]
    table = compare(series, pairs, first.concepts, paired=pairing.state == "paired")
    rows = table.to_pylist()
    width = len(rows) // len(wanted) if wanted else 0
    return [
        [{**row, "stored": stored[number]} for row in rows[number * width : (number + 1) * width]]
        for number in range(len(wanted))
    ]
