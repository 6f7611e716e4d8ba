"""Separators as the paper's published code trains them (``protocol = "paper"``): undersampled, Adam, no bias."""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from superactivators.concepts.rows import RowSource
from superactivators.errors import DataError, StudyError
from superactivators.ragged import offsets_of

BATCH = 64
"""Rows of a step for labelled concepts; the published code takes 256 for clusters."""

MAX_EPOCHS = 1000
MEMORY = 2**30

LEARNING_RATE, DECAY, DECAY_EVERY = 1e-3, 0.8, 5
"""Adam's step size, and by how much it shrinks after how many epochs."""

WEIGHT_DECAY = 1e-4
"""L2 penalty; it enters the gradient, before Adam's averages."""

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Adam's constants, those of torch."""

ENOUGH_F1 = 0.99
PATIENCE, LEAST_GAIN = 20, 1e-3
"""Training ends after so many epochs in a row without so large a gain over the best train loss."""

STEP_BYTES = 2**23
"""Rows gathered ahead for a few steps: large enough to be worth a call, small enough to stay in the cache."""

LEAST_AT_ONCE = 16
"""Concepts that step together, however large their steps."""

STOPS = ("epochs", "f1", "patience", "not estimable")


@final
@dataclass(frozen=True, eq=False)
class PaperSeparators:
    """Separators of every concept, with how their training went.

    Attributes
    ----------
    weights : float32 array of shape (concepts, width)
        In units of the rows as given; there is no bias. Zero where a concept is not estimable.
    estimable : bool array of shape (concepts,)
        False where no labelled row, or every one, carries the concept.
    n : int64 array of shape (concepts,)
        Rows drawn of each class.
    epochs : int64 array of shape (concepts,)
    loss, f1 : float64 arrays of shape (concepts,)
        Train loss (averaged over the steps of the last epoch) and F1 on the drawn rows after it; NaN if not estimable.
    stopped : tuple of str
        Why training ended: ``"f1"``, ``"patience"``, ``"epochs"`` (the most that were allowed) or ``"not estimable"``.
    """

    weights: Float[np.ndarray, "c d"]
    estimable: Bool[np.ndarray, " c"]
    n: Int[np.ndarray, " c"]
    epochs: Int[np.ndarray, " c"]
    loss: Float[np.ndarray, " c"]
    f1: Float[np.ndarray, " c"]
    stopped: tuple[str, ...]

    @property
    def notes(self) -> dict[str, Any]:
        """What a `ConceptBank` keeps of the training, as JSON types."""
        return {
            "rows_per_class": self.n.tolist(),
            "epochs": self.epochs.tolist(),
            "train_loss": [value if math.isfinite(value) else None for value in self.loss.tolist()],
            "train_f1": [value if math.isfinite(value) else None for value in self.f1.tolist()],
            "stopped": list(self.stopped),
        }


def fit_paper_separators(
    rows: RowSource,
    labels: Any,
    known: Bool[np.ndarray, " rows"],
    *,
    names: Sequence[str],
    seed: int = 0,
    memory: int = MEMORY,
    batch: int = BATCH,
    max_epochs: int = MAX_EPOCHS,
) -> PaperSeparators:
    """Train one linear separator without bias for every concept, as the paper's published code does.

    Per concept both classes are undersampled once to the size of the smaller one; Adam (step 1e-3, times 0.8 every 5
    epochs, weight decay 1e-4 in the gradient) goes through them in shuffled steps of ``batch`` rows; training ends at a
    train F1 of 0.99, or after 20 epochs in a row that lower the best train loss by less than 1e-3. The last weights are
    kept. With so short a schedule rare concepts end near their random start.

    Parameters
    ----------
    rows : RowSource
        Scaled states of the train split.
    labels : scipy CSR bool matrix of shape (rows, concepts)
    known : bool array of shape (rows,)
        Rows that are labelled; the others are left out entirely.
    names : sequence of str
        Of the concepts. All draws of a concept (rows, start, order) come from the seed and its name, so that neither
        the other concepts nor their order change its separator.
    seed : int
    memory : int
        Bytes that the drawn rows may take; more are kept in a temporary file.
    batch : int
        Rows of a step.
    max_epochs : int

    Returns
    -------
    PaperSeparators

    Raises
    ------
    DataError
        If labels, names and rows do not fit together, no row is labelled, or a drawn value is not finite.
    StudyError
        If batch or max_epochs are not positive.

    Notes
    -----
    Differs from the published code where that cannot be repeated or has no result: every draw is seeded, and a concept
    without both classes gets a zero vector that is marked, not a random one. All concepts step together; each goes
    through its own epochs. The rows are read once.
    """
    labels = _checked(rows, labels, known, names, batch, max_epochs)
    draws = _Draws.of(labels, known, names, seed)
    held, order = _gather(rows, draws, memory)
    n_concepts = len(names)
    found = PaperSeparators(
        weights=np.zeros((n_concepts, rows.width), dtype=np.float32),
        estimable=draws.estimable,
        n=np.where(draws.estimable, draws.n, 0),
        epochs=np.zeros(n_concepts, dtype=np.int64),
        loss=np.full(n_concepts, np.nan),
        f1=np.full(n_concepts, np.nan),
        stopped=(),
    )
    stopped = np.full(n_concepts, STOPS.index("not estimable"))
    at_once = max(LEAST_AT_ONCE, STEP_BYTES // (4 * batch * rows.width))
    for begin in range(0, len(draws.concepts), at_once):
        training = _Training(held, draws, order, slice(begin, begin + at_once), batch, max_epochs)
        training.run(found, stopped)
    return PaperSeparators(
        found.weights,
        found.estimable,
        found.n,
        found.epochs,
        found.loss,
        found.f1,
        tuple(STOPS[reason] for reason in stopped.tolist()),
    )


def _checked(
    rows: RowSource, labels: Any, known: Bool[np.ndarray, " rows"], names: Sequence[str], batch: int, max_epochs: int
) -> Any:
    if batch < 1 or max_epochs < 1:
        raise StudyError(f"batch and max_epochs must be at least 1; got {batch} and {max_epochs}")
    if labels.shape[0] != rows.n_rows or known.shape != (rows.n_rows,):
        raise DataError(
            f"labels of {labels.shape[0]} rows and known of shape {known.shape} do not fit {rows.n_rows} rows of states"
        )
    if len(names) != labels.shape[1] or len(set(names)) != len(names):
        raise DataError(f"names must be {labels.shape[1]} distinct ones, a concept each; got {len(names)}")
    if not known.any():
        raise DataError(f"none of the {rows.n_rows} rows is labelled; separators need rows with and without a concept")
    labels = labels.tocsc(copy=True)
    labels.sum_duplicates()
    labels.eliminate_zeros()
    return labels


@final
@dataclass(frozen=True, eq=False)
class _Draws:
    """What is drawn of each estimable concept before training.

    Attributes
    ----------
    estimable : bool array of shape (all concepts,)
    n : int64 array of shape (all concepts,)
        Rows of the smaller class.
    concepts : int64 array of shape (estimable concepts,)
        Columns, those with few rows first.
    rows : int64 array of shape (drawn rows,)
        Of each estimable concept first the n positive rows, then the n negative ones.
    offsets : int64 array of shape (estimable concepts + 1,)
    generators : list of numpy Generator
        One for each estimable concept; draws on with every epoch.
    """

    estimable: Bool[np.ndarray, " c"]
    n: Int[np.ndarray, " c"]
    concepts: Int[np.ndarray, " k"]
    rows: Int[np.ndarray, " drawn"]
    offsets: Int[np.ndarray, " k_plus_1"]
    generators: list[np.random.Generator]

    @staticmethod
    def of(labels: Any, known: Bool[np.ndarray, " rows"], names: Sequence[str], seed: int) -> _Draws:
        known_rows = np.flatnonzero(known)
        positives = np.bincount(
            np.repeat(np.arange(labels.shape[1]), np.diff(labels.indptr))[known[labels.indices]],
            minlength=labels.shape[1],
        )
        n = np.minimum(positives, len(known_rows) - positives)
        # Concepts with about as many rows stand together, so that few wait for others.
        concepts = np.argsort(n, kind="stable")
        concepts = concepts[n[concepts] > 0]
        generators = [generator_of(seed, names[c]) for c in concepts.tolist()]
        drawn = [np.empty(0, dtype=np.int64)]
        # Each concept draws from a generator of its own, so this goes from one to the next; it is a small part of the
        # time, because the draws themselves are whole arrays.
        for c, generator in zip(concepts.tolist(), generators, strict=True):
            carries = np.zeros(len(known), dtype=bool)
            carries[labels.indices[labels.indptr[c] : labels.indptr[c + 1]]] = True
            inside = carries[known_rows]
            drawn.append(generator.choice(known_rows[inside], n[c], replace=False))
            drawn.append(generator.choice(known_rows[~inside], n[c], replace=False))
        return _Draws(n > 0, n, concepts, np.concatenate(drawn), offsets_of(2 * n[concepts]), generators)


def generator_of(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one concept, whatever the others are.

    They are taken in this order: the positive rows, the negative rows, the weights to start from, and then one
    permutation of the drawn rows for each epoch.
    """
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _gather(rows: RowSource, draws: _Draws, memory: int) -> tuple[Float[Tensor, "u d"], Int[Tensor, " drawn"]]:
    """Read every drawn row once: the distinct rows, and where among them each draw is."""
    chosen, place = np.unique(draws.rows, return_inverse=True)
    if 4 * len(chosen) * rows.width <= memory:
        held = torch.empty(len(chosen), rows.width)
    else:
        # The file has no name, and its memory map outlives it.
        with tempfile.TemporaryFile() as file:
            held = torch.from_numpy(np.memmap(file, np.float32, "w+", shape=(len(chosen), rows.width)))
    finite = True
    for start, block in rows.blocks():
        first, last = np.searchsorted(chosen, [start, start + len(block)])
        held[first:last] = block[torch.from_numpy(chosen[first:last] - start)]
        finite = finite and bool(torch.isfinite(held[first:last]).all())
    if not finite:
        raise DataError("the rows hold values that are not finite; use states that are kept in bfloat16 or float32")
    return held, torch.from_numpy(place)


@final
class _Training:
    """Some concepts, stepping together; those that are done leave.

    Parameters
    ----------
    held : float32 tensor of shape (distinct rows, width)
    draws : _Draws
    order : int64 tensor of shape (drawn rows,)
        Place of every drawn row in ``held``.
    group : slice
        Which of the estimable concepts.
    batch, max_epochs : int
    """

    def __init__(
        self,
        held: Float[Tensor, "u d"],
        draws: _Draws,
        order: Int[Tensor, " drawn"],
        group: slice,
        batch: int,
        max_epochs: int,
    ) -> None:
        lengths, width = np.diff(draws.offsets)[group], held.shape[1]
        begin = int(draws.offsets[group.start])
        self._held, self._batch, self._max_epochs = held, batch, max_epochs
        self._drawn = order[begin : begin + int(lengths.sum())]
        self._generators = draws.generators[group]
        self._numbers = torch.empty_like(self._drawn)
        """Numbers of a concept's drawn rows, counted from its first, in the order of its epoch."""
        self._concept = torch.from_numpy(draws.concepts[group])
        self._which = torch.arange(len(lengths))
        """Which generator each concept has that is still in training."""
        self._length = torch.from_numpy(lengths)
        self._first = torch.from_numpy(offsets_of(lengths)[:-1])
        self._done = torch.zeros_like(self._length)
        self._epoch = torch.zeros_like(self._length)
        self._waited = torch.zeros_like(self._length)
        self._loss = torch.zeros(len(lengths), dtype=torch.float64)
        self._best = torch.full_like(self._loss, math.inf)
        reach = 1.0 / math.sqrt(width)
        starts = [generator.uniform(-reach, reach, width) for generator in self._generators]
        self._weights = torch.from_numpy(np.stack(starts)).float()
        self._mean, self._square = torch.zeros_like(self._weights), torch.zeros_like(self._weights)
        self._steps = 0
        self._begin_epoch(torch.arange(len(lengths)))

    def run(self, into: PaperSeparators, stopped: Int[np.ndarray, " c"]) -> None:
        """Train until every concept is done, and enter the outcome."""
        while len(self._concept):
            self._advance()
            ended = torch.nonzero(self._done >= self._length).ravel()
            if not len(ended):
                continue
            loss, f1, reason = self._judge(ended)
            out, leaves = reason >= 0, torch.zeros(len(self._concept), dtype=torch.bool)
            leaves[ended[out]] = True
            concept = self._concept[leaves].numpy()
            into.weights[concept] = self._weights[leaves].numpy()
            into.epochs[concept] = self._epoch[leaves].numpy()
            into.loss[concept], into.f1[concept] = loss[out].numpy(), f1[out].numpy()
            stopped[concept] = reason[out].numpy()
            self._begin_epoch(ended[~out])
            if len(concept):
                self._keep(~leaves)

    def _begin_epoch(self, which: Int[Tensor, " k"]) -> None:
        for k, generator in zip(which.tolist(), self._which[which].tolist(), strict=True):
            first, length = int(self._first[k]), int(self._length[k])
            self._numbers[first : first + length] = torch.from_numpy(self._generators[generator].permutation(length))
        self._done[which] = 0
        self._loss[which] = 0.0

    def _keep(self, kept: Bool[Tensor, " k"]) -> None:
        for name in ("concept", "which", "length", "first", "done", "epoch", "waited", "loss", "best"):
            setattr(self, f"_{name}", getattr(self, f"_{name}")[kept])
        for name in ("weights", "mean", "square"):
            setattr(self, f"_{name}", getattr(self, f"_{name}")[kept])

    def _advance(self) -> None:
        """Take steps until the epoch of some concept ends, or until as many rows were gathered as are gathered ahead.

        The last step of an epoch has fewer rows; others stand in for those that lack, with no share in the mean.
        """
        batch, n_concepts, width = self._batch, *self._weights.shape
        ahead = max(1, STEP_BYTES // (4 * n_concepts * batch * width))
        n_steps = min(ahead, int(self._steps_left().min()))
        position = self._done[:, None] + torch.arange(n_steps * batch).reshape(n_steps, 1, batch)
        length, first = self._length[:, None], self._first[:, None]
        real = position < length
        number = self._numbers[first + torch.minimum(position, length - 1)]
        taken = self._held[self._drawn[first + number]]
        # The first half of a concept's drawn rows is positive.
        sign = torch.where(number < length // 2, 1.0, -1.0)
        share = real / real.sum(dim=2, keepdim=True)
        rate = LEARNING_RATE * DECAY ** (self._epoch // DECAY_EVERY).double()
        for x, signs, shares in zip(taken, sign, share, strict=True):
            self._step(x, signs, shares, rate)
        self._done += n_steps * batch

    def _steps_left(self) -> Int[Tensor, " k"]:
        return (self._length - self._done + self._batch - 1) // self._batch

    def _step(
        self,
        x: Float[Tensor, "k b d"],
        sign: Float[Tensor, "k b"],
        share: Float[Tensor, "k b"],
        rate: Float[Tensor, " k"],
    ) -> None:
        """Take one step of every concept: mean logistic loss of its rows, and Adam (Kingma and Ba, 2015)."""
        margin = torch.bmm(x, self._weights[:, :, None])[:, :, 0] * sign
        self._loss += (torch.nn.functional.softplus(-margin) * share).sum(dim=1)
        pull = torch.sigmoid(-margin) * sign * -share
        gradient = torch.bmm(pull[:, None, :], x)[:, 0].add_(self._weights, alpha=WEIGHT_DECAY)
        self._steps += 1
        of_mean, of_square = BETAS
        self._mean.lerp_(gradient, 1 - of_mean)
        self._square.mul_(of_square).addcmul_(gradient, gradient, value=1 - of_square)
        spread = self._square.sqrt().div_(math.sqrt(1 - of_square**self._steps)).add_(EPSILON)
        self._weights.sub_((rate / (1 - of_mean**self._steps)).float()[:, None] * self._mean / spread)

    def _judge(self, ended: Int[Tensor, " e"]) -> tuple[Float[Tensor, " e"], Float[Tensor, " e"], Int[Tensor, " e"]]:
        """Train loss and F1 of concepts whose epoch has ended, and why each stops (-1: it does not)."""
        self._epoch[ended] += 1
        loss = self._loss[ended] / ((self._length[ended] + self._batch - 1) // self._batch)
        f1 = self._train_f1(ended)
        idle = (self._best[ended] - loss < LEAST_GAIN) & (self._epoch[ended] > 1)
        self._waited[ended] = torch.where(idle, self._waited[ended] + 1, 0)
        self._best[ended] = torch.minimum(self._best[ended], loss)
        reason = torch.full_like(ended, -1)
        reason[self._epoch[ended] >= self._max_epochs] = STOPS.index("epochs")
        reason[self._waited[ended] >= PATIENCE] = STOPS.index("patience")
        reason[f1 >= ENOUGH_F1] = STOPS.index("f1")
        return loss, f1, reason

    def _train_f1(self, ended: Int[Tensor, " e"]) -> Float[Tensor, " e"]:
        """F1 of a positive logit over the drawn rows."""
        hits, fired = (torch.zeros(len(ended), dtype=torch.float64) for _ in range(2))
        at_once = max(1, STEP_BYTES // (4 * len(ended) * self._held.shape[1]))
        for begin in range(0, int(self._length[ended].max()), at_once):
            live = torch.nonzero(self._length[ended] > begin).ravel()
            length, first = self._length[ended[live], None], self._first[ended[live], None]
            number = begin + torch.arange(min(at_once, int(length.max()) - begin))
            taken = self._held[self._drawn[first + torch.minimum(number, length - 1)]]
            fires = (torch.bmm(taken, self._weights[ended[live], :, None])[:, :, 0] > 0) & (number < length)
            fired[live] += fires.sum(dim=1)
            hits[live] += (fires & (number < length // 2)).sum(dim=1)
        return 2 * hits / (fired + self._length[ended] // 2)
