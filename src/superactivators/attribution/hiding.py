"""Hide tokens of one sample from the model: other token ids or pixels in their place, or no attention to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from superactivators.data.dataset import Modality
from superactivators.errors import ModelError, StudyError, allowed
from superactivators.models.backbone import Backbone
from superactivators.models.batching import ForwardPass
from superactivators.models.text import TextReader
from superactivators.models.vision import ImageReader

Hiding: TypeAlias = str
"""How hidden tokens look; see `HIDINGS`."""

HIDINGS: dict[Modality, tuple[str, ...]] = {"text": ("mask", "pad", "remove"), "image": ("mean", "blur", "noise")}
"""Texts: the tokenizer's mask token (the pad or unknown token where it has none), its pad token, or no attention to the
token at all. Images: the image's mean colour, a blurred copy of it, or noise of its mean and spread. The first is the
default."""

BLUR = 0.1
"""Standard deviation of the blur, as a share of the image's shorter side."""


def check_hiding(hiding: str | None, modality: Modality) -> str:
    """Name the way of hiding, by default the first of its modality; raises ``StudyError`` if it is not one of them."""
    names = HIDINGS[modality]
    chosen = names[0] if hiding is None else hiding
    if chosen not in names:
        raise StudyError(f"unknown way {chosen!r} to hide tokens of a model of {modality}s; {allowed(chosen, names)}")
    return chosen


@final
@dataclass(frozen=True, eq=False)
class HiddenInputs:
    """One sample's model inputs, of which any tokens can be hidden.

    Attributes
    ----------
    inputs : mapping
        Arguments of the model's ``forward`` for the whole sample, on the model's device.
    field : str
        The input that is changed: ``"input_ids"``, ``"attention_mask"`` or ``"pixel_values"``.
    filled : tensor
        What that input is where everything is hidden.
    shows : int64 tensor
        Token at each place of the input, -1 for none; see `superactivators.models.batching.ForwardPass`.
    patch : (height, width) or None
        Pixels of one place.
    """

    inputs: Mapping[str, Any]
    field: str
    filled: Tensor
    shows: Int[Tensor, "pieces *places"]
    patch: tuple[int, int] | None

    @staticmethod
    def of(backbone: Backbone, forward: ForwardPass, inputs: Mapping[str, Any], hiding: str, seed: int) -> HiddenInputs:
        """Prepare a sample.

        Parameters
        ----------
        backbone : Backbone
        forward : ForwardPass
            Of this sample alone.
        inputs : mapping
            Its inputs, on the model's device.
        hiding : str
            One of `HIDINGS` of the modality.
        seed : int
            Of the noise.

        Raises
        ------
        ModelError
            If the tokenizer has no token to hide others with.
        """
        shows = torch.from_numpy(forward.shows()).to(backbone.device)
        if backbone.modality == "image":
            pixels = inputs["pixel_values"]
            filled = _filled_pixels(pixels, hiding, seed)
            return HiddenInputs(inputs, "pixel_values", filled, shows, _image_reader(backbone).patch)
        if hiding == "remove":
            mask = inputs["attention_mask"]
            return HiddenInputs(inputs, "attention_mask", torch.where(shows >= 0, 0, mask), shows, None)
        ids = inputs["input_ids"]
        reader = backbone.reader
        assert isinstance(reader, TextReader)  # noqa: S101
        return HiddenInputs(inputs, "input_ids", torch.where(shows >= 0, _substitute(reader, hiding), ids), shows, None)

    @property
    def n_places(self) -> int:
        """Places of the input, those that show no token included: what one variant costs."""
        return self.shows.numel()

    def where(self, keep: Bool[np.ndarray, "m tokens"]) -> Bool[Tensor, "m pieces *places"]:
        """Places that stay as they are."""
        kept = torch.from_numpy(np.pad(keep, ((0, 0), (0, 1)), constant_values=True)).to(self.shows.device)
        return kept[:, self.shows]

    def spread(self, places: Tensor) -> Tensor:
        """Widen patches to pixels; pixels of no whole patch stay as they are."""
        if self.patch is None:
            return places
        high, wide = self.patch
        pixels = places.repeat_interleave(high, dim=-2).repeat_interleave(wide, dim=-1)
        rest = [size - covered for size, covered in zip(self.filled.shape[-2:], pixels.shape[-2:], strict=True)]
        return torch.nn.functional.pad(pixels, (0, rest[1], 0, rest[0]), value=True)

    def variants(self, keep: Bool[np.ndarray, "m tokens"]) -> dict[str, Any]:
        """Make the inputs of ``m`` variants of the sample, one after the other, each with all its pieces.

        Parameters
        ----------
        keep : bool array of shape (m, tokens)
            False where a token is hidden.
        """
        kept = self.spread(self.where(keep).flatten(0, 1))
        result = self.copies(len(keep))
        if self.patch is not None:
            kept = kept[:, None]
        copies = [len(keep)] + [1] * (self.filled.ndim - 1)
        result[self.field] = torch.where(kept, result[self.field], self.filled.repeat(copies))
        return result

    def copies(self, number: int) -> dict[str, Any]:
        """Make the inputs of so many unchanged copies."""
        return {
            name: value.repeat([number] + [1] * (value.ndim - 1)) if isinstance(value, Tensor) and value.ndim else value
            for name, value in self.inputs.items()
        }


def _image_reader(backbone: Backbone) -> ImageReader:
    assert isinstance(backbone.reader, ImageReader)  # noqa: S101
    return backbone.reader


def _substitute(reader: TextReader, hiding: str) -> int:
    """Id of the token that hidden ones are replaced with."""
    order = ("mask", "pad", "unk", "eos") if hiding == "mask" else ("pad",)
    for kind in order:
        token = getattr(reader.tokenizer, f"{kind}_token_id")
        if token is not None:
            return int(token)
    raise ModelError(
        f"the tokenizer has no {' or '.join(order)} token to hide others with; choose the hiding 'remove' instead"
    )


def _filled_pixels(pixels: Float[Tensor, "n c h w"], hiding: str, seed: int) -> Float[Tensor, "n c h w"]:
    mean = pixels.mean(dim=(2, 3), keepdim=True)
    if hiding == "mean":
        return mean.expand_as(pixels).contiguous()
    if hiding == "noise":
        generator = np.random.default_rng(seed)
        drawn = torch.from_numpy(generator.standard_normal(tuple(pixels.shape), dtype=np.float32)).to(pixels)
        return mean + drawn * pixels.std(dim=(2, 3), keepdim=True)
    from scipy.ndimage import gaussian_filter

    sigma = BLUR * min(pixels.shape[2:])
    blurred = gaussian_filter(pixels.float().cpu().numpy(), (0, 0, sigma, sigma), mode="nearest")
    return torch.from_numpy(blurred).to(pixels)
