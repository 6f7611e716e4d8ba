"""Where the pixels of a picture stand in a model's input, and which token each of them belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from superactivators.errors import ModelError
from superactivators.models.families.family import PatchScheme


@final
@dataclass(frozen=True, eq=False)
class PixelPlaces:
    """The way from one processed picture to a model's input, whatever the layout of that, and back.

    Attributes
    ----------
    scheme : PatchScheme
    shape : (1, channels, height, width)
        Of the picture.
    tokens : int64 tensor of shape (1, channels, height, width)
        Token that each value of the picture belongs to; -1 for none.
    """

    scheme: PatchScheme
    shape: tuple[int, ...]
    tokens: Int[Tensor, "1 c h w"]

    @staticmethod
    def of(
        scheme: PatchScheme,
        picture: Float[Tensor, "1 c h w"],
        pixels: Float[Tensor, "..."],
        shows: Int[Tensor, "1 rows columns"],
    ) -> PixelPlaces:
        """Compare a picture with the model's input.

        Parameters
        ----------
        scheme : PatchScheme
        picture : float tensor of shape (1, channels, height, width)
            What `PatchScheme.picture` gives, on the device and in the dtype of the input.
        pixels : float tensor
            The input.
        shows : int64 tensor of shape (1, rows, columns)
            Token of each cell, -1 for none.

        Raises
        ------
        ModelError
            If the picture, flattened, is not the input.
        """
        if not torch.equal(scheme.flatten(picture), pixels):
            raise ModelError(
                f"{type(scheme).__name__}: its picture, flattened, is not the {scheme.field} that the model gets, so "
                "pixels cannot be told apart in it and attribution cannot be used; correct its flatten()"
            )
        high, wide = scheme.cell
        cells = shows.repeat_interleave(high, dim=1).repeat_interleave(wide, dim=2)[:, None]
        tokens = torch.full(picture.shape, -1, dtype=torch.int64, device=picture.device)
        tokens[:, :, : cells.shape[2], : cells.shape[3]] = cells
        return PixelPlaces(scheme, tuple(picture.shape), tokens)

    @cached_property
    def owner(self) -> Int[Tensor, "..."]:
        """Token of each value of the input; -1 for none."""
        return self.scheme.flatten(self.tokens + 1) - 1

    def picture(self, values: Shaped[Tensor, "m ..."]) -> Shaped[Tensor, "m 1 c h w"]:
        """Put values of the input back into pictures, and sum those that stand for the same pixel."""
        return values.flatten(1)[:, self._places].sum(dim=-1).reshape(len(values), *self.shape)

    @cached_property
    def _places(self) -> Int[Tensor, "values times"]:
        """Where each value of the picture stands in the input."""
        number = self.tokens.numel()
        values = torch.arange(1, number + 1, device=self.tokens.device).reshape(self.shape)
        found = self.scheme.flatten(values).flatten()
        times = torch.bincount(found, minlength=number + 1)
        if not bool((times[1:] == times[-1]).all()) or not int(times[-1]):
            raise ModelError(
                f"{type(self.scheme).__name__}: flatten() does not hold every pixel, each equally often, so gradients "
                "cannot be put back into a picture; correct it, or choose an explainer without gradients such as 'rise'"
            )
        return torch.argsort(found, stable=True)[int(times[0]) :].reshape(number, -1)  # without padding
