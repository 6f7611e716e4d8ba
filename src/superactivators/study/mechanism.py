"""The mechanism in a finished study: its model, data, labels, detector and vectors, put together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from superactivators.concepts.bank import ConceptBank
from superactivators.detection.detector import Detector
from superactivators.errors import StoreError
from superactivators.mechanism.explain import ABLATIONS, SAMPLES, explain_mechanism
from superactivators.mechanism.results import MechanismResult
from superactivators.states.extraction import open_states
from superactivators.study.clock import Clock
from superactivators.study.fit import SUMMARY, open_detector
from superactivators.study.plan import plan_of
from superactivators.study.run import open_backbone, open_dataset, supervised
from superactivators.study.settings import StudySettings
from superactivators.study.stages import Stages


def study_mechanism(
    folder: str | Path,
    *,
    kind: str | None = None,
    concepts: Sequence[str] | None = None,
    samples: int = SAMPLES,
    ablate: int | str = ABLATIONS,
    seed: int = 0,
    say: Callable[[str], None] = lambda message: None,
) -> MechanismResult:
    """Explain the mechanism in a finished study; see `superactivators.mechanism.explain.explain_mechanism`.

    Parameters
    ----------
    folder : str or Path
        Study folder.
    kind : str, optional
        Which detector; default: the best on cal. Its vectors at all studied layers are the ``"own"`` ones.
    concepts : sequence of str, optional
    samples : int
    ablate : int or ``"all"``
    seed : int
    say : callable
        Told what begins.

    Returns
    -------
    MechanismResult

    Raises
    ------
    StoreError
        If the folder holds no finished study, or its data set has changed since.
    StudyError, ModelError
        As `superactivators.mechanism.explain.explain_mechanism`.
    """
    path = Path(folder)
    try:
        summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
        settings = StudySettings.of(summary["settings"], str(path / SUMMARY))
        made_from, studied = summary["data"]["fingerprint"], list(summary["concepts"])
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(
            f"{path!s:.200}: no finished study here ({SUMMARY} is missing or incomplete); "
            "run 'superactivators run' first"
        ) from None
    detector = open_detector(path, kind)
    dataset = open_dataset(settings)
    if dataset.fingerprint != made_from:
        raise StoreError(f"{path}: its data set has changed since; run the study again")
    states = supervised(open_states(path / "states").with_concepts(studied), settings)
    stages = Stages(states, plan_of(settings, dataset.modality), path, Clock(), dataset)
    say(f"model {settings.model.name}")
    return explain_mechanism(
        open_backbone(settings, dataset.modality),
        dataset,
        detector,
        states.labels,
        banks=_banks(stages, detector),
        concepts=concepts,
        samples=samples,
        ablate=ablate,
        seed=seed,
        say=say,
    )


def _banks(stages: Stages, detector: Detector) -> dict[str, ConceptBank]:
    return {site: stages.bank(detector.kind, "token", site) for site in stages.sites(detector.kind)}
