"""Any Python object that encodes states, as a sparse autoencoder that lives in memory only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from superactivators.concepts.latents import block_rows, column_index, gather
from superactivators.errors import ModelError, StudyError


@final
@dataclass(frozen=True, eq=False)
class WrappedEncoder:
    """Any Python object that encodes states; lives in memory only. See `wrap_sae`.

    Attributes
    ----------
    model : object
        With ``encode(x)``.
    n_all : int
        Number of latents that the object gives for each row.
    chosen : int64 tensor of shape (latents,)
        Which of them are given back.
    decoder : float32 tensor of shape (latents, width), or None
        Direction that each latent writes, in units of raw states.
    notes : mapping
        JSON types.
    """

    model: Any
    n_all: int
    chosen: Int64[Tensor, " c"]
    decoder: Float[Tensor, "c d"] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"WrappedEncoder({type(self.model).__name__}, {self.n_latents} latents)"

    @property
    def n_latents(self) -> int:
        """Number of latents that `encode` gives for each row."""
        return len(self.chosen)

    @property
    def width(self) -> int | None:
        """Number of columns of the states, where it is known."""
        return None if self.decoder is None else int(self.decoder.shape[1])

    def encode(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows c"]:
        """Latents of raw states.

        Returns
        -------
        float32 tensor of shape (rows, latents)

        Raises
        ------
        ModelError
            If the object gives anything but finite numbers of shape (rows, latents).
        """
        return gather(self.blocks(states), len(states), self.n_latents)

    def blocks(self, states: Float[Tensor, "rows d"]) -> Iterator[tuple[int, Float[Tensor, "some c"]]]:
        """Yield the first row number and the latents of consecutive rows, so that they are never all in memory."""
        step = block_rows(self.n_all)
        for start in range(0, len(states), step):
            block = states[start : start + step].float()
            with torch.no_grad():
                given = self.model.encode(block)
            # Overcomplete gives pre-activations and latents.
            if isinstance(given, tuple):
                given = given[-1]
            name = type(self.model).__name__
            try:
                latents = torch.as_tensor(given).detach().to(device="cpu", dtype=torch.float32)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ModelError(
                    f"{name}.encode gave {type(given).__name__}, which is no array ({error}); it must give latents"
                ) from None
            if tuple(latents.shape) != (len(block), self.n_all):
                raise ModelError(
                    f"{name}.encode gave an array of shape {tuple(latents.shape)} for {len(block)} rows; it must be "
                    f"({len(block)}, {self.n_all}), a column for each latent"
                )
            if not bool(torch.isfinite(latents).all()):
                raise ModelError(f"{name}.encode gave latents that are not finite; check its weights and its dtype")
            yield start, latents[:, self.chosen]

    def select(self, columns: Int[np.ndarray, " k"]) -> WrappedEncoder:
        """Keep some of the latents, in the order given; the object still computes all of them."""
        index = column_index(columns, self.n_latents)
        decoder = None if self.decoder is None else self.decoder[index]
        return replace(self, chosen=self.chosen[index], decoder=decoder)

    def directions(self, scale: float) -> Float[Tensor, "c d"] | None:
        """One direction for each latent in units of scaled states; None where the decoder is not known."""
        return None if self.decoder is None else self.decoder / scale


def wrap_sae(model: Any, width: int, decoder: Float[np.ndarray, "c d"] | Tensor | None = None) -> WrappedEncoder:
    """Take any object with ``encode(x)`` as a sparse autoencoder.

    Parameters
    ----------
    model : object
        Its ``encode`` takes a float32 tensor of raw states (rows, width of the states) and gives an array or a tensor
        (rows, latents), or a tuple whose last element is that. It must treat every row on its own.
    width : int
        Number of latents.
    decoder : float array of shape (latents, width of the states), optional
        Direction that each latent writes.

    Raises
    ------
    StudyError
        If there is no ``encode``, or ``width`` or ``decoder`` is impossible.
    """
    if not callable(getattr(model, "encode", None)):
        raise StudyError(f"{type(model).__name__} has no method encode(x); give an object that encodes states")
    if width < 1:
        raise StudyError(f"width is {width}; give the number of latents, at least 1")
    rows = None if decoder is None else torch.as_tensor(decoder).detach().cpu().float()
    if rows is not None and (rows.ndim != 2 or len(rows) != width or not bool(torch.isfinite(rows).all())):
        raise StudyError(
            f"decoder of shape {tuple(rows.shape)} for {width} latents; give one finite row for each latent"
        )
    notes = {"layout": "object", "class": type(model).__name__, "latents": width}
    return WrappedEncoder(model, width, torch.arange(width), rows, notes)
