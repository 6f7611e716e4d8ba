"""Learn concept vectors at one site from labelled states: every kind from the same scaled rows (METHOD section 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from superactivators.concepts.bank import Activation, ConceptBank
from superactivators.concepts.prototypes import fit_prototypes
from superactivators.concepts.separators import STRENGTHS, fit_separators
from superactivators.ragged import segment_max
from superactivators.ranking import average_precision
from superactivators.registry import Registry
from superactivators.states.scaling import Scaling
from superactivators.states.states import Level, StateRows, States

MEMORY = 2**30
"""Bytes that learning may take; train rows that do not fit are read again from the store on every pass."""


@final
@dataclass(frozen=True, eq=False)
class Task:
    """What a learner works on.

    Attributes
    ----------
    train, cal : StateRows
        Scaled rows of both splits, with their labels.
    cal_samples : bool array of shape (cal samples, concepts)
    memory : int
        Bytes that may be taken.
    seed : int
    """

    train: StateRows
    cal: StateRows
    cal_samples: Bool[np.ndarray, "n c"]
    memory: int
    seed: int


@final
@dataclass(frozen=True, eq=False)
class Learned:
    """What a learner gives back.

    Attributes
    ----------
    vectors : float32 tensor of shape (concepts, width)
    bias : float32 tensor of shape (concepts,)
    activation : str
    estimable : bool array of shape (concepts,)
    notes : mapping
        JSON types.
    """

    vectors: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    activation: Activation
    estimable: Bool[np.ndarray, " c"]
    notes: Mapping[str, Any]


Learner: TypeAlias = Callable[[Task], Learned]
kinds: Registry[Learner] = Registry("concept kind", "superactivators.kinds")


@kinds.register("mean")
def learn_mean(task: Task) -> Learned:
    """Mean of the scaled in-concept rows; cosine."""
    counts = np.asarray(task.train.labels[task.train.known].sum(axis=0)).ravel()
    vectors = torch.from_numpy(fit_prototypes(task.train, task.train.labels, task.train.known)).float()
    return Learned(vectors, torch.zeros(len(vectors)), "cosine", counts > 0, {})


@kinds.register("linear")
def learn_linear(task: Task) -> Learned:
    """Balanced logistic regression; the L2 strength is the one whose cal samples rank best by their highest row."""
    path = fit_separators(
        task.train, task.train.labels, task.train.known, STRENGTHS, seed=task.seed, memory=task.memory
    )
    weights, bias = torch.from_numpy(path.weights).float(), torch.from_numpy(path.bias).float()
    quality = _cal_quality(task, weights, bias)
    best = int(np.argmax(quality))
    notes = {
        "strengths": list(path.strengths),
        "cal_average_precision": quality.tolist(),
        "strength": path.strengths[best],
        "gradient_norm": path.gradient_norm[best].tolist(),
        "iterations": path.n_iter[best].tolist(),
    }
    return Learned(weights[best], bias[best], "logit", path.estimable, notes)


def _cal_quality(task: Task, weights: Float[Tensor, "s c d"], bias: Float[Tensor, "s c"]) -> Float[np.ndarray, " s"]:
    """Average precision of the highest logit of each cal sample, averaged over concepts, for every strength."""
    n_strengths, n_concepts, width = weights.shape
    flat, flat_bias = weights.reshape(-1, width), bias.reshape(-1)
    highest = np.empty((len(task.cal.samples), n_strengths * n_concepts), dtype=np.float32)
    for first, block in task.cal.blocks():
        begin, end = (int(np.searchsorted(task.cal.offsets, edge)) for edge in (first, first + len(block)))
        logits = torch.addmm(flat_bias, block, flat.T).numpy()
        highest[begin:end] = segment_max(logits, task.cal.offsets[begin : end + 1] - first)
    values = average_precision(highest, np.tile(task.cal_samples, (1, n_strengths)))
    return np.asarray(np.nan_to_num(values).reshape(n_strengths, n_concepts).mean(axis=1))


def learn_concepts(
    states: States,
    site: str,
    kind_names: Sequence[str] = ("mean", "linear"),
    level: Level = "token",
    *,
    memory: int = MEMORY,
    seed: int = 0,
) -> list[ConceptBank]:
    """Learn one bank of each kind at one site, from the train split; cal is used to choose the L2 strength only.

    Parameters
    ----------
    states : States
    site : str
        One of ``states.sites``.
    kind_names : sequence of str
        Names in `kinds`.
    level : str
        ``"token"``: from tokens that carry the concept; ``"sample"``: from sample states (the method ``cls``).
    memory : int
        Bytes that learning may take.
    seed : int

    Returns
    -------
    list of ConceptBank
        In the order of ``kind_names``.

    Raises
    ------
    StudyError
        If a kind or the site is unknown.
    """
    learners = [kinds[name] for name in kind_names]
    raw = states.rows(site, "train", level)
    scaling = Scaling.fit(raw)
    cal = states.rows(site, "cal", level).scaled(scaling)
    task = Task(raw.scaled(scaling), cal, states.labels.samples[cal.samples], memory, seed)
    banks = []
    for name, learner in zip(kind_names, learners, strict=True):
        learned = learner(task)
        banks.append(
            ConceptBank(
                kind=name,
                site=site,
                level=level,
                concepts=states.concepts,
                vectors=learned.vectors,
                bias=learned.bias,
                scaling=scaling,
                activation=learned.activation,
                estimable=learned.estimable,
                notes=learned.notes,
            )
        )
    return banks
