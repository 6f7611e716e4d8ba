"""Hide tokens of one sample from the model: other token ids or pixels in their place, or no attention to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from superactivators.attribution.pixels import PixelPlaces
from superactivators.data.dataset import ImageSample, Modality, Sample
from superactivators.errors import ModelError, StudyError, allowed
from superactivators.models.backbone import Backbone
from superactivators.models.batching import ForwardPass
from superactivators.models.text import TextReader
from superactivators.models.vision import ImageReader

Hiding: TypeAlias = str
"""How hidden tokens look; see `HIDINGS`."""

HIDINGS: dict[Modality, tuple[str, ...]] = {"text": ("mask", "pad", "remove"), "image": ("mean", "blur", "noise")}
"""Texts: the tokenizer's mask token (the pad or unknown token where it has none), its pad token, or no attention to the
token at all. Images: the mean colour of the processed picture (with what it was padded with), a blurred copy of it, or
noise of its mean and spread. The first is the default."""

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
        The input that is changed: ``"input_ids"``, ``"attention_mask"``, or the one that holds the pixels.
    filled : tensor
        What that input is where everything is hidden.
    shows : int64 tensor
        Token at each place of the input, -1 for none; see `superactivators.models.batching.ForwardPass`.
    owner : int64 tensor
        Token of each entry of the input that is changed, of its shape; -1 for none. For texts the same as `shows`.
    pixels : PixelPlaces or None
        How a picture becomes the input.
    n_places : int
        What one variant costs: places of a text with all its pieces, states of an image.
    """

    inputs: Mapping[str, Any]
    field: str
    filled: Tensor
    shows: Int[Tensor, "pieces *places"]
    owner: Int[Tensor, "..."]
    pixels: PixelPlaces | None
    n_places: int

    @staticmethod
    def of(
        backbone: Backbone, forward: ForwardPass, sample: Sample, inputs: Mapping[str, Any], hiding: str, seed: int
    ) -> HiddenInputs:
        """Prepare a sample.

        Parameters
        ----------
        backbone : Backbone
        forward : ForwardPass
            Of this sample alone.
        sample : Sample
        inputs : mapping
            Its inputs, on the model's device.
        hiding : str
            One of `HIDINGS` of the modality.
        seed : int
            Of the noise.

        Raises
        ------
        ModelError
            If the tokenizer has no token to hide others with, or it is not known where the pixels are in the input.
        """
        shows = torch.from_numpy(forward.shows()).to(backbone.device)
        if backbone.modality == "image":
            return _hidden_image(backbone, shows, sample, inputs, hiding, seed)
        if hiding == "remove":
            mask = inputs["attention_mask"]
            gone = torch.where(shows >= 0, 0, mask)
            return HiddenInputs(inputs, "attention_mask", gone, shows, shows, None, shows.numel())
        ids = inputs["input_ids"]
        reader = backbone.reader
        assert isinstance(reader, TextReader)  # noqa: S101
        replaced = torch.where(shows >= 0, _substitute(reader, hiding), ids)
        return HiddenInputs(inputs, "input_ids", replaced, shows, shows, None, shows.numel())

    @property
    def patch(self) -> tuple[int, int] | None:
        """Pixels of the processed picture that one place shows; None for texts."""
        return None if self.pixels is None else self.pixels.scheme.cell

    def where(self, keep: Bool[np.ndarray, "m tokens"]) -> Bool[Tensor, "m ..."]:
        """Entries of the input that stay as they are, those of no token among them."""
        kept = torch.from_numpy(np.pad(keep, ((0, 0), (0, 1)), constant_values=True)).to(self.owner.device)
        return kept[:, self.owner]

    def variants(self, keep: Bool[np.ndarray, "m tokens"]) -> dict[str, Any]:
        """Make the inputs of ``m`` variants of the sample, one after the other, each with all its pieces.

        Parameters
        ----------
        keep : bool array of shape (m, tokens)
            False where a token is hidden.
        """
        result = self.copies(len(keep))
        copies = [len(keep)] + [1] * (self.filled.ndim - 1)
        kept = self.where(keep).flatten(0, 1)
        result[self.field] = torch.where(kept, result[self.field], self.filled.repeat(copies))
        return result

    def copies(self, number: int) -> dict[str, Any]:
        """Make the inputs of so many unchanged copies."""
        return {name: _repeated(value, number) for name, value in self.inputs.items()}


def _repeated(value: Any, number: int) -> Any:
    """Repeat what holds one sample after the other; other values are true of all samples."""
    if isinstance(value, Tensor) and value.ndim:
        return value.repeat([number] + [1] * (value.ndim - 1))
    return value * number if isinstance(value, list) else value


def _hidden_image(
    backbone: Backbone,
    shows: Int[Tensor, "1 rows columns"],
    sample: Sample,
    inputs: Mapping[str, Any],
    hiding: str,
    seed: int,
) -> HiddenInputs:
    assert isinstance(backbone.reader, ImageReader)  # noqa: S101
    assert isinstance(sample, ImageSample)  # noqa: S101
    scheme = backbone.reader.scheme
    given = inputs[scheme.field]
    picture = torch.from_numpy(scheme.picture([sample.load_image()])).to(given)
    pixels = PixelPlaces.of(scheme, picture, given, shows)
    filled = torch.where(pixels.owner >= 0, scheme.flatten(_filled_pixels(picture, hiding, seed)), given)
    rows, columns = shows.shape[1:]
    cost = max(scheme.length((rows, columns)) - 1, shows.numel())  # CLS is not counted
    return HiddenInputs(inputs, scheme.field, filled, shows, pixels.owner, pixels, cost)


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
