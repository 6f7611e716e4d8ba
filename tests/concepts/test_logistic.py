"""Fitting of separators, against a slow dense oracle in double precision and against what must not matter."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning

from superactivators.concepts.logistic import Examples, Problems, evaluate, preconditioners
from superactivators.concepts.rows import ArrayRows, cached_rows
from superactivators.concepts.separators import SeparatorPath, fit_separators
from superactivators.errors import DataError, StudyError

STRENGTHS = (0.1, 1e-3)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small products wait for threads longer than they take, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def correlated(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    mixing = rng.normal(size=(d, d)) * np.geomspace(3.0, 0.1, d)
    return (rng.normal(size=(n, d)) @ mixing + rng.normal(size=d)).astype(np.float32)


def concepts_of(X: np.ndarray, rng: np.random.Generator, intercepts: tuple[float, ...]) -> np.ndarray:
    logits = (X - X.mean(0)) / X.std(0) @ rng.normal(size=(X.shape[1], len(intercepts))) + np.array(intercepts)
    return rng.random(logits.shape) < expit(logits)


def objective(
    point: np.ndarray, Z: np.ndarray, positive: np.ndarray, strength: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, gradient and Hessian, straight from the definition, for one concept."""
    Za = np.column_stack([Z, np.ones(len(Z))])
    y = np.where(positive, 1.0, -1.0)
    a = np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum())
    margin = y * (Za @ point)
    penalty = np.append(np.full(Z.shape[1], strength), 0.0)
    loss = (a * np.logaddexp(0.0, -margin)).sum() + 0.5 * (penalty * point**2).sum()
    gradient = -Za.T @ (a * y * expit(-margin)) + penalty * point
    hessian = (Za * (a * expit(margin) * expit(-margin))[:, None]).T @ Za + np.diag(penalty)
    return loss, gradient, hessian


def oracle(X: np.ndarray, positive: np.ndarray, strength: float) -> tuple[np.ndarray, float, float]:
    """Weights and bias in units of X, and the loss, by Newton's method with a trust region."""
    X = X.astype(np.float64)
    centre, deviation = X.mean(0), X.std(0)
    Z = (X - centre) / deviation
    found = minimize(
        lambda point: objective(point, Z, positive, strength)[0],
        np.zeros(X.shape[1] + 1),
        jac=lambda point: objective(point, Z, positive, strength)[1],
        hess=lambda point: objective(point, Z, positive, strength)[2],
        method="trust-exact",
        options={"gtol": 1e-10},
    )
    weights = found.x[:-1] / deviation
    return weights, found.x[-1] - weights @ centre, found.fun


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def everything_known(X: np.ndarray) -> np.ndarray:
    return np.ones(len(X), dtype=bool)


def fit(X: np.ndarray, Y: np.ndarray, known: np.ndarray | None = None, **options: object) -> SeparatorPath:
    options = {"strengths": STRENGTHS, "tolerance": 1e-6} | options
    known = everything_known(X) if known is None else known
    return fit_separators(ArrayRows(X), sp.csr_matrix(Y), known, **options)


@pytest.fixture(scope="module")
def problem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = correlated(900, 8, rng)
    return X, concepts_of(X, rng, (0.0, -4.0, 3.0))


@pytest.fixture(scope="module")
def large() -> tuple[np.ndarray, np.ndarray]:
    """More rows than are looked at to begin with, and concepts of every frequency: 3 positives, 5 negatives."""
    rng = np.random.default_rng(1)
    X = correlated(30_000, 12, rng)
    Y = np.zeros((len(X), 5), dtype=bool)
    Y[:, :3] = concepts_of(X, rng, (0.0, -6.0, 5.0))
    Y[rng.choice(len(X), 3, replace=False), 3] = True
    Y[:, 4] = True
    Y[rng.choice(len(X), 5, replace=False), 4] = False
    return X, Y


class IrregularRows:
    """A source of blocks of changing size that makes every block anew, as a store does."""

    def __init__(self, X: np.ndarray) -> None:
        self.X = X
        self.n_rows, self.width = X.shape
        self.reads = 0

    def blocks(self) -> Iterator[tuple[int, torch.Tensor]]:
        self.reads += 1
        sizes = np.cumsum([0, *np.resize([1, 700, 64, 0, 333], 200)])
        bounds = np.append(sizes[sizes < self.n_rows], self.n_rows)
        for start, stop in itertools.pairwise(bounds):
            yield int(start), torch.tensor(self.X[start:stop].astype(np.float32))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_weights_and_loss_are_those_of_the_oracle(problem, strength):
    X, Y = problem
    path = fit(X, Y)
    row = STRENGTHS.index(strength)
    for concept in range(Y.shape[1]):
        weights, bias, loss = oracle(X, Y[:, concept], strength)
        assert relative(path.weights[row, concept], weights) < 1e-4
        assert path.bias[row, concept] == pytest.approx(bias, rel=1e-4, abs=1e-4)
        assert path.loss[row, concept] == pytest.approx(loss, abs=1e-6)
    assert path.converged.all()
    assert path.estimable.all()
    assert (path.n_iter >= 1).all()


def test_rows_beyond_the_sub_sample_count(large):
    X, Y = large
    path = fit(X, Y, strengths=(0.01,), tolerance=1e-5)
    Z = (X.astype(np.float64) - X.mean(0, dtype=np.float64)) / X.std(0, dtype=np.float64)
    for concept in range(Y.shape[1]):
        weights, _, loss = oracle(X, Y[:, concept], 0.01)
        assert path.loss[0, concept] == pytest.approx(loss, abs=1e-6)
        assert relative(path.weights[0, concept], weights) < 1e-3
        scale = np.linalg.norm(objective(np.zeros(X.shape[1] + 1), Z, Y[:, concept], 0.01)[1])
        point = path.weights[0, concept] * X.std(0, dtype=np.float64)
        bias = path.bias[0, concept] + path.weights[0, concept] @ X.mean(0, dtype=np.float64)
        gradient = objective(np.append(point, bias), Z, Y[:, concept], 0.01)[1]
        assert np.linalg.norm(gradient) <= 1.1e-5 * scale
        assert path.gradient_norm[0, concept] == pytest.approx(np.linalg.norm(gradient) / scale, rel=0.1, abs=1e-6)


def test_solution_does_not_depend_on_the_seed(large):
    X, Y = large
    first, second = (fit(X, Y, seed=seed) for seed in (0, 1))
    assert relative(first.weights, second.weights) < 1e-3
    np.testing.assert_array_equal(first.weights, fit(X, Y, seed=0).weights)


def test_streamed_rows_give_the_separators_of_rows_in_memory(large):
    X, Y = large
    known = np.random.default_rng(2).random(len(X)) < 0.9
    held = fit(X, Y, known)
    source = IrregularRows(X)
    # No memory at all: streamed on every pass, and one concept at a time.
    streamed = fit_separators(source, sp.csr_matrix(Y), known, STRENGTHS, tolerance=1e-6, memory=0)
    assert source.reads > 5
    assert relative(streamed.weights, held.weights) < 1e-3
    np.testing.assert_allclose(streamed.loss, held.loss, atol=1e-6)


@pytest.mark.parametrize("kind", [np.float16, np.float64, "torch", "read-only"])
def test_number_formats(problem, kind):
    X, Y = problem
    X = X.astype(np.float16).astype(np.float32)
    given = torch.tensor(X) if kind == "torch" else X.copy() if kind == "read-only" else X.astype(kind)
    if kind == "read-only":
        given.setflags(write=False)
    path = fit(given, Y)
    np.testing.assert_allclose(path.weights, fit(X, Y).weights, rtol=1e-6)


def test_order_of_rows_and_concepts_does_not_matter(large):
    X, Y = large
    rng = np.random.default_rng(3)
    rows, concepts = rng.permutation(len(X)), rng.permutation(Y.shape[1])
    path, permuted = fit(X, Y), fit(X[rows], Y[rows][:, concepts])
    assert relative(permuted.weights, path.weights[:, concepts]) < 1e-3
    np.testing.assert_allclose(permuted.loss, path.loss[:, concepts], atol=1e-6)


def test_strengths_come_back_in_the_order_given(problem):
    X, Y = problem
    path, turned = fit(X, Y), fit(X, Y, strengths=STRENGTHS[::-1])
    assert turned.strengths == STRENGTHS[::-1]
    assert relative(turned.weights, path.weights[::-1]) < 1e-4


def test_units_of_a_column_do_not_change_predictions(problem):
    X, Y = problem
    factors = np.where(np.arange(X.shape[1]) == 2, np.float32(1000.0), np.float32(1.0))
    path, rescaled = fit(X, Y), fit(X * factors, Y)
    logits = X @ path.weights[0].T + path.bias[0]
    np.testing.assert_allclose((X * factors) @ rescaled.weights[0].T + rescaled.bias[0], logits, atol=2e-4)


def test_massive_offset_of_a_column_costs_no_precision(problem):
    X, Y = problem
    massive = X.copy()
    massive[:, 1] += 1000.0
    rounded = X.copy()
    rounded[:, 1] = massive[:, 1] - np.float32(1000.0)  # what single precision has left of the column
    path, shifted = fit(rounded, Y), fit(massive, Y)
    assert relative(shifted.weights, path.weights) < 1e-3
    np.testing.assert_allclose(shifted.loss, path.loss, atol=1e-6)


def test_constant_columns_get_no_weight(problem):
    X, Y = problem
    widened = np.column_stack([X, np.full(len(X), 1234.567, dtype=np.float32), np.zeros(len(X), dtype=np.float32)])
    path = fit(widened, Y)
    assert (path.weights[:, :, -2:] == 0).all()
    assert relative(path.weights[:, :, :-2], fit(X, Y).weights) < 1e-4


def test_separable_classes_converge():
    rng = np.random.default_rng(4)
    X = rng.normal(size=(400, 5)).astype(np.float32)
    Y = np.column_stack([X[:, 0] > 0.5, X[:, 1] + X[:, 2] > 0])
    path = fit(X, Y, strengths=(1.0, 1e-2, 1e-5), tolerance=1e-5)
    assert path.converged.all()
    logits = X @ path.weights[-1].T + path.bias[-1]
    assert ((logits > 0) == Y).mean() > 0.99


def test_unknown_rows_are_as_good_as_absent(problem):
    X, Y = problem
    known = np.random.default_rng(5).random(len(X)) < 0.7
    spoilt = X.copy()
    spoilt[~known] *= 100.0
    path, dropped = fit(spoilt, Y, known), fit(X[known], Y[known])
    np.testing.assert_allclose(path.weights, dropped.weights, rtol=1e-4, atol=1e-6)


def test_concepts_that_cannot_be_learned_are_flagged(problem):
    X, Y = problem
    Y = np.column_stack([np.zeros(len(X), dtype=bool), Y[:, 0], np.ones(len(X), dtype=bool)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = fit(X, Y)
    np.testing.assert_array_equal(path.estimable, [False, True, False])
    assert (path.weights[:, [0, 2]] == 0).all()
    assert (path.bias[:, [0, 2]] == 0).all()
    assert path.converged[:, 1].all()
    only_unknown = fit(X, Y[:, :1])
    assert not only_unknown.estimable.any()


def test_labels_stored_twice_or_as_zero_are_read_as_they_mean(problem):
    X, Y = problem
    rows, columns = np.nonzero(Y)
    doubled = sp.csr_matrix(
        (
            np.append(np.ones(2 * len(rows), dtype=np.int8), 0),
            (np.append(np.tile(rows, 2), np.flatnonzero(~Y[:, 0])[0]), np.append(np.tile(columns, 2), 0)),
        ),
        shape=Y.shape,
    )
    path = fit_separators(ArrayRows(X), doubled, everything_known(X), STRENGTHS, tolerance=1e-6)
    np.testing.assert_allclose(path.weights, fit(X, Y).weights)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_separators(large):
    X, Y = large
    assert relative(fit(X, Y, device="cuda").weights, fit(X, Y).weights) < 1e-3


def test_giving_up_is_told(large):
    X, Y = large
    with pytest.warns(ConvergenceWarning, match=r"of 10 separators did not reach the tolerance 1e-06 in 1 passes"):
        path = fit(X, Y, max_iter=1)
    assert not path.converged.all()
    np.testing.assert_array_equal(path.converged, path.gradient_norm <= 1e-6)


@pytest.mark.parametrize("strengths", [(), (0.0,), (-1.0,), (float("nan"),), (0.1, float("inf"))])
def test_impossible_strengths(problem, strengths):
    with pytest.raises(StudyError, match="L2 strengths must be positive"):
        fit(*problem, strengths=strengths)


@pytest.mark.parametrize("wrong", [{"tolerance": 0.0}, {"max_iter": 0}])
def test_impossible_ends(problem, wrong):
    with pytest.raises(StudyError, match="tolerance must be positive"):
        fit(*problem, **wrong)


def test_rows_and_labels_that_do_not_fit(problem):
    X, Y = problem
    with pytest.raises(DataError, match="labels of 10 rows"):
        fit(X, Y[:10])
    with pytest.raises(DataError, match="known of shape"):
        fit(X, Y, np.ones(3, dtype=bool))
    with pytest.raises(DataError, match="none of the 900 rows is labelled"):
        fit(X, Y, np.zeros(len(X), dtype=bool))
    spoilt = X.copy()
    spoilt[5, 3] = np.nan
    with pytest.raises(DataError, match="column 3"):
        fit(spoilt, Y)
    with pytest.raises(DataError, match="matrix of floating-point numbers"):
        ArrayRows(np.ones((3, 2), dtype=np.int64))


def test_rows_are_cached_within_the_budget_only(problem):
    X, _ = problem
    source = IrregularRows(X)
    assert cached_rows(source, X.nbytes - 1) is source
    held = cached_rows(source, X.nbytes)
    np.testing.assert_array_equal(torch.cat([block for _, block in held.blocks()]).numpy(), X)
    assert source.reads == 1
    assert cached_rows(held, 0) is held


@pytest.mark.parametrize("weighted", [False, True])
def test_evaluation_is_the_definition(problem, weighted):
    X, Y = problem
    rng = np.random.default_rng(6)
    # A row of weight two is a row that comes twice.
    copies = rng.integers(1, 3, len(X)) if weighted else np.ones(len(X), dtype=np.int64)
    weights = torch.tensor(copies, dtype=torch.float32) if weighted else None
    examples = Examples(ArrayRows(X), sp.csr_matrix(Y), weights, torch.device("cpu"))
    problems = Problems(torch.tensor([2, 0, 2]), torch.tensor([0.5, 0.1, 0.01], dtype=torch.float64))
    points = rng.normal(size=(3, X.shape[1] + 1)) * 0.1
    loss, gradient = evaluate(examples, problems, torch.from_numpy(points))
    X2, Y2 = np.repeat(X, copies, axis=0), np.repeat(Y, copies, axis=0)
    for row in range(3):
        concept, strength = int(problems.concept[row]), float(problems.strength[row])
        expected = objective(points[row], X2.astype(np.float64), Y2[:, concept], strength)
        assert float(loss[row]) == pytest.approx(expected[0], rel=1e-6)
        np.testing.assert_allclose(gradient[row].numpy(), expected[1], atol=2e-6)


def test_preconditioner_is_the_inverse_hessian(problem):
    X, Y = problem
    Z = (X - X.mean(0)) / X.std(0)
    examples = Examples(ArrayRows(Z), sp.csr_matrix(Y), None, torch.device("cpu"))
    problems = Problems(torch.tensor([0, 1]), torch.tensor([0.1, 1e-3], dtype=torch.float64))
    points = np.random.default_rng(7).normal(size=(2, Z.shape[1] + 1)) * 0.3
    for n_drawn, error in ((len(Z), 1e-3), (400, 0.6)):
        factors = preconditioners(torch.from_numpy(Z), examples, problems, torch.from_numpy(points), n_drawn)
        for row in range(2):
            factor = factors[row].double().numpy()
            exact = objective(points[row], Z.astype(np.float64), Y[:, row], float(problems.strength[row]))[2]
            # All eigenvalues of the preconditioned Hessian are near one.
            assert np.abs(np.linalg.eigvalsh(factor @ exact @ factor.T) - 1).max() < error
            assert np.array_equal(factor, np.tril(factor))
