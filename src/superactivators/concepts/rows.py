"""Matrices that are read block by block, so that learning needs no more memory than it is given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from superactivators.errors import DataError
from superactivators.states.scaling import Rows

RowSource: TypeAlias = Rows
"""Anything with ``n_rows``, ``width`` and ``blocks()``; the same blocks in the same order every time they are read."""

BLOCK_ROWS = 4096
"""Rows of one block of an array: few enough to stay in the cache of a core between two products."""


@final
class ArrayRows:
    """A matrix in memory, or memory-mapped, as a row source.

    Parameters
    ----------
    X : float array or tensor of shape (rows, width)
        Half, single or double precision; never copied as a whole.
    block_rows : int
        Rows of each block.

    Raises
    ------
    DataError
        If it is not a matrix of floating-point numbers.
    """

    def __init__(self, X: np.ndarray | Tensor, block_rows: int = BLOCK_ROWS) -> None:
        floating = X.is_floating_point() if isinstance(X, Tensor) else np.issubdtype(X.dtype, np.floating)
        if X.ndim != 2 or not floating:
            raise DataError(
                f"rows must be a matrix of floating-point numbers; got {X.dtype} of shape {tuple(X.shape)}; "
                "give one row a token and one column a dimension"
            )
        self._matrix = X
        self._block_rows = block_rows

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return int(self._matrix.shape[0])

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self._matrix.shape[1])

    @property
    def is_cached(self) -> bool:
        """Whether reading a block costs nothing: single precision, and in memory."""
        return self._matrix.dtype in (np.float32, torch.float32) and not isinstance(self._matrix, np.memmap)

    def blocks(self) -> Iterator[tuple[int, Float[Tensor, "rows d"]]]:
        """Yield the first row number and the float32 rows of each block; not to be written to."""
        for start in range(0, self.n_rows, self._block_rows):
            block = self._matrix[start : start + self._block_rows]
            yield start, (block if isinstance(block, Tensor) else _tensor(block)).float()


def _tensor(block: np.ndarray) -> Float[Tensor, "rows d"]:
    # Torch wraps no arrays that are read-only, such as memory maps, or byte-swapped, such as those of old formats.
    native = block.dtype.newbyteorder("=")
    return torch.from_numpy(np.require(block, dtype=native, requirements=["C", "W"]))


def cached_rows(rows: RowSource, memory: int) -> RowSource:
    """Read a source once into a float32 matrix if that fits the budget; else give the source back, to be streamed.

    Parameters
    ----------
    rows : RowSource
        Anything; an `ArrayRows` of a float32 matrix is not copied.
    memory : int
        Bytes that the matrix may take.

    Returns
    -------
    RowSource
        The same rows, up to the bounds of the blocks.
    """
    if isinstance(rows, ArrayRows) and rows.is_cached:
        return rows
    if 4 * rows.n_rows * rows.width > memory:
        return rows
    matrix = torch.empty(rows.n_rows, rows.width)
    for start, block in rows.blocks():
        matrix[start : start + len(block)] = block
    return ArrayRows(matrix)
