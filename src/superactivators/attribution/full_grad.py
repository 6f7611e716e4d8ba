"""FullGrad: what inputs and biases contribute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from superactivators.attribution.explainer import explainers
from superactivators.attribution.input_gradient import column_gradients, dense, frozen
from superactivators.attribution.scene import Scene
from superactivators.errors import ModelError


@explainers.register("full-grad")
@final
@dataclass(frozen=True)
class FullGrad:
    """Absolute gradient times input, plus absolute gradient times bias of every module (Srinivas and Fleuret, 2019).

    The gradient at a module's output times its bias is what the bias contributes at that token. Modules are all those
    that ran and have a vector ``bias``: linear layers, norms, the projection of patches. The entries of a token are
    summed after the absolute value, so that the map says how much a token matters, not whether it speaks for or
    against the concept.

    Signed terms would sum to the objective (completeness) only in a network that is linear between kinks. Softmax, GELU
    and norms are not, position embeddings and learned special tokens act like biases and are not counted, nor is the
    offset of the scaling and of the concept. Completeness therefore does not hold in a transformer. Terms are added as
    they are, in units of the objective; the publication rescales each of them to [0, 1] first.

    Costs one forward pass, and one backward pass for each column. It holds the gradients of all module outputs at once.

    Attributes
    ----------
    biases : bool
        False leaves only the absolute gradient times input.

    Raises
    ------
    ModelError
        When maps are made, if a module with biases does not give one row for each token, or the states are image
        tokens of a language model, whose vision tower has other rows.
    """

    biases: bool = True

    def maps(self, scene: Scene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`."""
        if self.biases and scene.grid is not None and scene.backbone.tower == "language":
            raise ModelError(
                f"{type(scene.backbone.model).__name__}: biases of its vision tower belong to patches and not to image "
                "tokens, so they have no place; use FullGrad(biases=False), or leave 'full-grad' out"
            )
        leaf = scene.leaf()
        leaves = leaf[None].requires_grad_(True)
        result = []
        with frozen(scene.backbone.model), biased_outputs(scene.backbone.model) as outputs:
            values = scene.record(leaves).values
            used = outputs if self.biases else []
            for _, (gradient, *others) in column_gradients(values, [leaves, *(output for _, output in used)]):
                found = scene.per_token((dense(gradient, leaves).float() * leaf.float()).abs())[0]
                for (module, _), other in zip(used, others, strict=True):
                    if other is not None:  # behind the column's site
                        found = found + _per_token(scene, _times_bias(module, other).abs(), type(module).__name__)
                result.append(found)
        return torch.stack(result, dim=1).numpy()


@contextmanager
def biased_outputs(model: nn.Module) -> Iterator[list[tuple[nn.Module, Tensor]]]:
    """Collect the outputs of modules with a vector of biases inside a ``with`` block, in the order of their runs."""
    outputs: list[tuple[nn.Module, Tensor]] = []

    def keep(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            outputs.append((module, output))

    handles = [
        module.register_forward_hook(keep)
        for module in model.modules()
        if isinstance(getattr(module, "bias", None), Tensor) and module.bias.ndim == 1
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _times_bias(module: nn.Module, gradient: Tensor) -> Tensor:
    """Gradient times bias, with the channels in the last place."""
    if isinstance(module, nn.modules.conv._ConvNd):
        gradient = gradient.flatten(2).transpose(1, 2)
    bias: Tensor = module.bias  # type: ignore[assignment]
    return gradient.float() * bias.detach().float()


def _per_token(scene: Scene, terms: Tensor, name: str) -> Float[Tensor, " tokens"]:
    """Sum terms of shape (pieces, places, channels) over channels, and over the places that show a token."""
    shows = scene.substitute.shows
    if terms.ndim != 3 or len(terms) != len(shows) or (scene.grid is None and terms.shape[1] != shows.shape[1]):
        raise ModelError(
            f"{type(scene.backbone.model).__name__}: a {name} gives {tuple(terms.shape)}, which is not one row for "
            "each token, so its biases have no place; use FullGrad(biases=False), or leave 'full-grad' out"
        )
    if scene.grid is None:
        return scene.per_token(terms[None])[0]
    # patches row by row, before special tokens are put in front; towers that sort them have no batch and were refused
    if terms.shape[1] == scene.grid[0] * scene.grid[1]:
        return terms.sum(dim=2)[0, torch.from_numpy(scene.cells).to(terms.device)].cpu()
    return scene.token_rows(terms)[0].sum(dim=1)
