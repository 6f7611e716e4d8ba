"""Parts of a checkpoint: their class, and where their weights are among all of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel


def stored_names(folder: Path) -> list[str]:
    """Names of all weights in a folder's safetensors files, from their headers."""
    names: list[str] = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            names += list(opened.keys())
    return names


def part_class(whole: type[Any], config: Any, part: Any) -> type[Any] | None:
    """Find the class of the part of a model that a nested config describes; None if the model has no such part.

    Parameters
    ----------
    whole : type of model
    config : transformers config
        Of the whole.
    part : transformers config
        One that is nested in it.
    """
    with torch.device("meta"):
        model = whole(config)
    own = [module for module in model.modules() if getattr(module, "config", None) is part]
    return next((type(module) for module in own if isinstance(module, PreTrainedModel)), None)


def part_prefix(folder: Path, kind: type[Any], config: Any) -> str:
    """Find what the weights of one part of a checkpoint are prefixed with.

    Parameters
    ----------
    folder : Path
        Of the whole checkpoint.
    kind : type of model
        Of the part.
    config : transformers config
        Of the part.

    Returns
    -------
    str
        Such as ``"vision_tower.vision_model."``: the prefix under which most of the part's weights are found, the
        shortest of equally good ones; empty if they have none.
    """
    with torch.device("meta"):
        wanted = set(kind(config).state_dict())
    found: Counter[str] = Counter()
    for name in stored_names(folder):
        pieces = name.split(".")
        for begin in range(len(pieces)):
            if ".".join(pieces[begin:]) in wanted:
                found["".join(f"{piece}." for piece in pieces[:begin])] += 1
    if not found:
        return ""
    most = max(found.values())
    return min((prefix for prefix, count in found.items() if count == most), key=len)
