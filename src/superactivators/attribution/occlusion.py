"""Occlusion: what the objective loses when a window of tokens is hidden."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from superactivators.attribution.explainer import explainers
from superactivators.attribution.masks import MaskableScene, check_whole, leave_out

TEXT_WINDOW, IMAGE_WINDOW = 1, 2
"""Tokens in a run, and patches along the side of a window."""


@explainers.register("occlusion")
@final
@dataclass(frozen=True)
class Occlusion:
    """Objective of the unchanged sample minus the one with a window hidden, averaged over the token's windows.

    Costs one forward pass for each window and one more, for all columns together, and no backward pass: by default
    tokens + 1 for texts, and a quarter of the patches + 1 for images. Source: Zeiler and Fergus, Visualizing and
    Understanding Convolutional Networks, ECCV 2014.

    Deviations: the publication gives a value to each window's place; here a token averages over the windows that cover
    it. Hidden tokens look as the scene says, not always grey.

    Attributes
    ----------
    window : int, optional
        Texts: tokens in a run, by default 1. Images: patches along the side of a square, by default 2.
    stride : int, optional
        Distance of neighbouring windows, at most the window; by default the window, so that windows do not overlap
        (but at the end of a side that is no multiple of it).
    """

    window: int | None = None
    stride: int | None = None

    def __post_init__(self) -> None:
        for name in ("window", "stride"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1)

    def maps(self, scene: MaskableScene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`.

        Raises
        ------
        StudyError
            If the stride is longer than the window.
        """
        window = self.window or (TEXT_WINDOW if scene.grid is None else IMAGE_WINDOW)
        keep = leave_out(scene, window, self.stride or window)
        values = scene.values(np.concatenate([np.ones((1, scene.n_tokens), dtype=bool), keep])).astype(np.float64)
        hides = ~keep.T
        lost = hides.astype(np.float64) @ (values[0] - values[1:])
        return np.asarray(lost / hides.sum(axis=1, keepdims=True), dtype=np.float32)
