"""Small data sets and labels to ask a chat model about."""

from __future__ import annotations

import numpy as np

from superactivators.data.dataset import ConceptDataset, ImageSample, TextSample
from superactivators.states.labels import Labels

SPLITS = ("train", "test", "cal", "test", "test")


def labels_of(dataset: ConceptDataset) -> Labels:
    """Sample labels without tokens."""
    n = len(dataset)
    return Labels(
        ids=dataset.ids,
        offsets=np.zeros(n + 1, dtype=np.int64),
        splits=dataset.splits,
        concepts=dataset.concepts,
        samples=dataset.given_labels()[0],
        tokens=None,
        known=np.empty(0, dtype=bool),
        lost_by_crop={},
    )


def texts(n: int = 5, concepts: tuple[str, ...] = ("joy", "fear")) -> ConceptDataset:
    """Texts ``"text number k with {braces}"`` in the splits train, test, cal, test, test and so on."""
    samples = tuple(
        TextSample(f"t{k}", f"text number {k} with {{braces}} über 😀", labels=frozenset(), split=SPLITS[k % 5])
        for k in range(n)
    )
    return ConceptDataset("texts", concepts, samples)


def images(n: int = 5, size: tuple[int, int] = (20, 12), seed: int = 0) -> ConceptDataset:
    """Images of random pixels, (width, height) each."""
    rng = np.random.default_rng(seed)
    samples = tuple(
        ImageSample(
            f"i{k}",
            rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8),
            labels=frozenset(),
            split=SPLITS[k % 5],
        )
        for k in range(n)
    )
    return ConceptDataset("images", ("red", "round"), samples)
