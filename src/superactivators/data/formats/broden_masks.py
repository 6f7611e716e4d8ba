"""Segmentation files of Broden: label numbers in the red and green channels, smaller than the picture."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

import numpy as np
from jaxtyping import Integer, UInt16
from PIL import Image

from superactivators.data.pixels import UNREADABLE
from superactivators.errors import DataError

Plane: TypeAlias = "tuple[Path | int, tuple[int, ...]]"
"""A segmentation file, or the one label of a whole picture, and the class id of every label number."""


def read_labels(path: Path) -> UInt16[np.ndarray, "h w"]:
    """Read the label number of every pixel: red + 256 * green.

    Raises
    ------
    DataError
        If the file is missing, is no image, is not RGB, or uses the blue channel.
    """
    try:
        with Image.open(path) as opened:
            mode = opened.mode
            pixels = np.asarray(opened)
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an image ({str(error).splitlines()[0]})") from error
    if mode != "RGB":
        raise DataError(f"{path}: its mode is {mode!r}, but a segmentation of Broden is RGB")
    if pixels[:, :, 2].any():
        raise DataError(f"{path}: has blue pixels, but a segmentation of Broden holds numbers in red and green only")
    labels: UInt16[np.ndarray, "h w"] = pixels[:, :, 0] + pixels[:, :, 1].astype(np.uint16) * np.uint16(256)
    return labels


def enlarge(labels: Integer[np.ndarray, "h w"], size: tuple[int, int]) -> Integer[np.ndarray, "high wide"]:
    """Scale a segmentation to a picture's (width, height): each pixel takes the label at its centre."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new) for new, old in zip(size[::-1], labels.shape, strict=True)
    )
    larger: Integer[np.ndarray, "high wide"] = labels[rows[:, None], columns]
    return larger


@final
@dataclass(frozen=True)
class BrodenMask:
    """Mask of a picture, one plane for each segmentation.

    Attributes
    ----------
    planes : tuple of (Path or int, tuple of int)
        As `Plane`; at least one.
    size : (int, int)
        Width and height of the picture.
    """

    planes: tuple[Plane, ...]
    size: tuple[int, int]

    def load(self) -> UInt16[np.ndarray, "planes h w"]:
        """Make the mask; raises ``DataError`` if a file cannot be read or holds a number that is no label."""
        made = []
        for source, codes in self.planes:
            table = np.array(codes, dtype=np.uint16)
            if isinstance(source, int):
                made.append(np.full(self.size[::-1], table[source], dtype=np.uint16))
                continue
            labels = read_labels(source)
            if labels.max(initial=0) >= len(table):
                raise DataError(f"{source}: holds {labels.max()}, which is no label of Broden")
            made.append(enlarge(table[labels], self.size))
        return np.stack(made)

    def content(self) -> bytes:
        """Hash of the files, the codes and the size."""
        digest = hashlib.sha256(repr(self.size).encode())
        for source, codes in self.planes:
            digest.update(repr(source).encode() if isinstance(source, int) else source.read_bytes())
            digest.update(np.array(codes, dtype=np.uint16).tobytes())
        return digest.digest()
