"""Kinds whose vectors are found without labels: clusters, their separators, latents of a sparse autoencoder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

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
from superactivators.concepts.sae import LEAST_FIRED, MOST_SHARE, prune_latents
from superactivators.concepts.separator_path import SeparatorPath
from superactivators.concepts.separators import STRENGTHS, fit_separators
from superactivators.concepts.standardised import take_rows
from superactivators.errors import StudyError

ROWS = 32_768
"""Cluster separators are fitted on at most so many train rows, drawn evenly, and the members of rare clusters."""

LEAST_MEMBERS = 64
"""Rows of each cluster that are taken at least, where it has as many."""

TRIAL_CLUSTERS = 12
"""Clusters, drawn at random, on which the L2 strength of all cluster separators is chosen."""

TOLERANCE = 1e-2
"""Gradient norm at which a cluster separator is done: hundreds of them need not be exact to four digits."""


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
    """Separate the train rows of clusters from all others, as kind ``linear`` separates concepts."""
    count = len(task.clusters.centroids)
    wanted = clusters_of_concepts(task)
    random = np.random.default_rng([task.seed, count])
    chosen = _drawn_rows(task.members, wanted, random)
    rows, members = ArrayRows(take_rows(task.train, chosen)), membership(task.members[chosen], count)[:, wanted]
    known = np.ones(len(chosen), dtype=bool)
    tried = np.sort(random.choice(len(wanted), min(len(wanted), TRIAL_CLUSTERS), replace=False))

    def fit(labels: sp.csr_matrix, strengths: Sequence[float]) -> SeparatorPath:
        return fit_separators(rows, labels, known, strengths, tolerance=TOLERANCE, seed=task.seed, memory=task.memory)

    with warnings.catch_warnings():
        # The loose tolerance is reached or not: what counts is the match on cal, and gradient norms are in the notes.
        warnings.simplefilter("ignore", ConvergenceWarning)
        path = fit(members[:, tried], STRENGTHS)
        weights, bias = torch.from_numpy(path.weights).float(), torch.from_numpy(path.bias).float()
        quality = cal_quality(task.cal, _cal_members(task, count)[:, wanted[tried]], weights, bias)
        best = STRENGTHS[int(np.argmax(quality))]
        found = fit(members, [best])
    notes = {
        "strengths": list(STRENGTHS),
        "cal_average_precision": quality.tolist(),
        "strength": best,
        "rows": len(chosen),
        "clusters": count,
        "separators": len(wanted),
        "largest_gradient_norm": float(found.gradient_norm[0].max()),
    }
    weights, bias = torch.from_numpy(found.weights[0]).float(), torch.from_numpy(found.bias[0]).float()
    names = tuple(str(number) for number in wanted.tolist())
    return task.bank("kmeans-linear", weights, bias, "logit", found.estimable, notes, names)


def clusters_of_concepts(task: Task) -> Int[np.ndarray, " k"]:
    """Choose clusters that get a separator: the ones whose train members agree best with a concept, by F1 of rows.

    Returns
    -------
    int64 array of shape (k,)
        Cluster numbers, going up; all of them where ``separators_per_concept`` is 0 or no less than there are.
    """
    count, most = len(task.clusters.centroids), task.options.separators_per_concept
    if not 0 < most < count:
        return np.arange(count)
    known = task.train.known
    members = membership(task.members[known], count)
    labels = task.train.labels[known].astype(np.float64)
    shared = np.asarray((members.T.astype(np.float64) @ labels).todense())
    sizes = np.asarray(members.sum(axis=0)).ravel()
    positives = np.asarray(labels.sum(axis=0)).ravel()
    agreement = 2 * shared / np.maximum(sizes[:, None] + positives, 1)
    order = np.argsort(-agreement, axis=0, kind="stable")[:most]
    return np.unique(order)


def _drawn_rows(
    members: Int[np.ndarray, " rows"], wanted: Int[np.ndarray, " k"], random: np.random.Generator
) -> Int[np.ndarray, " drawn"]:
    """Rows drawn evenly, and some members of every wanted cluster."""
    n = len(members)
    if n <= ROWS:
        return np.arange(n)
    taken = np.zeros(n, dtype=bool)
    taken[random.choice(n, ROWS, replace=False)] = True
    # the first rows of each cluster in a random order of all rows
    order = random.permutation(n)
    by_cluster = order[np.argsort(members[order], kind="stable")]
    starts = np.searchsorted(members[by_cluster], np.arange(members.max() + 2))
    rank = np.arange(n) - np.repeat(starts[:-1], np.diff(starts))
    taken[by_cluster[(rank < LEAST_MEMBERS) & np.isin(members[by_cluster], wanted)]] = True
    return np.flatnonzero(taken)


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
    # Whole samples are few, and there is one state of each: only latents that never fire are left out.
    least, share = (LEAST_FIRED, MOST_SHARE) if task.level == "token" else (1, 1.0)
    units, notes = prune_latents(encoder, task.raw_cal, least=least, share=share)
    return sae_bank(encoder, units, task.scaling, task.site, task.level, notes=notes)


for _name, _kind in {
    "kmeans": Kind(learn_kmeans, True, "centroids of clustered train tokens, each concept takes the one that fits"),
    "kmeans-linear": Kind(
        learn_kmeans_linear, True, "separators of the clusters, each concept takes the one that fits"
    ),
    "sae": Kind(learn_sae, True, "latents of a pretrained sparse autoencoder, each concept takes the one that fits"),
}.items():
    kinds.register(_name)(_kind)
