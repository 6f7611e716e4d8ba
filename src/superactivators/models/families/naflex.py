"""SigLIP 2 for pictures of any shape (NaFlex): a row of flattened patches, padded at its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor

from superactivators.errors import ModelError
from superactivators.models.families.family import ImageFamily, ImageParts, PatchScheme, Positions
from superactivators.models.families.pixel_grid import processor_settings
from superactivators.models.families.squashed import Squashed
from superactivators.models.geometry import Placement
from superactivators.models.quiet import quiet_transformers

_SCALE_STEP, _SCALE_MOST = 1e-5, 100.0


def most_patches_size(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """Size of whole patches, at most so many, that keeps the shape of an image best.

    Both sides are scaled alike and rounded up to whole patches; the scale is bisected between 1e-6 and 100 until it is
    known to 1e-5, as the processor of SigLIP 2 does it.

    Returns
    -------
    height, width : int
        In pixels.
    """

    def scaled(scale: float) -> tuple[int, int]:
        high, wide = (max(patch, math.ceil(scale * side / patch) * patch) for side in (height, width))
        return high, wide

    low, high = _SCALE_STEP / 10, _SCALE_MOST
    while high - low >= _SCALE_STEP:
        middle = (low + high) / 2
        tall, wide = scaled(middle)
        if (tall / patch) * (wide / patch) <= most:
            low = middle
        else:
            high = middle
    return scaled(low)


@final
class PatchRow:
    """Patches as rows of pixels, one picture after the other, each padded to the same number of patches.

    Parameters
    ----------
    processor : transformers image processor
    patch : int
        Pixels of a patch's side.
    most : int
        Patches to which every picture is padded.
    name : str
        How error messages call the processor.
    """

    field = "pixel_values"

    def __init__(self, processor: Any, *, patch: int, most: int, name: str) -> None:
        self.processor = processor
        self.cell = (patch, patch)
        self._patch = patch
        self._most = most
        self._name = name

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or patches, as JSON values."""
        return {"processor": processor_settings(self.processor)}

    def place(self, height: int, width: int) -> Placement:
        """Say where an image of this size lands: all of it is shown."""
        return Placement(*most_patches_size(height, width, self._patch, self._most), (0, 0, width, height))

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """Give rows of patches, which of them are padding, and the grid of every picture."""
        with quiet_transformers():
            prepared = self.processor(images=list(images), return_tensors="pt")
        shapes = prepared["spatial_shapes"].tolist()
        for image, shape in zip(images, shapes, strict=True):
            placed = self.place(image.height, image.width)
            expected = [placed.height // self._patch, placed.width // self._patch]
            if shape != expected:
                raise ModelError(
                    f"{self._name} cuts {image.width} x {image.height} pixels into {shape[1]} x {shape[0]} patches, "
                    f"but its settings say {expected[1]} x {expected[0]}; its geometry is unknown"
                )
        return {name: prepared[name] for name in ("pixel_values", "pixel_attention_mask", "spatial_shapes")}

    def picture(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n c h w"]:
        """Put the patches of images that have the same grid back into pictures."""
        inputs = self.inputs(images)
        rows: Float[np.ndarray, "n patches values"] = inputs["pixel_values"].float().numpy()
        high, wide = inputs["spatial_shapes"][0].tolist()
        # a row of values is a patch, line by line, with the channels of a pixel side by side
        cut = rows[:, : high * wide].reshape(len(rows), high, wide, self._patch, self._patch, -1)
        return cut.transpose(0, 5, 1, 3, 2, 4).reshape(len(rows), -1, high * self._patch, wide * self._patch)

    def flatten(self, picture: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "..."]:
        """Cut pictures into rows of patches, with rows of zeros behind them."""
        n, channels, height, width = picture.shape
        high, wide = height // self._patch, width // self._patch
        cut = picture.reshape(n, channels, high, self._patch, wide, self._patch).permute(0, 2, 4, 3, 5, 1)
        rows = cut.reshape(n, high * wide, -1)
        return torch.nn.functional.pad(rows, (0, 0, 0, self._most - high * wide))

    def length(self, grid: tuple[int, int]) -> int:
        """Count the patches to which every picture is padded."""
        return self._most

    def positions(self, grid: tuple[int, int], images: int, sequence: int) -> Positions:
        """Patches stand at the beginning of each image's sequence, row by row; padding comes after them."""
        high, wide = grid
        if sequence < high * wide:
            raise ModelError(f"the model returns {sequence} states for {high} x {wide} patches")
        return Positions(np.arange(images)[:, None] * sequence + np.arange(high * wide), None)


def patch_row(parts: ImageParts) -> PatchScheme:
    """Read patch size and number of patches from the processor, and check them against the model."""
    config, processor = parts.model.config, parts.processor
    patch, most = (getattr(processor, name, None) for name in ("patch_size", "max_num_patches"))
    if not isinstance(patch, int) or not isinstance(most, int) or not getattr(processor, "do_resize", True):
        raise ModelError(
            f"{parts.name}: its image processor ({type(processor).__name__}) must resize to a patch_size and "
            "max_num_patches; save the image processor of a SigLIP 2 NaFlex model into the folder"
        )
    if most < 1 or patch != config.patch_size:
        raise ModelError(
            f"{parts.name}: its image processor cuts at most {most} patches of {patch} pixels, but the model reads "
            f"patches of {config.patch_size}; set processor={{'patch_size': {config.patch_size}}}"
        )
    if math.isqrt(config.num_patches) ** 2 != config.num_patches:
        raise ModelError(
            f"{parts.name}: its config says num_patches={config.num_patches}, but the positions must form a square; "
            "save the model again"
        )
    scheme = PatchRow(processor, patch=patch, most=most, name=f"the image processor of {parts.name}")
    side = math.isqrt(most) * patch
    return Squashed(scheme, (side, side)) if parts.geometry == "squash" else scheme


NAFLEX = ImageFamily(patch_row)
"""The NaFlex vision towers of SigLIP 2 (Tschannen et al., 2025, arXiv:2502.14786)."""
