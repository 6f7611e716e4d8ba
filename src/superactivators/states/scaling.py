"""Scaling of states, per layer, over train rows (METHOD section 3): z = (x - mean) / scale."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from superactivators.errors import DataError


@runtime_checkable
class Rows(Protocol):
    """A matrix of states that is read block by block, the same blocks in the same order every time."""

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        ...

    @property
    def width(self) -> int:
        """Number of columns."""
        ...

    def blocks(self) -> Iterator[tuple[int, Float[Tensor, "rows d"]]]:
        """Yield the first row number and the float32 rows of each block."""
        ...


@final
@dataclass(frozen=True, eq=False)
class Scaling:
    """An affine map of states.

    Attributes
    ----------
    mean : float32 tensor of shape (width,)
    scale : float
        Root of the mean squared norm of the raw rows.
    """

    mean: Float[Tensor, " d"]
    scale: float

    @staticmethod
    def fit(rows: Rows) -> Scaling:
        """Measure mean and scale in one streamed pass, summed in float64.

        Raises
        ------
        DataError
            If there are no rows, or all of them are zero or not finite.
        """
        total = torch.zeros(rows.width, dtype=torch.float64)
        square = 0.0
        for _, block in rows.blocks():
            total += block.sum(dim=0, dtype=torch.float64)
            square += float(torch.einsum("nd,nd->n", block, block).sum(dtype=torch.float64))
        if not rows.n_rows or not 0 < square < float("inf"):
            raise DataError(
                f"{rows.n_rows} train rows with squared norm {square}: states cannot be scaled; "
                "there must be train tokens, finite and not all zero"
            )
        return Scaling((total / rows.n_rows).float(), float((square / rows.n_rows) ** 0.5))

    def apply(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        """Scaled states, float32."""
        return (states.float() - self.mean) / self.scale
