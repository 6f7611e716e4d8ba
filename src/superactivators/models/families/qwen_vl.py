"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, flattened to patches in blocks of 2 x 2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from PIL import Image
from torch import Tensor, nn

from superactivators.errors import DataError, ModelError
from superactivators.models.families.family import ImageFamily, ImageParts, PatchScheme, Positions
from superactivators.models.families.image_tokens import ImageTokens, language_blocks, language_width
from superactivators.models.families.pixel_grid import height_width, processor_settings
from superactivators.models.families.squashed import Squashed
from superactivators.models.geometry import Placement
from superactivators.models.quiet import quiet_transformers

_LONGEST_SHAPE = 200  # sides that differ more than this are refused by the image processors


@final
class MergedPatches:
    """Flattened patches of pictures that keep their shape, in the order in which blocks of them are merged.

    The processor resizes a picture so that its sides are whole blocks of ``merge`` x ``merge`` patches and its area is
    between two numbers of pixels. It gives the patches of all images in one list: block by block (row by row), and
    row by row within a block. Qwen2.5-VL then sorts the blocks by windows of attention, and all its states are in that
    order.

    Parameters
    ----------
    processor : transformers image processor
    patch : int
        Pixels of a side of a patch.
    merge : int
        Patches of a side of a block.
    window : int or None
        Blocks of a side of an attention window, if the model sorts blocks by windows.
    name : str
        How error messages call the processor.
    """

    field = "hidden_states"

    def __init__(self, processor: Any, *, patch: int, merge: int, window: int | None, name: str) -> None:
        self.processor = processor
        self.cell = (patch, patch)
        self._merge = merge
        self._window = window
        self._name = name
        size = processor.size
        self._fewest, self._most = int(size["shortest_edge"]), int(size["longest_edge"])

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or patches, as JSON values."""
        return {"processor": processor_settings(self.processor)}

    def place(self, height: int, width: int) -> Placement:
        """Say where an image of this size lands.

        Raises
        ------
        DataError
            If its sides differ so much that the processor refuses it.
        """
        if max(height, width) > _LONGEST_SHAPE * min(height, width):
            raise DataError(
                f"an image of {width} x {height} pixels is refused by {self._name}: its sides differ more than "
                f"{_LONGEST_SHAPE} times; leave it out"
            )
        block = self.cell[0] * self._merge
        high, wide = round(height / block) * block, round(width / block) * block
        if high * wide > self._most:
            shrink = math.sqrt(height * width / self._most)
            high, wide = (max(block, math.floor(side / shrink / block) * block) for side in (height, width))
        elif high * wide < self._fewest:
            grow = math.sqrt(self._fewest / (height * width))
            high, wide = (math.ceil(side * grow / block) * block for side in (height, width))
        return Placement(high, wide, (0.0, 0.0, float(width), float(height)))

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """Give the patches of all images in one list, and their grids as (time, rows, columns)."""
        prepared = self._prepared(images)
        return {"hidden_states": prepared["pixel_values"], "grid_thw": prepared["image_grid_thw"]}

    def picture(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n c h w"]:
        """Put the patches of images with equal grids back into pictures; of the repeated frames the first."""
        prepared = self._prepared(images)
        patches = np.asarray(prepared["pixel_values"], dtype=np.float32)
        rows, columns = (int(side) for side in prepared["image_grid_thw"][0, 1:])
        step, merge = self.cell[0], self._merge
        frames = int(self.processor.temporal_patch_size)
        blocks = patches.reshape(
            len(images), rows // merge, columns // merge, merge, merge, -1, frames, step, step
        ).transpose(6, 0, 5, 1, 3, 7, 2, 4, 8)
        picture: np.ndarray = blocks[0].reshape(len(images), -1, rows * step, columns * step)
        return picture

    def flatten(self, picture: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "..."]:
        """Cut pictures into patches, block by block, every frame the same."""
        n, channels, height, width = picture.shape
        step, merge, frames = self.cell[0], self._merge, int(self.processor.temporal_patch_size)
        high, wide = height // (step * merge), width // (step * merge)
        blocks = picture.reshape(n, channels, high, merge, step, wide, merge, step).permute(0, 2, 5, 3, 6, 1, 4, 7)
        return (
            blocks[..., None, :, :]
            .expand(*blocks.shape[:6], frames, step, step)
            .reshape(n * high * wide * merge * merge, -1)
        )

    def length(self, grid: tuple[int, int]) -> int:
        """Count the patches."""
        return grid[0] * grid[1]

    def positions(self, grid: tuple[int, int], images: int, sequence: int) -> Positions:
        """Patches of all images stand in one sequence, block by block, in Qwen2.5-VL window by window."""
        order = self._order(*grid)
        if sequence != images * len(order):
            raise ModelError(
                f"the model returns {sequence} states for {images} images of {grid[0]} x {grid[1]} patches; "
                f"expected {images * len(order)}"
            )
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        return Positions(np.arange(images)[:, None] * len(order) + place, None)

    def _order(self, rows: int, columns: int) -> Int[np.ndarray, " cells"]:
        """Cells in the order in which their states stand."""
        merge = self._merge
        high, wide = rows // merge, columns // merge
        cells = np.arange(rows * columns).reshape(high, merge, wide, merge).transpose(0, 2, 1, 3)
        blocks = cells.reshape(high * wide, merge * merge)
        if self._window is not None:
            y, x = np.divmod(np.arange(high * wide), wide)
            # by windows; within a window blocks stay in their order
            blocks = blocks[np.lexsort((x // self._window, y // self._window))]
        return blocks.ravel()

    def _prepared(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        with quiet_transformers():
            prepared = self.processor(images=list(images), return_tensors="pt")
        return {name: prepared[name] for name in ("pixel_values", "image_grid_thw")}


def vision_scheme(parts: ImageParts, config: Any) -> PatchScheme:
    """Make the scheme of a vision tower.

    Parameters
    ----------
    parts : ImageParts
    config : transformers config
        Of the vision tower, which may be a part of the model's own.

    Raises
    ------
    ModelError
        If the image processor does not belong to the model, or there is no square to squash to.
    """
    processor, name = parts.processor, f"the image processor of {parts.name}"
    patch, merge = height_width(config.patch_size), int(config.spatial_merge_size)
    frames = height_width(config.temporal_patch_size)[0]
    for what, own, wanted in (
        ("patch_size", getattr(processor, "patch_size", None), patch[0]),
        ("merge_size", getattr(processor, "merge_size", None), merge),
        ("temporal_patch_size", getattr(processor, "temporal_patch_size", None), frames),
    ):
        if own != wanted or patch[0] != patch[1]:
            raise ModelError(
                f"{name} has {what} {own}, but the model's config says {wanted}; save the image processor that "
                "belongs to the model into its folder"
            )
    size = {key: value for key, value in dict(processor.size).items() if value is not None}
    if set(size) != {"shortest_edge", "longest_edge"} or not processor.do_resize:
        raise ModelError(
            f"{name} resizes to {size if processor.do_resize else 'nothing'}; it needs do_resize and a size with "
            "shortest_edge and longest_edge, which are the fewest and the most pixels of a picture"
        )
    window = None
    if hasattr(config, "window_size"):
        window = int(config.window_size) // (patch[0] * merge)
        if window < 1:
            raise ModelError(
                f"{parts.name}: its window_size of {config.window_size} pixels is smaller than a block of "
                f"{patch[0] * merge}; restore the model's own config"
            )
    scheme = MergedPatches(processor, patch=patch[0], merge=merge, window=window, name=name)
    if parts.geometry != "squash":
        return scheme
    if not hasattr(config, "num_position_embeddings"):
        raise ModelError(
            f"{parts.name} reads pictures of any shape and has no square of its own; set geometry='processor', which "
            "shows all of an image"
        )
    side = math.isqrt(int(config.num_position_embeddings)) // merge * merge * patch[0]
    return Squashed(scheme, (side, side))


def _vision(parts: ImageParts) -> PatchScheme:
    return vision_scheme(parts, parts.model.config)


def _vision_blocks(model: nn.Module, config: Any) -> tuple[str, Sequence[nn.Module]]:
    blocks: Any = model.blocks
    return "blocks", list(blocks)


def _vision_width(config: Any) -> int:
    # in Qwen2-VL hidden_size is the width of the language model
    return int(getattr(config, "embed_dim", None) or config.hidden_size)


def _language(parts: ImageParts) -> ImageTokens:
    config = parts.model.config
    ids = [config.vision_start_token_id, config.image_token_id, config.vision_end_token_id]
    if max(ids) >= len(parts.tokenizer):
        raise ModelError(
            f"{parts.name}: its config names tokens {ids} for pictures, but its tokenizer has only "
            f"{len(parts.tokenizer)}; save the tokenizer that belongs to the model into its folder"
        )
    start, image, end = (str(token) for token in parts.tokenizer.convert_ids_to_tokens(ids))
    merge = int(config.vision_config.spatial_merge_size)
    return ImageTokens(
        vision_scheme(parts, config.vision_config),
        merge=(merge, merge),
        tokenizer=parts.tokenizer,
        text=lambda rows, columns: start + image * (rows * columns) + end,
        image_token_id=int(config.image_token_id),
        marks="mm_token_type_ids",
        arguments={"hidden_states": "pixel_values", "grid_thw": "image_grid_thw"},
        name=parts.name,
    )


QWEN_VISION = ImageFamily(_vision, _vision_blocks, _vision_width)
"""The vision towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL by themselves.

A state stands for one patch of 14 x 14 (Qwen3-VL: 16 x 16) pixels of the resized picture. There is no CLS, and no norm
after the last block: the site ``final_norm`` holds what the last block gives, which the merger reads.
"""

QWEN_LANGUAGE = ImageFamily(_language, language_blocks, language_width)
"""The language models of Qwen2-VL, Qwen2.5-VL and Qwen3-VL, looked at where they have image tokens.

A state stands for one merged block of 28 x 28 (Qwen3-VL: 32 x 32) pixels of the resized picture. The sequence is
``<|vision_start|>``, the image tokens row by row, ``<|vision_end|>``: no chat template, no question. Positions are the
three-dimensional ones that the model derives itself from the grid and the marks.

In Qwen3-VL the states of early vision blocks are added to the image tokens behind the first few language blocks
(DeepStack), not inside them. The site ``block[i]`` is the block's own output, before that is added; what is added
behind block ``i`` is seen from ``block[i + 1]`` on.
"""
