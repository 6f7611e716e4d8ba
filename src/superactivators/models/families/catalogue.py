"""Which family a config belongs to."""

from __future__ import annotations

from typing import Any

from superactivators.errors import ModelError
from superactivators.models.families.family import ImageFamily
from superactivators.models.families.naflex import NAFLEX
from superactivators.models.families.packed import PACKED
from superactivators.models.families.pixel_grid import PIXEL_GRID
from superactivators.registry import Registry

vision_families: Registry[ImageFamily] = Registry("family of vision models", "superactivators.vision_families")
"""Vision towers by the ``model_type`` of their config; those not named are one grid of pixels."""

vision_families.register("siglip2_vision_model")(NAFLEX)
vision_families.register("pixtral")(PACKED)

language_families: Registry[ImageFamily] = Registry("family of models", "superactivators.language_families")
"""Checkpoints whose language model reads image tokens, by the ``model_type`` of the whole config."""


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
        If it is not known how the language model reads images.
    """
    kind = config.model_type
    if not language:
        named = kind in vision_families
        return vision_families[kind] if named else PIXEL_GRID
    if kind not in language_families:
        raise ModelError(
            f"model type {kind!r}: it is not known where its language model has image tokens; known are "
            f"{', '.join(language_families)}; use tower='vision' for the states of its vision tower"
        )
    return language_families[kind]
