"""The choice of layer and sparsity level on cal, with its tie rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from detection.oracle import calibrate, sample_tail, token_tail
from superactivators.detection.selection import Calibration, choose
from superactivators.detection.tail import DELTAS, Tail
from superactivators.ragged import segment_ids

LEVELS = tuple(sorted(DELTAS))


def test_ties_go_to_the_smallest_level_and_then_to_the_shallowest_layer() -> None:
    f1 = np.zeros((3, 4, 4))
    f1[1, 2, 0] = f1[0, 3, 0] = 0.8  # the smaller level wins, although deeper
    f1[2, 1, 1] = f1[1, 1, 1] = 0.8  # same level: the shallower layer wins
    f1[2, 0, 2], f1[0, 1, 2] = 0.8, 0.9  # no tie: the better one wins
    found = choose(f1)
    assert found.level.tolist() == [2, 1, 1, 0]
    assert found.layer.tolist() == [1, 1, 0, 0]


@settings(max_examples=100, deadline=None)
@given(f1=arrays(np.float64, (2, 3, 4, 2), elements=st.sampled_from([0.0, 0.25, 0.5])))
def test_choice_against_loops(f1: np.ndarray) -> None:
    found = choose(f1)
    assert found.layer.shape == found.level.shape == (2, 2)
    for r in range(2):
        for c in range(2):
            best, expected = -1.0, (0, 0)
            for level in range(4):
                for layer in range(3):
                    if f1[r, layer, level, c] > best:
                        best, expected = f1[r, layer, level, c], (layer, level)
            assert (found.layer[r, c], found.level[r, c]) == expected


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
    assert fast.choice.layer.tolist() == slow.layer
    assert fast.choice.level.tolist() == slow.level
    np.testing.assert_allclose(fast.chosen_thresholds(), slow.value, rtol=1e-12)
    by_layer = random.standard_normal((n_layers, 5, concepts))
    for c in range(concepts):
        np.testing.assert_array_equal(fast.chosen(by_layer)[:, c], by_layer[slow.layer[c], :, c])
        for layer in range(n_layers):
            ranked = slow.f1[layer, :, c].tolist()
            level = ranked.index(max(ranked))
            assert fast.level_of_layer[layer, c] == level
            assert fast.layer_thresholds(layer)[c] == fast.thresholds[layer, level, c]
