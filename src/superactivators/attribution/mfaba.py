"""MFABA: attribution along the path of an attack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from superactivators.attribution.explainer import explainers
from superactivators.attribution.input_gradient import frozen
from superactivators.attribution.scene import Scene
from superactivators.errors import StudyError


@explainers.register("mfaba")
@final
@dataclass(frozen=True)
class Mfaba:
    """Sum of gradients times steps along an attack that lowers the objective (Zhu et al., 2024).

    From the full input, each step goes against the gradient. A token's attribution is what the objective lost by
    the changes of that token. With ``second_order`` the gradients at both ends of a step are averaged, and the map sums
    to the objective's fall up to the error of the trapezoid rule; without, it is of first order. Every step lowers the
    objective wherever it can, so that hardly an entry is negative: a high one says that the objective can be lowered
    there, not that the token as it is raises it.

    Deviations from the publication: the objective of a concept has no class boundary to stop at, so that all steps are
    taken; pixels are not clipped to a range; only entries of tokens are changed, special tokens stay; a step has
    the length of ``size`` times the spread of these entries, the same for normalised gradients and for their signs.
    Normalised gradients are the default, because the sign of a gradient near zero is noise.

    Costs ``steps`` forward and backward passes of one variant for each column (one more with ``second_order``); every
    column has its own path, and all of them run together.

    Attributes
    ----------
    steps : int
    size : float
        Root mean square of a step, as a share of the standard deviation of the tokens' entries.
    sign : bool
        Step by the sign of the gradient.
    second_order : bool

    Raises
    ------
    StudyError
        If the number of steps or their size is not positive.
    """

    steps: int = 10
    size: float = 0.01
    sign: bool = False
    second_order: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.size > 0:
            raise StudyError(
                f"mfaba with {self.steps} steps of size {self.size}; give at least 1 step and a size above 0"
            )

    def maps(self, scene: Scene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`."""
        leaf, free = scene.leaf(), entries_of_tokens(scene)
        free = free.expand_as(leaf)
        length = self.size * float(leaf[free].float().std(correction=0))
        edges = scene.gradient_steps(scene.n_columns)
        parts = []
        with frozen(scene.backbone.model):
            for begin, end in pairwise(edges):
                lost = self._path(scene, leaf, free, length, np.arange(begin, end))
                parts.append(scene.per_token(lost))
        return torch.cat(parts).T.numpy()

    def _path(
        self, scene: Scene, leaf: Tensor, free: Bool[Tensor, "..."], length: float, columns: np.ndarray
    ) -> Tensor:
        """Loss of the objective through each entry, of shape (columns, *leaf)."""
        leaves = leaf.repeat(len(columns), *[1] * leaf.ndim)
        lost = torch.zeros(leaves.shape, device=leaf.device)
        gradient = _own_gradients(scene, leaves, columns) * free
        for number in range(self.steps):
            step = -length * self._direction(gradient, free)
            leaves = leaves + step.to(leaves.dtype)
            if self.second_order:
                ahead = _own_gradients(scene, leaves, columns) * free
                lost -= step * (gradient + ahead) / 2
                gradient = ahead
            else:
                lost -= step * gradient
                if number + 1 < self.steps:
                    gradient = _own_gradients(scene, leaves, columns) * free
        return lost

    def _direction(self, gradient: Float[Tensor, "k ..."], free: Bool[Tensor, "..."]) -> Float[Tensor, "k ..."]:
        """Where the objective grows; one in the root mean square over the free entries."""
        if self.sign:
            return torch.sign(gradient)
        flat: Tensor = torch.nn.functional.normalize(gradient.flatten(1), dim=1, eps=torch.finfo(torch.float32).tiny)
        return flat.reshape(gradient.shape) * math.sqrt(float(free.sum()))


def entries_of_tokens(scene: Scene) -> Bool[Tensor, "..."]:
    """Say which entries of a leaf belong to a token; can be broadcast to the leaf."""
    free = scene.substitute.owner >= 0
    return free[..., None] if scene.grid is None else free


def _own_gradients(scene: Scene, leaves: Float[Tensor, "k ..."], columns: np.ndarray) -> Float[Tensor, "k ..."]:
    """Gradient of each column at its own variant."""
    inputs = leaves.detach().requires_grad_(True)
    own = scene.record(inputs).values[torch.arange(len(columns)), torch.from_numpy(columns)]
    gradient: Tensor = torch.autograd.grad(own.sum(), inputs)[0]
    return gradient.float()
