"""The contract between one family of models that read images and everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Shaped
from PIL import Image
from torch import Tensor, nn

from superactivators.models.blocks import find_blocks, state_width
from superactivators.models.geometry import Placement


@final
@dataclass(frozen=True, eq=False)
class Positions:
    """Where the patches of a batch stand in states of shape (batch, sequence, d), seen as (batch * sequence, d).

    Attributes
    ----------
    cells : int64 array of shape (images, rows * columns)
        The state of every grid cell, row by row; -1 for cells that have none (tiles that are only padding).
    cls : int64 array of shape (images,) or None
        The CLS state of every image.
    """

    cells: Int[np.ndarray, "n cells"]
    cls: Int[np.ndarray, " n"] | None


@runtime_checkable
class PatchScheme(Protocol):
    """How a family cuts pictures into the patches that its states stand for.

    All images of one call have the same grid, since the reader groups them by it.

    Attributes
    ----------
    cell : (height, width)
        Pixels of the processed picture that one state stands for.
    field : str
        Argument of the model's ``forward`` that holds the pixels, such as ``"pixel_values"``.
    """

    cell: tuple[int, int]
    field: str

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or patches, as JSON values."""
        ...

    def place(self, height: int, width: int) -> Placement:
        """Say where an image of this size lands; raises ``ModelError`` if the rule is not known."""
        ...

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """Give the arguments of the model's ``forward``: tensors on the CPU, and plain values.

        Tensors and lists hold one image after the other along their first axis; other values are true of all images.
        """
        ...

    def picture(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n c h w"]:
        """Give the pixels that the model sees, put back into pictures: how positions are proven (`prove_geometry`)."""
        ...

    def flatten(self, picture: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "..."]:
        """Put pictures of one size into the layout of the input `field`, where padding is zero.

        It moves values and computes nothing, so it takes numbers of any dtype: ``flatten(picture(images))`` is
        ``inputs(images)[field]``, and flattened numbers of pixels say which pixel stands where.
        """
        ...

    def length(self, grid: tuple[int, int]) -> int:
        """Say how many states one image has in a forward pass, padding and special tokens included: what it costs."""
        ...

    def positions(self, grid: tuple[int, int], images: int, sequence: int) -> Positions:
        """Find the patches in states of one site.

        Parameters
        ----------
        grid : (rows, columns)
        images : int
            Images in the batch.
        sequence : int
            Length of the sequence that the model turns out to have.

        Raises
        ------
        ModelError
            If there cannot be such a sequence.
        """
        ...


@final
@dataclass(frozen=True, eq=False)
class ImageParts:
    """A loaded model with what prepares images for it.

    Attributes
    ----------
    model : transformers model
    processor : transformers image processor
    tokenizer : transformers tokenizer or None
        Only where the language model of a checkpoint reads the images.
    geometry : str
        ``"processor"`` or ``"squash"``.
    name : str
        How error messages call it.
    """

    model: Any
    processor: Any
    tokenizer: Any
    geometry: str
    name: str


def last_hidden_state(output: Any) -> Tensor:
    """Take the last states out of what a model returns."""
    states: Tensor = output.last_hidden_state
    return states


@final
@dataclass(frozen=True, eq=False)
class ImageFamily:
    """What differs between families of models that read images.

    Attributes
    ----------
    scheme : function of ImageParts
        Makes the patch scheme; raises ``ModelError`` if the model cannot be used.
    blocks : function of (model, config)
        Path and list of the transformer blocks; see `superactivators.models.blocks.find_blocks`.
    width : function of config
        Width d of the states.
    final : function of the model's output
        States of the site ``final_norm``, of shape (batch, sequence, d) or (sequence, d).
    """

    scheme: Callable[[ImageParts], PatchScheme]
    blocks: Callable[[nn.Module, Any], tuple[str, Sequence[nn.Module]]] = find_blocks
    width: Callable[[Any], int] = state_width
    final: Callable[[Any], Tensor] = last_hidden_state
