"""Detectors without a whole study: fit one from stored states, or open one that a study or `fit_detector` wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from superactivators.artefacts import refuse_foreign
from superactivators.concepts.learning import learn_concepts
from superactivators.concepts.units import kinds
from superactivators.detection.detector import FORMAT as DETECTOR
from superactivators.detection.detector import Detector
from superactivators.detection.matching import match_tokens, matched_bank
from superactivators.detection.superactivators import SuperActivatorDetector
from superactivators.detection.tail import DELTAS
from superactivators.errors import StoreError, StudyError, allowed
from superactivators.states.extraction import open_states
from superactivators.states.store import StateStore
from superactivators.study.coverage import cover

SUMMARY = "summary.json"


def fit_detector(
    states: str | Path,
    out: str | Path,
    *,
    kind: str = "linear",
    min_positives: int = 5,
    min_tokens: int | Sequence[int] = 1,
    max_fpr: float | None = None,
    seed: int = 0,
    say: Callable[[str], None] = lambda message: None,
) -> tuple[Detector, dict[str, str]]:
    """Learn vectors at every stored site, calibrate on cal and write the detector.

    Parameters
    ----------
    states : str or Path
        States folder.
    out : str or Path
        Detector folder to write.
    kind : str
        Concept kind.
    min_positives : int
        Concepts with fewer positive samples in any split are left out.
    min_tokens : int or sequence of int
        Tokens that must reach the threshold; of several numbers each concept takes the one that is best on cal.
    max_fpr : float, optional
        Highest false-positive rate on cal that is allowed; see `SuperActivatorDetector`.
    seed : int
    say : callable
        Told what begins.

    Returns
    -------
    detector : Detector
    excluded : dict of str to str
        Concepts left out, with the reason.

    Raises
    ------
    SuperActivatorsError
        If the states cannot be read, or nothing can be learned from them.
    """
    refuse_foreign(Path(out), DETECTOR)
    opened = open_states(states)
    coverage = cover(opened.labels, min_positives)
    chosen = opened.with_concepts(coverage.kept)
    banks = []
    for site in chosen.sites:
        say(f"{kind} vectors at {site}")
        (bank,) = learn_concepts(chosen, site, [kind], seed=seed)
        if kinds[kind].matched:
            units = match_tokens(chosen, bank, DELTAS, poolings=("max",)).units["max"][0]
            bank = matched_bank(bank, units, chosen.concepts)
        banks.append(bank)
    say("thresholds")
    fitted = SuperActivatorDetector(banks, min_tokens=min_tokens, max_fpr=max_fpr).calibrate(chosen)
    store = opened.values
    model: dict[str, Any] = dict(store.model) if isinstance(store, StateStore) else {}
    dtype = store.dtype if isinstance(store, StateStore) else "float32"
    table = fitted.evaluate(chosen, "test").to_pylist()
    names = ("prevalence", "precision", "recall", "f1", "fpr", "n")
    test = {row["concept"]: {name: row[name] for name in names} for row in table}
    card = {**fitted.card, "data": str(states), "test": test}
    detector = Detector.of({bank.site: bank for bank in banks}, fitted.thresholds, model=model, dtype=dtype, card=card)
    detector.save_pretrained(out)
    return detector, coverage.excluded


def open_detector(folder: str | Path, kind: str | None = None) -> Detector:
    """Open a detector folder, or one of a study's detectors.

    Parameters
    ----------
    folder : str or Path
        Detector folder, or study folder.
    kind : str, optional
        For a study: which kind; by default the one that was best on cal.

    Raises
    ------
    StoreError
        If there is no detector.
    StudyError
        If the study has none of that kind.
    """
    path = Path(folder)
    # os.path, unlike Path, answers also for names that no file system allows, such as a text given in place of a path
    if os.path.exists(path / "config.json"):
        return Detector.from_pretrained(path)
    held = sorted((path / "detectors").iterdir()) if os.path.isdir(path / "detectors") else []
    kinds = [place.name for place in held if (place / "config.json").exists()]
    if not kinds:
        raise StoreError(
            f"{path!s:.200}: neither a detector nor a finished study; run 'superactivators run' or 'fit' first"
        )
    chosen = kind or _best_kind(path, kinds)
    if chosen not in kinds:
        raise StudyError(f"{path}: no detector of kind {chosen!r}; {allowed(chosen, kinds)}")
    return Detector.from_pretrained(path / "detectors" / chosen)


def _best_kind(study: Path, kinds: list[str]) -> str:
    try:
        best = json.loads((study / SUMMARY).read_text(encoding="utf-8"))["best_kind_on_cal"]
    except (OSError, ValueError, KeyError, TypeError):
        return kinds[0]
    return best if best in kinds else kinds[0]
