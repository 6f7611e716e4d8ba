"""Direct alignment: the token states themselves, without perturbation or gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from superactivators.attribution.explainer import explainers
from superactivators.attribution.scene import Scene
from superactivators.concepts.bank import ConceptBank
from superactivators.errors import StudyError


@explainers.register("activation")
@final
@dataclass(frozen=True)
class Activation:
    """Agreement of each token's own state with the column: the objective before it is averaged over tokens.

    Costs nothing beyond the forward pass that made the scene.
    """

    def maps(self, scene: Scene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`."""
        return scene.agreement()


@explainers.register("mean-difference")
@final
@dataclass(frozen=True, eq=False)
class MeanDifference:
    """Projection of each token's scaled state on the unit direction of a difference of means.

    For the objective ``"superactivators"``: the mean state of the sample's SuperActivators less the mean of its other
    tokens; a map of zeros where there are no others.

    For ``"concept"``: scaled states have mean zero over the train tokens, so the mean of a concept's train tokens less
    that of all others is parallel to the vector of kind ``"mean"``. A detector of another kind does not hold it. Give
    the banks of that kind; without them the detector's own vector is taken.

    Costs nothing beyond the forward pass that made the scene. No publication; it is the difference-of-means direction
    used as a map.

    Attributes
    ----------
    banks : mapping of site to ConceptBank, optional
        Of kind ``"mean"``, with the concepts that are explained.
    """

    banks: Mapping[str, ConceptBank] | None = None

    def maps(self, scene: Scene) -> Float[np.ndarray, "tokens columns"]:
        """Give one map for each column; see `superactivators.attribution.explainer.Explainer`.

        Raises
        ------
        StudyError
            If banks were given, but not for a site or concept of the scene.
        """
        result = np.zeros((scene.n_tokens, scene.n_columns), dtype=np.float32)
        for site, readout in scene.objectives.readouts.items():
            scaled = readout.scaling.apply(scene.states[site])
            vectors = self._vectors(site, readout.bank) if len(readout.concepts) else readout.bank.vectors
            fired = torch.from_numpy(scene.objectives.fired[:, readout.locals]).float()
            inside, outside = _means(scaled, fired), _means(scaled, 1 - fired)
            some = (fired.sum(dim=0) < len(scaled))[:, None]
            for columns, directions in ((readout.concepts, vectors), (readout.locals, (inside - outside) * some)):
                if len(columns):
                    unit = torch.nn.functional.normalize(directions, dim=1)
                    result[:, columns] = (scaled @ unit.T).numpy()
        return result

    def _vectors(self, site: str, own: ConceptBank) -> Float[Tensor, "c d"]:
        if self.banks is None:
            return own.vectors
        if site not in self.banks:
            raise StudyError(f"mean-difference has no bank of {site}; give one for each of the detector's sites")
        bank = self.banks[site]
        missing = [name for name in own.concepts if name not in bank.concepts]
        if missing:
            raise StudyError(
                f"mean-difference: the bank of {site} lacks {', '.join(missing)}; give banks of the same concepts"
            )
        if bank.width != own.width:
            raise StudyError(
                f"mean-difference: the bank of {site} has width {bank.width}, but the detector's has {own.width}; "
                "give banks of the same model"
            )
        return bank.vectors[[bank.concepts.index(name) for name in own.concepts]]


def _means(scaled: Float[Tensor, "tokens d"], weights: Float[Tensor, "tokens n"]) -> Float[Tensor, "n d"]:
    return (weights / weights.sum(dim=0).clamp_min(1)).T @ scaled
