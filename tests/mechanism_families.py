"""Families whose mechanism is looked into, some with fused or normed heads and parallel blocks, and small inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import tiny_models
from superactivators.data.dataset import ImageSample, Sample, TextSample
from superactivators.mechanism.passes import Drawn, passes
from superactivators.models.backbone import Backbone
from tiny_models import IMAGE_FAMILIES, TEXT_FAMILIES, build_checkpoint

EXTRA = {
    # queries, keys and values of each head lie together in one projection; attention and MLP run side by side
    "gpt_neox": (
        "GPTNeoX",
        tiny_models.gpt2_tokenizer,
        {**tiny_models._STACK, "max_position_embeddings": 128, "attention_dropout": 0.0, "hidden_dropout": 0.0},
    ),
    # all queries, then few keys, then few values in one projection
    "phi3": ("Phi3", tiny_models.llama_tokenizer, {**tiny_models._DECODER, "original_max_position_embeddings": 128}),
    # norms of single heads
    "qwen3": ("Qwen3", tiny_models.qwen_tokenizer, tiny_models._DECODER),
}
FAMILIES = (*TEXT_FAMILIES, *IMAGE_FAMILIES)
ALL = (*FAMILIES, *EXTRA)
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "A model reads tokens.",
    "Concepts are directions; the tail of their activations is what can be trusted.",
)


def samples_for(backbone: Backbone) -> list[Sample]:
    """Three texts, or three images that are not square."""
    if backbone.modality == "text":
        return [TextSample(f"s{n}", text) for n, text in enumerate(TEXTS)]
    generator = np.random.default_rng(3)
    return [ImageSample(f"s{n}", generator.integers(0, 256, (60, 90, 3), dtype=np.uint8)) for n in range(3)]


def drawn_for(backbone: Backbone, max_batch_tokens: int = 4096) -> Drawn:
    samples = samples_for(backbone)
    return Drawn(samples, backbone.encode(samples), max_batch_tokens)


def first_inputs(backbone: Backbone) -> dict[str, Any]:
    return next(iter(passes(backbone, drawn_for(backbone))))[1]


def write_checkpoint(family: str, folder: Path) -> Path:
    """Write a tiny checkpoint of any of these families."""
    if family not in EXTRA:
        return build_checkpoint(family, folder)
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny_models._text(*EXTRA[family])(folder)
    return folder
