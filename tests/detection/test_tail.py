"""Candidate thresholds: exact quantiles of in-concept scores, also of resampled samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detection.oracle import quantile
from superactivators.detection.metrics import fire_counts
from superactivators.detection.tail import DELTAS, PAPER_DELTAS, Tail, check_deltas, compact, running_weights
from superactivators.errors import StudyError

LEVELS = tuple(sorted(DELTAS))


def one_concept(values: list[float]) -> Tail:
    scores = np.array(values, dtype=np.float32).reshape(-1, 1)
    return Tail.of_samples(scores, np.ones(scores.shape, dtype=bool))


def test_the_grids_are_those_of_the_method() -> None:
    assert PAPER_DELTAS == (0.02, 0.05, 0.10, 0.20, 0.30, 0.40, 0.50, 0.60, 0.70, 0.80, 0.90, 0.95)
    assert set(DELTAS) == {0.005, 0.01, *PAPER_DELTAS}


@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.one_of(st.integers(-3, 3).map(float), st.floats(-1e3, 1e3, width=32)), min_size=1, max_size=130),
    deltas=st.sets(st.integers(1, 999).map(lambda k: k / 1000), min_size=1, max_size=6),
)
def test_quantiles_are_those_of_sorted_values(values: list[float], deltas: set[float]) -> None:
    levels = tuple(sorted(deltas))
    found = one_concept(values).quantiles(levels)[:, 0]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [quantile(values, delta) for delta in levels], rtol=1e-12, atol=1e-12)
    expected = np.quantile(np.array(values, dtype=np.float64), 1 - np.array(levels), method="linear")
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert (np.diff(found) <= 0).all(), "a larger share kept cannot need a higher threshold"


@pytest.mark.parametrize("delta", LEVELS)
@pytest.mark.parametrize("n", [1, 2, 3, 11, 20, 21, 61, 101, 201, 997])
def test_every_delta_on_random_and_on_tied_values(n: int, delta: float) -> None:
    random = np.random.default_rng(n)
    for values in (random.standard_normal(n), np.round(random.standard_normal(n)), np.full(n, 0.1)):
        held = values.astype(np.float32).astype(np.float64)
        found = float(one_concept(values.tolist()).quantiles((delta,))[0, 0])
        assert found == pytest.approx(float(np.quantile(held, 1 - delta)), rel=1e-9, abs=1e-9)
        assert found == pytest.approx(quantile(held.tolist(), delta), rel=1e-12, abs=1e-14)


def test_a_single_score_is_its_own_threshold_and_no_score_is_never_reached() -> None:
    scores = np.array([[2.5, 7.0], [1.0, 3.0]], dtype=np.float32)
    labels = np.array([[True, False], [False, False]])
    found = Tail.of_samples(scores, labels).quantiles(LEVELS)
    assert (found[:, 0] == 2.5).all()
    assert (found[:, 1] == math.inf).all()
    nothing = Tail.of_samples(scores, np.zeros_like(labels))
    assert (nothing.quantiles(LEVELS) == math.inf).all()
    assert (nothing.resampled(np.ones((3, 2), dtype=np.int32), LEVELS) == math.inf).all()
    assert nothing.counts.tolist() == [0, 0]


def test_ranks_that_are_whole_numbers_give_scores_themselves() -> None:
    """60 * (1 - .95) is 3.0000000000000027 in floating point: unsnapped, the score of rank 3 would not fire."""
    assert (61 - 1) * (1 - 0.95) > 3
    values = (np.arange(61) * 0.37 + 0.1).astype(np.float32)
    tail = one_concept(values.tolist())
    assert tail.quantiles((0.95,))[0, 0] == np.float64(values[3])
    assert np.quantile(values.astype(np.float64), 1 - 0.95) > np.float64(values[3]), "the case that snapping is for"
    _, fired = fire_counts(values[:, None], np.ones((61, 1), dtype=bool), tail.quantiles((0.95,)))
    assert fired[0, 0] == 58
    whole = tail.resampled(np.ones((1, 61), dtype=np.int32), (0.95,))
    assert whole[0, 0, 0] == np.float64(values[3])


def test_every_whole_rank_is_hit_exactly() -> None:
    random = np.random.default_rng(0)
    checked = 0
    for n in range(1, 402):
        values = random.standard_normal(n).astype(np.float32)
        ordered = np.sort(values).astype(np.float64)
        found = one_concept(values.tolist()).quantiles(LEVELS)[:, 0]
        for delta, threshold in zip(LEVELS, found, strict=True):
            numerator = (n - 1) * round((1 - delta) * 1000)
            if numerator % 1000 == 0:
                assert threshold == ordered[numerator // 1000], (n, delta)
                checked += 1
    assert checked > 500


def test_tokens_are_collected_concept_by_concept() -> None:
    random = np.random.default_rng(1)
    scores = np.round(random.standard_normal((200, 4)), 1).astype(np.float32)
    labels = random.random((200, 4)) < np.array([0.3, 0.01, 0.0, 0.9])
    owners = np.sort(random.integers(0, 30, size=200))
    tail = Tail.of_tokens(scores, sp.csr_matrix(labels), owners)
    assert tail.counts.tolist() == labels.sum(axis=0).tolist()
    for c in range(4):
        mine = slice(tail.bounds[c], tail.bounds[c + 1])
        assert tail.values[mine].tolist() == sorted(scores[labels[:, c], c].astype(float).tolist())
        pairs = sorted(zip(tail.values[mine].tolist(), tail.owners[mine].tolist(), strict=True))
        expected = sorted((float(scores[t, c]), int(owners[t])) for t in np.flatnonzero(labels[:, c]))
        assert pairs == expected
    shuffled = random.permutation(200)
    again = Tail.of_tokens(scores[shuffled], sp.csr_matrix(labels[shuffled]), owners[shuffled])
    assert np.array_equal(again.quantiles(LEVELS), tail.quantiles(LEVELS))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_resampled_equals_the_quantiles_of_repeated_samples(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 12))
    concepts = data.draw(st.integers(1, 3))
    owners = np.sort(np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=40))))
    scores = data.draw(
        arrays(np.float32, (len(owners), concepts), elements=st.sampled_from([-1.5, -0.25, 0.1, 0.3, 0.7, 2.0]))
    )
    labels = data.draw(arrays(bool, (len(owners), concepts)))
    # many zeros, so that concepts lose all their scores in some resamples
    weights = data.draw(
        arrays(np.int32, (data.draw(st.integers(1, 5)), n), elements=st.sampled_from([0, 0, 0, 1, 2, 5]))
    )
    tail = Tail.of_tokens(scores, sp.csr_matrix(labels), owners)
    found = tail.resampled(weights, LEVELS)
    assert found.shape == (len(weights), len(LEVELS), concepts)
    for r, drawn in enumerate(weights):
        rows = np.repeat(np.arange(len(owners)), drawn[owners])
        again = Tail.of_tokens(scores[rows], sp.csr_matrix(labels[rows]), owners[rows])
        np.testing.assert_array_equal(found[r], again.quantiles(LEVELS))
        for c in range(concepts):
            values = scores[rows][labels[rows, c], c].astype(float).tolist()
            np.testing.assert_allclose(found[r, :, c], [quantile(values, delta) for delta in LEVELS], rtol=1e-12)


def test_resampling_every_sample_once_changes_nothing() -> None:
    random = np.random.default_rng(2)
    scores, labels = random.standard_normal((90, 5)).astype(np.float32), random.random((90, 5)) < 0.3
    tail = Tail.of_samples(scores, labels)
    whole = tail.resampled(np.ones((2, 90), dtype=np.int32), LEVELS)
    np.testing.assert_array_equal(whole, np.stack([tail.quantiles(LEVELS)] * 2))


def test_large_resamples_do_not_mix() -> None:
    """Many resamples share one search; each must find its own rows only."""
    random = np.random.default_rng(3)
    scores, labels = random.standard_normal((40, 3)).astype(np.float32), random.random((40, 3)) < 0.3
    tail = Tail.of_samples(scores, labels)
    weights = random.multinomial(40, np.full(40, 1 / 40), size=300)
    together = tail.resampled(weights, LEVELS)
    for r in (0, 1, 150, 299):
        np.testing.assert_array_equal(together[r : r + 1], tail.resampled(weights[r : r + 1], LEVELS))


@pytest.mark.parametrize("wrong", [(), (0.0, 0.5), (0.5, 1.0), (0.1, 0.1), ("a",), (-0.1,), 0.1, None, (float("nan"),)])
def test_impossible_sparsity_levels_are_refused(wrong: object) -> None:
    with pytest.raises(StudyError, match="deltas must be distinct numbers between 0 and 1"):
        check_deltas(wrong)


def test_sparsity_levels_are_sorted() -> None:
    assert check_deltas([0.5, 0.02, 0.1]) == (0.02, 0.1, 0.5)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_running_weights_against_a_cumulated_sum(data: st.DataObject) -> None:
    n, m = data.draw(st.integers(1, 9)), data.draw(st.integers(0, 40))
    weights = data.draw(arrays(np.int32, (3, n), elements=st.integers(0, 5)))
    owners = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=m, max_size=m)), dtype=np.int64)
    found = running_weights(compact(weights, 40), owners)
    assert found.shape == (m + 1, 3)
    for r in range(3):
        assert found[:, r].tolist() == [sum(int(weights[r, i]) for i in owners[:k]) for k in range(m + 1)]


def test_sums_too_large_for_two_bytes_take_four() -> None:
    """A sample with many in-concept tokens, drawn often; with two bytes the counts would wrap around."""
    weights = np.array([[600, 0], [1, 599]], dtype=np.int32)
    assert compact(weights).dtype == np.uint16
    assert compact(weights, 110).dtype == np.uint32
    values = np.arange(120, dtype=np.float32)[:, None]
    owners = np.array([0] * 110 + [1] * 10)
    tail = Tail.of_tokens(values, sp.csr_matrix(np.ones((120, 1), dtype=bool)), owners)
    assert tail.most_repeated == 110
    for r, drawn in enumerate(weights):
        rows = np.repeat(np.arange(120), drawn[owners])
        again = Tail.of_tokens(values[rows], sp.csr_matrix(np.ones((len(rows), 1), dtype=bool)), owners[rows])
        np.testing.assert_array_equal(tail.resampled(weights, LEVELS)[r], again.quantiles(LEVELS))
