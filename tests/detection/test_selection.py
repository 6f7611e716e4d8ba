"""The choice of layer and sparsity level on cal, with its tie rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from detection.oracle import calibrate, calibrate_free, f1, sample_tail, token_tail
from superactivators.detection.selection import Calibration, Ranked, choose
from superactivators.detection.tail import DELTAS, Tail
from superactivators.ragged import segment_ids

LEVELS = tuple(sorted(DELTAS))


def test_ties_go_to_the_smallest_level_and_then_to_the_first_candidate() -> None:
    f1 = np.zeros((3, 4, 4))
    f1[1, 2, 0] = f1[0, 3, 0] = 0.8  # the smaller level wins, although deeper
    f1[2, 1, 1] = f1[1, 1, 1] = 0.8  # same level: the shallower layer wins
    f1[2, 0, 2], f1[0, 1, 2] = 0.8, 0.9  # no tie: the better one wins
    found = choose(f1)
    assert found.level.tolist() == [2, 1, 1, 0]
    assert found.candidate.tolist() == [1, 1, 0, 0]


@settings(max_examples=100, deadline=None)
@given(f1=arrays(np.float64, (2, 3, 4, 2), elements=st.sampled_from([0.0, 0.25, 0.5])))
def test_choice_against_loops(f1: np.ndarray) -> None:
    found = choose(f1)
    assert found.candidate.shape == found.level.shape == (2, 2)
    for r in range(2):
        for c in range(2):
            best, expected = -1.0, (0, 0)
            for level in range(4):
                for layer in range(3):
                    if f1[r, layer, level, c] > best:
                        best, expected = f1[r, layer, level, c], (layer, level)
            assert (found.candidate[r, c], found.level[r, c]) == expected


@pytest.mark.parametrize("digits", [1, 6])
@pytest.mark.parametrize("source", ["tokens", "samples"])
def test_calibration_against_loops(source: str, digits: int) -> None:
    random = np.random.default_rng(digits)
    n, n_layers, concepts = 40, 3, 4
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, 7, size=n))])
    token_labels = random.random((offsets[-1], concepts)) < np.array([0.05, 0.1, 0.2, 0.3])
    tokens = random.standard_normal((n_layers, offsets[-1], concepts)) + 1.2 * token_labels
    tokens = np.round(tokens, digits).astype(np.float32)  # one digit makes many ties
    labels = np.array([token_labels[a:b].any(axis=0) for a, b in itertools.pairwise(offsets)])
    pooled = np.array([[tokens[layer, a:b].max(axis=0) for a, b in itertools.pairwise(offsets)] for layer in range(3)])
    if source == "tokens":
        tails = [Tail.of_tokens(held, sparse.csr_matrix(token_labels), segment_ids(offsets)) for held in tokens]
        slow = calibrate(token_tail(list(tokens), token_labels, offsets), pooled, labels, range(n), LEVELS)
    else:
        tails = [Tail.of_samples(held, labels) for held in pooled]
        slow = calibrate(sample_tail(pooled, labels), pooled, labels, range(n), LEVELS)
    fast = Calibration.fit(tails, list(pooled), labels, LEVELS)
    np.testing.assert_allclose(fast.thresholds, slow.thresholds, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(fast.f1, slow.f1, atol=1e-15)
    assert fast.choice.candidate.tolist() == slow.layer
    assert fast.choice.level.tolist() == slow.level
    np.testing.assert_allclose(fast.chosen_thresholds(), slow.value, rtol=1e-12)
    by_layer = random.standard_normal((n_layers, 5, concepts))
    for c in range(concepts):
        np.testing.assert_array_equal(fast.chosen(by_layer)[:, c], by_layer[slow.layer[c], :, c])
        for layer in range(n_layers):
            ranked = slow.f1[layer, :, c].tolist()
            level = ranked.index(max(ranked))
            assert fast.best_level[layer, c] == level
            assert fast.candidate_thresholds(layer)[c] == fast.thresholds[layer, level, c]
            assert fast.candidate_deltas(layer)[c] == LEVELS[level]
    assert fast.rule == "quantile"
    assert fast.chosen_deltas().tolist() == [LEVELS[level] for level in slow.level]
    assert fast.chosen_counts().tolist() == [tails[slow.layer[c]].counts[c] for c in range(concepts)]
    np.testing.assert_array_equal(fast.chosen_f1(), slow.f1[slow.layer, slow.level, range(concepts)])


def test_variants_of_a_site_have_columns_of_their_own_and_the_first_of_equals_wins() -> None:
    random = np.random.default_rng(7)
    labels = random.random((60, 3)) < 0.4
    good = (random.standard_normal((60, 3)) + 2 * labels).astype(np.float32)
    noise = random.standard_normal((60, 3)).astype(np.float32)
    # 12 candidates: concept c is seen well by candidates 3 + c and, equally well, 8 + c only.
    scores = []
    for number in range(12):
        columns = noise.copy()
        for c in range(3):
            if number in (3 + c, 8 + c):
                columns[:, c] = good[:, c]
        scores.append(columns)
    fitted = Calibration.fit([Tail.of_samples(part, labels) for part in scores], scores, labels, LEVELS)
    assert len(fitted) == 12
    assert fitted.choice.candidate.tolist() == [3, 4, 5]
    free = Calibration.fit_free(scores, labels)
    assert free.choice.candidate.tolist() == [3, 4, 5]


@settings(max_examples=150, deadline=None)
@given(
    pooled=arrays(np.float32, (2, 9, 3), elements=st.sampled_from([-1.0, 0.0, 0.1, 0.5, 2.0])),
    labels=arrays(bool, (9, 3)),
)
def test_free_thresholds_against_loops(pooled: np.ndarray, labels: np.ndarray) -> None:
    fast, slow = Calibration.fit_free(list(pooled), labels), calibrate_free(pooled, labels, range(9))
    np.testing.assert_array_equal(fast.thresholds, slow.thresholds)
    np.testing.assert_array_equal(fast.f1, slow.f1)
    assert fast.choice.candidate.tolist() == slow.layer
    assert not fast.choice.level.any()
    np.testing.assert_array_equal(fast.chosen_thresholds(), slow.value)
    for layer in range(2):
        for c in range(3):
            held = pooled[layer, labels[:, c], c].astype(float)
            share = float((held >= slow.thresholds[layer, 0, c]).mean()) if len(held) else 0.0
            assert fast.deltas[layer, 0, c] == fast.candidate_deltas(layer)[c] == share
            assert fast.counts[layer, c] == len(held)


def test_no_free_threshold_is_beaten_by_any_other_number() -> None:
    random = np.random.default_rng(3)
    labels = random.random((300, 4)) < np.array([0.02, 0.1, 0.4, 0.9])
    scores = (random.standard_normal((300, 4)) + labels).astype(np.float32)
    fitted = Calibration.fit_free([scores], labels)
    for c in range(4):
        others = [f1(labels[:, c].tolist(), (scores[:, c] >= value).tolist()) for value in scores[:, c]]
        assert fitted.chosen_f1()[c] == pytest.approx(max(others), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_weighted_counts_are_those_of_repeated_samples(data: st.DataObject) -> None:
    scores = data.draw(arrays(np.float32, (7, 2), elements=st.sampled_from([-1.0, 0.1, 0.2, 0.3])))
    labels = data.draw(arrays(bool, (7, 2)))
    drawn = data.draw(arrays(np.uint16, (7, 3), elements=st.integers(0, 3)))
    steps = st.sampled_from([-2.0, 0.1, float(np.float32(0.1)), float(np.float32(0.3)), np.inf])
    thresholds = data.draw(arrays(np.float64, (2, 2, 3), elements=steps))
    hits, fired = Ranked(scores, labels).counts(drawn, thresholds)
    for level, c, r in np.ndindex(2, 2, 3):
        fires = scores[:, c].astype(float) >= thresholds[level, c, r]
        assert fired[level, c, r] == (fires * drawn[:, r]).sum()
        assert hits[level, c, r] == (fires * labels[:, c] * drawn[:, r]).sum()


def test_given_thresholds_choose_nothing() -> None:
    labels = np.array([[True, False], [True, True], [False, False]])
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=np.float32)
    fitted = Calibration.fixed(0.5, 2, scores, labels)
    assert fitted.rule == "fixed"
    assert fitted.chosen_thresholds().tolist() == fitted.candidate_thresholds(0).tolist() == [0.5, 0.5]
    assert fitted.chosen_f1().tolist() == [0.5, 1.0]
    assert np.isnan(fitted.chosen_deltas()).all()
    assert fitted.chosen_counts().tolist() == [0, 0]
    blind = Calibration.fixed(0.5, 2)
    assert np.isnan(blind.chosen_f1()).all()
    assert blind.chosen_thresholds().tolist() == [0.5, 0.5]
