"""Kinds whose vectors are found without labels: clusters, their separators, latents of a sparse autoencoder."""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Int
from sklearn.exceptions import ConvergenceWarning

from superactivators.concepts.bank import ConceptBank, sae_bank
from superactivators.concepts.kinds import Kind, Task, cal_quality
from superactivators.concepts.kinds import kinds as kinds
from superactivators.concepts.kmeans import assign
from superactivators.concepts.rows import ArrayRows
from superactivators.concepts.sae import prune_latents
from superactivators.concepts.separators import STRENGTHS, fit_separators
from superactivators.concepts.standardised import take_rows
from superactivators.errors import StudyError

ROWS_PER_CLUSTER = 64
"""Cluster separators are fitted on at most this many train rows times the number of clusters, drawn evenly."""

TRIAL_CLUSTERS = 48
"""Clusters, drawn at random, on which the L2 strength of all cluster separators is chosen."""

TOLERANCE = 1e-2
"""Gradient norm at which a cluster separator is done: a thousand of them need not be exact to four digits."""


def unit_names(count: int) -> tuple[str, ...]:
    """Names of units: their numbers."""
    return tuple(str(number) for number in range(count))


def learn_kmeans(task: Task) -> ConceptBank:
    """Centroids of the train rows; cosine."""
    found = task.clusters
    count = len(found.centroids)
    notes = {"inertia": found.inertia, "iterations": found.n_iter, "reseeded": found.reseeded, **found.notes}
    return task.bank(
        "kmeans",
        found.centroids,
        torch.zeros(count),
        "cosine",
        np.ones(count, dtype=bool),
        notes,
        unit_names(count),
    )


def learn_kmeans_linear(task: Task) -> ConceptBank:
    """Separate each cluster's train rows from all others, as kind ``linear`` separates concepts."""
    count = len(task.clusters.centroids)
    random = np.random.default_rng([task.seed, count])
    most = min(task.train.n_rows, ROWS_PER_CLUSTER * count)
    chosen = np.sort(random.choice(task.train.n_rows, most, replace=False))
    rows, members = ArrayRows(take_rows(task.train, chosen)), task.members[chosen]
    known = np.ones(most, dtype=bool)
    tried = np.sort(random.choice(count, min(count, TRIAL_CLUSTERS), replace=False))
    with warnings.catch_warnings():
        # The loose tolerance is reached or not: what counts is the match on cal, and gradient norms are in the notes.
        warnings.simplefilter("ignore", ConvergenceWarning)
        path = fit_separators(
            rows,
            membership(members, count)[:, tried],
            known,
            STRENGTHS,
            tolerance=TOLERANCE,
            seed=task.seed,
            memory=task.memory,
        )
        quality = cal_quality(
            task.cal,
            _cal_members(task, count)[:, tried],
            torch.from_numpy(path.weights).float(),
            torch.from_numpy(path.bias).float(),
        )
        best = STRENGTHS[int(np.argmax(quality))]
        found = fit_separators(
            rows,
            membership(members, count),
            known,
            [best],
            tolerance=TOLERANCE,
            seed=task.seed,
            memory=task.memory,
        )
    notes = {
        "strengths": list(STRENGTHS),
        "cal_average_precision": quality.tolist(),
        "strength": best,
        "rows": most,
        "largest_gradient_norm": float(found.gradient_norm[0].max()),
    }
    weights, bias = torch.from_numpy(found.weights[0]).float(), torch.from_numpy(found.bias[0]).float()
    return task.bank("kmeans-linear", weights, bias, "logit", found.estimable, notes, unit_names(count))


def membership(members: Int[np.ndarray, " rows"], count: int) -> sp.csr_matrix:
    """One label column for each cluster, bool [rows, clusters]."""
    rows = np.arange(len(members))
    return sp.csr_matrix((np.ones(len(members), dtype=bool), (rows, members)), shape=(len(members), count))


def _cal_members(task: Task, count: int) -> np.ndarray:
    """Which cal samples hold a row of which cluster, bool [cal samples, clusters]."""
    held = np.zeros((len(task.cal.samples), count), dtype=bool)
    held[np.repeat(np.arange(len(held)), np.diff(task.cal.offsets)), assign(task.cal, task.clusters)] = True
    return held


def learn_sae(task: Task) -> ConceptBank:
    """Latents of a pretrained sparse autoencoder, without those that are dead or everywhere on cal."""
    encoder = task.options.sae
    if encoder is None:
        raise StudyError(
            "the kind 'sae' needs a sparse autoencoder; give [concepts.sae] path = \"…\" in the study file, or "
            "KindOptions(sae=read_sae(…))"
        )
    units, notes = prune_latents(encoder, task.raw_cal)
    return sae_bank(encoder, units, task.scaling, task.site, task.level, notes=notes)


for _name, _kind in {
    "kmeans": Kind(learn_kmeans, True, "centroids of clustered train tokens, each concept takes the one that fits"),
    "kmeans-linear": Kind(
        learn_kmeans_linear, True, "separators of the clusters, each concept takes the one that fits"
    ),
    "sae": Kind(learn_sae, True, "latents of a pretrained sparse autoencoder, each concept takes the one that fits"),
}.items():
    kinds.register(_name)(_kind)
