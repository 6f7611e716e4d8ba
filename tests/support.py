"""What is supported, as the tests see it: families of models with their tiny checkpoints, and data formats."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import tiny_llava
import tiny_mllama
import tiny_models
import tiny_qwen_vl
import tiny_towers
from superactivators.models.quiet import quiet_transformers

RECORD = "SUPERACTIVATORS_RECORD"
"""Environment variable that names the file to which tests add what they found, for the tables in docs/."""

MINIATURES = tuple(
    sorted(
        path.stem.removeprefix("mini_")
        for path in (Path(__file__).parent / "data" / "formats").glob("mini_*.py")
        if path.stem != "mini_pictures"
    )
)
"""Data formats by the names of their miniatures."""


@dataclass(frozen=True)
class Family:
    """A part of a tiny checkpoint.

    Attributes
    ----------
    title : str
        In the tables.
    checkpoint : str
        Name of its builder.
    modality, tower : str
        See `Backbone.from_pretrained`.
    """

    title: str
    checkpoint: str
    modality: str
    tower: str | None = None

    @property
    def reads(self) -> str:
        """What it reads and where, in words."""
        if self.modality == "text":
            return "texts"
        return "images, in the language model" if self.tower == "language" else "images"


def _texts(title: str, checkpoint: str) -> Family:
    return Family(title, checkpoint, "text")


def _images(title: str, checkpoint: str) -> Family:
    return Family(title, checkpoint, "image", "vision")


def _inside(title: str, checkpoint: str) -> Family:
    return Family(title, checkpoint, "image", "language")


FAMILIES = (
    _texts("BERT, MiniLM", "bert"),
    _texts("DistilBERT", "distilbert"),
    _texts("RoBERTa", "roberta"),
    _texts("GPT-2", "gpt2"),
    _texts("Llama", "llama"),
    _texts("Qwen2", "qwen2"),
    _texts("Qwen3", "qwen3"),
    _texts("Qwen3-Embedding", "qwen3-embedding"),
    _texts("Gemma 2", "gemma2"),
    _texts("Gemma 3, text", "gemma3"),
    _images("ViT", "vit"),
    _images("DINOv2", "dinov2"),
    _images("DINOv2 with registers", "dinov2-registers"),
    _images("DINOv3", "dinov3"),
    _images("CLIP", "clip"),
    _texts("CLIP", "clip"),
    _images("SigLIP, SigLIP 2 of fixed size", "siglip"),
    _texts("SigLIP, SigLIP 2 of fixed size", "siglip"),
    _images("SigLIP 2 NaFlex", "siglip2"),
    _texts("SigLIP 2 NaFlex", "siglip2"),
    _images("Llama 3.2 Vision (Mllama)", "mllama"),
    _texts("Llama 3.2 Vision (Mllama)", "mllama"),
    _images("Qwen2-VL", "qwen2-vl"),
    _inside("Qwen2-VL", "qwen2-vl"),
    _texts("Qwen2-VL", "qwen2-vl"),
    _images("Qwen2.5-VL", "qwen2.5-vl"),
    _inside("Qwen2.5-VL", "qwen2.5-vl"),
    _texts("Qwen2.5-VL", "qwen2.5-vl"),
    _images("Qwen3-VL", "qwen3-vl"),
    _inside("Qwen3-VL", "qwen3-vl"),
    _texts("Qwen3-VL", "qwen3-vl"),
    _images("Pixtral tower", "pixtral-tower"),
    *(
        part(title, checkpoint)
        for title, checkpoint in (
            ("LLaVA (CLIP tower)", "llava"),
            ("LLaVA (Pixtral tower)", "pixtral"),
            ("Mistral 3", "mistral3"),
            ("Gemma 3", "gemma3-images"),
        )
        for part in (_images, _inside, _texts)
    ),
)

BUILDERS: dict[str, Callable[[Path], Any]] = {
    **{name: lambda folder, name=name: tiny_models.build_checkpoint(name, folder) for name in tiny_models._BUILDERS},
    **tiny_mllama.BUILDERS,
    **tiny_qwen_vl.BUILDERS,
    **tiny_towers.BUILDERS,
    **tiny_llava.BUILDERS,
}


def build(checkpoint: str, folder: Path) -> Path:
    """Write a tiny checkpoint into a folder and return it."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(), quiet_transformers():
        torch.manual_seed(0)
        BUILDERS[checkpoint](folder)
    return folder


def record(**found: Any) -> None:
    """Add what a test found to the record, if one is asked for."""
    if os.environ.get(RECORD):
        with Path(os.environ[RECORD]).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"date": date.today().isoformat(), **found}) + "\n")
