"""RISE: the mean objective over random masks that keep a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float

from superactivators.attribution.explainer import explainers
from superactivators.attribution.masks import GRAIN, MaskableScene, check_whole, halves


@explainers.register("rise")
@final
@dataclass(frozen=True)
class Rise:
    """Mean objective over the masks that keep a token, minus the mean over those that hide it.

    Costs ``budget`` forward passes for all columns together, none where LIME asked for the same masks, and no backward
    pass. Source: Petsiuk, Das and Saenko, RISE, BMVC 2018.

    Deviations: the publication gives the mean over the masks that keep the token. As the overall mean of the objective
    is fixed and a token is kept by half of the masks, the difference is that, up to a constant of the sample and a
    factor (2) in expectation; it has a zero, and on a linear objective it tends to the coefficients. Masks are
    binary blocks of whole patches with a random shift, not smooth ones of a 7 x 7 grid, since a token is either hidden
    or not. A token that no mask keeps, or none hides, gets 0.

    Attributes
    ----------
    budget : int
        Number of masks.
    grain : int
        Patches along the side of a block; images only.
    """

    budget: int = 256
    grain: int = GRAIN

    def __post_init__(self) -> None:
        check_whole("budget", self.budget, 2)
        check_whole("grain", self.grain, 1)

    def maps(self, scene: MaskableScene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`."""
        keep = halves(scene, self.budget, grain=self.grain)
        values = scene.values(keep).astype(np.float64)
        values -= values.mean(axis=0)
        kept = keep.sum(axis=0)[:, None]
        hidden = len(keep) - kept
        # Values sum to 0, so the sum over masks that hide a token is minus the sum over those that keep it.
        sums = keep.T.astype(np.float64) @ values
        difference = sums / np.maximum(kept, 1) + sums / np.maximum(hidden, 1)
        return np.where((kept > 0) & (hidden > 0), difference, 0).astype(np.float32)
