"""The separator classifier keeps scikit-learn's contract and agrees with scikit-learn's own solver."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import clone
from sklearn.datasets import make_blobs, make_classification, make_multilabel_classification
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from superactivators.concepts.separators import LinearSeparators
from superactivators.errors import DataError, StudyError


@parametrize_with_checks([LinearSeparators(), LinearSeparators(strength=(1.0, 1e-3), tolerance=1e-6)])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_agrees_with_scikit_learn():
    X, y = make_classification(800, 10, weights=[0.9], random_state=0)
    X = X * np.geomspace(0.1, 10, 10) + 3
    strength = 0.02
    reference = make_pipeline(
        StandardScaler(), LogisticRegression(C=1 / (strength * len(X)), class_weight="balanced", tol=1e-8)
    ).fit(X, y)
    ours = LinearSeparators(strength, tolerance=1e-6).fit(X, y)
    np.testing.assert_allclose(ours.decision_function(X), reference.decision_function(X), atol=1e-4)
    np.testing.assert_allclose(ours.predict_proba(X), reference.predict_proba(X), atol=1e-4)
    np.testing.assert_array_equal(ours.predict(X), reference.predict(X))
    assert ours.coef_.shape == (1, 10)
    assert ours.gradient_norm_.shape == ours.n_iter_.shape == ours.intercept_.shape == (1,)
    assert (ours.gradient_norm_ <= 1e-6).all()


def test_several_classes_are_each_fitted_against_the_rest():
    X, y = make_blobs(300, 5, centers=4, random_state=1)
    names = np.array(["d", "a", "c", "b"])[y]
    model = LinearSeparators().fit(X, names)
    np.testing.assert_array_equal(model.classes_, ["a", "b", "c", "d"])
    for column, name in enumerate(model.classes_):
        alone = LinearSeparators().fit(X, names == name)
        np.testing.assert_allclose(model.decision_function(X)[:, column], alone.decision_function(X), atol=1e-3)
    probability = model.predict_proba(X)
    np.testing.assert_allclose(probability.sum(axis=1), 1.0)
    shares = expit(model.decision_function(X))
    np.testing.assert_allclose(probability, shares / shares.sum(axis=1, keepdims=True))
    assert model.score(X, names) == 1.0


def test_indicators_are_fitted_column_by_column():
    X, Y = make_multilabel_classification(400, 8, n_classes=3, random_state=2)
    Y = np.column_stack([Y, np.zeros(len(Y), dtype=Y.dtype)])
    model = LinearSeparators().fit(X, Y)
    for column in range(3):
        alone = LinearSeparators().fit(X, Y[:, column])
        np.testing.assert_allclose(model.decision_function(X)[:, column], alone.decision_function(X), atol=1e-3)
    np.testing.assert_array_equal(model.predict(X), model.decision_function(X) > 0)
    np.testing.assert_array_equal(model.predict_proba(X), expit(model.decision_function(X)))
    np.testing.assert_array_equal(model.path_.estimable, [True, True, True, False])
    assert (model.coef_[3] == 0).all()


def test_a_path_ends_where_its_last_strength_alone_does():
    X, y = make_classification(300, 6, random_state=3)
    path = LinearSeparators((1.0, 0.1, 1e-3), tolerance=1e-6).fit(X, y)
    single = LinearSeparators(1e-3, tolerance=1e-6).fit(X, y)
    np.testing.assert_allclose(path.coef_, single.coef_, rtol=1e-3, atol=1e-5)
    assert path.path_.weights.shape == (3, 1, 6)
    norms = np.linalg.norm(path.path_.weights * X.std(axis=0), axis=2)
    assert (np.diff(norms[:, 0]) > 0).all()


def test_parameters_are_stored_as_given():
    model = LinearSeparators((0.1, 0.01), tolerance=1e-3, max_iter=7, seed=3, memory=10)
    assert clone(model).get_params() == model.get_params()
    assert model.get_params()["strength"] == (0.1, 0.01)


def test_mistakes():
    X, y = make_blobs(30, 2, centers=2, random_state=0)
    with pytest.raises(DataError, match="one class only"):
        LinearSeparators().fit(X, np.zeros(30))
    with pytest.raises(StudyError, match="positive"):
        LinearSeparators(strength=0.0).fit(X, y)
