"""Detection worked out slowly, one number at a time, from raw states: what the fast code is compared with.

Nothing here comes from the package. Ranks are exact fractions, everything else is double precision.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from sklearn.metrics import average_precision_score

from detection.worlds import World

POOL = {"superactivators": "max", "max": "max", "mean": "mean", "last": "last", "random": "random"}


def quantile(values: Sequence[float], delta: float) -> float:
    """Give the linearly interpolated (1 - delta) quantile; infinite without values."""
    if not values:
        return math.inf
    ordered = sorted(float(value) for value in values)
    rank = (len(ordered) - 1) * (1 - Fraction(str(delta)))
    low = math.floor(rank)
    if rank == low:
        return ordered[low]
    return ordered[low] + float(rank - low) * (ordered[low + 1] - ordered[low])


def f1(truth: Sequence[bool], fires: Sequence[bool]) -> float:
    hits = alarms = misses = 0
    for real, fired in zip(truth, fires, strict=True):
        hits += real and fired
        alarms += fired and not real
        misses += real and not fired
    return 2 * hits / (2 * hits + alarms + misses) if hits + alarms + misses else 0.0


@dataclass
class Fitted:
    """Thresholds and cal F1 as ``[layer][level][concept]``; the choice of each concept."""

    thresholds: np.ndarray
    f1: np.ndarray
    layer: list[int]
    level: list[int]
    value: list[float]


def calibrate(
    tail: Callable[[int, int, Sequence[int]], list[float]],
    pooled: np.ndarray,
    labels: np.ndarray,
    samples: Sequence[int],
    deltas: Sequence[float],
) -> Fitted:
    """Calibrate on the given samples; a sample that is listed twice counts twice."""
    n_layers, n_concepts = len(pooled), labels.shape[1]
    thresholds = np.zeros((n_layers, len(deltas), n_concepts))
    quality = np.zeros_like(thresholds)
    result = Fitted(thresholds, quality, [], [], [])
    for c in range(n_concepts):
        best = (-1.0, 0, 0)
        for level, delta in enumerate(deltas):
            for layer in range(n_layers):
                thresholds[layer, level, c] = quantile(tail(layer, c, samples), delta)
                fires = [pooled[layer][i][c] >= thresholds[layer, level, c] for i in samples]
                quality[layer, level, c] = f1([labels[i][c] for i in samples], fires)
                if quality[layer, level, c] > best[0]:
                    best = (quality[layer, level, c], level, layer)
        result.level.append(best[1])
        result.layer.append(best[2])
        result.value.append(thresholds[best[2], best[1], c])
    return result


def calibrate_free(pooled: np.ndarray, labels: np.ndarray, samples: Sequence[int]) -> Fitted:
    """Try every positive sample's score as threshold, from the highest; a sample that is listed twice counts twice."""
    n_layers, n_concepts = len(pooled), labels.shape[1]
    thresholds, quality = np.full((n_layers, 1, n_concepts), np.inf), np.zeros((n_layers, 1, n_concepts))
    result = Fitted(thresholds, quality, [], [0] * n_concepts, [])
    for c in range(n_concepts):
        truth = [labels[i][c] for i in samples]
        for layer in range(n_layers):
            for value in sorted({float(pooled[layer][i][c]) for i in samples if labels[i][c]}, reverse=True):
                reached = f1(truth, [float(pooled[layer][i][c]) >= value for i in samples])
                if reached > quality[layer, 0, c]:
                    quality[layer, 0, c], thresholds[layer, 0, c] = reached, value
        best = max(range(n_layers), key=lambda layer: (quality[layer, 0, c], -layer))
        result.layer.append(best)
        result.value.append(thresholds[best, 0, c])
    return result


def micro(
    pooled: np.ndarray, labels: np.ndarray, samples: Sequence[int], layer: Sequence[int], value: Sequence[float]
) -> float:
    """F1 over all (sample, concept) pairs together."""
    pairs = [(i, c) for i in samples for c in range(labels.shape[1])]
    return f1([labels[i][c] for i, c in pairs], [pooled[layer[c]][i][c] >= value[c] for i, c in pairs])


def judge(
    pooled: np.ndarray, labels: np.ndarray, samples: Sequence[int], layer: Sequence[int], value: Sequence[float]
) -> list[float]:
    """F1 of every concept on the given samples, at one layer and threshold each."""
    return [
        f1([labels[i][c] for i in samples], [pooled[layer[c]][i][c] >= value[c] for i in samples])
        for c in range(labels.shape[1])
    ]


def sample_tail(pooled: np.ndarray, labels: np.ndarray) -> Callable[[int, int, Sequence[int]], list[float]]:
    """Scores of positive samples, as the baselines' thresholds need them."""

    def tail(layer: int, c: int, samples: Sequence[int]) -> list[float]:
        return [pooled[layer][i][c] for i in samples if labels[i][c]]

    return tail


def token_tail(
    activations: Sequence[np.ndarray], token_labels: np.ndarray, offsets: np.ndarray
) -> Callable[[int, int, Sequence[int]], list[float]]:
    """Activations of in-concept tokens; token arrays hold all samples."""

    def tail(layer: int, c: int, samples: Sequence[int]) -> list[float]:
        return [
            activations[layer][t][c] for i in samples for t in range(offsets[i], offsets[i + 1]) if token_labels[t][c]
        ]

    return tail


def repeated(samples: Sequence[int], weights: Sequence[int]) -> list[int]:
    """List each sample as often as it was drawn."""
    return [sample for sample, times in zip(samples, weights, strict=True) for _ in range(times)]


# ------------------------------------------------------------------ from raw states


def cosines(rows: np.ndarray, labels: np.ndarray, known: np.ndarray, train: Sequence[bool]) -> np.ndarray:
    """Scale rows by the train rows, average the in-concept train rows, and compare every row with each average."""
    chosen = [row.astype(np.float64) for row, wanted in zip(rows, train, strict=True) if wanted]
    mean = sum(chosen) / len(chosen)
    scale = math.sqrt(sum(float((row * row).sum()) for row in chosen) / len(chosen))
    scaled = [(row.astype(np.float64) - mean) / scale for row in rows]
    vectors = []
    for c in range(labels.shape[1]):
        members = [
            z
            for z, mark, sure, wanted in zip(scaled, labels[:, c], known, train, strict=True)
            if mark and sure and wanted
        ]
        vectors.append(sum(members) / len(members))
    return np.array([[float(z @ v) / math.sqrt(float(z @ z) * float(v @ v)) for v in vectors] for z in scaled])


def drawn_token(sample: str, n_tokens: int, seed: int) -> int:
    """Which token the pooling ``random`` takes: 53 bits of a hash of seed and id, scaled to the number of tokens."""
    digest = hashlib.blake2b(f"{seed}:{sample}".encode(), digest_size=8).digest()
    return int((int.from_bytes(digest, "little") // 2**11) / 2**53 * n_tokens)


def pool(activations: np.ndarray, how: str, sample: str, seed: int) -> list[float]:
    """Pool the tokens of one sample."""
    columns = activations.T.tolist()
    if how == "max":
        return [max(column) for column in columns]
    if how == "mean":
        return [math.fsum(column) / len(column) for column in columns]
    if how == "last":
        return [column[-1] for column in columns]
    return [column[drawn_token(sample, len(column), seed)] for column in columns]


@dataclass
class SlowStudy:
    """Everything about one method on one world, from its raw states."""

    pooled: np.ndarray
    tokens: list[np.ndarray]
    fitted: Fitted


def slow_study(world: World, method: str, deltas: Sequence[float], seed: int = 0) -> SlowStudy:
    """Scale, learn mean vectors, score, pool, take quantiles and choose, for one method."""
    token_split = [world.splits[i] for i in range(world.n) for _ in range(world.offsets[i], world.offsets[i + 1])]
    tokens: list[np.ndarray] = []
    pooled: list[np.ndarray] = []
    for site in world.values:
        if method == "cls":
            train = [split == "train" for split in world.splits]
            every = np.ones(world.n, dtype=bool)
            pooled.append(cosines(world.sample_values[site], world.sample_labels, every, train))
            continue
        train = [split == "train" for split in token_split]
        tokens.append(cosines(world.values[site], world.token_labels, world.known, train))
        pooled.append(
            np.array(
                [
                    pool(tokens[-1][world.offsets[i] : world.offsets[i + 1]], POOL[method], world.ids[i], seed)
                    for i in range(world.n)
                ]
            )
        )
    scores, labels = np.array(pooled), world.sample_labels
    if method == "superactivators":
        tail = token_tail(tokens, world.token_labels, world.offsets)
    else:
        tail = sample_tail(scores, labels)
    return SlowStudy(scores, tokens, calibrate(tail, scores, labels, world.in_split("cal"), deltas))


# ------------------------------------------------------------------ localisation


@dataclass
class SlowTokens:
    """Tokens of one split: scores, labels, known, offsets and detections, as dense arrays."""

    scores: np.ndarray
    labels: np.ndarray
    known: np.ndarray
    offsets: np.ndarray
    detected: np.ndarray


def firing(tokens: SlowTokens, c: int, threshold: float, samples: Sequence[int]) -> tuple[int, int, int]:
    """Count hits, firing tokens and in-concept tokens of one concept over the given samples."""
    hits = fired = positives = 0
    for i in samples:
        for t in range(tokens.offsets[i], tokens.offsets[i + 1]):
            if not tokens.known[t]:
                continue
            fires = tokens.detected[i][c] and float(tokens.scores[t][c]) >= threshold
            hits += bool(fires and tokens.labels[t][c])
            fired += bool(fires)
            positives += bool(tokens.labels[t][c])
    return hits, fired, positives


def token_f1(counts: tuple[int, int, int]) -> float:
    hits, fired, positives = counts
    return 2 * hits / (fired + positives) if fired + positives else 0.0


def localise(
    cal: SlowTokens,
    test: SlowTokens,
    tail: Sequence[Sequence[float]],
    detection_level: Sequence[int],
    deltas: Sequence[float],
    draws: np.ndarray,
) -> dict[str, list[float]]:
    """Choose a level on cal and report on test; ``tail[c]`` holds the in-concept cal activations."""
    columns: dict[str, list[float]] = {}
    every_cal, every_test = range(len(cal.offsets) - 1), range(len(test.offsets) - 1)
    for c in range(cal.scores.shape[1]):
        best, level = -1.0, -1
        for candidate in range(detection_level[c], len(deltas)):
            value = token_f1(firing(cal, c, quantile(tail[c], deltas[candidate]), every_cal))
            if value > best:
                best, level = value, candidate
        threshold = quantile(tail[c], deltas[level])
        hits, fired, positives = firing(test, c, threshold, every_test)
        resampled = [token_f1(firing(test, c, threshold, repeated(every_test, weights))) for weights in draws]
        pointed = holding = 0
        for i in every_test:
            places = [t for t in range(test.offsets[i], test.offsets[i + 1]) if test.known[t]]
            if any(test.labels[t][c] for t in places):
                holding += 1
                peak = max(test.scores[t][c] for t in places)
                pointed += any(test.labels[t][c] for t in places if test.scores[t][c] == peak)
        sure = [t for t in range(len(test.scores)) if test.known[t]]
        row = {
            "level": level,
            "threshold": threshold,
            "token_f1": token_f1((hits, fired, positives)),
            "token_precision": hits / fired if fired else 0.0,
            "token_recall": hits / positives if positives else 0.0,
            "iou": hits / (fired + positives - hits) if fired + positives - hits else 0.0,
            "token_average_precision": average_precision_score(
                [test.labels[t][c] for t in sure], [test.scores[t][c] for t in sure]
            ),
            "pointing": pointed / holding if holding else 0.0,
            "token_f1_low": float(np.quantile(resampled, 0.025)),
            "token_f1_high": float(np.quantile(resampled, 0.975)),
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return columns
