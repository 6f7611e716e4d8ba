"""What a backbone makes of samples before any forward pass: how many tokens each has, and where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int, Int32

from superactivators.data.dataset import Modality
from superactivators.ragged import rows_of, segment_ids


@final
@dataclass(frozen=True, eq=False)
class Encoding:
    """Tokens of samples, ragged (see `superactivators.ragged`), without prefix, special and padding tokens.

    Attributes
    ----------
    modality : str
        ``"text"`` or ``"image"``.
    offsets : int64 array of shape (samples + 1,)
        Tokens of sample ``i`` are ``offsets[i]:offsets[i + 1]``.
    token_ids : int32 array of shape (tokens,) or None
        Text only: vocabulary ids.
    chars : int32 array of shape (tokens, 2) or None
        Text only: characters ``text[start:end]`` of each token, verified against the text.
    grids : int32 array of shape (samples, 2) or None
        Images only: rows and columns of the patch grid.
    cells : int32 array of shape (tokens,) or None
        Images only: which grid cell (row-major) each token is. Padding cells have no token.
    views : float64 array of shape (samples, 4) or None
        Images only: the box (left, top, right, bottom), in pixels of the original image, which the patch grid covers.
        Every cell is an equal share of it. A crop makes it smaller than the image, padding makes it larger.
    cut : int32 array of shape (samples,)
        Text only, else zero: tokens lost to truncation.
    """

    modality: Modality
    offsets: Int[np.ndarray, " n_plus_1"]
    token_ids: Int32[np.ndarray, " tokens"] | None
    chars: Int32[np.ndarray, "tokens 2"] | None
    grids: Int32[np.ndarray, "n 2"] | None
    cells: Int32[np.ndarray, " tokens"] | None
    views: Float[np.ndarray, "n 4"] | None
    cut: Int32[np.ndarray, " n"]

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.offsets) - 1

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all samples."""
        return int(self.offsets[-1])

    def boxes(self) -> Float[np.ndarray, "tokens 4"]:
        """Box (left, top, right, bottom) of every patch in pixels of the original image.

        Returns
        -------
        float64 array of shape (tokens, 4)
        """
        assert self.grids is not None and self.cells is not None and self.views is not None  # noqa: S101, PT018
        sample = segment_ids(self.offsets)
        rows, columns = self.grids[sample, 0], self.grids[sample, 1]
        y, x = np.divmod(self.cells, columns)
        left, top, right, bottom = self.views[sample].T
        wide, high = (right - left) / columns, (bottom - top) / rows
        return np.stack([left + x * wide, top + y * high, left + (x + 1) * wide, top + (y + 1) * high], axis=1)

    def subset(self, samples: Int[np.ndarray, " k"]) -> Encoding:
        """Keep only the samples with the given numbers, in the given order."""
        rows = rows_of(self.offsets, samples)
        lengths = np.diff(self.offsets)[samples]
        return Encoding(
            modality=self.modality,
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            token_ids=None if self.token_ids is None else self.token_ids[rows],
            chars=None if self.chars is None else self.chars[rows],
            grids=None if self.grids is None else self.grids[samples],
            cells=None if self.cells is None else self.cells[rows],
            views=None if self.views is None else self.views[samples],
            cut=self.cut[samples],
        )
