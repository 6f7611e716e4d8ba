"""LIME: a linear model of the objective near the unchanged sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float
from sklearn.linear_model import Ridge

from superactivators.attribution.explainer import explainers
from superactivators.attribution.masks import GRAIN, MaskableScene, check_amount, check_whole, halves

KERNEL_WIDTH = 0.25
"""Width of the kernel on cosine distances; the reference implementation's value for images and for texts."""


@explainers.register("lime")
@final
@dataclass(frozen=True)
class Lime:
    """Coefficients of a weighted ridge regression of the objective on the masks.

    Costs ``budget`` forward passes for all columns together, none where RISE asked for the same masks, and no backward
    pass. Source: Ribeiro, Singh and Guestrin, "Why Should I Trust You?", KDD 2016, and its package ``lime``: sample
    weights ``sqrt(exp(-d^2 / 0.25^2))`` of the cosine distance ``d`` to the unchanged sample, ridge with an intercept.

    Deviations: features are the model's own tokens, not words or superpixels; there is no selection of features, since
    every token needs a value; images are masked in shifted blocks of patches (see `masks.halves`).

    Attributes
    ----------
    budget : int
        Number of masks.
    grain : int
        Patches along the side of a block; images only.
    alpha : float
        Strength of the ridge penalty. With 0 and fewer masks than tokens: the solution of least norm.
    """

    budget: int = 256
    grain: int = GRAIN
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_whole("budget", self.budget, 2)
        check_whole("grain", self.grain, 1)
        check_amount("alpha", self.alpha)

    def maps(self, scene: MaskableScene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`."""
        keep = halves(scene, self.budget, grain=self.grain)
        values = scene.values(keep).astype(np.float64)
        # The SVD also solves alpha = 0 with too few masks, where the other solvers fail.
        model = Ridge(alpha=self.alpha, solver="svd").fit(keep.astype(np.float64), values, closeness(keep))
        # scikit-learn gives a vector where there is one column.
        return np.asarray(model.coef_.reshape(scene.n_columns, scene.n_tokens).T, dtype=np.float32)


def closeness(keep: Bool[np.ndarray, "m tokens"]) -> Float[np.ndarray, " m"]:
    """Weigh masks by how near they are to the unchanged sample.

    Parameters
    ----------
    keep : bool array of shape (m, tokens)

    Returns
    -------
    float64 array of shape (m,)
        1 for the unchanged sample. The cosine of a mask and the full one is the root of the share it keeps.
    """
    distance = 1 - np.sqrt(keep.mean(axis=1))
    return np.asarray(np.exp(-(distance**2) / (2 * KERNEL_WIDTH**2)))
