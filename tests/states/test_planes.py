"""Pixels that carry several ids: planes of a mask against a plain loop over pixels."""

from __future__ import annotations

import numpy as np
import pytest

from superactivators.data.dataset import ConceptDataset, ImageSample
from superactivators.models.encoding import Encoding
from superactivators.states.labels import label

CLASSES = {1: ("a",), 2: ("b", "c"), 3: ("c",), 300: ("d",)}
CONCEPTS = ("a", "b", "c", "d")


def encoding(n: int, rows: int, columns: int, high: int, wide: int) -> Encoding:
    cells = rows * columns
    return Encoding(
        modality="image",
        offsets=np.arange(n + 1, dtype=np.int64) * cells,
        token_ids=None,
        chars=None,
        grids=np.tile(np.array([[rows, columns]], dtype=np.int32), (n, 1)),
        cells=np.tile(np.arange(cells, dtype=np.int32), n),
        views=np.tile(np.array([[0.0, 0.0, wide, high]]), (n, 1)),
        cut=np.zeros(n, dtype=np.int32),
    )


@pytest.mark.parametrize("share", ["any", 0.5])
def test_planes_are_joined_pixel_by_pixel(share) -> None:
    generator = np.random.default_rng(0)
    ids = np.array([0, 1, 2, 3, 255, 300], dtype=np.uint16)
    masks = generator.choice(ids, size=(3, 3, 24, 32), p=[0.4, 0.2, 0.15, 0.1, 0.1, 0.05])
    pixels = np.zeros((24, 32, 3), dtype=np.uint8)
    samples = tuple(ImageSample(f"s{k}", pixels, tuple(mask), split="train") for k, mask in enumerate(masks))
    found = label(ConceptDataset("x", CONCEPTS, samples, CLASSES), encoding(3, 6, 4, 24, 32), patch_rule=share)
    dense = found.tokens.toarray()
    for k, mask in enumerate(masks):
        for cell in range(24):
            y, x = divmod(cell, 4)
            counts, labelled = dict.fromkeys(CONCEPTS, 0), 0
            for row in range(4 * y, 4 * y + 4):
                for column in range(8 * x, 8 * x + 8):
                    here = mask[:, row, column].tolist()
                    if 255 in here:
                        continue
                    labelled += 1
                    for name in {name for identity in here for name in CLASSES.get(identity, ())}:
                        counts[name] += 1
            for place, name in enumerate(CONCEPTS):
                enough = counts[name] > 0 and (share == "any" or counts[name] >= share * labelled)
                assert dense[24 * k + cell, place] == enough


def test_one_plane_is_the_same_as_no_planes() -> None:
    mask = np.random.default_rng(1).choice(np.array([0, 1, 2, 255], dtype=np.uint8), size=(24, 32))
    pixels = np.zeros((24, 32, 3), dtype=np.uint8)
    made = [
        label(ConceptDataset("x", CONCEPTS, (ImageSample("s", pixels, given, split="train"),), CLASSES), grid)
        for given in (mask, mask[None], (mask,), np.stack([mask, mask]))
        for grid in [encoding(1, 6, 4, 24, 32)]
    ]
    for other in made[1:]:
        np.testing.assert_array_equal(other.tokens.toarray(), made[0].tokens.toarray())
        np.testing.assert_array_equal(other.known, made[0].known)
