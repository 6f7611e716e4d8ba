"""Where the objects of a CLEVR picture are: by colour against the grey ground, or by an instance mask."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np
from jaxtyping import Bool, UInt8, UInt16
from scipy import ndimage

from superactivators.data.dataset import VOID
from superactivators.data.pixels import open_image, open_mask
from superactivators.errors import DataError

TOLERANCE: Final = 20
"""A pixel whose channels differ by more than this (of 255) is of an object (the paper's code, its CLEVR masks)."""
SPECK: Final = 16
"""Components of fewer pixels are reflections and edges; their pixels are void."""


def coloured(picture: UInt8[np.ndarray, "h w 3"], tolerance: int = TOLERANCE) -> Bool[np.ndarray, "h w"]:
    """Find the pixels of coloured objects: any two of their channels differ by more than the tolerance.

    Ground, shadows and backdrop of CLEVR are grey, so that they differ little. So do grey objects, the highlights of
    shiny ones and their mirror images of the ground: these are missed. Coloured light that an object throws on the
    ground or on another one may be found as well.
    """
    differing: Bool[np.ndarray, "h w"] = picture.max(axis=2).astype(np.int16) - picture.min(axis=2) > tolerance
    return differing


@final
@dataclass(frozen=True)
class ColouredObject:
    """Mask of a picture with one object, by `coloured` pixels.

    Attributes
    ----------
    image : Path
        The picture.
    identity : int
        Class id of the object.
    tolerance : int
        For `coloured`.
    """

    image: Path
    identity: int
    tolerance: int = TOLERANCE

    def load(self) -> UInt16[np.ndarray, "h w"]:
        """Make the mask; all void where no pixel is coloured, since the object must be somewhere."""
        found = coloured(np.asarray(open_image(self.image)), self.tolerance)
        if not found.any():
            return np.full(found.shape, VOID, dtype=np.uint16)
        return np.where(found, self.identity, 0).astype(np.uint16)

    def content(self) -> bytes:
        """Hash of the picture with the settings."""
        return _file_hash(self.image) + repr((self.identity, self.tolerance)).encode()


@final
@dataclass(frozen=True)
class ColouredComponents:
    """Mask of a picture with several objects: connected components of `coloured` pixels, one for each object.

    A component is the object whose centre (``pixel_coords``) it holds, holes counted in. If any component of at least
    `SPECK` pixels holds no centre or several, or any centre is in none, the whole mask is void: nothing is guessed.
    That is so for pictures with grey objects and with objects that touch or hide one another.

    Attributes
    ----------
    image : Path
        The picture.
    objects : tuple of (float, float, int)
        Column, row and class id of each object.
    tolerance : int
        For `coloured`.
    """

    image: Path
    objects: tuple[tuple[float, float, int], ...]
    tolerance: int = TOLERANCE

    def load(self) -> UInt16[np.ndarray, "h w"]:
        """Make the mask."""
        found = coloured(np.asarray(open_image(self.image)), self.tolerance)
        components, count = ndimage.label(found, structure=np.ones((3, 3), dtype=bool))
        large = np.bincount(components.ravel(), minlength=count + 1) >= SPECK
        large[0] = False
        void = np.full(found.shape, VOID, dtype=np.uint16)
        owner = {}
        boxes = ndimage.find_objects(components)
        for number in np.flatnonzero(large).tolist():
            rows, columns = boxes[number - 1]
            filled = ndimage.binary_fill_holes(components[rows, columns] == number)
            held = [
                identity
                for x, y, identity in self.objects
                if rows.start <= (row := int(y)) < rows.stop
                and columns.start <= (column := int(x)) < columns.stop
                and filled[row - rows.start, column - columns.start]
            ]
            if len(held) != 1:
                return void
            owner[number] = held[0]
        if len(owner) != len(self.objects):
            return void
        table = np.full(count + 1, VOID, dtype=np.uint16)
        table[0] = 0
        table[list(owner)] = list(owner.values())
        mask: UInt16[np.ndarray, "h w"] = table[components]
        return mask

    def content(self) -> bytes:
        """Hash of the picture with the settings."""
        return _file_hash(self.image) + repr((self.objects, self.tolerance)).encode()


@final
@dataclass(frozen=True)
class InstanceMask:
    """Mask file whose pixels hold 0 or the number of an object, counted from 1 in the order of the scene.

    Attributes
    ----------
    path : Path
        Image of one channel.
    identities : tuple of int
        Class id of each object.
    """

    path: Path
    identities: tuple[int, ...]

    def load(self) -> UInt16[np.ndarray, "h w"]:
        """Make the mask; raises ``DataError`` if a pixel holds the number of no object."""
        (numbers,) = open_mask(self.path)
        highest = int(numbers.max(initial=0))
        if highest > len(self.identities):
            raise DataError(
                f"{self.path}: a pixel is {highest}, but the scene has {len(self.identities)} objects; "
                "pixels must be 0 or an object's number, counted from 1 in the order of the scene"
            )
        mask: UInt16[np.ndarray, "h w"] = np.array((0, *self.identities), dtype=np.uint16)[numbers]
        return mask

    def content(self) -> bytes:
        """Hash of the file with the ids."""
        return _file_hash(self.path) + repr(self.identities).encode()


def _file_hash(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()
