"""One entry: how a model makes the tails that a detector relies on, in drawn samples of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from superactivators.analysis.separation import separation
from superactivators.concepts.bank import ConceptBank
from superactivators.data.dataset import ConceptDataset
from superactivators.detection.detector import Detector
from superactivators.errors import StudyError, allowed
from superactivators.mechanism.anatomy import Anatomy, dissect
from superactivators.mechanism.growth import growth_rows, growth_table
from superactivators.mechanism.head_layout import Heads
from superactivators.mechanism.heads import AttentionShares, head_gains
from superactivators.mechanism.passes import (
    Directions,
    Drawn,
    Recorded,
    attention_shares,
    passes,
    record,
    scores_without,
)
from superactivators.mechanism.results import MechanismResult
from superactivators.mechanism.splits import split_rows, split_table
from superactivators.models.backbone import MAX_BATCH_TOKENS, Backbone
from superactivators.models.layers import site_name, site_place
from superactivators.ragged import rows_of, segment_ids, segment_max
from superactivators.states.labels import Labels

SAMPLES = 32
ABLATIONS = 16


def explain_mechanism(
    backbone: Backbone,
    dataset: ConceptDataset,
    detector: Detector,
    labels: Labels,
    *,
    banks: Mapping[str, ConceptBank] | None = None,
    concepts: Sequence[str] | None = None,
    samples: int = SAMPLES,
    ablate: int | str = ABLATIONS,
    seed: int = 0,
    max_batch_tokens: int = MAX_BATCH_TOKENS,
    say: Callable[[str], None] = lambda message: None,
) -> MechanismResult:
    """Follow concept activations from block to block, and find the heads that stretch them.

    All blocks are read in one forward pass a batch, attention in a second one, and each ablated head costs one more.

    Parameters
    ----------
    backbone : Backbone
    dataset : ConceptDataset
    detector : Detector
        Made from this backbone and the train and cal splits of the data set. Its vectors are the ``"fixed"`` ones, and
        its thresholds tell which tokens are SuperActivators.
    labels : Labels
        Of the data set's samples, in the same order.
    banks : mapping of site to ConceptBank, optional
        Vectors learned at several sites: the ``"own"`` vectors of blocks. They hold the detector's concepts.
    concepts : sequence of str, optional
        Default: all of the detector's.
    samples : int
        Test samples, drawn by id: concepts, and samples without any of them, take turns. 0 for all.
    ablate : int or ``"all"``
        Heads that are taken out one at a time: concepts take turns with the head of the largest absolute amplification
        along the fixed vector, at or before the concept's site. 0 for none.
    seed : int
    max_batch_tokens : int
    say : callable
        Told what begins.

    Returns
    -------
    MechanismResult

    Raises
    ------
    StudyError
        If a number is negative, a concept is unknown, a vector has no direction, or test holds no sample with a
        concept.
    ModelError
        If the backbone is not the detector's, or a block's change cannot be split.

    Notes
    -----
    An activation here is the projection of a raw state on a unit concept vector: unlike a cosine, projections add up
    over what is written to the residual stream. Only the ablations use the detector's own activations. The samples are
    balanced over concepts, so that prevalence is not that of the data set. Evidence of several tokens is not asked
    for: every token at or above the threshold is a SuperActivator.
    """
    detector.check_backbone(backbone.fingerprint, backbone.name)
    own = _chosen(detector, concepts)
    if samples < 0 or (isinstance(ablate, int) and ablate < 0) or (isinstance(ablate, str) and ablate != "all"):
        raise StudyError(f"{samples} samples and ablate={ablate!r}; give numbers of 0 or more, or ablate='all'")
    chosen = labels.with_concepts(list(own.concepts))
    numbers = draw_mixed(chosen, "test", samples, seed)
    directions = _directions(own, banks or {})
    encoding = backbone.encode([dataset.samples[number] for number in numbers])
    rows = rows_of(chosen.offsets, numbers)
    if len(rows) != encoding.n_tokens:
        raise StudyError(
            f"the labels are of {len(rows)} tokens of the drawn samples, but the backbone finds {encoding.n_tokens}; "
            "label the data set with this backbone"
        )
    drawn = Drawn([dataset.samples[number] for number in numbers], encoding, max_batch_tokens)
    inside = np.asarray(chosen.carried[rows].toarray() & chosen.counted[rows][:, None])
    present = chosen.samples[numbers]
    say("parts of blocks")
    anatomies = dissect(backbone, _small_inputs(backbone, drawn))
    found = record(backbone, drawn, anatomies, directions, own)
    thresholds = np.array([threshold.value for threshold in own.thresholds])
    fired = found.scores.astype(np.float64) >= thresholds
    outside = ~present[segment_ids(encoding.offsets)]
    growth: list[dict[str, object]] = []
    splits: list[dict[str, object]] = []
    for (site, vector), along in found.along.items():
        growth += growth_rows(site, vector, own.concepts, along, found.lengths[site], inside, present, encoding.offsets)
    for (block, vector), parts in found.parts.items():
        splits += split_rows(block, vector, own.concepts, list(parts), inside, outside, fired)
    heads: list[dict[str, Any]] = []
    if any(anatomy.heads for anatomy in anatomies):
        say("attention")
        shares = attention_shares(backbone, drawn, anatomies, fired)
        heads = _head_rows(anatomies, directions, found, shares, own.concepts, encoding.offsets)
    picked = _picked(heads, own, backbone.n_blocks, ablate)
    if picked:
        say(f"{len(picked)} heads taken out")
    measured = _Measured(inside, present, outside, encoding.offsets, thresholds)
    ablations = _ablations(backbone, drawn, anatomies, own, found.scores, measured, picked)
    missing = sorted({anatomy.why_no_heads for anatomy in anatomies if anatomy.heads is None})
    notes = [f"Heads of {sum(a.heads is None for a in anatomies)} blocks are left out: {why}." for why in missing]
    if any(anatomy.norms for anatomy in anatomies):
        notes.append("Norms stand behind the sums, so that parts are taken before them and what they do is part norm.")
    summary: dict[str, Any] = {
        "samples": len(numbers),
        "tokens": encoding.n_tokens,
        "ids": [labels.ids[number] for number in numbers],
        "concepts": list(own.concepts),
        "kind": own.kind,
        "sites": {threshold.concept: threshold.site for threshold in own.thresholds},
        "model": backbone.name,
        "data": dataset.name,
        "seed": seed,
        "largest_error": max(found.errors),
        "notes": notes,
    }
    return MechanismResult(
        growth=growth_table(growth),
        splits=split_table(splits, found.errors),
        heads=pa.Table.from_pylist(heads),
        ablations=pa.Table.from_pylist(ablations),
        summary=summary,
    )


def draw_mixed(labels: Labels, split: str, number: int, seed: int) -> Int[np.ndarray, " k"]:
    """Draw samples of a split in which each concept, and samples without any, take turns.

    The draw depends on the seed, the labels and the samples' ids only; a larger number adds to a smaller one.

    Parameters
    ----------
    labels : Labels
    split : str
    number : int
        0 for all.
    seed : int

    Returns
    -------
    int64 array of shape (k,)
        Ascending numbers of samples that have tokens.

    Raises
    ------
    StudyError
        If no sample of the split holds a concept.
    """
    able = labels.in_split(split)
    able = able[np.diff(labels.offsets)[able] > 0]
    if not labels.samples[able].any():
        raise StudyError(f"no sample of {split} holds {', '.join(labels.concepts)}; nothing can be followed")
    keys = [hashlib.blake2b(f"{seed}:{labels.ids[n]}".encode(), digest_size=8).digest() for n in able]
    order = able[sorted(range(len(able)), key=lambda place: keys[place])]
    if not number or number >= len(order):
        return np.sort(order)
    held = labels.samples[order]
    groups = np.concatenate([held, ~held.any(axis=1, keepdims=True)], axis=1)
    # the turn of a sample is the first round in which one of its groups comes to it
    place = np.where(groups, np.cumsum(groups, axis=0), len(order) + 1)
    turn, group = place.min(axis=1), place.argmin(axis=1)
    return np.sort(order[np.lexsort((group, turn))[:number]])


def _chosen(detector: Detector, concepts: Sequence[str] | None) -> Detector:
    """Keep some of a detector's concepts."""
    if concepts is None:
        return detector
    unknown = [name for name in concepts if name not in detector.concepts]
    if unknown or not concepts:
        name = unknown[0] if unknown else ""
        raise StudyError(f"no concept {name!r} in this detector; {allowed(name, detector.concepts)}")
    thresholds = [threshold for threshold in detector.thresholds if threshold.concept in set(concepts)]
    banks = {bank.site: bank for bank in detector.banks}
    return Detector.of(banks, thresholds, model=detector.model, dtype=detector.dtype, card=detector.card)


def _directions(detector: Detector, banks: Mapping[str, ConceptBank]) -> Directions:
    held = {name: bank.vectors[n] for bank in detector.banks for n, name in enumerate(bank.concepts)}
    fixed = torch.stack([held[name] for name in detector.concepts]).float()
    flat = [name for name, vector in zip(detector.concepts, fixed, strict=True) if not bool(vector.any())]
    if flat:
        raise StudyError(
            f"the vector of {flat[0]!r} has no direction (a zero vector, or a latent without decoder); leave it out"
        )
    own = {}
    for site, bank in banks.items():
        lacking = [name for name in detector.concepts if name not in bank.concepts]
        if lacking:
            raise StudyError(f"the bank of {site} has no concept {lacking[0]!r}; give banks of the detector's concepts")
        own[site] = _unit(bank.vectors[[bank.concepts.index(name) for name in detector.concepts]].float())
    return Directions(_unit(fixed), own)


def _unit(vectors: Float[Tensor, "c d"]) -> Float[Tensor, "c d"]:
    return torch.div(vectors, vectors.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny))


def _small_inputs(backbone: Backbone, drawn: Drawn) -> dict[str, Any]:
    """Prepare the shortest sample alone."""
    shortest = int(np.argmin(np.diff(drawn.encoding.offsets)))
    alone = Drawn([drawn.samples[shortest]], drawn.encoding.subset(np.array([shortest])), drawn.max_batch_tokens)
    return next(iter(passes(backbone, alone)))[1]


def _head_rows(
    anatomies: Sequence[Anatomy],
    directions: Directions,
    found: Recorded,
    shares: AttentionShares,
    concepts: Sequence[str],
    offsets: Int[np.ndarray, " n_plus_1"],
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for block, anatomy in enumerate(anatomies):
        heads = anatomy.heads
        if heads is None:
            continue
        site = site_name(block, len(anatomies))
        attention, share = shares.attention(block), shares.share(block)
        with np.errstate(invalid="ignore", divide="ignore"):
            lift = attention / share
        for vector, unit in directions.at(site).items():
            gains = head_gains(heads, unit, found.inverse_lengths)
            before = found.along[site, vector] - found.parts[block, vector].sum(axis=0)
            variance = within_variance(before, offsets)
            numbers = {
                "ov_gain": gains.ov_gain,
                "ov_cosine": gains.ov_cosine,
                "qk_gain": gains.qk_gain,
                "qk_cosine": gains.qk_cosine,
                "variance": np.broadcast_to(variance, gains.ov_gain.shape),
                "amplification": gains.ov_gain * gains.qk_gain * variance,
                "attention": attention,
                "share": np.broadcast_to(share, attention.shape),
                "lift": lift,
            }
            rows += [
                {
                    "block": block,
                    "head": head,
                    "kv_head": head // heads.shared_by,
                    "concept": name,
                    "vector": vector,
                    **{key: float(value[head, c]) for key, value in numbers.items()},
                }
                for head in range(heads.n_heads)
                for c, name in enumerate(concepts)
            ]
    return rows


def within_variance(
    values: Float[np.ndarray, "tokens c"], offsets: Int[np.ndarray, " n_plus_1"]
) -> Float[np.ndarray, " c"]:
    """Variance of the tokens of a sample, averaged over the samples that have any."""
    wide, owner = values.astype(np.float64), segment_ids(offsets)
    counts = np.diff(offsets)[:, None]
    filled = np.flatnonzero(counts)
    starts = offsets[filled]
    means = np.zeros((len(counts), values.shape[1]))
    means[filled] = np.add.reduceat(wide, starts, axis=0) / counts[filled]
    squares = np.add.reduceat((wide - means[owner]) ** 2, starts, axis=0) / counts[filled]
    return np.asarray(squares.mean(axis=0))


def _picked(
    heads: Sequence[Mapping[str, Any]], detector: Detector, n_blocks: int, ablate: int | str
) -> list[tuple[int, int]]:
    """Choose the heads to take out: concepts take turns."""
    deepest = {threshold.concept: site_place(threshold.site, n_blocks) for threshold in detector.thresholds}
    useful = [row for row in heads if row["vector"] == "fixed" and row["block"] <= deepest[row["concept"]]]
    if ablate == "all":
        return sorted({(row["block"], row["head"]) for row in useful})
    ranked = {
        name: sorted((row for row in useful if row["concept"] == name), key=lambda row: -abs(row["amplification"]))
        for name in detector.concepts
    }
    turns = [
        (row["block"], row["head"])
        for turn in range(max((len(rows) for rows in ranked.values()), default=0))
        for rows in ranked.values()
        for row in rows[turn : turn + 1]
    ]
    return sorted(list(dict.fromkeys(turns))[: int(ablate)])


class _Measured:
    """What is measured of the detector's activations."""

    def __init__(
        self,
        inside: Bool[np.ndarray, "tokens c"],
        present: Bool[np.ndarray, "n c"],
        outside: Bool[np.ndarray, "tokens c"],
        offsets: Int[np.ndarray, " n_plus_1"],
        thresholds: Float[np.ndarray, " c"],
    ) -> None:
        self._inside, self._present, self._outside = inside, present, outside
        self._offsets, self._thresholds = offsets, thresholds

    def of(self, scores: Float[np.ndarray, "tokens c"]) -> dict[str, Float[np.ndarray, " c"]]:
        apart = separation(scores, self._inside, self._outside, self._offsets)
        highest = segment_max(scores.astype(np.float64), self._offsets)
        positives = self._present.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "auroc": apart.auroc,
                "tail_mass": apart.tail_mass,
                "max_activation": np.where(self._present, highest, 0).sum(axis=0) / positives,
                "recall": (self._present & (highest >= self._thresholds)).sum(axis=0) / positives,
            }


def _ablations(
    backbone: Backbone,
    drawn: Drawn,
    anatomies: Sequence[Anatomy],
    detector: Detector,
    scores: Float[np.ndarray, "tokens c"],
    measured: _Measured,
    picked: Sequence[tuple[int, int]],
) -> list[dict[str, Any]]:
    whole = measured.of(scores)
    sites = [threshold.site for threshold in detector.thresholds]
    places = [site_place(site, backbone.n_blocks) for site in sites]
    rows = []
    for block, head in picked:
        heads = anatomies[block].heads
        assert isinstance(heads, Heads)  # noqa: S101
        without = measured.of(scores_without(backbone, drawn, heads, head, detector))
        for c, name in enumerate(detector.concepts):
            if places[c] >= block:
                row: dict[str, Any] = {"block": block, "head": head, "concept": name, "site": sites[c]}
                for key, values in without.items():
                    row |= {key: float(values[c]), f"{key}_change": float(values[c] - whole[key][c])}
                rows.append(row)
    return rows
