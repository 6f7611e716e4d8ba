"""Outlines of objects in COCO's three notations, kept as compressed run lengths and painted when asked."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Int, UInt16

from superactivators.data.formats.planes import pack_planes
from superactivators.errors import DataError


@cache
def coco_masks() -> Any:  # the module has no types
    """Import the module ``pycocotools.mask``; raises ``DataError`` where it is not installed."""
    try:
        return import_module("pycocotools.mask")
    except ImportError:
        raise DataError(
            "outlines of COCO files need the package pycocotools; pip install 'superactivators[data]'"
        ) from None


@final
@dataclass(frozen=True, slots=True)
class RegionMask:
    """Class ids of the pixels of one image, from its objects' regions.

    Attributes
    ----------
    height, width : int
    regions : tuple of (int, bytes)
        Class id and COCO's compressed run lengths of every object.
    """

    height: int
    width: int
    regions: tuple[tuple[int, bytes], ...]

    def load(self) -> UInt16[np.ndarray, "planes h w"]:
        """Paint: objects of one class are united; classes that overlap go to further planes."""
        of_class: dict[int, Bool[np.ndarray, "h w"]] = {}
        for identity, counts in sorted(self.regions):
            painted = _paint(counts, self.height, self.width)
            of_class[identity] = of_class[identity] | painted if identity in of_class else painted
        return pack_planes(of_class.items(), (self.height, self.width))

    def content(self) -> bytes:
        """Hash of the regions; their order does not matter."""
        return hashlib.sha256(repr((self.height, self.width, sorted(self.regions))).encode()).digest()


def encode_region(segmentation: object, box: object, height: int, width: int, boxes: bool) -> bytes | str | None:
    """Compressed run lengths of one object.

    Parameters
    ----------
    segmentation : polygons, run lengths, or nothing
        A list of polygons ``[x1, y1, x2, y2, ...]``, or one such list; or an object with ``size`` and ``counts`` (a
        list or a string). Polygons of fewer than three points have no area and are left out.
    box : list of four numbers or None
        ``[x, y, width, height]``: stands for an object that has no outline. It holds the pixels whose centres it holds.
    height, width : int
        Of the image.
    boxes : bool
        Whether boxes may stand for outlines.

    Returns
    -------
    bytes, str or None
        Run lengths; a string that says what is wrong; or None where there is nothing to paint.
    """
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, height, width)
    if segmentation is not None and not isinstance(segmentation, list):
        return f"segmentation must be a list of polygons or an object of run lengths; got {segmentation!s:.40}"
    polygons = segmentation or []
    if polygons and not isinstance(polygons[0], list):
        polygons = [polygons]
    for polygon in polygons:
        if not isinstance(polygon, list) or not all(_is_number(value) for value in polygon):
            return f"a polygon must be a list of numbers x1, y1, x2, y2, ...; got {polygon!s:.40}"
        if len(polygon) % 2:
            return f"a polygon must have as many x as y, but it has {len(polygon)} numbers"
        # Checked here, because the painter needs memory for every step along the outline.
        if polygon and max(map(abs, polygon)) > 10 * max(height, width):
            return f"a polygon is far outside its image of {height} x {width} pixels (height x width)"
    whole = [polygon for polygon in polygons if len(polygon) >= 6]
    if whole:
        tools = coco_masks()
        merged: bytes = tools.merge(tools.frPyObjects(whole, height, width))["counts"]
        return merged
    if box is None or not boxes:
        return None
    return _from_box(box, height, width)


def area(counts: bytes) -> int:
    """Count the pixels of a region."""
    runs = _run_lengths(counts)
    return 0 if runs is None else int(runs[1::2].sum())


def _paint(counts: bytes, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """Paint one region; here and not by pycocotools, whose decoder makes NumPy warn."""
    runs = _run_lengths(counts)
    assert runs is not None  # noqa: S101  # they were checked, or made by pycocotools
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _from_runs(segmentation: dict[str, Any], height: int, width: int) -> bytes | str:
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if size != [height, width]:
        return f"run lengths are of size {size!s:.40}, but the image's height and width are [{height}, {width}]"
    if isinstance(counts, str):
        if not counts.isascii() or (runs := _run_lengths(counts.encode())) is None:
            return f"run lengths {counts!r:.40} are not in COCO's compressed notation"
    elif isinstance(counts, list) and all(type(run) is int for run in counts):
        runs = np.array(counts, dtype=np.int64)
    else:
        return f"run lengths must be a list of whole numbers or a string; got {counts!s:.40}"
    # Checked here, because the decoder trusts its input.
    if len(runs) == 0 or runs.min() < 0 or runs.sum() != height * width:
        return f"run lengths sum to {int(runs.sum())}, but the image has {height} x {width} = {height * width} pixels"
    if isinstance(counts, str):
        return counts.encode()
    packed: bytes = coco_masks().frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"]
    return packed


def _run_lengths(text: bytes) -> Int[np.ndarray, " runs"] | None:
    """Read the compressed notation: five bits a sign, lowest first, the third run on as differences to two before."""
    signs = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if len(signs) == 0 or signs.min() < 0 or signs.max() > 63 or signs[-1] & 32:
        return None
    ends = np.flatnonzero((signs & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        return None
    place = np.arange(len(signs)) - np.repeat(starts, lengths)
    runs: Int[np.ndarray, " runs"] = np.add.reduceat((signs & 31) << (5 * place), starts)
    runs -= np.where(signs[ends] & 16, np.int64(1) << (5 * lengths), 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _from_box(box: object, height: int, width: int) -> bytes | str:
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        return f"bbox must be four numbers x, y, width, height; got {box!s:.60}"
    x, y, wide, high = box
    if wide < 0 or high < 0:
        return f"bbox must have a width and height of at least 0; got {box}"
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    inside = np.outer((rows >= y) & (rows < y + high), (columns >= x) & (columns < x + wide))
    encoded: bytes = coco_masks().encode(np.asfortranarray(inside, dtype=np.uint8))["counts"]
    return encoded
