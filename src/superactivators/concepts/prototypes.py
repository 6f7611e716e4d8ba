"""Mean prototypes: the average state of a concept's rows, compared by cosine (METHOD section 4, kind ``mean``)."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from superactivators.concepts.rows import RowSource
from superactivators.concepts.targets import decided, encode_targets
from superactivators.errors import DataError


def fit_prototypes(rows: RowSource, labels: Any, known: Bool[np.ndarray, " rows"]) -> Float[np.ndarray, "c d"]:
    """Mean of each concept's rows, all concepts in one pass, summed in float64.

    Parameters
    ----------
    rows : RowSource
        Scaled as the prototypes are to be; the mean of raw rows is mapped by the same affine map as the rows are.
    labels : scipy CSR bool matrix of shape (rows, concepts)
    known : bool array of shape (rows,)
        Rows that are labelled; the others are left out.

    Returns
    -------
    float64 array of shape (concepts, width)
        Zero for a concept without rows.

    Raises
    ------
    DataError
        If labels and rows do not fit.
    """
    if labels.shape[0] != rows.n_rows or known.shape != (rows.n_rows,):
        raise DataError(
            f"labels of {labels.shape[0]} rows and known of shape {known.shape} do not fit {rows.n_rows} rows of states"
        )
    labels = labels.tocsr().astype(np.float64)
    total = np.zeros((labels.shape[1], rows.width))
    count = np.zeros(labels.shape[1])
    for start, block in rows.blocks():
        stop = start + len(block)
        members = labels[start:stop].multiply(known[start:stop, None]).tocsr()
        total += members.T @ block.numpy().astype(np.float64)
        count += np.asarray(members.sum(axis=0)).ravel()
    return np.asarray(total / np.maximum(count, 1.0)[:, None])


@final
class MeanPrototypes(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classifier by the cosine between a centred row and the mean of each class's centred rows.

    With mean ``mu`` and root mean squared norm ``s`` of all rows, ``z = (x - mu) / s``; the prototype of a class is the
    mean of its ``z`` (METHOD sections 3 and 4). It has no parameters.

    Attributes
    ----------
    classes_ : array of shape (classes,)
        For multilabel indicators: the column numbers.
    mean_ : float64 array of shape (width,)
    scale_ : float
    prototypes_ : float64 array of shape (classes, width), or (1, width) for two classes
        For two classes that of the second one: the other points exactly the other way.
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> X = np.array([[1.0, 0.0], [2.0, 0.1], [0.0, 1.0], [0.1, 2.0]])
    >>> MeanPrototypes().fit(X, ["a", "a", "b", "b"]).predict([[3.0, 0.0]])
    array(['a'], dtype='<U1')
    """

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any) -> MeanPrototypes:
        """Take the means of the classes.

        Parameters
        ----------
        X : array of shape (rows, width)
        y : array of shape (rows,), or 0/1 indicators of shape (rows, classes)

        Returns
        -------
        MeanPrototypes
            Itself.

        Raises
        ------
        DataError
            If there are fewer than two classes.
        ValueError
            If ``X`` or ``y`` are not what scikit-learn accepts.
        """
        X, y = validate_data(self, X, y, multi_output=True, dtype=[np.float64, np.float32])
        targets = encode_targets(y)
        self.classes_, self._multilabel = targets.classes, targets.multilabel
        self.mean_ = X.mean(axis=0, dtype=np.float64)
        centred = X - self.mean_
        self.scale_ = float(np.sqrt(np.mean(np.einsum("nd,nd->n", X, X, dtype=np.float64)))) or 1.0
        members = targets.labels.astype(np.float64)
        counts = np.maximum(np.asarray(members.sum(axis=0)).ravel(), 1.0)
        self.prototypes_ = np.asarray(members.T @ centred) / counts[:, None] / self.scale_
        return self

    def decision_function(self, X: Any) -> Float[np.ndarray, "..."]:
        """Cosines of the centred rows with the prototypes; 0 where either is zero.

        Returns
        -------
        float64 array of shape (rows, classes), or (rows,) for two classes
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        cosines = _unit(X - self.mean_) @ _unit(self.prototypes_).T
        return np.asarray(cosines if self._multilabel or len(self.classes_) > 2 else cosines[:, 0])

    def predict(self, X: Any) -> np.ndarray:
        """Class of the nearest prototype; for multilabel indicators, every class with a positive cosine."""
        return decided(self.decision_function(X), self.classes_, self._multilabel)


def _unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))
