"""Vision towers of open_clip, from a folder in its hub format or a name that open_clip knows.

G. Ilharco et al., OpenCLIP, 2021, doi:10.5281/zenodo.5143773.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from superactivators.errors import ModelError, allowed
from superactivators.models.failures import calling, optional_package
from superactivators.models.families.pixel_grid import height_width
from superactivators.models.families.pixel_processor import PixelProcessor
from superactivators.models.families.timm import check_class, wrap_timm
from superactivators.models.families.wrapped import WrappedConfig, WrappedVision, check_one_grid, filled, sketched
from superactivators.models.folders import find_folder
from superactivators.models.processors import with_settings

_CONFIG = "open_clip_config.json"
_WEIGHTS = "open_clip_model.safetensors"
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # open_clip's defaults


def load_open_clip(
    name: str,
    *,
    weights: bool,
    revision: str | None,
    local_files_only: bool,
    processor: Mapping[str, Any],
) -> tuple[WrappedVision, PixelProcessor, int | None]:
    """Load the vision tower of an open_clip model; nothing of its text tower is read.

    Parameters
    ----------
    name : str
        Folder with ``open_clip_config.json`` and ``open_clip_model.safetensors``, a name such as
        ``"ViT-B-32/laion2b_s34b_b79k"``, or a hub id.
    weights : bool
        Whether weights are read; without them the model lies on the meta device.
    revision, local_files_only
        See `find_folder`.
    processor : mapping
        Settings that replace those of the model's preprocessing.

    Returns
    -------
    model : WrappedVision
    processor : PixelProcessor
    stored : int or None
        Bytes of the weight file, both towers.

    Raises
    ------
    ModelError
        If open_clip is missing, the tower is no plain vision transformer, or its files are no use.
    """
    library = optional_package("open_clip", "open_clip_torch")
    folder = _folder(library, name, weights, revision, local_files_only)
    model, preprocess = _settings(folder)
    vision = {**model["vision_cfg"], "timm_model_pretrained": False}
    builder = optional_package("open_clip.model", "open_clip_torch")._build_vision_tower
    make = partial(builder, int(model["embed_dim"]), vision, bool(model.get("quick_gelu", False)))
    shape = calling(lambda: sketched(make), folder, "architecture")
    trunk = vision.get("timm_model_name") is not None
    if trunk:
        check_class(shape.trunk, f"open_clip:{name}")
    elif type(shape).__name__ != "VisionTransformer" or not shape.transformer.batch_first:
        raise ModelError(
            f"open_clip:{name}: its vision tower {type(shape).__name__} is no vision transformer that runs with the "
            "batch first; update open_clip_torch, or choose a ViT"
        )
    file = _weight_file(folder) if weights else folder / _WEIGHTS
    tower = calling(lambda: filled(make, folder, [file], "visual."), folder, "weights") if weights else shape
    size = height_width(vision.get("image_size", 224))
    prepares = with_settings(_processor(preprocess, size, f"open_clip:{name}"), processor, f"open_clip:{name}")
    stored = file.stat().st_size if file.is_file() else None
    if trunk:
        settings = {"architecture": vision["timm_model_name"], "model_args": {}}
        return wrap_timm(tower.trunk, prepares, settings, f"open_clip:{name}"), prepares, stored
    return _wrap(tower, vision, prepares, f"open_clip:{name}"), prepares, stored


def _wrap(tower: Any, vision: Mapping[str, Any], prepares: PixelProcessor, name: str) -> WrappedVision:
    size, patch = height_width(tower.image_size), height_width(tower.patch_size)
    asked = (prepares.crop_size["height"], prepares.crop_size["width"])
    if asked != size:
        raise ModelError(f"{name}: takes images of {size[0]} x {size[1]} only, not {asked[0]} x {asked[1]}")
    check_one_grid(size, patch, name)
    config = WrappedConfig(
        "open_clip",
        hidden_size=int(tower.transformer.width),
        num_hidden_layers=len(tower.transformer.resblocks),
        image_size=list(size),
        patch_size=list(patch),
        num_register_tokens=0,
        vision_cfg=dict(vision),
    )
    return WrappedVision(tower, config, "transformer.resblocks", _token_states)


def _token_states(tower: Any, pixels: Tensor) -> Tensor:
    """States of all tokens before pooling: the tower pools inside, so they are taken where its blocks end."""
    found: list[Tensor] = []
    handle = tower.transformer.register_forward_hook(lambda module, given, output: found.append(output))
    try:
        tower(pixels)
    finally:
        handle.remove()
    pools_first = tower.attn_pool is not None or tower.final_ln_after_pool
    norm: nn.Module = nn.Identity() if pools_first else tower.ln_post
    states: Tensor = norm(found[0])
    return states


def _processor(preprocess: Mapping[str, Any], size: tuple[int, int], name: str) -> PixelProcessor:
    mode = preprocess.get("resize_mode") or "shortest"
    high, wide = size
    if mode == "squash":
        resize = {"height": high, "width": wide}
    elif mode == "shortest" and high == wide:
        resize = {"shortest_edge": high}
    else:
        raise ModelError(f"{name}: resizes by {mode!r} to {high} x {wide}, which is not known here")
    return PixelProcessor(
        size=resize,
        crop_size={"height": high, "width": wide},
        image_mean=tuple(preprocess.get("mean") or _MEAN),
        image_std=tuple(preprocess.get("std") or _STD),
        resample=str(preprocess.get("interpolation") or "bicubic"),
    )


def _folder(library: Any, name: str, weights: bool, revision: str | None, local_files_only: bool) -> Path:
    if not Path(name).expanduser().is_dir():
        kind, _, tag = name.partition("/")
        known = library.list_models()
        if kind in known:
            hub = str(library.pretrained.get_pretrained_cfg(kind, tag).get("hf_hub") or "")
            if not hub:
                tags = library.list_pretrained_tags_by_model(kind)
                raise ModelError(f"open_clip:{name}: has no weights {tag!r} on the hub; {allowed(tag, tags)}")
            name = "/".join(hub.split("/")[:2])
        elif "/" not in name:
            raise ModelError(f"open_clip:{name}: is neither a folder nor a model of open_clip; {allowed(kind, known)}")
    return find_folder(
        name, revision=revision, local_files_only=local_files_only, weights=(_WEIGHTS,) if weights else ()
    )


def _weight_file(folder: Path) -> Path:
    file = folder / _WEIGHTS
    if not file.is_file():
        raise ModelError(
            f"{folder}: no {_WEIGHTS}; pickled weights can run code when they are opened and are not read, convert "
            "them with safetensors where you trust them"
        )
    return file


def _settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    file = folder / _CONFIG
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        model = settings["model_cfg"]
        if not isinstance(model["vision_cfg"], dict) or not isinstance(model["embed_dim"], int):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(f"{file}: is no config of open_clip (model_cfg with vision_cfg and embed_dim)") from None
    return model, dict(settings.get("preprocess_cfg") or {})
