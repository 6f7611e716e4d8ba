"""A few rows that stand for all of them: enough of every concept's rarer class, with weights that undo the choice."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Float32, Int

EVEN_ROWS = 16_000
"""Expected number of rows that are drawn without regard to their labels."""

CLASS_ROWS = 4000
"""Expected number of rows of each class of each concept, where there are as many."""

MOST = 3
"""The whole sub-sample is at most this many times the rows that are drawn without regard to labels."""


def draw_rows(labels: Any, even_rows: int, seed: int) -> tuple[Int[np.ndarray, " k"], Float32[np.ndarray, " k"]]:
    """Draw rows independently, each with its own chance, and weigh each by the inverse of its chance.

    Weighted sums over the rows drawn are unbiased estimates of the sums over all rows, for every concept at once.

    Parameters
    ----------
    labels : CSR bool matrix of shape (rows, concepts)
        Every concept has a row with it and a row without it.
    even_rows : int
        Expected number of rows that are drawn whatever their labels; all rows are taken if there are no more.
    seed : int

    Returns
    -------
    rows : int64 array of shape (k,)
        Going up.
    weights : float32 array of shape (k,)
    """
    n_rows = labels.shape[0]
    if n_rows <= even_rows:
        return np.arange(n_rows, dtype=np.int64), np.ones(n_rows, dtype=np.float32)
    class_rows = float(CLASS_ROWS)
    chance = _chances(labels, even_rows, class_rows)
    while class_rows > 1 and chance.sum() > MOST * even_rows:
        class_rows /= 2
        chance = _chances(labels, even_rows, class_rows)
    chosen = np.flatnonzero(np.random.default_rng(seed).random(n_rows) < chance)
    return chosen.astype(np.int64), (1.0 / chance[chosen]).astype(np.float32)


def _chances(labels: Any, even_rows: int, class_rows: float) -> Float[np.ndarray, " rows"]:
    n_rows, n_concepts = labels.shape
    positives = np.bincount(labels.indices, minlength=n_concepts)
    chance = np.full(n_rows, even_rows / n_rows)
    rates = np.minimum(1.0, class_rows / positives)
    # At least one row of each class is certain, however rare it is.
    by_concept = labels.tocsc()
    chance[by_concept.indices[by_concept.indptr[:-1]]] = 1.0
    of_positives = sp.csr_matrix((rates[labels.indices], labels.indices, labels.indptr), shape=labels.shape)
    chance = np.maximum(chance, of_positives.max(axis=1).toarray().ravel())
    negatives = n_rows - positives
    for_negatives = np.flatnonzero(class_rows / negatives > even_rows / n_rows)
    if len(for_negatives):
        absent = ~by_concept[:, for_negatives].toarray().astype(bool)
        chance[absent.argmax(axis=0)] = 1.0
        rates = np.minimum(1.0, class_rows / negatives[for_negatives])
        chance = np.maximum(chance, np.where(absent, rates, 0.0).max(axis=1))
    return np.asarray(chance)
