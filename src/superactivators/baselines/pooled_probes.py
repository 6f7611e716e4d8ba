"""Trained pooling probes: one score per sample, learned from sample labels on the same token states as the concepts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from superactivators.baselines.probe_poolings import (
    Tokens,
    pool_attention,
    pool_multimax,
    pool_rolling_max,
    pool_softmax,
)
from superactivators.baselines.probe_training import (
    Pooling,
    Recipe,
    Standard,
    hold,
    score_standardised,
    temporary_folder,
    train,
)
from superactivators.errors import DataError, StudyError, allowed
from superactivators.scores.site_scores import SiteScores
from superactivators.states.scaling import Scaling
from superactivators.states.states import States

KIND = "probe"
PROBES = ("attention", "softmax", "rolling-max", "multimax")
TEMPERATURE = 1.0
"""T of ``softmax``."""

WINDOW = 10
"""Tokens of one window of ``rolling-max``, as published."""

HEADS = 4
"""Heads of ``multimax`` per concept."""

LEARNING_RATE = 0.02
WEIGHT_DECAY = 2.0
MIN_EPOCHS, MIN_STEPS = 15, 500
"""By default there are as many passes as give both."""

BATCH = 32
"""Samples of one step."""


@final
@dataclass(frozen=True, eq=False)
class PooledProbes:
    """Probes of one site.

    Attributes
    ----------
    site : str
    concepts : tuple of str
    scaling : Scaling
        Of the states, fitted on train tokens.
    weights : mapping of str to float32 tensor of shape (heads, concepts, width)
        By probe, for scaled states; ``attention`` has the query and the value.
    bias : mapping of str to float32 array of shape (concepts,)
    temperature : float
        Of ``softmax``.
    window : int
        Of ``rolling-max``.
    chosen : mapping of str to int64 array of shape (concepts,)
        Epoch that is kept, from 1; 0 for a concept that cannot be learned.
    average_precision : mapping of str to float64 array of shape (concepts,)
        On cal, of that epoch; NaN where it cannot be told.
    epochs : int
        Passes over the train samples that were made.
    estimable : bool array of shape (concepts,)
        False where no train sample, or every one, carries the concept; such concepts score zero.
    """

    site: str
    concepts: tuple[str, ...]
    scaling: Scaling
    weights: Mapping[str, Float[Tensor, "_ c d"]]
    bias: Mapping[str, Float[np.ndarray, " c"]]
    temperature: float
    window: int
    chosen: Mapping[str, Int[np.ndarray, " c"]]
    average_precision: Mapping[str, Float[np.ndarray, " c"]]
    epochs: int
    estimable: Bool[np.ndarray, " c"]

    @property
    def notes(self) -> dict[str, Any]:
        """What was chosen, in JSON types: passes made, and per probe and concept the epoch and its cal score."""
        return {
            "epochs": self.epochs,
            "temperature": self.temperature,
            "window": self.window,
            "probes": {
                name: {
                    concept: {"epoch": int(epoch), "cal_average_precision": None if np.isnan(found) else float(found)}
                    for concept, epoch, found in zip(
                        self.concepts, self.chosen[name], self.average_precision[name], strict=True
                    )
                }
                for name in self.weights
            },
        }

    def score(self, states: States) -> SiteScores:
        """Score all samples, one block of states at a time.

        Parameters
        ----------
        states : States
            They must hold the probes' site.

        Returns
        -------
        SiteScores
            Kind ``"probe"``; logits by probe; minus infinity for a sample without tokens. No single tokens are kept.

        Raises
        ------
        StudyError
            If the site is missing.
        DataError
            If the states have another width.
        """
        _check_site(states, self.site)
        width = len(self.scaling.mean)
        if states.values.width != width:
            raise DataError(f"probes of width {width} do not fit states of width {states.values.width}")
        parts = _parts({name: len(heads) for name, heads in self.weights.items()}, self.temperature)
        weights = torch.cat(list(self.weights.values()))
        n, concepts = len(states.offsets) - 1, len(self.concepts)
        pooled = {name: np.full((n, concepts), -np.inf, dtype=np.float32) for name in self.weights}
        for first, block in states.values.blocks(self.site):
            begin, end = np.searchsorted(states.offsets, [first, first + len(block)])
            offsets = states.offsets[begin : end + 1] - first
            filled = np.flatnonzero(np.diff(offsets))
            tokens = Tokens(np.append(offsets[filled], offsets[-1]), self.window)
            for name, scores, _ in score_standardised(self.scaling.apply(block), weights, parts, tokens):
                pooled[name][begin + filled] = scores + self.bias[name]
        nothing = np.empty((0, concepts), dtype=np.float32)
        return SiteScores(KIND, "token", self.site, pooled, np.empty(0, dtype=np.int64), nothing)


def train_pooled_probes(
    states: States,
    site: str,
    probes: Sequence[str] = PROBES,
    *,
    seed: int = 0,
    memory: int = 2**30,
    max_epochs: int | None = None,
    patience: int | None = None,
    learning_rate: float = LEARNING_RATE,
    weight_decay: float = WEIGHT_DECAY,
    batch: int = BATCH,
    temperature: float = TEMPERATURE,
    window: int = WINDOW,
    heads: int = HEADS,
) -> PooledProbes:
    r"""Train probes that pool the tokens of a sample into one score, for all concepts of a site together.

    With z the scaled state of a token, a sample scores

    - ``attention``: :math:`\sum_t \mathrm{softmax}_t(q z_t) \, (v z_t) + b`, one head per concept
      (Kantamneni et al. 2025; McKenzie et al. 2025, table 3);
    - ``softmax``: :math:`\sum_t \mathrm{softmax}_t(a_t / T) \, a_t` with :math:`a_t = w z_t + b`
      (McKenzie et al. 2025, table 3; they take T = 5 for unscaled states of Llama);
    - ``rolling-max``: the highest mean of :math:`a_t` over ``window`` consecutive tokens, patches in raster order; a
      shorter sample is one window (max of rolling means, McKenzie et al. 2025; 10 tokens as Kramár et al. 2026);
    - ``multimax``: :math:`\sum_h \max_t (v_h z_t) + b` (Kramár et al. 2026, section 3.2.1).

    Training sees the sample labels of train only. Each concept's cross-entropy gives positives and negatives the same
    total weight; Adam with decoupled weight decay runs over mini-batches of whole samples. Each probe of each concept
    keeps the epoch with the best average precision on cal.

    Parameters
    ----------
    states : States
    site : str
        One of the states' sites.
    probes : sequence of str
        Of `PROBES`.
    seed : int
        Of the first weights and the order of samples, which depend on the seed and on sample ids only.
    memory : int
        Bytes for the states of train and cal. Larger ones are read from a temporary file; the result is the same.
    max_epochs : int
        Most passes over the train samples; by default 15, or more where that would be fewer than 500 steps.
    patience : int
        Passes without a better cal average precision after which a probe of a concept is done; by default half of
        ``max_epochs``.
    learning_rate : float
        Of Adam at the start; it falls to zero along half a cosine over ``max_epochs``.
    weight_decay : float
        Decoupled L2: each step shrinks weights by this times the learning rate.
    batch : int
        Samples of one step.
    temperature : float
        T of ``softmax``.
    window : int
        Tokens of one window of ``rolling-max``.
    heads : int
        Heads of ``multimax`` per concept.

    Returns
    -------
    PooledProbes

    Raises
    ------
    StudyError
        If the site or a probe is unknown, or a number is out of range.
    DataError
        If no train or no cal sample has tokens, or the states cannot be scaled.

    Notes
    -----
    Where this differs from the publications: all probes are linear in the states (Kramár et al. put a small MLP before
    the heads, with 10 of them); ``multimax`` is trained with the same maximum that it is used with (they often train
    with softmax weights); the columns of the states are standardised while training, which changes the geometry of
    steps and decay but not what a probe can express; heads start small, in the
    direction between the classes' means, plus the same random values for every concept.

    Concepts do not influence each other, except through rounding in products of another shape. A maximum can pass such
    rounding on to later steps.

    References
    ----------
    Kantamneni, Engels, Rajamanoharan, Tegmark and Nanda (2025), "Are Sparse Autoencoders Useful? A Case Study in Sparse
    Probing", arXiv 2502.16681.
    McKenzie, Pawar, Blandfort, Bankes, Krueger, Lubana and Krasheninnikov (2025), "Detecting High-Stakes Interactions
    with Activation Probes", arXiv 2506.10805.
    Kramár, Engels, Wang, Chughtai, Shah, Nanda and Conmy (2026), "Building Production-Ready Probes For Gemini",
    arXiv 2601.11516.
    """
    _check_site(states, site)
    _check_probes(probes)
    whole: dict[str, int | None] = {"batch": batch, "window": window, "heads": heads}
    whole |= {"max_epochs": max_epochs, "patience": patience}
    _check_numbers(whole, {"learning_rate": learning_rate, "temperature": temperature}, weight_decay)
    parts = _parts({name: _heads(name, heads) for name in probes}, temperature)
    with temporary_folder() as folder:
        held, cal = hold(states, site, ("train", "cal"), memory, Path(folder))
        for split, part in (("train", held), ("cal", cal)):
            if not len(part.samples):
                raise DataError(f"no {split} sample has tokens: probes are trained on train and chosen on cal")
        steps = -(-len(held.samples) // batch)
        most = max_epochs or max(MIN_EPOCHS, -(-MIN_STEPS // steps))
        recipe = Recipe(learning_rate, weight_decay, most, patience or -(-most // 2), batch, window, seed)
        scaling = Scaling.fit(held)
        standard = Standard.fit(held, scaling.mean)
        trained = train(held, cal, states.labels.ids, states.labels.samples, parts, standard, recipe)
        # file-backed states must be gone before their folder is
        targets = states.labels.samples[held.samples]
        del held, cal
    return PooledProbes(
        site=site,
        concepts=states.concepts,
        scaling=scaling,
        weights={name: heads_ * (scaling.scale / standard.deviation) for name, heads_ in trained.weights.items()},
        bias=trained.bias,
        temperature=float(temperature),
        window=int(window),
        chosen=trained.chosen,
        average_precision=trained.average_precision,
        epochs=trained.epochs,
        estimable=targets.any(axis=0) & ~targets.all(axis=0),
    )


def _heads(name: str, heads: int) -> int:
    return {"attention": 2, "multimax": heads}.get(name, 1)


def _parts(heads: Mapping[str, int], temperature: float) -> dict[str, tuple[Pooling, slice]]:
    poolings: dict[str, Callable[..., Any]] = {
        "attention": pool_attention,
        "softmax": partial(pool_softmax, temperature=temperature),
        "rolling-max": pool_rolling_max,
        "multimax": pool_multimax,
    }
    parts, first = {}, 0
    for name, count in heads.items():
        parts[name] = (poolings[name], slice(first, first + count))
        first += count
    return parts


def _check_site(states: States, site: str) -> None:
    if site not in states.sites:
        raise StudyError(f"no states at {site!r}; {allowed(site, states.sites)}")


def _check_probes(probes: Sequence[str]) -> None:
    if isinstance(probes, str) or not len(probes) or len(set(probes)) != len(probes):
        raise StudyError(f"probes must be one or more different names; got {probes!r}. Known: {', '.join(PROBES)}")
    for name in probes:
        if name not in PROBES:
            raise StudyError(f"unknown probe {name!r}; {allowed(name, PROBES)}")


def _check_numbers(whole: Mapping[str, int | None], positive: Mapping[str, float], decay: float) -> None:
    for name, count in whole.items():
        if count is not None and not (isinstance(count, int | np.integer) and count >= 1):
            raise StudyError(f"{name} must be a whole number of 1 or more; got {count!r}")
    for name, value in positive.items():
        if not 0 < value < float("inf"):
            raise StudyError(f"{name} must be a positive number; got {value!r}")
    if not 0 <= decay < float("inf"):
        raise StudyError(f"weight_decay must be 0 or more; got {decay!r}")
