"""Many smooth convex problems minimised together, each with its own preconditioner (L-BFGS)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

HISTORY = 10
"""Pairs of steps and gradient changes that are remembered."""

SUFFICIENT = 1e-4
"""Share of the decrease promised by the slope that a step must reach (Armijo's condition)."""

NOISE = 1e-6
"""Relative size of loss differences that single-precision products do not resolve."""

Evaluate: TypeAlias = Callable[
    [Float[Tensor, "active d"], Int[Tensor, " active"]],
    tuple[Float[Tensor, " active"], Float[Tensor, "active d"]],
]
"""From points, and which problems they belong to, to losses and gradients (float64)."""


@final
@dataclass(frozen=True, eq=False)
class Minimum:
    """Where the problems ended.

    Attributes
    ----------
    point : float64 tensor of shape (problems, variables)
    loss : float64 tensor of shape (problems,)
    gradient_norm : float64 tensor of shape (problems,)
    n_iter : int64 tensor of shape (problems,)
        Evaluations of each problem, the one of the starting point included.
    """

    point: Float[Tensor, "k d"]
    loss: Float[Tensor, " k"]
    gradient_norm: Float[Tensor, " k"]
    n_iter: Int[Tensor, " k"]


def minimise(
    evaluate: Evaluate,
    start: Float[Tensor, "k d"],
    preconditioner: Float[Tensor, "k d d"],
    goal: Float[Tensor, " k"],
    max_iter: int,
) -> Minimum:
    """Minimise every problem until its gradient norm is at most its goal.

    All problems share each evaluation, which is where the time goes: there is one step length after the other for each
    problem, but never an evaluation for one problem alone while others wait. A problem at its goal drops out.

    Parameters
    ----------
    evaluate : callable
        See `Evaluate`.
    start : float64 tensor of shape (problems, variables)
    preconditioner : float32 tensor of shape (problems, variables, variables)
        Lower triangular ``P`` with ``P^T P`` close to the inverse Hessian: the inverse of its Cholesky factor.
    goal : float64 tensor of shape (problems,)
    max_iter : int
        Most evaluations.

    Returns
    -------
    Minimum

    Notes
    -----
    The two-loop recursion and the choice of the initial matrix follow Nocedal and Wright, "Numerical Optimization",
    chapter 7. A step is also accepted where rounding hides the decrease of the loss but the slope has fallen (the
    approximate Wolfe condition of Hager and Zhang, 2005).
    """
    alive = torch.arange(len(start), device=start.device)
    loss, gradient = evaluate(start, alive)
    result = Minimum(start.clone(), loss.clone(), torch.linalg.vector_norm(gradient, dim=1), torch.ones_like(alive))
    search = _Search(start.clone(), loss, gradient, preconditioner)
    for _ in range(max_iter - 1):
        open_ = result.gradient_norm[alive] > goal[alive]
        if not bool(open_.all()):
            alive = alive[open_]
            search.keep(open_)
        if not len(alive):
            break
        accepted = search.move(*evaluate(search.trial(), alive))
        result.n_iter[alive] += 1
        moved = alive[accepted]
        result.point[moved] = search.point[accepted]
        result.loss[moved] = search.loss[accepted]
        result.gradient_norm[moved] = torch.linalg.vector_norm(search.gradient[accepted], dim=1)
    return result


@final
class _Search:
    """Where the open problems are, which way they go, and how far they try to go."""

    def __init__(
        self,
        point: Float[Tensor, "k d"],
        loss: Float[Tensor, " k"],
        gradient: Float[Tensor, "k d"],
        preconditioner: Float[Tensor, "k d d"],
    ) -> None:
        self.point, self.loss, self.gradient = point, loss, gradient
        self._preconditioner = preconditioner
        self._steps: list[Tensor] = []
        self._changes: list[Tensor] = []
        self._inverses: list[Tensor] = []
        self._gain = torch.ones_like(loss)
        self._direction = self._descent()
        self._length = torch.ones_like(loss)

    def keep(self, chosen: Bool[Tensor, " k"]) -> None:
        """Forget the other problems."""
        self.point, self.loss, self.gradient = self.point[chosen], self.loss[chosen], self.gradient[chosen]
        self._preconditioner = self._preconditioner[chosen]
        self._direction, self._length, self._gain = (
            state[chosen] for state in (self._direction, self._length, self._gain)
        )
        for remembered in (self._steps, self._changes, self._inverses):
            remembered[:] = [entry[chosen] for entry in remembered]

    def trial(self) -> Float[Tensor, "k d"]:
        """Points to evaluate next."""
        return self.point + self._length[:, None] * self._direction

    def move(self, loss: Float[Tensor, " k"], gradient: Float[Tensor, "k d"]) -> Bool[Tensor, " k"]:
        """Take the trial points that are good enough, shorten the other steps, and say which were taken."""
        slope = (self.gradient * self._direction).sum(dim=1)
        trial_slope = (gradient * self._direction).sum(dim=1)
        enough = loss <= self.loss + SUFFICIENT * self._length * slope
        hidden = (loss <= self.loss + NOISE * self.loss.abs()) & (trial_slope <= -0.8 * slope)
        accepted = enough | hidden
        taken = accepted[:, None]
        trial = self.trial()
        step = torch.where(taken, trial - self.point, 0.0)
        change = torch.where(taken, gradient - self.gradient, 0.0)
        self._remember(step, change)
        # Where the parabola through the two losses and the slope has its minimum.
        excess = (loss - self.loss - self._length * slope).clamp_min(torch.finfo(torch.float64).tiny)
        shorter = (-slope * self._length**2 / (2 * excess)).clamp(0.1 * self._length, 0.5 * self._length)
        self.point = torch.where(taken, trial, self.point)
        self.loss = torch.where(accepted, loss, self.loss)
        self.gradient = torch.where(taken, gradient, self.gradient)
        self._direction = torch.where(taken, self._descent(), self._direction)
        self._length = torch.where(accepted, 1.0, shorter)
        return accepted

    def _remember(self, step: Float[Tensor, "k d"], change: Float[Tensor, "k d"]) -> None:
        product = (step * change).sum(dim=1)
        # A pair of zero weight (no step taken, or curvature lost in rounding) changes nothing in the recursion.
        useful = product > 1e-10 * torch.linalg.vector_norm(step, dim=1) * torch.linalg.vector_norm(change, dim=1)
        inverse = torch.where(useful, 1.0 / torch.where(useful, product, 1.0), 0.0)
        image = torch.bmm(self._preconditioner, change.float()[:, :, None])[:, :, 0].double()
        gain = product / image.square().sum(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
        # The curvature has changed as a whole, as it does when classes come apart; less than twofold is no sign of it.
        changed = (gain < 0.5) | (gain > 2.0)
        self._gain = torch.where(useful, torch.where(changed, gain, 1.0), self._gain)
        for remembered, entry in ((self._steps, step), (self._changes, change), (self._inverses, inverse)):
            remembered.append(entry)
            del remembered[:-HISTORY]

    def _descent(self) -> Float[Tensor, "k d"]:
        pairs = list(zip(self._steps, self._changes, self._inverses, strict=True))
        direction = self.gradient.clone()
        shares = []
        for step, change, inverse in reversed(pairs):
            share = inverse * (step * direction).sum(dim=1)
            direction -= share[:, None] * change
            shares.append(share)
        half = torch.bmm(self._preconditioner, direction.float()[:, :, None])
        direction = self._gain[:, None] * torch.bmm(self._preconditioner.mT, half)[:, :, 0].double()
        for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
            direction += step * (share - inverse * (change * direction).sum(dim=1))[:, None]
        return -direction
