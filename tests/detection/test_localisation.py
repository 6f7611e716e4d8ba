"""Direct localisation: token counts, the choice of level, and every figure on test, against loops."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from detection import oracle
from detection.oracle import SlowTokens
from superactivators.detection.bootstrap import Resamples
from superactivators.detection.localisation import Localisation, TokenScores, localise, token_counts
from superactivators.detection.tail import Tail
from superactivators.ragged import segment_ids

LEVELS = (0.02, 0.1, 0.3, 0.5, 0.8, 0.95)


def draw(seed: int, n: int, digits: int, concepts: int = 3) -> SlowTokens:
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, 7, size=n))])
    total = int(offsets[-1])
    present = random.random((n, concepts)) < 0.5
    present[0] = True
    labels = present[segment_ids(offsets)] & (random.random((total, concepts)) < 0.5)
    labels[0] = True
    scores = np.round(random.standard_normal((total, concepts)) + labels, digits).astype(np.float32)
    known = random.random(total) < 0.85
    known[0] = True
    detected = random.random((n, concepts)) < np.where(present, 0.9, 0.3)
    return SlowTokens(scores, labels, known, offsets, detected)


def fast(tokens: SlowTokens) -> TokenScores:
    return TokenScores(tokens.scores, sp.csr_matrix(tokens.labels), tokens.known, tokens.offsets, tokens.detected)


def run(cal: SlowTokens, test: SlowTokens, level: list[int], draws: Resamples) -> Localisation:
    tail = Tail.of_tokens(cal.scores, sp.csr_matrix(cal.labels), segment_ids(cal.offsets))
    return localise(fast(cal), fast(test), tail, np.array(level), LEVELS, draws)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 12), digits=st.sampled_from([0, 1, 5]), data=st.data())
def test_token_counts_against_loops(seed: int, n: int, digits: int, data: st.DataObject) -> None:
    tokens = draw(seed, n, digits)
    pool = [*np.unique(tokens.scores.astype(np.float64)).tolist(), -9.0, 9.0, 0.05, np.inf]
    chosen = data.draw(st.lists(st.sampled_from(pool), min_size=12, max_size=12))
    thresholds = -np.sort(-np.array(chosen).reshape(4, 3), axis=0)
    hits, fired, positives = token_counts(fast(tokens), thresholds)
    for c in range(3):
        for level in range(4):
            slow = oracle.firing(tokens, c, thresholds[level, c], range(n))
            assert (hits[level, c], fired[level, c], positives[c]) == slow


@pytest.mark.parametrize(("seed", "digits"), [(0, 6), (1, 1), (2, 0)])
def test_everything_against_loops(seed: int, digits: int) -> None:
    cal, test = draw(seed, 30, digits), draw(seed + 100, 35, digits)
    draws = Resamples.draw(30, 35, 60, seed)
    floor = [0, 1, 3]
    found = run(cal, test, floor, draws)
    tail = [cal.scores[cal.labels[:, c], c].astype(float).tolist() for c in range(3)]
    slow = oracle.localise(cal, test, tail, floor, LEVELS, draws.test)
    assert found.level.tolist() == slow.pop("level")
    np.testing.assert_allclose(found.thresholds, slow.pop("threshold"), rtol=1e-12, atol=1e-12)
    assert set(found.columns) == set(slow)
    for name, values in slow.items():
        np.testing.assert_allclose(found.columns[name], values, atol=1e-12, err_msg=name)
        assert 0 < np.max(values) <= 1


def test_the_level_is_never_below_that_of_detection() -> None:
    cal, test = draw(5, 40, 6), draw(6, 40, 6)
    free = run(cal, test, [0, 0, 0], Resamples.draw(40, 40, 0, 0)).level
    assert (free < len(LEVELS) - 1).any()
    for floor in range(len(LEVELS)):
        level = run(cal, test, [floor] * 3, Resamples.draw(40, 40, 0, 0)).level
        assert (level >= floor).all()
        assert (level[free >= floor] == free[free >= floor]).all()


def test_tokens_that_nobody_labelled_change_nothing() -> None:
    cal, test = draw(7, 30, 6), draw(8, 30, 6)
    for tokens in (cal, test):
        tokens.labels[~tokens.known] = False
    draws = Resamples.draw(30, 30, 50, 1)
    usual = run(cal, test, [0, 0, 0], draws)
    random = np.random.default_rng(0)
    for tokens in (cal, test):
        hidden = ~tokens.known
        tokens.scores[hidden] = (5 * random.standard_normal((int(hidden.sum()), 3))).astype(np.float32)
    again = run(cal, test, [0, 0, 0], draws)
    assert again.level.tolist() == usual.level.tolist()
    for name, values in usual.columns.items():
        np.testing.assert_array_equal(again.columns[name], values, err_msg=name)


def test_nothing_detected_nothing_located() -> None:
    cal, test = draw(9, 20, 6), draw(10, 20, 6)
    test.detected[:] = False
    found = run(cal, test, [0, 0, 0], Resamples.draw(20, 20, 10, 1)).columns
    for name in ("token_f1", "token_f1_low", "token_f1_high", "token_precision", "token_recall", "iou"):
        assert found[name].tolist() == [0, 0, 0], name
    # these two do not ask what was detected
    assert (found["pointing"] > 0).all()
    assert (found["token_average_precision"] > 0).all()


def test_a_known_small_case() -> None:
    """Two samples, one concept: two hits, one false alarm, one miss; the first sample's peak is outside."""
    tokens = SlowTokens(
        scores=np.array([[0.9], [0.8], [0.1], [0.7], [0.2]], dtype=np.float32),
        labels=np.array([[False], [True], [True], [True], [False]]),
        known=np.ones(5, dtype=bool),
        offsets=np.array([0, 3, 5]),
        detected=np.array([[True], [True]]),
    )
    tail = Tail.of_samples(np.array([[0.5]], dtype=np.float32), np.array([[True]]))
    found = localise(fast(tokens), fast(tokens), tail, np.array([0]), LEVELS, Resamples.draw(2, 2, 0, 0)).columns
    assert found["token_precision"][0] == pytest.approx(2 / 3)
    assert found["token_recall"][0] == pytest.approx(2 / 3)
    assert found["token_f1"][0] == pytest.approx(2 / 3)
    assert found["iou"][0] == pytest.approx(2 / 4)
    assert found["pointing"][0] == 0.5
