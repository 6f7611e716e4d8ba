"""Sanity checks: maps must change where the concept vectors or the model are replaced by random ones.

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018, arXiv 1810.03292: a map that stays as it is when what
it explains is randomised does not explain it. Similarity is Spearman's rank correlation of a map with the one of the
randomised detector or model; a correlation near 1 fails the check. The publication also compares absolute values,
structural similarity and edges, which only apply to images and are left out here.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, final

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import nn

from superactivators.concepts.bank import ConceptBank
from superactivators.detection.detector import Detector
from superactivators.detection.intervals import interval
from superactivators.errors import StudyError
from superactivators.models.backbone import Backbone

Randomised: TypeAlias = Literal["vectors", "model"]
"""What was replaced by something random."""

NEAR_ONE = 0.95
"""Maps whose mean correlation is not below this have not changed."""


def with_random_vectors(detector: Detector, seed: int = 0) -> Detector:
    """Replace every concept vector by a random direction of equal norm.

    Parameters
    ----------
    detector : Detector
        Not changed.
    seed : int
        With a concept's name and site it decides that concept's direction, whatever other concepts there are.

    Returns
    -------
    Detector
        Biases, sites and scaling are kept. Thresholds of other vectors say nothing about random ones, and there is no
        calibration here: they become infinite, so that in every sample the token of the highest activation stands in
        for the SuperActivators (the fallback of METHOD section 7). The card is empty.

    Raises
    ------
    StudyError
        If concepts are latents of an autoencoder, which are scored by its encoder and not by a vector.
    """
    banks = tuple(_random_bank(bank, seed) for bank in detector.banks)
    thresholds = tuple(
        replace(threshold, value=float("inf"), low=float("nan"), high=float("nan")) for threshold in detector.thresholds
    )
    return replace(detector, banks=banks, thresholds=thresholds, card={})


def _random_bank(bank: ConceptBank, seed: int) -> ConceptBank:
    if bank.activation == "latent":
        raise StudyError(
            f"{bank!r} scores by an encoder, so its vectors cannot be randomised; randomise the model instead"
        )
    drawn = np.stack(
        [
            _generator(seed, f"{bank.site}:{name}").standard_normal(bank.width, dtype=np.float32)
            for name in bank.concepts
        ]
    )
    unit = torch.nn.functional.normalize(torch.from_numpy(drawn), dim=1)
    return replace(bank, vectors=unit * torch.linalg.vector_norm(bank.vectors, dim=1, keepdim=True), notes={})


def with_random_model(backbone: Backbone, seed: int = 0, *, first_block: int = 0) -> Backbone:
    """Copy a backbone and draw the weights of its blocks anew.

    Parameters
    ----------
    backbone : Backbone
        Not changed; tokenizer or image reader are shared with the copy. Nothing is read from disk, but the weights
        are in memory twice.
    seed : int
        With a parameter's name it decides that parameter's values, on any device.
    first_block : int
        Blocks from this one on are drawn anew. Going down from the last block gives the cascade of the publication.

    Returns
    -------
    Backbone
        With another fingerprint. Every parameter of these blocks is normal with the mean and standard deviation that
        its entries have; parameters whose entries are all equal, such as the weights of a norm at the start of
        training, stay so. Embeddings and the final norm stay.

    Raises
    ------
    StudyError
        If there is no such block.
    """
    if not 0 <= first_block < backbone.n_blocks:
        raise StudyError(
            f"first_block is {first_block}, but {backbone.name} has {backbone.n_blocks} blocks; "
            f"give 0 to {backbone.n_blocks - 1}"
        )
    result = copy.copy(backbone)
    result.__dict__.pop("fingerprint", None)
    result.name = f"{backbone.name} (random blocks)"
    # copied together, so that blocks and runner belong to the model's copy, wherever the family has them
    result.model, result.blocks, result.runner = copy.deepcopy((backbone.model, list(backbone.blocks), backbone.runner))
    with torch.no_grad():
        for name, parameter in nn.ModuleList(result.blocks[first_block:]).named_parameters():
            if parameter.is_floating_point():
                spread, mean = torch.std_mean(parameter.double(), correction=0)
                drawn = _generator(seed, name).standard_normal(tuple(parameter.shape), dtype=np.float32)
                parameter.copy_(mean + spread * torch.from_numpy(np.asarray(drawn)).to(mean))
    return result


def _generator(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def rank_correlation(
    maps: Float[np.ndarray, "tokens columns"], others: Float[np.ndarray, "tokens columns"]
) -> Float[np.ndarray, " columns"]:
    """Spearman's rank correlation of every column with the same column of other maps; ties share their mean rank.

    Parameters
    ----------
    maps, others : float arrays of shape (tokens, columns)

    Returns
    -------
    float64 array of shape (columns,)
        NaN where one of the two maps is constant, holds NaN or has no more than one token.
    """
    if not len(maps):
        return np.full(maps.shape[1], np.nan)
    first, second = (_centred(rankdata(part, axis=0)) for part in (maps, others))
    lengths = np.sqrt((first**2).sum(axis=0) * (second**2).sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.clip((first * second).sum(axis=0) / lengths, -1.0, 1.0))


def _centred(ranks: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    # The mean rank is known exactly, so that equal ranks become exactly zero.
    return np.asarray(ranks - (len(ranks) + 1) / 2)


@final
@dataclass(frozen=True, eq=False)
class MapCorrelations:
    """How alike the maps of one explainer and their randomised counterparts are.

    Attributes
    ----------
    explainer, objective : str
    randomised : str
        ``"vectors"`` or ``"model"``.
    samples : int array of shape (cases,)
        Sample of each case.
    values : float array of shape (cases,)
        `rank_correlation` of each case; NaN for constant maps.
    """

    explainer: str
    objective: str
    randomised: Randomised
    samples: Int[np.ndarray, " cases"]
    values: Float[np.ndarray, " cases"]


def sanity_table(correlations: Sequence[MapCorrelations], *, resamples: int = 1000, seed: int = 0) -> pa.Table:
    """Average the correlations of cases, with 95 % intervals by sample.

    Parameters
    ----------
    correlations : sequence of MapCorrelations
    resamples : int
        Samples are drawn with replacement so often, all cases of a sample together.
    seed : int

    Returns
    -------
    pyarrow Table
        ``explainer, objective, randomised, correlation, low, high, cases``, in the order given. Cases without a
        correlation are left out and not counted; with none left the numbers are NaN.
    """
    rows = [_row(part, resamples, seed) for part in correlations]
    names = ("explainer", "objective", "randomised", "correlation", "low", "high", "cases")
    kinds = (pa.string(), pa.string(), pa.string(), pa.float64(), pa.float64(), pa.float64(), pa.int64())
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=schema)


def _row(part: MapCorrelations, resamples: int, seed: int) -> tuple[str, str, str, float, float, float, int]:
    finite = np.isfinite(part.values)
    what = (part.explainer, part.objective, part.randomised)
    if not finite.any():
        return (*what, float("nan"), float("nan"), float("nan"), 0)
    values = part.values[finite].astype(np.float64)
    _, sample = np.unique(part.samples[finite], return_inverse=True)
    counts = np.bincount(sample).astype(np.float64)
    sums = np.bincount(sample, weights=values)
    n = len(counts)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    low, high = interval((drawn @ sums) / (drawn @ counts))
    return (*what, float(values.mean()), float(low), float(high), int(finite.sum()))


def unchanged(table: pa.Table, least: float = NEAR_ONE) -> list[tuple[str, str, str]]:
    """Name the rows of a sanity table that fail: explainer, objective and what was randomised.

    Parameters
    ----------
    table : pyarrow Table
        See `sanity_table`.
    least : float
        Mean correlation from which on maps count as unchanged.
    """
    return [
        (row["explainer"], row["objective"], row["randomised"])
        for row in table.to_pylist()
        if row["correlation"] >= least
    ]
