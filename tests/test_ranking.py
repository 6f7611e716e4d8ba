"""AUROC and average precision against scikit-learn, with many ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from superactivators.ranking import auroc, average_precision

quick = settings(derandomize=True, deadline=None, max_examples=60)


@quick
@given(st.integers(2, 40), st.integers(1, 4), st.integers(1, 30), st.integers(0, 1000))
def test_equal_to_scikit_learn(n: int, columns: int, levels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (n, columns)).astype(np.float32) / 7  # few levels make many ties
    labels = rng.random((n, columns)) < 0.4
    area, precision = auroc(scores, labels), average_precision(scores, labels)
    for c in range(columns):
        if 0 < labels[:, c].sum() < n:
            assert area[c] == pytest.approx(roc_auc_score(labels[:, c], scores[:, c]), abs=1e-12)
        else:
            assert np.isnan(area[c])
        if labels[:, c].any():
            assert precision[c] == pytest.approx(average_precision_score(labels[:, c], scores[:, c]), abs=1e-12)
        else:
            assert np.isnan(precision[c])


def test_known_values() -> None:
    scores = np.array([[4.0], [3.0], [2.0], [1.0]])
    labels = np.array([[True], [False], [True], [False]])
    assert auroc(scores, labels)[0] == 0.75
    assert average_precision(scores, labels)[0] == pytest.approx((1 + 2 / 3) / 2)


def test_all_scores_equal_is_chance() -> None:
    scores, labels = np.zeros((8, 1)), (np.arange(8) < 2)[:, None]
    assert auroc(scores, labels)[0] == 0.5
    assert average_precision(scores, labels)[0] == 0.25


def test_minus_infinity_of_samples_without_tokens_ranks_last() -> None:
    scores = np.array([[-np.inf], [-np.inf], [0.5], [1.5]])
    labels = np.array([[False], [True], [True], [False]])
    assert auroc(scores, labels)[0] == pytest.approx((0.5 + 1) / 4)


def test_no_rows_at_all() -> None:
    assert np.isnan(auroc(np.zeros((0, 2)), np.zeros((0, 2), dtype=bool))).all()
    assert np.isnan(average_precision(np.zeros((0, 2)), np.zeros((0, 2), dtype=bool))).all()
