"""Logistic regression on few sparse rows with very many columns: all classes together, in the span of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float
from scipy.special import expit

HISTORY = 10
"""Pairs of steps and gradient changes that are remembered."""

TOLERANCE = 1e-4
"""Gradient norm, relative to that of the zero vector, at which a class is done."""

MAX_ITER = 500
LINE_STEPS = 4
"""Newton steps of a line search."""


@final
@dataclass(frozen=True, eq=False)
class SparseFit:
    """Separators.

    Attributes
    ----------
    weights : float64 array of shape (classes, columns)
    bias : float64 array of shape (classes,)
    gradient_norm : float64 array of shape (classes,)
        Relative to that of the zero vector.
    dual : float64 array of shape (rows, classes)
        Weights as combinations of the rows; a start for another C.
    """

    weights: Float[np.ndarray, "c v"]
    bias: Float[np.ndarray, " c"]
    gradient_norm: Float[np.ndarray, " c"]
    dual: Float[np.ndarray, "n c"]


def fit_sparse(
    rows: sp.csr_matrix,
    positive: Bool[np.ndarray, "n c"],
    c: float,
    start: Float[np.ndarray, "n c"] | None = None,
    *,
    tolerance: float = TOLERANCE,
) -> SparseFit:
    r"""Fit class-balanced L2 logistic regression, one separator for each class.

    For every class this minimises

    .. math:: C \sum_i a_i \log(1 + e^{-y_i (x_i w + b)}) + \frac{1}{2} (\lVert w \rVert^2 + b^2)

    with :math:`a_i = n / (2 n_{y_i})`, as scikit-learn does with ``solver="liblinear", class_weight="balanced"``.

    Parameters
    ----------
    rows : CSR matrix of shape (rows, columns)
    positive : bool array of shape (rows, classes)
        Both values in every class.
    c : float
        Inverse L2 strength.
    start : float64 array of shape (rows, classes), optional
        `SparseFit.dual` of a nearby C.
    tolerance : float
        Gradient norm, relative to that of the zero vector, at which a class is done.

    Returns
    -------
    SparseFit

    Notes
    -----
    The weights are combinations of the rows, :math:`w = X^T \beta`, and so are gradients and steps. L-BFGS (Nocedal and
    Wright, "Numerical Optimization", chapter 7) runs on the coefficients with the inner product
    :math:`\langle \beta, \beta' \rangle = \beta^T X X^T \beta'`, which gives the iterates of L-BFGS on the weights
    themselves for vectors as short as the number of rows. Each iteration multiplies once with X and its transpose.
    """
    n = len(positive)
    turned = rows.T.tocsr()
    sign = np.where(positive, 1.0, -1.0)
    counts = positive.sum(axis=0)
    balance = c * np.where(positive, n / (2 * counts), n / (2 * (n - counts)))

    def products(dual: np.ndarray) -> np.ndarray:
        # the bias is a column of ones
        return np.asarray(rows @ (turned @ dual) + dual.sum(axis=0))

    dual = np.zeros((n, counts.size)) if start is None else start.copy()
    zero = -0.5 * balance * sign
    goal = tolerance**2 * _dot(zero, products(zero))
    logits = products(dual)
    push = -balance * sign * expit(-sign * logits)
    slope, slope_products = dual + push, logits + products(push)
    memory: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    for _ in range(MAX_ITER):
        if (_dot(slope, slope_products) <= goal).all():
            break
        step, step_products = _direction(slope, slope_products, memory)
        length = _line(dual, logits, step, step_products, sign, balance)
        step, step_products = length * step, length * step_products
        dual, logits = dual + step, logits + step_products
        push = -balance * sign * expit(-sign * logits)
        new, new_products = dual + push, logits + products(push)
        change, change_products = new - slope, new_products - slope_products
        curve = _dot(change, step_products)
        # a class that stands still has no curvature to remember
        inverse = np.divide(1.0, curve, out=np.zeros_like(curve), where=curve > 0)
        memory = [*memory[-HISTORY + 1 :], (step, step_products, change, change_products, inverse)]
        slope, slope_products = new, new_products
    reached = np.sqrt(np.maximum(_dot(slope, slope_products), 0) / goal) * tolerance
    return SparseFit(np.asarray(turned @ dual).T, dual.sum(axis=0), reached, dual)


def _dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("nc,nc->c", one, other))


def _direction(
    slope: np.ndarray,
    slope_products: np.ndarray,
    memory: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Two-loop recursion; products with the Gram matrix go along, since everything is linear."""
    point, products = -slope, -slope_products
    shares = []
    for _, step_products, change, change_products, inverse in reversed(memory):
        share = inverse * _dot(step_products, point)
        point, products = point - share * change, products - share * change_products
        shares.append(share)
    if memory:
        _, _, change, change_products, inverse = memory[-1]
        size = inverse * _dot(change, change_products)
        scale = np.divide(1.0, size, out=np.ones_like(size), where=size > 0)
        point, products = scale * point, scale * products
    for (step, step_products, _, change_products, inverse), share in zip(memory, reversed(shares), strict=True):
        rest = share - inverse * _dot(change_products, point)
        point, products = point + rest * step, products + rest * step_products
    return point, products


def _line(
    dual: np.ndarray,
    logits: np.ndarray,
    step: np.ndarray,
    step_products: np.ndarray,
    sign: np.ndarray,
    balance: np.ndarray,
) -> np.ndarray:
    """Minimum along the step, by Newton's method kept within what it has bracketed."""
    along, square = _dot(dual, step_products), _dot(step, step_products)
    low, high = np.zeros(len(along)), np.full(len(along), np.inf)
    length = np.ones(len(along))
    best = np.zeros(len(along))
    for _ in range(LINE_STEPS):
        wrong = expit(-sign * (logits + length * step_products))
        slope = along + length * square - _dot(balance * sign * wrong, step_products)
        curve = square + _dot(balance * wrong * (1 - wrong), step_products**2)
        low, high = np.where(slope < 0, length, low), np.where(slope < 0, high, length)
        best = length
        newton = length - np.divide(slope, curve, out=np.zeros_like(slope), where=curve > 0)
        middle = np.where(np.isinf(high), 2 * length, (low + np.where(np.isinf(high), 0, high)) / 2)
        length = np.where((newton > low) & (newton < high), newton, middle)
    return np.where(np.isfinite(best), best, 0.0)
