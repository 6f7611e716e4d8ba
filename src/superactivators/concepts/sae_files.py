"""Find and read a published sparse autoencoder: a folder, a file, or a hub id.

Nothing is ever unpickled and no code of a checkpoint is run. What the files mean is in `sae_layouts`.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from superactivators.concepts.sae import SparseEncoder
from superactivators.concepts.sae_layouts import BATCH_TOP_K, READERS
from superactivators.concepts.sae_weights import Given, read_json
from superactivators.errors import ModelError

_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
_WEIGHTS = (".safetensors", ".npz")
_WANTED = ("cfg.json", "config.json", "activation_scaler.json", "*.safetensors", "*.npz")


def read_sae(
    source: str | Path,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    k: int | None = None,
    threshold: float | None = None,
    input_scale: float | None = None,
    centred: bool | None = None,
) -> SparseEncoder:
    """Read the encoder of a published sparse autoencoder.

    Parameters
    ----------
    source : str or Path
        A folder, a file of weights in it, or, where no such path exists, a hub id with or without a folder:
        ``"org/name"``, ``"org/name/blocks.8.hook_resid_pre"``.
    revision : str, optional
        Branch, tag or commit of a hub id.
    local_files_only : bool
        Never ask the hub.
    k, threshold, input_scale : optional
        For files that do not say.
    centred : bool, optional
        Whether the mean of each state is taken off first. None: as the files say (SAELens, ``center_writing_weights``).

    Returns
    -------
    SparseEncoder
        In single precision. Its ``notes`` hold layout, class, rule, latents and width, and, where the files say so,
        hook, layer, model and site (the site of ours that gives the states it was trained on).

    Raises
    ------
    ModelError
        If there is nothing to read, or what there is is damaged, stored as pickle, of another shape than its settings
        say, or of a kind that is not read here.

    Notes
    -----
    Layouts are told apart by their files: ``cfg.json`` with ``sae_weights.safetensors`` is SAELens; ``config.json``
    with ``trainer.dict_class`` is dictionary_learning; safetensors with ``dictionary.*`` are Overcomplete, whose
    settings (``class``, ``top_k``, ``running_threshold``) no export holds, and which are read from a ``config.json``
    beside it or from the metadata in its header; ``params.npz`` or ``params.safetensors`` is Gemma Scope.
    """
    weights = _find_weights(_located(source, revision, local_files_only))
    layout, config = _layout(weights)
    tensors, header = _load(weights)
    given = Given(weights, tensors, config, header, k, threshold, input_scale, centred)
    try:
        encoder = READERS[layout](given)
    except ModelError as error:
        message = str(error)
        raise ModelError(message if message.startswith(str(weights)) else f"{weights}: {message}") from None
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise ModelError(
            f"{weights}: weights and settings are not those of {layout} ({str(error).splitlines()[0]}); get them again"
        ) from None
    if k is not None and encoder.k is None:
        raise ModelError(f"{weights}: k = {k} was asked for, but its rule is {encoder.rule}; leave k out")
    if threshold is not None and encoder.notes["class"] not in BATCH_TOP_K:
        raise ModelError(f"{weights}: a threshold was given, but its class is no batch top-k; leave it out")
    return encoder


def _located(source: str | Path, revision: str | None, local_files_only: bool) -> Path:
    text = str(source)
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{text[:80]}: is no path that can be looked up ({error}); give a folder or a hub id"
        ) from None
    matched = re.fullmatch(r"([A-Za-z0-9][\w.-]*/[\w.-]+)((?:/[\w.=-]+)*)", text)
    if isinstance(source, Path) or matched is None or (path.parent.is_dir() and path.parent != Path()):
        raise ModelError(
            f"{text}: no such folder; give the folder of a sparse autoencoder, or a hub id such as 'org/name/folder'"
        )
    repository, folder = matched[1], matched[2].strip("/")
    from huggingface_hub import snapshot_download

    from superactivators.models.quiet import quiet_transformers

    prefix = f"{folder}/" if folder else ""

    def fetch(local: bool) -> Path:
        root = snapshot_download(
            repository,
            revision=revision,
            local_files_only=local,
            allow_patterns=[prefix + name for name in _WANTED],
            ignore_patterns=[f"{prefix}*/*"],
        )
        return Path(root) / folder

    try:
        with quiet_transformers():
            # a copy is enough if there is one; only then is the network asked
            try:
                found = fetch(local=True)
                if not _holds_weights(found):
                    raise FileNotFoundError(f"no copy of {text} in the local cache")
            except OSError:
                if local_files_only or os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
                    raise
                found = fetch(local=False)
    except Exception as error:  # the hub client raises many kinds; all mean the same to the user
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = "not looked for" if local_files_only else f"not to be had from the hub ({lines[0]})"
        raise ModelError(
            f"sparse autoencoder {text!r} is neither a folder here nor in the local cache, and {reason}; check the "
            "name, or give the folder of a copy"
        ) from None
    return found


def _holds_weights(folder: Path) -> bool:
    return folder.is_dir() and any(path.suffix in _WEIGHTS for path in folder.iterdir())


def _find_weights(path: Path) -> Path:
    """Find the one file of weights in a folder."""
    if path.is_file():
        if path.suffix in _PICKLES:
            raise ModelError(_pickle_line(path))
        if path.suffix in _WEIGHTS:
            return path
        raise ModelError(f"{path}: holds no weights; give the folder of a sparse autoencoder, or its .safetensors file")
    if not path.is_dir():
        raise ModelError(f"{path}: no such folder in that repository; give one that holds a sparse autoencoder")
    found = sorted(file for file in path.iterdir() if file.suffix in _WEIGHTS)
    usual = ("sae_weights.safetensors", "ae.safetensors", "params.safetensors", "params.npz")
    for name in usual:
        if path / name in found:
            return path / name
    # statistics that SAELens keeps beside the weights
    found = [file for file in found if file.name not in ("sparsity.safetensors", "activation_whitening.safetensors")]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(file.name for file in found[:6])
        raise ModelError(f"{path}: holds several files of weights ({names}); give the path of one of them")
    pickles = sorted(file for file in path.iterdir() if file.suffix in _PICKLES)
    if pickles:
        raise ModelError(_pickle_line(pickles[0]))
    inside = sorted(str(folder.relative_to(path)) for folder in path.rglob("*") if _holds_weights(folder))
    hint = f"give one of its folders, such as {inside[0]!r}" if inside else "give a folder with safetensors weights"
    if (path / "config.json").is_file() and not inside:
        hint = f"if its weights are ae.pt: {_pickle_line(path / 'ae.pt')}"
    raise ModelError(f"{path}: no weights of a sparse autoencoder here; {hint}")


def _pickle_line(path: Path) -> str:
    return (
        f"{path}: is a pickle, which is never opened here; where you trust it, turn it into safetensors: "
        'python -c "import torch; from safetensors.torch import save_file; '
        f"state = torch.load('{path.name}', map_location='cpu', weights_only=True); "
        f"save_file({{n: v.clone().contiguous() for n, v in state.items()}}, '{path.stem}.safetensors')\""
    )


def _layout(weights: Path) -> tuple[str, dict[str, Any]]:
    """Tell the layout by the files, and read the settings."""
    folder = weights.parent
    if weights.suffix == ".npz" or weights.name == "params.safetensors":
        return "gemma_scope", read_json(folder / "config.json")
    names = _names(weights)
    if "W_enc" in names and (folder / "cfg.json").is_file():
        return "saelens", read_json(folder / "cfg.json")
    config = read_json(folder / "config.json")
    if "trainer" in config:
        return "dictionary_learning", config
    if any(name.startswith("dictionary.") for name in names):
        return "overcomplete", config
    for name, file in {"W_enc": "cfg.json of SAELens", "encoder.weight": "config.json of dictionary_learning"}.items():
        if name in names:
            raise ModelError(f"{weights}: no {file} beside it, so that its rule is not known; copy it there")
    raise ModelError(
        f"{weights}: holds {', '.join(names[:8]) or 'nothing'}, which is no layout that is read (SAELens, "
        "dictionary_learning, Overcomplete, Gemma Scope); wrap the model's own object with wrap_sae"
    )


def _names(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return sorted(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: is not readable safetensors ({error}); get it again") from None


def _load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if path.suffix == ".npz":
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                arrays = [(name, np.asarray(file[name])) for name in file.files]
            native = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in arrays}
            return {name: torch.from_numpy(array) for name, array in native.items()}, {}
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise ModelError(f"{path}: is not a readable archive of plain arrays ({error}); get it again") from None
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: is not readable safetensors ({error}); get it again") from None
