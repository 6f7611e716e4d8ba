"""Colour-coded masks: tables of colours, and the class ids of their pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from superactivators.data.faults import Faults
from superactivators.data.pixels import UNREADABLE
from superactivators.errors import DataError

Colour = tuple[int, int, int]


@final
@dataclass(frozen=True, slots=True)
class ColourMask:
    """Class ids of the pixels of a colour-coded mask.

    Attributes
    ----------
    path : Path
        An image whose colours stand for classes; a palette is resolved.
    codes : tuple of (int, int)
        Colour as ``red * 65536 + green * 256 + blue``, and its class id.
    """

    path: Path
    codes: tuple[tuple[int, int], ...]

    def load(self) -> UInt16[np.ndarray, "h w"]:
        """Look up every pixel; a colour that the table lacks raises ``DataError``."""
        pixels = pack_colours(open_rgb(self.path))
        found, inverse = np.unique(pixels, return_inverse=True)
        table = dict(self.codes)
        for code in found.tolist():
            if code not in table:
                red, rest = divmod(code, 65536)
                raise DataError(
                    f"{self.path}: holds the colour {red},{rest // 256},{rest % 256}, which the colour table does not "
                    "name; add it, or save the mask without smoothing or JPEG compression"
                )
        ids = np.array([table[code] for code in found.tolist()], dtype=np.uint16)
        return ids[inverse].reshape(pixels.shape)

    def content(self) -> bytes:
        """Hash of the file and of the table."""
        return hashlib.sha256(self.path.read_bytes() + repr(self.codes).encode()).digest()


def open_rgb(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read the colours of an image file; raises ``DataError`` if it cannot be read."""
    try:
        with Image.open(path) as opened:
            return np.asarray(opened.convert("RGB"))
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a mask ({error}); give a PNG") from error


def pack_colours(pixels: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    """Give each pixel one number: ``red * 65536 + green * 256 + blue``."""
    wide = pixels.astype(np.int64)
    return wide[..., 0] * 65536 + wide[..., 1] * 256 + wide[..., 2]


def code_of(colour: Colour) -> int:
    """Give the number of a colour."""
    return colour[0] * 65536 + colour[1] * 256 + colour[2]


def voc_colour(identity: int) -> Colour:
    """Give the colour of a class id in VOC's palette: its bits go by turns to the channels, lowest to highest place."""
    channels = [0, 0, 0]
    for place in range(8):
        for channel in range(3):
            channels[channel] |= ((identity >> (3 * place + channel)) & 1) << (7 - place)
    return channels[0], channels[1], channels[2]


def read_labelmap(path: Path, faults: Faults) -> dict[str, Colour]:
    """Read a ``labelmap.txt`` as CVAT and Datumaro write it.

    Each line holds ``name:red,green,blue:parts:actions``; the last two may be empty or left out; a name may itself hold
    colons. Lines that begin with ``#`` are comments.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save it as UTF-8") from error
    table: dict[str, Colour] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.strip().split(":")
        place = next((at for at in range(1, len(fields)) if _colour(fields[at]) is not None), None)
        name = ":".join(fields[:place]).strip()
        colour = None if place is None else _colour(fields[place])
        if colour is None or not name:
            faults.add(path, number, f"must be name:red,green,blue:: with numbers from 0 to 255; got {line!r:.60}")
        elif name in table:
            faults.add(path, number, f"name {name!r} comes twice")
        elif colour in table.values():
            other = next(known for known, taken in table.items() if taken == colour)
            faults.add(path, number, f"{name!r} has the colour of {other!r}; give each class its own")
        else:
            table[name] = colour
    if not table and not len(faults):
        faults.add(path, None, "names no class; write lines of name:red,green,blue::")
    return table


def _colour(text: str) -> Colour | None:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isdecimal() and len(part) <= 3 and int(part) <= 255 for part in parts):
        return None
    return int(parts[0]), int(parts[1]), int(parts[2])
