"""Pixels of images and masks, whatever they come from: a file, an array, or a source that makes them when asked."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Integer
from PIL import Image

from superactivators.errors import DataError

UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for a file that it cannot read."""


@runtime_checkable
class PixelSource(Protocol):
    """Pixels that are in no plain image file: regions of an annotation file, colour codes, rows of a table.

    They are made whenever they are asked for and never kept, so that a large data set needs little memory. A class that
    does this is a frozen dataclass; two sources that are equal give the same pixels.
    """

    def load(self) -> np.ndarray:
        """Make the pixels: an RGB image (height, width, 3), or a mask (height, width) or (planes, height, width)."""
        ...

    def content(self) -> bytes:
        """Bytes that change whenever the pixels do; cheaper than the pixels where possible."""
        ...


Pixels: TypeAlias = "Path | np.ndarray | PixelSource"


def content_hash(pixels: Pixels | None) -> bytes:
    """SHA-256 of a file's bytes, of an array with its shape and type, or of what a source says of itself."""
    if pixels is None:
        return b"none"
    if isinstance(pixels, Path):
        return hashlib.sha256(pixels.read_bytes()).digest()
    if isinstance(pixels, np.ndarray):
        head = repr((pixels.shape, pixels.dtype.str)).encode()
        return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).digest()
    return hashlib.sha256(b"source" + pixels.content()).digest()


def open_image(pixels: Pixels) -> Image.Image:
    """Open an image as RGB.

    Raises
    ------
    DataError
        If a file is missing or is not an image.
    """
    if isinstance(pixels, np.ndarray):
        return Image.fromarray(pixels)
    if not isinstance(pixels, Path):
        return Image.fromarray(pixels.load())
    try:
        with Image.open(pixels) as opened:
            return opened.convert("RGB")
    except UNREADABLE as error:
        raise DataError(f"{pixels}: cannot be read as an image ({error}); give a PNG, JPEG or similar file") from error


def image_size(pixels: Pixels) -> tuple[int, int]:
    """Width and height of an image, of a file from its header alone; raises ``DataError`` if it cannot be read."""
    if not isinstance(pixels, Path):
        shape = pixels.shape if isinstance(pixels, np.ndarray) else pixels.load().shape
        return int(shape[1]), int(shape[0])
    try:
        with Image.open(pixels) as opened:
            return opened.size
    except UNREADABLE as error:
        raise DataError(f"{pixels}: cannot be read as an image ({error}); give a PNG, JPEG or similar") from error


def open_mask(pixels: Pixels) -> Integer[np.ndarray, "planes h w"]:
    """Read the class ids of the pixels of a mask, one or several for each pixel.

    Raises
    ------
    DataError
        If a file is missing, is not an image, or has several channels.
    """
    if isinstance(pixels, Path):
        found = _mask_file(pixels)
    else:
        found = pixels if isinstance(pixels, np.ndarray) else pixels.load()
    return found[None] if found.ndim == 2 else found


def _mask_file(path: Path) -> Integer[np.ndarray, "h w"]:
    try:
        with Image.open(path) as opened:
            if opened.mode not in ("L", "P", "I", "I;16"):
                raise DataError(
                    f"{path}: a mask must have one channel of class ids, but its mode is {opened.mode!r}; "
                    "save it as an 8-bit greyscale or palette PNG"
                )
            return np.asarray(opened)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as a mask ({error}); give a PNG of class ids") from error
