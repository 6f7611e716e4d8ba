"""LLaVA and Mistral 3: patches of a vision tower, projected to image tokens one by one or in blocks."""

from __future__ import annotations

from typing import Any

from superactivators.errors import ModelError
from superactivators.models.families.added_tokens import added_tokens
from superactivators.models.families.family import ImageFamily, ImageParts, PatchScheme
from superactivators.models.families.fixed_square import fixed_square
from superactivators.models.families.image_tokens import ImageTokens, language_blocks, language_width
from superactivators.models.families.packed import Packed
from superactivators.models.families.pixel_grid import height_width
from superactivators.models.families.squashed import Squashed

_LINE_END, _PICTURE_END = "[IMG_BREAK]", "[IMG_END]"


def llava(parts: ImageParts) -> ImageTokens:
    """Read which vision tower there is: Pixtral's, or one of a fixed size.

    Raises
    ------
    ModelError
        If there is a CLS state among the image tokens, or a patch is missing among them.
    """
    config = parts.model.config
    if config.vision_config.model_type == "pixtral":
        return _lines(parts, merge=1)
    drops_first = config.vision_feature_select_strategy == "default"
    if drops_first != _has_cls(parts.model):
        raise ModelError(
            f"{parts.name}: its config says vision_feature_select_strategy={config.vision_feature_select_strategy!r}, "
            f"which {'leaves out the first patch' if drops_first else 'keeps CLS'}; only models whose image tokens are "
            "exactly the patches can be used"
        )
    [image] = added_tokens(parts, config.image_token_index)
    return ImageTokens(
        fixed_square(parts, config.vision_config),
        merge=(1, 1),
        tokenizer=parts.tokenizer,
        text=lambda rows, columns: image * (rows * columns),
        image_token_id=config.image_token_index,
        name=parts.name,
    )


def mistral3(parts: ImageParts) -> ImageTokens:
    """Read how many patches are merged into one image token."""
    return _lines(parts, merge=int(parts.model.config.spatial_merge_size))


def _lines(parts: ImageParts, *, merge: int) -> ImageTokens:
    """Image tokens line by line, with a token after each line and another one after the last."""
    config, tokenizer = parts.model.config, parts.tokenizer
    patch = height_width(config.vision_config.patch_size)
    # pictures are rounded up to whole image tokens, whatever the image processor says by itself
    vision = Packed(parts.processor, cell=patch, step=(patch[0] * merge, patch[1] * merge), name=parts.name)
    scheme: PatchScheme = Squashed(vision, vision.square) if parts.geometry == "squash" else vision
    known = tokenizer.get_vocab()
    if _LINE_END not in known or _PICTURE_END not in known:
        raise ModelError(
            f"{parts.name}: its tokenizer does not know {_LINE_END} and {_PICTURE_END}, which end lines and "
            "pictures; save the tokenizer that belongs to the model into its folder"
        )
    [image] = added_tokens(parts, config.image_token_index)
    return ImageTokens(
        scheme,
        merge=(merge, merge),
        tokenizer=tokenizer,
        text=lambda rows, columns: _LINE_END.join([image * columns] * rows) + _PICTURE_END,
        image_token_id=config.image_token_index,
        name=parts.name,
    )


def _has_cls(model: Any) -> bool:
    names = [name.rsplit(".", 1)[-1] for name, _ in model.vision_tower.named_parameters()]
    return "class_embedding" in names or "cls_token" in names


LLAVA = ImageFamily(llava, language_blocks, language_width)
"""Image tokens inside LLaVA (Liu et al., 2023, arXiv:2304.08485) and inside Pixtral as transformers saves it."""

MISTRAL3 = ImageFamily(mistral3, language_blocks, language_width)
"""Image tokens inside Mistral Small 3.1 and later, where 2 x 2 patches make one."""
