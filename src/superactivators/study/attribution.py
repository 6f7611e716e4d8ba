"""The attribution stage of a study: explain drawn samples with the study's detector, and keep what was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from superactivators.artefacts import fingerprint, is_current
from superactivators.attribution.activation import MeanDifference
from superactivators.attribution.catalogue import build_explainers, usable
from superactivators.attribution.hiding import check_hiding
from superactivators.attribution.objectives import OBJECTIVES
from superactivators.attribution.plan import SurveyPlan
from superactivators.attribution.results import AttributionResult
from superactivators.attribution.sanity import unchanged
from superactivators.attribution.scene import Scene
from superactivators.attribution.store import FORMAT, load_attribution, save_attribution
from superactivators.attribution.survey import survey
from superactivators.concepts.bank import ConceptBank
from superactivators.data.dataset import ConceptDataset, Modality
from superactivators.detection.detector import Detector
from superactivators.detection.results import REFERENCE, DetectionResult
from superactivators.errors import StudyError, allowed
from superactivators.models.backbone import Backbone
from superactivators.states.states import Level, States
from superactivators.study.clock import Clock
from superactivators.study.settings import AttributionSettings, StudySettings

ROOM = "attribution"
RESULT = f"{ROOM}/result"
"""Where in a study folder the result lies."""


def plan_attribution(settings: StudySettings) -> SurveyPlan:
    """Build the plan of a study's attribution; raises ``StudyError`` if a name or an option is wrong."""
    chosen = settings.attribution or AttributionSettings()
    return SurveyPlan(
        explainers=build_explainers(chosen.explainers, chosen.options, budget=chosen.budget),
        hiding=chosen.hiding,
        cal_samples=chosen.cal_samples,
        test_samples=chosen.samples,
        steps=chosen.steps,
        sanity_samples=chosen.sanity_samples,
        examples=chosen.examples,
        deltas=tuple(sorted(settings.detection.deltas)),
        resamples=settings.detection.resamples,
        seed=settings.run.seed,
        max_batch_tokens=settings.states.batch_tokens,
    )


def check_attribution(settings: StudySettings, kinds: Sequence[str], modality: Modality) -> None:
    """Refuse what the attribution stage could not do before anything is computed.

    Parameters
    ----------
    settings : StudySettings
    kinds : sequence of str
        Of the study.
    modality : str

    Raises
    ------
    StudyError
        If hidden tokens cannot look as asked, or the kind is not studied.
    """
    if settings.attribution is None:
        return
    check_hiding(settings.attribution.hiding, modality)
    kind = settings.attribution.kind
    if kind is not None and kind not in kinds:
        raise StudyError(f"[attribution] kind {kind!r} has no detector in this study; {allowed(kind, kinds)}")


def attribute_study(
    folder: Path,
    settings: StudySettings,
    backbone: Backbone,
    dataset: ConceptDataset,
    states: States,
    detection: DetectionResult,
    bank: Callable[[str, Level, str], ConceptBank],
    clock: Clock,
    *,
    progress: bool = False,
) -> AttributionResult | None:
    """Do what ``[attribution]`` asks for, unless it is there and nothing has changed.

    Parameters
    ----------
    folder : Path
        Study folder, whose detectors are written.
    settings : StudySettings
    backbone, dataset, states
        Of the study.
    detection : DetectionResult
        Says which kind is best on cal.
    bank : function of (kind, level, site)
        Gives the study's vectors: mean-difference takes those of kind ``"mean"``, if they were studied.
    clock : Clock
    progress : bool

    Returns
    -------
    AttributionResult or None
        None if the study file has no such section.

    Raises
    ------
    StudyError
        If the kind was not studied, the study has no detector, nobody labelled tokens, or no sample can be judged.
    """
    if settings.attribution is None:
        return None
    kind = settings.attribution.kind or detection.summary["best_kind_on_cal"]
    studied = {item.kind for item in detection.thresholds if item.method == REFERENCE}
    kinds = [name for name in sorted(studied) if (folder / "detectors" / name).is_dir()]
    if not kinds:
        raise StudyError(f"[attribution] needs a detector; name {REFERENCE!r} among the methods of [detection]")
    if kind not in kinds:
        raise StudyError(f"[attribution] kind {kind!r} has no detector in this study; {allowed(kind, kinds)}")
    detector = Detector.from_pretrained(folder / "detectors" / kind)
    plan = plan_attribution(settings)
    if "mean-difference" in plan.explainers and "mean" in kinds and kind != "mean":
        banks = {site: bank("mean", "token", site) for site in detector.sites}
        plan = replace(plan, explainers={**plan.explainers, "mean-difference": MeanDifference(banks)})
    hiding = check_hiding(plan.hiding, backbone.modality)
    if settings.attribution.explainers == "all":
        scene = Scene.of(backbone, detector, dataset.samples[0], detector.concepts[:1], OBJECTIVES[:1], seed=plan.seed)
        plan = replace(plan, explainers=usable(plan.explainers, scene))
    explained = {name: repr(explainer) for name, explainer in plan.explainers.items()}
    numbers = [plan.cal_samples, plan.test_samples, plan.steps, plan.sanity_samples, plan.examples, plan.resamples]
    inputs = [detector.fingerprint, backbone.fingerprint, states.fingerprint, dataset.fingerprint]
    made_from = fingerprint([FORMAT.version, inputs, explained, hiding, numbers, list(plan.deltas), plan.seed])
    place = folder / RESULT
    if is_current(place, FORMAT, made_from):
        return load_attribution(place)
    with clock.stage("attribution", f"attribution of {kind} concepts by {len(explained)} explainers"):
        watch = partial(_watched, progress=progress)
        found = survey(backbone, detector, dataset, states.labels, plan, folder / ROOM / "samples", watch)
        found.summary.update(kind=kind, hiding=hiding)
        save_attribution(place, found, made_from)
    return found


def read_attribution(folder: Path, settings: StudySettings) -> AttributionResult | None:
    """Read what a finished study found, if its file asks for attribution."""
    return None if settings.attribution is None else load_attribution(folder / RESULT)


def attribution_summary(result: AttributionResult) -> dict[str, Any]:
    """Give the entry of ``summary.json``: what was run, and token F1, insertion and deletion with their intervals."""
    shown = ("token_f1", "insertion", "deletion")
    measures: dict[str, dict[str, dict[str, Any]]] = {}
    for row in result.aggregates.to_pylist():
        if row["measure"] in shown:
            estimate = {name: _number(row[name]) for name in ("value", "low", "high")}
            measures.setdefault(row["explainer"], {}).setdefault(row["objective"], {})[row["measure"]] = estimate
    compared = [row for row in result.comparisons.to_pylist() if row["measure"] == "token_f1"]
    return {
        **result.summary,
        "measures": measures,
        "superactivators_win": [row["explainer"] for row in compared if row["difference"] > 0],
        "concept_wins": [row["explainer"] for row in compared if row["difference"] < 0],
        "unchanged_by_randomising": [list(row) for row in unchanged(result.sanity)],
        "clear_after_holm": [row["explainer"] for row in compared if row["p_holm"] < 0.05],
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _watched(samples: Iterable[int], *, progress: bool) -> Iterable[int]:
    return tqdm(samples, desc="attribution", unit="sample") if progress else samples
