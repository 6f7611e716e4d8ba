"""Which family a config belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from superactivators.errors import ModelError
from superactivators.models.families.family import ImageFamily
from superactivators.models.families.gemma3 import GEMMA3
from superactivators.models.families.llava import LLAVA, MISTRAL3
from superactivators.models.families.mllama import mllama_language, mllama_vision
from superactivators.models.families.naflex import NAFLEX
from superactivators.models.families.packed import PACKED
from superactivators.models.families.pixel_grid import PIXEL_GRID
from superactivators.models.families.qwen_vl import QWEN_LANGUAGE, QWEN_VISION
from superactivators.models.families.wrapped import WRAPPED
from superactivators.registry import Registry

Family: TypeAlias = ImageFamily | Callable[[Any], ImageFamily]
"""A family, or a function of the config that makes it or raises ``ModelError``."""

vision_families: Registry[Family] = Registry("family of vision models", "superactivators.vision_families")
"""Vision towers by the ``model_type`` of their config; those not named are one grid of pixels."""

vision_families.register("siglip2_vision_model")(NAFLEX)
vision_families.register("pixtral")(PACKED)

for _version in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
    vision_families.register(f"{_version}_vision")(QWEN_VISION)
vision_families.register("mllama_vision_model")(mllama_vision)

for _library in ("timm", "open_clip"):
    vision_families.register(_library)(WRAPPED)

language_families: Registry[Family] = Registry("family of models", "superactivators.language_families")
"""Checkpoints whose language model reads image tokens, by the ``model_type`` of the whole config."""

for _version in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
    language_families.register(_version)(QWEN_LANGUAGE)
language_families.register("gemma3")(GEMMA3)
language_families.register("llava")(LLAVA)
language_families.register("mistral3")(MISTRAL3)
language_families.register("mllama")(mllama_language)


def image_family(config: Any, *, language: bool) -> ImageFamily:
    """Find the family of a model that reads images.

    Parameters
    ----------
    config : transformers config
        Of the vision tower, or of the whole checkpoint.
    language : bool
        Whether the states of the language model are wanted.

    Raises
    ------
    ModelError
        If it is not known how the language model reads images, or it has no image tokens.
    """
    kind = config.model_type
    if not language:
        return _made(vision_families[kind], config) if kind in vision_families else PIXEL_GRID
    if kind not in language_families:
        raise ModelError(
            f"model type {kind!r}: it is not known where its language model has image tokens; known are "
            f"{', '.join(language_families)}; use tower='vision' for the states of its vision tower"
        )
    return _made(language_families[kind], config)


def _made(family: Family, config: Any) -> ImageFamily:
    return family if isinstance(family, ImageFamily) else family(config)
