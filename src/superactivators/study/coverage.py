"""Which concepts can be studied: those with enough positives in every split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from superactivators.data.dataset import SPLITS
from superactivators.errors import DataError
from superactivators.states.labels import Labels


@final
@dataclass(frozen=True)
class Coverage:
    """The outcome.

    Attributes
    ----------
    kept : list of str
        Concepts to study.
    excluded : dict of str to str
        The others, with the reason.
    positives : dict of str to dict of str to int
        Positive samples of every concept and split.
    """

    kept: list[str]
    excluded: dict[str, str]
    positives: dict[str, dict[str, int]]


def cover(labels: Labels, min_positives: int) -> Coverage:
    """Keep concepts with at least ``min_positives`` positive samples, and some negative, in each split.

    Where tokens are labelled, train and cal must also hold in-concept tokens in as many samples.

    Raises
    ------
    DataError
        If no concept is left.
    """
    kept: list[str] = []
    excluded: dict[str, str] = {}
    counts = {split: labels.samples[labels.in_split(split)].sum(axis=0) for split in SPLITS}
    sizes = {split: len(labels.in_split(split)) for split in SPLITS}
    located = _located(labels)
    positives = {name: {split: int(counts[split][c]) for split in SPLITS} for c, name in enumerate(labels.concepts)}
    for c, name in enumerate(labels.concepts):
        few = [split for split in SPLITS if counts[split][c] < min_positives]
        full = [split for split in SPLITS if counts[split][c] == sizes[split]]
        unplaced = [split for split in ("train", "cal") if located[split][c] < min(min_positives, counts[split][c])]
        if few:
            shown = ", ".join(f"{counts[split][c]} in {split}" for split in few)
            excluded[name] = f"fewer than {min_positives} positive samples ({shown})"
        elif full:
            excluded[name] = f"no negative sample in {', '.join(full)}"
        elif unplaced:
            excluded[name] = f"too few samples with labelled tokens in {', '.join(unplaced)}"
        else:
            kept.append(name)
    if not kept:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(excluded.items())[:5])
        raise DataError(f"no concept can be studied ({reasons}); label more samples, or lower min_positives")
    return Coverage(kept, excluded, positives)


def _located(labels: Labels) -> dict[str, np.ndarray]:
    """Count the samples of each split that hold an in-concept token, per concept."""
    if labels.tokens is None:
        return {split: labels.samples[labels.in_split(split)].sum(axis=0) for split in SPLITS}
    pairs = labels.tokens.tocoo()
    sample = np.searchsorted(labels.offsets, pairs.row, side="right") - 1
    found = np.zeros(labels.samples.shape, dtype=bool)
    found[sample, pairs.col] = True
    return {split: found[labels.in_split(split)].sum(axis=0) for split in SPLITS}
