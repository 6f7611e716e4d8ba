"""Mllama (Llama 3.2 Vision): pictures on a canvas of tiles, a vision tower of local and then of global blocks.

A picture is fitted into a canvas of rows x columns of square tiles and padded with black at the right and the bottom.
The tower always gets ``max_num_tiles`` tiles, those that are not used empty, and its states are those of all tiles, one
after the other: in each tile CLS, the patches row by row, and empty states up to a multiple of 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor, nn

from superactivators.errors import ModelError
from superactivators.models.families.family import ImageFamily, ImageParts, PatchScheme, Positions
from superactivators.models.families.pixel_grid import processor_settings
from superactivators.models.families.squashed import Squashed
from superactivators.models.geometry import Placement, prove_geometry
from superactivators.models.quiet import quiet_transformers

_MULTIPLE = 8  # states of a tile are padded to a multiple of it inside the tower


def tile_arrangements(tiles: int) -> list[tuple[int, int]]:
    """Give all (rows, columns) of at most ``tiles`` tiles, in the order in which the processor numbers them."""
    sides = range(1, tiles + 1)
    return [(rows, columns) for rows in sides for columns in sides if rows * columns <= tiles]


def fit_to_tiles(height: int, width: int, tile: int, tiles: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Choose a canvas of tiles for an image, and its size on it.

    Parameters
    ----------
    height, width : int
        Of the image.
    tile : int
        Side of a tile in pixels.
    tiles : int
        Most tiles of a canvas.

    Returns
    -------
    arrangement : (rows, columns)
        The canvas that can hold the image with the least enlargement; if none can hold it, that with the least
        reduction; of several, the smallest.
    size : (height, width)
        Of the image on the canvas, its sides in proportion: not smaller than a tile and not larger than the canvas
        along the side that decides.
    """
    arrangements = tile_arrangements(tiles)
    scales = [min(rows * tile / height, columns * tile / width) for rows, columns in arrangements]
    enlarging = [scale for scale in scales if scale >= 1]
    chosen = min(enlarging) if enlarging else max(scales)
    fitting = [place for place, scale in zip(arrangements, scales, strict=True) if scale == chosen]
    rows, columns = min(fitting, key=lambda place: place[0] * place[1])
    high, wide = min(max(height, tile), rows * tile), min(max(width, tile), columns * tile)
    if wide / width < high / height:
        return (rows, columns), (min(math.floor(height * (wide / width)) or 1, high), wide)
    return (rows, columns), (high, min(math.floor(width * (high / height)) or 1, wide))


@final
class TileCanvas:
    """Patches of a canvas of tiles.

    Parameters
    ----------
    processor : transformers image processor
        Of Mllama.
    patch : int
        Side of a patch in pixels.
    tile : int
        Side of a tile in pixels, a multiple of it.
    slots : int
        Tiles that the tower always gets.
    ratios : sequence of (rows, columns)
        Canvases that the tower knows, in its order.
    tiles : int
        Most tiles that the processor cuts an image into.
    name : str
        How error messages call the processor.
    """

    field = "pixel_values"

    def __init__(
        self,
        processor: Any,
        *,
        patch: int,
        tile: int,
        slots: int,
        ratios: Sequence[tuple[int, int]],
        tiles: int,
        name: str,
    ) -> None:
        self.processor = processor
        self.cell = (patch, patch)
        self._tile = tile
        self._side = tile // patch
        self._padded = math.ceil((1 + self._side * self._side) / _MULTIPLE) * _MULTIPLE
        self._slots = slots
        self._ratios = list(ratios)
        self._tiles = tiles
        self._name = name

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or patches, as JSON values."""
        return {"processor": processor_settings(self.processor)}

    def place(self, height: int, width: int) -> Placement:
        """Say where an image of this size lands: at the top left of its canvas."""
        (rows, columns), (high, wide) = fit_to_tiles(height, width, self._tile, self._tiles)
        canvas = (rows * self._tile, columns * self._tile)
        return Placement(*canvas, (0.0, 0.0, canvas[1] * width / wide, canvas[0] * height / high))

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """Give tiles, which canvas they make, and which of them are used.

        The processor numbers the canvases that it can make, and pads to the tiles that it can make; the tower wants its
        own numbers and its own count of tiles, which differ when ``max_image_tiles`` was changed.

        Raises
        ------
        ModelError
            If the processor does not choose the canvas that follows from its settings.
        """
        arrangement, _ = fit_to_tiles(images[0].height, images[0].width, self._tile, self._tiles)
        used = arrangement[0] * arrangement[1]
        with quiet_transformers():
            given = self.processor(images=[[image] for image in images], return_tensors="np")
        number = tile_arrangements(self._tiles).index(arrangement) + 1
        if not (np.asarray(given["aspect_ratio_ids"]) == number).all():
            raise ModelError(
                f"{self._name} does not put an image of {images[0].width} x {images[0].height} pixels on "
                f"{arrangement[0]} x {arrangement[1]} tiles as its settings say; its geometry is unknown"
            )
        tiles = np.asarray(given["pixel_values"], dtype=np.float32)[:, 0, :used]
        pixels = np.zeros((len(images), 1, self._slots, *tiles.shape[2:]), dtype=np.float32)
        pixels[:, 0, :used] = tiles
        mask = torch.zeros(len(images), 1, self._slots, dtype=torch.int64)
        mask[..., :used] = 1
        return {
            "pixel_values": torch.from_numpy(pixels),
            "aspect_ratio_ids": torch.full((len(images), 1), self._ratios.index(arrangement) + 1),
            "aspect_ratio_mask": mask,
        }

    def picture(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n c h w"]:
        """Put the tiles that the tower gets back on the canvas that it is told."""
        inputs = self.inputs(images)
        rows, columns = self._ratios[int(inputs["aspect_ratio_ids"][0, 0]) - 1]
        tiles = inputs["pixel_values"][:, 0, : rows * columns].numpy()
        n, _, channels, high, wide = tiles.shape
        canvas = tiles.reshape(n, rows, columns, channels, high, wide).transpose(0, 3, 1, 4, 2, 5)
        return np.ascontiguousarray(canvas.reshape(n, channels, rows * high, columns * wide))

    def flatten(self, picture: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "..."]:
        """Cut canvases into tiles, with empty ones behind them."""
        n, channels, height, width = picture.shape
        rows, columns = height // self._tile, width // self._tile
        cut = picture.reshape(n, channels, rows, self._tile, columns, self._tile).permute(0, 2, 4, 1, 3, 5)
        result = picture.new_zeros(n, 1, self._slots, channels, self._tile, self._tile)
        result[:, 0, : rows * columns] = cut.flatten(1, 2)
        return result

    def length(self, grid: tuple[int, int]) -> int:
        """Count the states of all tiles, empty ones too, whatever the canvas."""
        return self._slots * self._padded

    def positions(self, grid: tuple[int, int], images: int, sequence: int) -> Positions:
        """Find each cell in its tile; CLS is that of the first tile."""
        patches, padded = self._side * self._side, self._padded
        each = sequence // self._slots
        if sequence != each * self._slots or each not in (1 + patches, padded):
            raise ModelError(
                f"the model returns {sequence} states for {self._slots} tiles; expected {self._slots * padded}, or "
                f"{self._slots * (1 + patches)} without padding"
            )
        row, column = np.arange(grid[0])[:, None], np.arange(grid[1])[None, :]
        tile = (row // self._side) * (grid[1] // self._side) + column // self._side
        place = tile * each + 1 + (row % self._side) * self._side + column % self._side
        first = np.arange(images) * sequence
        return Positions(first[:, None] + place.ravel(), first)


def tile_canvas(parts: ImageParts) -> PatchScheme:
    """Read tiles and patches from the config, compare them with the processor, and prove the order of the tiles.

    Raises
    ------
    ModelError
        If tower and processor do not fit each other, or tiles are not where they should be.
    """
    config, name = parts.model.config, f"the image processor of {parts.name}"
    tile, patch, slots = int(config.image_size), int(config.patch_size), int(config.max_num_tiles)
    if tile % patch:
        raise ModelError(f"{parts.name}: tiles of {tile} pixels are not whole patches of {patch}; it cannot be used")
    tiles, size = getattr(parts.processor, "max_image_tiles", None), getattr(parts.processor, "size", None)
    if tiles is None or size is None:
        raise ModelError(
            f"{name} is a {type(parts.processor).__name__}, which makes no tiles; "
            "save the model's own image processor into the folder"
        )
    sides = {key: int(value) for key, value in dict(size).items() if value is not None}
    if sides != {"height": tile, "width": tile}:
        raise ModelError(
            f"{name} makes tiles of {sides}, but the vision tower reads tiles of {tile} x {tile} pixels; "
            f"set size to {{'height': {tile}, 'width': {tile}}}"
        )
    ratios = [(int(rows), int(columns)) for rows, columns in config.supported_aspect_ratios]
    unknown = [place for place in tile_arrangements(tiles) if place not in ratios or math.prod(place) > slots]
    if unknown:
        raise ModelError(
            f"{name} makes canvases of up to {tiles} tiles, but the vision tower does not know one of {unknown[0][0]} "
            f"x {unknown[0][1]}; set max_image_tiles to at most {slots}"
        )
    scheme = TileCanvas(parts.processor, patch=patch, tile=tile, slots=slots, ratios=ratios, tiles=tiles, name=name)
    # the small images that prove a geometry would all fit in one tile, so they are also enlarged to several
    for rows, columns in tile_arrangements(tiles):
        if rows * columns > 1:
            full = Squashed(scheme, (rows * tile, columns * tile))
            prove_geometry(full.place, full.picture, name)
    return Squashed(scheme, (tile, tile)) if parts.geometry == "squash" else scheme


def local_and_global_blocks(model: nn.Module, config: Any) -> tuple[str, Sequence[nn.Module]]:
    """Give the local blocks followed by the global ones; see `superactivators.models.blocks.find_blocks`."""
    stacks = [getattr(getattr(model, name, None), "layers", ()) for name in ("transformer", "global_transformer")]
    if [len(stack) for stack in stacks] != [config.num_hidden_layers, config.num_global_layers]:
        raise ModelError(
            f"{type(model).__name__} has {len(stacks[0])} local and {len(stacks[1])} global blocks, but its config "
            f"says {config.num_hidden_layers} and {config.num_global_layers}; it cannot be used"
        )
    return "transformer.layers + global_transformer.layers", [block for stack in stacks for block in stack]


def mllama_vision(config: Any) -> ImageFamily:
    """Make the family of a vision tower of Mllama; its width decides what is taken out of its output."""
    width = int(config.hidden_size)

    def last_global(output: Any) -> Tensor:
        # states of intermediate blocks lie behind those of the last one
        states: Tensor = output.last_hidden_state[..., :width]
        return states.reshape(states.shape[0] * states.shape[1], -1, width)

    return ImageFamily(tile_canvas, local_and_global_blocks, final=last_global)


def mllama_language(config: Any) -> ImageFamily:
    """Refuse images in the language model: it has no image tokens.

    Raises
    ------
    ModelError
        Always.
    """
    raise ModelError(
        f"model type {config.model_type!r}: images are no tokens of its language model, which reads the vision tower "
        "through cross-attention; use tower='vision' for the states of image patches"
    )
