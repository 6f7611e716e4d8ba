"""What scikit-learn calls ``y``, as one label column for each concept, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from superactivators.errors import DataError


@final
@dataclass(frozen=True, eq=False)
class Targets:
    """Label columns of a classifier.

    Attributes
    ----------
    classes : array of shape (classes,)
    labels : CSR bool matrix of shape (rows, columns)
        One column a class; for two classes only that of the second one.
    multilabel : bool
        Whether ``y`` held indicators, so that a row may have any number of classes.
    """

    classes: np.ndarray
    labels: Any
    multilabel: bool


def encode_targets(y: np.ndarray) -> Targets:
    """Turn classes (one for each row) or 0/1 indicators (one column for each class) into label columns.

    Raises
    ------
    DataError
        If there are fewer than two classes.
    ValueError
        If ``y`` is neither (scikit-learn's own message).
    """
    check_classification_targets(y)
    if type_of_target(y) == "multilabel-indicator":
        return Targets(np.arange(y.shape[1]), sp.csr_matrix(y, dtype=bool), True)
    classes, number = np.unique(column_or_1d(y, warn=True), return_inverse=True)
    if len(classes) < 2:
        raise DataError(f"y holds one class only ({classes.tolist()}); a classifier needs rows of two classes or more")
    if len(classes) == 2:
        return Targets(classes, sp.csr_matrix(number[:, None].astype(bool)), False)
    rows = np.arange(len(number))
    member = sp.csr_matrix((np.ones(len(number), dtype=bool), (rows, number)), shape=(len(number), len(classes)))
    return Targets(classes, member, False)


def decided(scores: Float[np.ndarray, "..."], classes: np.ndarray, multilabel: bool) -> np.ndarray:
    """Classes from decision scores: above zero for two classes and for indicators, else the highest."""
    if multilabel:
        return np.asarray(scores > 0, dtype=np.int64)
    if scores.ndim == 1:
        return np.asarray(classes[(scores > 0).astype(np.int64)])
    return np.asarray(classes[scores.argmax(axis=1)])
