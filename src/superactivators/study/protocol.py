"""The conventions of the paper's published code, as defaults of a study (docs/paper-protocol.md)."""

from __future__ import annotations

from typing import Any

from superactivators.data.dataset import Modality
from superactivators.detection.tail import PAPER_DELTAS
from superactivators.study.settings import StudySettings

PERCENTS = {
    "text": ["3%", "19%", "34%", "50%", "66%", "81%", "97%", "100%"],
    "image": ["4%", "25%", "46%", "67%", "88%", "100%"],
}
"""Depths that the paper studies: those of its Llama and Qwen text models, and of CLIP."""

METHODS = ["superactivators", "max", "mean", "last", "random", "cls"]


def with_protocol(settings: StudySettings, modality: Modality) -> StudySettings:
    """Fill in what the protocol of a study sets; keys that the study file itself gives keep their values.

    Parameters
    ----------
    settings : StudySettings
    modality : str
        Of the study's data.
    """
    if settings.run.protocol != "paper":
        return settings
    wanted: dict[str, dict[str, Any]] = {
        "data": {"text_rule": "word"} if modality == "text" else {"patch_rule": "any"},
        "model": {"layers": PERCENTS[modality]} | ({"geometry": "squash"} if modality == "image" else {}),
        "concepts": {"kinds": ["mean", "linear-adam"]},
        "detection": {"methods": METHODS, "deltas": list(PAPER_DELTAS), "intervals": "fixed"},
    }
    changed = {}
    for name, values in wanted.items():
        section = getattr(settings, name)
        missing = {key: value for key, value in values.items() if key not in section.model_fields_set}
        changed[name] = section.model_copy(update=missing)
    return settings.model_copy(update=changed)
