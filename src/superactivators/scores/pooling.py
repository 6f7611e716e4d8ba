"""From the activations of a sample's tokens to one score for each concept (METHOD section 5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from superactivators.ragged import last_rows, random_rows, segment_max, segment_mean
from superactivators.registry import Registry

Pool: TypeAlias = Callable[[np.ndarray, np.ndarray, list[str], int], np.ndarray]
"""``(activations [tokens, concepts], offsets [n + 1], sample ids, seed) -> scores [n, concepts]``."""

pools: Registry[Pool] = Registry("pooling", "superactivators.pools")


@pools.register("max")
def pool_max(
    activations: Float[np.ndarray, "tokens c"], offsets: Int[np.ndarray, " n_plus_1"], ids: list[str], seed: int
) -> Float[np.ndarray, "n c"]:
    """Highest activation of the sample's tokens."""
    return segment_max(activations, offsets)


@pools.register("mean")
def pool_mean(
    activations: Float[np.ndarray, "tokens c"], offsets: Int[np.ndarray, " n_plus_1"], ids: list[str], seed: int
) -> Float[np.ndarray, "n c"]:
    """Mean activation of the sample's tokens."""
    return segment_mean(activations, offsets)


@pools.register("last")
def pool_last(
    activations: Float[np.ndarray, "tokens c"], offsets: Int[np.ndarray, " n_plus_1"], ids: list[str], seed: int
) -> Float[np.ndarray, "n c"]:
    """Activation of the sample's last token (the last patch in raster order)."""
    return np.asarray(activations[last_rows(offsets)])


@pools.register("random")
def pool_random(
    activations: Float[np.ndarray, "tokens c"], offsets: Int[np.ndarray, " n_plus_1"], ids: list[str], seed: int
) -> Float[np.ndarray, "n c"]:
    """Activation of one token of the sample, drawn from the seed and the sample's id."""
    return np.asarray(activations[random_rows(offsets, ids, seed)])
