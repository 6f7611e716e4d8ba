"""Two statements on how an attention head that is aligned with a concept stretches activations, and a check of them.

The abstract of Goldberg et al. (2026), "The SuperActivator Mechanism" (arXiv 2512.05038 v2), says that concept-aligned
attention heads multiply the gaps between pairs of activations, and that activations that are extreme already grow
fastest. The wording and the assumptions of its two theorems were not at hand. What is stated and checked here is
derived anew; it says the same thing under the assumptions written out below, and may differ from the paper in detail.

**Setting.** Tokens have states x_i; c is a unit vector, and a_i = c . x_i the activations. One head adds to every
state: x_i' = x_i + sum_j A_ij W_OV x_j, where row i of A is the softmax over j of the scores s_ij.

**Assumptions.** (1) Scores are aligned: s_ij = b a_i a_j + u_i + w_j, where u_i (any preference of the query) cancels
and w_j (any preference for a key) is the same for all queries. (2) Values are aligned: c^T W_OV = l c^T; what the head
writes across c is free. (3) Every token sees every token; there is no norm, or its scale is the same for all tokens.

Let p_j(t) be the softmax over j of b t a_j + w_j, m(t) = sum_j p_j(t) a_j, and V(t) the variance of the activations
under p(t). Then a_i' = a_i + l m(a_i) and m'(t) = b V(t).

**Statement 1 (gaps are multiplied).** For a_i != a_k the gap after the head is the gap before it times
1 + l b V*, where V* is the mean of V over the interval between a_k and a_i. With l b >= 0 the factor is at least 1,
and, as a variance is at most a quarter of the squared range R, at most 1 + l b R^2 / 4.

**Statement 2 (the extreme grow fastest).** For l b > 0 and activations that are not all equal, the growth
a_i' - a_i = l m(a_i) increases strictly with a_i, so that for l > 0 the highest activation gains most. Where the
tilted third central moment is positive, as it is while the high tokens are few, l m is convex, and equal gaps are
multiplied by more the higher they lie.

**Proof.** u_i is a factor common to a row's weights. (2) gives c . x_i' = a_i + l sum_j A_ij a_j. m is b^-1 times the
derivative of the log of sum_j exp(b t a_j + w_j), so that its derivative is b V(t) and the next one b^2 times the third
central moment. The mean of V over an interval is the difference of m at its ends over b times its length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor, nn

from superactivators.errors import StudyError

NODES = 24
"""Points of the Gauss-Legendre rule that averages the variance between two activations."""


def tilted_moments(
    activations: Float[np.ndarray, " n"],
    at: Float[np.ndarray, " m"],
    score_gain: float,
    preference: Float[np.ndarray, " n"] | None = None,
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Mean, variance and third central moment of the activations as a query of activation t weighs them.

    Parameters
    ----------
    activations : float array of shape (n,)
        Of the keys.
    at : float array of shape (m,)
        Activations t of queries.
    score_gain : float
        The factor b of the scores.
    preference : float array of shape (n,), optional
        The part w of the scores that depends on the key alone.

    Returns
    -------
    mean, variance, third : float64 arrays of shape (m,)
    """
    keys = np.asarray(activations, dtype=np.float64)
    scores = score_gain * np.asarray(at, dtype=np.float64)[:, None] * keys
    if preference is not None:
        scores = scores + preference
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    mean = weights @ keys
    away = keys - mean[:, None]
    return mean, (weights * away**2).sum(axis=1), (weights * away**3).sum(axis=1)


def predicted_activations(
    activations: Float[np.ndarray, " n"],
    value_gain: float,
    score_gain: float,
    preference: Float[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, " n"]:
    """Activations after an aligned head: a + l m(a)."""
    mean, _, _ = tilted_moments(activations, activations, score_gain, preference)
    return np.asarray(activations + value_gain * mean)


def gap_factors(
    activations: Float[np.ndarray, " n"],
    value_gain: float,
    score_gain: float,
    preference: Float[np.ndarray, " n"] | None = None,
) -> Float[np.ndarray, "n n"]:
    """Factor by which an aligned head multiplies the gap of each pair (statement 1).

    The variance is averaged by quadrature, so that the result does not come from the activations after the head.

    Parameters
    ----------
    activations : float array of shape (n,)
        Before the head.
    value_gain, score_gain : float
        l and b.
    preference : float array of shape (n,), optional
        See `tilted_moments`.

    Returns
    -------
    float64 array of shape (n, n)
        For two equal activations, the factor of a gap that is infinitely small.
    """
    held = np.asarray(activations, dtype=np.float64)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    middle, half = (held[:, None] + held) / 2, (held[:, None] - held) / 2
    at = (middle[..., None] + half[..., None] * nodes).ravel()
    _, variance, _ = tilted_moments(held, at, score_gain, preference)
    return np.asarray(1 + value_gain * score_gain * (variance.reshape(*middle.shape, NODES) @ weights) / 2)


def largest_factor(activations: Float[np.ndarray, " n"], value_gain: float, score_gain: float) -> float:
    """Upper bound of every factor for l b >= 0: one plus l b times a quarter of the squared range."""
    return 1 + value_gain * score_gain * float(np.ptp(activations)) ** 2 / 4


@final
class AlignedStack(nn.Module):
    """Attention layers without norms or MLPs, aligned with a direction; what they do across it is random.

    Parameters
    ----------
    direction : float tensor of shape (width,)
        The concept vector; its length does not matter.
    value_gains, score_gains : sequences of float
        l and b of each layer.
    head_width : int
        At least 2: its first dimension carries the concept, the others are random.
    seed : int

    Raises
    ------
    StudyError
        If the sequences differ in length, or the head is too narrow.
    """

    def __init__(
        self,
        direction: Float[Tensor, " d"],
        value_gains: Sequence[float],
        score_gains: Sequence[float],
        head_width: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if len(value_gains) != len(score_gains) or head_width < 2:
            raise StudyError(
                f"{len(value_gains)} value gains, {len(score_gains)} score gains and heads of width {head_width}; "
                "give one of each gain for every layer, and heads of width 2 or more"
            )
        generator = torch.Generator().manual_seed(seed)
        unit = (direction / direction.norm()).double()
        self.register_buffer("direction", unit)
        across = torch.eye(len(unit), dtype=torch.float64) - torch.outer(unit, unit)
        layers = []
        for value_gain, score_gain in zip(value_gains, score_gains, strict=True):
            first = torch.zeros(head_width, dtype=torch.float64)
            first[0] = 1
            root = math.sqrt(abs(score_gain) * math.sqrt(head_width))
            query = torch.outer(first, unit) * math.copysign(root, score_gain)
            key = torch.outer(first, unit) * root
            free = torch.randn(head_width, len(unit), generator=generator, dtype=torch.float64)
            free[0] = 0
            value = torch.outer(first, unit) + free
            other = torch.randn(len(unit), head_width, generator=generator, dtype=torch.float64) / head_width
            output = across @ other + value_gain * torch.outer(unit, first)
            layers.append(_layer(query, key, value, output))
        self.layers = nn.ModuleList(layers)

    def forward(self, states: Float[Tensor, "n d"]) -> list[Float[Tensor, "n d"]]:
        """States before the first layer and after every layer."""
        found = [states.double()]
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleDict)  # noqa: S101
            query, key, value = (layer[name](found[-1]) for name in ("query", "key", "value"))
            mixed = nn.functional.scaled_dot_product_attention(query[None], key[None], value[None])[0]
            found.append(found[-1] + layer["output"](mixed))
        return found


def _layer(*weights: Tensor) -> nn.ModuleDict:
    layer = nn.ModuleDict()
    for name, weight in zip(("query", "key", "value", "output"), weights, strict=True):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(weight)
        layer[name] = linear
    return layer


def check_statements(
    states: Float[Tensor, "n d"],
    direction: Float[Tensor, " d"],
    value_gains: Sequence[float] = (0.3, 0.3, 0.3),
    score_gains: Sequence[float] = (0.5, 0.5, 0.5),
    seed: int = 0,
) -> pa.Table:
    """Run states through an `AlignedStack` and compare every pair's gap with what statement 1 predicts.

    Parameters
    ----------
    states : float tensor of shape (n, width)
        Before the first layer.
    direction : float tensor of shape (width,)
    value_gains, score_gains : sequences of float
        l and b of each layer.
    seed : int
        Of what the layers do across the direction.

    Returns
    -------
    pyarrow Table
        A row for each layer: ``layer``; ``predicted_low``, ``predicted_high`` (smallest and largest factor over the
        pairs of different activations), ``measured_low``, ``measured_high``, ``error`` (largest relative difference of
        a pair), ``bound`` (of statement 1), ``ordered`` (growth increases with the activation: statement 2) and
        ``highest_gains_most``.

    Raises
    ------
    StudyError
        If all activations are equal, so that there is no gap.
    """
    stack = AlignedStack(direction, value_gains, score_gains, seed=seed)
    unit = (direction / direction.norm()).double()
    with torch.inference_mode():
        after = [(held @ unit).numpy() for held in stack(states)]
    rows = []
    for number, (value_gain, score_gain) in enumerate(zip(value_gains, score_gains, strict=True)):
        held, grown = after[number], after[number + 1]
        gaps = held[:, None] - held
        pairs = np.abs(gaps) > 1e-9 * max(float(np.ptp(held)), 1e-300)
        if not pairs.any():
            raise StudyError("all activations are equal, so there is no gap to grow; give states that differ along c")
        predicted = gap_factors(held, value_gain, score_gain)[pairs]
        measured = (grown[:, None] - grown)[pairs] / gaps[pairs]
        growth = grown - held
        order = np.argsort(held)
        rows.append(
            {
                "layer": number,
                "predicted_low": float(predicted.min()),
                "predicted_high": float(predicted.max()),
                "measured_low": float(measured.min()),
                "measured_high": float(measured.max()),
                "error": float(np.max(np.abs(measured - predicted) / np.abs(predicted))),
                "bound": largest_factor(held, value_gain, score_gain),
                "ordered": bool(np.all(np.diff(growth[order]) >= -1e-12)),
                "highest_gains_most": bool(growth.max() <= growth[order[-1]] + 1e-12),
            }
        )
    return pa.Table.from_pylist(rows)
