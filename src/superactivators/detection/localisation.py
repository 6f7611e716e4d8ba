"""Where the concept is, read directly off the activations (METHOD section 7, "Direct")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from superactivators.detection.bootstrap import Resamples
from superactivators.detection.intervals import interval
from superactivators.detection.metrics import f1_of, ratio
from superactivators.detection.tail import Tail
from superactivators.ragged import segment_any, segment_ids, segment_max
from superactivators.ranking import average_precision


@final
@dataclass(frozen=True, eq=False)
class TokenScores:
    """Activations and labels of the tokens of one split.

    Attributes
    ----------
    scores : float32 array of shape (tokens, concepts)
    labels : CSR bool matrix of shape (tokens, concepts)
    known : bool array of shape (tokens,)
        Tokens that nobody labelled are left out of every count.
    offsets : int64 array of shape (samples + 1,)
    detected : bool array of shape (samples, concepts)
        Whether the concept was detected in the sample.
    """

    scores: Float[np.ndarray, "tokens c"]
    labels: sp.csr_matrix
    known: Bool[np.ndarray, " tokens"]
    offsets: Int[np.ndarray, " n_plus_1"]
    detected: Bool[np.ndarray, "n c"]

    def counted(self) -> tuple[Bool[np.ndarray, "tokens c"], Bool[np.ndarray, "tokens c"]]:
        """Tokens that may fire (known, in a sample that was detected), and known in-concept tokens."""
        may_fire = self.detected[segment_ids(self.offsets)] & self.known[:, None]
        return may_fire, self.labels.toarray() & self.known[:, None]


@final
@dataclass(frozen=True, eq=False)
class Localisation:
    """Direct localisation of every concept.

    Attributes
    ----------
    level : int64 array of shape (concepts,)
        Position of the sparsity level for localisation, chosen by token F1 on cal.
    thresholds : float64 array of shape (concepts,)
    columns : dict of str to float64 array of shape (concepts,)
        On test, pooled over tokens: ``token_f1`` with ``token_f1_low`` and ``token_f1_high``, ``token_precision``,
        ``token_recall``, ``iou``, ``token_average_precision``, and ``pointing``: share of positive samples whose
        highest token is in the concept.
    """

    level: Int[np.ndarray, " c"]
    thresholds: Float[np.ndarray, " c"]
    columns: dict[str, np.ndarray]


def token_counts(
    tokens: TokenScores, thresholds: Float[np.ndarray, "levels c"]
) -> tuple[Int[np.ndarray, "levels c"], Int[np.ndarray, "levels c"], Int[np.ndarray, " c"]]:
    """Count firing tokens at many thresholds per concept, with one histogram instead of one pass a threshold.

    Parameters
    ----------
    tokens : TokenScores
    thresholds : float64 array of shape (levels, concepts)
        Not increasing along the levels.

    Returns
    -------
    hits, fired : int64 arrays of shape (levels, concepts)
        Firing tokens inside the concept, and all firing tokens; a token fires if its sample was detected and its
        activation reaches the threshold.
    positives : int64 array of shape (concepts,)
        All in-concept tokens.
    """
    n_levels, n_concepts = thresholds.shape
    may_fire, inside = tokens.counted()
    row, column = np.nonzero(may_fire)
    keys = np.empty(thresholds.size, dtype=np.complex128)
    keys.real, keys.imag = np.repeat(np.arange(n_concepts), n_levels), thresholds[::-1].T.ravel()
    wanted = np.empty(len(row), dtype=np.complex128)
    wanted.real, wanted.imag = column, tokens.scores[row, column]
    reached = np.searchsorted(keys, wanted, side="right") - column * n_levels
    slot = column * (n_levels + 1) + (n_levels - reached)

    def up_to_level(slots: Int[np.ndarray, " k"]) -> Int[np.ndarray, "levels c"]:
        histogram = np.bincount(slots, minlength=n_concepts * (n_levels + 1)).reshape(n_concepts, n_levels + 1)
        return np.asarray(np.cumsum(histogram, axis=1)[:, :n_levels].T)

    return up_to_level(slot[inside[row, column]]), up_to_level(slot), inside.sum(axis=0)


def localise(
    cal: TokenScores,
    test: TokenScores,
    tail: Tail,
    detection_level: Int[np.ndarray, " c"],
    deltas: tuple[float, ...],
    resamples: Resamples,
) -> Localisation:
    """Choose each concept's level for localisation on cal (not below its detection level) and report on test.

    Parameters
    ----------
    cal, test : TokenScores
    tail : Tail
        In-concept activations of cal.
    detection_level : int64 array of shape (concepts,)
    deltas : ascending sparsity levels
    resamples : Resamples
        Test draws give the interval of the token F1, thresholds fixed.
    """
    candidates = tail.quantiles(deltas)
    f1 = f1_of(*token_counts(cal, candidates))
    allowed = np.arange(len(deltas))[:, None] >= detection_level
    level = np.where(allowed, f1, -1.0).argmax(axis=0)
    thresholds = candidates[level, np.arange(len(level))]

    hits, fired, positives = token_counts(test, thresholds[None])
    hits, fired = hits[0], fired[0]
    per_sample = _per_sample(test, thresholds)
    hits_r, fired_r, positives_r = (resamples.test @ part for part in per_sample)
    low, high = interval(f1_of(hits_r, fired_r, positives_r))
    inside = test.counted()[1]
    highest = np.where(test.known[:, None], test.scores, -np.inf).astype(np.float32)
    peak = highest == segment_max(highest, test.offsets)[segment_ids(test.offsets)]
    holds = segment_any(inside, test.offsets)
    pointed = segment_any(peak & inside, test.offsets)
    columns = {
        "token_f1": f1_of(hits, fired, positives),
        "token_f1_low": low,
        "token_f1_high": high,
        "token_precision": ratio(hits, fired),
        "token_recall": ratio(hits, positives),
        "iou": ratio(hits, fired + positives - hits),
        "token_average_precision": average_precision(test.scores[test.known], inside[test.known]),
        "pointing": ratio(pointed.sum(axis=0), holds.sum(axis=0)),
    }
    return Localisation(level, thresholds, columns)


def _per_sample(
    tokens: TokenScores, thresholds: Float[np.ndarray, " c"]
) -> tuple[Int[np.ndarray, "n c"], Int[np.ndarray, "n c"], Int[np.ndarray, "n c"]]:
    """Hits, firing tokens and in-concept tokens of every sample."""
    may_fire, inside = tokens.counted()
    fires = may_fire & (tokens.scores.astype(np.float64) >= thresholds)
    starts = tokens.offsets[:-1]
    hits, fired, positives = (
        np.add.reduceat(part, starts, axis=0, dtype=np.int64) for part in (fires & inside, fires, inside)
    )
    return hits, fired, positives
