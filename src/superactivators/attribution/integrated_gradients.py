"""Integrated gradients from the hidden to the full input."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from superactivators.attribution.explainer import explainers
from superactivators.attribution.input_gradient import column_gradients, dense, frozen
from superactivators.attribution.scene import Scene
from superactivators.errors import StudyError, allowed

RULES = ("gausslegendre", "riemann_middle")


@final
@dataclass(frozen=True, eq=False)
class Integral:
    """Integrated gradients and how exact they are.

    Attributes
    ----------
    maps : float32 array of shape (tokens, columns)
    error : float64 array of shape (columns,)
        Distance between the sum of a map and what it should be, the objective of the full input less that of the hidden
        one, as a share of the latter; where that is nearly zero, of 1 % of the sum of the map's absolute entries.
    steps : int64 array of shape (columns,)
        Steps that the column took.
    """

    maps: Float[np.ndarray, "tokens columns"]
    error: Float64[np.ndarray, " columns"]
    steps: Int64[np.ndarray, " columns"]


@explainers.register("integrated-gradients")
@final
@dataclass(frozen=True)
class IntegratedGradients:
    """Gradients integrated along the straight line from the hidden to the full input (Sundararajan et al., 2017).

    The baseline is the scene's hidden input, not zeros, so that the maps explain the same difference as those of
    explainers that hide tokens. Their sum is that difference (completeness): special tokens do not change along the
    line and get nothing. Where the error of a column is above the tolerance, its steps are doubled up to the bound;
    columns that are exact enough keep what they have.
    Texts mostly need the 32 steps to begin with, images 64 to 128: their objectives change most where an image has just
    begun to differ from its mean colour. With the hiding ``"remove"`` the baseline is that of ``"mask"``.

    Costs ``steps`` forward passes, which serve all columns, and as many backward passes for each column; doubling
    starts afresh. Captum's class of this name gives the same numbers, but repeats the forward passes for every column.

    Attributes
    ----------
    steps : int
        Points on the line to begin with.
    tolerance : float
        Largest error (see `Integral`) that is left alone.
    max_steps : int
        Bound of doubling; not below ``steps`` (no doubling).
    rule : str
        ``"gausslegendre"`` or ``"riemann_middle"``.

    Raises
    ------
    StudyError
        If an option is outside what is allowed.
    """

    steps: int = 32
    tolerance: float = 0.01
    max_steps: int = 256
    rule: str = "gausslegendre"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= self.max_steps or not self.tolerance > 0:
            raise StudyError(
                f"integrated gradients with {self.steps} of at most {self.max_steps} steps and tolerance "
                f"{self.tolerance}; give 1 <= steps <= max_steps and a tolerance above 0"
            )
        if self.rule not in RULES:
            raise StudyError(f"unknown rule {self.rule!r}; {allowed(self.rule, RULES)}")

    def maps(self, scene: Scene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`."""
        return self.integrate(scene).maps

    def integrate(self, scene: Scene) -> Integral:
        """Give the maps with their errors.

        Parameters
        ----------
        scene : Scene

        Returns
        -------
        Integral
        """
        leaf, hidden = scene.leaf(), scene.hidden_leaf()
        with torch.no_grad():
            # the very inputs that are integrated between: hiding by 'remove' has another empty input
            full, empty = (scene.record(end[None]).values[0].double().numpy() for end in (leaf, hidden))
        maps = np.zeros((scene.n_tokens, scene.n_columns), dtype=np.float32)
        error = np.full(scene.n_columns, np.inf)
        taken = np.zeros(scene.n_columns, dtype=np.int64)
        steps = self.steps
        while steps <= self.max_steps and (error > self.tolerance).any():
            again = np.flatnonzero(error > self.tolerance)
            points, weights = _points(self.rule, steps)
            found = _integrated(scene, leaf, hidden, points, weights, again)
            difference = (full - empty)[again]
            whole = np.maximum(np.abs(difference), 0.01 * np.abs(found).sum(axis=0, dtype=np.float64))
            gap = np.abs(found.sum(axis=0, dtype=np.float64) - difference)
            maps[:, again] = found
            error[again] = gap / np.maximum(whole, np.finfo(np.float32).tiny)
            taken[again] = steps
            steps *= 2
        return Integral(maps, error, taken)


def _points(rule: str, steps: int) -> tuple[Tensor, Tensor]:
    """Points in [0, 1] and their weights, which sum to one."""
    if rule == "riemann_middle":
        points, weights = (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    else:
        nodes, widths = np.polynomial.legendre.leggauss(steps)
        points, weights = (nodes + 1) / 2, widths / 2
    return torch.from_numpy(points).float(), torch.from_numpy(weights).float()


def _integrated(
    scene: Scene,
    leaf: Tensor,
    hidden: Tensor,
    points: Float[Tensor, " steps"],
    weights: Float[Tensor, " steps"],
    columns: Int64[np.ndarray, " some"],
) -> Float[np.ndarray, "tokens some"]:
    total = torch.zeros(len(columns), *leaf.shape, device=leaf.device)
    edges = scene.gradient_steps(len(points))
    shape = (-1,) + (1,) * leaf.ndim
    with frozen(scene.backbone.model):
        for begin, end in pairwise(edges):
            along, weight = (numbers[begin:end].to(leaf).reshape(shape) for numbers in (points, weights))
            leaves = (hidden + along * (leaf - hidden)).requires_grad_(True)
            values = scene.record(leaves).values[:, torch.from_numpy(columns)]
            for place, (gradient,) in column_gradients(values, [leaves]):
                total[place] += (weight * dense(gradient, leaves)).sum(dim=0).float()
    return scene.per_token(total * (leaf - hidden).float()).T.numpy()
