"""Histograms of activations, against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superactivators.analysis.histograms import BINS, histograms


def world(seed: int, tokens: int = 90, concepts: int = 4) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    inside = generator.random((tokens, concepts)) < 0.3
    outside = ~inside & (generator.random((tokens, concepts)) < 0.6)
    values = np.round(generator.standard_normal((tokens, concepts)), 1).astype(np.float32)
    return {"activations": values, "inside": inside, "outside": outside}


def slow(values: np.ndarray, members: np.ndarray, low: float, high: float, bins: int) -> list[int]:
    counts = [0] * bins
    for value, counted in zip(values.tolist(), members.tolist(), strict=True):
        if counted:
            place = int((value - low) / (high - low) * bins) if high > low else 0
            counts[min(place, bins - 1)] += 1
    return counts


@given(seed=st.integers(0, 1000), bins=st.sampled_from([1, 7, BINS]))
def test_counts_equal_plain_loops(seed: int, bins: int) -> None:
    given_ = world(seed)
    found = histograms(**given_, bins=bins)
    for c in range(4):
        counted = (given_["inside"] | given_["outside"])[:, c]
        values = given_["activations"][:, c].astype(np.float64)
        assert found.low[c] == min(values[counted])
        assert found.high[c] == max(values[counted])
        for name in ("inside", "outside"):
            expected = slow(values, given_[name][:, c], found.low[c], found.high[c], bins)
            assert getattr(found, name)[c].tolist() == expected
            assert sum(expected) == given_[name][:, c].sum()


def test_the_ends_are_counted_and_numpy_agrees() -> None:
    values = np.array([[0.0], [0.25], [0.5], [1.0], [9.0]], dtype=np.float32)
    inside = np.array([[True], [True], [True], [True], [False]])
    found = histograms(values, inside, np.zeros_like(inside), bins=4)
    assert (found.low[0], found.high[0]) == (0, 1)
    assert found.inside[0].tolist() == np.histogram([0, 0.25, 0.5, 1.0], 4, (0, 1))[0].tolist() == [1, 1, 1, 1]
    assert found.outside[0].tolist() == [0] * 4


def test_order_of_tokens_and_concepts_does_not_matter() -> None:
    given_ = world(5)
    before = histograms(**given_)
    rows, columns = np.random.default_rng(0).permutation(90), np.array([2, 0, 3, 1])
    after = histograms(**{name: array[rows][:, columns] for name, array in given_.items()})
    for name in ("low", "high", "inside", "outside"):
        np.testing.assert_array_equal(getattr(before, name)[columns], getattr(after, name))


def test_concepts_without_spread_or_tokens() -> None:
    given_ = world(1)
    given_["activations"][:, 0] = 0.5
    given_["inside"][:, 1] = given_["outside"][:, 1] = False
    found = histograms(**given_)
    assert found.inside[0].tolist() == [given_["inside"][:, 0].sum(), *[0] * (BINS - 1)]
    assert np.isnan([found.low[1], found.high[1]]).all()
    assert found.inside[1].sum() == found.outside[1].sum() == 0
    empty = histograms(*(array[:0] for array in given_.values()))
    assert np.isnan(empty.low).all()
    assert empty.inside.shape == (4, BINS)
    assert found.low[0] == pytest.approx(0.5)
