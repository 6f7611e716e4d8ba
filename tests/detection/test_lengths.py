"""False alarms against length, and intervals of rates, against loops and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from superactivators.detection.lengths import ALL, exact_bounds, length_table, wilson
from superactivators.errors import StudyError

quick = settings(derandomize=True, deadline=None, max_examples=60)


@pytest.mark.parametrize(("hits", "trials"), [(0, 5), (1, 5), (5, 5), (3, 200), (0, 1), (199, 200), (50, 101)])
def test_intervals_of_rates_against_scipy(hits: int, trials: int) -> None:
    test = binomtest(hits, trials)
    low, high = wilson(np.array([hits]), np.array([trials]))
    expected = test.proportion_ci(0.95, "wilson")
    np.testing.assert_allclose([low[0], high[0]], [expected.low, expected.high], atol=1e-12)
    low, high = exact_bounds(np.array([hits]), np.array(trials))
    expected = test.proportion_ci(0.9, "exact")
    np.testing.assert_allclose([low[0], high[0]], [expected.low, expected.high], atol=1e-12)


def test_nothing_is_known_of_a_rate_without_trials() -> None:
    assert [float(bound) for bound in exact_bounds(np.array(0), np.array(0))] == [0, 1]
    assert all(math.isnan(float(bound)) for bound in wilson(np.array(0), np.array(0)))


def slow(
    pooled: np.ndarray, thresholds: np.ndarray, labels: np.ndarray, lengths: np.ndarray, low: int, high: int, c: int
) -> tuple[int, int]:
    negatives = alarms = 0
    for column in range(pooled.shape[1]) if c < 0 else [c]:
        for i in range(len(pooled)):
            if low <= lengths[i] <= high and not labels[i, column]:
                negatives += 1
                alarms += float(pooled[i, column]) >= thresholds[column]
    return negatives, alarms


def slow_auroc(pooled: np.ndarray, thresholds: np.ndarray, labels: np.ndarray, lengths: np.ndarray, c: int) -> float:
    alarms, quiet = [], []
    for column in range(pooled.shape[1]) if c < 0 else [c]:
        for i in range(len(pooled)):
            if not labels[i, column]:
                (alarms if float(pooled[i, column]) >= thresholds[column] else quiet).append(int(lengths[i]))
    if not alarms or not quiet:
        return math.nan
    wins = sum((a > q) + 0.5 * (a == q) for a in alarms for q in quiet)
    return wins / len(alarms) / len(quiet)


@quick
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 7), st.sampled_from([1, 4, 60]))
def test_the_table_against_loops(seed: int, n: int, bins: int, longest: int) -> None:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, longest + 1, size=n)
    pooled = np.round(random.normal(size=(n, 3)), 1).astype(np.float32)
    pooled[random.random((n, 3)) < 0.1] = -np.inf
    thresholds = np.array([0.3, float(np.float32(0.5)), 9.0])
    labels = random.random((n, 3)) < np.array([0.3, 0.6, 1.0])
    rows = length_table(pooled, thresholds, labels, lengths, bins, concepts=["a", "b", "c"]).to_pylist()
    bounds = [(row["low"], row["high"]) for row in rows if row["concept"] == ALL]
    assert 1 <= len(bounds) <= bins
    assert [row["concept"] for row in rows] == [name for name in (ALL, "a", "b", "c") for _ in bounds]
    assert (bounds[0][0], bounds[-1][1]) == (lengths.min(), lengths.max())
    held = [[int(length) for length in lengths if low <= length <= high] for low, high in bounds]
    assert sum(len(own) for own in held) == n
    for own, (low, high) in zip(held, bounds, strict=True):
        assert (min(own), max(own)) == (low, high)
    for row in rows:
        c = {ALL: -1, "a": 0, "b": 1, "c": 2}[row["concept"]]
        assert (row["low"], row["high"]) in bounds
        negatives, alarms = slow(pooled, thresholds, labels, lengths, row["low"], row["high"], c)
        assert (row["negatives"], row["false_positives"]) == (negatives, alarms)
        if negatives:
            expected = binomtest(alarms, negatives).proportion_ci(0.95, "wilson")
            assert row["fpr"] == pytest.approx(alarms / negatives)
            assert row["fpr_low"] == pytest.approx(expected.low, abs=1e-12)
            assert row["fpr_high"] == pytest.approx(expected.high, abs=1e-12)
        else:
            assert row["fpr"] is row["fpr_low"] is row["fpr_high"] is None
        trend = slow_auroc(pooled, thresholds, labels, lengths, c)
        assert row["length_auroc"] == (None if math.isnan(trend) else pytest.approx(trend, abs=1e-12))


def test_bins_hold_about_equally_many_samples() -> None:
    lengths = np.random.default_rng(0).permutation(1000) + 3
    nothing, labels = np.zeros((1000, 1), dtype=np.float32), np.zeros((1000, 1), dtype=bool)
    table = length_table(nothing, np.array([1.0]), labels, lengths)
    assert table["negatives"].to_pylist() == [200] * 10
    assert table["low"].to_pylist()[:5] == [3, 203, 403, 603, 803]
    assert table["high"].to_pylist()[:5] == [202, 402, 602, 802, 1002]
    assert table["length_auroc"].null_count == 10


def test_samples_of_one_length_are_one_bin() -> None:
    pooled, labels = np.ones((8, 2), dtype=np.float32), np.zeros((8, 2), dtype=bool)
    pooled[:4] = 0
    table = length_table(pooled, np.array([0.5, 2.0]), labels, np.full(8, 256)).to_pylist()
    assert [(row["concept"], row["low"], row["high"]) for row in table] == [(x, 256, 256) for x in (ALL, "0", "1")]
    assert [row["fpr"] for row in table] == [0.25, 0.5, 0.0]
    assert [row["length_auroc"] for row in table] == [0.5, 0.5, None]


def test_samples_in_another_order_give_the_same_table() -> None:
    random = np.random.default_rng(1)
    pooled, labels = random.normal(size=(50, 2)).astype(np.float32), random.random((50, 2)) < 0.4
    lengths, order = random.integers(1, 20, size=50), random.permutation(50)
    thresholds = np.array([0.1, 0.4])
    usual = length_table(pooled, thresholds, labels, lengths)
    assert length_table(pooled[order], thresholds, labels[order], lengths[order]).equals(usual)


def test_impossible_tables_are_refused() -> None:
    nothing, labels = np.zeros((2, 1), dtype=np.float32), np.zeros((2, 1), dtype=bool)
    with pytest.raises(StudyError, match="at least 1 bin; got 2, 0"):
        length_table(nothing, np.array([1.0]), labels, np.array([1, 2]), 0)
    with pytest.raises(StudyError, match="got 0, 5"):
        length_table(nothing[:0], np.array([1.0]), labels[:0], np.array([], dtype=np.int64))
