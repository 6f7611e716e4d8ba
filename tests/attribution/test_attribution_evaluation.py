"""Judging maps of a data set against plain loops: thresholds, measures, intervals, differences; no leak from test."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribution.test_measures import draw_cases, draw_maps, slow_measure, tokens_of
from superactivators.attribution.cases import Cases
from superactivators.attribution.evaluation import (
    ALL_TOKENS,
    AREAS,
    MEASURES,
    NO_OBJECTIVE,
    RANDOM,
    Outcome,
    draw,
    evaluate_maps,
    references,
)
from superactivators.attribution.tabulation import tabulate
from superactivators.detection.tail import DELTAS
from superactivators.errors import CalibrationError, StudyError

NAMES = ("red", "loud", "warm")
LEVELS = (0.02, 0.1, 0.3, 0.5, 0.8)
FIRST_TEST = 1000
NAN = float("nan")


def world(seed: int, n: int = 14) -> tuple[Cases, Cases]:
    return draw_cases(seed, n), draw_cases(seed + 1, n, first=FIRST_TEST)


def draw_areas(seed: int, test: Cases) -> dict[str, np.ndarray]:
    """Normalised areas are not defined for some cases."""
    random = np.random.default_rng(seed)
    areas = {name: random.random(len(test)) for name in AREAS}
    lost = random.random(len(test)) < 0.2
    areas["insertion"][lost] = areas["deletion"][lost] = np.nan
    return areas


def known_rows(cases: Cases, case: int) -> list[int]:
    return [r for r in tokens_of(cases, case) if cases.known[r]]


def cases_of(cases: Cases, concept: int) -> list[int]:
    """A concept's cases with a known in-concept token."""
    of_concept = [case for case in range(len(cases)) if cases.concepts[case] == concept]
    return [case for case in of_concept if any(cases.inside[r] for r in known_rows(cases, case))]


def slow_scaled(maps: np.ndarray, cases: Cases, case: int, scale: str) -> dict[int, float]:
    rows = tokens_of(cases, case)
    largest = max(abs(float(maps[r])) for r in rows) if scale == "relative" else 1.0
    return {r: float(maps[r]) / (largest or 1.0) for r in rows}


def slow_counts(maps: np.ndarray, cases: Cases, case: int, scale: str, threshold: float) -> tuple[int, int, int]:
    values = slow_scaled(maps, cases, case, scale)
    rows = known_rows(cases, case)
    fired = [r for r in rows if values[r] >= threshold]
    return sum(bool(cases.inside[r]) for r in fired), len(fired), sum(bool(cases.inside[r]) for r in rows)


def slow_quantile(values: list[float], delta: float) -> float:
    values = sorted(values)
    rank = (len(values) - 1) * (1 - delta)
    rank = round(rank) if abs(rank - round(rank)) < 1e-6 else rank
    low = math.floor(rank)
    high = min(low + 1, len(values) - 1)
    return values[low] + (rank - low) * (values[high] - values[low])


def slow_choice(
    maps: np.ndarray, cal: Cases, concept: int, deltas: tuple[float, ...]
) -> tuple[str, float, float, float]:
    best = ("raw", NAN, math.inf, -1.0)
    held = cases_of(cal, concept)
    for scale in ("raw", "relative"):
        inside = [
            value
            for case in held
            for r, value in slow_scaled(maps, cal, case, scale).items()
            if cal.known[r] and cal.inside[r]
        ]
        for delta in deltas if inside else ():
            threshold = slow_quantile(inside, delta)
            counts = [slow_counts(maps, cal, case, scale, threshold) for case in held]
            hits, fired, positives = (sum(count[k] for count in counts) for k in range(3))
            f1 = 2 * hits / (fired + positives)
            if f1 > best[3]:
                best = (scale, delta, threshold, f1)
    return best


class Slow:
    """Everything about one explainer and objective, one case at a time."""

    def __init__(self, cal: Cases, cal_maps: np.ndarray, test: Cases, maps: np.ndarray, areas: dict) -> None:
        self.choices = [slow_choice(cal_maps, cal, c, LEVELS) for c in range(3)]
        self.samples = sorted(set(test.samples.tolist()))
        self.cases: dict[int, list[tuple[int, dict[str, tuple[float, float]]]]] = {}
        for c in range(3):
            scale, delta, threshold, _ = self.choices[c]
            self.cases[c] = []
            for case in [] if math.isnan(delta) else cases_of(test, c):
                rows = known_rows(test, case)
                hits, fired, positives = slow_counts(maps, test, case, scale, threshold)
                parts = {"token_f1": (2 * hits, fired + positives), "iou": (hits, fired + positives - hits)}
                means = slow_measure([float(maps[r]) for r in rows], [bool(test.inside[r]) for r in rows])
                means |= {name: float(values[case]) for name, values in areas.items()}
                parts |= {name: (0.0, 0.0) if math.isnan(v) else (v, 1.0) for name, v in means.items()}
                self.cases[c].append((self.samples.index(int(test.samples[case])), parts))

    def concept(self, name: str, c: int, times: list[int]) -> tuple[float, int]:
        drawn = [(times[s], parts[name]) for s, parts in self.cases[c] if parts[name][1] > 0]
        below = sum(t * part[1] for t, part in drawn)
        return (sum(t * part[0] for t, part in drawn) / below if below else NAN), sum(t for t, _ in drawn)

    def average(self, name: str, times: list[int]) -> tuple[float, float]:
        values = [self.concept(name, c, times) for c in range(3)]
        values = [(value, n) for value, n in values if n]
        if not values:
            return NAN, NAN
        weighted = sum(value * n for value, n in values) / sum(n for _, n in values)
        return weighted, sum(value for value, _ in values) / len(values)


def slow_ends(values: list[float], n_samples: int) -> tuple[float, float]:
    known = [value for value in values if not math.isnan(value)]
    if n_samples < 5 or len(known) < 0.95 * len(values):
        return NAN, NAN
    return tuple(np.quantile(known, [0.025, 0.975]).tolist())  # type: ignore[return-value]


def rows_of(table, **wanted: str) -> dict:
    (row,) = [row for row in table.to_pylist() if all(row[key] == value for key, value in wanted.items())]
    return row


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 14), digits=st.sampled_from([0, 1, 6]))
def test_choice_on_cal_and_every_measure_against_loops(seed: int, n: int, digits: int) -> None:
    cal, test = world(seed, n)
    cal_maps, maps = draw_maps(seed, cal, digits), draw_maps(seed + 1, test, digits)
    areas = draw_areas(seed, test)
    found = evaluate_maps(cal, cal_maps, test, maps, 3, LEVELS, areas)
    slow = Slow(cal, cal_maps, test, maps, areas)
    once = [1] * len(slow.samples)
    for c, (scale, delta, threshold, f1) in enumerate(slow.choices):
        assert found.estimable[c] == bool(slow.cases[c])
        np.testing.assert_equal(found.choice.delta[c], delta)
        if not math.isnan(delta):
            assert ("raw", "relative")[found.choice.scale[c]] == scale
            assert found.choice.threshold[c] == pytest.approx(threshold, rel=1e-12, abs=1e-12)
            assert found.choice.f1[c] == pytest.approx(f1)
    for name in MEASURES:
        result = found.of_concepts(name, np.ones((1, found.n_samples)))
        for c in range(3):
            value, cases = slow.concept(name, c, once)
            np.testing.assert_allclose(result.value[0, c], value, atol=1e-9, err_msg=name)
            assert result.cases[0, c] == cases


@pytest.mark.parametrize(("seed", "digits"), [(0, 6), (1, 1), (2, 0)])
def test_tables_against_loops(seed: int, digits: int) -> None:
    cal, test = world(seed, 13)
    draws = draw(test, 60, seed)
    outcomes: dict[tuple[str, str], Outcome] = {}
    slow: dict[tuple[str, str], Slow] = {}
    keys = [(name, side) for name in ("rise", "lime") for side in ("concept", "superactivators")] + [
        ("direct", "concept")
    ]
    for number, key in enumerate(keys):
        cal_maps, maps = draw_maps(10 * seed + number, cal, digits), draw_maps(10 * seed + number + 5, test, digits)
        areas = draw_areas(seed, test)
        if key[0] == "lime":
            areas["insertion"] = areas["insertion"] + number
        outcomes[key] = evaluate_maps(cal, cal_maps, test, maps, 3, LEVELS, areas)
        slow[key] = Slow(cal, cal_maps, test, maps, areas)
    tables = tabulate(outcomes, NAMES, draws)
    assert tables.aggregates.num_rows == len(keys) * len(MEASURES)
    assert tables.concepts.num_rows == len(keys) * 3
    assert tables.comparisons.num_rows == 2 * len(MEASURES)
    times = draws.tolist()
    resampled: dict[tuple[tuple[str, str], str], list[float]] = {}
    once = [1] * draws.shape[1]
    for key in keys:
        for name in MEASURES:
            row = rows_of(tables.aggregates, explainer=key[0], objective=key[1], measure=name)
            value, macro = slow[key].average(name, once)
            pairs = [slow[key].average(name, drawn) for drawn in times]
            resampled[key, name] = [pair[0] for pair in pairs]
            assert [row["value"], row["macro"]] == pytest.approx([value, macro], abs=1e-9)
            for prefix, side in (("", 0), ("macro_", 1)):
                ends = slow_ends([pair[side] for pair in pairs], draws.shape[1])
                assert (row[f"{prefix}low"], row[f"{prefix}high"]) == pytest.approx(ends, abs=1e-9, nan_ok=True)
            assert row["cases"] == sum(slow[key].concept(name, c, once)[1] for c in range(3))
            for c, concept in enumerate(NAMES):
                row = rows_of(tables.concepts, explainer=key[0], objective=key[1], concept=concept)
                assert row[name] == pytest.approx(slow[key].concept(name, c, once)[0], abs=1e-9, nan_ok=True)
                assert row["cases"] == len(cases_of(test, c))
                scale, delta, threshold, _ = slow[key].choices[c]
                assert (row["scale"], row["delta"], row["threshold"]) == (scale, delta, pytest.approx(threshold))
    for name in MEASURES:
        ps = []
        for explainer in ("rise", "lime"):
            row = rows_of(tables.comparisons, explainer=explainer, measure=name)
            sides = [(explainer, "superactivators"), (explainer, "concept")]
            value = slow[sides[0]].average(name, once)[0] - slow[sides[1]].average(name, once)[0]
            drawn = [a - b for a, b in zip(resampled[sides[0], name], resampled[sides[1], name], strict=True)]
            mean = sum(drawn) / len(drawn)
            ps.append((1 + sum(abs(v - mean) >= abs(value) - 1e-12 for v in drawn)) / (1 + len(drawn)))
            assert row["difference"] == pytest.approx(value, abs=1e-9)
            assert (row["low"], row["high"]) == pytest.approx(slow_ends(drawn, draws.shape[1]), abs=1e-9)
            assert row["p"] == pytest.approx(ps[-1])
        small, large = min(ps), max(ps)
        corrected = {small: min(1, 2 * small), large: min(1, max(2 * small, large))}
        for explainer, p in zip(("rise", "lime"), ps, strict=True):
            row = rows_of(tables.comparisons, explainer=explainer, measure=name)
            assert row["p_holm"] == pytest.approx(min(1, 2 * p) if small == large else corrected[p])


def test_test_labels_and_maps_change_no_threshold() -> None:
    cal, test = world(7)
    cal_maps, maps = draw_maps(7, cal, 6), draw_maps(8, test, 6)
    found = evaluate_maps(cal, cal_maps, test, maps, 3)
    other = Cases(test.samples, test.concepts, test.offsets, ~test.inside, test.known)
    leaked = evaluate_maps(cal, cal_maps, other, -maps, 3)
    for name in ("scale", "delta", "threshold", "f1"):
        np.testing.assert_array_equal(getattr(leaked.choice, name), getattr(found.choice, name))
    assert found.parts["token_f1"][0].sum() != leaked.parts["token_f1"][0].sum()
    changed = Cases(cal.samples, cal.concepts, cal.offsets, ~cal.inside, cal.known)
    assert (evaluate_maps(changed, cal_maps, test, maps, 3).choice.threshold != found.choice.threshold).any()


def test_the_order_of_cases_does_not_matter() -> None:
    cal, test = world(3)
    cal_maps, maps, areas = draw_maps(3, cal, 2), draw_maps(4, test, 2), draw_areas(3, test)
    random, draws = np.random.default_rng(0), draw(test, 50)
    order, cal_order = random.permutation(len(test)), random.permutation(len(cal))
    moved = {name: values[order] for name, values in areas.items()}
    found = evaluate_maps(cal, cal_maps, test, maps, 3, DELTAS, areas)
    turned = evaluate_maps(
        cal.subset(cal_order),
        cal_maps[cal.rows(cal_order)],
        test.subset(order),
        maps[test.rows(order)],
        3,
        DELTAS,
        moved,
    )
    tables = [tabulate({("x", "concept"): outcome}, NAMES, draws) for outcome in (found, turned)]
    for name in ("aggregates", "concepts"):
        one, two = (getattr(table, name).to_pylist() for table in tables)
        for a, b in zip(one, two, strict=True):
            assert list(a.values()) == pytest.approx(list(b.values()), abs=1e-12, nan_ok=True)


def test_a_relative_scale_is_chosen_where_samples_differ_in_size_and_only_there() -> None:
    random = np.random.default_rng(0)
    made = []
    for first in (0, FIRST_TEST):
        n, length = 20, 8
        samples, offsets = np.arange(first, first + n), np.arange(n + 1) * length
        inside = random.random(n * length) < 0.4
        inside[::length] = True
        cases = Cases(samples, np.zeros(n, dtype=np.int64), offsets, inside, np.ones(n * length, dtype=bool))
        clean = (inside + 0.1 * random.random(n * length)).astype(np.float32)
        made.append((cases, clean, clean * np.repeat(10.0 ** random.uniform(-4, 4, n), length).astype(np.float32)))
    (cal, cal_clean, cal_sized), (test, clean, sized) = made
    plain = evaluate_maps(cal, cal_clean, test, clean, 1)
    varied = evaluate_maps(cal, cal_sized, test, sized, 1)
    assert plain.choice.scale.tolist() == [0]  # a tie goes to the raw map
    assert varied.choice.scale.tolist() == [1]
    for outcome in (plain, varied):
        assert outcome.choice.f1[0] > 0.96  # the lowest candidate leaves out 5 % of the tokens
        above, below = outcome.parts["token_f1"]
        assert above.sum() / below.sum() > 0.9


def test_samples_are_drawn_whole_and_intervals_need_five() -> None:
    cal, test = world(5)
    maps = draw_maps(6, test, 6)
    outcome = evaluate_maps(cal, draw_maps(5, cal, 6), test, maps, 3)
    once = tabulate({("x", "concept"): outcome}, NAMES, np.ones((4, outcome.n_samples), dtype=np.int32))
    for row in once.aggregates.to_pylist():
        assert row["low"] == row["high"] == pytest.approx(row["value"])
        assert row["macro_low"] == row["macro_high"] == pytest.approx(row["macro"])
    none = tabulate({("x", "concept"): outcome}, NAMES, draw(test, 0))
    assert all(math.isnan(row["low"]) for row in none.aggregates.to_pylist())
    few = test.subset(np.flatnonzero(test.samples < FIRST_TEST + 4))
    small = evaluate_maps(cal, draw_maps(5, cal, 6), few, maps[: len(few.inside)], 3)
    table = tabulate({("x", "concept"): small}, NAMES, draw(few, 40)).aggregates.to_pylist()
    assert small.n_samples == 4
    assert all(math.isnan(row["low"]) and not math.isnan(row["value"]) for row in table)


@pytest.mark.parametrize(("empty", "has_interval"), [(2, True), (3, False)])
def test_few_resamples_without_a_case_are_left_out_and_many_mean_no_interval(empty: int, has_interval: bool) -> None:
    cal, test = world(5)
    outcome = evaluate_maps(cal, draw_maps(5, cal, 6), test, draw_maps(6, test, 6), 3)
    draws = draw(test, 40)
    draws[:empty] = 0
    rows = tabulate({("x", "concept"): outcome}, NAMES, draws).aggregates.to_pylist()
    full = tabulate({("x", "concept"): outcome}, NAMES, draws[empty:]).aggregates.to_pylist()
    for row, other in zip(rows, full, strict=True):
        expected = [other[name] if has_interval else NAN for name in ("low", "high", "macro_low", "macro_high")]
        assert [row[name] for name in ("low", "high", "macro_low", "macro_high")] == pytest.approx(
            expected, nan_ok=True
        )


def test_concepts_without_cal_or_test_cases_are_left_out() -> None:
    cal, test = world(9)
    cal = cal.subset(np.flatnonzero(cal.concepts != 0))
    test = test.subset(np.flatnonzero(test.concepts != 1))
    cal_maps, maps = draw_maps(9, cal, 6), draw_maps(10, test, 6)
    outcome = evaluate_maps(cal, cal_maps, test, maps, 3)
    assert outcome.estimable.tolist() == [False, False, True]
    tables = tabulate({("x", "concept"): outcome}, NAMES, draw(test, 20))
    red, loud, warm = tables.concepts.to_pylist()
    assert (red["scale"], loud["scale"] is not None) == (None, True)
    assert math.isnan(red["threshold"])
    assert all(math.isnan(row[name]) for row in (red, loud) for name in MEASURES)
    for row in tables.aggregates.to_pylist():
        assert row["value"] == row["macro"] == pytest.approx(warm[row["measure"]])
        assert row["cases"] == len(cases_of(test, 2))
    assert red["cases"] > 0
    assert tables.comparisons.num_rows == 0
    assert tables.comparisons.column_names == ["explainer", "measure", "difference", "low", "high", "p", "p_holm"]


def test_cases_that_cannot_be_measured_are_counted() -> None:
    cal, test = draw_cases(12, 20, longest=3), draw_cases(13, 20, first=FIRST_TEST, longest=3)
    empty = [case for case in range(len(test)) if not any(test.inside[r] for r in known_rows(test, case))]
    assert empty
    outcome = evaluate_maps(cal, draw_maps(0, cal, 6), test, draw_maps(1, test, 6), 3)
    assert outcome.left_out == len(empty)
    assert outcome.cases.sum() == len(test) - len(empty)
    assert outcome.n_samples == len(set(test.samples.tolist()))


def test_references_mark_every_token_or_know_nothing() -> None:
    cal, test = world(20, 60)
    found = references(cal, test, 3, seed=4)
    assert list(found) == [(ALL_TOKENS, NO_OBJECTIVE), (RANDOM, NO_OBJECTIVE)]
    every = found[ALL_TOKENS, NO_OBJECTIVE].of_concepts("token_f1", np.ones((1, 60))).value[0]
    ranked = found[ALL_TOKENS, NO_OBJECTIVE].of_concepts("average_precision", np.ones((1, 60))).value[0]
    for c in range(3):
        rows = [[bool(test.inside[r]) for r in known_rows(test, case)] for case in cases_of(test, c)]
        inside, total = sum(map(sum, rows)), sum(map(len, rows))
        assert every[c] == pytest.approx(2 * inside / (inside + total))
        assert ranked[c] == pytest.approx(np.mean([sum(row) / len(row) for row in rows]))
    noise = found[RANDOM, NO_OBJECTIVE]
    again = references(cal, test, 3, seed=4)[RANDOM, NO_OBJECTIVE]
    np.testing.assert_array_equal(noise.parts["rank"][0], again.parts["rank"][0])
    other = references(cal, test, 3, seed=5)[RANDOM, NO_OBJECTIVE]
    assert (noise.parts["rank"][0] != other.parts["rank"][0]).any()


def test_what_does_not_fit_is_refused() -> None:
    cal, test = world(1)
    cal_maps, maps = draw_maps(1, cal, 6), draw_maps(2, test, 6)
    with pytest.raises(CalibrationError, match=r"14 samples are in cal and in test, the first is number 0; thresholds"):
        evaluate_maps(cal, cal_maps, cal, cal_maps, 3)
    with pytest.raises(StudyError, match=r"areas 'removal' of .* give any of insertion, deletion"):
        evaluate_maps(cal, cal_maps, test, maps, 3, DELTAS, {"removal": np.zeros(len(test))})
    broken = maps.copy()
    broken[0] = np.nan
    with pytest.raises(StudyError, match=r"1 of \d+ values of the maps are not finite"):
        evaluate_maps(cal, cal_maps, test, broken, 3)
    outcome = evaluate_maps(cal, cal_maps, test, maps, 3)
    with pytest.raises(StudyError, match=r"x/concept has 3 concepts and 14 test samples, but 2 names and draws of 14"):
        tabulate({("x", "concept"): outcome}, NAMES[:2], draw(test, 5))
    with pytest.raises(StudyError, match=r"but 3 names and draws of 13 samples"):
        tabulate({("x", "concept"): outcome}, NAMES, draw(test, 5)[:, 1:])
    part = test.subset(np.arange(len(test) - 1))
    shorter = evaluate_maps(cal, cal_maps, part, maps[: len(part.inside)], 3)
    with pytest.raises(StudyError, match=r"x/superactivators and x/concept are of other test cases"):
        tabulate({("x", "concept"): outcome, ("x", "superactivators"): shorter}, NAMES, draw(test, 5))
    with pytest.raises(StudyError, match="no explainer"):
        tabulate({}, NAMES, draw(test, 5))
