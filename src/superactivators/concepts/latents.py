"""Latents in blocks of rows, and the numbers of latents: what every encoder shares."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from superactivators.errors import StudyError

CELLS = 2**23
"""Pre-activations of one block: 32 MiB in single precision."""

LEAST_ROWS = 64
"""Rows of one block at least, so that a product is worth its call."""


def block_rows(n_latents: int) -> int:
    """Rows of one block for that many pre-activations."""
    return max(LEAST_ROWS, CELLS // max(1, n_latents))


def gather(blocks: Iterator[tuple[int, Tensor]], n_rows: int, n_latents: int) -> Float[Tensor, "rows c"]:
    """Put the latents of all rows into one matrix."""
    result = torch.empty(n_rows, n_latents)
    for start, latents in blocks:
        result[start : start + len(latents)] = latents
    return result


def column_index(columns: Int[np.ndarray, " k"], n_latents: int) -> Int64[Tensor, " k"]:
    """Check numbers of latents; raises ``StudyError`` for others than 0 to ``n_latents - 1``."""
    index = torch.from_numpy(np.array(columns, dtype=np.int64))
    if not are_within(index, n_latents):
        raise StudyError(
            f"latents {int(index.min())} to {int(index.max())} asked of {n_latents}; give 0 to {n_latents - 1}"
        )
    return index


def are_within(index: Tensor, n: int) -> bool:
    """Whether all numbers are from 0 to ``n - 1``."""
    return not len(index) or (int(index.min()) >= 0 and int(index.max()) < n)
