"""Tiny vision towers beyond ViT: SigLIP 2 of both sorts, DINOv3, Pixtral.

The image processor of DINOv3 exists for torchvision only. Where that is missing, the checkpoint has a
``BitImageProcessorPil`` of the same settings, which moves pixels in the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import transformers
from transformers.utils import is_torchvision_available

from tiny_models import _STACK, _dual, _image, _save, gemma_tokenizer


def siglip2_processor() -> transformers.BaseImageProcessor:
    """At most 24 patches of 8 x 8 pixels."""
    return transformers.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=24)


def _siglip2(folder: Path) -> None:
    tokenizer = gemma_tokenizer()
    ids = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    text = {**_STACK, "num_hidden_layers": 3, "vocab_size": len(tokenizer), "max_position_embeddings": 64, **ids}
    config = transformers.Siglip2Config(text_config=text, vision_config={**_STACK, "num_patches": 16, "patch_size": 8})
    _save(transformers.Siglip2Model(config), folder)
    siglip2_processor().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _siglip2_tower(folder: Path) -> None:
    config = transformers.Siglip2VisionConfig(**_STACK, num_patches=16, patch_size=8)
    _save(transformers.Siglip2VisionModel(config), folder)
    siglip2_processor().save_pretrained(folder)


def dinov3_processor() -> transformers.BaseImageProcessor:
    """32 x 32 pixels, as DINOv3 resizes to 224 x 224."""
    size = {"height": 32, "width": 32}
    if is_torchvision_available():
        return transformers.DINOv3ViTImageProcessor(size=size)
    return transformers.BitImageProcessorPil(
        size=size,
        resample=2,
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )


def pixtral_processor(step: int = 8) -> transformers.BaseImageProcessor:
    """Shrunk into 56 x 56 pixels, then stretched to multiples of ``step``."""
    return transformers.PixtralImageProcessorPil(size={"longest_edge": 56}, patch_size={"height": step, "width": step})


PIXTRAL_VISION = {**_STACK, "image_size": 64, "patch_size": 8, "head_dim": 8}

BUILDERS: dict[str, Callable[[Path], None]] = {
    "siglip2": _siglip2,
    "siglip2-tower": _siglip2_tower,
    "siglip2-fixed": _dual(
        "Siglip", lambda: transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32}, resample=2)
    ),
    "dinov3": _image(
        "DINOv3ViT", dinov3_processor, {**_STACK, "image_size": 32, "patch_size": 8, "num_register_tokens": 4}
    ),
    "dinov3-gated": _image(
        "DINOv3ViT",
        dinov3_processor,
        {
            **_STACK,
            "image_size": 32,
            "patch_size": 8,
            "num_register_tokens": 4,
            "use_gated_mlp": True,
            "key_bias": True,
        },
    ),
    "pixtral-tower": _image("PixtralVision", pixtral_processor, PIXTRAL_VISION),
}
