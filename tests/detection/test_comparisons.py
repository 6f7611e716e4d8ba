"""Differences between methods against plain loops; Holm's correction against its definition."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superactivators.detection import comparisons as room
from superactivators.detection.bootstrap import Resamples, bootstrap
from superactivators.detection.comparisons import Series, compare, holm
from superactivators.detection.intervals import f1_interval
from superactivators.detection.metrics import fire_counts
from superactivators.detection.selection import Calibration
from superactivators.errors import StudyError

CONCEPTS = ("rare", "some", "many")


def study(seed: int, n: int = 120, resamples: int = 80, names: str = "abc") -> dict[str, Series]:
    """Free-threshold detectors of growing noise on the same samples."""
    random = np.random.default_rng(seed)
    labels = [random.random((n, 3)) < np.array([0.02, 0.15, 0.5]) for _ in range(2)]
    for split in labels:
        split[:3, 0] = True
        split[3:, 0] = False
    draws = Resamples.draw(n, n, resamples, seed)
    common = [random.standard_normal((n, 3)) for _ in range(2)]
    series = {}
    for number, name in enumerate(names):
        cal, test = (
            (1.5 * truth + shared + 0.4 * number * random.standard_normal((n, 3))).astype(np.float32)
            for truth, shared in zip(labels, common, strict=True)
        )
        fitted = Calibration.fit_free([cal], labels[0])
        boot = bootstrap(fitted, [cal], labels[0], test[None], labels[1], draws, ())
        hits, fired = (part[0] for part in fire_counts(test, labels[1], fitted.chosen_thresholds()[None]))
        series[name] = Series.of(boot, hits, fired, labels[1].sum(axis=0))
    return series


def slow_quantities(item: Series) -> list[tuple[float, list[float]]]:
    """Averages and concepts: value and resampled values, one number at a time."""
    n = len(item.resampled)

    def mean(values: np.ndarray, weights: np.ndarray) -> float:
        total = sum(weights)
        return sum(v * w for v, w in zip(values, weights, strict=True)) / total if total else 0.0

    even = np.ones(3)
    assert item.micro is not None
    assert item.resampled_micro is not None
    return [
        (mean(item.f1, item.positives), [mean(item.resampled[r], item.drawn[r]) for r in range(n)]),
        (mean(item.f1, even), [mean(item.resampled[r], even) for r in range(n)]),
        (item.micro, [float(item.resampled_micro[r]) for r in range(n)]),
        *((float(item.f1[c]), [float(item.resampled[r, c]) for r in range(n)]) for c in range(3)),
    ]


def slow_holm(p: list[float]) -> list[float]:
    """Holm 1979: the k-th smallest of m p-values times m - k + 1, never below one before it."""
    found = [math.nan] * len(p)
    known = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    highest = 0.0
    for k, (value, i) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - k)))
        found[i] = highest
    return found


@settings(max_examples=200, deadline=None)
@given(p=st.lists(st.sampled_from([0.001, 0.01, 0.01, 0.02, 0.04, 0.5, 1.0, math.nan]), max_size=9))
def test_holm_against_loops(p: list[float]) -> None:
    np.testing.assert_allclose(holm(np.array(p, dtype=np.float64)), slow_holm(p), rtol=1e-12)


def test_holm_of_a_worked_example() -> None:
    """As statsmodels' multipletests(..., method="holm") gives it."""
    found = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])


def test_differences_against_loops() -> None:
    series = study(0)
    pairs = [("b", "a"), ("c", "a"), ("b", "c")]
    table = compare(series, pairs, CONCEPTS)
    assert table.num_rows == 3 * 6
    rows = table.to_pylist()
    assert [row["name"] for row in rows[:6]] == ["weighted", "macro", "micro", *CONCEPTS]
    for k, (a, b) in enumerate(pairs):
        slow_a, slow_b = slow_quantities(series[a]), slow_quantities(series[b])
        for q, row in enumerate(rows[6 * k : 6 * k + 6]):
            (value_a, drawn_a), (value_b, drawn_b) = slow_a[q], slow_b[q]
            assert (row["a"], row["b"], row["paired"]) == (a, b, True)
            assert row["quantity"] == ("average" if q < 3 else "concept")
            assert row["difference"] == pytest.approx(value_a - value_b, abs=1e-12)
            assert row["estimable"] == (row["name"] != "rare")
            if not row["estimable"]:
                assert math.isnan(row["low"])
                assert math.isnan(row["high"])
                assert math.isnan(row["p"])
                continue
            mean_a, mean_b = sum(drawn_a) / 80, sum(drawn_b) / 80
            extreme = sum(
                abs(x - mean_a - (y - mean_b)) >= abs(value_a - value_b) - 1e-12
                for x, y in zip(drawn_a, drawn_b, strict=True)
            )
            assert row["p"] == pytest.approx((1 + extreme) / 81)
            rho = np.corrcoef(drawn_a, drawn_b)[0, 1]
            ends = []
            for item, value, drawn in ((series[a], value_a, drawn_a), (series[b], value_b, drawn_b)):
                assert item.counted is not None
                counted = item.counted.sum() if q < 3 else item.counted[q - 3]
                ends.append([float(end) for end in f1_interval(np.array(drawn), np.array(value), np.array(counted))])
            below, above = value_a - ends[0][0], ends[1][1] - value_b
            assert row["low"] == pytest.approx(
                value_a - value_b - math.sqrt(below**2 + above**2 - 2 * rho * below * above), abs=1e-9
            )
            below, above = value_b - ends[1][0], ends[0][1] - value_a
            assert row["high"] == pytest.approx(
                value_a - value_b + math.sqrt(below**2 + above**2 - 2 * rho * below * above), abs=1e-9
            )
    families = [[row for row in rows if row["name"] == name] for name in ("weighted", "macro", "micro")]
    families.append([row for row in rows if row["quantity"] == "concept"])
    for family in families:
        expected = slow_holm([row["p"] for row in family])
        np.testing.assert_allclose([row["p_holm"] for row in family], expected)
        assert {row["n_compared"] for row in family} == {sum(not math.isnan(row["p"]) for row in family)}
    assert [family[0]["n_compared"] for family in families] == [3, 3, 3, 6]


def test_swapping_the_two_turns_the_difference_round() -> None:
    series = study(1)
    table = compare(series, [("a", "b"), ("b", "a")], CONCEPTS).to_pylist()
    for one, other in zip(table[:6], table[6:], strict=True):
        np.testing.assert_allclose(one["difference"], -other["difference"])
        np.testing.assert_allclose([one["low"], one["high"]], [-other["high"], -other["low"]], atol=1e-12)
        np.testing.assert_allclose(one["p"], other["p"])


def test_pairing_narrows_the_intervals_of_methods_that_err_together() -> None:
    series = study(2, n=300)
    ends = {}
    for paired in (True, False):
        table = compare(series, [("a", "b")], CONCEPTS, paired=paired)
        assert table["paired"].to_pylist() == [paired] * 6
        ends[paired] = np.array(pc.subtract(table["high"], table["low"]))[[0, 1, 2, 4, 5]]
    assert (ends[True] < 0.9 * ends[False]).all()


def test_unpaired_resamples_are_independent_and_may_differ_in_number() -> None:
    one, other = study(3, resamples=400)["a"], study(4, n=140, resamples=300)["b"]
    row = compare({"a": one, "b": other}, [("a", "b")], CONCEPTS, paired=False).to_pylist()[0]
    (value_a, drawn_a), (value_b, drawn_b) = slow_quantities(one)[0], slow_quantities(other)[0]
    every = np.abs(np.subtract.outer(np.array(drawn_a) - np.mean(drawn_a), np.array(drawn_b) - np.mean(drawn_b)))
    exact = (every >= abs(value_a - value_b)).mean()
    assert row["p"] == pytest.approx(exact, abs=0.1)
    again = compare({"a": one, "b": other}, [("a", "b")], CONCEPTS, paired=False).to_pylist()[0]
    assert again == row
    # The same study against itself: equal draws must not meet.
    same = compare({"a": one, "b": replace(one)}, [("a", "b")], CONCEPTS, paired=False).to_pylist()
    assert [row["difference"] for row in same] == [0.0] * 6
    assert same[0]["high"] > 0.01
    with pytest.raises(StudyError, match="400 and 300 resamples; compare them with paired=False"):
        compare({"a": one, "b": other}, [("a", "b")], CONCEPTS)


def test_a_method_does_not_differ_from_itself() -> None:
    table = compare(study(5), [("a", "a")], CONCEPTS).to_pylist()
    for row in table:
        assert row["difference"] == 0
        if row["estimable"]:
            assert row["p"] == 1
            np.testing.assert_allclose(row["low"], -row["high"], atol=1e-12)
            assert 0 <= row["high"] < 0.1, "far narrower than either interval"


def test_without_micro_or_without_resamples() -> None:
    series = study(6)
    series["b"] = replace(series["b"], micro=None)
    table = compare(series, [("a", "b")], CONCEPTS)
    assert table["name"].to_pylist() == ["weighted", "macro", *CONCEPTS]
    bare = compare(study(6, resamples=0), [("a", "b")], CONCEPTS)
    assert np.isnan(bare["p"].to_numpy()).all()
    assert np.isnan(bare["low"].to_numpy()).all()
    assert np.isfinite(bare["difference"].to_numpy()).all()
    assert bare["n_compared"].to_pylist() == [0] * 6
    assert compare(series, [], CONCEPTS).num_rows == 0


def test_pairs_worked_on_together_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    series = study(7, names="abcd")
    pairs = list(itertools.permutations("abcd", 2))
    usual = compare(series, pairs, CONCEPTS)
    monkeypatch.setattr(room, "CHUNK_BYTES", 1)
    assert str(compare(series, pairs, CONCEPTS).to_pylist()) == str(usual.to_pylist())
    # A comparison does not depend on what else is compared, but for Holm's correction.
    alone = compare(series, [pairs[5]], CONCEPTS)
    part = usual.slice(5 * 6, 6)
    for name in ("difference", "low", "high", "p"):
        np.testing.assert_array_equal(alone[name].to_numpy(), part[name].to_numpy())


def test_wrong_names_and_shapes_are_refused() -> None:
    series = study(8)
    with pytest.raises(StudyError, match="called 'x'"):
        compare(series, [("a", "x")], CONCEPTS)
    with pytest.raises(StudyError, match="'a' has 3 concepts, but 2 names"):
        compare(series, [("a", "b")], CONCEPTS[:2])
