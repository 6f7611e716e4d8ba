"""Load a checkpoint: where it is, which tower of it is wanted, and one clear line for whatever is wrong with it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import torch
from huggingface_hub import snapshot_download
from transformers import MODEL_MAPPING, AutoConfig, AutoImageProcessor, AutoTokenizer

from superactivators.data.dataset import Modality
from superactivators.errors import ModelError, allowed
from superactivators.models.bundled import PREFIX, Bundled, find_bundled
from superactivators.models.families.catalogue import image_family
from superactivators.models.quiet import quiet_transformers
from superactivators.models.weights import part_class, part_prefix

Tower: TypeAlias = Literal["vision", "language"]

_DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}
_WANTED_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
_UNWANTED_FILES = ("*/*", "consolidated*", "*.fp16.safetensors", "*.bf16.safetensors", "*.onnx*")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


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
    """

    modality: Modality
    model: Any
    preparer: Any
    tower: Tower
    tokenizer: Any = None


def torch_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Read a dtype given as a torch dtype or by name; None stays None; raises ``ModelError`` for others."""
    if dtype is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        return dtype
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ModelError(f"unknown dtype {name!r}; {allowed(name, _DTYPES)}")
    return _DTYPES[name]


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


def load_checkpoint(
    name: str | Path,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    modality: str | None,
    tower: str | None,
    processor: Mapping[str, Any] | None,
    revision: str | None,
    local_files_only: bool,
) -> Checkpoint:
    """Load a base model from a folder, a hub id or ``"bundled:NAME"``.

    Parameters
    ----------
    name : str or Path
        Only safetensors weights are read, and no code that comes with a checkpoint is run.
    device : torch.device
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

    Returns
    -------
    Checkpoint

    Raises
    ------
    ModelError
        If the checkpoint is missing, damaged, incomplete, stored as pickle, or of an unknown kind.
    """
    if isinstance(name, str) and name.startswith(PREFIX):
        found = find_bundled(name)
        if not isinstance(found, Bundled):
            model, prepares = found()
            _check_asked(modality, "image", str(name))
            return Checkpoint("image", model.to(device=device, dtype=dtype), prepares, "vision")
        folder = found.locate()
    else:
        folder = find_folder(name, revision=revision, local_files_only=local_files_only)
    config = _load_config(folder)
    kind, part, chosen, of_class = _choose_tower(folder, config, modality, tower)
    model = _load_model(folder, chosen, of_class, dtype, part=chosen is not config).eval().to(device)
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
        tokenizer = _calling(lambda: AutoTokenizer.from_pretrained(folder), folder, "tokenizer")
    if kind == "text":
        return Checkpoint(kind, model, tokenizer, part)
    prepares = _calling(lambda: AutoImageProcessor.from_pretrained(folder), folder, "image processor")
    if processor:
        _check_settings(prepares, processor, folder)
        # once more from what was read: given together with the file's, older names in it would win (max_pixels, size)
        settings = {**prepares.to_dict(), **processor}
        prepares = _calling(lambda: type(prepares).from_dict(settings), folder, "image processor")
    return Checkpoint(kind, model, prepares, part, tokenizer)


def find_folder(name: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Find the folder of a checkpoint: the path itself, or the local copy of a hub id, fetched if need be.

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
            # a copy is enough if there is one; only then is the network asked
            try:
                return _fetch(text, revision, local_files_only=True)
            except OSError:
                if local_files_only or os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
                    raise
                return _fetch(text, revision, local_files_only=False)
    except Exception as error:  # the hub client raises many kinds; all mean the same to the user
        reason = "not looked for" if local_files_only else f"not to be had from the hub ({_first_line(error)})"
        raise ModelError(
            f"model {text!r} is neither a folder here nor in the local cache, and {reason}; check the name, or give "
            "the folder of a saved model or one of the bundled models (bundled:minilm, bundled:dinov2-small)"
        ) from None


def _fetch(name: str, revision: str | None, *, local_files_only: bool) -> Path:
    return Path(
        snapshot_download(
            name,
            revision=revision,
            local_files_only=local_files_only,
            allow_patterns=list(_WANTED_FILES),
            ignore_patterns=list(_UNWANTED_FILES),
        )
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(error).__name__


def _calling(load: Callable[[], Any], folder: Path, what: str) -> Any:
    """Run a loader of transformers; whatever it raises becomes one line."""
    try:
        with quiet_transformers():
            return load()
    except Exception as error:  # transformers, tokenizers, safetensors and json raise many kinds
        raise ModelError(
            f"{folder}: the {what} cannot be loaded ({_first_line(error)}); save the model again"
        ) from None


def _load_config(folder: Path) -> Any:
    file = folder / "config.json"
    if not file.is_file():
        raise ModelError(f"{folder}: no config.json; give the folder of a model saved by save_pretrained")
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: is not readable JSON ({_first_line(error)}); save the model again") from None
    if not isinstance(settings, dict) or "model_type" not in settings:
        raise ModelError(f"{file}: names no model_type; save the model again with transformers")
    if "auto_map" in settings:
        settings.pop("auto_map")  # code that comes with a checkpoint is never run
    kind = settings["model_type"]
    try:
        with quiet_transformers():
            return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        reason = _first_line(error)
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


def _check_settings(processor: Any, given: Mapping[str, Any], folder: Path) -> None:
    known = [name for name in processor.to_dict() if not name.startswith("_")]
    for name in given:
        if name not in known:
            raise ModelError(f"{folder}: its image processor has no setting {name!r}; {allowed(name, known)}")


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


def _load_model(folder: Path, config: Any, kind: Any, dtype: torch.dtype | None, *, part: bool) -> Any:
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for path in folder.glob(pattern))
        if pickled:
            raise ModelError(
                f"{folder}: the weights are a pickle ({pickled[0]}), which can run code when it is opened, and are not "
                "read; convert them to safetensors where you trust them: save_pretrained() writes safetensors"
            )
        raise ModelError(f"{folder}: no weights; a file model.safetensors is needed")
    options: dict[str, Any] = {"dtype": "auto" if dtype is None else dtype}
    if "add_pooling_layer" in signature(kind.__init__).parameters:
        options["add_pooling_layer"] = False  # never read, and often not in the file
    if part:
        prefix = _calling(lambda: part_prefix(folder, kind, config), folder, "weights")
        if prefix:
            options["key_mapping"] = {f"^{re.escape(prefix)}": ""}
    model, report = _calling(
        lambda: kind.from_pretrained(
            folder, config=config, use_safetensors=True, local_files_only=True, output_loading_info=True, **options
        ),
        folder,
        "weights",
    )
    missing = sorted(str(key) for key in report.get("missing_keys", ()))
    damaged = sorted(str(key) for key in report.get("mismatched_keys", ())) + list(report.get("error_msgs", ()))
    if missing or damaged:
        names = ", ".join((missing or damaged)[:4])
        raise ModelError(
            f"{folder}: {len(missing) + len(damaged)} weights of {kind.__name__} are missing or of another shape "
            f"({names}{', ...' if len(missing) + len(damaged) > 4 else ''}); they would be random numbers, "
            "so the model is not used"
        )
    return model
