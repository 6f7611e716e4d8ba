"""Splits by group: no document or image is in two of train, cal and test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from superactivators.data.dataset import SPLITS, ConceptDataset, Sample, TextSample
from superactivators.data.pixels import content_hash
from superactivators.errors import DataError


def make_splits(
    dataset: ConceptDataset, fractions: tuple[float, float, float] = (0.5, 0.25, 0.25), seed: int = 0
) -> ConceptDataset:
    """Assign whole groups to train, cal and test at random.

    Samples without a group are groups of their own. Samples with equal text or equal image file always share a group.

    Parameters
    ----------
    dataset : ConceptDataset
        Splits that it already has are replaced.
    fractions : three floats
        Shares of the samples in train, cal and test; positive, sum 1.
    seed : int
        Seed of the shuffle.

    Returns
    -------
    ConceptDataset
        The same samples in the same order, each with a split.

    Raises
    ------
    DataError
        If the fractions are wrong, or there are fewer than three groups.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise DataError(f"split fractions must be three positive numbers that sum to 1; got {fractions}")
    groups = _groups(dataset)
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < 3:
        raise DataError(f"data set {dataset.name!r} has {len(names)} group(s); at least three are needed to split it")
    order = np.random.default_rng(seed).permutation(len(names))
    middles = (np.cumsum(sizes[order]) - sizes[order] / 2) / sizes.sum()
    cal, test = (int(np.searchsorted(middles, edge)) for edge in np.cumsum(fractions)[:2])
    cal = min(max(cal, 1), len(names) - 2)  # every split gets a group, however uneven groups are
    test = min(max(test, cal + 1), len(names) - 1)
    part = np.repeat(np.arange(3), np.diff([0, cal, test, len(names)]))
    split_of = dict(zip(names[order].tolist(), part.tolist(), strict=True))
    samples = tuple(
        replace(sample, split=SPLITS[split_of[group]]) for sample, group in zip(dataset.samples, groups, strict=True)
    )
    return replace(dataset, samples=samples)


def ensure_splits(dataset: ConceptDataset, seed: int = 0) -> ConceptDataset:
    """Return the data set as it is if every sample has a split, or with splits made if none has.

    Raises
    ------
    DataError
        If only some samples have a split, if one of the three splits is empty, or if a group is in two splits.
    """
    given = dataset.splits != ""
    if not given.any():
        return make_splits(dataset, seed=seed)
    if not given.all():
        lacking = dataset.ids[int(np.flatnonzero(~given)[0])]
        raise DataError(
            f"data set {dataset.name!r}: {int((~given).sum())} of {len(dataset)} samples have no split "
            f"(first: {lacking!r}); give all of them one of {', '.join(SPLITS)}, or none"
        )
    for split in SPLITS:
        if not (dataset.splits == split).any():
            raise DataError(
                f"data set {dataset.name!r} has no {split} samples; all of {', '.join(SPLITS)} are needed "
                "(leave the splits out to have them made)"
            )
    home: dict[str, tuple[str, str]] = {}
    for sample in dataset.samples:
        if sample.group is not None:
            first = home.setdefault(sample.group, (sample.id, str(sample.split)))
            if first[1] != sample.split:
                raise DataError(
                    f"data set {dataset.name!r}: group {sample.group!r} is in two splits (sample {first[0]!r} in "
                    f"{first[1]}, {sample.id!r} in {sample.split}); keep each group in one"
                )
    return dataset


def _groups(dataset: ConceptDataset) -> np.ndarray:
    """Group names with samples of equal content merged (union-find over shared keys)."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    keys = []
    for sample in dataset.samples:
        own = f"group:{sample.group}" if sample.group is not None else f"id:{sample.id}"
        parent[root(_content_key(sample, own))] = root(own)
        keys.append(own)
    return np.array([root(key) for key in keys])


def _content_key(sample: Sample, own: str) -> str:
    """Key that samples of equal text or image share; arrays are not compared and stay by themselves."""
    if isinstance(sample, TextSample):
        return f"content:{sample.text}"
    if isinstance(sample.image, np.ndarray):
        return own
    return f"content:{sample.image if isinstance(sample.image, Path) else content_hash(sample.image).hex()}"
