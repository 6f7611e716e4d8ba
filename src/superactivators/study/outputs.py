"""What a study writes beside its tables: what was run, detectors, the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from superactivators.analysis.results import AnalysisResult
from superactivators.analysis.store import FORMAT as ANALYSIS
from superactivators.artefacts import Format, fingerprint, is_current, package_versions, writing
from superactivators.attribution.results import AttributionResult
from superactivators.data.dataset import ConceptDataset
from superactivators.detection.detector import FORMAT as DETECTOR
from superactivators.detection.detector import Detector
from superactivators.detection.methods import methods
from superactivators.detection.results import REFERENCE, DetectionResult
from superactivators.models.backbone import Backbone
from superactivators.report.exports import export_tables
from superactivators.report.page import ReportInputs, render_report
from superactivators.report.study_results import StudyTables
from superactivators.states.states import States
from superactivators.states.store import StateStore
from superactivators.study.checks import CheckInputs, run_checks
from superactivators.study.coverage import Coverage
from superactivators.study.plan import StudyPlan
from superactivators.study.settings import StudySettings
from superactivators.study.stages import Stages

REPORT = Format("superactivators/report", 1)


def about_study(
    settings: StudySettings,
    plan: StudyPlan,
    backbone: Backbone,
    dataset: ConceptDataset,
    states: States,
    coverage: Coverage,
) -> dict[str, Any]:
    """Everything a reader of the results wants to know about the run."""
    labels, encoding = states.labels, _encoding(states)
    notes = []
    if encoding is not None and int(encoding.cut.sum()):
        notes.append(f"{int((encoding.cut > 0).sum())} texts were truncated by {int(encoding.cut.sum())} tokens.")
    if labels.lost_by_crop:
        lost = ", ".join(f"{name} {count}" for name, count in labels.lost_by_crop.items())
        notes.append(f"The model's crop removed every labelled pixel of a concept in some images: {lost}.")
    splits, counts = labels.splits.tolist(), {}
    for split in ("train", "cal", "test"):
        counts[split] = splits.count(split)
    return {
        "data": {
            "name": dataset.name,
            "modality": dataset.modality,
            "fingerprint": dataset.fingerprint,
            "samples": counts,
            "tokens": int(states.offsets[-1]),
            "positives": coverage.positives,
            "excluded": coverage.excluded,
            "positives_lost_by_crop": labels.lost_by_crop,
        },
        "model": {
            "name": backbone.name,
            "blocks": backbone.n_blocks,
            "width": backbone.width,
            "fingerprint": backbone.fingerprint,
            "sites": list(states.sites),
        },
        "kinds": list(plan.kinds),
        "methods": {name: methods[name].summary for name in plan.methods},
        "protocol": settings.run.protocol,
        "intervals": settings.detection.intervals,
        "seed": settings.run.seed,
        "settings": settings.model_dump(exclude_none=True),
        "packages": package_versions(),
        "torch_threads": torch.get_num_threads(),
        "notes": notes,
    }


def _encoding(states: States) -> Any:
    return states.values.encoding if isinstance(states.values, StateStore) else None


def save_detectors(
    folder: Path,
    stages: Stages,
    result: DetectionResult,
    settings: StudySettings,
    backbone: Backbone,
    about: Mapping[str, Any],
) -> None:
    """Write one detector bundle for each kind."""
    rows = result.metrics.to_pylist()
    for kind in about["kinds"]:
        thresholds = [item for item in result.thresholds if item.kind == kind and item.method == REFERENCE]
        if not thresholds:
            continue
        banks = {site: stages.bank(kind, "token", site) for site in {item.site for item in thresholds}}
        test = {
            row["concept"]: {name: row[name] for name in ("prevalence", "precision", "recall", "f1", "fpr", "n")}
            for row in rows
            if (row["split"], row["kind"], row["method"], row["chosen"]) == ("test", kind, REFERENCE, True)
        }
        alarms = {
            row["concept"]: {"false_positives": row["fp"], "negatives": row["fp"] + row["tn"]}
            for row in rows
            if (row["split"], row["kind"], row["method"], row["chosen"]) == ("cal", kind, REFERENCE, True)
        }
        detector = Detector.of(
            banks,
            thresholds,
            model={"name": backbone.name, "fingerprint": backbone.fingerprint, "options": backbone.options},
            dtype=settings.states.dtype,
            card={
                "data": about["data"]["name"],
                "data_fingerprint": about["data"]["fingerprint"],
                "modality": about["data"]["modality"],
                "cal": alarms,
                "token_labels": result.summary["token_labels"],
                "test": test,
            },
        )
        target = folder / "detectors" / kind
        if not is_current(target, DETECTOR, detector.fingerprint):
            detector.save_pretrained(target)


def save_report(
    folder: Path,
    dataset: ConceptDataset,
    states: States,
    stages: Stages,
    result: DetectionResult,
    about: Mapping[str, Any],
    attribution: AttributionResult | None = None,
    analysis: AnalysisResult | None = None,
    *,
    again: bool = False,
) -> None:
    """Write the report, unless it is there and nothing has changed."""
    made_from = fingerprint(
        [
            *(REPORT.version, states.fingerprint, result.summary, _told(attribution)),
            *(None if analysis is None else ANALYSIS.version, {**about, "seconds": {}}),
        ]
    )
    if not again and is_current(folder / "report", REPORT, made_from):
        return
    inputs = ReportInputs(
        title=f"{dataset.name} · {Path(about['model']['name']).name}",
        dataset=dataset,
        labels=states.labels,
        encoding=_encoding(states),
        result=result,
        scores=stages.scores,
        about=dict(about),
        attribution=attribution,
        analysis=analysis,
    )
    with writing(folder / "report", REPORT, made_from, {"title": inputs.title}) as writer:
        writer.bytes("index.html", render_report(inputs).encode())


def _told(attribution: AttributionResult | None) -> Any:
    return None if attribution is None else [attribution.summary, str(attribution.aggregates.to_pydict())]


def check_study(
    stages: Stages,
    dataset: ConceptDataset,
    states: States,
    result: DetectionResult,
    about: Mapping[str, Any],
    silence: Sequence[str],
    prompt_counts: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Look for what makes results misleading (docs/checks.md); JSON types."""
    inputs = CheckInputs(
        dataset=dataset,
        states=states,
        result=result,
        scores=stages.scores,
        encoding=_encoding(states),
        bank=stages.bank,
        notes=tuple(about["notes"]),
        prompt=prompt_counts,
    )
    return [warned.as_dict() for warned in run_checks(inputs, silence)]


def save_tables(
    folder: Path,
    name: str,
    result: DetectionResult,
    summary: Mapping[str, Any],
    attribution: AttributionResult | None = None,
    analysis: AnalysisResult | None = None,
) -> None:
    """Write the tables of a study as CSV, Markdown and LaTeX."""
    export_tables({name: StudyTables(result, summary, attribution, analysis)}, folder / "tables")
