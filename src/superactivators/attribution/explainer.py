"""What an explainer is, and the registry of explainers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from superactivators.attribution.scene import Scene
from superactivators.registry import Registry


@runtime_checkable
class Explainer(Protocol):
    """Makes maps of one sample: how much each token contributes to each column's objective.

    Explainers are frozen dataclasses; their fields are their options, all with defaults. Higher means that the token
    speaks more for the concept. Maps depend on the scene's seed and sample only, not on how forward passes are batched.
    """

    def maps(self, scene: Scene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column of the scene.

        Parameters
        ----------
        scene : Scene

        Returns
        -------
        float32 array of shape (tokens, columns)
        """
        ...


explainers: Registry[Callable[..., Explainer]] = Registry("explainer", "superactivators.explainers")
