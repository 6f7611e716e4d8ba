"""Test tokens of one layer with their labels, a few concepts at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from superactivators.ragged import segment_ids
from superactivators.scores.site_scores import SiteScores
from superactivators.states.labels import Labels

CELLS = 2**22
"""Most activations held in double precision at a time (one concept of very many tokens may exceed it)."""


@final
@dataclass(frozen=True, eq=False)
class LabelledTokens:
    """Tokens of test for some concepts.

    Attributes
    ----------
    columns : int64 array of shape (some,)
        Which concepts.
    activations : float32 array of shape (tokens, some)
    inside, outside : bool array of shape (tokens, some)
        In-concept tokens (D_in), and tokens of samples without the concept (D_out).
    offsets : int64 array of shape (samples + 1,)
    """

    columns: Int[np.ndarray, " some"]
    activations: Float[np.ndarray, "tokens some"]
    inside: Bool[np.ndarray, "tokens some"]
    outside: Bool[np.ndarray, "tokens some"]
    offsets: Int[np.ndarray, " n_plus_1"]


def carried_tokens(labels: Labels, rows: Int[np.ndarray, " some"]) -> sp.csr_matrix:
    """Which of some tokens carry which labelled concept: CSR bool matrix of shape (some, concepts)."""
    if labels.tokens is None:
        return sp.csr_matrix((len(rows), len(labels.concepts)), dtype=bool)
    return sp.csr_matrix(labels.tokens[rows].multiply(labels.known[rows][:, None]), dtype=bool)


def labelled_tokens(scores: SiteScores, labels: Labels, cells: int = CELLS) -> Iterator[LabelledTokens]:
    """Give the test tokens of one layer, concept by concept in blocks.

    Parameters
    ----------
    scores : SiteScores
        Of token states.
    labels : Labels
    cells : int
        Most activations of one block.

    Yields
    ------
    LabelledTokens
        Every concept once, in order; nothing where nobody labelled tokens.
    """
    if labels.tokens is None:
        return
    activations, rows, offsets = scores.of_split(labels, "test")
    carried = carried_tokens(labels, rows).tocsc()
    absent, owner = ~labels.samples[labels.in_split("test")], segment_ids(offsets)
    step = max(1, cells // max(1, len(rows)))
    for start in range(0, activations.shape[1], step):
        columns = np.arange(start, min(start + step, activations.shape[1]))
        inside = carried[:, columns].toarray()
        yield LabelledTokens(columns, activations[:, columns], inside, absent[owner][:, columns], offsets)
