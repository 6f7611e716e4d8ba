"""Intervals against their textbook formulas, and their coverage on small simulated studies."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from superactivators.detection.bootstrap import Resamples, bootstrap
from superactivators.detection.comparisons import Series, compare
from superactivators.detection.intervals import damped, estimable, f1_interval, interval
from superactivators.detection.metrics import f1_of, fire_counts
from superactivators.detection.selection import Calibration
from superactivators.detection.tail import Tail

Z = 1.959963984540054


def wilson(share: float, n: float) -> tuple[float, float]:
    """Roots of (p - share)^2 = z^2 p (1 - p) / n."""
    a, b, c = 1 + Z**2 / n, -(2 * share + Z**2 / n), share**2
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def spread(standard_deviation: float) -> np.ndarray:
    """Resamples with exactly this standard deviation, around anything."""
    return np.array([-1.0, 1.0]) * standard_deviation + 0.3


@settings(max_examples=200, deadline=None)
@given(hits=st.integers(0, 40), misses=st.integers(0, 40), alarms=st.integers(0, 40), loose=st.floats(1.0, 4.0))
def test_the_interval_is_wilsons_on_the_share_of_hits(hits: int, misses: int, alarms: int, loose: float) -> None:
    n = hits + misses + alarms
    if not n:
        return
    share = hits / n
    estimate = 2 * share / (1 + share)
    imagined = (hits + Z**2 / 2) / (n + Z**2)
    # Resamples as variable as the binomial share would be for n / loose samples, seen on the scale of F1.
    variance = imagined * (1 - imagined) / (n / loose) * ((1 + share) ** -2 * 2) ** 2
    low, high = f1_interval(spread(math.sqrt(variance)), np.array(estimate), np.array(float(n)))
    expected = wilson(share, max(n / loose, 1.0))
    for found, end in zip((low, high), expected, strict=True):
        assert float(found) == pytest.approx(2 * end / (1 + end), abs=1e-9)
    assert 0 <= low <= estimate <= high <= 1


def test_fixed_thresholds_give_the_binomial_interval_of_scipy() -> None:
    low, high = f1_interval(np.zeros((5, 1)), np.array([2 * 0.75 / 1.75]), np.array([40.0]))
    expected = binomtest(30, 40).proportion_ci(method="wilson")
    np.testing.assert_allclose([low[0], high[0]], [2 * end / (1 + end) for end in expected], rtol=1e-12)


@pytest.mark.parametrize("estimate", [0.0, 1.0])
def test_all_or_no_hits_have_an_interval_with_width(estimate: float) -> None:
    for resamples in (np.full((9, 1), estimate), np.linspace(0.4, 0.6, 9)[:, None]):
        low, high = f1_interval(resamples, np.array([estimate]), np.array([30.0]))
        assert min(abs(low[0] - estimate), abs(high[0] - estimate)) == 0
        assert high[0] - low[0] > 0.05


def test_no_resample_gives_no_interval() -> None:
    low, high = f1_interval(np.empty((0, 3)), np.full(3, 0.5))
    assert np.isnan(low).all()
    assert np.isnan(high).all()


def test_half_of_the_added_variance_stays() -> None:
    random = np.random.default_rng(0)
    fixed, added = random.standard_normal((2, 200_000))
    variance = damped(fixed + 3 * added, fixed).var()
    assert variance == pytest.approx(1 + 9 / 2, rel=0.02)
    np.testing.assert_array_equal(damped(fixed, fixed), fixed)


def test_too_few_positives_are_not_estimable() -> None:
    drawn = np.full((100, 4), 7.0)
    drawn[:5, 2], drawn[:6, 3] = 0, 0
    assert estimable(np.array([4.0, 5.0, 9.0, 9.0]), drawn).tolist() == [False, True, True, False]
    assert estimable(np.array([4.0, 5.0]), np.empty((0, 2))).tolist() == [False, True]


# ------------------------------------------------------------------ coverage

PREVALENCE = np.array([0.08, 0.4])
N, STUDIES, DRAWS = 200, 200, 80
LEVELS = (0.05, 0.2, 0.4, 0.6, 0.8)


def split(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two methods that share half of their noise, [methods, n, concepts], and labels."""
    labels = generator.random((n, 2)) < PREVALENCE
    noise = np.sqrt(0.5) * (generator.standard_normal((1, n, 2)) + generator.standard_normal((2, n, 2)))
    return (noise + np.array([2.0, 1.5])[:, None, None] * labels).astype(np.float32), labels


@cache
def simulated() -> dict[str, np.ndarray]:
    """Points, ends and the detectors' true F1 by study: weighted average and both concepts of the first method."""
    far, far_labels = split(np.random.default_rng(0), 50_000)
    rows: dict[str, list[np.ndarray]] = {}
    for number in range(STUDIES):
        generator = np.random.default_rng([2, number])
        (cal, cal_labels), (test, test_labels) = split(generator, N), split(generator, N)
        draws = Resamples.draw(N, N, DRAWS, number)
        series: dict[str, Series] = {}
        for method in (0, 1):
            scores = [cal[method]]
            fitted = Calibration.fit([Tail.of_samples(scores[0], cal_labels)], scores, cal_labels, LEVELS)
            boot = bootstrap(fitted, scores, cal_labels, test[method : method + 1], test_labels, draws, LEVELS)
            values = fitted.chosen_thresholds()
            hits, fired = (part[0] for part in fire_counts(test[method], test_labels, values[None]))
            positives = test_labels.sum(axis=0).astype(float)
            series[str(method)] = Series.of(boot, hits, fired, positives)
            if method:
                continue
            f1, counted = f1_of(hits, fired, positives), fired + positives - hits
            real = f1_of(*(part[0] for part in fire_counts(far[0], far_labels, values[None])), far_labels.sum(axis=0))
            for name, found in (
                ("point", f1),
                ("detector", real),
                ("fixed", np.stack(f1_interval(boot.fixed, f1, counted))),
                ("nested", np.stack(f1_interval(boot.damped, f1, counted))),
                ("percentile", np.stack(interval(boot.nested))),
            ):
                rows.setdefault(name, []).append(found)
        table = compare(series, [("0", "1")], ["rare", "common"]).to_pydict()
        rows.setdefault("difference", []).append(np.array([table[key] for key in ("low", "difference", "high")]))
        rows.setdefault("p", []).append(np.array(table["p"]))
    return {name: np.array(held) for name, held in rows.items()}


def covers(ends: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.asarray(((ends[:, 0] <= truth) & (truth <= ends[:, -1])).mean(axis=0))


def halved(ends: np.ndarray, point: np.ndarray) -> np.ndarray:
    return point[:, None] + (ends - point[:, None]) / 2


def test_fixed_intervals_cover_the_detector() -> None:
    held = simulated()
    found = covers(held["fixed"], held["detector"])
    assert ((found > 0.9) & (found < 0.985)).all(), found
    assert (covers(halved(held["fixed"], held["point"]), held["detector"]) < 0.8).all()


def test_nested_intervals_cover_the_procedure() -> None:
    held = simulated()
    truth = held["point"].mean(axis=0)
    found = covers(held["nested"], truth)
    assert ((found > 0.9) & (found < 0.985)).all(), found
    assert (covers(halved(held["nested"], held["point"]), truth) < 0.8).all()


def test_intervals_of_paired_differences_cover_and_tests_agree_with_them() -> None:
    held = simulated()
    difference = held["difference"]
    truth = difference[:, 1].mean(axis=0)
    found = covers(difference, truth)
    assert ((found > 0.9) & (found < 0.99)).all(), found
    excludes = (difference[:, 0] > 0) | (difference[:, 2] < 0)
    assert ((held["p"] < 0.05) == excludes).mean() > 0.93
    assert 0.05 < excludes.mean() < 0.95, "neither answer is a matter of course"
