"""Grad-CAM on token states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float

from superactivators.attribution.explainer import explainers
from superactivators.attribution.input_gradient import column_gradients, frozen
from superactivators.attribution.scene import Scene
from superactivators.errors import StudyError
from superactivators.models.layers import site_name, site_place


@explainers.register("grad-cam")
@final
@dataclass(frozen=True)
class GradCam:
    """Token states weighted by the objective's mean gradient with respect to them (Selvaraju et al., 2017).

    The states of a site before the column's take the place of the convolutional feature maps, their tokens that of the
    pixels: the gradient is averaged over tokens, and the map is the ReLU of the states times it. Special tokens take no
    part in either. There is nothing to enlarge, because the map has one number for each token.

    Costs one forward pass, and one backward pass for each column, down to the chosen site only.

    Attributes
    ----------
    site : str, optional
        Where the states are taken. Default: the input of the column's block (the output of the block before it,
        ``"embed"`` for block 0); for ``"final_norm"`` the input of the last block, because a norm does not mix tokens.
    signed : bool
        Leave the ReLU out, so that tokens that speak against the concept are told apart.

    Raises
    ------
    StudyError
        When maps are made, if the model has no such site, or it lies behind that of a column.
    """

    site: str | None = None
    signed: bool = False

    def maps(self, scene: Scene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`."""
        chosen = [self._before(site, scene.backbone.n_blocks) for site in scene.objectives.sites]
        sites = tuple(dict.fromkeys(chosen))
        leaves = scene.leaf()[None].requires_grad_(True)
        result = []
        with frozen(scene.backbone.model):
            recorded = scene.record(leaves, sites)
            held = [recorded.states[site] for site in sites]
            rows = {site: scene.token_rows(recorded.states[site].detach())[0].float() for site in sites}
            for column, gradients in column_gradients(recorded.values, held):
                gradient = gradients[sites.index(chosen[column])]
                assert gradient is not None  # noqa: S101  (the site is not behind the column's)
                result.append(rows[chosen[column]] @ scene.token_rows(gradient)[0].float().mean(dim=0))
        maps = torch.stack(result, dim=1)
        return (maps if self.signed else maps.clamp_min(0)).numpy()

    def _before(self, site: str, n_blocks: int) -> str:
        place = site_place(site, n_blocks)
        if self.site is None:
            return site_name(max(min(place, n_blocks - 1) - 1, -1), n_blocks)
        if site_place(self.site, n_blocks) > place:
            raise StudyError(
                f"grad-cam at {self.site} cannot explain a concept at {site}, which is before it; "
                "choose an earlier site, or leave it out"
            )
        return self.site
