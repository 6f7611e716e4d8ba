"""The analysis stage of a study: what activations look like, kept in a folder and skipped when nothing changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from superactivators.analysis.analyse import analyse
from superactivators.analysis.results import AnalysisResult
from superactivators.analysis.store import FORMAT, load_analysis, save_analysis
from superactivators.artefacts import Manifest, fingerprint, is_current
from superactivators.data.dataset import Modality
from superactivators.detection.results import REFERENCE, DetectionResult
from superactivators.detection.store import DETECTION
from superactivators.states.states import States
from superactivators.study.clock import Clock
from superactivators.study.plan import StudyPlan
from superactivators.study.stages import Stages

ROOM = "analysis"
"""Where in a study folder the analyses lie."""

SHOWN = ("auroc", "overlap", "tail_mass", "coverage")
"""Figures of the summary."""


def analyse_study(
    folder: Path,
    stages: Stages,
    plan: StudyPlan,
    states: States,
    detection: DetectionResult,
    modality: Modality,
    clock: Clock,
) -> AnalysisResult:
    """Analyse a study whose detection is there, unless that was done and nothing has changed.

    Parameters
    ----------
    folder : Path
        Study folder.
    stages : Stages
        Gives scores and vectors.
    plan : StudyPlan
    states : States
        With the concepts of the study.
    detection : DetectionResult
        What the folder's ``detection`` holds.
    modality : str
    clock : Clock

    Returns
    -------
    AnalysisResult

    Raises
    ------
    StoreError
        If scores or vectors of the folder cannot be read.
    """
    held = Manifest.read(folder / "detection", DETECTION).fingerprint
    made_from = fingerprint([FORMAT.version, states.fingerprint, held, modality])
    place = folder / ROOM
    if is_current(place, FORMAT, made_from):
        return load_analysis(place)
    kinds = plan.kinds if "token" in plan.levels else ()
    with clock.stage("analysis", "analyses of activations and errors"):
        found = analyse(stages.scores, stages.sites, kinds, states, detection, stages.bank, modality=modality)
        save_analysis(place, found, made_from)
    return found


def read_analysis(folder: Path) -> AnalysisResult | None:
    """Read the analyses of a finished study; None where an earlier release made none."""
    return load_analysis(folder / ROOM) if (folder / ROOM).exists() else None


def analysis_summary(result: AnalysisResult, detection: DetectionResult) -> dict[str, Any]:
    """Give the entry of ``summary.json``.

    Returns
    -------
    dict
        JSON types. ``kinds``: by kind, plain means over concepts at the layers that they chose on cal, None where
        tokens are not labelled; ``pairs``: samples whose tokens were compared.
    """
    picks = {kind: by_method.get(REFERENCE, {}) for kind, by_method in detection.summary["chosen"].items()}
    values: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in SHOWN} for kind in dict.fromkeys(result.errors["kind"].to_pylist())
    }
    for row in result.separation.to_pylist():
        pick = picks.get(row["kind"], {}).get(row["concept"])
        if pick is not None and pick["site"] == row["site"]:
            for name in SHOWN:
                if row[name] is not None:
                    values[row["kind"]][name].append(row[name])
    return {
        "kinds": {
            kind: {name: float(np.mean(held)) if held else None for name, held in by_name.items()}
            for kind, by_name in values.items()
        },
        "pairs": list(result.pairs),
    }
