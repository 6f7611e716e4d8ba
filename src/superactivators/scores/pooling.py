"""From the activations of a sample's tokens to one score for each concept (METHOD section 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from jaxtyping import Float, Int

from superactivators.errors import StudyError
from superactivators.ragged import (
    last_rows,
    random_rows,
    segment_kth,
    segment_max,
    segment_mean,
    segment_top_mean,
    segment_top_share_mean,
)
from superactivators.registry import Registry
from superactivators.scores.layout import Layout
from superactivators.scores.segments import segment_evidence

TOP_K = 5
"""Tokens that ``top-k-mean`` takes."""

TOP_SHARE = 0.1
"""Share of a sample's tokens that ``top-share-mean`` takes (METHOD section 5: the practical variant)."""

MIN_TOKENS = 3
"""Tokens that ``kth`` and ``segment`` ask for by default."""


@final
@dataclass(frozen=True, eq=False)
class PoolBlock:
    """What a pooling is given: the activations of whole samples.

    Attributes
    ----------
    activations : float array of shape (tokens, concepts)
    offsets : int64 array of shape (n + 1,)
        Tokens of each sample.
    ids : sequence of str
        Sample ids.
    seed : int
        For poolings that draw at random.
    layout : Layout or None
        Where the tokens stand; poolings that look at segments need it.
    min_tokens : int
        Tokens that make evidence.
    """

    activations: Float[np.ndarray, "tokens c"]
    offsets: Int[np.ndarray, " n_plus_1"]
    ids: Sequence[str]
    seed: int = 0
    layout: Layout | None = None
    min_tokens: int = MIN_TOKENS


Pool: TypeAlias = Callable[[PoolBlock], np.ndarray]
"""``block -> scores [n, concepts]``."""

pools: Registry[Pool] = Registry("pooling", "superactivators.pools")


@pools.register("max")
def pool_max(block: PoolBlock) -> Float[np.ndarray, "n c"]:
    """Highest activation of the sample's tokens."""
    return segment_max(block.activations, block.offsets)


@pools.register("mean")
def pool_mean(block: PoolBlock) -> Float[np.ndarray, "n c"]:
    """Mean activation of the sample's tokens."""
    return segment_mean(block.activations, block.offsets)


@pools.register("last")
def pool_last(block: PoolBlock) -> Float[np.ndarray, "n c"]:
    """Activation of the sample's last token (the last patch in raster order)."""
    return np.asarray(block.activations[last_rows(block.offsets)])


@pools.register("random")
def pool_random(block: PoolBlock) -> Float[np.ndarray, "n c"]:
    """Activation of one token of the sample, drawn from the seed and the sample's id."""
    return np.asarray(block.activations[random_rows(block.offsets, list(block.ids), block.seed)])


@pools.register("top-k-mean")
def pool_top_k_mean(block: PoolBlock) -> Float[np.ndarray, "n c"]:
    """Mean of the `TOP_K` highest activations, or of all in shorter samples."""
    return segment_top_mean(block.activations, block.offsets, TOP_K)


@pools.register("top-share-mean")
def pool_top_share_mean(block: PoolBlock) -> Float[np.ndarray, "n c"]:
    """Mean of the highest ceil(`TOP_SHARE` · tokens) activations."""
    return segment_top_share_mean(block.activations, block.offsets, TOP_SHARE)


@pools.register("kth")
def pool_kth(block: PoolBlock) -> Float[np.ndarray, "n c"]:
    """Give the ``min_tokens``-th highest activation: it reaches a threshold if so many tokens of the sample do.

    Minus infinity for samples with fewer tokens.
    """
    return segment_kth(block.activations, block.offsets, block.min_tokens)


@pools.register("segment")
def pool_segment(block: PoolBlock) -> Float[np.ndarray, "n c"]:
    """Highest threshold that ``min_tokens`` tokens of one sentence, or connected patches, reach.

    Minus infinity where no segment has so many tokens. Without a layout it raises ``StudyError``.
    """
    if block.layout is None:
        raise StudyError(
            "pooling 'segment' must know the sentences or patch grids, but got no layout; "
            "pass layout=Layout.of(dataset.samples, encoding), or use 'kth'"
        )
    return segment_evidence(block.activations, block.layout, block.min_tokens)
