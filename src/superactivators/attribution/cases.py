"""Cases: samples that hold a concept, with the truth about their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from superactivators.errors import DataError
from superactivators.ragged import check_offsets, offsets_of, rows_of, segment_ids


@final
@dataclass(frozen=True, eq=False)
class Cases:
    """Pairs of a sample and a concept that it holds; their tokens lie end to end.

    Maps of one explainer and objective over the cases are one float array of shape (rows,) beside them.

    Attributes
    ----------
    samples : int64 array of shape (cases,)
        Numbers of the samples in the states.
    concepts : int64 array of shape (cases,)
        Numbers of the concepts.
    offsets : int64 array of shape (cases + 1,)
        Case ``i`` owns the rows ``offsets[i]:offsets[i + 1]``: all tokens of its sample.
    inside : bool array of shape (rows,)
        In-concept tokens.
    known : bool array of shape (rows,)
        Tokens of which it is known whether they are; the others are left out of every measure.

    Raises
    ------
    DataError
        If the arrays do not fit together, a number is negative or a pair comes twice.
    """

    samples: Int[np.ndarray, " cases"]
    concepts: Int[np.ndarray, " cases"]
    offsets: Int[np.ndarray, " cases_plus_1"]
    inside: Bool[np.ndarray, " rows"]
    known: Bool[np.ndarray, " rows"]

    def __post_init__(self) -> None:
        check_offsets(self.offsets, len(self.inside))
        sizes = (len(self.samples), len(self.concepts), len(self.offsets) - 1)
        if len(set(sizes)) > 1 or len(self.known) != len(self.inside):
            raise DataError(
                f"cases need one sample, concept and run of rows each, and as many known flags as rows; got "
                f"{sizes[0]} samples, {sizes[1]} concepts, {sizes[2]} runs, {len(self.inside)} rows, "
                f"{len(self.known)} known flags"
            )
        pairs = np.stack([self.samples, self.concepts])
        if pairs.size and pairs.min() < 0:
            raise DataError(f"numbers of samples and concepts start at 0; got {pairs.min()}")
        if np.unique(pairs, axis=1).shape[1] != len(self):
            raise DataError(f"each sample and concept is one case; of {len(self)} cases some are the same pair")

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def owners(self) -> Int[np.ndarray, " rows"]:
        """Case of every row."""
        return segment_ids(self.offsets)

    @property
    def counted(self) -> Bool[np.ndarray, " rows"]:
        """In-concept tokens that are known to be."""
        return np.asarray(self.inside & self.known)

    @property
    def positives(self) -> Int[np.ndarray, " cases"]:
        """Known in-concept tokens of every case; a case without any cannot be measured."""
        return np.bincount(self.owners[self.counted], minlength=len(self)).astype(np.int64)

    def total(self, numbers: Shaped[np.ndarray, " rows"]) -> Float[np.ndarray, " cases"]:
        """Sum over the rows of each case, in float64."""
        return np.bincount(self.owners, weights=numbers, minlength=len(self)).astype(np.float64)

    def rows(self, chosen: Int[np.ndarray, " k"]) -> Int[np.ndarray, " some"]:
        """Rows of the given cases, in the given order: what to take out of maps beside `subset`."""
        return rows_of(self.offsets, chosen)

    def subset(self, chosen: Int[np.ndarray, " k"]) -> Cases:
        """Take the given cases, in the given order.

        Parameters
        ----------
        chosen : int array of shape (k,)
            Positions among the cases.
        """
        rows = self.rows(chosen)
        offsets = offsets_of(np.diff(self.offsets)[chosen])
        return Cases(self.samples[chosen], self.concepts[chosen], offsets, self.inside[rows], self.known[rows])

    def without_unknown(self) -> Cases:
        """Drop rows that are not known; of maps take ``maps[cases.known]``."""
        before = np.concatenate([[0], np.cumsum(self.known)]).astype(np.int64)
        inside = self.inside[self.known]
        return Cases(self.samples, self.concepts, before[self.offsets], inside, np.ones(len(inside), dtype=bool))
