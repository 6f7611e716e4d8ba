"""Tiny checkpoints of timm and open_clip, made and saved by these libraries; they need torchvision to be imported."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tiny_models import N_BLOCKS, WIDTH

_SIZE = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": N_BLOCKS, "num_heads": 4}
_DATA = {"input_size": (3, 32, 32), "crop_pct": 0.9, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def _fill(model: Any, scale: float = 0.15) -> Any:
    """Give every weight values of its own, so that layers, positions and registers really matter."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            generator = np.random.default_rng(zlib.crc32(name.encode()))
            start = parameter if parameter.ndim == 1 else 0.0
            parameter.copy_(start + scale * torch.from_numpy(generator.standard_normal(parameter.shape)))
    return model.eval()


def _timm(architecture: str, args: dict[str, Any], **data: Any) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        import timm

        settings = {**_DATA, "interpolation": "bicubic", **data}
        model = timm.create_model(architecture, pretrained=False, pretrained_cfg=settings, num_classes=5, **args)
        timm.models.save_for_hf(_fill(model), folder, model_args=args, safe_serialization=True)

    return build


def _open_clip(
    vision: dict[str, Any], *, dtype: torch.dtype = torch.float32, **preprocess: Any
) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        import open_clip

        text = {"context_length": 16, "vocab_size": 64, "width": WIDTH, "heads": 2, "layers": 2}
        model_cfg = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
        if "timm_model_name" in vision:
            model_cfg["custom_text"] = True
        kind = open_clip.CustomTextCLIP if "timm_model_name" in vision else open_clip.CLIP
        wide = "timm_model_name" in vision  # a whole model of timm: smaller weights, or tokens would lose their patches
        model = _fill(
            kind(**{key: value for key, value in model_cfg.items() if key != "custom_text"}), 0.05 if wide else 0.15
        ).to(dtype)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "model_cfg": model_cfg,
            "preprocess_cfg": {"mean": [0.4, 0.5, 0.6], "std": [0.3, 0.2, 0.25], **preprocess},
        }
        (folder / "open_clip_config.json").write_text(json.dumps(settings))
        weights = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
        save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})

    return build


_CLIP = {"image_size": 32, "patch_size": 8, "width": WIDTH, "layers": N_BLOCKS, "head_width": 8, "mlp_ratio": 2.0}

TIMM: dict[str, Callable[[Path], None]] = {
    "timm-vit": _timm("vit_tiny_patch16_224", _SIZE),
    "timm-squash": _timm("vit_tiny_patch16_224", _SIZE, crop_mode="squash", interpolation="bilinear", crop_pct=1.0),
    "timm-registers": _timm(
        "vit_small_patch14_reg4_dinov2", {**_SIZE, "reg_tokens": 3, "img_size": 40}, input_size=(3, 40, 40)
    ),
    "timm-no-cls": _timm("vit_base_patch16_siglip_224", _SIZE),
    "timm-distilled": _timm("deit_tiny_distilled_patch16_224", _SIZE),
    "timm-eva-rope": _timm("eva02_tiny_patch14_224", _SIZE, input_size=(3, 32, 32)),
    "timm-beit": _timm("beit_base_patch16_224", _SIZE),
}

OPEN_CLIP: dict[str, Callable[[Path], None]] = {
    "open_clip-vit": _open_clip(_CLIP),
    "open_clip-attention-pool": _open_clip(
        {**_CLIP, "attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 8}
    ),
    "open_clip-norm-after-pool": _open_clip(
        {**_CLIP, "final_ln_after_pool": True, "pool_type": "avg", "no_ln_pre": True, "pos_embed_type": "sin_cos_2d"}
    ),
    "open_clip-custom-blocks": _open_clip({**_CLIP, "qk_norm": True, "scale_attn": True, "scale_fc": True}),
    "open_clip-half": _open_clip(_CLIP, dtype=torch.bfloat16, interpolation="bilinear"),
    "open_clip-timm": _open_clip(
        {
            "image_size": 224,
            "timm_model_name": "vit_tiny_patch16_224",
            "timm_model_pretrained": False,
            "timm_pool": "token",
            "timm_proj": "linear",
        },
        resize_mode="squash",
    ),
}

BUILDERS = {**TIMM, **OPEN_CLIP}
