"""Checks of states: tokens of outlying norm, the CLS state, normalised layers."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool

from superactivators.ragged import segment_any, segment_max
from superactivators.states.states import States
from superactivators.study.checks.check import Finding, check, counted, named, percent
from superactivators.study.checks.inputs import CheckInputs

OUTLIER = 10.0
"""A token is an outlier if its norm is more than this many times the median."""

OUTLIER_SHARE = 0.05
CLS_SHARE = 0.1
"""Largest share of test samples in which the highest score may be that of an outlier, or that of the CLS state."""

SAME = 0.02
"""States are equal if they differ by less than this share of their norm: half precision rounds means by less."""

COMPARED = 8
"""Samples whose state is compared with the mean of their tokens."""


def token_norms(states: States, site: str) -> np.ndarray:
    """Norm of every token state at a site, float32 [tokens]."""
    norms = [torch.linalg.vector_norm(block.float(), dim=1) for _, block in states.values.blocks(site)]
    return np.asarray(torch.cat(norms).numpy())


@check("SA001", "outlier tokens are the highest-scoring ones")
def outlier_tokens(inputs: CheckInputs) -> Finding | None:
    """Share of test samples whose highest-scoring token has more than 10 times the median norm."""
    view = inputs.test_tokens
    if view is None:
        return None
    sites = inputs.picks("site")
    lengths = np.diff(view.offsets)
    share, count = np.zeros(len(sites)), np.zeros(len(sites), dtype=np.int64)
    for site in dict.fromkeys(sites):
        norms = token_norms(inputs.states, site)
        outlying = norms[view.rows] > OUTLIER * np.median(norms)
        if outlying.any():
            columns = [c for c, name in enumerate(sites) if name == site]
            count[columns] = outlying.sum()
            scores = view.scores[:, columns]
            highest = scores == np.repeat(segment_max(scores, view.offsets), lengths, axis=0)
            share[columns] = segment_any(highest & outlying[:, None], view.offsets).mean(axis=0)
    worst = int(share.argmax())
    if share[worst] <= OUTLIER_SHARE:
        return None
    concerned = tuple(inputs.concepts[c] for c in np.flatnonzero(share > OUTLIER_SHARE))
    return Finding(
        f"In {percent(share[worst])} of the test samples the token that scores highest for {inputs.concepts[worst]} "
        f"has more than {OUTLIER:g} times the median norm ({counted(int(count[worst]), 'such token')} on test; "
        f"concerned: {named(concerned)}). Such tokens carry no content: choose another layer, or a model with "
        "registers.",
        share[worst],
        OUTLIER_SHARE,
        concerned,
    )


def is_token_mean(states: States, site: str) -> bool:
    """Whether sample states are the means of the token states, as they are where a model has no CLS token."""
    block = next(iter(states.values.blocks(site)))[1].float()
    whole = int(np.searchsorted(states.offsets, len(block), side="right")) - 1
    compared = [i for i in range(whole) if states.offsets[i] < states.offsets[i + 1]][:COMPARED]
    means = torch.stack([block[states.offsets[i] : states.offsets[i + 1]].mean(dim=0) for i in compared])
    gap = torch.linalg.vector_norm(states.values.samples(site)[compared] - means, dim=1)
    return bool((gap <= SAME * torch.linalg.vector_norm(means, dim=1)).all())


@check("SA002", "the CLS state would have scored highest")
def cls_highest(inputs: CheckInputs) -> Finding | None:
    """Share of test samples whose CLS state scores higher than every token."""
    view, states = inputs.test_tokens, inputs.states
    if view is None or inputs.bank is None or not states.values.has_sample_states:
        return None
    sites = inputs.picks("site")
    if is_token_mean(states, sites[0]):
        return None
    test = torch.from_numpy(states.labels.in_split("test"))
    highest = segment_max(view.scores, view.offsets)
    share = np.zeros(len(sites))
    for site in dict.fromkeys(sites):
        columns = [c for c, name in enumerate(sites) if name == site]
        scores = inputs.bank(inputs.kind, "token", site).activations(states.values.samples(site)[test]).numpy()
        over: Bool[np.ndarray, "n c"] = scores[:, columns] > highest[:, columns]
        share[columns] = over.mean(axis=0)
    worst = int(share.argmax())
    if share[worst] <= CLS_SHARE:
        return None
    concerned = tuple(inputs.concepts[c] for c in np.flatnonzero(share > CLS_SHARE))
    return Finding(
        f"The CLS state would have been the highest-scoring one in {percent(share[worst])} of the test samples for "
        f"{inputs.concepts[worst]} (concerned: {named(concerned)}). It is left out here; "
        "leave it out too where these vectors and thresholds are used with other code.",
        share[worst],
        CLS_SHARE,
        concerned,
    )


@check("SA003", "the chosen layer is behind the final norm")
def post_norm(inputs: CheckInputs) -> Finding | None:
    """Concepts whose chosen site is the output of a norm, not of a block."""
    sites = inputs.picks("site")
    concerned = tuple(name for name, site in zip(inputs.concepts, sites, strict=True) if "norm" in site)
    if not concerned:
        return None
    site = next(site for site in sites if "norm" in site)
    return Finding(
        f"The site chosen for {len(concerned)} of {counted(len(sites), 'concept')} ({named(concerned)}) is {site}: its "
        "states have gone through a norm, so that norms and activations do not compare with those of blocks. "
        "Leave it out of [model] layers to compare blocks only.",
        len(concerned),
        0,
        concerned,
    )
