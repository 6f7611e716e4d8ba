"""Pixtral's vision tower: the patches of all pictures in one sequence, without CLS."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from superactivators.errors import ModelError
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
        Pixels of what one state stands for.
    name : str
        How error messages call the model.

    Attributes
    ----------
    step : (height, width)
        Pixels to whose multiples the processor rounds sizes up.
    square : (height, width)
        The largest size of whole steps within the box.

    Raises
    ------
    ModelError
        If the processor does something else, or cuts cells in two.
    """

    def __init__(self, processor: Any, cell: tuple[int, int], name: str) -> None:
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
        step = getattr(processor, "patch_size", None)
        if step is None or not getattr(processor, "do_resize", True) or getattr(processor, "do_center_crop", False):
            raise ModelError(
                f"{name}: its image processor ({type(processor).__name__}) must resize to whole patches of a "
                "patch_size and must not crop; save the image processor of a Pixtral model into the folder"
            )
        self.step = height_width(step if isinstance(step, int) else (step["height"], step["width"]))
        if any(own % side for own, side in zip(self.step, cell, strict=True)):
            raise ModelError(
                f"{name}: its image processor makes whole patches of {self.step[1]} x {self.step[0]} pixels, "
                f"which are no multiples of the model's {cell[1]} x {cell[0]}; set processor={{'patch_size': {cell[0]}}}"
            )
        high, wide = (max(box // own, 1) * own for box, own in zip(self._box, self.step, strict=True))
        self.square = (high, wide)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after processing."""
        ratio = max(height / self._box[0], width / self._box[1])
        if ratio > 1:
            height, width = math.floor(height / ratio), math.floor(width / ratio)
        if min(height, width) < 1:
            raise ModelError(
                f"{self._name}: an image is so thin that nothing of it is left after resizing; leave it out"
            )
        high, wide = (math.ceil(side / own) * own for side, own in zip((height, width), self.step, strict=True))
        return high, wide

    def place(self, height: int, width: int) -> Placement:
        """Say where an image of this size lands: all of it is shown."""
        return Placement(*self.size(height, width), (0, 0, width, height))


@final
class Packed:
    """Patches of all pictures of a batch, one picture after the other, in one sequence.

    Parameters
    ----------
    processor : transformers image processor
    cell : (height, width)
        Pixels of a patch.
    name : str
        How error messages call the model.
    """

    one_grid = False

    def __init__(self, processor: Any, cell: tuple[int, int], name: str) -> None:
        self.processor = processor
        self.cell = cell
        self.rule = WholePatches(processor, cell, name)

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or patches, as JSON values."""
        return {"processor": processor_settings(self.processor)}

    def place(self, height: int, width: int) -> Placement:
        """Say where an image of this size lands."""
        return self.rule.place(height, width)

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """Give pixels, and the sizes of the pictures."""
        pixels, sizes = processed(self.processor, self.rule, images)
        return {"pixel_values": torch.from_numpy(pixels), "image_sizes": sizes}

    def picture(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n c h w"]:
        """Run the processor on images that all come out with the same size."""
        return processed(self.processor, self.rule, images)[0]

    def positions(self, grid: tuple[int, int], images: int, sequence: int) -> Positions:
        """Patches of an image follow each other, row by row, after those of the image before."""
        cells = grid[0] * grid[1]
        if sequence != images * cells:
            raise ModelError(
                f"the model returns {sequence} states for {images} images of {grid[0]} x {grid[1]} patches; expected "
                f"{images * cells}"
            )
        return Positions(np.arange(sequence).reshape(images, cells), None)


def processed(
    processor: Any, rule: WholePatches, images: Sequence[Image.Image]
) -> tuple[Float[np.ndarray, "n c h w"], list[tuple[int, int]]]:
    """Run Pixtral's image processor on images that all come out with the same size.

    Raises
    ------
    ModelError
        If a size is not what the rule says.
    """
    with quiet_transformers():
        prepared = processor(images=list(images), return_tensors="np")
    sizes = [(int(high), int(wide)) for high, wide in prepared["image_sizes"]]
    expected = [rule.size(image.height, image.width) for image in images]
    if sizes != expected:
        high, wide = next(own for own, right in zip(sizes, expected, strict=True) if own != right)
        raise ModelError(
            f"the image processor ({type(processor).__name__}) makes a picture of {wide} x {high} pixels where its "
            "settings say something else; its geometry is unknown"
        )
    return np.asarray(prepared["pixel_values"], dtype=np.float32), sizes


def packed(parts: ImageParts) -> PatchScheme:
    """Read patch and picture size from config and processor."""
    scheme = Packed(parts.processor, height_width(parts.model.config.patch_size), parts.name)
    return Squashed(scheme, scheme.rule.square) if parts.geometry == "squash" else scheme


PACKED = ImageFamily(packed)
"""The vision towers of Pixtral and Mistral 3 (Agrawal et al., 2024, arXiv:2410.07073)."""
