"""Vision transformers of timm, from a folder in timm's hub format or a name that timm knows.

R. Wightman, PyTorch Image Models, https://github.com/huggingface/pytorch-image-models.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from superactivators.errors import ModelError
from superactivators.models.failures import calling, optional_package
from superactivators.models.families.pixel_processor import PixelProcessor
from superactivators.models.families.wrapped import WrappedConfig, WrappedVision, check_one_grid, filled, sketched
from superactivators.models.folders import find_folder
from superactivators.models.processors import with_settings
from superactivators.models.weights import check_weights, stored_bytes, weight_files

_CLASSES = ("VisionTransformer", "Eva", "Beit")
_WEIGHTS = ("model*.safetensors",)


def load_timm(
    name: str,
    *,
    weights: bool,
    revision: str | None,
    local_files_only: bool,
    processor: Mapping[str, Any],
) -> tuple[WrappedVision, PixelProcessor, int | None]:
    """Load a vision transformer of timm without its head.

    Parameters
    ----------
    name : str
        Folder with ``config.json`` and ``model.safetensors``, a name such as
        ``"vit_small_patch14_dinov2.lvd142m"``, or a hub id.
    weights : bool
        Whether weights are read; without them the model lies on the meta device.
    revision, local_files_only
        See `find_folder`.
    processor : mapping
        Settings that replace those of the model's data config.

    Returns
    -------
    model : WrappedVision
    processor : PixelProcessor
    stored : int or None
        Bytes of the weight files.

    Raises
    ------
    ModelError
        If timm is missing, the model is not one of its plain vision transformers, or its files are no use.
    """
    timm = optional_package("timm", "timm")
    folder = _folder(timm, name, weights, revision, local_files_only)
    settings = _settings(folder)
    data = dict(settings.get("pretrained_cfg") or settings)
    args = {**(settings.get("model_args") or {}), "num_classes": 0, "pretrained": False, "pretrained_cfg": data}
    make = partial(timm.create_model, str(settings["architecture"]), **args)
    shape = calling(lambda: sketched(make), folder, "architecture")
    check_class(shape, f"timm:{name}")
    if weights:
        check_weights(folder)
        inner = calling(lambda: filled(make, folder, weight_files(folder)), folder, "weights")
    else:
        inner = shape
    config = calling(lambda: timm.data.resolve_data_config(pretrained_cfg=data), folder, "data config")
    prepares = with_settings(timm_processor(config, f"timm:{name}"), processor, f"timm:{name}")
    return wrap_timm(inner, prepares, settings, f"timm:{name}"), prepares, stored_bytes(folder)


def wrap_timm(inner: Any, prepares: PixelProcessor, settings: Mapping[str, Any], name: str) -> WrappedVision:
    """Give a model of timm the shape of one of transformers, for the images that a processor makes."""
    size = (prepares.crop_size["height"], prepares.crop_size["width"])
    if size != tuple(inner.patch_embed.img_size or size):
        if not hasattr(inner, "set_input_size"):
            raise ModelError(f"{name}: takes images of {tuple(inner.patch_embed.img_size)} only, not {size}")
        inner.set_input_size(img_size=size)
    patch = tuple(int(side) for side in inner.patch_embed.patch_size)
    check_one_grid(size, patch, name)
    has_cls = getattr(inner, "cls_token", None) is not None
    config = WrappedConfig(
        "timm",
        hidden_size=int(inner.embed_dim),
        num_hidden_layers=len(inner.blocks),
        image_size=list(size),
        patch_size=list(patch),
        num_register_tokens=int(inner.num_prefix_tokens) - has_cls,
        architecture=str(settings.get("architecture", type(inner).__name__)),
        model_args=dict(settings.get("model_args") or {}),
    )
    return WrappedVision(inner, config, "blocks", _token_states)


def _token_states(inner: nn.Module, pixels: Tensor) -> Tensor:
    states: Tensor = inner.forward_features(pixels)  # type: ignore[operator]
    return states


def check_class(model: nn.Module, name: str) -> None:
    """Refuse what is no plain vision transformer, with ``ModelError``."""
    kinds = {kind.__name__ for kind in type(model).__mro__}
    if not kinds & set(_CLASSES):
        raise ModelError(
            f"{name}: {type(model).__name__} is none of timm's plain vision transformers ({', '.join(_CLASSES)}), "
            "whose tokens stay one grid of patches through all blocks"
        )


def timm_processor(config: Mapping[str, Any], name: str) -> PixelProcessor:
    """Make the processor of evaluation from timm's data config.

    Parameters
    ----------
    config : mapping
        With ``input_size``, ``crop_pct``, ``crop_mode``, ``interpolation``, ``mean`` and ``std``.
    name : str
        How errors call the model.

    Raises
    ------
    ModelError
        For a way of cropping that is not known here.
    """
    high, wide = (int(side) for side in config["input_size"][-2:])
    mode = config.get("crop_mode") or "center"
    edges = [math.floor(side / (config.get("crop_pct") or 0.875)) for side in (high, wide)]
    if mode == "squash":
        size = {"height": edges[0], "width": edges[1]}
    elif mode == "center" and high == wide:
        size = {"shortest_edge": edges[0]}
    else:
        raise ModelError(
            f"{name}: crops by {mode!r} to {high} x {wide}, which is not known here; set crop_mode to 'center' or "
            "'squash' in its config.json"
        )
    return PixelProcessor(
        size=size,
        crop_size={"height": high, "width": wide},
        image_mean=tuple(config["mean"]),
        image_std=tuple(config["std"]),
        resample=str(config["interpolation"]),
    )


def _folder(timm: Any, name: str, weights: bool, revision: str | None, local_files_only: bool) -> Path:
    if not Path(name).expanduser().is_dir() and "/" not in name:
        try:
            known = timm.models.get_pretrained_cfg(name)
        except RuntimeError:
            known = None
        if known is None or not known.hf_hub_id:
            raise ModelError(
                f"timm:{name}: timm knows no such model with weights on the hub; timm.list_pretrained() lists them"
            )
        hub = str(known.hf_hub_id)
        name = f"{hub}{known.architecture}.{known.tag}" if hub.endswith("/") else hub
    return find_folder(name, revision=revision, local_files_only=local_files_only, weights=_WEIGHTS if weights else ())


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        settings = None
    if not isinstance(settings, dict) or "architecture" not in settings:
        raise ModelError(f"{file}: is no config of timm, which names an architecture; save the model again with timm")
    return settings
