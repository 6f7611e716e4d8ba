"""How an image processor moves pixels: derived from its settings, then proven by sending coordinates through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.image_utils import get_image_size_for_max_height_width

from superactivators.errors import ModelError

TOLERANCE = 0.015
"""Largest accepted distance between derived and measured coordinates, as a share of the image's side."""

_PROOF_SIZES = ((331, 211), (197, 353), (61, 47))  # (width, height): wide, tall, and smaller than most models' input


@final
@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image of one size lands.

    Attributes
    ----------
    height, width : int
        Pixels of the processed image.
    view : tuple of float
        Box (left, top, right, bottom), in pixels of the original image, that the processed image shows. It is smaller
        than the image after a crop and larger after padding.
    """

    height: int
    width: int
    view: tuple[float, float, float, float]

    def cropped_to(self, height: int, width: int) -> Placement:
        """Keep only the first ``height`` rows and ``width`` columns."""
        left, top, right, bottom = self.view
        return Placement(
            height,
            width,
            (left, top, left + (right - left) * width / self.width, top + (bottom - top) * height / self.height),
        )


@final
@dataclass(frozen=True, slots=True)
class ImageGeometry:
    """The steps of a processor that move pixels.

    Attributes
    ----------
    resize : dict of str to int, or None
        The processor's ``size``.
    crop, pad : (height, width) or None
        Centre crop, and size to which the right and the bottom are padded.
    crop_rounds : bool
        Whether half a pixel of a crop goes to the even side, as in torchvision, and not always to the first one.
    """

    resize: dict[str, int] | None
    crop: tuple[int, int] | None
    pad: tuple[int, int] | None
    crop_rounds: bool = False

    @classmethod
    def of(cls, processor: Any) -> ImageGeometry:
        """Read the steps from a processor's settings; raises ``ModelError`` for padding to an unknown size."""
        size, crop, pad = (_sizes(getattr(processor, name, None)) for name in ("size", "crop_size", "pad_size"))
        does = {step: bool(getattr(processor, f"do_{step}", False)) for step in ("resize", "center_crop", "pad")}
        if does["pad"] and not ("height" in pad and "width" in pad):
            # images are processed by groups of equal size, so padding to the largest of a group adds nothing
            does["pad"] = False
        return cls(
            resize=size if does["resize"] else None,
            crop=_height_width(crop) if does["center_crop"] else None,
            pad=_height_width(pad) if does["pad"] else None,
            crop_rounds=bool(getattr(processor, "crop_rounds", False)),
        )

    def place(self, height: int, width: int) -> Placement:
        """Follow an image of the given size through the steps.

        Raises
        ------
        ModelError
            If the size rule is unknown.
        """
        out_height, out_width = (height, width) if self.resize is None else _resized(self.resize, height, width)
        down, across = height / out_height, width / out_width  # original pixels per processed pixel
        top = left = 0
        if self.crop is not None:
            # negative where the image is smaller than the crop: it is padded, half of it (rounded up) before
            top, left = (self._first(out, kept) for out, kept in zip((out_height, out_width), self.crop, strict=True))
            out_height, out_width = self.crop
        if self.pad is not None:
            out_height, out_width = max(out_height, self.pad[0]), max(out_width, self.pad[1])
        view = (left * across, top * down, (left + out_width) * across, (top + out_height) * down)
        return Placement(out_height, out_width, view)

    def _first(self, out: int, kept: int) -> int:
        """Pixel at which a crop begins."""
        if not self.crop_rounds:
            return (out - kept) // 2
        return round((out - kept) / 2) if out >= kept else -((kept - out) // 2)


def _sizes(setting: Any) -> dict[str, int]:
    return {} if setting is None else {name: int(value) for name, value in dict(setting).items() if value is not None}


def _height_width(setting: dict[str, int]) -> tuple[int, int]:
    if "height" not in setting or "width" not in setting:
        raise ModelError(f"the image processor crops or pads to {setting}; a height and a width are needed")
    return setting["height"], setting["width"]


def _resized(size: dict[str, int], height: int, width: int) -> tuple[int, int]:
    names = set(size)
    if names == {"height", "width"}:
        return size["height"], size["width"]
    if names == {"shortest_edge"}:
        short, long = sorted((height, width))
        edge = size["shortest_edge"]
        stretched = int(edge * long / short)
        return (stretched, edge) if width <= height else (edge, stretched)
    if names == {"shortest_edge", "longest_edge"}:
        high, wide = get_size_with_aspect_ratio((height, width), size["shortest_edge"], size["longest_edge"])
        return int(high), int(wide)
    if names == {"max_height", "max_width"}:
        high, wide = get_image_size_for_max_height_width((height, width), size["max_height"], size["max_width"])
        return int(high), int(wide)
    raise ModelError(
        f"the image processor resizes to {size}, a rule that is not known here, so patches cannot be located; "
        "set geometry='squash' to resize the whole image to the model's square"
    )


def prove_geometry(
    place: Callable[[int, int], Placement],
    process: Callable[[Sequence[Image.Image]], Float[np.ndarray, "n c h w"]],
    name: str,
) -> float:
    """Send images of pixel coordinates through a processor and compare where they land with what was derived.

    Parameters
    ----------
    place : function of (height, width)
        Where an image of this size lands, as derived from the settings.
    process : function of a list of images
        The processor itself; gives float pixels of shape (images, channels, height, width).
    name : str
        How the error message calls the processor.

    Returns
    -------
    float
        Largest distance found, as a share of the image's side.

    Raises
    ------
    ModelError
        If sizes differ, or a coordinate is off by more than `TOLERANCE`.
    """
    worst = 0.0
    for width, height in _PROOF_SIZES:
        placement = place(height, width)
        ramp = _ramp(height, width)
        flat = [Image.new("RGB", (width, height), (level,) * 3) for level in (0, 255)]
        black, white, seen = (process([image])[0][:2] for image in (*flat, Image.fromarray(ramp)))
        if seen.shape[1:] != (placement.height, placement.width):
            raise ModelError(
                f"{name} turns {width} x {height} pixels into {seen.shape[2]} x {seen.shape[1]}, but its settings say "
                f"{placement.width} x {placement.height}; its geometry is unknown, "
                "set geometry='squash' if it can resize"
            )
        left, top, right, bottom = placement.view
        xs = left + (np.arange(placement.width) + 0.5) * (right - left) / placement.width
        ys = top + (np.arange(placement.height) + 0.5) * (bottom - top) / placement.height
        # two pixels from the border resampling mixes in what is outside
        margin_x = 2 * max(1.0, (right - left) / placement.width)
        margin_y = 2 * max(1.0, (bottom - top) / placement.height)
        inside = np.ix_(
            (ys > margin_y) & (ys < height - margin_y),
            (xs > margin_x) & (xs < width - margin_x),
        )
        gain = (white - black)[:, inside[0], inside[1]]
        if gain.size == 0 or np.abs(gain).min() < 1e-6:
            raise ModelError(
                f"{name} shows no pixels where its settings say that the image is; its geometry is unknown"
            )
        level = (seen - black)[:, inside[0], inside[1]] / gain  # 0 at the first pixel's centre, 1 at the last one's
        expected = ((xs[inside[1]] - 0.5) / (width - 1), (ys[inside[0]] - 0.5) / (height - 1))
        gap = max(float(np.abs(level[axis] - expected[axis]).max()) for axis in (0, 1))
        worst = max(worst, gap)
    if not worst <= TOLERANCE:
        raise ModelError(
            f"{name} puts pixels up to {worst:.1%} of the image's side away from where its settings say; its geometry "
            "is unknown, set geometry='squash' if it can resize"
        )
    return worst


def _ramp(height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Image whose red grows from left to right and whose green grows from top to bottom."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[..., 0] = np.round(np.linspace(0, 255, width))[None, :]
    image[..., 1] = np.round(np.linspace(0, 255, height))[:, None]
    return image
