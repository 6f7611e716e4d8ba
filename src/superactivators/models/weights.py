"""Parts of a checkpoint: their class, and where their weights are among all of them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from superactivators.errors import ModelError

_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def weight_files(folder: Path) -> list[Path]:
    """Files that hold a checkpoint's weights: one, or those that its index names, whether they are there or not.

    Raises
    ------
    ModelError
        If the index cannot be read.
    """
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    index = folder / _INDEX
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelError(f"{index}: is no readable index of weights; save the model again") from None
    return [folder / str(name) for name in sorted(names)]


def has_all_weights(folder: Path) -> bool:
    """Whether the weights of a checkpoint are there, with every shard."""
    files = weight_files(folder)
    return bool(files) and all(file.is_file() for file in files)


def check_weights(folder: Path) -> None:
    """Raise ``ModelError`` if weights are missing, incomplete, or stored as pickle only."""
    files = weight_files(folder)
    gone = [file.name for file in files if not file.is_file()]
    if gone:
        raise ModelError(
            f"{folder}: {len(gone)} of {len(files)} weight files that its index names are missing ({gone[0]}); "
            "download or save the model again"
        )
    if files:
        return
    pickled = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickled:
        raise ModelError(
            f"{folder}: the weights are a pickle ({pickled[0]}), which can run code when it is opened, and are not "
            "read; convert them to safetensors where you trust them: save_pretrained() writes safetensors"
        )
    raise ModelError(f"{folder}: no weights; a file model.safetensors is needed")


def stored_bytes(folder: Path) -> int | None:
    """Bytes of a checkpoint's weight files, or what its index says of them; None if nothing says it."""
    files = weight_files(folder)
    if files and all(file.is_file() for file in files):
        return sum(file.stat().st_size for file in files)
    index = folder / _INDEX
    if not index.is_file():
        return None
    size = json.loads(index.read_text(encoding="utf-8")).get("metadata", {}).get("total_size")
    return None if size is None else int(size)


def stored_dtype(folder: Path) -> torch.dtype | None:
    """Dtype of the first floating weight, from the header of the first file; None without one."""
    for file in weight_files(folder)[:1]:
        if file.is_file():
            with safe_open(file, framework="pt") as opened:
                found = (opened.get_slice(name).get_dtype() for name in opened.keys())  # noqa: SIM118
                return next((_FLOATS[dtype] for dtype in found if dtype in _FLOATS), None)
    return None


def stored_names(folder: Path) -> list[str]:
    """Names of all weights in a folder's safetensors files, from their headers."""
    names: list[str] = []
    for file in weight_files(folder):
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
