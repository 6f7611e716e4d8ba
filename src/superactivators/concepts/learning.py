"""Learn concept vectors at one site from labelled states: every kind from the same scaled rows (METHOD section 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from superactivators.concepts.prototypes import fit_prototypes
from superactivators.concepts.rows import RowSource, cached_rows
from superactivators.concepts.separators import STRENGTHS, fit_separators
from torch import Tensor

from superactivators.concepts.bank import Activation, ConceptBank
from superactivators.ragged import segment_max
from superactivators.ranking import average_precision
from superactivators.registry import Registry
from superactivators.states.scaling import Scaling
from superactivators.states.states import Level, StateRows, States

MEMORY = 2**30
"""Bytes of train rows that are held in memory; more are read again from the store on every pass."""


@final
@dataclass(frozen=True, eq=False)
class Task:
    """What a learner works on.

    Attributes
    ----------
    train : RowSource
        Scaled train rows.
    labels : CSR bool matrix of shape (train rows, concepts)
    known : bool array of shape (train rows,)
    cal : StateRows
        Scaled cal rows, with their offsets.
    cal_samples : bool array of shape (cal samples, concepts)
    seed : int
    """

    train: RowSource
    labels: Any
    known: Bool[np.ndarray, " rows"]
    cal: StateRows
    cal_samples: Bool[np.ndarray, "n c"]
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
    counts = np.asarray(task.labels[task.known].sum(axis=0)).ravel()
    vectors = torch.as_tensor(fit_prototypes(task.train, task.labels, task.known), dtype=torch.float32)
    return Learned(vectors, torch.zeros(len(vectors)), "cosine", counts > 0, {})


@kinds.register("linear")
def learn_linear(task: Task) -> Learned:
    """Balanced logistic regression; the L2 strength is the one whose cal samples rank best by their highest row."""
    path = fit_separators(task.train, task.labels, task.known, STRENGTHS, seed=task.seed)
    quality = _cal_quality(task, torch.as_tensor(path.weights), torch.as_tensor(path.bias))
    best = int(np.argmax(quality))
    notes = {
        "strengths": [float(strength) for strength in STRENGTHS],
        "cal_average_precision": [float(value) for value in quality],
        "strength": float(STRENGTHS[best]),
        "gradient_norm": np.asarray(path.gradient_norm[best], dtype=float).tolist(),
        "iterations": np.asarray(path.n_iter[best]).tolist(),
    }
    vectors, bias = torch.as_tensor(path.weights[best]).float(), torch.as_tensor(path.bias[best]).float()
    return Learned(vectors, bias, "logit", np.asarray(path.estimable, dtype=bool), notes)


def _cal_quality(task: Task, weights: Float[Tensor, "s c d"], bias: Float[Tensor, "s c"]) -> Float[np.ndarray, " s"]:
    """Average precision of the highest logit of each cal sample, averaged over concepts, for every strength."""
    n_strengths, n_concepts, width = weights.shape
    flat, flat_bias = weights.reshape(-1, width).float(), bias.reshape(-1).float()
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
        Bytes of train rows to hold in memory.
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
    train = cached_rows(raw.scaled(scaling), memory)
    task = Task(train, raw.labels, raw.known, cal, states.labels.samples[cal.samples], seed)
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
