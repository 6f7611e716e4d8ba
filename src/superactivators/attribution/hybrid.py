"""Between the two objectives: activation maps of mixtures of the concept vector and the sample's own SuperActivators.

A mixture is ``alpha * concept + (1 - alpha) * local``, where both are unit vectors in scaled state space and ``local``
is the mean state of the sample's SuperActivators. METHOD section 7 has the two ends; the publication's code sweeps what
lies between them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from superactivators.attribution.objectives import TINY, Readout
from superactivators.attribution.scene import Scene
from superactivators.errors import StudyError

ALPHAS = tuple(step / 10 for step in range(11))
"""Shares of the concept vector."""

ROUNDING = 1e-6
"""A mixture that is not longer is what rounding leaves of two opposite unit vectors: it has no direction."""


def hybrid_maps(scene: Scene, alphas: Sequence[float] = ALPHAS) -> Float[np.ndarray, "alphas tokens concepts"]:
    """Agreement of every token of the unchanged sample with every mixture; no forward pass, one product a site.

    Parameters
    ----------
    scene : Scene
        With both objectives.
    alphas : sequence of float
        Between 0 (SuperActivators only) and 1 (concept vector only).

    Returns
    -------
    float32 array of shape (alphas, tokens, concepts)
        Concepts in the scene's order. The cosine with the mixture for kinds that are scored by cosine, the projection
        on its direction for kinds that are scored by logits (without bias, which no alpha but 1 has). Zero where the
        mixture is zero.

    Raises
    ------
    StudyError
        If the scene has one objective only, an alpha is not in [0, 1], or a concept is a latent of an autoencoder.
    """
    shares = torch.tensor(list(alphas), dtype=torch.float32)
    if not len(shares) or not bool(((shares >= 0) & (shares <= 1)).all()):
        raise StudyError(f"alphas are {list(alphas)}; give at least one, each from 0 to 1")
    names = list(dict.fromkeys(scene.objectives.concepts))
    result = np.empty((len(shares), scene.n_tokens, len(names)), dtype=np.float32)
    for site, readout in scene.objectives.readouts.items():
        columns = [names.index(name) for name in readout.bank.concepts]
        result[:, :, columns] = _maps(readout, scene.states[site], shares).numpy()
    return result


def _maps(
    readout: Readout, states: Float[Tensor, "tokens d"], shares: Float[Tensor, " alphas"]
) -> Float[Tensor, "alphas tokens c"]:
    bank = readout.bank
    if bank.activation == "latent":
        raise StudyError(f"{bank!r} has latents, which are no directions to mix with; choose another kind")
    if not len(readout.concepts) or not len(readout.locals):
        raise StudyError("mixtures need both objectives, but the scene has one; make it with both")
    normalise = torch.nn.functional.normalize
    share = shares[:, None, None]
    mixed = share * normalise(bank.vectors, dim=1) + (1 - share) * readout.local
    length = torch.linalg.vector_norm(mixed, dim=2, keepdim=True)
    mixed = torch.where(length > ROUNDING, mixed / length.clamp_min(ROUNDING), 0.0)
    scaled = bank.scaling.apply(states)
    along = scaled @ mixed.flatten(0, 1).T
    if bank.activation == "cosine":
        along = along / torch.linalg.vector_norm(scaled, dim=1, keepdim=True).clamp_min(TINY)
    return along.reshape(len(scaled), *mixed.shape[:2]).transpose(0, 1)
