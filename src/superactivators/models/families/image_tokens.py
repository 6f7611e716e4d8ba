"""Image tokens inside a language model: where a picture stands in the sequence, and which cell each token shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from PIL import Image
from torch import Tensor, nn

from superactivators.errors import ModelError
from superactivators.models.blocks import find_blocks, state_width
from superactivators.models.families.family import PatchScheme, Positions
from superactivators.models.geometry import Placement
from superactivators.models.quiet import quiet_transformers


@final
class ImageTokens:
    """Image tokens of a checkpoint whose language model reads what its vision tower saw.

    It wraps the scheme of the vision tower. One image token stands for ``merge`` cells of that scheme (vision models
    call it merging or pooling), tokens stand row by row, and every other token of the sequence is text around the
    picture, which is not scored. There is no chat template and no question: a sequence holds one picture, and the
    text that the model always puts around it, so that states depend on the picture alone.

    Parameters
    ----------
    vision : PatchScheme
        Of the vision tower: it makes the pixels and knows where they land.
    merge : (rows, columns)
        Cells of ``vision`` that one image token stands for; (1, 1) if every patch gets a token.
    tokenizer : transformers tokenizer
    text : function of (rows, columns)
        Gives the text of a picture of so many rows and columns of image tokens, with every image token written out,
        such as ``lambda rows, columns: "<start>" + "<image>" * (rows * columns) + "<end>"``. It is tokenised as a
        whole with the special tokens that the tokenizer adds by itself, as processors do.
    image_token_id : int
        Which token is an image token; the config says so.
    marks : str, optional
        Argument of the model's ``forward`` that is 1 at image tokens and 0 elsewhere: ``"mm_token_type_ids"`` (Qwen),
        ``"token_type_ids"`` (Gemma 3).
    arguments : mapping of str to str
        What the whole model calls the inputs of ``vision``; those that are not listed keep their name.
    name : str
        How error messages call the model.

    Attributes
    ----------
    cell : (height, width)
        Pixels of the processed picture that one image token stands for.
    field : str
        What the whole model calls the pixels.

    Notes
    -----
    A family uses it as the ``scheme`` of an `ImageFamily` that is registered in ``language_families``, together with
    `language_blocks` and `language_width`::

        def scheme(parts: ImageParts) -> ImageTokens:
            return ImageTokens(vision_scheme(...), merge=(4, 4), tokenizer=parts.tokenizer, ...)

        FAMILY = ImageFamily(scheme, language_blocks, language_width)

    For ``geometry="squash"`` wrap either ``vision`` or the result in `Squashed`.
    """

    def __init__(
        self,
        vision: PatchScheme,
        *,
        merge: tuple[int, int],
        tokenizer: Any,
        text: Callable[[int, int], str],
        image_token_id: int,
        marks: str | None = None,
        arguments: Mapping[str, str] | None = None,
        name: str,
    ) -> None:
        self._vision = vision
        self._tokenizer = tokenizer
        self._text = text
        self._image_token_id = image_token_id
        self._marks = marks
        self._arguments = dict(arguments or {})
        self._name = name
        self.field = self._arguments.get(vision.field, vision.field)
        self._merge = merge
        self.cell = (vision.cell[0] * merge[0], vision.cell[1] * merge[1])
        self._sequences: dict[tuple[int, int], Int[np.ndarray, " sequence"]] = {}
        self._sequence(2, 3)  # refuses a tokenizer that does not know the image token

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or patches, as JSON values."""
        return {
            **self._vision.settings(),
            "merge": list(self._merge),
            "image_text": self._text(2, 3),
            "image_token_ids": self._sequence(2, 3).tolist(),
        }

    def place(self, height: int, width: int) -> Placement:
        """Say where an image of this size lands."""
        return self._vision.place(height, width)

    def picture(self, images: Sequence[Image.Image]) -> Float[np.ndarray, "n c h w"]:
        """Give the pixels that the model sees."""
        return self._vision.picture(images)

    def flatten(self, picture: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "..."]:
        """Put pictures into the layout of the vision tower's input."""
        return self._vision.flatten(picture)

    def length(self, grid: tuple[int, int]) -> int:
        """Count the states of the vision tower or those of the language model, whichever are more."""
        seen = self._vision.length((grid[0] * self._merge[0], grid[1] * self._merge[1]))
        return max(seen, len(self._sequence(*grid)))

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """Give token ids, their marks, and the inputs of the vision tower under the names of the whole model."""
        grid = self._grid(images[0])
        ids = torch.from_numpy(self._sequence(*grid)).repeat(len(images), 1)
        seen = {self._arguments.get(key, key): value for key, value in self._vision.inputs(images).items()}
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **seen}
        if self._marks is not None:
            inputs[self._marks] = (ids == self._image_token_id).long()
        return inputs

    def positions(self, grid: tuple[int, int], images: int, sequence: int) -> Positions:
        """Image tokens stand row by row, with text around them."""
        ids = self._sequence(*grid)
        if len(ids) != sequence:
            raise ModelError(
                f"{self._name}: the language model returns {sequence} states for a sequence of {len(ids)} tokens, "
                f"so its {grid[0]} x {grid[1]} image tokens cannot be found"
            )
        first = np.arange(images) * sequence
        return Positions(first[:, None] + np.flatnonzero(ids == self._image_token_id), None)

    def _grid(self, image: Image.Image) -> tuple[int, int]:
        placed = self.place(image.height, image.width)
        return placed.height // self.cell[0], placed.width // self.cell[1]

    def _sequence(self, rows: int, columns: int) -> Int[np.ndarray, " sequence"]:
        """Token ids of a picture with a grid of this size."""
        if (rows, columns) not in self._sequences:
            with quiet_transformers():
                ids = np.asarray(self._tokenizer(self._text(rows, columns))["input_ids"], dtype=np.int64)
            found = int((ids == self._image_token_id).sum())
            if found != rows * columns:
                raise ModelError(
                    f"{self._name}: its tokenizer makes {found} image tokens (id {self._image_token_id}) of a text "
                    f"that has {rows * columns}; save the tokenizer that belongs to the model into its folder"
                )
            self._sequences[rows, columns] = ids
        return self._sequences[rows, columns]


def language_blocks(model: nn.Module, config: Any) -> tuple[str, Sequence[nn.Module]]:
    """Find the blocks of the language model inside a whole checkpoint; see `find_blocks`."""
    inner: Any = model.language_model
    path, blocks = find_blocks(inner, config.text_config)
    return f"language_model.{path}", blocks


def language_width(config: Any) -> int:
    """Width d of the language model's states."""
    return state_width(config.text_config)
