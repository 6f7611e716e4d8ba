"""A backbone's fingerprint: the same for the same weights and settings, wherever they were loaded from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import nn

from superactivators.models.placement import stored_tensors

_SAMPLED = 64  # values of each parameter
_UNRELATED = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache")


def fingerprint_of(model: nn.Module, config: dict[str, Any], preparer: Any, settings: dict[str, Any]) -> str:
    """Hash what decides a backbone's states.

    Parameters
    ----------
    model : nn.Module
        Of every parameter and buffer: name, shape, dtype and up to 64 values at equal distances.
    config : dict
        The model's config; notes about where it came from are left out.
    preparer : tokenizer or image processor
    settings : dict
        Further settings, as JSON values.

    Returns
    -------
    str
        SHA-256 in hexadecimal. The cost does not depend on the size of the model.
    """
    digest = hashlib.sha256()
    described = {key: value for key, value in config.items() if key not in _UNRELATED}
    digest.update(json.dumps([described, settings], sort_keys=True, default=str).encode())
    for name, tensor in stored_tensors(model):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_sampled_bytes(tensor))
    digest.update(_vocabulary_bytes(preparer))
    return digest.hexdigest()


def _sampled_bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().reshape(-1)
    if flat.numel() == 0:
        return b""
    places = torch.linspace(0, flat.numel() - 1, min(_SAMPLED, flat.numel()), dtype=torch.float64).round().long()
    return flat[places.to(flat.device)].cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _vocabulary_bytes(preparer: Any) -> bytes:
    """Hash what decides a tokenizer's ids; empty for an image processor, whose settings say everything."""
    if not hasattr(preparer, "get_vocab"):
        return b""
    parts = [json.dumps(sorted(preparer.get_vocab().items())).encode()]
    added = {number: str(token) for number, token in preparer.added_tokens_decoder.items()}
    parts.append(json.dumps(sorted(added.items())).encode())
    backend = getattr(preparer, "backend_tokenizer", None)
    for name in ("normalizer", "pre_tokenizer", "model", "post_processor"):
        component = getattr(backend, name, None)
        state = b"" if component is None else component.__getstate__()
        if name == "model" and state:
            # its own vocabulary may come in any order; what remains are merges and flags
            described = json.loads(state)
            described.pop("vocab", None)
            state = json.dumps(described, sort_keys=True).encode()
        parts.append(state if isinstance(state, bytes) else str(state).encode())
    return hashlib.sha256(b"\0".join(parts)).digest()
