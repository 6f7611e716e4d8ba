"""Kinds of concept vectors: what a learner is given, what it gives back, and the supervised ones (METHOD section 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from superactivators.concepts.bank import Activation, ConceptBank
from superactivators.concepts.kmeans import Clusters, Metric, assign, fit_kmeans
from superactivators.concepts.paper_separators import fit_paper_separators
from superactivators.concepts.prototypes import fit_prototypes
from superactivators.concepts.sae import Encoder
from superactivators.concepts.separators import STRENGTHS, fit_separators
from superactivators.ragged import segment_max
from superactivators.ranking import average_precision
from superactivators.registry import Registry
from superactivators.states.scaling import Scaling
from superactivators.states.states import Level, StateRows

MEMORY = 2**30
"""Bytes that learning may take; train rows that do not fit are read again from the store on every pass."""


@final
@dataclass(frozen=True, eq=False)
class KindOptions:
    """What the learners of some kinds can be told.

    Attributes
    ----------
    clusters : int
        Clusters of token states.
    sample_clusters : int
        Clusters of sample states.
    separators_per_concept : int
        Kind ``kmeans-linear``: clusters of each concept that get a separator, those whose train members carry the
        concept most; 0 for all clusters.
    cluster_metric : str
        ``"euclidean"`` or ``"cosine"``: how clusters are formed (activations are cosines in both cases).
    sae : SparseEncoder, WrappedEncoder or None
        The sparse autoencoder of kind ``sae``.
    sae_site : str or None
        The site whose states it was trained on; None: any site asked for.
    """

    clusters: int = 1000
    sample_clusters: int = 50
    separators_per_concept: int = 16
    cluster_metric: Metric = "euclidean"
    sae: Encoder | None = None
    sae_site: str | None = None


@final
@dataclass(frozen=True, eq=False)
class Task:
    """What a learner works on.

    Attributes
    ----------
    site : str
    level : str
    concepts : tuple of str
    scaling : Scaling
        Of the train rows.
    train, cal : StateRows
        Scaled rows of both splits, with their labels.
    raw_cal : StateRows
        The rows of cal as they are kept.
    cal_samples : bool array of shape (cal samples, concepts)
    memory : int
        Bytes that may be taken.
    seed : int
    options : KindOptions
    """

    site: str
    level: Level
    concepts: tuple[str, ...]
    scaling: Scaling
    train: StateRows
    cal: StateRows
    raw_cal: StateRows
    cal_samples: Bool[np.ndarray, "n c"]
    memory: int
    seed: int
    options: KindOptions

    @cached_property
    def clusters(self) -> Clusters:
        """Clusters of the train rows; several kinds start from the same ones."""
        wanted = self.options.clusters if self.level == "token" else self.options.sample_clusters
        return fit_kmeans(
            self.train, wanted, metric=self.options.cluster_metric, seed=self.seed, memory=self.memory // 2
        )

    @cached_property
    def members(self) -> Int32[np.ndarray, " rows"]:
        """Cluster of every train row."""
        return assign(self.train, self.clusters)

    def bank(
        self,
        kind: str,
        vectors: Float[Tensor, "c d"],
        bias: Float[Tensor, " c"],
        activation: Activation,
        estimable: Bool[np.ndarray, " c"],
        notes: Mapping[str, Any],
        names: tuple[str, ...] | None = None,
    ) -> ConceptBank:
        """Make a bank of this site and level; ``names`` are those of the concepts unless given."""
        return ConceptBank(
            kind=kind,
            site=self.site,
            level=self.level,
            concepts=self.concepts if names is None else names,
            vectors=vectors,
            bias=bias,
            scaling=self.scaling,
            activation=activation,
            estimable=estimable,
            notes=notes,
        )


Learner: TypeAlias = Callable[[Task], ConceptBank]


@final
@dataclass(frozen=True)
class Kind:
    """A way to get vectors.

    Attributes
    ----------
    learn : callable
        Gives a bank of one vector for each concept or, for a matched kind, of one for each unit.
    matched : bool
        Whether the vectors are units (clusters, latents) that are matched to concepts by F1 on cal.
    summary : str
        One sentence for reports.
    """

    learn: Learner
    matched: bool
    summary: str


kinds: Registry[Kind] = Registry("concept kind", "superactivators.kinds")


def learn_mean(task: Task) -> ConceptBank:
    """Mean of the scaled in-concept rows; cosine."""
    counts = np.asarray(task.train.labels[task.train.known].sum(axis=0)).ravel()
    vectors = torch.from_numpy(fit_prototypes(task.train, task.train.labels, task.train.known)).float()
    return task.bank("mean", vectors, torch.zeros(len(vectors)), "cosine", counts > 0, {})


def learn_linear(task: Task) -> ConceptBank:
    """Balanced logistic regression; the L2 strength is the one whose cal samples rank best by their highest row."""
    path = fit_separators(
        task.train, task.train.labels, task.train.known, STRENGTHS, seed=task.seed, memory=task.memory
    )
    weights, bias = torch.from_numpy(path.weights).float(), torch.from_numpy(path.bias).float()
    quality = cal_quality(task.cal, task.cal_samples, weights, bias)
    best = int(np.argmax(quality))
    notes = {
        "strengths": list(path.strengths),
        "cal_average_precision": quality.tolist(),
        "strength": path.strengths[best],
        "gradient_norm": path.gradient_norm[best].tolist(),
        "iterations": path.n_iter[best].tolist(),
    }
    return task.bank("linear", weights[best], bias[best], "logit", path.estimable, notes)


def learn_linear_adam(task: Task) -> ConceptBank:
    """Separators as the paper's code trains them; see `superactivators.concepts.paper_separators`."""
    found = fit_paper_separators(
        task.train,
        task.train.labels,
        task.train.known,
        names=task.concepts,
        seed=task.seed,
        memory=task.memory,
    )
    weights = torch.from_numpy(found.weights)
    return task.bank("linear-adam", weights, torch.zeros(len(weights)), "logit", found.estimable, found.notes)


def cal_quality(
    cal: StateRows, truth: Bool[np.ndarray, "n c"], weights: Float[Tensor, "s c d"], bias: Float[Tensor, "s c"]
) -> Float[np.ndarray, " s"]:
    """Average precision of the highest logit of each cal sample, averaged over concepts, for every strength."""
    n_strengths, n_concepts, width = weights.shape
    flat, flat_bias = weights.reshape(-1, width), bias.reshape(-1)
    highest = np.empty((len(cal.samples), n_strengths * n_concepts), dtype=np.float32)
    for first, block in cal.blocks():
        begin, end = (int(np.searchsorted(cal.offsets, edge)) for edge in (first, first + len(block)))
        logits = torch.addmm(flat_bias, block, flat.T).numpy()
        highest[begin:end] = segment_max(logits, cal.offsets[begin : end + 1] - first)
    values = average_precision(highest, np.tile(truth, (1, n_strengths)))
    return np.asarray(np.nan_to_num(values).reshape(n_strengths, n_concepts).mean(axis=1))


for _name, _kind in {
    "mean": Kind(learn_mean, False, "mean state of in-concept tokens, compared by cosine"),
    "linear": Kind(learn_linear, False, "balanced logistic regression of in-concept tokens against all others"),
    "linear-adam": Kind(learn_linear_adam, False, "separators without bias, trained as in the paper's code"),
}.items():
    kinds.register(_name)(_kind)
