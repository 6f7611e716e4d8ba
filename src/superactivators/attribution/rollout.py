"""Attention rollout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from superactivators.attribution.explainer import explainers
from superactivators.attribution.scene import Scene
from superactivators.errors import ModelError, StudyError
from superactivators.models.backbone import Backbone
from superactivators.models.layers import site_name, site_place
from superactivators.models.quiet import quiet_transformers


@explainers.register("rollout")
@final
@dataclass(frozen=True)
class Rollout:
    """Attention multiplied up through the blocks (Abnar and Zuidema, 2020).

    Attention of a block is averaged over heads, mixed half and half with the identity for the residual path, and
    multiplied with that of the blocks before, up to the column's site. A row of the product says where a token's state
    came from. The map is the mean row of all tokens for the objective ``"concept"``, the same for every concept of a
    site, and of the sample's SuperActivators for ``"superactivators"``. What goes to special tokens is left out, so
    that a map sums to at most one. A row of a long text is that of the window that gives the token's state, and what
    goes to one token in several windows is summed.

    Inside a language model the image tokens are mixtures of all patches already, which its attention does not show; so
    there is no rollout for them.

    Rollout knows nothing of vectors: it is the row that a map of a concept should beat. It costs one forward pass; for
    it the model computes attention in the open (``"eager"``), after which its implementation is restored.

    Attributes
    ----------
    residual : float
        Weight of the identity, in [0, 1).

    Raises
    ------
    StudyError
        If the weight is outside its range.
    ModelError
        When maps are made, if the model does not give its attention, or its states are image tokens of a language
        model.
    """

    residual: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.residual < 1:
            raise StudyError(f"rollout with residual {self.residual}; give a weight in [0, 1)")

    def maps(self, scene: Scene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`."""
        if scene.grid is not None and scene.backbone.tower == "language":
            raise ModelError(
                f"{type(scene.backbone.model).__name__}: its vision tower mixes image tokens before attention is "
                "followed, so there is no rollout; use 'integrated-gradients' or 'rise', or tower='vision'"
            )
        n_blocks = scene.backbone.n_blocks
        depth = np.minimum([site_place(site, n_blocks) for site in scene.objectives.sites], n_blocks - 1)
        attention = mean_attention(scene, int(depth.max()) + 1)
        if not attention:  # all at "embed", where no token has seen another
            return _shares(scene).T.numpy()
        rows = _targets(scene, attention[0].shape[-1])
        for block in range(len(attention) - 1, -1, -1):
            deep = torch.from_numpy(np.flatnonzero(depth >= block))
            passed = torch.einsum("kps,pst->kpt", rows[deep], attention[block])
            rows[deep] = self.residual * rows[deep] + (1 - self.residual) * passed
        return _tokens(scene, rows).T.numpy()


def mean_attention(scene: Scene, number: int) -> list[Float[Tensor, "pieces sequence sequence"]]:
    """Give the first blocks' attention, averaged over heads.

    Parameters
    ----------
    scene : Scene
    number : int
        Of blocks.

    Returns
    -------
    list of float32 tensors, on the CPU
        One for each block; rows attend to columns.

    Raises
    ------
    ModelError
        If a block does not give its attention.
    """
    backbone = scene.backbone
    if not number:
        return []
    found: dict[int, list[Tensor]] = {}
    seen: dict[int, Tensor] = {}

    def watch(block: int) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, args: Any, output: Any) -> None:
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if isinstance(weights, Tensor) and weights.ndim == 4 and weights.shape[2] == weights.shape[3]:
                seen[block] = weights.float().mean(dim=1).cpu()  # of a wrapper: the same once more

        return keep

    handles = [
        module.register_forward_hook(watch(block))
        for block in range(number)
        for module in backbone.blocks[block].modules()
    ]
    try:
        with quiet_transformers(), eager_attention(backbone):
            scene.forwards += 1
            for part in _parts(scene):
                seen.clear()
                backbone.runner.run(part, [site_name(number - 1, backbone.n_blocks)], lambda site, raw: None)
                if len(seen) < number:
                    raise ModelError(
                        f"{type(backbone.model).__name__} gives the attention of {len(seen)} of its first {number} "
                        "blocks, so there is no rollout; leave the explainer 'rollout' out for this model and use "
                        "'integrated-gradients' or 'rise'"
                    )
                for block, weights in seen.items():
                    found.setdefault(block, []).append(weights.clone())
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(found[block]) for block in range(number)]


def _parts(scene: Scene) -> Iterator[dict[str, Any]]:
    """Cut the pieces of a long text into runs that fit into memory."""
    shows, inputs = scene.hidden.shows, scene.hidden.inputs
    if scene.grid is not None:
        yield dict(inputs)
        return
    step = max(1, scene.max_batch_tokens // shows[0].numel())
    for begin in range(0, len(shows), step):
        yield {
            name: value[begin : begin + step] if isinstance(value, Tensor) and value.ndim else value
            for name, value in inputs.items()
        }


@contextmanager
def eager_attention(backbone: Backbone) -> Iterator[None]:
    """Let the model compute attention in the open inside a ``with`` block; restore its implementation after."""
    model = backbone.model
    before = getattr(model.config, "_attn_implementation", None)
    if before in (None, "eager") or not hasattr(model, "set_attn_implementation"):
        yield
        return
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        model.set_attn_implementation(before)


def _shares(scene: Scene) -> Float[Tensor, "columns tokens"]:
    """Weight of each token's row: equal over all tokens, or over the SuperActivators."""
    local = np.array([objective == "superactivators" for objective in scene.objectives.objectives])
    chosen = (scene.objectives.fired | ~local).astype(np.float32)
    return torch.from_numpy(chosen / chosen.sum(axis=0)).T.contiguous()


def _targets(scene: Scene, sequence: int) -> Float[Tensor, "columns pieces sequence"]:
    """Put the weights where the tokens' states stand."""
    pieces = len(scene.forward.pieces)
    result = torch.zeros(scene.n_columns, pieces * sequence)
    result[:, torch.from_numpy(scene.forward.layout(sequence).rows)] = _shares(scene)
    return result.reshape(-1, pieces, sequence)


def _tokens(scene: Scene, rows: Float[Tensor, "columns pieces sequence"]) -> Float[Tensor, "columns tokens"]:
    """Sum what goes to the places of each token."""
    if scene.grid is None:
        return scene.per_token(rows[..., None].to(scene.substitute.shows.device))
    return rows.flatten(1)[:, torch.from_numpy(scene.forward.layout(rows.shape[2]).rows)]
