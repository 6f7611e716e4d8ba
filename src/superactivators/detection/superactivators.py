"""The SuperActivator detector's calibration on labelled states (METHOD section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Float, Int

from superactivators.concepts.bank import ConceptBank
from superactivators.detection.detector import Detector, layout_for
from superactivators.detection.lengths import exact_bounds
from superactivators.detection.metrics import f1_of, fire_counts
from superactivators.detection.tail import DELTAS, Tail, check_deltas
from superactivators.detection.thresholds import Evidence, Threshold
from superactivators.errors import CalibrationError, StudyError, allowed
from superactivators.ragged import segment_ids
from superactivators.scores.activations import score_tokens
from superactivators.scores.layout import Layout
from superactivators.scores.segments import token_evidence
from superactivators.states.states import States

METHOD = "superactivators"


@final
class SuperActivatorDetector:
    """Calibrates SuperActivator detectors on labelled states (METHOD section 5).

    Parameters
    ----------
    banks : ConceptBank or sequence of ConceptBank
        Token banks of one kind, from shallow to deep; each concept takes the layer that suits it best on cal.
    deltas : sequence of float
        Sparsity levels to choose from.
    min_tokens : int or sequence of int
        How many tokens must reach the threshold. Of several numbers each concept takes the best on cal, together with
        level and layer; ties go to the smallest number, then to the smallest level, then to the shallowest layer.
    within : str
        Where these tokens must be: anywhere in the ``"sample"``, or in one ``"segment"``: one sentence, or patches
        that are connected (8-neighbourhood).
    layout : Layout, optional
        For segments: where the tokens of the states stand, ``Layout.of(dataset.samples, states.values.encoding)``.
        States folders of images know it themselves.
    max_fpr : float, optional
        Take only thresholds whose false-positive rate on cal is at most this, measured by the upper end of the
        one-sided 95 % Clopper-Pearson interval, and the best F1 among these. The bound holds for each threshold by
        itself; since one of many is chosen, judge the outcome on test.

    Raises
    ------
    StudyError
        If an option has no possible value.
    """

    def __init__(
        self,
        banks: ConceptBank | Sequence[ConceptBank],
        deltas: Sequence[float] = DELTAS,
        *,
        min_tokens: int | Sequence[int] = 1,
        within: Evidence = "sample",
        layout: Layout | None = None,
        max_fpr: float | None = None,
    ) -> None:
        self.banks = (banks,) if isinstance(banks, ConceptBank) else tuple(banks)
        self.deltas = deltas
        numbers = (min_tokens,) if isinstance(min_tokens, int) else tuple(min_tokens)
        if not numbers or any(not isinstance(m, int) or m < 1 for m in numbers) or len(set(numbers)) < len(numbers):
            raise StudyError(f"min_tokens must be a whole number from 1, or several distinct ones; got {min_tokens!r}")
        if within not in ("sample", "segment"):
            raise StudyError(f"unknown within {within!r}; {allowed(within, ('sample', 'segment'))}")
        if max_fpr is not None and not 0 < max_fpr < 1:
            raise StudyError(f"max_fpr must lie between 0 and 1, without these; got {max_fpr!r}")
        self.min_tokens = tuple(sorted(numbers))
        self.within: Evidence = within
        self.layout = layout
        self.max_fpr = max_fpr

    def calibrate(self, states: States) -> Detector:
        """Fit thresholds on the cal split, choosing level, layer and number of tokens for each concept.

        Parameters
        ----------
        states : States
            Where nobody labelled tokens, every token of a positive sample stands for the concept, and the card says so.

        Returns
        -------
        Detector
            Its card holds the false alarms on cal.

        Raises
        ------
        CalibrationError
            If a concept has no in-concept token on cal, or no threshold of a concept keeps
            to ``max_fpr``.
        StudyError
            If evidence within segments is asked for and the layout is missing, or of other samples.
        """
        levels = check_deltas(self.deltas)
        if not self.banks:
            raise CalibrationError("no concept bank given; learn at least one")
        chosen = states.with_concepts(self.banks[0].concepts)
        labels = chosen.labels
        cal = labels.in_split("cal")
        placed = self.within == "segment" and self.min_tokens[-1] > 1
        layout = layout_for(chosen, self.layout).subset(cal) if placed else None
        truth = labels.samples[cal]
        values, hits, fired = [], [], []
        counts = np.zeros(len(labels.concepts), dtype=np.int64)
        for bank in self.banks:
            held = score_tokens(chosen, [bank], poolings=())[0]
            activations, rows, offsets = held.of_split(labels, "cal")
            tail = Tail.of_tokens(activations, labels.carried[rows], segment_ids(offsets))
            counts = tail.counts
            lacking = [name for name, count in zip(labels.concepts, counts, strict=True) if not count]
            if lacking:
                raise CalibrationError(
                    f"no in-concept token on cal for {', '.join(lacking)}; leave them out, or label some"
                )
            values.append(tail.quantiles(levels))
            pooled = [token_evidence(activations, offsets, number, layout) for number in self.min_tokens]
            found = [fire_counts(score, truth, values[-1]) for score in pooled]
            hits.append([pair[0] for pair in found])
            fired.append([pair[1] for pair in found])
        # [tokens, levels, layers, concepts]: the order in which ties are broken
        order = (1, 2, 0, 3)
        picked = _pick(np.array(hits).transpose(order), np.array(fired).transpose(order), truth, self.max_fpr)
        if len(picked.failed):
            reached = [f"{labels.concepts[c]} ({picked.bound[c]:.3f} at best)" for c in picked.failed]
            raise CalibrationError(
                f"no threshold keeps the false-positive rate on cal surely at or below {self.max_fpr:g} for "
                f"{', '.join(reached)}; allow more, give more cal samples or smaller deltas, or leave the concept out"
            )
        thresholds = [
            Threshold(
                value=float(values[layer][level, c]),
                delta=levels[level],
                concept=name,
                kind=self.banks[0].kind,
                method=METHOD,
                site=self.banks[layer].site,
                n=int(counts[c]),
                min_tokens=self.min_tokens[number],
                within=self.within,
            )
            for c, (name, number, level, layer) in enumerate(
                zip(labels.concepts, *(part.tolist() for part in picked.place), strict=True)
            )
        ]
        negatives = (~truth).sum(axis=0).tolist()
        alarms = picked.alarms.tolist()
        card: dict[str, Any] = {
            "cal": {
                name: {"false_positives": int(alarms[c]), "negatives": int(negatives[c])}
                for c, name in enumerate(labels.concepts)
            }
        }
        if labels.tokens is None:
            card["token_labels"] = False
        if self.max_fpr is not None:
            card["max_fpr"] = self.max_fpr
        return Detector.of({bank.site: bank for bank in self.banks}, thresholds, card=card)


@final
@dataclass(frozen=True, eq=False)
class _Picked:
    """The choice of every concept.

    Attributes
    ----------
    place : three int64 arrays of shape (concepts,)
        Position among the numbers of tokens, the levels and the layers.
    alarms : float64 array of shape (concepts,)
        False positives on cal.
    bound : float64 array of shape (concepts,)
        Lowest bound of the false-positive rate that any candidate has; NaN unless a limit was given.
    failed : int64 array
        Concepts without any candidate below the limit.
    """

    place: tuple[Int[np.ndarray, " c"], Int[np.ndarray, " c"], Int[np.ndarray, " c"]]
    alarms: Float[np.ndarray, " c"]
    bound: Float[np.ndarray, " c"]
    failed: Int[np.ndarray, " failed"]


def _pick(
    hits: Float[np.ndarray, "numbers levels layers c"],
    fired: Float[np.ndarray, "numbers levels layers c"],
    labels: Bool[np.ndarray, "n c"],
    max_fpr: float | None,
) -> _Picked:
    """Take the best F1 of each concept, the first of equals, among candidates that keep to ``max_fpr``."""
    n_concepts = labels.shape[1]
    positives = labels.sum(axis=0)
    f1 = f1_of(hits, fired, positives).reshape(-1, n_concepts)
    alarms = (fired - hits).reshape(-1, n_concepts)
    bound, failed = np.full(n_concepts, np.nan), np.empty(0, dtype=np.int64)
    if max_fpr is not None:
        upper = exact_bounds(alarms, len(labels) - positives)[1]
        f1 = np.where(upper <= max_fpr, f1, -1.0)
        bound, failed = upper.min(axis=0), np.flatnonzero((upper > max_fpr).all(axis=0))
    best = f1.argmax(axis=0)
    number, level, layer = (part.astype(np.int64) for part in np.unravel_index(best, hits.shape[:3]))
    return _Picked((number, level, layer), alarms[best, np.arange(n_concepts)], bound, failed)
