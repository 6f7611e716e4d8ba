"""Units (clusters, latents) are matched to concepts: each takes the one with the best F1 on cal (METHOD section 4).

Unit, sparsity level and, later, layer are chosen together; several concepts may share a unit. For every concept the
best few units of a site are kept, so that intervals can repeat the choice among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, final

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from superactivators.concepts.bank import ConceptBank
from superactivators.detection.metrics import f1_of, fire_counts
from superactivators.detection.tail import Tail, level_ranks
from superactivators.scores.activations import score_samples, score_tokens
from superactivators.scores.layout import Layout
from superactivators.scores.pooling import MIN_TOKENS, PoolBlock, pools
from superactivators.scores.site_scores import WHOLE, InConcept, SiteScores
from superactivators.states.labels import Labels
from superactivators.states.states import States

VARIANTS = 8
"""Units that are kept for each concept, site and pooling."""

SHARE_UNITS_OF_MAX = ("kth", "segment", "top-share-mean")
"""Poolings that take the units of ``max``: they are variants of its rule, and costly over a thousand units."""

MEMORY = 2**30

_Best: TypeAlias = tuple[Float[np.ndarray, "c k"], Int[np.ndarray, "c k"]]


def match_samples(
    states: States, bank: ConceptBank, deltas: tuple[float, ...], *, variants: int = VARIANTS
) -> SiteScores:
    """Score one state of every sample against units, and keep for each concept those that fit best on cal.

    Parameters
    ----------
    states : States
    bank : ConceptBank
        Units of sample states.
    deltas : ascending sparsity levels
    variants : int
        Units kept for each concept.
    """
    held = score_samples(states, bank)
    scores = held.pooled[WHOLE]
    best = _best_by_samples(scores, states.labels, deltas)
    units = _shortlist([best], variants)
    of_units = np.ascontiguousarray(np.moveaxis(scores[:, units], 0, 1))
    nothing = np.empty((0, len(states.concepts)), dtype=np.float32)
    numbers = {WHOLE: _numbers(bank)[units]}
    return SiteScores(
        bank.kind, bank.level, bank.site, {WHOLE: of_units[0]}, held.samples, nothing, {WHOLE: of_units}, numbers
    )


def match_tokens(
    states: States,
    bank: ConceptBank,
    deltas: tuple[float, ...],
    *,
    poolings: Sequence[str],
    seed: int = 0,
    layout: Layout | None = None,
    min_tokens: int = MIN_TOKENS,
    variants: int = VARIANTS,
    memory: int = MEMORY,
) -> SiteScores:
    """Score all tokens of a site against units, and keep for each concept those that fit best on cal.

    The units of ``max`` are matched by the F1 of the SuperActivators (thresholds from in-concept tokens); every other
    pooling by thresholds from positive samples, but `SHARE_UNITS_OF_MAX` take those of ``max``.

    Parameters
    ----------
    states : States
    bank : ConceptBank
        Units of token states.
    deltas : ascending sparsity levels
    poolings : sequence of str
        Names in `superactivators.scores.pooling.pools`; ``max`` is always among the results.
    seed, layout, min_tokens
        As for `superactivators.scores.activations.score_tokens`.
    variants : int
        Units kept for each concept and pooling.
    memory : int
        Bytes that scores of units may take; if there are too many units, states are read several times.
    """
    labels = states.labels
    own = [name for name in poolings if name != "max" and name not in SHARE_UNITS_OF_MAX]
    pairs = InConcept.of(labels)
    tokens = np.unique(pairs.rows)
    count = len(bank.concepts)
    per_unit = 4 * (len(tokens) + (1 + len(own)) * len(labels.ids)) * 2
    at_once = max(1, min(count, memory // max(per_unit, 1)))
    best: dict[str, list[_Best]] = {name: [] for name in ("max", *own)}
    oracles: list[_Oracle] = []
    pooled: dict[str, list[np.ndarray]] = {name: [] for name in own}
    for start in range(0, count, at_once):
        part = bank.subset(range(start, min(start + at_once, count))) if at_once < count else bank
        scores, inside = _score_units(states, part, ("max", *own), tokens, seed)
        thresholds = _token_thresholds(inside, tokens, pairs, len(labels.concepts), deltas)
        on_cal, on_test = (_f1_on(scores["max"], labels, split, thresholds) for split in ("cal", "test"))
        best["max"].append(_best_level(on_cal))
        oracles.append(_Oracle.of(on_cal, on_test, thresholds))
        for name in own:
            best[name].append(_best_by_samples(scores[name], labels, deltas))
            pooled[name].append(scores[name])
    units = {name: _shortlist(parts, variants) for name, parts in best.items()}
    result = _score_matched(states, bank, units["max"], poolings, deltas, pairs, seed, layout, min_tokens)
    kept = {name: _take_units(pooled[name], units[name]) for name in own}
    return SiteScores(
        kind=bank.kind,
        level="token",
        site=bank.site,
        pooled={**result.pooled, **{name: scores[0] for name, scores in kept.items()}},
        samples=result.samples,
        tokens=result.tokens,
        variants={**result.variants, **kept},
        units={**result.units, **{name: _numbers(bank)[units[name]] for name in own}},
        tail=result.tail,
        oracle=_Oracle.best(oracles, deltas, _numbers(bank)),
    )


def matched_bank(bank: ConceptBank, units: Int[np.ndarray, " c"], concepts: Sequence[str]) -> ConceptBank:
    """Turn a bank of units into one of concepts, each with the unit (by its number) matched to it."""
    place = {int(name): column for column, name in enumerate(bank.concepts)}
    return bank.subset([place[int(unit)] for unit in units], names=tuple(concepts))


def _numbers(bank: ConceptBank) -> Int32[np.ndarray, " k"]:
    """Numbers of a bank's units: some latents of an autoencoder are left out."""
    return np.array([int(name) for name in bank.concepts], dtype=np.int32)


def _score_units(
    states: States, bank: ConceptBank, poolings: Sequence[str], tokens: Int[np.ndarray, " kept"], seed: int
) -> tuple[dict[str, Float[np.ndarray, "n k"]], Float[np.ndarray, "kept k"]]:
    """Pooled scores of all samples, and the activations of the given tokens, in one pass."""
    n, count = len(states.labels.ids), len(bank.concepts)
    pooled = {name: np.empty((n, count), dtype=np.float32) for name in poolings}
    inside = np.empty((len(tokens), count), dtype=np.float32)
    for first, block in states.values.blocks(bank.site):
        begin, end = (int(np.searchsorted(states.offsets, edge)) for edge in (first, first + len(block)))
        activations = bank.activations(block).numpy()
        given = PoolBlock(activations, states.offsets[begin : end + 1] - first, states.labels.ids[begin:end], seed)
        for name in poolings:
            pooled[name][begin:end] = pools[name](given)
        low, high = np.searchsorted(tokens, [first, first + len(block)])
        inside[low:high] = activations[tokens[low:high] - first]
    return pooled, inside


def _score_matched(
    states: States,
    bank: ConceptBank,
    units: Int32[np.ndarray, "v c"],
    poolings: Sequence[str],
    deltas: tuple[float, ...],
    pairs: InConcept,
    seed: int,
    layout: Layout | None,
    min_tokens: int,
) -> SiteScores:
    """Score the units of ``max`` alone, with all poolings that share them, and put the best of each concept first."""
    n_variants, n_concepts = units.shape
    names = tuple(f"{place}:{name}" for place in range(n_variants) for name in states.concepts)
    candidates = bank.subset(units.ravel().tolist(), names=names)
    shared = ["max", *(name for name in poolings if name in SHARE_UNITS_OF_MAX)]
    held = score_tokens(states, [candidates], poolings=shared, seed=seed, layout=layout, min_tokens=min_tokens)[0]
    activations, rows, _ = held.of_split(states.labels, "cal")
    place = np.searchsorted(rows, pairs.rows)
    columns = np.arange(n_variants)[:, None] * n_concepts + pairs.concepts
    tail = np.ascontiguousarray(activations[place[None], columns])
    order = _best_first(tail, held.pooled["max"], pairs, states.labels, deltas)
    concepts = np.arange(n_concepts)
    columns = order * n_concepts + concepts
    variants = {
        name: np.ascontiguousarray(np.moveaxis(scores[:, columns], 0, 1)) for name, scores in held.pooled.items()
    }
    return SiteScores(
        kind=bank.kind,
        level="token",
        site=bank.site,
        pooled={name: scores[0] for name, scores in variants.items()},
        samples=held.samples,
        tokens=np.ascontiguousarray(held.tokens[:, columns[0]]),
        variants=variants,
        units=dict.fromkeys(shared, _numbers(bank)[units[order, concepts]]),
        tail=np.ascontiguousarray(tail[order[:, pairs.concepts], np.arange(tail.shape[1])]),
    )


def _best_first(
    tail: Float[np.ndarray, "v pairs"],
    highest: Float[np.ndarray, "n vc"],
    pairs: InConcept,
    labels: Labels,
    deltas: tuple[float, ...],
) -> Int[np.ndarray, "v c"]:
    """Order of the variants of each concept by F1 on cal; ties go to the smaller level, then to the earlier variant."""
    cal = labels.in_split("cal")
    truth, n_concepts = labels.samples[cal], len(labels.concepts)
    f1 = np.stack(
        [
            f1_of(
                *fire_counts(
                    highest[cal, place * n_concepts : (place + 1) * n_concepts],
                    truth,
                    Tail.of_pairs(values, pairs.owners, pairs.concepts, n_concepts).quantiles(deltas),
                ),
                truth.sum(axis=0),
            )
            for place, values in enumerate(tail)
        ]
    )
    level = f1.argmax(axis=1)
    top = np.take_along_axis(f1, level[:, None], axis=1)[:, 0]
    return np.asarray(np.lexsort((level, -top), axis=0))


def _take_units(parts: list[Float[np.ndarray, "n _"]], units: Int32[np.ndarray, "v c"]) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(np.concatenate(parts, axis=1)[:, units], 0, 1))


def _token_thresholds(
    inside: Float[np.ndarray, "kept k"],
    tokens: Int[np.ndarray, " kept"],
    pairs: InConcept,
    n_concepts: int,
    deltas: tuple[float, ...],
) -> Float[np.ndarray, "levels c k"]:
    """Quantiles of every unit's activations over the in-concept tokens of every concept."""
    place = np.searchsorted(tokens, pairs.rows)
    return _quantiles(inside, [place[pairs.concepts == c] for c in range(n_concepts)], deltas)


def _best_by_samples(scores: Float[np.ndarray, "n k"], labels: Labels, deltas: tuple[float, ...]) -> _Best:
    """Best cal F1 of every concept and unit, with thresholds from the scores of positive cal samples."""
    cal = labels.in_split("cal")
    truth = labels.samples[cal]
    thresholds = _quantiles(scores[cal], [np.flatnonzero(column) for column in truth.T], deltas)
    return _best_level(_f1_on(scores, labels, "cal", thresholds))


def _quantiles(
    values: Float[np.ndarray, "rows k"], members: list[Int[np.ndarray, " _"]], deltas: tuple[float, ...]
) -> Float[np.ndarray, "levels c k"]:
    """Quantiles of every column over some rows each, as `Tail.quantiles` takes them.

    A step of the loop sorts all columns of one concept, which is a large piece of work by itself.
    """
    result = np.full((len(deltas), len(members), values.shape[1]), np.inf)
    for c, rows in enumerate(members):
        if not len(rows):
            continue
        ordered = np.sort(np.ascontiguousarray(values[rows].T), axis=1)
        ranks = level_ranks(np.array([len(rows)]), deltas)[:, 0]
        low = np.floor(ranks).astype(np.int64)
        high = np.minimum(low + 1, len(rows) - 1)
        below, above = ordered[:, low].astype(np.float64), ordered[:, high].astype(np.float64)
        step = np.subtract(above, below, out=np.zeros_like(above), where=np.isfinite(below))
        result[:, c] = np.where(np.isfinite(below), below + (ranks - low) * step, above).T
    return result


def _f1_of_units(
    scores: Float[np.ndarray, "n k"], truth: Bool[np.ndarray, "n c"], thresholds: Float[np.ndarray, "levels c k"]
) -> Float[np.ndarray, "levels c k"]:
    """F1 of every unit for every concept at every threshold: samples are sorted once a unit, then looked up."""
    n, count = scores.shape
    order = scores.argsort(axis=0, kind="stable")
    keys = np.empty((count, n), dtype=np.complex128)
    keys.real = np.arange(count)[:, None]
    keys.imag = np.take_along_axis(scores, order, axis=0).T
    wanted = np.empty(thresholds.shape, dtype=np.complex128)
    wanted.real, wanted.imag = np.arange(count), thresholds
    first = np.searchsorted(keys.ravel(), wanted.ravel(), side="left").reshape(thresholds.shape)
    first = np.clip(first - np.arange(count) * n, 0, n)
    hits = np.empty(thresholds.shape)
    for c, column in enumerate(truth.T):  # all concepts at once would need [samples, units, concepts]
        above = np.zeros((n + 1, count), dtype=np.int32)
        np.cumsum(column[order][::-1], axis=0, out=above[1:])
        hits[:, c] = np.take_along_axis(above[::-1], first[:, c], axis=0)
    return f1_of(hits, n - first, truth.sum(axis=0)[:, None])


def _f1_on(
    scores: Float[np.ndarray, "n k"], labels: Labels, split: str, thresholds: Float[np.ndarray, "levels c k"]
) -> Float[np.ndarray, "levels c k"]:
    rows = labels.in_split(split)
    return _f1_of_units(scores[rows], labels.samples[rows], thresholds)


def _best_level(f1: Float[np.ndarray, "levels c k"]) -> _Best:
    """Best F1 of every concept and unit, and its level."""
    level = f1.argmax(axis=0)
    return np.take_along_axis(f1, level[None], axis=0)[0], level


def _shortlist(parts: list[_Best], variants: int) -> Int32[np.ndarray, "v c"]:
    """Units of each concept by F1; ties go to the smaller level, then to the unit with the smaller number."""
    f1, level = (np.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True))
    order = np.lexsort((level, -f1), axis=1)
    return np.ascontiguousarray(order[:, :variants].T.astype(np.int32))


@final
class _Oracle:
    """The unit of each concept that is best on test, at the level that is best on cal."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self._columns = columns

    @staticmethod
    def of(
        on_cal: Float[np.ndarray, "levels c k"],
        on_test: Float[np.ndarray, "levels c k"],
        thresholds: Float[np.ndarray, "levels c k"],
    ) -> _Oracle:
        level = on_cal.argmax(axis=0)
        unit = on_test.max(axis=0).argmax(axis=1)
        concepts = np.arange(len(unit))
        level = level[concepts, unit]
        return _Oracle(
            {
                "best": on_test.max(axis=0)[concepts, unit],
                "unit": unit.astype(np.int32),
                "level": level,
                "threshold": thresholds[level, concepts, unit],
                "f1": on_test[level, concepts, unit],
                "count": np.full(len(unit), on_test.shape[2]),
            }
        )

    @staticmethod
    def best(
        parts: list[_Oracle], deltas: tuple[float, ...], numbers: Int32[np.ndarray, " k"]
    ) -> dict[str, np.ndarray]:
        """Best of several groups of units."""
        held = {name: np.stack([part._columns[name] for part in parts]) for name in parts[0]._columns}
        before = np.cumsum(held["count"], axis=0) - held["count"]
        place, concepts = held["best"].argmax(axis=0), np.arange(held["best"].shape[1])
        unit = numbers[(held["unit"] + before)[place, concepts]]
        level = held["level"][place, concepts]
        return {
            "unit": unit,
            "delta": np.array(deltas)[level],
            "threshold": held["threshold"][place, concepts],
            "f1": held["f1"][place, concepts],
            "best": held["best"][place, concepts],
        }
