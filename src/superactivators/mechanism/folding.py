"""Norms and layer scales as linear maps: a gain for each channel, times one over the length of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

_AMPLITUDE = 100.0  # large beside any epsilon of a norm
_TOLERANCE = 1e-3


@final
@dataclass(frozen=True, eq=False)
class Fold:
    """What an elementwise module does to a direction.

    Attributes
    ----------
    module : nn.Module
    gain : float32 tensor of shape (width,)
    normed : bool
        Whether the input is divided by its length (root mean square, of the centred input if ``centred``).
    centred : bool
        Whether the mean over channels is taken out first.
    """

    module: nn.Module
    gain: Float[Tensor, " d"]
    normed: bool
    centred: bool

    def inverse_lengths(self, states: Float[Tensor, "*places d"]) -> Float[Tensor, "*places"]:
        """One over the length by which the module divides each state; 1 if it does not."""
        held = states.float()
        if not self.normed:
            return torch.ones(held.shape[:-1], device=held.device)
        if self.centred:
            held = held - held.mean(dim=-1, keepdim=True)
        return held.square().mean(dim=-1).clamp_min(torch.finfo(torch.float32).tiny).rsqrt()

    def apply(self, directions: Float[Tensor, "*k d"], inverse_length: float) -> Float[Tensor, "*k d"]:
        """Move directions through the module, its division by the length held fixed."""
        held = directions - directions.mean(dim=-1, keepdim=True) if self.centred else directions
        factor = inverse_length if self.normed else 1.0
        moved: Tensor = held * self.gain * factor
        return moved


def fold(module: nn.Module, width: int) -> Fold | None:
    """Find what a module does by trying it out.

    Parameters
    ----------
    module : nn.Module
        Takes and gives tensors of shape (..., width).
    width : int

    Returns
    -------
    Fold or None
        None if it is neither a norm nor a scale of each channel.
    """
    generator = torch.Generator().manual_seed(0)
    trial = _AMPLITUDE * torch.randn(2, width, generator=generator)
    parameter = next(module.parameters(), None)
    like = torch.empty(0) if parameter is None else parameter

    def both_ways(inputs: Float[Tensor, "2 d"]) -> tuple[Tensor, Tensor]:
        """Give the odd part, which has no bias, and the even part, which is nothing else."""
        moved = inputs.to(device=like.device, dtype=like.dtype)
        there, back = (module(part[None])[0].float().cpu() for part in (moved, -moved))
        return (there - back) / 2, (there + back) / 2

    try:
        # not in inference mode, whose tensors could not be used with gradients later
        with torch.inference_mode(False), torch.no_grad():
            (once, rest), (twice, more) = both_ways(trial), both_ways(2 * trial)
    except (TypeError, RuntimeError, ValueError, IndexError):
        return None
    low = like.dtype in (torch.float16, torch.bfloat16)
    bias = rest.mean(dim=0)
    if once.shape != trial.shape or not all(_near(part + once, bias + once, low) for part in (rest, more)):
        return None
    centred = trial - trial.mean(dim=-1, keepdim=True)
    choices = [(trial, False, False)] if _near(twice, 2 * once, low) else []
    if _near(twice, once, low):
        choices = [
            (part / part.square().mean(dim=-1, keepdim=True).sqrt(), True, part is centred) for part in (trial, centred)
        ]
    for before, normed, takes_mean in choices:
        gain = (before * once).sum(dim=0) / before.square().sum(dim=0)
        if _near(before * gain, once, low):
            return Fold(module, gain, normed, takes_mean)
    return None


def _near(one: Tensor, other: Tensor, low: bool) -> bool:
    return float((one - other).norm()) <= (3e-2 if low else _TOLERANCE) * float(other.norm().clamp_min(1e-12))
