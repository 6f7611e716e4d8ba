"""Counts, ratios and rankings against scikit-learn and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sk

from superactivators.detection.metrics import DetectionMetrics, aggregate, f1_of, fire_counts, ratio


def draw(seed: int, n: int = 60, concepts: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties, labels with both classes, thresholds of which some are scores themselves."""
    random = np.random.default_rng(seed)
    scores = np.round(random.standard_normal((n, concepts)), 1).astype(np.float32)
    labels = random.random((n, concepts)) < 0.4
    labels[0], labels[1] = True, False
    thresholds = scores[random.integers(0, n, size=concepts), np.arange(concepts)].astype(np.float64)
    return scores, labels, thresholds


@settings(max_examples=60, deadline=None)
@given(
    scores=arrays(np.float32, (7, 2), elements=st.sampled_from([-1.0, 0.1, 0.2, 0.3])),
    labels=arrays(bool, (7, 2)),
    thresholds=arrays(np.float64, (3, 2), elements=st.sampled_from([-2.0, 0.1, float(np.float32(0.1)), 0.25, np.inf])),
)
def test_fire_counts_against_loops(scores: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> None:
    hits, fired = fire_counts(scores, labels, thresholds)
    for level in range(3):
        for c in range(2):
            fires = [float(scores[i, c]) >= thresholds[level, c] for i in range(7)]
            assert fired[level, c] == sum(fires)
            assert hits[level, c] == sum(1 for i in range(7) if fires[i] and labels[i, c])


def test_a_score_equal_to_the_threshold_counts_and_one_ulp_below_does_not() -> None:
    score = np.float32(0.1)
    scores = np.array([[np.nextafter(score, np.float32(0))], [score], [np.nextafter(score, np.float32(1))]])
    labels = np.ones((3, 1), dtype=bool)
    _, fired = fire_counts(scores, labels, np.array([[np.float64(score)]]))
    assert fired[0, 0] == 2
    # Compared in double precision: the decimal 0.1 is not the single-precision one.
    _, fired = fire_counts(scores, labels, np.array([[0.1]]))
    assert fired[0, 0] == 2
    _, fired = fire_counts(scores, labels, np.array([[np.nextafter(np.float64(score), 1.0)]]))
    assert fired[0, 0] == 1


@pytest.mark.parametrize("seed", range(4))
def test_every_metric_against_scikit_learn(seed: int) -> None:
    scores, labels, thresholds = draw(seed)
    columns = DetectionMetrics.of(scores, labels, thresholds).columns
    for c in range(labels.shape[1]):
        truth, fires = labels[:, c], scores[:, c].astype(np.float64) >= thresholds[c]
        tn, fp, fn, tp = sk.confusion_matrix(truth, fires, labels=[False, True]).ravel()
        assert [columns[name][c] for name in ("tp", "fp", "fn", "tn")] == [tp, fp, fn, tn]
        expected = {
            "precision": sk.precision_score(truth, fires, zero_division=0),
            "recall": sk.recall_score(truth, fires, zero_division=0),
            "f1": sk.f1_score(truth, fires, zero_division=0),
            "accuracy": sk.accuracy_score(truth, fires),
            "fpr": fp / (fp + tn),
            "auroc": sk.roc_auc_score(truth, scores[:, c]),
            "average_precision": sk.average_precision_score(truth, scores[:, c]),
            "prevalence": truth.mean(),
        }
        for name, value in expected.items():
            assert columns[name][c] == pytest.approx(value, abs=1e-12), name
        assert columns["n"][c] == len(truth)
        assert columns["n_positive"][c] == truth.sum()
        assert not columns["undefined"][c]


def test_undefined_reads_zero_and_is_flagged() -> None:
    scores = np.array([[0.0] * 4, [1.0] * 4], dtype=np.float32)
    labels = np.array([[False, False, True, False], [False, False, True, True]])
    thresholds = np.array([5.0, 0.5, -1.0, 0.5])  # nothing fires; no positive; no negative; all defined
    columns = DetectionMetrics.of(scores, labels, thresholds).columns
    assert columns["undefined"].tolist() == [True, True, True, False]
    for c in range(4):
        truth, fires = labels[:, c], scores[:, c] >= thresholds[c]
        assert columns["precision"][c] == sk.precision_score(truth, fires, zero_division=0)
        assert columns["recall"][c] == sk.recall_score(truth, fires, zero_division=0)
        assert columns["f1"][c] == sk.f1_score(truth, fires, zero_division=0)
    assert columns["fpr"].tolist() == [0, 0.5, 0, 0]
    assert np.isnan(columns["auroc"]).tolist() == [True, True, True, False]
    assert np.isnan(columns["average_precision"]).tolist() == [True, True, False, False]
    assert np.isfinite(np.stack([columns[name] for name in ("precision", "recall", "f1", "accuracy", "fpr")])).all()


def test_averages_against_scikit_learn() -> None:
    scores, labels, thresholds = draw(9)
    fires = scores.astype(np.float64) >= thresholds
    f1 = DetectionMetrics.of(scores, labels, thresholds).columns["f1"]
    found = aggregate(f1, labels.sum(axis=0))
    assert found["weighted"] == pytest.approx(sk.f1_score(labels, fires, average="weighted", zero_division=0))
    assert found["macro"] == pytest.approx(sk.f1_score(labels, fires, average="macro", zero_division=0))
    assert "micro" not in found
    counts = ((fires & labels).sum(axis=0), fires.sum(axis=0))
    assert aggregate(f1, labels.sum(axis=0), counts)["micro"] == pytest.approx(
        sk.f1_score(labels, fires, average="micro", zero_division=0)
    )


def test_averages_of_resamples_use_each_resample_own_weights() -> None:
    f1 = np.array([[0.5, 1.0], [0.25, 0.75]])
    positives = np.array([[3.0, 1.0], [0.0, 0.0]])
    found = aggregate(f1, positives)
    assert found["weighted"].tolist() == [(1.5 + 1.0) / 4, 0.0]
    assert found["macro"].tolist() == [0.75, 0.5]


def test_ratios() -> None:
    assert ratio(np.array([1, 0, 3]), np.array([2, 0, 0])).tolist() == [0.5, 0.0, 0.0]
    assert f1_of(np.array([0.0, 2.0]), np.array([0.0, 3.0]), np.array([0.0, 5.0])).tolist() == [0.0, 0.5]
