"""Small sparse autoencoders of every rule, and the states that they read."""

from __future__ import annotations

from typing import Any

import torch

from superactivators.concepts.sae import SparseEncoder

WIDTH, LATENTS = 6, 20
RULES = ("relu", "jumprelu", "topk", "gated")


def encoder(rule: str, seed: int = 0, latents: int = LATENTS, **changed: Any) -> SparseEncoder:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    parts: dict[str, Any] = {
        "weight": drawn(latents, WIDTH),
        "bias": drawn(latents),
        "centre": drawn(WIDTH),
        "decoder": drawn(latents, WIDTH),
        "rule": rule,
        "notes": {"layout": "test"},
    }
    if rule == "jumprelu":
        parts["threshold"] = drawn(latents)
    if rule == "topk":
        parts["k"] = 4
    if rule == "gated":
        parts |= {"gain": drawn(latents).exp(), "magnitude_bias": drawn(latents)}
    return SparseEncoder(**parts | changed)


def states(n: int = 40, seed: int = 5) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed)) * 2 + 0.5


class Doubling:
    """Gives what an encoder gives, in another shape or type."""

    def __init__(self, given: str = "tensor") -> None:
        self.given, self.longest = given, 0

    def encode(self, x: torch.Tensor) -> Any:
        self.longest = max(self.longest, len(x))
        latents = torch.cat([x, 2 * x], dim=1).requires_grad_().clone()
        return {
            "tensor": latents,
            "array": latents.detach().double().numpy(),
            "half": latents.bfloat16(),
            "pair": (-latents, latents),
            "short": latents[:, :3],
            "nan": latents * torch.nan,
            "text": "latents",
        }[self.given]
