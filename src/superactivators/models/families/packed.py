"""Pixtral's vision tower: the patches of all pictures in one sequence, without CLS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor

from superactivators.errors import DataError, ModelError
from superactivators.models.families.family import ImageFamily, ImageParts, PatchScheme, Positions
from superactivators.models.families.pixel_grid import height_width, processor_settings
from superactivators.models.families.squashed import Squashed
from superactivators.models.geometry import Placement
from superactivators.models.quiet import quiet_transformers


@final
class WholePatches:
    """The size rule of Pixtral's image processor: shrunk into a box, then stretched to whole patches.

    Parameters
    ----------
    processor : transformers image processor
    cell : (height, width)
        Pixels of a patch of the model.
    step : (height, width) or None
        Pixels to whose multiples sizes are rounded up, whatever the processor says; None for what it says.
    name : str
        How error messages call the model.

    Attributes
    ----------
    square : (height, width)
        The largest size of whole steps within the box.

    Raises
    ------
    ModelError
        If the processor does something else, or cuts cells in two.
    """

    def __init__(self, processor: Any, *, cell: tuple[int, int], step: tuple[int, int] | None, name: str) -> None:
        self._processor = processor
        self._overrides = {} if step is None else {"patch_size": {"height": step[0], "width": step[1]}}
        self._name = name
        size = {key: value for key, value in dict(getattr(processor, "size", None) or {}).items() if value is not None}
        if set(size) == {"longest_edge"}:
            self._box = (int(size["longest_edge"]),) * 2
        elif set(size) == {"height", "width"}:
            self._box = (int(size["height"]), int(size["width"]))
        else:
            raise ModelError(
                f"{name}: its image processor resizes to {size}; a longest_edge, or a height and a width, is needed"
            )
        own = step or getattr(processor, "patch_size", None)
        if own is None or not getattr(processor, "do_resize", True) or getattr(processor, "do_center_crop", False):
            raise ModelError(
                f"{name}: its image processor ({type(processor).__name__}) must resize to whole patches of a "
                "patch_size and must not crop; save the image processor of a Pixtral model into the folder"
            )
        self._step = height_width((own["height"], own["width"]) if isinstance(own, dict) else own)
        if any(whole % side for whole, side in zip(self._step, cell, strict=True)):
            raise ModelError(
                f"{name}: its image processor makes whole patches of {self._step[1]} x {self._step[0]} pixels, "
                f"no multiples of the model's {cell[1]} x {cell[0]}; set processor={{'patch_size': {cell[0]}}}"
            )
        high, wide = (max(box // whole, 1) * whole for box, whole in zip(self._box, self._step, strict=True))
        self.square = (high, wide)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after processing."""
        shrunk = (height, width)
        ratio = max(height / self._box[0], width / self._box[1])
        if ratio > 1:
            shrunk = (math.floor(height / ratio), math.floor(width / ratio))
        if min(shrunk) < 1:
            raise DataError(
                f"an image of {width} x {height} pixels is so thin that nothing of it is left after resizing for "
                f"{self._name}; leave it out"
            )
        high, wide = (math.ceil(side / whole) * whole for side, whole in zip(shrunk, self._step, strict=True))
        return high, wide

    def process(self, images: Sequence[Image.Image]) -> tuple[Float[np.ndarray, "n c h w"], list[tuple[int, int]]]:
        """Give pixels and sizes of images that all come out with the same size.

        Raises
        ------
        ModelError
            If a size is not what the rule says.
        """
        with quiet_transformers():
            prepared = self._processor(images=list(images), return_tensors="np", **self._overrides)
        sizes = [(int(high), int(wide)) for high, wide in prepared["image_sizes"]]
        for image, (high, wide) in zip(images, sizes, strict=True):
            expected = self.size(image.height, image.width)
            if (high, wide) != expected:
                raise ModelError(
                    f"the image processor of {self._name} turns {image.width} x {image.height} pixels into "
                    f"{wide} x {high}, but its settings say {expected[1]} x {expected[0]}; its geometry is unknown"
                )
        return np.asarray(prepared["pixel_values"], dtype=np.float32), sizes


@final
class Packed:
    """Patches of all pictures of a batch, one picture after the other, in one sequence.

    Parameters
    ----------
    processor : transformers image processor
    cell : (height, width)
        Pixels of a patch.
    step : (height, width), optional
        See `WholePatches`.
    name : str
        How error messages call the model.

    Attributes
    ----------
    square : (height, width)
        The largest size of whole steps that the processor makes.
    """

    field = "pixel_values"

    def __init__(
        self, processor: Any, *, cell: tuple[int, int], step: tuple[int, int] | None = None, name: str
    ) -> None:
        self.processor = processor
        self.cell = cell
        self._rule = WholePatches(processor, cell=cell, step=step, name=name)
        self.square = self._rule.square

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or patches, as JSON values."""
        return {"processor": processor_settings(self.processor)}

    def place(self, height: int, width: int) -> Placement:
        """Say where an image of this size lands: all of it is shown."""
        return Placement(*self._rule.size(height, width), (0, 0, width, height))

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """Give pixels, and the sizes of the pictures."""
        pixels, sizes = self._rule.process(images)
        return {"pixel_values": torch.from_numpy(pixels), "image_sizes": sizes}

    def picture(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n c h w"]:
        """Run the processor on images that all come out with the same size."""
        return self._rule.process(images)[0]

    def flatten(self, picture: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "..."]:
        """Give the pictures as they are."""
        return picture

    def length(self, grid: tuple[int, int]) -> int:
        """Count the patches."""
        return grid[0] * grid[1]

    def positions(self, grid: tuple[int, int], images: int, sequence: int) -> Positions:
        """Patches of an image follow each other, row by row, after those of the image before."""
        cells = grid[0] * grid[1]
        if sequence != images * cells:
            raise ModelError(
                f"the model returns {sequence} states for {images} images of {grid[0]} x {grid[1]} patches; expected "
                f"{images * cells}"
            )
        return Positions(np.arange(sequence).reshape(images, cells), None)


def packed(parts: ImageParts) -> PatchScheme:
    """Read patch and picture size from config and processor."""
    scheme = Packed(parts.processor, cell=height_width(parts.model.config.patch_size), name=parts.name)
    return Squashed(scheme, scheme.square) if parts.geometry == "squash" else scheme


PACKED = ImageFamily(packed)
"""The vision towers of Pixtral and Mistral 3 (Agrawal et al., 2024, arXiv:2410.07073)."""
