"""Any patch scheme for images that are first resized to one square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor

from superactivators.models.families.family import PatchScheme, Positions
from superactivators.models.geometry import Placement


@final
class Squashed:
    """Resizes every image to one size, bicubically, before a scheme sees it.

    Parameters
    ----------
    scheme : PatchScheme
    size : (height, width)
        Of whole cells, so that nothing of the image is left out.
    """

    def __init__(self, scheme: PatchScheme, size: tuple[int, int]) -> None:
        self._scheme = scheme
        self._size = size
        self.cell = scheme.cell
        self.field = scheme.field

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or patches, as JSON values."""
        return {**self._scheme.settings(), "squash": list(self._size)}

    def place(self, height: int, width: int) -> Placement:
        """Say where an image of this size lands."""
        placed = self._scheme.place(*self._size)
        down, across = height / self._size[0], width / self._size[1]
        left, top, right, bottom = placed.view
        return Placement(placed.height, placed.width, (left * across, top * down, right * across, bottom * down))

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """Give the arguments of the model's ``forward``."""
        return self._scheme.inputs([self._resized(image) for image in images])

    def picture(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n c h w"]:
        """Give the pixels that the model sees."""
        return self._scheme.picture([self._resized(image) for image in images])

    def flatten(self, picture: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "..."]:
        """Put pictures into the layout of the model's input."""
        return self._scheme.flatten(picture)

    def length(self, grid: tuple[int, int]) -> int:
        """Say how many states one image has in a forward pass."""
        return self._scheme.length(grid)

    def positions(self, grid: tuple[int, int], images: int, sequence: int) -> Positions:
        """Find the patches in states of one site."""
        return self._scheme.positions(grid, images, sequence)

    def _resized(self, image: Image.Image) -> Image.Image:
        return image.resize((self._size[1], self._size[0]), Image.Resampling.BICUBIC)
