"""Measures of maps against plain loops over cases and tokens, their properties, and what is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superactivators.attribution.cases import Cases
from superactivators.attribution.measures import MEASURES, SCALES, measure, scaled, token_counts
from superactivators.errors import DataError, StudyError
from superactivators.ragged import segment_ids


def draw_cases(seed: int, n: int = 12, concepts: int = 3, first: int = 0, longest: int = 9) -> Cases:
    """Samples with one to three concepts, some tokens unknown, some cases without a known in-concept token."""
    random = np.random.default_rng(seed)
    pairs = [(first + s, c) for s in range(n) for c in range(concepts) if random.random() < 0.6 or c == s % concepts]
    length = {s: int(random.integers(1, longest + 1)) for s, _ in pairs}
    known = {s: random.random(length[s]) < 0.8 for s in length}
    offsets = np.cumsum([0, *(length[s] for s, _ in pairs)])
    inside = random.random(offsets[-1]) < 0.45
    flags = np.concatenate([known[s] for s, _ in pairs]) if pairs else np.zeros(0, dtype=bool)
    samples, numbers = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    return Cases(samples, numbers, offsets.astype(np.int64), inside, flags)


def draw_maps(seed: int, cases: Cases, digits: int) -> np.ndarray:
    """Maps that know something; few digits make ties, and every fifth case is all zero."""
    random = np.random.default_rng(seed)
    maps = np.round(random.standard_normal(len(cases.inside)) + cases.inside, digits).astype(np.float32)
    maps[segment_ids(cases.offsets) % 5 == 4] = 0
    return maps


def tokens_of(cases: Cases, case: int) -> range:
    return range(int(cases.offsets[case]), int(cases.offsets[case + 1]))


def slow_measure(values: list[float], truth: list[bool]) -> dict[str, float]:
    """One case, known tokens only; ties are averaged over all orders of the tied tokens by their definition."""
    n, k = len(values), sum(truth)
    sizes = sorted(abs(v) for v in values)
    total = sum(sizes)
    gini = 1 - 2 * sum(v * (n - rank + 0.5) / n for rank, v in enumerate(sizes, 1)) / total if total else 0.0
    if k == 0:
        return {**dict.fromkeys(MEASURES, float("nan")), "sparseness": gini if n else float("nan")}
    precision = 0.0
    for level in sorted(set(values), reverse=True):
        reached = [t for v, t in zip(values, truth, strict=True) if v >= level]
        new = sum(t for v, t in zip(values, truth, strict=True) if v == level)
        precision += new / k * sum(reached) / len(reached)
    top = [t for v, t in zip(values, truth, strict=True) if v == max(values)]
    positive = sum(max(v, 0.0) for v in values)
    mass = sum(max(v, 0.0) for v, t in zip(values, truth, strict=True) if t)
    rank, room = 0.0, k
    for level in sorted(set(values), reverse=True):
        tied = [t for v, t in zip(values, truth, strict=True) if v == level]
        taken = min(room, len(tied))
        rank += taken * sum(tied) / len(tied)
        room -= taken
    return {
        "average_precision": precision,
        "pointing": sum(top) / len(top),
        "mass": mass / positive if positive else 0.0,
        "rank": rank / k,
        "sparseness": gini,
    }


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 12), digits=st.sampled_from([0, 1, 6]))
def test_every_measure_against_loops(seed: int, n: int, digits: int) -> None:
    cases = draw_cases(seed, n)
    maps = draw_maps(seed, cases, digits)
    found = measure(maps, cases)
    assert tuple(found) == MEASURES
    for case in range(len(cases)):
        rows = [r for r in tokens_of(cases, case) if cases.known[r]]
        slow = slow_measure([float(maps[r]) for r in rows], [bool(cases.inside[r]) for r in rows])
        for name, value in slow.items():
            np.testing.assert_allclose(found[name][case], value, atol=1e-9, err_msg=name)


def test_rank_and_pointing_are_means_over_the_orders_of_ties() -> None:
    values, truth = [2.0, 1.0, 1.0, 1.0, 0.0], [False, True, False, True, True]
    cases = Cases(np.array([0]), np.array([0]), np.array([0, 5]), np.array(truth), np.ones(5, dtype=bool))
    orders = []
    for tied in itertools.permutations([1, 2, 3]):
        order = [0, *tied, 4]
        orders.append(sum(truth[i] for i in order[:3]) / 3)
    found = measure(np.array(values, dtype=np.float32), cases)
    assert found["rank"][0] == pytest.approx(np.mean(orders))
    assert found["pointing"][0] == 0
    constant = measure(np.full(5, 3.0, dtype=np.float32), cases)
    assert [constant[name][0] for name in MEASURES] == pytest.approx([0.6, 0.6, 0.6, 0.6, 0.0])


def test_perfect_and_worst_maps() -> None:
    truth = np.array([True, True, False, False, False])
    cases = Cases(np.array([0]), np.array([0]), np.array([0, 5]), truth, np.ones(5, dtype=bool))
    best = measure(truth.astype(np.float32), cases)
    assert [best[name][0] for name in MEASURES] == pytest.approx([1, 1, 1, 1, 1 - 2 * (1.5 + 0.5) / 5 / 2])
    worst = measure(np.array([-2, -1, 3, 4, 5], dtype=np.float32), cases)
    assert [worst[name][0] for name in MEASURES[1:4]] == [0, 0, 0]
    one = measure(np.array([0, 7, 0, 0, 0], dtype=np.float32), cases)
    assert one["sparseness"][0] == pytest.approx(1 - 1 / 5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), digits=st.sampled_from([0, 1, 6]), data=st.data())
def test_token_counts_against_loops(seed: int, digits: int, data: st.DataObject) -> None:
    cases = draw_cases(seed, 6)
    maps = draw_maps(seed, cases, digits)
    pool = [*np.unique(maps.astype(np.float64)).tolist(), -99.0, 99.0, np.inf, 0.05]
    picked = data.draw(st.lists(st.sampled_from(pool), min_size=4 * len(cases), max_size=4 * len(cases)))
    thresholds = np.array(picked, dtype=np.float64).reshape(4, len(cases))
    hits, fired, positives = token_counts(maps, cases, thresholds)
    for case in range(len(cases)):
        rows = [r for r in tokens_of(cases, case) if cases.known[r]]
        assert positives[case] == sum(bool(cases.inside[r]) for r in rows) == cases.positives[case]
        for level in range(4):
            reached = [r for r in rows if float(maps[r]) >= thresholds[level, case]]
            assert fired[level, case] == len(reached)
            assert hits[level, case] == sum(bool(cases.inside[r]) for r in reached)


@pytest.mark.parametrize("scale", SCALES)
def test_scaled_maps_against_loops(scale: str) -> None:
    cases = draw_cases(1)
    maps = draw_maps(1, cases, 6)
    found = scaled(maps, cases, scale)
    assert found.dtype == np.float64
    for case in range(len(cases)):
        rows = tokens_of(cases, case)
        largest = max(abs(float(maps[r])) for r in rows)
        divisor = largest if scale == "relative" and largest > 0 else 1.0
        np.testing.assert_allclose(found[list(rows)], [float(maps[r]) / divisor for r in rows], rtol=1e-15)
        if scale == "relative" and largest > 0:
            assert np.abs(found[list(rows)]).max() == 1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_order_of_cases_and_tokens_unknown_tokens_and_size_do_not_matter(seed: int) -> None:
    cases, random = draw_cases(seed), np.random.default_rng(seed)
    maps = draw_maps(seed, cases, 1)
    found = measure(maps, cases)
    order = random.permutation(len(cases))
    permuted = measure(maps[cases.rows(order)], cases.subset(order))
    within = np.lexsort((random.random(len(maps)), cases.owners))
    shuffled = measure(maps[within], Cases(*fields(cases)[:3], cases.inside[within], cases.known[within]))
    noisy = np.where(cases.known, maps, random.standard_normal(len(maps))).astype(np.float32)
    flipped = Cases(*fields(cases)[:3], np.where(cases.known, cases.inside, ~cases.inside), cases.known)
    unknown = measure(noisy, flipped)
    doubled = measure(maps * np.float32(4), cases)
    for name in MEASURES:
        np.testing.assert_array_equal(permuted[name], found[name][order])
        for other in (shuffled, unknown, doubled):
            np.testing.assert_allclose(other[name], found[name], atol=1e-12, err_msg=name)


def fields(cases: Cases) -> list[np.ndarray]:
    return [cases.samples, cases.concepts, cases.offsets, cases.inside, cases.known]


def test_subset_against_loops() -> None:
    cases = draw_cases(3)
    order = np.array([4, 0, 7])
    part = cases.subset(order)
    rows = [r for case in order for r in tokens_of(cases, case)]
    assert part.samples.tolist() == [cases.samples[case] for case in order]
    assert part.concepts.tolist() == [cases.concepts[case] for case in order]
    assert np.diff(part.offsets).tolist() == [len(tokens_of(cases, case)) for case in order]
    assert part.inside.tolist() == cases.inside[rows].tolist()
    assert part.known.tolist() == cases.known[rows].tolist()
    assert cases.rows(order).tolist() == rows
    known = cases.without_unknown()
    assert known.known.all()
    assert known.inside.tolist() == cases.inside[cases.known].tolist()
    assert np.diff(known.offsets).tolist() == [
        sum(cases.known[r] for r in tokens_of(cases, c)) for c in range(len(cases))
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_that_are_not_finite_are_refused(value: float) -> None:
    cases = draw_cases(0)
    maps = draw_maps(0, cases, 3)
    maps[cases.offsets[5]] = value
    message = rf"1 of {len(maps)} values .* in sample {cases.samples[5]}, concept {cases.concepts[5]}; .* finite"
    with pytest.raises(StudyError, match=message):
        measure(maps, cases)
    with pytest.raises(StudyError, match=f"maps have 3 rows, the cases {len(maps)}"):
        measure(maps[:3], cases)


def test_cases_that_do_not_fit_together_are_refused() -> None:
    flags = np.ones(4, dtype=bool)
    offsets = np.array([0, 2, 4])
    with pytest.raises(DataError, match="got 1 samples, 1 concepts, 2 runs, 4 rows, 4 known"):
        Cases(np.array([1]), np.array([0]), offsets, flags, flags)
    with pytest.raises(DataError, match="same pair"):
        Cases(np.array([1, 1]), np.array([0, 0]), offsets, flags, flags)
    with pytest.raises(DataError, match="start at 0; got -1"):
        Cases(np.array([1, -1]), np.array([0, 0]), offsets, flags, flags)
    with pytest.raises(DataError, match="end at the number of rows"):
        Cases(np.array([1, 2]), np.array([0, 0]), np.array([0, 2, 3]), flags, flags)
