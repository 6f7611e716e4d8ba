"""Masks of classes that may overlap, packed into as few planes of class ids as possible."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, UInt16


def pack_planes(
    masks: Iterable[tuple[int, Bool[np.ndarray, "h w"]]], shape: tuple[int, int]
) -> UInt16[np.ndarray, "planes h w"]:
    """Pack masks into planes: each pixel's ids fill its planes from the first on, in the order given.

    Parameters
    ----------
    masks : iterable of (int, bool array of shape (height, width))
        Class id and pixels; a class comes once.
    shape : (int, int)
        Height and width.

    Returns
    -------
    uint16 array of shape (planes, height, width)
        At least one plane; as many as the most ids that a pixel has.
    """
    planes = [np.zeros(shape, dtype=np.uint16)]
    for identity, mask in masks:
        left = mask.copy()
        for plane in planes:
            free = left & (plane == 0)
            plane[free] = identity
            left &= ~free
        if left.any():
            planes.append(np.where(left, np.uint16(identity), np.uint16(0)))
    return np.stack(planes)


def class_ids(count: int) -> list[int]:
    """Ids of so many classes: 1, 2, ... without 255, which means unlabelled."""
    return [number for number in range(1, count + 2) if number != 255][:count]
