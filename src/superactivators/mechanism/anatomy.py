"""Where attention and MLP are in a block, and how its heads are laid out: found by watching one small forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from superactivators.attribution.rollout import eager_attention
from superactivators.errors import ModelError
from superactivators.mechanism.calls import Call, first_tensor, given_state, relative
from superactivators.mechanism.head_layout import Heads, find_heads, role_of, with_write
from superactivators.models.backbone import Backbone
from superactivators.models.layers import site_name
from superactivators.models.quiet import quiet_transformers

TOLERANCE = 1e-4
"""Largest relative error with which a block's change must equal the sum of its parts in float32."""

NO_WRITE = "what stands behind its output projection is neither a norm nor a scale"


@final
@dataclass(frozen=True, eq=False)
class Anatomy:
    """Parts of one block.

    Attributes
    ----------
    attention, mlp : nn.Module
        Modules whose outputs are the two parts of the block's change.
    norms : two modules, or None
        Of a block with norms after the sums (BERT): after that of attention and after that of the MLP. Such a block's
        change is not the sum of the parts; what the norms do is reported as a part of its own.
    heads : Heads or None
    why_no_heads : str
    """

    attention: nn.Module
    mlp: nn.Module
    norms: tuple[nn.Module, nn.Module] | None
    heads: Heads | None
    why_no_heads: str = ""


def tolerance(backbone: Backbone) -> float:
    """Largest relative error that rounding may cause in this backbone."""
    return TOLERANCE if backbone.dtype in (torch.float32, torch.float64) else 3e-2


def dissect(backbone: Backbone, inputs: Mapping[str, Any]) -> list[Anatomy]:
    """Find the parts of every block.

    Parameters
    ----------
    backbone : Backbone
    inputs : mapping
        Of a small forward pass, on the backbone's device.

    Returns
    -------
    list of Anatomy
        One for each block.

    Raises
    ------
    ModelError
        If the change of a block is not the sum of an attention part and an MLP part, with or without norms.
    """
    found: dict[int, Anatomy] = {}
    calls: list[Call] = []

    def watch(path: str) -> Callable[..., None]:
        def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            square = isinstance(weights, Tensor) and weights.ndim == 4 and weights.shape[2] == weights.shape[3]
            given, gave = given_state(args, kwargs), first_tensor(output)
            if given is not None and gave is not None:
                calls.append(Call(path, module, given, gave, weights if square else None))

        return keep

    def finish(number: int) -> Callable[..., None]:
        def close(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            before, after = given_state(args, kwargs), first_tensor(output)
            if before is not None and after is not None:
                found[number] = _anatomy(backbone, number, list(calls), before, after)
            calls.clear()

        return close

    handles = []
    try:
        for number, block in enumerate(backbone.blocks):
            for path, module in block.named_modules():
                if path:
                    handles.append(module.register_forward_hook(watch(path), with_kwargs=True))
            handles.append(block.register_forward_hook(finish(number), with_kwargs=True))
        with quiet_transformers(), eager_attention(backbone):
            backbone.runner.run(inputs, [site_name(backbone.n_blocks - 1, backbone.n_blocks)], lambda site, raw: None)
    finally:
        for handle in handles:
            handle.remove()
    return [found[number] for number in range(backbone.n_blocks)]


def _anatomy(backbone: Backbone, number: int, calls: Sequence[Call], before: Tensor, after: Tensor) -> Anatomy:
    begin, heads, why = 0, None, ""
    try:
        heads, begin = find_heads(calls, before)
    except ModelError as error:
        why = str(error)
        places = [place for place, call in enumerate(calls) if isinstance(call.module, nn.MultiheadAttention)]
        names = [place for place, call in enumerate(calls) if role_of(call.path) is not None]
        begin = min([*places, *(name + 1 for name in names[-1:])], default=0)
    wide = [(place, call) for place, call in enumerate(calls) if place >= begin and call.gave.shape == before.shape]
    most, change = tolerance(backbone), after - before
    for one, (_, first) in enumerate(wide):
        for _, second in wide[one + 1 :]:
            if relative(change - first.gave - second.gave, change) <= most:
                kept = heads and with_write(heads, calls, begin, first)
                return Anatomy(first.module, second.module, None, kept, why or ("" if kept else NO_WRITE))
    for attention, mlp, norms in _after_norms(calls, wide, before, after, most):
        return Anatomy(attention, mlp, norms, heads, why)
    raise ModelError(
        f"{type(backbone.model).__name__}: the change of block {number} is not the sum of an attention part and an MLP "
        f"part to {most:g}, so it cannot be split; such models are not supported here"
    )


def _after_norms(
    calls: Sequence[Call], wide: Sequence[tuple[int, Call]], before: Tensor, after: Tensor, most: float
) -> Iterator[tuple[nn.Module, nn.Module, tuple[nn.Module, nn.Module]]]:
    """Find parts that are added before a norm: out = n2(n1(x + a) + m)."""
    change = after - before
    norms = [
        (place, call)
        for place, call in enumerate(calls)
        if not list(call.module.children()) and call.given.shape == call.gave.shape == before.shape
    ]
    for last, second in norms:
        if relative(second.gave - after, change) > most:
            continue
        for early, first in norms:
            if early >= last:
                continue
            for place, attention in wide:
                if place >= early or relative(first.given - before - attention.gave, change) > most:
                    continue
                for later, mlp in wide:
                    if early < later < last and relative(second.given - first.gave - mlp.gave, change) <= most:
                        yield attention.module, mlp.module, (first.module, second.module)
