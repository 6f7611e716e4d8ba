"""Run a study: data, states, concepts, scores, detection, detectors, report and summary, in one folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from superactivators.artefacts import write_bytes
from superactivators.concepts.kinds import KindOptions
from superactivators.data.dataset import ConceptDataset, Modality
from superactivators.data.sources import load_dataset
from superactivators.detection.results import DetectionResult
from superactivators.detection.store import load_detection
from superactivators.detection.tail import DELTAS
from superactivators.errors import StoreError
from superactivators.models.backbone import Backbone
from superactivators.scores.pooling import MIN_TOKENS
from superactivators.states.extraction import ExtractionPlan, extract, open_states, plan_extraction
from superactivators.states.states import States
from superactivators.study.analysis import analyse_study, analysis_summary, read_analysis
from superactivators.study.attribution import (
    attribute_study,
    attribution_summary,
    check_attribution,
    plan_attribution,
    read_attribution,
)
from superactivators.study.checks import check_codes
from superactivators.study.clock import Clock, peak_memory
from superactivators.study.coverage import cover
from superactivators.study.fit import SUMMARY
from superactivators.study.outputs import about_study, check_study, save_detectors, save_report, save_tables
from superactivators.study.plan import StudyPlan, default_methods, plan_of
from superactivators.study.protocol import with_protocol
from superactivators.study.settings import StudySettings
from superactivators.study.stages import Stages

ABOUT = (
    "data",
    "model",
    "kinds",
    "methods",
    "seed",
    "settings",
    "packages",
    "torch_threads",
    "notes",
    "checks",
    "seconds",
)
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
    min_tokens: int = MIN_TOKENS,
    options: KindOptions | None = None,
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
        Detection methods; by default those of a study, without ``cls`` where there are no sample states. Methods that
        look at texts, sentences or patch grids need a study of a data set.
    deltas : sequence of float, optional
        Sparsity levels.
    resamples : int
        Bootstrap resamples; 0 for no intervals.
    min_positives : int
        Concepts with fewer positive samples in any split are left out (``summary["excluded"]`` says why).
    min_tokens : int
        Tokens that the method ``min-tokens`` asks for.
    options : KindOptions, optional
        Numbers of clusters, a sparse autoencoder.
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
    named = default_methods(None, has_sample_states=states.values.has_sample_states) if methods is None else methods
    plan = StudyPlan(
        kinds=tuple(kinds),
        methods=tuple(named),
        deltas=DELTAS if deltas is None else tuple(deltas),
        resamples=resamples,
        seed=seed,
        options=KindOptions() if options is None else options,
        min_tokens=min_tokens,
    )
    coverage = cover(states.labels, min_positives)
    result = Stages(states.with_concepts(coverage.kept), plan, None, Clock()).run()
    result.summary["excluded"] = coverage.excluded
    return result


def open_backbone(settings: StudySettings, modality: Modality | None = None, *, weights: bool = True) -> Backbone:
    """Load the backbone of a study, of a checkpoint that reads both the part for its data; or only sketch it."""
    model = settings.model
    load = Backbone.from_pretrained if weights else Backbone.sketch
    return load(
        model.name,
        device=model.device,
        dtype=model.dtype,
        geometry=model.geometry,
        long_texts=model.long_texts,
        modality=modality,
        tower=model.tower,
        processor=model.processor,
        revision=model.revision,
    )


def open_dataset(settings: StudySettings) -> ConceptDataset:
    """Load the data set of a study."""
    data = settings.data
    if data.path is not None:
        dataset = load_dataset(Path(data.path), format=data.format, split_seed=settings.run.seed, **data.options)
    else:
        given: dict[str, Any] = {"size": data.size, "seed": data.seed}
        options = {name: value for name, value in given.items() if value is not None}
        dataset = load_dataset(str(data.name), split_seed=settings.run.seed, **options, **data.options)
    return dataset if data.concepts is None else dataset.with_concepts(data.concepts)


def plan_study(settings: StudySettings) -> ExtractionPlan:
    """Say what the extraction of a study would cost, without a forward pass and without reading any weights."""
    states, dataset = settings.states, open_dataset(settings)
    return plan_extraction(
        open_backbone(settings, dataset.modality, weights=False),
        dataset,
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
    folder, clock = Path(out), Clock(say)
    _check_early(settings)
    _make_folder(folder)
    with clock.stage("data", "data"):
        dataset = open_dataset(settings)
    settings = with_protocol(settings, dataset.modality)
    plan = plan_of(settings, dataset.modality)
    check_attribution(settings, plan.kinds, dataset.modality)
    with clock.stage("model", f"model {settings.model.name}"):
        backbone = open_backbone(settings, dataset.modality)
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
    states = supervised(states, settings)
    coverage = cover(states.labels, settings.data.min_positives)
    chosen = states.with_concepts(coverage.kept)
    stages = Stages(chosen, plan, folder, clock, dataset)
    result = stages.run()
    about = about_study(settings, plan, backbone, dataset, states, coverage)
    if stages.prompt_counts is not None:
        about["prompt"] = stages.prompt_counts
    with clock.stage("detectors", "detectors"):
        save_detectors(folder, stages, result, settings, backbone, about)
    attribution = attribute_study(
        folder, settings, backbone, dataset, chosen, result, stages.bank, clock, progress=progress
    )
    analysis = analyse_study(folder, stages, plan, chosen, result, dataset.modality, clock)
    with clock.stage("checks", "checks"):
        silence = settings.run.silence
        about["checks"] = check_study(stages, dataset, chosen, result, about, silence, stages.prompt_counts)
    old = _read_summary(folder)
    seconds = {**old.get("seconds", {}), **clock.seconds}
    with clock.stage("report", "report"):
        save_report(folder, dataset, chosen, stages, result, {**about, "seconds": seconds}, attribution, analysis)
    if attribution is not None:
        about["attribution"] = attribution_summary(attribution)
    about["analysis"] = analysis_summary(analysis, result)
    found = json.loads(json.dumps({**about, **result.summary}))
    if all(old.get(name) == value for name, value in found.items()):
        return StudyResult(folder, result, old)
    save_tables(folder, f"{dataset.name} {Path(about['model']['name']).name}", result, found, attribution, analysis)
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
    states = supervised(states, settings)
    plan, result = plan_of(settings, dataset.modality), load_detection(path / "detection")
    stages = Stages(states, plan, path, Clock(), dataset)
    attribution, analysis = read_attribution(path, settings), read_analysis(path)
    save_report(path, dataset, states, stages, result, about, attribution, analysis, again=True)
    return path / "report" / "index.html"


def supervised(states: States, settings: StudySettings) -> States:
    """Forget the labels of tokens where a study asks for those of samples only."""
    if settings.data.supervision == "tokens":
        return states
    return replace(states, labels=states.labels.without_tokens())


def _check_early(settings: StudySettings) -> None:
    """Refuse wrong names before anything is loaded."""
    if isinstance(settings.concepts.kinds, list):
        StudyPlan(kinds=tuple(name for name in settings.concepts.kinds if name != "sae") or ("mean",))
    if isinstance(settings.detection.methods, list):
        prompt = None if settings.prompt is None else settings.prompt.options()
        StudyPlan(methods=tuple(settings.detection.methods), prompt=prompt)
    StudyPlan(deltas=tuple(settings.detection.deltas))
    if settings.attribution is not None:
        plan_attribution(settings)
    check_codes(settings.run.silence)


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
