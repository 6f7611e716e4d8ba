"""Small random studies: raw token and sample states with planted concepts."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch

from superactivators.states.arrays import states_from_arrays
from superactivators.states.states import States


@dataclass
class World:
    """Raw states and labels, as somebody else's code would hand them over."""

    values: dict[str, np.ndarray]
    sample_values: dict[str, np.ndarray]
    offsets: np.ndarray
    token_labels: np.ndarray
    known: np.ndarray
    sample_labels: np.ndarray
    splits: list[str]
    concepts: list[str]
    ids: list[str]

    @property
    def n(self) -> int:
        return len(self.splits)

    def in_split(self, split: str) -> list[int]:
        return [number for number, name in enumerate(self.splits) if name == split]

    def states(self, dtype: torch.dtype = torch.float32) -> States:
        return states_from_arrays(
            {site: torch.from_numpy(rows).to(dtype) for site, rows in self.values.items()},
            self.offsets,
            sp.csr_matrix(self.token_labels),
            self.sample_labels,
            self.splits,
            self.concepts,
            {site: torch.from_numpy(rows).to(dtype) for site, rows in self.sample_values.items()},
            ids=self.ids,
            known=self.known,
        )

    def permuted(self, order: np.ndarray) -> World:
        """The same samples in another order."""
        rows = np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in order])
        return World(
            {site: held[rows] for site, held in self.values.items()},
            {site: held[order] for site, held in self.sample_values.items()},
            np.concatenate([[0], np.cumsum(np.diff(self.offsets)[order])]),
            self.token_labels[rows],
            self.known[rows],
            self.sample_labels[order],
            [self.splits[i] for i in order],
            self.concepts,
            [self.ids[i] for i in order],
        )


def world(
    seed: int,
    *,
    per_split: int = 36,
    sites: int = 3,
    width: int = 8,
    concepts: int = 3,
    prevalence: tuple[float, ...] = (0.15, 0.35, 0.5),
) -> World:
    """Draw a study whose splits are mixed up; every concept has tokens in every split, some tokens are unlabelled."""
    random = np.random.default_rng(seed)
    n = 3 * per_split
    splits = [str(name) for name in random.permutation(np.repeat(["train", "cal", "test"], per_split))]
    lengths = random.integers(1, 9, size=n)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    present = random.random((n, concepts)) < np.array(prevalence)[:concepts]
    for split in ("train", "cal", "test"):
        rows = np.array([i for i, name in enumerate(splits) if name == split])
        for c in range(concepts):
            present[random.choice(rows, 3, replace=False), c] = True
    inside = np.zeros((offsets[-1], concepts), dtype=bool)
    known = np.ones(offsets[-1], dtype=bool)
    for i in range(n):
        for c in np.flatnonzero(present[i]):
            first = int(random.integers(0, lengths[i]))
            inside[offsets[i] + first : offsets[i] + first + int(random.integers(1, 4)), c] = True
            inside[offsets[i + 1] :, c] = False
        if not present[i].any() and random.random() < 0.3:
            # carries the first concept, but nobody has said where
            known[offsets[i] : offsets[i + 1]] = False
            present[i, 0] = random.random() < 0.3
    known &= inside.any(axis=1) | (random.random(len(known)) > 0.05)
    directions = random.standard_normal((sites, concepts, width))
    noise = random.standard_normal((sites, offsets[-1], width)) + random.standard_normal((sites, 1, width))
    strength = np.linspace(0.7, 1.1, sites)[:, None, None]
    values = noise + strength * np.einsum("tc,lcd->ltd", inside.astype(float), directions)
    means = np.stack([values[:, a:b].mean(axis=1) for a, b in itertools.pairwise(offsets)], axis=1)
    names = [f"block[{number}]" for number in range(sites)]
    return World(
        {name: rows.astype(np.float32) for name, rows in zip(names, values, strict=True)},
        {
            name: (rows + 0.3 * random.standard_normal(rows.shape)).astype(np.float32)
            for name, rows in zip(names, means, strict=True)
        },
        offsets,
        inside,
        known,
        present,
        splits,
        [f"concept {c}" for c in range(concepts)],
        [f"sample-{i}" for i in range(n)],
    )
