"""Labelled rows with columns of mean zero and deviation one: what a linear separator is fitted on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from superactivators.concepts.rows import RowSource, cached_rows
from superactivators.errors import DataError

CONSTANT = 1e-6
"""A column whose deviation is at most this share of its mean is constant: single precision resolves no more."""


@final
@dataclass(frozen=True, eq=False)
class Standardisation:
    """An affine map of columns.

    Attributes
    ----------
    centre : float32 tensor of shape (width,)
        Column means.
    deviation : float32 tensor of shape (width,)
        Standard deviations; 1 for constant columns.
    """

    centre: Float[Tensor, " d"]
    deviation: Float[Tensor, " d"]

    def unfold(self, point: Float[Tensor, "k d_plus_1"]) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, " k"]]:
        """Weights and bias for rows in their own units, from those (bias last) for standardised rows."""
        weights = point[:, :-1].cpu() / self.deviation.double()
        return weights.numpy(), (point[:, -1].cpu() - weights @ self.centre.double()).numpy()


@final
class StandardisedRows:
    """The labelled rows of a source, standardised as they are read.

    Parameters
    ----------
    rows : RowSource
        All rows.
    known : bool array of shape (rows,)
        Which of them are labelled; the others are left out.
    standardisation : Standardisation or None
        None: leave the columns as they are.
    """

    def __init__(
        self, rows: RowSource, known: Bool[np.ndarray, " rows"], standardisation: Standardisation | None = None
    ) -> None:
        self._rows = rows
        self._known = known
        self._all_known = bool(known.all())
        self._standardisation = standardisation
        self.n_rows = int(known.sum())
        self.width = rows.width

    def blocks(self) -> Iterator[tuple[int, Float[Tensor, "rows d"]]]:
        """Yield the first row number, counted over labelled rows, and the float32 rows of each block."""
        begin = 0
        for start, block in self._rows.blocks():
            if self._all_known:
                chosen = block
            else:
                chosen = block[torch.from_numpy(np.flatnonzero(self._known[start : start + len(block)]))]
            if self._standardisation is not None:
                chosen = (chosen - self._standardisation.centre).div_(self._standardisation.deviation)
            yield begin, chosen
            begin += len(chosen)


def standardise(rows: RowSource, known: Bool[np.ndarray, " rows"], memory: int) -> tuple[RowSource, Standardisation]:
    """Measure the columns of the labelled rows, then standardise them; held in memory if they fit.

    Parameters
    ----------
    rows : RowSource
    known : bool array of shape (rows,)
        Which rows are labelled; at least one.
    memory : int
        Bytes that a float32 copy may take.

    Returns
    -------
    RowSource
        The labelled rows only.
    Standardisation

    Raises
    ------
    DataError
        If a value is not finite.

    Notes
    -----
    Sums are taken of differences to the mean of the first block, so that an offset far larger than the spread, as in
    columns with massive activations, costs no digits (Chan, Golub and LeVeque, 1983).
    """
    pilot = torch.zeros(rows.width)
    total = torch.zeros(rows.width, dtype=torch.float64)
    square = torch.zeros(rows.width, dtype=torch.float64)
    n_rows = int(known.sum())
    seen = 0
    for _, block in StandardisedRows(rows, known).blocks():
        if not seen and len(block):
            pilot = block.mean(dim=0, dtype=torch.float64).float()
        seen += len(block)
        difference = block - pilot
        total += difference.sum(dim=0)
        square += difference.square_().sum(dim=0)
    mean = total / n_rows
    centre = pilot.double() + mean
    deviation = (square / n_rows - mean.square()).clamp_min(0.0).sqrt()
    if not bool(torch.isfinite(deviation).all()):
        column = int(torch.nonzero(~torch.isfinite(deviation))[0, 0])
        raise DataError(
            f"column {column} of the rows holds values that are not finite, or too large for single precision; "
            "use states that are kept in bfloat16 or float32, or leave out the tokens concerned"
        )
    deviation[deviation <= CONSTANT * centre.abs()] = 1.0
    standardisation = Standardisation(centre.float(), deviation.float())
    return cached_rows(StandardisedRows(rows, known, standardisation), memory), standardisation


def take_rows(rows: RowSource, chosen: Int[np.ndarray, " k"]) -> Float[Tensor, "k d"]:
    """Read the rows with the given numbers, which go up, in one pass.

    Returns
    -------
    float32 tensor of shape (k, width)
    """
    taken = torch.empty(len(chosen), rows.width)
    for start, block in rows.blocks():
        first, last = np.searchsorted(chosen, [start, start + len(block)])
        taken[first:last] = block[torch.from_numpy(chosen[first:last] - start)]
    return taken
