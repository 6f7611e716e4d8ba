"""Gradient times input, and the gradients of all columns that several explainers need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from superactivators.attribution.explainer import explainers
from superactivators.attribution.scene import Scene
from superactivators.errors import StudyError, allowed

ORIGINS = ("zero", "hidden")


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Ask for no gradients of parameters inside a ``with`` block, which saves what their gradients would need."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


def column_gradients(
    values: Float[Tensor, "m columns"], inputs: Sequence[Tensor]
) -> Iterator[tuple[int, tuple[Tensor | None, ...]]]:
    """Differentiate each column, summed over variants, one backward pass for each.

    Parameters
    ----------
    values : tensor of shape (m, columns)
        Of a recorded pass; its graph is freed by the last column.
    inputs : sequence of tensors
        What to differentiate by.

    Yields
    ------
    column : int
    gradients : tuple of tensors
        One for each input; None for an input that the column does not depend on.
    """
    last = values.shape[1] - 1
    for column, value in enumerate(values.sum(dim=0)):
        yield column, torch.autograd.grad(value, inputs, retain_graph=column < last, allow_unused=True)


@explainers.register("input-gradient")
@final
@dataclass(frozen=True)
class InputGradient:
    """Gradient of the objective times the input, summed over the entries of each token (Shrikumar et al., 2016).

    Costs one forward pass, and one backward pass for each column. There is no other budget. The input is the
    token embeddings or the processed pixels. As published, it is taken as it is (``origin="zero"``): the map is the
    first-order estimate of what each token adds to an input of zeros. ``origin="hidden"`` takes its difference from the
    input where everything is hidden, which is integrated gradients with a single step at the full input.

    Attributes
    ----------
    origin : str
        ``"zero"`` or ``"hidden"``.

    Raises
    ------
    StudyError
        If the origin is unknown.
    """

    origin: str = "zero"

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise StudyError(f"unknown origin {self.origin!r}; {allowed(self.origin, ORIGINS)}")

    def maps(self, scene: Scene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`."""
        leaf = scene.leaf()
        away = leaf - scene.hidden_leaf() if self.origin == "hidden" else leaf
        leaves = leaf[None].requires_grad_(True)
        products = []
        with frozen(scene.backbone.model):
            for _, (gradient,) in column_gradients(scene.record(leaves).values, [leaves]):
                products.append(scene.per_token(dense(gradient, leaves).float() * away.float()))
        return torch.cat(products).T.numpy()


def dense(gradient: Tensor | None, like: Tensor) -> Tensor:
    """Give zeros for a gradient that there is not."""
    return torch.zeros_like(like) if gradient is None else gradient
