"""Class-balanced logistic regression of many concepts over one shared matrix: its loss and its curvature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from superactivators.concepts.rows import BLOCK_ROWS, RowSource
from superactivators.ragged import rows_of

MARGINS = 2**18
"""Margins (rows times problems) computed at a time: they stay in the cache of a core."""

COLUMNS = 16
"""Problems are padded to a multiple of this in products."""

CURVATURE_VALUES = 2**25
"""Numbers gathered at a time for Hessians: 128 MiB."""

JITTER = 1e-5
"""Share of the mean diagonal added to a Hessian, to cover the rounding of single-precision products."""


@final
@dataclass(frozen=True, eq=False)
class Problems:
    """Separators that are fitted together: one concept at one strength each.

    Attributes
    ----------
    concept : int64 tensor of shape (problems,)
        Column of the labels.
    strength : float64 tensor of shape (problems,)
        L2 strength; more than 0.
    """

    concept: Int[Tensor, " k"]
    strength: Float[Tensor, " k"]

    def __len__(self) -> int:
        return len(self.concept)

    def __getitem__(self, chosen: Tensor | slice) -> Problems:
        return Problems(self.concept[chosen], self.strength[chosen])


@final
@dataclass(frozen=True, eq=False)
class Examples:
    """Standardised rows with their labels, and possibly weights.

    Attributes
    ----------
    rows : RowSource
        Standardised, all of them labelled.
    labels : CSR matrix of shape (rows, concepts)
        Its stored entries are the positives, whatever their values.
    weights : float32 tensor of shape (rows,) or None
        How many rows each row stands for. None: one.
    device : torch.device
        Where the products are computed.
    """

    rows: RowSource
    labels: Any
    weights: Float[Tensor, " rows"] | None
    device: torch.device
    _sorted: dict[tuple[int, int], Any] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def class_weights(self) -> tuple[Float[Tensor, " c"], Float[Tensor, " c"]]:
        """Weight of each concept's positive and of its negative rows (float64): each class adds up to one half."""
        n_concepts = self.labels.shape[1]
        if self.weights is None:
            total = float(self.labels.shape[0])
            owners = None
        else:
            each = self.weights.double().numpy()
            total = float(each.sum())
            owners = np.repeat(each, np.diff(self.labels.indptr))
        positive = np.bincount(self.labels.indices, weights=owners, minlength=n_concepts).astype(np.float64)
        with np.errstate(divide="ignore"):
            halves = [torch.from_numpy(0.5 / weight).to(self.device) for weight in (positive, total - positive)]
        return halves[0], halves[1]

    def batches(self, n_problems: int) -> Iterator[tuple[Tensor, Any, Tensor | None]]:
        """Yield float32 rows (r, d), their labels as a CSC matrix and their weights, a few rows at a time."""
        step = max(256, min(BLOCK_ROWS, MARGINS // n_problems))
        if self.device.type != "cpu":
            step = max(BLOCK_ROWS, 2**28 // n_problems)
        # Powers of two, so that few different cuts of the labels come up while problems drop out.
        step = 1 << (step.bit_length() - 1)
        for start, block in self.rows.blocks():
            for first in range(0, len(block), step):
                part = block[first : first + step].to(self.device)
                bounds = slice(start + first, start + first + len(part))
                weights = None if self.weights is None else self.weights[bounds].to(self.device)
                yield part, self._positives(bounds.start, bounds.stop), weights

    def _positives(self, start: int, stop: int) -> Any:
        """Labels of some rows, sorted by concept; they are asked for on every pass."""
        if (start, stop) not in self._sorted:
            self._sorted[start, stop] = self.labels[start:stop].tocsc()
        return self._sorted[start, stop]


def _entries(labels: Any, concept: Int[np.ndarray, " k"], device: torch.device) -> tuple[Tensor, Tensor]:
    """Problem number and row number of every positive of every problem."""
    stored = rows_of(labels.indptr.astype(np.int64), concept)
    problem = np.repeat(np.arange(len(concept)), np.diff(labels.indptr)[concept])
    row = labels.indices[stored].astype(np.int64)
    return torch.from_numpy(problem).to(device), torch.from_numpy(row).to(device)


def evaluate(
    examples: Examples, problems: Problems, point: Float[Tensor, "k d_plus_1"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, "k d_plus_1"]]:
    """Objective and gradient of every problem in one pass over the rows.

    Parameters
    ----------
    examples : Examples
    problems : Problems
    point : float64 tensor of shape (problems, width + 1)
        Weights, and the bias last.

    Returns
    -------
    loss : float64 tensor of shape (problems,)
        Weighted mean of ``log(1 + exp(-y (x.w + b)))`` plus half the strength times ``|w|^2``.
    gradient : float64 tensor of shape (problems, width + 1)
    """
    n_problems, width = len(problems), point.shape[1] - 1
    # Some processors multiply full vectors of columns much faster than odd numbers of them: add columns of zeros.
    padded = -(-n_problems // COLUMNS) * COLUMNS
    weights = torch.zeros(width + 1, padded, device=point.device)
    weights[:, :n_problems] = point.T
    positive, negative = (weight[problems.concept] for weight in examples.class_weights)
    ratio = (positive / negative).float()
    concept = problems.concept.cpu().numpy()
    # In units of the weight of a negative row: nearly all rows are negative, so each is first treated as one.
    loss = torch.zeros(padded, dtype=torch.float64, device=point.device)
    gradient = torch.zeros(width + 1, padded, dtype=torch.float64, device=point.device)
    for rows, labels, row_weights in examples.batches(padded):
        margin = torch.addmm(weights[-1], rows, weights[:-1])
        problem, row = _entries(labels, concept, point.device)
        at = margin[row, problem]
        cost = softplus(margin)
        cost[row, problem] = ratio[problem] * softplus(-at)
        residual = torch.sigmoid_(margin)
        residual[row, problem] = -ratio[problem] * torch.sigmoid(-at)
        if row_weights is not None:
            cost *= row_weights[:, None]
            residual *= row_weights[:, None]
        # Cascade sums in single precision within a batch, double precision across batches.
        loss += cost.sum(dim=0)
        gradient[:-1] += rows.T @ residual
        gradient[-1] += residual.sum(dim=0)
    squares = point[:, :-1].square().sum(dim=1)
    loss = negative * loss[:n_problems] + 0.5 * problems.strength * squares
    gradient = negative[:, None] * gradient.T[:n_problems]
    gradient[:, :-1] += problems.strength[:, None] * point[:, :-1]
    return loss, gradient


def preconditioners(
    rows: Float[Tensor, "m d"], examples: Examples, problems: Problems, point: Float[Tensor, "k d_plus_1"], n_drawn: int
) -> Float[Tensor, "k d_plus_1 d_plus_1"]:
    """Inverse Cholesky factors of the Hessians of every problem.

    Where there are more than ``n_drawn`` rows, each problem's Hessian is taken over that many of them, drawn (evenly
    spaced, so without chance) in proportion to their share in it: most rows are far from the boundary of most
    separators and add nothing.

    Parameters
    ----------
    rows : float32 tensor of shape (m, width)
        The rows of ``examples``, in memory.
    examples : Examples
    problems : Problems
    point : float64 tensor of shape (problems, width + 1)
    n_drawn : int

    Returns
    -------
    float32 tensor of shape (problems, width + 1, width + 1)
        Lower triangular.
    """
    n_rows, width = rows.shape
    factors = torch.empty(len(problems), width + 1, width + 1, device=point.device)
    at_once = max(1, CURVATURE_VALUES // (min(n_drawn, n_rows) * width))
    labels = examples._positives(0, n_rows)
    positive, negative = (weight[problems.concept].float() for weight in examples.class_weights)
    for begin in range(0, len(problems), at_once):
        part = slice(begin, begin + at_once)
        probability = torch.sigmoid(torch.addmm(point[part, -1:].float(), point[part, :-1].float(), rows.T))
        curvature = probability * (1.0 - probability) * negative[part, None]
        entry = _entries(labels, problems.concept[part].cpu().numpy(), point.device)
        curvature[entry] *= (positive[part] / negative[part])[entry[0]]
        if examples.weights is not None:
            curvature *= examples.weights.to(point.device)
        hessian = _hessians(rows, curvature, n_drawn)
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        diagonal += JITTER * diagonal.mean(dim=1, keepdim=True)
        diagonal[:, :-1] += problems.strength[part, None]
        cholesky, failed = torch.linalg.cholesky_ex(hessian)
        # Lost to rounding: fall back on the diagonal, which is slower but never wrong.
        plain = torch.diag_embed(diagonal.clamp_min(torch.finfo(torch.float64).tiny).sqrt())
        cholesky = torch.where((failed > 0)[:, None, None], plain, cholesky)
        identity = torch.eye(width + 1, dtype=torch.float64, device=point.device).expand_as(cholesky)
        factors[part] = torch.linalg.solve_triangular(cholesky, identity, upper=False).float()
    return factors


def _hessians(
    rows: Float[Tensor, "m d"], curvature: Float[Tensor, "k m"], n_drawn: int
) -> Float[Tensor, "k d_plus_1 d_plus_1"]:
    """Sum ``curvature (x, 1)(x, 1)^T`` over rows, in float64; the upper triangle is left open."""
    (n_rows, width), n_problems = rows.shape, len(curvature)
    cumulative = curvature.cumsum(dim=1, dtype=torch.float64)
    total = cumulative[:, -1:]
    if n_drawn < n_rows:
        marks = (torch.arange(n_drawn, dtype=torch.float64, device=rows.device) + 0.5) / n_drawn * total
        drawn = torch.searchsorted(cumulative, marks).clamp_max_(n_rows - 1)
        gathered = rows.index_select(0, drawn.reshape(-1)).reshape(n_problems, n_drawn, width)
        share = total / n_drawn
        mixed = gathered.sum(dim=1).double() * share
    else:
        gathered = rows * curvature.sqrt()[:, :, None]
        share = torch.ones_like(total)
        mixed = (curvature @ rows).double()
    hessian = torch.zeros(n_problems, width + 1, width + 1, dtype=torch.float64, device=rows.device)
    # The lower triangle is all that the Cholesky factorisation reads: leave out a quarter of the products.
    half = width // 2
    hessian[:, :half, :half] = torch.bmm(gathered[:, :, :half].mT, gathered[:, :, :half])
    hessian[:, half:-1, :-1] = torch.bmm(gathered[:, :, half:].mT, gathered)
    hessian *= share[:, :, None]
    hessian[:, -1, :-1] = mixed
    hessian[:, -1, -1] = total[:, 0]
    return hessian
