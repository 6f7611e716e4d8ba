"""Separators of all concepts at all strengths, fitted together (METHOD section 4, kind ``linear``)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from superactivators.concepts.lbfgs import Minimum, minimise
from superactivators.concepts.logistic import Examples, Problems, evaluate, preconditioners
from superactivators.concepts.rows import ArrayRows, RowSource
from superactivators.concepts.standardised import Standardisation, standardise, take_rows
from superactivators.concepts.subsample import EVEN_ROWS, draw_rows
from superactivators.errors import DataError, StudyError

STRENGTHS = (3.0, 0.3, 0.03, 0.003)
"""Default path of L2 strengths: text encoders do best near its strong end, image encoders near its weak end."""

TOLERANCE = 1e-4
MAX_ITER = 200
MEMORY = 4 * 2**30

LEAST_SCALE = 0.01
"""Gradient norms are measured against that of the zero vector, or against this where there is hardly any signal."""

SUB_TOLERANCE = 2e-2
"""Tolerance on the sub-sample: its minimum is no closer to that of all rows."""

DRAWN = 4000
"""Rows of the sub-sample that a Hessian is taken over; twice the width where that is more."""

SUB_SHARE = 2
"""How many times fewer rows do for Hessians while the sub-sample is being solved."""

SUB_STEPS = 8
"""Evaluations on the sub-sample from one set of Hessians."""

SUB_ROUNDS = 6
"""Most sets of Hessians for one strength."""


@final
@dataclass(frozen=True, eq=False)
class SeparatorPath:
    """Separators of every concept at every strength.

    Attributes
    ----------
    strengths : tuple of float
        As they were given.
    weights : float64 array of shape (strengths, concepts, width)
        In units of the rows as given; zero where a concept is not estimable.
    bias : float64 array of shape (strengths, concepts)
    loss : float64 array of shape (strengths, concepts)
        Objective at the solution, penalty included.
    gradient_norm : float64 array of shape (strengths, concepts)
        Norm of the gradient of the standardised problem, divided by that at the zero vector, which is estimated on the
        sub-sample (by 0.01 if that is less).
    n_iter : int64 array of shape (strengths, concepts)
        Passes over all rows that each separator took part in.
    estimable : bool array of shape (concepts,)
        False where no labelled row, or every one, carries the concept.
    converged : bool array of shape (strengths, concepts)
        Whether the gradient norm reached the tolerance.
    """

    strengths: tuple[float, ...]
    weights: Float[np.ndarray, "s c d"]
    bias: Float[np.ndarray, "s c"]
    loss: Float[np.ndarray, "s c"]
    gradient_norm: Float[np.ndarray, "s c"]
    n_iter: Int[np.ndarray, "s c"]
    estimable: Bool[np.ndarray, " c"]
    converged: Bool[np.ndarray, "s c"]


def fit_separators(
    rows: RowSource,
    labels: Any,
    known: Bool[np.ndarray, " rows"],
    strengths: Sequence[float] = STRENGTHS,
    *,
    tolerance: float = TOLERANCE,
    max_iter: int = MAX_ITER,
    seed: int = 0,
    memory: int = MEMORY,
    device: str | torch.device = "cpu",
) -> SeparatorPath:
    r"""Fit one linear separator for every concept and strength.

    For each concept, with rows x standardised by column and labels y of -1 or 1, this minimises

    .. math:: \sum_i a_i \log(1 + e^{-y_i (x_i w + b)}) + \frac{\lambda}{2} \lVert w \rVert^2,

    where the weights :math:`a_i` of each class are equal and add up to one half. The bias is not penalised.

    Parameters
    ----------
    rows : RowSource
        Every row, labelled or not.
    labels : scipy CSR bool matrix of shape (rows, concepts)
    known : bool array of shape (rows,)
        Rows that are labelled; the others are left out entirely.
    strengths : sequence of float
        L2 strengths, in any order.
    tolerance : float
        Gradient norm, relative to that of the zero vector, at which a separator is done. At the default of 1e-4 weights
        are within about 1e-3 of the solution and losses within 1e-6; single precision resolves little below 1e-7.
    max_iter : int
        Most passes over all rows.
    seed : int
        Of the sub-sample that the passes start from; the solution depends on it within the tolerance only.
    memory : int
        Bytes that this may take. A float32 copy of the rows is held if it fits in three quarters of them, else the rows
        are read again on every pass; concepts are fitted in groups whose Hessians fit in the last quarter.
    device : str or torch.device
        Where the products are computed.

    Returns
    -------
    SeparatorPath

    Raises
    ------
    DataError
        If labels and rows do not fit, no row is labelled, or a value is not finite.
    StudyError
        If a strength is not a positive number, there is none, or tolerance or max_iter are not positive.

    Warns
    -----
    ConvergenceWarning
        If some separators are not done after ``max_iter`` passes.

    Notes
    -----
    The path is first solved from strong to weak on a sub-sample, which costs little; then all strengths and concepts
    are finished together on all rows, by L-BFGS from the Hessians of the sub-sample. Each pass reads the rows once.
    """
    if not (tolerance > 0 and max_iter >= 1):
        raise StudyError(f"tolerance must be positive and max_iter at least 1; got {tolerance} and {max_iter}")
    labels, known, order = _checked(rows, labels, known, strengths)
    labels = labels[known]
    positives = np.bincount(labels.indices, minlength=labels.shape[1])
    estimable = (positives > 0) & (positives < labels.shape[0])
    n_strengths, n_concepts = len(order), len(estimable)
    path = SeparatorPath(
        strengths=tuple(float(strength) for strength in strengths),
        weights=np.zeros((n_strengths, n_concepts, rows.width)),
        bias=np.zeros((n_strengths, n_concepts)),
        loss=np.zeros((n_strengths, n_concepts)),
        gradient_norm=np.zeros((n_strengths, n_concepts)),
        n_iter=np.zeros((n_strengths, n_concepts), dtype=np.int64),
        estimable=estimable,
        converged=np.repeat(estimable[None], n_strengths, axis=0),
    )
    if not estimable.any():
        return path
    standard, standardisation = standardise(rows, known, memory // 4 * 3)
    solver = _PathSolver.prepare(standard, labels[:, estimable], tolerance, max_iter, seed, torch.device(device))
    at_once = max(1, memory // 4 // (4 * (rows.width + 1) ** 2 * n_strengths))
    for begin in range(0, int(estimable.sum()), at_once):
        group = np.arange(begin, min(begin + at_once, int(estimable.sum())))
        columns = np.flatnonzero(estimable)[group]
        minimum, scale = solver.solve(torch.from_numpy(group), [float(strengths[place]) for place in order])
        _enter(path, np.ix_(order, columns), standardisation, minimum, scale, tolerance)
    missed = int((~path.converged[:, estimable]).sum())
    if missed:
        warnings.warn(
            f"{missed} of {path.converged[:, estimable].size} separators did not reach the tolerance {tolerance:g} in "
            f"{max_iter} passes (worst relative gradient norm {path.gradient_norm.max():.1e}); raise max_iter or the "
            "tolerance, or leave out the weakest strengths",
            ConvergenceWarning,
            stacklevel=2,
        )
    return path


def _checked(
    rows: RowSource, labels: Any, known: Bool[np.ndarray, " rows"], strengths: Sequence[float]
) -> tuple[Any, Bool[np.ndarray, " rows"], Int[np.ndarray, " s"]]:
    if labels.shape[0] != rows.n_rows or known.shape != (rows.n_rows,):
        raise DataError(
            f"labels of {labels.shape[0]} rows and known of shape {known.shape} do not fit {rows.n_rows} rows of states"
        )
    if not known.any():
        raise DataError(f"none of the {rows.n_rows} rows is labelled; separators need rows with and without a concept")
    values = np.asarray(strengths, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not (np.isfinite(values) & (values > 0)).all():
        raise StudyError(f"L2 strengths must be positive numbers; got {list(strengths)}; try {list(STRENGTHS)}")
    labels = labels.tocsr(copy=True)
    labels.sum_duplicates()
    labels.eliminate_zeros()
    return labels, known, np.argsort(-values, kind="stable")


def _enter(
    path: SeparatorPath,
    place: tuple[np.ndarray, ...],
    standardisation: Standardisation,
    minimum: Minimum,
    scale: Float[Tensor, " k"],
    tolerance: float,
) -> None:
    shape = np.broadcast_shapes(*(index.shape for index in place))
    weights, bias = standardisation.unfold(minimum.point)
    relative = (minimum.gradient_norm / scale).cpu().numpy()
    path.weights[place] = weights.reshape(*shape, -1)
    path.bias[place] = bias.reshape(shape)
    path.loss[place] = minimum.loss.cpu().numpy().reshape(shape)
    path.gradient_norm[place] = relative.reshape(shape)
    path.n_iter[place] = minimum.n_iter.cpu().numpy().reshape(shape)
    path.converged[place] = (relative <= tolerance).reshape(shape)


@final
@dataclass(frozen=True, eq=False)
class _Objective:
    examples: Examples
    problems: Problems

    def __call__(self, point: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
        return evaluate(self.examples, self.problems[alive], point)


@final
@dataclass(frozen=True, eq=False)
class _PathSolver:
    """Solve groups of concepts over the same rows, strengths from strong to weak."""

    full: Examples
    sub: Examples
    sub_rows: Float[Tensor, "m d"]
    scale: Float[Tensor, " c"]
    n_drawn: int
    tolerance: float
    max_iter: int

    @staticmethod
    def prepare(
        rows: RowSource, labels: Any, tolerance: float, max_iter: int, seed: int, device: torch.device
    ) -> _PathSolver:
        even_rows = max(EVEN_ROWS, 4 * rows.width)
        chosen, weights = draw_rows(labels, even_rows, seed)
        sub_rows = take_rows(rows, chosen).to(device)
        sub = Examples(ArrayRows(sub_rows), labels[chosen], torch.from_numpy(weights), device)
        full = Examples(rows, labels, None, device)
        every = torch.arange(labels.shape[1], device=device)
        zero = torch.zeros(len(every), rows.width + 1, dtype=torch.float64, device=device)
        _, gradient = evaluate(sub, Problems(every, torch.zeros_like(zero[:, 0])), zero)
        scale = torch.linalg.vector_norm(gradient, dim=1).clamp_min(LEAST_SCALE)
        return _PathSolver(full, sub, sub_rows, scale, max(DRAWN, 2 * rows.width), tolerance, max_iter)

    def solve(self, concepts: Int[Tensor, " g"], strengths: Sequence[float]) -> tuple[Minimum, Float[Tensor, " k"]]:
        """Minima of all strengths (outer) and concepts (inner), and the scales of their gradient norms."""
        concepts = concepts.to(self.scale.device)
        point = torch.zeros(len(concepts), self.sub_rows.shape[1] + 1, dtype=torch.float64, device=self.scale.device)
        starts = []
        for strength in strengths:
            point = self._solve_sub(Problems(concepts, torch.full_like(point[:, 0], strength)), point)
            starts.append(point)
        strength_of = torch.tensor(strengths, dtype=torch.float64, device=concepts.device)
        problems = Problems(concepts.repeat(len(strengths)), strength_of.repeat_interleave(len(concepts)))
        scale = self.scale[problems.concept]
        start = torch.cat(starts)
        factors = preconditioners(self.sub_rows, self.sub, problems, start, self.n_drawn)
        objective = _Objective(self.full, problems)
        return minimise(objective, start, factors, self.tolerance * scale, self.max_iter), scale

    def _solve_sub(self, problems: Problems, point: Float[Tensor, "g d"]) -> Float[Tensor, "g d"]:
        """Minimise over the sub-sample, with fresh Hessians every few steps; good enough after a few rounds."""
        goal = SUB_TOLERANCE * self.scale[problems.concept]
        point = point.clone()
        rest = torch.arange(len(problems), device=point.device)
        for _ in range(SUB_ROUNDS):
            part = problems[rest]
            factors = preconditioners(self.sub_rows, self.sub, part, point[rest], self.n_drawn // SUB_SHARE)
            found = minimise(_Objective(self.sub, part), point[rest], factors, goal[rest], SUB_STEPS)
            point[rest] = found.point
            rest = rest[found.gradient_norm > goal[rest]]
            if not len(rest):
                break
        return point
