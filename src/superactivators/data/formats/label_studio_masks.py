"""Label Studio's regions of an image as masks: rectangles, ellipses, polygons and brush strokes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from jaxtyping import Bool, Float, Integer

from superactivators.data.dataset import VOID
from superactivators.data.formats.text_files import shown
from superactivators.errors import DataError

Kind = Literal["polygon", "ellipse", "brush"]


@final
@dataclass(frozen=True)
class Region:
    """One region with one concept.

    Attributes
    ----------
    identity : int
        Class id of the concept.
    kind : str
        ``"polygon"`` (rectangles too), ``"ellipse"`` or ``"brush"``.
    numbers : tuple of float
        Polygon: x and y of each corner in pixels. Ellipse: x and y of the centre, both radii in pixels, rotation in
        degrees. Brush: none.
    code : bytes
        Brush: the run lengths as Label Studio packs them.
    """

    identity: int
    kind: Kind
    numbers: tuple[float, ...] = ()
    code: bytes = b""


@final
@dataclass(frozen=True)
class RegionMask:
    """Mask of an image, painted of its regions when asked.

    Attributes
    ----------
    width, height : int
        Of the image in pixels.
    drawn : tuple of tuple of Region
        Regions of each annotator.
    agree : bool
        A pixel carries a concept if all annotators say so; otherwise if any does.
    """

    width: int
    height: int
    drawn: tuple[tuple[Region, ...], ...]
    agree: bool = False

    def load(self) -> Integer[np.ndarray, "planes h w"]:
        """Paint the regions; concepts that overlap are in different planes.

        Raises
        ------
        DataError
            If a brush stroke is damaged.
        """
        identities = sorted({region.identity for regions in self.drawn for region in regions})
        kind = np.uint8 if max(identities, default=0) < VOID else np.uint16
        planes = [np.zeros((self.height, self.width), dtype=kind)]
        for identity in identities:
            covered = self._covered(identity)
            free = next((plane for plane in planes if not plane[covered].any()), None)
            if free is None:
                free = np.zeros_like(planes[0])
                planes.append(free)
            free[covered] = identity
        return np.stack(planes)

    def content(self) -> bytes:
        """Digest of all numbers that the pixels are made of."""
        return hashlib.sha256(repr((self.width, self.height, self.drawn, self.agree)).encode()).digest()

    def _covered(self, identity: int) -> Bool[np.ndarray, "h w"]:
        found = np.full((self.height, self.width), self.agree)
        for regions in self.drawn:
            own = np.zeros_like(found)
            for region in regions:
                if region.identity == identity:
                    own |= paint(region, self.width, self.height)
            found = found & own if self.agree else found | own
        return found


def paint(region: Region, width: int, height: int) -> Bool[np.ndarray, "h w"]:
    """Say which pixels of an image a region covers; a pixel is covered if its centre is."""
    if region.kind == "polygon":
        return inside_polygon(np.array(region.numbers, dtype=np.float64).reshape(-1, 2), width, height)
    if region.kind == "ellipse":
        return inside_ellipse(region.numbers, width, height)
    return decode_brush(region.code, width, height)


def rectangle(x: float, y: float, width: float, height: float, rotation: float) -> tuple[float, ...]:
    """Corners, in pixels, of a rectangle that is turned clockwise by degrees about its corner (x, y)."""
    cos, sin = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    corners = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    return tuple(float(part) for a, b in corners for part in (x + a * cos - b * sin, y + a * sin + b * cos))


def inside_polygon(points: Float[np.ndarray, "corners 2"], width: int, height: int) -> Bool[np.ndarray, "h w"]:
    """Say which pixel centres a closed polygon winds around (the non-zero rule, as browsers fill)."""
    turns = np.zeros((height, width + 1), dtype=np.int32)
    rows = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        low, high, sign = (y0, y1, 1) if y0 < y1 else (y1, y0, -1)
        crossed = np.flatnonzero((rows >= low) & (rows < high))
        if len(crossed):
            at = x0 + (rows[crossed] - y0) * (x1 - x0) / (y1 - y0)
            first = np.clip(np.ceil(at - 0.5), 0, width).astype(np.int64)
            turns[crossed, first] += sign
    covered: Bool[np.ndarray, "h w"] = np.cumsum(turns[:, :width], axis=1) != 0
    return covered


def inside_ellipse(numbers: tuple[float, ...], width: int, height: int) -> Bool[np.ndarray, "h w"]:
    """Say which pixel centres are in an ellipse (centre, radii, clockwise degrees)."""
    x, y, across, down, rotation = numbers
    if across <= 0 or down <= 0:
        return np.zeros((height, width), dtype=bool)
    cos, sin = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    right, below = np.arange(width) + 0.5 - x, (np.arange(height) + 0.5 - y)[:, None]
    covered: Bool[np.ndarray, "h w"] = ((right * cos + below * sin) / across) ** 2 + (
        (below * cos - right * sin) / down
    ) ** 2 <= 1
    return covered


def brush_values(code: bytes) -> int:
    """Read the number of values that a brush stroke's code says it holds: four for each pixel."""
    return int.from_bytes(code[:4], "big")


def decode_brush(code: bytes, width: int, height: int) -> Bool[np.ndarray, "h w"]:
    """Unpack a brush stroke: the painted pixels are those whose fourth value, opacity, is not 0.

    The code is a stream of bits, highest first: 32 bits number of values; 5 bits, plus 1, size of a value; four times 4
    bits, plus 1, sizes of counts; then, until all values are there, one bit that says whether a value is repeated, two
    bits that choose a size of count, the count, less 1, and the repeated value, or that many values.

    Raises
    ------
    DataError
        If it holds another number of values than the image, or ends too early.
    """
    n = brush_values(code)
    if n != width * height * 4:
        raise DataError(f"a brush stroke holds {n} values instead of {width * height * 4} (4 for each of the pixels)")
    length = len(code) * 8
    if length < 53:
        raise DataError("a brush stroke's run lengths end too early")
    bits = np.unpackbits(np.frombuffer(code, dtype=np.uint8))
    at = 32

    def read(size: int) -> int:
        nonlocal at
        if at + size > length:
            raise DataError("a brush stroke's run lengths end too early")
        first, last = at >> 3, (at + size + 7) >> 3
        found = int.from_bytes(code[first:last], "big") >> (last * 8 - at - size)
        at += size
        return found & ((1 << size) - 1)

    word = read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    powers = 1 << np.arange(word, dtype=np.int64)[::-1]
    values = np.zeros(n, dtype=np.int64)
    done = 0
    while done < n:
        repeated = read(1)
        count = read(sizes[read(2)]) + 1
        if done + count > n:
            raise DataError(f"a brush stroke's run lengths hold more than {n} values")
        if repeated:
            values[done : done + count] = read(word)
        else:
            if at + count * word > length:
                raise DataError("a brush stroke's run lengths end too early")
            values[done : done + count] = bits[at : at + count * word].reshape(count, word) @ powers
            at += count * word
        done += count
    covered: Bool[np.ndarray, "h w"] = values.reshape(height, width, 4)[:, :, 3] > 0
    return covered


def read_regions(
    kind: str,
    result: Mapping[str, Any],
    value: Mapping[str, Any],
    size: tuple[int, int],
    fault: Callable[[str], None],
) -> list[Region]:
    """Read the geometry of a region, in pixels of an image of a width and height, with class id 0.

    What cannot be read is handed to ``fault``, and the list is empty.
    """
    wide, high = size
    said = (result.get("original_width"), result.get("original_height"))
    if None not in said and said != size:
        fault(f"was drawn on an image of {said[0]} x {said[1]} pixels, but its file is {wide} x {high}")
        return []
    if result.get("image_rotation"):
        fault(
            f"was drawn on an image turned by {result['image_rotation']} degrees, which cannot be read; turn the file"
        )
        return []
    if "rle" in value:
        return _brush(value["rle"], size, fault)
    if "points" in value:
        points = value["points"]
        good = isinstance(points, list) and all(isinstance(p, list) and len(p) == 2 for p in points)
        numbers = _numbers([part for point in points for part in point]) if good else None
        if numbers is None or len(numbers) < 6:
            fault(f"a polygon needs three points [x, y] or more, in percent; got {shown(points)}")
            return []
        return [Region(0, "polygon", tuple(n * (high if i % 2 else wide) / 100 for i, n in enumerate(numbers)))]
    if "radiusX" in value:
        numbers = _numbers([value.get(key, 0) for key in ("x", "y", "radiusX", "radiusY", "rotation")])
        if numbers is not None:
            x, y, across, down, turn = numbers
            scaled = (x * wide / 100, y * high / 100, across * wide / 100, down * high / 100, turn)
            return [Region(0, "ellipse", scaled)]
    elif kind != "keypointlabels" and "height" in value:
        numbers = _numbers([value.get(key, 0) for key in ("x", "y", "width", "height", "rotation")])
        if numbers is not None:
            x, y, across, down, turn = numbers
            corners = rectangle(x * wide / 100, y * high / 100, across * wide / 100, down * high / 100, turn)
            return [Region(0, "polygon", corners)]
    fault(f"a region of type {kind!r} covers no area that can be read; leave it out with the option controls")
    return []


def _brush(code: object, size: tuple[int, int], fault: Callable[[str], None]) -> list[Region]:
    try:
        packed = bytes(code)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        packed = b""
    if not isinstance(code, list) or brush_values(packed) != size[0] * size[1] * 4:
        fault(f"a brush stroke must hold 4 x {size[0]} x {size[1]} values as packed run lengths (a list of bytes, rle)")
        return []
    return [Region(0, "brush", code=packed)]


def _numbers(values: list[Any]) -> list[float] | None:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return [float(value) for value in values]
    return None
