"""Where a model's weights lie: on one device, or spread over all there are, with what does not fit kept elsewhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from superactivators.errors import ModelError

AUTO = "auto"


@final
@dataclass(frozen=True, eq=False)
class Spread:
    """Over all devices, the fastest first; what does not fit goes to the host's memory, and then to disk.

    Attributes
    ----------
    max_memory : mapping of device to bytes, or None
        Most that each device may take, such as ``{0: "20GiB", "cpu": "60GiB"}``; None: what is free.
    offload_folder : str or None
        Where weights go that fit nowhere else.
    """

    max_memory: Mapping[int | str, int | str] | None = None
    offload_folder: str | None = None

    def options(self) -> dict[str, Any]:
        """Give the arguments of ``from_pretrained`` in transformers."""
        given: dict[str, Any] = {"device_map": AUTO}
        if self.max_memory is not None:
            given["max_memory"] = {
                int(place) if str(place).isdigit() else place: size for place, size in self.max_memory.items()
            }
        if self.offload_folder is not None:
            given["offload_folder"] = self.offload_folder
        return given


def placement_of(
    device: str | torch.device | None,
    max_memory: Mapping[int | str, int | str] | None,
    offload_folder: str | Path | None,
    *,
    to_run: bool = True,
) -> torch.device | Spread:
    """Read where a model is to lie.

    Parameters
    ----------
    device : str, torch.device or None
        ``"auto"``, a device, or None for the GPU if there is one, else the CPU.
    max_memory, offload_folder
        See `Spread`; only with ``"auto"``.
    to_run : bool
        Whether the device must be usable here; a plan can be made without it.

    Raises
    ------
    ModelError
        If a device is not available, or accelerate is missing.
    """
    if device != AUTO:
        if max_memory is not None or offload_folder is not None:
            raise ModelError(f"max_memory and offload_folder need device='auto', but device={device!r} was given")
        return torch_device(device) if to_run else torch.device("meta")
    if importlib.util.find_spec("accelerate") is None:
        raise ModelError("device='auto' needs accelerate, which is not installed; run: pip install accelerate")
    return Spread(max_memory, None if offload_folder is None else str(offload_folder))


def torch_device(device: str | torch.device | None) -> torch.device:
    """Read a device; None is the GPU if there is one, else the CPU; raises ``ModelError`` if it is not available."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        if chosen.type == "meta":
            raise NotImplementedError("it holds no numbers")
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"device {str(device)!r} cannot be used here ({str(error).splitlines()[0]}); use 'cpu', or 'cuda' where "
            "there is a GPU and a torch built for it"
        ) from None
    return chosen


def input_device(model: nn.Module) -> torch.device:
    """Where a model's inputs go: with its only device, or the first of those over which it is spread."""
    spread = getattr(model, "hf_device_map", None)
    if not spread:
        return torch.device(next(model.parameters()).device)
    places = [place for place in spread.values() if str(place) not in ("cpu", "disk", "meta")]
    if not places:
        return torch.device("cpu")
    return torch.device("cuda", places[0]) if isinstance(places[0], int) else torch.device(places[0])


def synchronise(devices: set[torch.device]) -> None:
    """Wait until copies from these devices have arrived."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def stored_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield a model's parameters and buffers in order of their names; those kept elsewhere are fetched one by one."""
    for name, tensor in sorted(model.state_dict().items()):
        if tensor.device.type != "meta":
            yield name, tensor
            continue
        path, _, leaf = name.rpartition(".")
        kept = getattr(getattr(model.get_submodule(path), "_hf_hook", None), "weights_map", None)
        if kept is None:
            raise ModelError(f"{name}: this weight was not loaded; load the model with from_pretrained")
        yield name, kept[leaf]
