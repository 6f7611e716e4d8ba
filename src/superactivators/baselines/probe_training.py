"""Training of pooling probes: all probes and concepts of a site together, in mini-batches of whole samples."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import expit
from torch import Tensor

from superactivators.baselines.probe_poolings import Pull, Tokens
from superactivators.ragged import cut_into_runs, offsets_of, rows_of, segment_ids, segment_mean
from superactivators.ranking import average_precision
from superactivators.states.states import States

CHUNK = 8_192
"""Tokens scored at a time."""

START = 0.05
"""Length of a head at the start, and of what is drawn at random beside it."""

ADAM = (0.9, 0.999, 1e-8)
"""Decay of Adam's first and second moments, and the term that keeps its division finite."""

Pooling: TypeAlias = Callable[[np.ndarray, Tokens], tuple[np.ndarray, Pull]]


@final
@dataclass(frozen=True)
class Recipe:
    """How probes are trained.

    Attributes
    ----------
    learning_rate : float
        Of Adam at the start; it falls to zero along half a cosine.
    weight_decay : float
        Decoupled L2, in units of the learning rate.
    max_epochs : int
        Most passes over the train samples.
    patience : int
        Epochs without a better cal average precision after which a probe of a concept is done.
    batch : int
        Samples of one step.
    window : int
        Tokens of one window of ``rolling-max``.
    seed : int
    """

    learning_rate: float
    weight_decay: float
    max_epochs: int
    patience: int
    batch: int
    window: int
    seed: int


@final
@dataclass(frozen=True, eq=False)
class HeldStates:
    """States of some samples at one site, as stored, where single samples can be picked.

    Attributes
    ----------
    rows : tensor of shape (tokens, width)
        In memory or in a temporary file.
    samples : int64 array of shape (k,)
        Which samples: those of one split that have tokens.
    offsets : int64 array of shape (k + 1,)
    """

    rows: Float[Tensor, "tokens d"]
    samples: Int[np.ndarray, " k"]
    offsets: Int[np.ndarray, " k_plus_1"]

    @property
    def n_rows(self) -> int:
        """Number of tokens."""
        return len(self.rows)

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.rows.shape[1])

    def blocks(self) -> Iterator[tuple[int, Float[Tensor, "rows d"]]]:
        """Yield the first row number and the float32 rows of runs of equal length, whatever the store's blocks."""
        for begin in range(0, len(self.rows), CHUNK):
            yield begin, self.rows[begin : begin + CHUNK].float()


def hold(states: States, site: str, splits: tuple[str, ...], memory: int, folder: Path) -> list[HeldStates]:
    """Read the tokens of some splits in one pass; into files in ``folder`` where they do not fit in ``memory``."""
    lengths = np.diff(states.offsets)
    chosen = [np.flatnonzero((states.labels.splits == split) & (lengths > 0)) for split in splits]
    counts = [int(lengths[samples].sum()) for samples in chosen]
    owner = segment_ids(states.offsets)
    wanted = [np.isin(owner, samples) for samples in chosen]
    held: list[Tensor] = []
    filled = [0] * len(splits)
    for first, block in states.values.blocks(site):
        if not held:
            fits = sum(counts) * block.shape[1] * block.element_size() <= memory
            for split, count in zip(splits, counts, strict=True):
                size = count * block.shape[1]
                file = str(folder / f"{split}.states")
                flat = (
                    torch.empty(size, dtype=block.dtype)
                    if fits or not size
                    else torch.from_file(file, shared=True, size=size, dtype=block.dtype)
                )
                held.append(flat.view(count, block.shape[1]))
        for number, rows in enumerate(held):
            taken = torch.from_numpy(np.flatnonzero(wanted[number][first : first + len(block)]))
            rows[filled[number] : filled[number] + len(taken)] = block[taken]
            filled[number] += len(taken)
    return [HeldStates(rows, samples, offsets_of(lengths[samples])) for rows, samples in zip(held, chosen, strict=True)]


@final
@dataclass(frozen=True, eq=False)
class Standard:
    """Columns brought to mean zero and variance one: probes are trained on states standardised so."""

    mean: Float[Tensor, " d"]
    deviation: Float[Tensor, " d"]

    @staticmethod
    def fit(held: HeldStates, mean: Float[Tensor, " d"]) -> Standard:
        """Measure the deviations around a given mean; columns that never change are left at scale one."""
        square = torch.zeros(held.width, dtype=torch.float64)
        for _, block in held.blocks():
            square += (block - mean).square_().sum(dim=0, dtype=torch.float64)
        deviation = (square / held.n_rows).sqrt().float()
        # what rounding leaves of a constant column is no signal
        return Standard(mean, torch.where(deviation > 1e-6 * mean.abs(), deviation, torch.inf))

    def apply(self, rows: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        """Standardised float32 rows."""
        return rows.to(torch.float32, copy=True).sub_(self.mean).div_(self.deviation)


@final
@dataclass(frozen=True, eq=False)
class Trained:
    """What training gives, by probe.

    Attributes
    ----------
    weights : mapping of str to float32 tensor of shape (heads, concepts, width)
        For standardised states.
    bias : mapping of str to float32 array of shape (concepts,)
    chosen : mapping of str to int64 array of shape (concepts,)
        Epoch whose weights are kept, from 1.
    average_precision : mapping of str to float64 array of shape (concepts,)
        On cal, of the epoch that is kept; NaN where cal has no positive.
    epochs : int
        Passes that were made.
    """

    weights: Mapping[str, Float[Tensor, "h c d"]]
    bias: Mapping[str, Float[np.ndarray, " c"]]
    chosen: Mapping[str, Int[np.ndarray, " c"]]
    average_precision: Mapping[str, Float[np.ndarray, " c"]]
    epochs: int


def score_standardised(
    states: Float[Tensor, "tokens d"],
    weights: Float[Tensor, "h c d"],
    parts: Mapping[str, tuple[Pooling, slice]],
    tokens: Tokens,
) -> Iterator[tuple[str, np.ndarray, Pull]]:
    """Yield every probe's scores, without bias, and how their gradient goes back; one product for all probes."""
    heads, concepts, width = weights.shape
    logits = (states @ weights.view(-1, width).T).view(len(states), heads, concepts).numpy()
    for name, (pooling, place) in parts.items():
        yield name, *pooling(logits[:, place], tokens)


def train(
    held: HeldStates,
    cal: HeldStates,
    ids: list[str],
    present: Bool[np.ndarray, "n c"],
    parts: Mapping[str, tuple[Pooling, slice]],
    standard: Standard,
    recipe: Recipe,
) -> Trained:
    """Train all probes on ``held`` and keep, for each probe and concept, the epoch that ranks ``cal`` best.

    Parameters
    ----------
    held, cal : HeldStates
        Train and cal samples.
    ids : list of str
        Of all samples.
    present : bool array of shape (samples, concepts)
        Labels of all samples; only those of train and cal are read.
    parts : mapping of str to (pooling, slice)
        Every probe's pooling, and its heads among all.
    standard : Standard
    recipe : Recipe
    """
    targets, cal_targets = present[held.samples], present[cal.samples]
    positives = targets.sum(axis=0)
    negatives = len(targets) - positives
    concepts = targets.shape[1]
    estimable = (positives > 0) & (negatives > 0)
    share = np.where(targets, 0.5 / np.maximum(positives, 1), 0.5 / np.maximum(negatives, 1)) * estimable
    share = (share * len(targets)).astype(np.float32)
    heads = max(place.stop for _, place in parts.values())
    weights = torch.empty(heads, concepts, held.width)
    apart = _mean_difference(held, targets, standard)
    for name, (_, place) in parts.items():
        weights[place] = _start(recipe.seed, name, place.stop - place.start, apart)
    weights *= torch.from_numpy(estimable)[None, :, None]
    bias = torch.zeros(len(parts), concepts)
    steps = -(-len(targets) // recipe.batch)
    adam = Adam([weights, bias], recipe, steps * recipe.max_epochs)
    best = {name: np.full(concepts, -np.inf) for name in parts}
    chosen = {name: np.zeros(concepts, dtype=np.int64) for name in parts}
    kept, kept_bias = weights.clone(), bias.clone()
    open_ = {name: estimable.copy() for name in parts}
    rankable = cal_targets.any(axis=0)
    names, epoch = [ids[sample] for sample in held.samples], 0
    while epoch < recipe.max_epochs and any(still.any() for still in open_.values()):
        epoch += 1
        order = shuffled(names, recipe.seed, epoch)
        for batch in np.split(order, np.arange(recipe.batch, len(order), recipe.batch)):
            rows = torch.from_numpy(rows_of(held.offsets, batch))
            tokens = Tokens(offsets_of(np.diff(held.offsets)[batch]), recipe.window)
            states = standard.apply(held.rows[rows])
            slopes = [torch.empty_like(weights), torch.empty_like(bias)]
            for number, (name, scores, pull) in enumerate(score_standardised(states, weights, parts, tokens)):
                slope = expit(scores + bias[number].numpy()) - targets[batch]
                slope *= share[batch] / np.float32(len(batch))
                slopes[0][parts[name][1]] = pull(slope, states)
                slopes[1][number] = torch.from_numpy(slope.sum(axis=0))
            adam.step(slopes)
        scored = score_held(cal, weights, parts, standard, recipe.window)
        for number, name in enumerate(parts):
            found = average_precision(scored[name], cal_targets)
            # without positives on cal there is nothing to choose by, and the last epoch stays
            better = open_[name] & ((found > best[name]) | ~rankable)
            best[name] = np.where(better, found, best[name])
            chosen[name] = np.where(better, epoch, chosen[name])
            place, taken = parts[name][1], torch.from_numpy(better)
            kept[place] = torch.where(taken[None, :, None], weights[place], kept[place])
            kept_bias[number] = torch.where(taken, bias[number], kept_bias[number])
            open_[name] &= epoch - chosen[name] < recipe.patience
    return Trained(
        weights={name: kept[place] for name, (_, place) in parts.items()},
        bias={name: kept_bias[number].numpy() for number, name in enumerate(parts)},
        chosen=chosen,
        average_precision={name: np.where(np.isfinite(found), found, np.nan) for name, found in best.items()},
        epochs=epoch,
    )


def score_held(
    held: HeldStates,
    weights: Float[Tensor, "h c d"],
    parts: Mapping[str, tuple[Pooling, slice]],
    standard: Standard,
    window: int,
) -> dict[str, Float[np.ndarray, "k c"]]:
    """Scores of held samples, without bias."""
    scored = {name: np.empty((len(held.samples), weights.shape[1]), dtype=np.float32) for name in parts}
    for begin, end in itertools.pairwise(cut_into_runs(held.offsets, CHUNK).tolist()):
        offsets = held.offsets[begin : end + 1]
        states = standard.apply(held.rows[offsets[0] : offsets[-1]])
        for name, scores, _ in score_standardised(states, weights, parts, Tokens(offsets - offsets[0], window)):
            scored[name][begin:end] = scores
    return scored


def shuffled(ids: list[str], seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    """Order of the samples in one epoch, from the seed and the ids alone."""
    keys = [hashlib.blake2b(f"{seed}:{epoch}:{name}".encode(), digest_size=8).digest() for name in ids]
    return np.argsort(np.frombuffer(b"".join(keys), dtype=">u8"), kind="stable").astype(np.int64)


def _mean_difference(held: HeldStates, targets: Bool[np.ndarray, "k c"], standard: Standard) -> Float[Tensor, "c d"]:
    """Direction from the mean of the negatives to that of the positives, over means of samples; of length one."""
    means = np.empty((len(held.samples), held.width), dtype=np.float32)
    for begin, end in itertools.pairwise(cut_into_runs(held.offsets, CHUNK).tolist()):
        offsets = held.offsets[begin : end + 1]
        means[begin:end] = segment_mean(
            standard.apply(held.rows[offsets[0] : offsets[-1]]).numpy(), offsets - offsets[0]
        )
    positive = targets.astype(np.float64)
    counts = np.maximum(positive.sum(axis=0), 1), np.maximum((1 - positive).sum(axis=0), 1)
    apart = (positive / counts[0] - (1 - positive) / counts[1]).T @ means
    return torch.from_numpy(apart / np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-12)).float()


def _start(seed: int, name: str, heads: int, apart: Float[Tensor, "c d"]) -> Float[Tensor, "h c d"]:
    """First weights: the difference of means and something random.

    A maximum sees only the tokens that are high already: a head that starts in the wrong direction stays there.
    All concepts share what is drawn: no concept's result depends on which others are studied.
    """
    width = apart.shape[1]
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    drawn = np.random.default_rng(int.from_bytes(digest, "little")).standard_normal((heads, 1, width))
    toward = torch.ones(heads, 1, 1)
    if name == "attention":
        toward[0] = 0  # its query: at first, nearly a mean over tokens
    return START * (toward * apart + torch.from_numpy(drawn / width**0.5).float())


@final
class Adam:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019), on weights and biases in place."""

    def __init__(self, variables: list[Tensor], recipe: Recipe, steps: int) -> None:
        self._variables = variables
        self._decay = [recipe.weight_decay, 0.0]
        self._rate = recipe.learning_rate
        self._steps = steps
        self._first = [torch.zeros_like(variable) for variable in variables]
        self._second = [torch.zeros_like(variable) for variable in variables]
        self._done = 0

    def step(self, slopes: list[Tensor]) -> None:
        """Take one step down the slopes."""
        rate = self._rate * 0.5 * (1 + float(np.cos(np.pi * self._done / self._steps)))
        self._done += 1
        quick, slow, tiny = ADAM
        for variable, slope, first, second, decay in zip(
            self._variables, slopes, self._first, self._second, self._decay, strict=True
        ):
            first.lerp_(slope, 1 - quick)
            second.lerp_(slope.square(), 1 - slow)
            size = (second / (1 - slow**self._done)).sqrt_().add_(tiny)
            variable.mul_(1 - rate * decay).addcdiv_(first, size, value=-rate / (1 - quick**self._done))


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Folder for states that do not fit in memory."""
    return tempfile.TemporaryDirectory(prefix="superactivators-", ignore_cleanup_errors=True)
