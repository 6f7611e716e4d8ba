"""Gemma 3: patches of one square picture, averaged to a smaller square of image tokens that see each other."""

from __future__ import annotations

import math

from superactivators.errors import ModelError
from superactivators.models.families.added_tokens import added_tokens
from superactivators.models.families.family import ImageFamily, ImageParts
from superactivators.models.families.fixed_square import fixed_square
from superactivators.models.families.image_tokens import ImageTokens, language_blocks, language_width


def gemma3(parts: ImageParts) -> ImageTokens:
    """Read how many image tokens a picture has, and what stands around them.

    Raises
    ------
    ModelError
        If crops of the picture are added (pan and scan), or patches cannot be averaged to whole tokens.
    """
    config, name = parts.model.config, parts.name
    if getattr(parts.processor, "do_pan_and_scan", None):
        raise ModelError(
            f"{name}: its image processor adds crops of the picture (do_pan_and_scan), so one place would have several "
            "image tokens; set processor={'do_pan_and_scan': False}"
        )
    vision = fixed_square(parts, config.vision_config)
    side, patches = math.isqrt(config.mm_tokens_per_image), config.vision_config.image_size // vision.cell[0]
    if side**2 != config.mm_tokens_per_image or patches % side:
        raise ModelError(
            f"{name}: its config averages {patches} x {patches} patches to {config.mm_tokens_per_image} image tokens, "
            "which are no square of whole blocks; save the model again"
        )
    begin, image, end = added_tokens(parts, config.boi_token_index, config.image_token_index, config.eoi_token_index)
    return ImageTokens(
        vision,
        merge=(patches // side, patches // side),
        tokenizer=parts.tokenizer,
        text=lambda rows, columns: f"\n\n{begin}{image * (rows * columns)}{end}\n\n",
        image_token_id=config.image_token_index,
        marks="token_type_ids",
        name=name,
    )


GEMMA3 = ImageFamily(gemma3, language_blocks, language_width)
"""Image tokens inside Gemma 3 (Gemma Team, 2025, arXiv:2503.19786)."""
