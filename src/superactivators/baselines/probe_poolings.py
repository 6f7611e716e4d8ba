"""Poolings of trained probes: from the logits of a sample's tokens to one score, and the gradient back to the logits.

A probe has one or more *heads* for each concept; a head is a direction, and gives each token a logit. The logits of all
tokens of some samples stand as ``logits[token, head, concept]``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from superactivators.ragged import offsets_of, segment_ids

Pull: TypeAlias = Callable[[np.ndarray, Tensor], Tensor]
"""``(dloss/dscore [samples, concepts], states [tokens, width]) -> dloss/dheads [heads, concepts, width]``."""


@final
@dataclass(frozen=True, eq=False)
class Tokens:
    """Where the tokens of some samples lie; every sample has at least one.

    Attributes
    ----------
    offsets : int64 array of shape (samples + 1,)
    window : int
        Tokens of one window.
    """

    offsets: Int[np.ndarray, " n_plus_1"]
    window: int

    @property
    def starts(self) -> Int[np.ndarray, " n"]:
        """First token of each sample."""
        return self.offsets[:-1]

    @cached_property
    def owner(self) -> Int[np.ndarray, " tokens"]:
        """Sample of each token."""
        return segment_ids(self.offsets)

    @cached_property
    def windows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First token and length of each window, and the windows' offsets by sample.

        A sample shorter than a window has one window: itself.
        """
        lengths = np.diff(self.offsets)
        counts = np.maximum(lengths - self.window, 0) + 1
        offsets = offsets_of(counts)
        first = np.arange(offsets[-1]) + np.repeat(self.starts - offsets[:-1], counts)
        return first, np.repeat(np.minimum(lengths, self.window), counts), offsets


def _highest(values: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximum of each segment and column, and the first row where it is reached."""
    flat = values.reshape(len(values), -1)
    best = np.maximum.reduceat(flat, offsets[:-1], axis=0)
    owner = segment_ids(offsets)
    hits = np.flatnonzero(flat == best[owner])[::-1]
    rows, columns = np.divmod(hits, flat.shape[1])
    place = np.zeros(best.shape, dtype=np.int64)
    place[owner[rows], columns] = rows  # of equal ones, the first row is written last
    shape = (len(best), *values.shape[1:])
    return best.reshape(shape), place.reshape(shape)


def _gathered(place: np.ndarray, weight: np.ndarray, states: Tensor) -> Tensor:
    """Sum of the states at some places, weighted: places and weights are [heads * concepts, k]."""
    return functional.embedding_bag(
        torch.from_numpy(place), states, mode="sum", per_sample_weights=torch.from_numpy(weight)
    )


def _weighted(
    keys: Float[np.ndarray, "tokens c"], values: Float[np.ndarray, "tokens c"], tokens: Tokens
) -> tuple[np.ndarray, np.ndarray]:
    """Softmax weights of the keys within each sample, and the weighted sum of the values."""
    weight = keys - np.maximum.reduceat(keys, tokens.starts, axis=0)[tokens.owner]
    np.exp(weight, out=weight)
    weight /= np.add.reduceat(weight, tokens.starts, axis=0)[tokens.owner]
    return weight, np.add.reduceat(weight * values, tokens.starts, axis=0)


def pool_attention(logits: Float[np.ndarray, "tokens 2 c"], tokens: Tokens) -> tuple[Float[np.ndarray, "n c"], Pull]:
    r"""Attention: :math:`s = \sum_t \mathrm{softmax}_t(q z_t) \, (v z_t)`; heads are q and v."""
    values = logits[:, 1]
    weight, scores = _weighted(logits[:, 0], values, tokens)

    def pull(slope: np.ndarray, states: Tensor) -> Tensor:
        by_value = weight * slope[tokens.owner]
        by_key = by_value * (values - scores[tokens.owner])
        gradient = np.concatenate([by_key, by_value], axis=1)
        return (torch.from_numpy(gradient).T @ states).view(2, -1, states.shape[1])

    return scores, pull


def pool_softmax(
    logits: Float[np.ndarray, "tokens 1 c"], tokens: Tokens, temperature: float
) -> tuple[Float[np.ndarray, "n c"], Pull]:
    r"""Softmax: :math:`s = \sum_t \mathrm{softmax}_t(a_t / T) \, a_t` with :math:`a_t = w z_t`."""
    values = logits[:, 0]
    weight, scores = _weighted(values / np.float32(temperature), values, tokens)

    def pull(slope: np.ndarray, states: Tensor) -> Tensor:
        gradient = weight * slope[tokens.owner]
        gradient *= 1 + (values - scores[tokens.owner]) / np.float32(temperature)
        return (torch.from_numpy(gradient).T @ states)[None]

    return scores, pull


def pool_rolling_max(logits: Float[np.ndarray, "tokens 1 c"], tokens: Tokens) -> tuple[Float[np.ndarray, "n c"], Pull]:
    r"""Highest mean logit of a window of consecutive tokens."""
    first, length, offsets = tokens.windows
    sums = np.zeros((len(logits) + 1, logits.shape[2]))
    np.cumsum(logits[:, 0], axis=0, dtype=np.float64, out=sums[1:])
    means = ((sums[first + length] - sums[first]) / length[:, None]).astype(np.float32)
    scores, place = _highest(means, offsets)

    def pull(slope: np.ndarray, states: Tensor) -> Tensor:
        steps = np.arange(tokens.window)
        inside = steps < length[place][..., None]
        rows = np.where(inside, first[place][..., None] + steps, 0)
        weight = np.where(inside, (slope / length[place])[..., None], 0).astype(np.float32)
        turned = [part.transpose(1, 0, 2).reshape(slope.shape[1], -1) for part in (rows, weight)]
        return _gathered(turned[0], turned[1], states)[None]

    return scores, pull


def pool_multimax(logits: Float[np.ndarray, "tokens h c"], tokens: Tokens) -> tuple[Float[np.ndarray, "n c"], Pull]:
    r"""MultiMax: :math:`s = \sum_h \max_t (v_h z_t)`."""
    best, place = _highest(logits, tokens.offsets)

    def pull(slope: np.ndarray, states: Tensor) -> Tensor:
        n, heads, concepts = place.shape
        rows = place.transpose(1, 2, 0).reshape(-1, n)
        return _gathered(rows, np.tile(slope.T, (heads, 1)), states).view(heads, concepts, -1)

    return best.sum(axis=1), pull
