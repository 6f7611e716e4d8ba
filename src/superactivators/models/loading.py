"""Load a checkpoint: where it is, which tower of it is wanted, and one clear line for whatever is wrong with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import torch
from transformers import MODEL_MAPPING, AutoConfig, AutoImageProcessor, AutoTokenizer

from superactivators.data.dataset import Modality
from superactivators.errors import ModelError, allowed
from superactivators.models.bundled import PREFIX, Bundled, find_bundled
from superactivators.models.failures import calling, first_line, refuse_random
from superactivators.models.families.catalogue import image_family
from superactivators.models.families.open_clip import load_open_clip
from superactivators.models.families.timm import load_timm
from superactivators.models.folders import ALL_WEIGHTS, find_folder
from superactivators.models.placement import Spread
from superactivators.models.processors import with_settings
from superactivators.models.quiet import quiet_transformers
from superactivators.models.weights import check_weights, part_class, part_prefix, stored_bytes, stored_dtype

Tower: TypeAlias = Literal["vision", "language"]

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
_SOURCES = {"timm:": load_timm, "open_clip:": load_open_clip}


@final
@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded base model with what prepares its inputs.

    Attributes
    ----------
    modality : str
        ``"text"`` or ``"image"``.
    model : transformers model
        In evaluation mode, without heads, on the wanted device.
    preparer : transformers tokenizer or image processor
    tower : str
        ``"vision"`` or ``"language"``.
    tokenizer : transformers tokenizer or None
        Of a language model that reads images.
    stored_bytes : int or None
        Size of the weight files; None if they are not here.
    is_sketch : bool
        Whether the model has no weights.
    """

    modality: Modality
    model: Any
    preparer: Any
    tower: Tower
    tokenizer: Any = None
    stored_bytes: int | None = None
    is_sketch: bool = False


def torch_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Read a dtype given as a torch dtype or by name; None stays None; raises ``ModelError`` for others."""
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        return dtype
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ModelError(f"unknown dtype {name!r}; {allowed(name, _DTYPES)}")
    return _DTYPES[name]


@final
@dataclass(frozen=True, eq=False)
class Wanted:
    """What is asked of a checkpoint.

    Attributes
    ----------
    placement : torch.device or Spread
    dtype : torch.dtype or None
        None: as the checkpoint says.
    modality : str or None
        Which tower of a checkpoint with two; None: images if the folder has an image processor.
    tower : str or None
        Where images are looked at: ``"vision"`` (None means the same) or ``"language"``.
    processor : mapping or None
        Settings of the image processor that replace the checkpoint's.
    revision : str or None
        Branch, tag or commit of a hub id.
    local_files_only : bool
        Never ask the hub.
    weights : bool
        Whether weights are read; without them the model lies on the meta device and cannot run.
    """

    placement: torch.device | Spread = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype | None = None
    modality: str | None = None
    tower: str | None = None
    processor: Mapping[str, Any] | None = None
    revision: str | None = None
    local_files_only: bool = False
    weights: bool = True


def load_checkpoint(name: str | Path, wanted: Wanted) -> Checkpoint:
    """Load a base model from a folder, a hub id, or a name with a prefix such as ``"bundled:"`` or ``"timm:"``.

    Parameters
    ----------
    name : str or Path
        Only safetensors weights are read, and no code that comes with a checkpoint is run.
    wanted : Wanted

    Returns
    -------
    Checkpoint

    Raises
    ------
    ModelError
        If the checkpoint is missing, damaged, incomplete, stored as pickle, or of an unknown kind.
    """
    for prefix, load in _SOURCES.items():
        if isinstance(name, str) and name.startswith(prefix):
            _check_vision_only(name, wanted)
            model, prepares, size = load(
                name.removeprefix(prefix),
                weights=wanted.weights,
                revision=wanted.revision,
                local_files_only=wanted.local_files_only,
                processor=wanted.processor or {},
            )
            return _vision_checkpoint(model, prepares, wanted, size)
    if isinstance(name, str) and name.startswith(PREFIX):
        found = find_bundled(name)
        if not isinstance(found, Bundled):
            _check_vision_only(name, wanted)
            model, prepares, size = found(weights=wanted.weights)
            prepares = with_settings(prepares, wanted.processor, name)
            return _vision_checkpoint(model, prepares, wanted, size)
        folder = found.locate()
    else:
        folder = find_folder(
            name,
            revision=wanted.revision,
            local_files_only=wanted.local_files_only,
            weights=ALL_WEIGHTS if wanted.weights else (),
        )
    config = _load_config(folder)
    kind, part, chosen, of_class = _choose_tower(folder, config, wanted.modality, wanted.tower)
    model = _load_model(folder, chosen, of_class, wanted, part=chosen is not config).eval()
    if wanted.weights and isinstance(wanted.placement, torch.device):
        model = model.to(wanted.placement)
    needs_tokenizer = part == "language"
    if needs_tokenizer and not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise ModelError(
            f"{folder}: no tokenizer here (tokenizer.json is missing); save the model's tokenizer into the folder"
        )
    if kind == "image" and not any((folder / file).is_file() for file in _PROCESSOR_FILES):
        raise ModelError(
            f"{folder}: no preprocessor_config.json, so it is not known how images are prepared; "
            "save the model's image processor into the folder"
        )
    tokenizer = None
    if needs_tokenizer:
        tokenizer = calling(lambda: AutoTokenizer.from_pretrained(folder), folder, "tokenizer")
    stored = stored_bytes(folder)
    if kind == "text":
        return Checkpoint(kind, model, tokenizer, part, stored_bytes=stored, is_sketch=not wanted.weights)
    prepares = calling(lambda: AutoImageProcessor.from_pretrained(folder), folder, "image processor")
    prepares = with_settings(prepares, wanted.processor, str(folder))
    return Checkpoint(kind, model, prepares, part, tokenizer, stored, not wanted.weights)


def _check_vision_only(name: str, wanted: Wanted) -> None:
    """Refuse what makes no sense for a source of vision models, with ``ModelError``."""
    _check_asked(wanted.modality, "image", name)
    if wanted.tower not in (None, "vision"):
        raise ModelError(f"{name}: it has no {wanted.tower} tower; leave tower out")
    if isinstance(wanted.placement, Spread):
        raise ModelError(f"{name}: device='auto' spreads models of transformers only; give one device")


def _vision_checkpoint(model: Any, processor: Any, wanted: Wanted, stored: int | None) -> Checkpoint:
    """Put a vision model of another source where it is wanted."""
    if wanted.weights:
        model = model.to(device=wanted.placement, dtype=wanted.dtype)
    elif wanted.dtype is not None:
        model = model.to(dtype=wanted.dtype)
    return Checkpoint("image", model.eval(), processor, "vision", None, stored, not wanted.weights)


def _load_config(folder: Path) -> Any:
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"{folder}: no config.json; give the folder of a model saved by save_pretrained")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: is not readable JSON ({first_line(error)}); save the model again") from None
    if not isinstance(settings, dict) or "model_type" not in settings:
        raise ModelError(f"{file}: names no model_type; save the model again with transformers")
    if "auto_map" in settings:
        settings.pop("auto_map")  # code that comes with a checkpoint is never run
    kind = settings["model_type"]
    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = first_line(error)
        if "model type" in reason or "model_type" in reason or "trust_remote_code" in reason:
            reason = f"unknown model type {kind!r}"
        raise ModelError(
            f"{file}: {reason}; only architectures of the installed transformers are read, "
            "and code that comes with a checkpoint is never run"
        ) from None


def _check_asked(asked: str | None, have: Modality, name: str) -> None:
    if asked not in (None, have):
        raise ModelError(f"{name} reads {have}s, not {asked}s; choose a model of {asked}s, or leave modality out")


def _base_class(config: Any) -> Any:
    """Class of the base model for a config; None if transformers has none for it."""
    return MODEL_MAPPING.get(type(config), None)


def _choose_tower(folder: Path, config: Any, asked: str | None, tower: str | None) -> tuple[Modality, Tower, Any, Any]:
    """Decide between text and images, and which part is wanted; gives the config and the class of that part too."""
    if asked not in (None, "text", "image"):
        raise ModelError(f"unknown modality {asked!r}; {allowed(asked, ('text', 'image'))}")
    if tower not in (None, "vision", "language"):
        raise ModelError(f"unknown tower {tower!r}; {allowed(tower, ('vision', 'language'))}")
    whole, kind = _base_class(config), _base_class(config)
    main = None if whole is None else str(whole.main_input_name)
    if {"text_config", "vision_config"} <= set(getattr(config, "sub_configs", {}) or {}):
        has_processor = any((folder / file).is_file() for file in _PROCESSOR_FILES)
        wanted = asked or ("image" if has_processor else "text")
        if wanted == "text" and tower == "vision":
            raise ModelError(f"{folder}: texts are read by its language model; leave tower out")
        if wanted == "image" and tower == "language":
            image_family(config, language=True)
            return "image", "language", config, whole
        part = getattr(config, "vision_config" if wanted == "image" else "text_config")
        kind = _base_class(part) or (None if whole is None else part_class(whole, config, part))
        if kind is None:
            raise ModelError(
                f"{folder}: the {wanted} tower of model type {config.model_type!r} cannot be loaded by itself; "
                "save that tower to a folder of its own"
            )
        config, main = part, "pixel_values" if wanted == "image" else "input_ids"
    if main is None or main not in ("input_ids", "pixel_values"):
        raise ModelError(
            f"{folder}: model type {config.model_type!r} reads {main or 'nothing known'}; "
            "only models of token ids or of pixels can be used"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{folder}: model type {config.model_type!r} is an encoder-decoder; only encoders and decoders can be used"
        )
    modality: Modality = "text" if main == "input_ids" else "image"
    _check_asked(asked, modality, str(folder))
    own: Tower = "language" if modality == "text" else "vision"
    if tower not in (None, own):
        raise ModelError(f"{folder}: it has no {tower} tower; leave tower out")
    return modality, own, config, kind


def _load_model(folder: Path, config: Any, kind: Any, wanted: Wanted, *, part: bool) -> Any:
    options: dict[str, Any] = {}
    if "add_pooling_layer" in signature(kind.__init__).parameters:
        options["add_pooling_layer"] = False  # never read, and often not in the file
    if not wanted.weights:
        return calling(lambda: _sketched(folder, config, kind, wanted.dtype, options), folder, "model")
    check_weights(folder)
    if part:
        prefix = calling(lambda: part_prefix(folder, kind, config), folder, "weights")
        if prefix:
            options["key_mapping"] = {f"^{re.escape(prefix)}": ""}
    if isinstance(wanted.placement, Spread):
        options |= wanted.placement.options()
    options["dtype"] = "auto" if wanted.dtype is None else wanted.dtype
    model, report = calling(
        lambda: kind.from_pretrained(
            folder, config=config, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        ),
        folder,
        "weights",
    )
    missing = sorted(str(key) for key in report.get("missing_keys", ()))
    damaged = sorted(str(key) for key in report.get("mismatched_keys", ())) + list(report.get("error_msgs", ()))
    refuse_random(folder, kind.__name__, missing or damaged, len(missing) + len(damaged))
    return model


def _sketched(folder: Path, config: Any, kind: Any, dtype: torch.dtype | None, options: dict[str, Any]) -> Any:
    """Make the model without its weights; of those, at most a header is read."""
    config = deepcopy(config)
    chosen = dtype or getattr(config, "dtype", None) or stored_dtype(folder) or torch.float32
    with torch.device("meta"):
        return kind._from_config(config, dtype=chosen, **options)
