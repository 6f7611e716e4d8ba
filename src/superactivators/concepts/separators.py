"""Linear separators as a scikit-learn classifier (METHOD section 4, kind ``linear``)."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from jaxtyping import Float
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from superactivators.concepts.rows import ArrayRows
from superactivators.concepts.separator_path import (
    MAX_ITER,
    MEMORY,
    STRENGTHS,
    TOLERANCE,
    SeparatorPath,
    fit_separators,
)
from superactivators.concepts.targets import decided, encode_targets

__all__ = ["STRENGTHS", "LinearSeparators", "SeparatorPath", "fit_separators"]


@final
class LinearSeparators(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Class-balanced logistic regression, one separator for each class, all fitted together.

    Parameters
    ----------
    strength : float or sequence of float
        L2 strength of the standardised problem. Of a sequence, `coef_` holds the last; the others are in `path_`.
    tolerance : float
        Relative gradient norm at which a separator is done; see `fit_separators`.
    max_iter : int
        Most passes over the rows.
    seed : int
        Of the sub-sample that the passes start from.
    memory : int
        Bytes that fitting may take.

    Attributes
    ----------
    classes_ : array of shape (classes,)
        For multilabel indicators: the column numbers.
    coef_ : float64 array of shape (classes, width), or (1, width) for two classes
    intercept_ : float64 array of shape (classes,), or (1,) for two classes
    gradient_norm_ : float64 array of shape (classes,), or (1,) for two classes
    n_iter_ : int64 array of shape (classes,), or (1,) for two classes
    path_ : SeparatorPath
        Separators at every strength.
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> LinearSeparators().fit(X, ["low", "low", "high", "high"]).predict([[0.2], [2.8]])
    array(['low', 'high'], dtype='<U4')
    """

    # Any: scikit-learn's constructors take whatever they are given, and fitting says what is wrong with it.
    def __init__(
        self,
        strength: Any = 0.01,
        *,
        tolerance: Any = TOLERANCE,
        max_iter: Any = MAX_ITER,
        seed: Any = 0,
        memory: Any = MEMORY,
    ) -> None:
        self.strength = strength
        self.tolerance = tolerance
        self.max_iter = max_iter
        self.seed = seed
        self.memory = memory

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any) -> LinearSeparators:
        """Fit one separator for each class against all other rows (for two classes one in all).

        Parameters
        ----------
        X : array of shape (rows, width)
        y : array of shape (rows,), or 0/1 indicators of shape (rows, classes)

        Returns
        -------
        LinearSeparators
            Itself.

        Raises
        ------
        DataError
            If there are fewer than two classes.
        StudyError
            If a strength is not a positive number.
        ValueError
            If ``X`` or ``y`` are not what scikit-learn accepts.
        """
        X, y = validate_data(self, X, y, multi_output=True, dtype=[np.float32, np.float64, np.float16])
        targets = encode_targets(y)
        self.classes_, self._multilabel = targets.classes, targets.multilabel
        self.path_ = fit_separators(
            ArrayRows(X),
            targets.labels,
            np.ones(len(X), dtype=bool),
            np.atleast_1d(np.asarray(self.strength, dtype=np.float64)).tolist(),
            tolerance=self.tolerance,
            max_iter=self.max_iter,
            seed=self.seed,
            memory=self.memory,
        )
        self.coef_, self.intercept_ = self.path_.weights[-1], self.path_.bias[-1]
        self.gradient_norm_, self.n_iter_ = self.path_.gradient_norm[-1], self.path_.n_iter[-1]
        return self

    def decision_function(self, X: Any) -> Float[np.ndarray, "..."]:
        """Logits.

        Returns
        -------
        float64 array of shape (rows, classes), or (rows,) for two classes
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        logits = X @ self.coef_.T + self.intercept_
        return np.asarray(logits if self._multilabel or len(self.classes_) > 2 else logits[:, 0])

    def predict(self, X: Any) -> np.ndarray:
        """Class of the highest logit; for multilabel indicators, every class with a positive one."""
        return decided(self.decision_function(X), self.classes_, self._multilabel)

    def predict_proba(self, X: Any) -> Float[np.ndarray, "rows c"]:
        """Logistic function of the logits; for three classes or more divided by its sum over classes.

        Classes are balanced in fitting, so these are probabilities under equal shares of both classes.

        Returns
        -------
        float64 array of shape (rows, classes)
        """
        probability = np.asarray(expit(self.decision_function(X)))
        if self._multilabel:
            return probability
        if probability.ndim == 1:
            return np.stack([1.0 - probability, probability], axis=1)
        total = probability.sum(axis=1, keepdims=True)
        even = np.full_like(probability, 1.0 / probability.shape[1])
        return np.asarray(np.divide(probability, total, out=even, where=total > 0))
