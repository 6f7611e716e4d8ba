"""Scores of all samples against the concept banks of one site, in one pass over its states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from superactivators.concepts.bank import ConceptBank
from superactivators.errors import StudyError
from superactivators.ragged import rows_of
from superactivators.scores.layout import Layout
from superactivators.scores.pooling import MIN_TOKENS, PoolBlock, pools
from superactivators.scores.site_scores import WHOLE, SiteScores
from superactivators.states.scaling import Scaling
from superactivators.states.states import States

POOLS = ("max", "mean", "last", "random")


def score_tokens(
    states: States,
    banks: Sequence[ConceptBank],
    *,
    poolings: Sequence[str] = POOLS,
    seed: int = 0,
    layout: Layout | None = None,
    min_tokens: int = MIN_TOKENS,
) -> list[SiteScores]:
    """Score all tokens of one site against several banks, one block of states at a time.

    Parameters
    ----------
    states : States
    banks : sequence of ConceptBank
        Token banks of one site with the same scaling.
    poolings : sequence of str
        Names in `superactivators.scores.pooling.pools`.
    seed : int
        For poolings that draw at random.
    layout : Layout, optional
        Of all samples of the states; the pooling ``segment`` needs it.
    min_tokens : int
        Tokens that the poolings ``kth`` and ``segment`` ask for.

    Returns
    -------
    list of SiteScores
        One for each bank. Activations of single tokens are kept for the samples of cal and test only.

    Raises
    ------
    StudyError
        If the banks are of several sites or scalings, or of sample states; if ``min_tokens`` is less than 1; or if
        the layout is missing where it is needed, or is of other samples.
    """
    if min_tokens < 1:
        raise StudyError(f"min_tokens must be a whole number of at least 1; got {min_tokens!r}")
    if layout is not None and not np.array_equal(layout.offsets, states.offsets):
        raise StudyError(
            f"the layout is of {len(layout.offsets) - 1} samples with {layout.offsets[-1]} tokens, but the states are "
            f"of {len(states.offsets) - 1} with {states.offsets[-1]}; make it from the encoding of the same samples"
        )
    sites = {bank.site for bank in banks}
    if len(sites) != 1 or any(bank.level != "token" for bank in banks):
        raise StudyError("score_tokens needs token banks of one site")
    scaling = banks[0].scaling
    if any(not _same(bank.scaling, scaling) for bank in banks):
        raise StudyError("score_tokens needs banks with the same scaling; score the others on their own")
    site, n = sites.pop(), len(states.labels.ids)
    kept = states.labels.splits != "train"
    pooled = [{name: np.empty((n, len(bank.concepts)), dtype=np.float32) for name in poolings} for bank in banks]
    parts: list[list[np.ndarray]] = [[np.empty((0, len(bank.concepts)), dtype=np.float32)] for bank in banks]
    for first, block in states.values.blocks(site):
        begin = int(np.searchsorted(states.offsets, first))
        end = int(np.searchsorted(states.offsets, first + len(block)))
        offsets = states.offsets[begin : end + 1] - first
        ids = states.labels.ids[begin:end]
        keep = rows_of(offsets, np.flatnonzero(kept[begin:end]))
        scaled = scaling.apply(block)
        held = None if layout is None else layout.block(begin, end)
        for bank, into, part in zip(banks, pooled, parts, strict=True):
            activations = bank.score(scaled).numpy()
            for name in poolings:
                given = PoolBlock(activations, offsets, ids, seed, held, min_tokens)
                into[name][begin:end] = pools[name](given)
            part.append(activations[keep])
    samples = np.flatnonzero(kept)
    return [
        SiteScores(bank.kind, "token", site, into, samples, np.concatenate(part))
        for bank, into, part in zip(banks, pooled, parts, strict=True)
    ]


def _same(one: Scaling, other: Scaling) -> bool:
    return one is other or (one.scale == other.scale and torch.equal(one.mean, other.mean))


def score_samples(states: States, bank: ConceptBank) -> SiteScores:
    """Score one state of every sample, of the bank's level, against a bank of such states.

    Raises
    ------
    StudyError
        If the bank is one of token states.
    """
    if bank.level == "token":
        raise StudyError("score_samples needs a bank of sample states")
    scores = bank.activations(states.of_samples(bank.site, bank.level)).numpy()
    return SiteScores.of_samples(bank.kind, bank.level, bank.site, {WHOLE: scores})
