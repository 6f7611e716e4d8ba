"""Find a model's transformer blocks by structure, so that no family needs a table of module names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from superactivators.errors import ModelError

_COUNT_NAMES = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "depth")
_WIDTH_NAMES = ("hidden_size", "d_model", "n_embd", "dim")


def _configs(config: Any) -> Iterator[Any]:
    """Yield a config and the configs nested in it, outermost first."""
    yield config
    for name in sorted(getattr(config, "sub_configs", {}) or {}):
        nested = getattr(config, name, None)
        if nested is not None:
            yield from _configs(nested)


def _first(config: Any, names: tuple[str, ...], what: str) -> int:
    for candidate in _configs(config):
        for name in names:
            value = getattr(candidate, name, None)
            if isinstance(value, int):
                return value
    raise ModelError(
        f"the config of model type {getattr(config, 'model_type', '?')!r} does not say the {what} of the model "
        f"(looked for {', '.join(names)}); only transformers with one width and a list of blocks can be used"
    )


def block_count(config: Any) -> int:
    """Return the number of blocks L that the config promises; raises ``ModelError`` if it promises none."""
    return _first(config, _COUNT_NAMES, "number of blocks")


def state_width(config: Any) -> int:
    """Return the width d of the token states that the config promises; raises ``ModelError`` if it promises none."""
    return _first(config, _WIDTH_NAMES, "width")


def find_blocks(model: nn.Module, config: Any) -> tuple[str, Sequence[nn.Module]]:
    """Find the list of transformer blocks.

    The blocks are the ``nn.ModuleList`` of modules of one class whose length is the number of layers in the config;
    where several lists qualify, the one with the shortest path. Blocks that the config calls cross-attention layers
    read images only, and are left out: without an image the model skips them.

    Parameters
    ----------
    model : nn.Module
    config : transformers config
        The model's own, possibly with nested ones.

    Returns
    -------
    path : str
        Such as ``"encoder.layer"``.
    blocks : sequence of nn.Module

    Raises
    ------
    ModelError
        If no list, or more than one list at the same depth, qualifies.
    """
    count = block_count(config)
    skipped = set(getattr(config, "cross_attention_layers", None) or ())
    found: list[tuple[int, str, Sequence[nn.Module]]] = []
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            blocks = [block for number, block in enumerate(module) if number not in skipped]
            if len({type(block) for block in blocks}) == 1:
                found.append((path.count("."), path, blocks))
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no list of {count} modules of one class, so its blocks cannot be found; "
            "only plain stacks of transformer blocks can be used"
        )
    depth = min(found, key=lambda entry: entry[0])[0]
    shallow = [(path, blocks) for level, path, blocks in found if level == depth]
    if len(shallow) > 1:
        raise ModelError(
            f"{type(model).__name__} has several lists of {count} modules ({', '.join(path for path, _ in shallow)}), "
            "so it is not clear which are its blocks; load the sub-model that you mean by itself"
        )
    return shallow[0]
