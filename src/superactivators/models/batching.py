"""Forward batches: which samples run together, and where their tokens stand in what the model returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Int
from torch import Tensor

from superactivators.data.dataset import Modality, Sample
from superactivators.models.encoding import Encoding


@final
@dataclass(frozen=True, eq=False)
class Layout:
    """Where the wanted rows stand in states of shape (pieces, sequence, d), seen as (pieces * sequence, d).

    Attributes
    ----------
    rows : int64 array of shape (tokens,)
        Content tokens, in the order of the encoding.
    counts : int64 array of shape (pieces,)
        How many of them each piece has.
    cls : int64 array of shape (pieces,) or None
        The CLS state of each piece; None if the model has none.
    """

    rows: Int[np.ndarray, " tokens"]
    counts: Int[np.ndarray, " pieces"]
    cls: Int[np.ndarray, " pieces"] | None

    def repeated(self, copies: int, states: int) -> Layout:
        """Lay out so many copies, one after the other, of ``states`` states each."""
        if copies == 1:
            return self
        first = np.arange(copies)[:, None] * states
        cls = None if self.cls is None else (first + self.cls).ravel()
        return Layout((first + self.rows).ravel(), np.tile(self.counts, copies), cls)


@runtime_checkable
class LayoutRule(Protocol):
    """What finds the wanted rows in the states of a forward pass."""

    def __call__(self, sequence: int, copies: int = 1) -> Layout:
        """Give the layout.

        Parameters
        ----------
        sequence : int
            Length of the sequence that the model turns out to have; models that pack a batch have a single long one.
        copies : int
            How often the inputs were repeated along their first axis, one whole batch after the other.

        Raises
        ------
        ModelError
            If there cannot be such a sequence.
        """
        ...


@final
@dataclass(frozen=True, eq=False)
class ForwardPass:
    """Inputs of one forward pass.

    Attributes
    ----------
    inputs : mapping of str to tensor
        Arguments of the model's ``forward``, on the CPU.
    layout : LayoutRule
        Gives the `Layout` for the length of the sequence that the model turns out to have.
    pieces : int64 array of shape (pieces,)
        Which sample of the batch each piece belongs to. An image is one piece; a long text is several windows.
    shows : function
        Gives an int64 array of shape (pieces, positions) or (pieces, rows, columns): which content token of the batch
        each place of the *input* shows, -1 for none. Places are positions of ``input_ids``, or cells of the picture.
        Windows overlap, so that several places can show one token.
    """

    inputs: Mapping[str, Tensor]
    layout: LayoutRule
    pieces: Int[np.ndarray, " pieces"]
    shows: Callable[[], Int[np.ndarray, "pieces *places"]]


@final
@dataclass(frozen=True, eq=False)
class ForwardBatch:
    """Samples that are captured together, in one forward pass or, for a very long text, in several.

    Attributes
    ----------
    rows : int64 array of shape (k,)
        Sample numbers within the sequence that was given.
    offsets : int64 array of shape (k + 1,)
        Content tokens of each of them.
    passes : sequence of ForwardPass
    """

    rows: Int[np.ndarray, " k"]
    offsets: Int[np.ndarray, " k_plus_1"]
    passes: Sequence[ForwardPass]


class SampleReader(Protocol):
    """What turns samples into model inputs; there is one for texts and one for images."""

    modality: Modality

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or tokens, as JSON values."""
        ...

    def encode(self, samples: Sequence[Sample]) -> Encoding:
        """Find the tokens of the samples, without a forward pass."""
        ...

    def batches(self, samples: Sequence[Sample], encoding: Encoding, max_batch_tokens: int) -> Iterator[ForwardBatch]:
        """Form batches; every sample is in exactly one of them."""
        ...


def plan_batches(
    lengths: Int[np.ndarray, " n"], pieces: Int[np.ndarray, " n"], max_batch_tokens: int
) -> list[Int[np.ndarray, " k"]]:
    """Group samples of similar length.

    Parameters
    ----------
    lengths : int array of shape (n,)
        Length of each sample's longest piece, special tokens included.
    pieces : int array of shape (n,)
        Number of pieces of each sample.
    max_batch_tokens : int
        Most tokens, padding included, in a group; a single sample may be longer.

    Returns
    -------
    list of int64 arrays
        Sample numbers, shortest samples first; ties keep the given order, so that the same samples always make the
        same groups.
    """
    order = np.lexsort((np.arange(len(lengths)), pieces, lengths))
    groups: list[Int[np.ndarray, " k"]] = []
    begin, total = 0, 0
    for place, sample in enumerate(order.tolist()):  # a loop over samples: each group depends on the one before
        total += int(pieces[sample])
        if place > begin and total * int(lengths[sample]) > max_batch_tokens:
            groups.append(order[begin:place])
            begin, total = place, int(pieces[sample])
    if len(order):
        groups.append(order[begin:])
    return groups
