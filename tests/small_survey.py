"""A small labelled data set of texts with its states' labels and a detector, to attribute concepts in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from small_data import planted_texts, write_texts
from superactivators.data.dataset import ConceptDataset
from superactivators.data.sources import load_dataset
from superactivators.detection.detector import Detector
from superactivators.models.backbone import Backbone
from superactivators.states.extraction import extract
from superactivators.states.labels import Labels
from superactivators.study.fit import fit_detector


@dataclass(frozen=True, eq=False)
class Small:
    """What a survey needs."""

    backbone: Backbone
    dataset: ConceptDataset
    labels: Labels
    detector: Detector


def make_small(backbone: Backbone, folder: Path) -> Small:
    """Texts with spans; six more hold a concept of which nobody says where it is, so that no token is known."""
    records: list[dict[str, Any]] = planted_texts(72)
    for number, split in enumerate(("train", "cal", "cal", "test", "test", "test")):
        words = "the fox and the brown dog" if number % 2 else "every lazy fox jumps"
        start = words.index("fox")
        span = {"start": start, "end": start + 3, "label": "animal"}
        labels = ["animal", "colour"]
        records.append({"id": f"u{number}", "text": words, "spans": [span], "labels": labels, "split": split})
    dataset = load_dataset(write_texts(folder / "texts", records))
    states = extract(backbone, dataset, [1, 3], out=folder / "states")
    detector, _ = fit_detector(folder / "states", folder / "detector", kind="mean", min_positives=2)
    return Small(backbone, dataset, states.labels, detector)
