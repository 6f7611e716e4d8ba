"""Mean prototypes, against plain means."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import make_blobs, make_multilabel_classification
from sklearn.utils.estimator_checks import parametrize_with_checks

from superactivators.concepts.prototypes import MeanPrototypes, fit_prototypes
from superactivators.concepts.rows import ArrayRows
from superactivators.errors import DataError


@pytest.fixture
def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 6)).astype(np.float32)
    Y = rng.random((500, 4)) < np.array([0.5, 0.02, 0.9, 0.0])
    return X, Y, rng.random(500) < 0.8


@parametrize_with_checks([MeanPrototypes()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize("block_rows", [7, 500, 10_000])
def test_prototypes_are_means_of_the_labelled_rows(problem, block_rows):
    X, Y, known = problem
    prototypes = fit_prototypes(ArrayRows(X, block_rows), sp.csr_matrix(Y), known)
    for concept in range(3):
        expected = X[Y[:, concept] & known].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(prototypes[concept], expected, rtol=1e-12, atol=1e-12)
    assert (prototypes[3] == 0).all()
    assert prototypes.dtype == np.float64


def test_sums_are_taken_in_double_precision():
    X = np.full((200_000, 1), 1000.1, dtype=np.float32)
    prototype = fit_prototypes(ArrayRows(X), sp.csr_matrix(np.ones((len(X), 1), dtype=bool)), np.ones(len(X), bool))
    assert prototype[0, 0] == pytest.approx(float(X[0, 0]), rel=1e-14)


def test_affine_maps_carry_over(problem):
    X, Y, known = problem
    mean, scale = X.mean(axis=0), np.float32(3.5)
    raw = fit_prototypes(ArrayRows(X), sp.csr_matrix(Y), known)
    scaled = fit_prototypes(ArrayRows((X - mean) / scale), sp.csr_matrix(Y), known)
    np.testing.assert_allclose(scaled[:3], (raw[:3] - mean) / scale, atol=1e-6)


def test_classifier_is_the_cosine_to_the_mean_of_scaled_rows():
    X, y = make_blobs(200, 4, centers=3, random_state=1)
    model = MeanPrototypes().fit(X, y)
    scale = np.sqrt((X**2).sum(axis=1).mean())
    z = (X - X.mean(axis=0)) / scale
    for column in range(3):
        prototype = z[y == column].mean(axis=0)
        np.testing.assert_allclose(model.prototypes_[column], prototype)
        cosine = z @ prototype / np.linalg.norm(z, axis=1) / np.linalg.norm(prototype)
        np.testing.assert_allclose(model.decision_function(X)[:, column], cosine)
    np.testing.assert_array_equal(model.predict(X), model.decision_function(X).argmax(axis=1))


def test_two_classes_point_in_opposite_ways():
    X, y = make_blobs([150, 30], 4, centers=None, random_state=2)
    model = MeanPrototypes().fit(X, y)
    three = MeanPrototypes().fit(X, np.column_stack([y == 0, y == 1]).astype(int))
    cosines = three.decision_function(X)
    np.testing.assert_allclose(cosines[:, 0], -cosines[:, 1], atol=1e-12)
    np.testing.assert_allclose(model.decision_function(X), cosines[:, 1])
    np.testing.assert_array_equal(model.predict(X), (cosines[:, 1] > 0).astype(int))


def test_indicators_and_rows_at_the_mean():
    X, Y = make_multilabel_classification(100, 5, n_classes=3, random_state=3)
    model = MeanPrototypes().fit(X, np.column_stack([Y, np.zeros(100, dtype=int)]))
    assert model.predict(X).shape == (100, 4)
    assert (model.decision_function(X)[:, 3] == 0).all()
    assert (model.decision_function(model.mean_[None]) == 0).all()


def test_rows_and_labels_that_do_not_fit(problem):
    X, Y, known = problem
    with pytest.raises(DataError, match="do not fit 500 rows"):
        fit_prototypes(ArrayRows(X), sp.csr_matrix(Y[:5]), known)
    with pytest.raises(DataError, match="one class only"):
        MeanPrototypes().fit(X, np.zeros(500))
