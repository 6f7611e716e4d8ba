"""Rows as points to be clustered: centred or of unit length, in memory or read again, in blocks of fixed size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from superactivators.concepts.rows import RowSource
from superactivators.concepts.standardised import take_rows
from superactivators.errors import DataError

CHUNK = 1024
"""Rows that are compared with all centroids at once: few enough that the products stay in the cache."""


def even_blocks(rows: RowSource) -> Iterator[tuple[int, Float[Tensor, "rows d"]]]:
    """Rows in chunks of the same size, whatever the blocks of their source."""
    held = torch.empty(CHUNK, rows.width)
    filled = done = 0
    for _, block in rows.blocks():
        begin = 0
        while begin < len(block):
            taken = min(CHUNK - filled, len(block) - begin)
            if taken == CHUNK:
                yield done, block[begin : begin + CHUNK]
                done += CHUNK
            else:
                held[filled : filled + taken] = block[begin : begin + taken]
                filled += taken
                if filled == CHUNK:
                    yield done, held
                    done, filled = done + CHUNK, 0
            begin += taken
    if filled:
        yield done, held[:filled]


def unit_rows(vectors: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Scale rows to length 1; those of length 0 stay."""
    return torch.nn.functional.normalize(vectors, dim=1, eps=torch.finfo(vectors.dtype).tiny)


@final
class InMemory:
    """Points of a sub-sample."""

    def __init__(self, matrix: Float[Tensor, "n d"]) -> None:
        self._matrix = matrix
        self.n_rows = len(matrix)

    def chunks(self) -> Iterator[tuple[int, Float[Tensor, "rows d"]]]:
        """Yield the first row number and the rows of each chunk; not to be written to."""
        for start in range(0, self.n_rows, CHUNK):
            yield start, self._matrix[start : start + CHUNK]

    def take(self, chosen: Int[np.ndarray, " k"]) -> Float[Tensor, "k d"]:
        """Read the rows with the given numbers, which go up."""
        return self._matrix[torch.from_numpy(chosen)]


@final
class Points:
    """Rows less their mean, which leaves distances as they are but not their rounding; of unit length for cosine."""

    def __init__(self, rows: RowSource, metric: str, memory: int) -> None:
        if not rows.n_rows or not rows.width:
            raise DataError(f"{rows.n_rows} rows of width {rows.width} cannot be clustered; there must be train rows")
        self._rows, self._cosine, self.n_rows = rows, metric == "cosine", rows.n_rows
        self._held: InMemory | None = None
        matrix = torch.empty(rows.n_rows, rows.width) if 4 * rows.n_rows * rows.width <= memory // 2 else None
        total = torch.zeros(rows.width, dtype=torch.float64)
        for start, chunk in even_blocks(rows):
            chunk = unit_rows(chunk) if self._cosine else chunk
            total += chunk.sum(dim=0, dtype=torch.float64)
            if matrix is not None:
                matrix[start : start + len(chunk)] = chunk
        if not bool(torch.isfinite(total).all()):
            raise DataError("rows with values that are not finite cannot be clustered; check the states of this site")
        self.shift = (total / rows.n_rows).float()
        if matrix is not None:
            self._held = InMemory(matrix.sub_(self.shift))

    def chunks(self) -> Iterator[tuple[int, Float[Tensor, "rows d"]]]:
        """Yield the first row number and the rows of each chunk; not to be written to."""
        if self._held is not None:
            yield from self._held.chunks()
            return
        for start, chunk in even_blocks(self._rows):
            yield start, self._moved(chunk)

    def take(self, chosen: Int[np.ndarray, " k"]) -> Float[Tensor, "k d"]:
        """Read the rows with the given numbers, which go up."""
        if self._held is not None:
            return self._held.take(chosen)
        return self._moved(take_rows(self._rows, chosen))

    def _moved(self, raw: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return (unit_rows(raw) if self._cosine else raw) - self.shift
