"""The usual vision transformer: one grid of pixels, cut into patches row by row, after CLS and registers."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor

from superactivators.errors import ModelError
from superactivators.models.families.family import ImageFamily, ImageParts, Positions
from superactivators.models.geometry import ImageGeometry, Placement
from superactivators.models.quiet import quiet_transformers


def height_width(size: Any) -> tuple[int, int]:
    """Height and width from a number or from two."""
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def processor_settings(processor: Any) -> dict[str, Any]:
    """Give the settings of an image processor as JSON values."""
    settings = {key: value for key, value in processor.to_dict().items() if not key.startswith("_")}
    # Pillow's and torchvision's processors of the same settings give pixels that differ a little
    return {"class": type(processor).__name__, **settings}


@final
class PixelGrid:
    """Patches of one grid.

    Parameters
    ----------
    processor : transformers image processor
    patch : (height, width)
        Pixels of a patch.
    registers : int
        Register tokens that the config promises.
    trained_size : (height, width)
        Pixels for which the model has position embeddings.
    resizes_positions : bool
        Whether the model must be asked to interpolate its position embeddings for other sizes.
    squash : bool
        Resize the whole image to the model's square, whatever the processor says.
    name : str
        How error messages call the processor.
    """

    field = "pixel_values"

    def __init__(
        self,
        processor: Any,
        *,
        patch: tuple[int, int],
        registers: int,
        trained_size: tuple[int, int],
        resizes_positions: bool,
        squash: bool,
        name: str,
    ) -> None:
        self.processor = processor
        self.cell = patch
        self._registers = registers
        self._trained_size = trained_size
        self._resizes_positions = resizes_positions
        self._name = name
        self._steps = ImageGeometry.of(processor)
        self._overrides: dict[str, Any] = {}
        if squash:
            size = self._steps.crop or _fixed_size(self._steps.resize) or trained_size
            # whole patches only, so that nothing of the image is left out at the border
            high, wide = (max(side // step, 1) * step for side, step in zip(size, patch, strict=True))
            square = {"height": high, "width": wide}
            self._overrides = {"do_resize": True, "size": square, "do_center_crop": False, "do_pad": False}
            self._steps = ImageGeometry(resize=square, crop=None, pad=None)

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or patches, as JSON values."""
        return {"processor": processor_settings(self.processor)}

    def place(self, height: int, width: int) -> Placement:
        """Say where an image of this size lands."""
        return self._steps.place(height, width)

    def picture(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n c h w"]:
        """Run the processor on images that all come out with the same size."""
        with quiet_transformers():
            pixels = self.processor(images=list(images), return_tensors="np", **self._overrides)["pixel_values"]
        if len(pixels) != len(images):
            raise ModelError(
                f"{self._name} makes {len(pixels)} pictures of {len(images)}, so one place has several patches; switch "
                "that off (Gemma 3: processor={'do_pan_and_scan': False})"
            )
        return np.asarray(pixels, dtype=np.float32)

    def flatten(self, picture: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "..."]:
        """Give the pictures as they are."""
        return picture

    def length(self, grid: tuple[int, int]) -> int:
        """Count the patches and CLS."""
        return grid[0] * grid[1] + 1

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """Give pixels, and whether position embeddings are to be resized."""
        pixels = self.picture(images)
        inputs: dict[str, Any] = {"pixel_values": torch.from_numpy(pixels)}
        if self._resizes_positions and pixels.shape[2:] != self._trained_size:
            inputs["interpolate_pos_encoding"] = True
        return inputs

    def positions(self, grid: tuple[int, int], images: int, sequence: int) -> Positions:
        """Patches stand at the end of each image's sequence, row by row."""
        high, wide = grid
        prefix = sequence - high * wide
        has_cls = prefix == 1 + self._registers
        if not has_cls and prefix != self._registers:
            raise ModelError(
                f"the model returns {sequence} states for {high} x {wide} patches, so {prefix} of them are no "
                f"patches; expected {self._registers} or {1 + self._registers} (registers, and CLS)"
            )
        first = np.arange(images) * sequence
        return Positions(first[:, None] + prefix + np.arange(high * wide), first if has_cls else None)


def _fixed_size(resize: dict[str, int] | None) -> tuple[int, int] | None:
    if resize is None or set(resize) != {"height", "width"}:
        return None
    return resize["height"], resize["width"]


def pixel_grid(parts: ImageParts) -> PixelGrid:
    """Read patch size, registers and trained size from the config."""
    config = parts.model.config
    patch, trained = getattr(config, "patch_size", None), getattr(config, "image_size", None)
    if patch is None or trained is None:
        raise ModelError(
            f"{parts.name}: its config names no patch_size and image_size, so its patches cannot be located; "
            "only vision transformers with one grid of patches can be used"
        )
    return PixelGrid(
        parts.processor,
        patch=height_width(patch),
        registers=int(getattr(config, "num_register_tokens", 0) or 0),
        trained_size=height_width(trained),
        resizes_positions="interpolate_pos_encoding" in inspect.signature(parts.model.forward).parameters,
        squash=parts.geometry == "squash",
        name=f"the image processor of {parts.name}",
    )


PIXEL_GRID = ImageFamily(pixel_grid)
"""ViT, DINOv2, the vision towers of CLIP and SigLIP, and whatever has one grid of patches."""
