"""Segment reductions against plain loops over samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superactivators import ragged
from superactivators.errors import DataError, StudyError
from superactivators.ragged import (
    check_offsets,
    cut_into_runs,
    last_rows,
    offsets_of,
    random_rows,
    rows_of,
    segment_any,
    segment_ids,
    segment_kth,
    segment_max,
    segment_mean,
    segment_top_mean,
    segment_top_share_mean,
)

quick = settings(derandomize=True, deadline=None, max_examples=60)

lengths_strategy = st.lists(st.integers(0, 6), min_size=1, max_size=12)


def rows_with(lengths: list[int], seed: int, columns: int = 3) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Random rows, their offsets, and the same rows cut into a plain list of samples."""
    values = np.random.default_rng(seed).normal(size=(sum(lengths), columns)).astype(np.float32)
    parts, at = [], 0
    for length in lengths:
        parts.append(values[at : at + length])
        at += length
    return values, offsets_of(np.array(lengths)), parts


@quick
@given(lengths_strategy, st.integers(0, 5))
def test_reductions_equal_loops(lengths: list[int], seed: int) -> None:
    values, offsets, parts = rows_with(lengths, seed)
    highest, mean = segment_max(values, offsets), segment_mean(values, offsets)
    some = segment_any(values > 1, offsets)
    assert highest.dtype == mean.dtype == np.float32
    for number, part in enumerate(parts):
        if len(part):
            np.testing.assert_array_equal(highest[number], part.max(axis=0))
            np.testing.assert_allclose(mean[number], part.astype(np.float64).mean(axis=0), rtol=1e-6, atol=1e-7)
            np.testing.assert_array_equal(some[number], (part > 1).any(axis=0))
        else:
            assert (highest[number] == -np.inf).all()
            assert (mean[number] == -np.inf).all()
            assert not some[number].any()


@quick
@given(lengths_strategy)
def test_bookkeeping_equals_loops(lengths: list[int]) -> None:
    offsets = offsets_of(np.array(lengths))
    assert offsets.dtype == np.int64
    assert offsets.tolist() == [sum(lengths[:k]) for k in range(len(lengths) + 1)]
    assert segment_ids(offsets).tolist() == [k for k, length in enumerate(lengths) for _ in range(length)]
    assert last_rows(offsets).tolist() == [
        sum(lengths[: k + 1]) - 1 if length else -1 for k, length in enumerate(lengths)
    ]


@quick
@given(lengths_strategy, st.data())
def test_rows_of_any_choice_of_samples(lengths: list[int], data: st.DataObject) -> None:
    offsets = offsets_of(np.array(lengths))
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=8))
    expected = [row for k in chosen for row in range(offsets[k], offsets[k + 1])]
    assert rows_of(offsets, np.array(chosen, dtype=np.int64)).tolist() == expected


@quick
@given(lengths_strategy, st.integers(1, 12))
def test_runs_hold_whole_samples_and_are_as_long_as_allowed(lengths: list[int], rows: int) -> None:
    offsets = offsets_of(np.array(lengths))
    bounds = cut_into_runs(offsets, rows)
    assert bounds[0] == 0
    assert bounds[-1] == len(lengths)
    assert (np.diff(bounds) > 0).all()
    sizes = np.diff(offsets[bounds])
    for number, size in enumerate(sizes.tolist()):
        assert size <= rows or bounds[number + 1] - bounds[number] == 1
        if bounds[number + 1] < len(lengths):
            assert size + lengths[bounds[number + 1]] > rows, "the next sample would have had room"


def test_mean_is_summed_in_double_precision() -> None:
    values = np.full((100_001, 1), 0.1, dtype=np.float32)
    values[0] = 3e4
    exact = values.astype(np.float64).mean()
    assert segment_mean(values, np.array([0, len(values)]))[0, 0] == np.float32(exact)


# ------------------------------------------------------------------ order statistics


def highest(part: np.ndarray, column: int) -> list[float]:
    return sorted((float(value) for value in part[:, column]), reverse=True)


@quick
@given(
    st.one_of(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(1, 40).map(lambda n: [n] * 7)),
    st.integers(0, 5),
    st.integers(1, 9),
    st.sampled_from([0.05, 0.1, 0.3, 0.5, 1.0]),
    st.sampled_from([1, 60, 2**22]),
)
def test_order_statistics_equal_loops(lengths: list[int], seed: int, k: int, share: float, padded: int) -> None:
    values, offsets, parts = rows_with(lengths, seed)
    values[:] = np.round(values, 1)  # ties
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ragged, "PADDED", padded)
        kth = segment_kth(values, offsets, k)
        top, shared = segment_top_mean(values, offsets, k), segment_top_share_mean(values, offsets, share)
    for found in (kth, top, shared):
        assert found.shape == (len(lengths), 3)
        assert found.dtype == np.float32
    for number, part in enumerate(parts):
        n = len(part)
        kept = math.ceil(share * n - 1e-9)
        for c in range(3):
            ordered = highest(part, c)
            assert kth[number, c] == (ordered[k - 1] if n >= k else -math.inf)
            few = ordered[:k]
            assert top[number, c] == (np.float32(math.fsum(few) / len(few)) if n else -math.inf)
            assert shared[number, c] == (np.float32(math.fsum(ordered[:kept]) / kept) if n else -math.inf)


def test_order_statistics_do_not_depend_on_the_other_samples() -> None:
    """A sample alone, in a reordered set, and among samples of its own length only: bit for bit the same."""
    random = np.random.default_rng(0)
    lengths = np.concatenate([random.integers(1, 90, size=30), np.full(10, 50)])
    values, offsets, parts = rows_with(lengths.tolist(), 1, columns=5)
    order = random.permutation(len(lengths))
    turned, turned_offsets = np.concatenate([parts[i] for i in order]), offsets_of(lengths[order])
    for reduce, by in ((segment_kth, 4), (segment_top_mean, 4), (segment_top_share_mean, 0.1)):
        usual = reduce(values, offsets, by)
        np.testing.assert_array_equal(reduce(turned, turned_offsets, by), usual[order])
        alone = [reduce(part, np.array([0, len(part)]), by)[0] for part in parts]
        np.testing.assert_array_equal(np.array(alone), usual)
        alike = np.concatenate(parts[30:])
        np.testing.assert_array_equal(reduce(alike, np.arange(11) * 50, by), usual[30:])


def test_shares_of_a_sample_are_whole_where_arithmetic_says_so() -> None:
    """0.1 * 30 is 3.0000000000000004 in floating point, but a tenth of 30 rows are 3 rows."""
    values = np.arange(30, dtype=np.float32)[:, None]
    assert segment_top_share_mean(values, np.array([0, 30]), 0.1)[0, 0] == 28
    assert segment_top_share_mean(values[:29], np.array([0, 29]), 0.1)[0, 0] == 27
    assert segment_top_share_mean(values[:1], np.array([0, 1]), 0.1)[0, 0] == 0


def test_means_of_the_highest_are_summed_in_double_precision() -> None:
    values = np.full((100_001, 1), 0.1, dtype=np.float32)
    values[0] = 3e4
    exact = np.float32(values.astype(np.float64).mean())
    bounds = np.array([0, len(values)])
    assert segment_top_mean(values, bounds, 200_000)[0, 0] == exact
    assert segment_top_share_mean(values, bounds, 1.0)[0, 0] == exact


def test_order_statistics_leave_their_input_alone() -> None:
    values, offsets, _ = rows_with([5, 5, 5], 3)
    before = values.copy()
    for reduce, by in ((segment_kth, 2), (segment_top_mean, 2), (segment_top_mean, 5), (segment_top_share_mean, 0.4)):
        reduce(values, offsets, by)
        np.testing.assert_array_equal(values, before)


def test_order_statistics_of_nothing() -> None:
    nothing = np.empty((0, 3), dtype=np.float32)
    assert segment_kth(nothing, np.array([0]), 2).shape == (0, 3)
    assert (segment_top_mean(nothing, np.array([0, 0]), 2) == -np.inf).all()
    assert segment_top_share_mean(np.ones((4, 0), np.float32), np.array([0, 1, 4]), 0.1).shape == (2, 0)


def test_impossible_order_statistics_are_refused() -> None:
    values, offsets, _ = rows_with([3, 2], 0)
    with pytest.raises(StudyError, match="k of at least 1; got 0"):
        segment_kth(values, offsets, 0)
    with pytest.raises(StudyError, match="k of at least 1; got -1"):
        segment_top_mean(values, offsets, -1)
    for share in (0.0, 1.5, float("nan")):
        with pytest.raises(StudyError, match="above 0 and at most 1"):
            segment_top_share_mean(values, offsets, share)


@quick
@given(lengths_strategy, st.integers(0, 9))
def test_random_rows_lie_inside_and_do_not_depend_on_the_order(lengths: list[int], seed: int) -> None:
    offsets, ids = offsets_of(np.array(lengths)), [f"sample {k}" for k in range(len(lengths))]
    drawn = random_rows(offsets, ids, seed)
    for k, length in enumerate(lengths):
        assert drawn[k] == -1 if not length else offsets[k] <= drawn[k] < offsets[k + 1]
    turned = random_rows(offsets_of(np.array(lengths[::-1])), ids[::-1], seed)
    starts = offsets_of(np.array(lengths[::-1]))
    for k, length in enumerate(lengths):
        if length:
            assert drawn[k] - offsets[k] == turned[-1 - k] - starts[len(lengths) - 1 - k]


def test_random_rows_are_uniform_and_depend_on_the_seed() -> None:
    n, length = 8000, 5
    offsets, ids = offsets_of(np.full(n, length)), [str(k) for k in range(n)]
    places = random_rows(offsets, ids, 0) - offsets[:-1]
    counts = np.bincount(places, minlength=length)
    assert counts.sum() == n
    assert (np.abs(counts - n / length) < 5 * np.sqrt(n * 0.16)).all()
    assert (places != random_rows(offsets, ids, 1) - offsets[:-1]).mean() > 0.7


@pytest.mark.parametrize(
    ("offsets", "rows", "says"),
    [
        ([1, 3], 3, "start at 0"),
        ([0, 2], 3, r"number of rows \(3\).*from 0 to 2"),
        ([0, 3, 2, 4], 4, "after sample 1"),
        ([], 0, r"shape \(0,\)"),
    ],
)
def test_wrong_offsets_are_refused(offsets: list[int], rows: int, says: str) -> None:
    with pytest.raises(DataError, match=says):
        check_offsets(np.array(offsets, dtype=np.int64), rows)


def test_right_offsets_come_back_as_int64() -> None:
    checked = check_offsets(np.array([0, 2, 2, 5], dtype=np.int32), 5)
    assert checked.dtype == np.int64
    assert checked.tolist() == [0, 2, 2, 5]
