"""The SuperActivator detector's calibration on labelled states (METHOD section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from superactivators.concepts.bank import ConceptBank
from superactivators.detection.detector import Detector
from superactivators.detection.selection import Calibration
from superactivators.detection.tail import DELTAS, Tail, check_deltas
from superactivators.detection.thresholds import Threshold
from superactivators.errors import CalibrationError
from superactivators.ragged import segment_ids
from superactivators.scores.activations import score_tokens
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
    """

    def __init__(self, banks: ConceptBank | Sequence[ConceptBank], deltas: Sequence[float] = DELTAS) -> None:
        self.banks = (banks,) if isinstance(banks, ConceptBank) else tuple(banks)
        self.deltas = deltas

    def calibrate(self, states: States) -> Detector:
        """Fit thresholds on the cal split, choosing level and layer for each concept.

        Parameters
        ----------
        states : States
            With token labels.

        Returns
        -------
        Detector

        Raises
        ------
        CalibrationError
            If tokens are not labelled, or a concept has no in-concept token on cal.
        """
        levels = check_deltas(self.deltas)
        if not self.banks:
            raise CalibrationError("no concept bank given; learn at least one")
        chosen = states.with_concepts(self.banks[0].concepts)
        labels = chosen.labels
        if labels.tokens is None:
            raise CalibrationError("SuperActivator thresholds need labelled tokens on cal; give spans or masks")
        cal = labels.in_split("cal")
        tails, scores = [], []
        for bank in self.banks:
            held = score_tokens(chosen, [bank], poolings=("max",))[0]
            activations, rows, offsets = held.of_split(labels, "cal")
            tails.append(Tail.of_tokens(activations, labels.tokens[rows], segment_ids(offsets)))
            scores.append(held.pooled["max"][cal])
        lacking = [name for name, count in zip(labels.concepts, tails[0].counts, strict=True) if not count]
        if lacking:
            raise CalibrationError(
                f"no in-concept token on cal for {', '.join(lacking)}; leave them out, or label some"
            )
        fitted = Calibration.fit(tails, scores, labels.samples[cal], levels)
        values = fitted.chosen_thresholds()
        thresholds = [
            Threshold(
                value=float(values[c]),
                delta=levels[int(fitted.choice.level[c])],
                concept=name,
                kind=self.banks[0].kind,
                method=METHOD,
                site=self.banks[int(fitted.choice.layer[c])].site,
                n=int(tails[0].counts[c]),
            )
            for c, name in enumerate(labels.concepts)
        ]
        return Detector.of({bank.site: bank for bank in self.banks}, thresholds)
