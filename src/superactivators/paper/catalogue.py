"""Models and data sets of the paper, as sections of a study file; only the paths of the data are not known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, final

from superactivators.data.dataset import Modality


@final
@dataclass(frozen=True)
class PaperModel:
    """A model of the paper.

    Attributes
    ----------
    title : str
    modality : str
        What it reads here.
    settings : dict
        Section ``[model]``: hub id, depths in percent of the true number of blocks, and how inputs are prepared.
    """

    title: str
    modality: Modality
    settings: dict[str, Any]


@final
@dataclass(frozen=True)
class PaperData:
    """A data set of the paper.

    Attributes
    ----------
    title : str
    modality : str
    format : str
        How its files are read; see docs/datasets.md.
    options : dict
        Of the format.
    """

    title: str
    modality: Modality
    format: str
    options: dict[str, Any] = field(default_factory=dict)


def _percents(*depths: int) -> list[str]:
    return [f"{depth}%" for depth in depths]


LLAMA = "meta-llama/Llama-3.2-11B-Vision-Instruct"
TEXT_DEPTHS = _percents(3, 19, 34, 50, 66, 81, 97, 100)

MODELS: dict[str, PaperModel] = {
    "clip": PaperModel(
        "CLIP ViT-L/14",
        "image",
        {
            "name": "openai/clip-vit-large-patch14",
            "layers": _percents(4, 25, 46, 67, 88, 100),
            "geometry": "squash",
        },
    ),
    "llama-vision": PaperModel(
        "Llama-3.2-11B-Vision, vision tower",
        "image",
        {
            "name": LLAMA,
            "layers": _percents(2, 15, 28, 40, 52, 65, 78, 90, 100),
            "dtype": "bfloat16",
            "processor": {"max_image_tiles": 1, "resample": 1},
        },
    ),
    "llama-text": PaperModel(
        "Llama-3.2-11B-Vision, language model", "text", {"name": LLAMA, "layers": TEXT_DEPTHS, "dtype": "bfloat16"}
    ),
    "qwen": PaperModel(
        "Qwen3-Embedding-4B",
        "text",
        {"name": "Qwen/Qwen3-Embedding-4B", "layers": TEXT_DEPTHS, "dtype": "bfloat16"},
    ),
    "gemma": PaperModel(
        "Gemma-2-9B",
        "text",
        {"name": "google/gemma-2-9b", "layers": _percents(4, 21, 39, 57, 75, 93, 100), "dtype": "bfloat16"},
    ),
}
"""By the name that the command takes. The paper runs language models in float16, which overflows in some of them."""

DATASETS: dict[str, PaperData] = {
    "clevr": PaperData("CLEVR", "image", "clevr"),
    "coco": PaperData("COCO", "image", "coco"),
    "opensurfaces": PaperData("Broden OpenSurfaces", "image", "broden", {"dataset": "opensurfaces"}),
    "pascal": PaperData("Broden Pascal", "image", "broden", {"dataset": "pascal"}),
    "sarcasm": PaperData("Sarcasm, augmented", "text", "paper-text"),
    "isarcasm": PaperData("iSarcasm, augmented", "text", "paper-text"),
    "goemotions": PaperData("GoEmotions, augmented", "text", "paper-text"),
}
"""By the name that the command takes."""
