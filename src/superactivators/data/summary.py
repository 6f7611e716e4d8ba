"""Counts of a data set: samples and positives by split."""

from __future__ import annotations

from typing import Any

import numpy as np

from superactivators.data.dataset import SPLITS, ConceptDataset, TextSample


def summarise(dataset: ConceptDataset) -> dict[str, Any]:
    """Count samples and positives by split, as JSON types.

    A sample without given labels counts as positive for the concepts of its spans, or of its mask's classes.
    """
    present = [_present(dataset, number) for number in range(len(dataset))]
    splits = dataset.splits.tolist()
    positives = {
        name: {
            split: sum(name in found for found, own in zip(present, splits, strict=True) if own == split)
            for split in SPLITS
        }
        for name in dataset.concepts
    }
    return {
        "name": dataset.name,
        "modality": dataset.modality,
        "samples": {split: splits.count(split) for split in SPLITS},
        "concepts": list(dataset.concepts),
        "positives": positives,
        "token_labels": dataset.has_token_labels,
        "fingerprint": dataset.fingerprint,
    }


def _present(dataset: ConceptDataset, number: int) -> set[str]:
    sample = dataset.samples[number]
    if sample.labels is not None:
        return set(sample.labels)
    if isinstance(sample, TextSample):
        return {span.concept for span in sample.spans}
    mask = sample.load_mask()
    found = [] if mask is None else np.unique(mask).tolist()
    return {name for identity in found for name in dataset.classes.get(identity, ())}
