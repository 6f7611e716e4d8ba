"""Segment reductions against plain loops over samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superactivators.errors import DataError
from superactivators.ragged import (
    check_offsets,
    cut_into_runs,
    last_rows,
    offsets_of,
    random_rows,
    rows_of,
    segment_any,
    segment_ids,
    segment_max,
    segment_mean,
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
