"""Vision transformers of other libraries in the shape that transformers gives its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, final

import torch
from safetensors import safe_open
from torch import Tensor, nn

from superactivators.errors import ModelError
from superactivators.models.failures import refuse_random
from superactivators.models.families.family import ImageFamily
from superactivators.models.families.pixel_grid import pixel_grid


@final
class WrappedConfig:
    """What a config of transformers says of a vision transformer.

    Parameters
    ----------
    model_type : str
        Library from which the model comes.
    settings
        ``hidden_size``, ``num_hidden_layers``, ``image_size``, ``patch_size``, ``num_register_tokens`` and whatever
        else decides its states.
    """

    def __init__(self, model_type: str, **settings: Any) -> None:
        self.model_type = model_type
        self._settings = settings

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_settings"][name]
        except KeyError:
            raise AttributeError(name) from None

    def to_dict(self) -> dict[str, Any]:
        """Give the settings as JSON values."""
        return {"model_type": self.model_type, **self._settings}


class WrappedVision(nn.Module):
    """A vision transformer whose output has ``last_hidden_state``.

    Parameters
    ----------
    inner : nn.Module
        The model of the other library.
    config : WrappedConfig
    blocks_path : str
        Where its blocks are, seen from ``inner``.
    states : function of (inner, pixels)
        States of all tokens before they are pooled, of shape (batch, sequence, d), after the last norm.
    """

    def __init__(
        self, inner: nn.Module, config: WrappedConfig, blocks_path: str, states: Callable[[nn.Module, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.inner = inner
        self.config = config
        self.blocks_path = f"inner.{blocks_path}"
        self._states = states

    def forward(self, pixel_values: Tensor) -> Any:
        """Run the model on pixels of shape (batch, channels, height, width)."""
        return SimpleNamespace(last_hidden_state=self._states(self.inner, pixel_values))


def _blocks(model: nn.Module, config: Any) -> tuple[str, Sequence[nn.Module]]:
    path = str(model.blocks_path)
    return path, list(model.get_submodule(path).children())


WRAPPED = ImageFamily(pixel_grid, blocks=_blocks)
"""One grid of patches after CLS and registers, blocks where the wrapper says."""


def sketched(make: Callable[[], nn.Module]) -> nn.Module:
    """Make a module on the meta device."""
    with torch.device("meta"):
        return make()


def filled(make: Callable[[], nn.Module], folder: Path, files: Iterable[Path], prefix: str = "") -> nn.Module:
    """Make a module with the weights of safetensors files, in the dtype in which they are stored.

    Parameters
    ----------
    make : function
        Makes the module; on the meta device, so that weights are held only once.
    folder : Path
        How errors call the checkpoint.
    files : iterable of Path
    prefix : str
        What the module's weights begin with in the files; others are not read.

    Raises
    ------
    ModelError
        If a weight is missing or of another shape.
    """
    module = sketched(make)
    wanted = module.state_dict()
    found: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            names = [name for name in opened.keys() if name.removeprefix(prefix) in wanted]  # noqa: SIM118
            found |= {name.removeprefix(prefix): opened.get_tensor(name) for name in names if name.startswith(prefix)}
    wrong = sorted(name for name, value in wanted.items() if name not in found or found[name].shape != value.shape)
    refuse_random(folder, type(module).__name__, wrong, len(wrong))
    module.load_state_dict(found, assign=True)
    if any(value.device.type == "meta" for value in module.buffers()):
        # tables that are computed and not stored, such as rotary angles, are taken from a module made in full
        donor = make()
        for name, value in donor.named_buffers():
            path, _, leaf = name.rpartition(".")
            owner = module.get_submodule(path)
            if getattr(owner, leaf).device.type == "meta":
                setattr(owner, leaf, value)
    return module.requires_grad_(False)


def check_one_grid(image: Sequence[int], patch: Sequence[int], name: str) -> None:
    """Refuse images that are not cut into whole patches, with ``ModelError``."""
    if any(side % step for side, step in zip(image, patch, strict=True)):
        raise ModelError(f"{name}: images of {tuple(image)} are not cut into whole patches of {tuple(patch)}")
