"""Runs of modules within a block, as hooks see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

from torch import Tensor, nn


@final
@dataclass(frozen=True, eq=False)
class Call:
    """One module's run within a block; ``weights`` are those of attention, where it gives them."""

    path: str
    module: nn.Module
    given: Tensor
    gave: Tensor
    weights: Tensor | None


def first_tensor(value: Any) -> Tensor | None:
    """Take the first tensor out of what a module gives."""
    held = value[0] if isinstance(value, tuple | list) and value else value
    return held if isinstance(held, Tensor) else None


def given_state(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Take the state that a module is given."""
    if args and isinstance(args[0], Tensor):
        return args[0]
    named = kwargs.get("hidden_states")
    if isinstance(named, Tensor):
        return named
    return next((value for value in kwargs.values() if isinstance(value, Tensor)), None)


def relative(error: Tensor, size: Tensor) -> float:
    """Length of an error over a length."""
    return float(error.float().norm() / size.float().norm().clamp_min(1e-30))


@contextmanager
def hooks(handles: list[Any]) -> Iterator[None]:
    """Remove hooks after a ``with`` block."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
