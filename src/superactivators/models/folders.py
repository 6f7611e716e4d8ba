"""Where the files of a checkpoint are: a folder, or the local copy of a hub id, fetched if need be."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download

from superactivators.errors import ModelError
from superactivators.models.failures import first_line
from superactivators.models.quiet import quiet_transformers
from superactivators.models.weights import has_all_weights

_SETTINGS_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
ALL_WEIGHTS = ("*.safetensors",)
_UNWANTED_FILES = ("*/*", "consolidated*", "*.fp16.safetensors", "*.bf16.safetensors", "*.onnx*")


def find_folder(
    name: str | Path,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    weights: Sequence[str] = ALL_WEIGHTS,
) -> Path:
    """Find the folder of a checkpoint: the path itself, or the local copy of a hub id, fetched if need be.

    Parameters
    ----------
    name : str or Path
    revision : str or None
        Branch, tag or commit of a hub id.
    local_files_only : bool
        Never ask the hub.
    weights : sequence of str
        Patterns of the weight files that are wanted; without any, only settings and vocabularies are fetched, which
        are small.

    Raises
    ------
    ModelError
        If there is no such folder, or the hub cannot be reached and holds no cached copy.
    """
    text = str(name)
    try:
        given = Path(name).expanduser()
        if given.is_dir():
            return given
        is_file = given.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{text[:80]}: is no path that can be looked up ({error}); give a folder or a hub id"
        ) from None
    if is_file:
        raise ModelError(f"{text}: is a file; give the folder that holds config.json and model.safetensors")
    looks_like_hub_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", text) is not None
    if isinstance(name, Path) or not looks_like_hub_id or (given.parent.is_dir() and given.parent != Path()):
        raise ModelError(f"{text}: no such folder; give the folder of a saved model, or a hub id such as 'org/name'")
    try:
        with quiet_transformers():
            return _cached_or_fetched(text, revision, local_files_only, weights)
    except Exception as error:  # the hub client raises many kinds; all mean the same to the user
        reason = "not looked for" if local_files_only else f"not to be had from the hub ({first_line(error)})"
        raise ModelError(
            f"model {text!r} is neither a folder here nor in the local cache, and {reason}; check the name, or give "
            "the folder of a saved model or one of the bundled models (bundled:minilm, bundled:dinov2-small)"
        ) from None


def _cached_or_fetched(name: str, revision: str | None, local_files_only: bool, weights: Sequence[str]) -> Path:
    """Take a copy if there is one, and only then ask the network."""
    offline = local_files_only or os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
    try:
        copy = _fetch(name, revision, local_files_only=True, weights=weights)
    except OSError:
        if offline:
            raise
    else:
        # a copy that was made for its settings alone has no weights yet
        if offline or _has(copy, weights):
            return copy
    return _fetch(name, revision, local_files_only=False, weights=weights)


def _has(copy: Path, weights: Sequence[str]) -> bool:
    if tuple(weights) == ALL_WEIGHTS:
        return has_all_weights(copy)
    return all(any(copy.glob(pattern)) for pattern in weights)


def _fetch(name: str, revision: str | None, *, local_files_only: bool, weights: Sequence[str]) -> Path:
    return Path(
        snapshot_download(
            name,
            revision=revision,
            local_files_only=local_files_only,
            allow_patterns=[*_SETTINGS_FILES, *weights],
            ignore_patterns=list(_UNWANTED_FILES),
        )
    )
