"""Run a study: data, states, concepts, scores, detection, detectors, report and summary, in one folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from superactivators.artefacts import Format, fingerprint, is_current, package_versions, write_bytes, writing
from superactivators.data.dataset import ConceptDataset
from superactivators.data.sources import load_dataset
from superactivators.detection.detector import FORMAT as DETECTOR
from superactivators.detection.detector import Detector
from superactivators.detection.methods import methods
from superactivators.detection.results import REFERENCE, DetectionResult
from superactivators.errors import StoreError
from superactivators.models.backbone import Backbone
from superactivators.report.page import ReportInputs, render_report
from superactivators.states.extraction import ExtractionPlan, extract, open_states, plan_extraction
from superactivators.states.states import States
from superactivators.states.store import StateStore
from superactivators.study.clock import Clock, peak_memory
from superactivators.study.coverage import Coverage, cover
from superactivators.study.fit import SUMMARY
from superactivators.study.settings import StudySettings
from superactivators.study.stages import Stages, StudyPlan, load_detection

REPORT = Format("superactivators/report", 1)
ABOUT = ("data", "model", "kinds", "methods", "seed", "settings", "packages", "torch_threads", "notes", "seconds")
"""Entries of the summary that say what was run."""


@final
@dataclass(frozen=True, eq=False)
class StudyResult:
    """A finished study.

    Attributes
    ----------
    folder : Path
        Holds states, concepts, scores, detection, detectors, report and ``summary.json``.
    detection : DetectionResult
    summary : dict
        What ``summary.json`` holds.
    """

    folder: Path
    detection: DetectionResult
    summary: dict[str, Any]

    def __repr__(self) -> str:
        return f"StudyResult({self.folder})\n{self.detection!r}"

    @property
    def report(self) -> Path:
        """The report's HTML file."""
        return self.folder / "report" / "index.html"


def study_states(
    states: States,
    kinds: Sequence[str] = ("mean", "linear"),
    methods: Sequence[str] | None = None,
    *,
    deltas: Sequence[float] | None = None,
    resamples: int = 1000,
    min_positives: int = 1,
    seed: int = 0,
) -> DetectionResult:
    """Study states that are at hand, in memory: the same tables as a study folder holds.

    Parameters
    ----------
    states : States
        From `extract` or `states_from_arrays`.
    kinds : sequence of str
        Concept kinds.
    methods : sequence of str, optional
        Detection methods; by default all, without ``cls`` where there are no sample states.
    deltas : sequence of float, optional
        Sparsity levels.
    resamples : int
        Bootstrap resamples; 0 for no intervals.
    min_positives : int
        Concepts with fewer positive samples in any split are left out (``summary["excluded"]`` says why).
    seed : int

    Returns
    -------
    DetectionResult

    Raises
    ------
    StudyError
        If a kind or method is unknown or cannot be used with these states.
    DataError
        If no concept has enough positives.
    """
    plan = StudyPlan(kinds=tuple(kinds), resamples=resamples, seed=seed)
    chosen = (
        methods if methods is not None else [m for m in plan.methods if m != "cls" or states.values.has_sample_states]
    )
    plan = StudyPlan(
        kinds=tuple(kinds),
        methods=tuple(chosen),
        deltas=plan.deltas if deltas is None else tuple(deltas),
        resamples=resamples,
        seed=seed,
    )
    coverage = cover(states.labels, min_positives)
    result = Stages(states.with_concepts(coverage.kept), plan, None, Clock()).run()
    result.summary["excluded"] = coverage.excluded
    return result


def open_backbone(settings: StudySettings) -> Backbone:
    """Load the backbone of a study."""
    model = settings.model
    return Backbone.from_pretrained(
        model.name,
        device=model.device,
        dtype=model.dtype,
        geometry=model.geometry,
        long_texts=model.long_texts,
        revision=model.revision,
    )


def open_dataset(settings: StudySettings) -> ConceptDataset:
    """Load the data set of a study."""
    data = settings.data
    if data.path is not None:
        dataset = load_dataset(Path(data.path), split_seed=settings.run.seed)
    else:
        given = {"size": data.size, "seed": data.seed}
        options = {name: value for name, value in given.items() if value is not None}
        dataset = load_dataset(str(data.name), split_seed=settings.run.seed, **options)
    return dataset if data.concepts is None else dataset.with_concepts(data.concepts)


def plan_study(settings: StudySettings) -> ExtractionPlan:
    """Say what the extraction of a study would cost, without a forward pass."""
    states = settings.states
    return plan_extraction(
        open_backbone(settings),
        open_dataset(settings),
        settings.model.layers,
        dtype=states.dtype,
        batch_tokens=states.batch_tokens,
    )


def run_study(
    settings: StudySettings | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    progress: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> StudyResult:
    """Run a study, skipping every stage whose inputs have not changed.

    Parameters
    ----------
    settings : StudySettings, mapping, or path of a TOML file
    out : str or Path
        Study folder.
    progress : bool
        Show a progress bar while states are extracted.
    say : callable
        Told in short lines what begins.

    Returns
    -------
    StudyResult

    Raises
    ------
    SuperActivatorsError
        If settings, data or model are wrong. What was finished stays usable.
    """
    if isinstance(settings, str | Path):
        settings = StudySettings.load(Path(settings))
    elif not isinstance(settings, StudySettings):
        settings = StudySettings.of(dict(settings))
    folder, clock, plan = Path(out), Clock(say), _plan(settings)
    _make_folder(folder)
    with clock.stage("data", "data"):
        dataset = open_dataset(settings)
    with clock.stage("model", f"model {settings.model.name}"):
        backbone = open_backbone(settings)
    before = peak_memory()
    with clock.stage("states", "states"):
        states = extract(
            backbone,
            dataset,
            settings.model.layers,
            out=folder / "states",
            dtype=settings.states.dtype,
            text_rule=settings.data.text_rule,
            patch_rule=settings.data.patch_rule,
            batch_tokens=settings.states.batch_tokens,
            progress=progress,
        )
    coverage = cover(states.labels, settings.data.min_positives)
    chosen = states.with_concepts(coverage.kept)
    stages = Stages(chosen, plan, folder, clock)
    result = stages.run()
    about = _about(settings, backbone, dataset, states, coverage)
    with clock.stage("detectors", "detectors"):
        _save_detectors(folder, stages, chosen, result, settings, backbone, about)
    old = _read_summary(folder)
    seconds = {**old.get("seconds", {}), **clock.seconds}
    with clock.stage("report", "report"):
        _save_report(folder, dataset, chosen, stages, result, {**about, "seconds": seconds})
    found = json.loads(json.dumps({**about, **result.summary}))
    if all(old.get(name) == value for name, value in found.items()):
        return StudyResult(folder, result, old)
    summary = {
        **found,
        "seconds": {**seconds, "report": clock.seconds["report"]},
        "peak_memory_bytes": peak_memory(),
        "memory_before_states_bytes": before,
    }
    write_bytes(folder / SUMMARY, (json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
    return StudyResult(folder, result, summary)


def render_again(folder: str | Path) -> Path:
    """Write the report of a finished study again, from its results and data, without the model.

    Returns
    -------
    Path
        The HTML file.

    Raises
    ------
    StoreError
        If the folder holds no finished study.
    """
    path = Path(folder)
    summary = _read_summary(path)
    if not isinstance(summary.get("settings"), dict):
        raise StoreError(f"{path}: no finished study here ({SUMMARY} is missing); run 'superactivators run' first")
    settings = StudySettings.of(summary["settings"], str(path / SUMMARY))
    dataset = open_dataset(settings)
    try:
        made_from, concepts = summary["data"]["fingerprint"], list(summary["concepts"])
        about = {name: summary[name] for name in ABOUT}
        about["seconds"] = {name: value for name, value in summary["seconds"].items() if name != "report"}
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path / SUMMARY}: lacks a needed entry ({error}); run the study again") from None
    if dataset.fingerprint != made_from:
        raise StoreError(f"{path}: its data set has changed since; run the study again")
    states = open_states(path / "states").with_concepts(concepts)
    stages = Stages(states, _plan(settings), path, Clock())
    _save_report(path, dataset, states, stages, load_detection(path / "detection"), about, again=True)
    return path / "report" / "index.html"


def _plan(settings: StudySettings) -> StudyPlan:
    return StudyPlan(
        kinds=tuple(settings.concepts.kinds),
        methods=tuple(settings.detection.methods),
        deltas=tuple(settings.detection.deltas),
        resamples=settings.detection.resamples,
        seed=settings.run.seed,
        memory=settings.concepts.memory_mib * 2**20,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from None


def _read_summary(folder: Path) -> dict[str, Any]:
    """Read the summary of an earlier run, if there is one that can be read."""
    try:
        content = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _about(
    settings: StudySettings, backbone: Backbone, dataset: ConceptDataset, states: States, coverage: Coverage
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
        "kinds": list(settings.concepts.kinds),
        "methods": {name: methods[name].summary for name in settings.detection.methods},
        "seed": settings.run.seed,
        "settings": settings.model_dump(exclude_none=True),
        "packages": package_versions(),
        "torch_threads": torch.get_num_threads(),
        "notes": notes,
    }


def _encoding(states: States) -> Any:
    return states.values.encoding if isinstance(states.values, StateStore) else None


def _save_detectors(
    folder: Path,
    stages: Stages,
    states: States,
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
        detector = Detector.of(
            banks,
            thresholds,
            model={"name": backbone.name, "fingerprint": backbone.fingerprint, "options": backbone.options},
            dtype=settings.states.dtype,
            card={
                "data": about["data"]["name"],
                "data_fingerprint": about["data"]["fingerprint"],
                "modality": about["data"]["modality"],
                "test": test,
            },
        )
        target = folder / "detectors" / kind
        if not is_current(target, DETECTOR, detector.fingerprint):
            detector.save_pretrained(target)


def _save_report(
    folder: Path,
    dataset: ConceptDataset,
    states: States,
    stages: Stages,
    result: DetectionResult,
    about: Mapping[str, Any],
    *,
    again: bool = False,
) -> None:
    made_from = fingerprint([REPORT.version, states.fingerprint, result.summary, {**about, "seconds": {}}])
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
    )
    with writing(folder / "report", REPORT, made_from, {"title": inputs.title}) as writer:
        writer.bytes("index.html", render_report(inputs).encode())
