"""Weights and settings of a published sparse autoencoder, as they are found, with one line for whatever is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from torch import Tensor

from superactivators.errors import ModelError


@final
@dataclass(frozen=True, eq=False)
class Given:
    """What a layout's reader works on.

    Attributes
    ----------
    path : Path
        The file of weights.
    tensors : mapping of str to tensor
    config : mapping
        The settings beside it; empty if there are none.
    header : mapping of str to str
        Metadata within the file of weights.
    k, threshold, input_scale, centred
        What the caller says; None: as the files say.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    header: Mapping[str, str] = field(default_factory=dict)
    k: int | None = None
    threshold: float | None = None
    input_scale: float | None = None
    centred: bool | None = None

    def need(self, name: str, *dims: int) -> Tensor:
        """Give a tensor in single precision; ``dims``: how many dimensions it may have."""
        if name not in self.tensors:
            raise ModelError(f"{self.path}: has no {name!r}; it holds {', '.join(sorted(self.tensors)[:12])}")
        tensor = self.tensors[name]
        if not tensor.is_floating_point():
            raise ModelError(f"{self.path}: {name!r} is {tensor.dtype}; floating-point weights are needed")
        if dims and tensor.ndim not in dims:
            raise ModelError(
                f"{self.path}: {name!r} has shape {tuple(tensor.shape)}; it must have {dims[0]} dimensions"
            )
        return tensor.detach().float()

    def may(self, name: str, *dims: int) -> Tensor | None:
        """Give a tensor, or None if it is not there."""
        return self.need(name, *dims) if name in self.tensors else None

    def refuse_others(self, layout: str, known: set[str]) -> None:
        """Refuse tensors that could mean something that is not done here."""
        others = sorted(set(self.tensors) - known)
        if others:
            raise ModelError(
                f"{self.path}: holds {', '.join(others[:6])}, which {layout} has no use for; "
                "wrap the model's own object with wrap_sae instead"
            )

    def chosen_k(self, stored: object) -> int:
        """Give k from the file or the caller; they must not differ."""
        if stored is not None and self.k is not None and float(str(stored)) != self.k:
            raise ModelError(f"{self.path}: was trained with k = {stored}, but k = {self.k} was asked for; leave k out")
        value = self.k if stored is None else stored
        if value is None or isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            raise ModelError(
                f"{self.path}: its settings give no whole k ({value!r}); give it, as in read_sae(path, k=32)"
            )
        return int(value)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; an empty one if there is no such file; raises ``ModelError`` if it is anything else."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not readable JSON ({error}); get it again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path}: is not a JSON object; get it again")
    return content
