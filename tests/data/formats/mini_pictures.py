"""Small pictures with coloured boxes that the miniature data sets share: what is where is known without any reader."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 64, 48
COLOURS = {"person": (220, 40, 40), "car": (40, 60, 220), "bus": (240, 200, 30), "dog": (30, 180, 60)}
"""Colour of each thing's box."""


@dataclass(frozen=True)
class Picture:
    """One picture: ``boxes`` gives the corners left, top, right, bottom (exclusive) of each thing in it."""

    name: str
    pixels: np.ndarray
    boxes: dict[str, tuple[int, int, int, int]]

    def mask(self, thing: str) -> np.ndarray:
        """Pixels of a thing, bool [height, width]."""
        inside = np.zeros((HEIGHT, WIDTH), dtype=bool)
        if thing in self.boxes:
            left, top, right, bottom = self.boxes[thing]
            inside[top:bottom, left:right] = True
        return inside


def pictures(count: int, prefix: str = "p", seed: int = 0) -> list[Picture]:
    """Pictures with none to four things; every thing is in about half of them, and boxes may overlap."""
    made = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        pixels = rng.integers(90, 140, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        boxes = {}
        for place, (thing, colour) in enumerate(COLOURS.items()):
            # Each thing keeps to its part of the picture, and reaches into the next one's.
            if (number >> (place % 4)) & 1 if number < 16 else rng.random() < 0.5:
                left = int(rng.integers(2, 6)) + 14 * place
                top = int(rng.integers(2, 18))
                right = min(left + int(rng.integers(10, 20)), WIDTH)
                bottom = top + int(rng.integers(12, 26))
                boxes[thing] = (left, top, right, bottom)
                pixels[top:bottom, left:right] = colour
        made.append(Picture(f"{prefix}{number:03d}", pixels, boxes))
    return made
