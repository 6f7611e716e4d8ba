"""Attribute concepts in many samples of a data set, and judge the maps: thresholds on cal, everything else on test."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from superactivators.artefacts import fingerprint, reported
from superactivators.attribution.faithfulness import curves
from superactivators.attribution.hiding import check_hiding
from superactivators.attribution.hybrid import ALPHAS, hybrid_maps
from superactivators.attribution.judgement import judge
from superactivators.attribution.plan import SurveyPlan
from superactivators.attribution.records import Record
from superactivators.attribution.results import AttributionResult
from superactivators.attribution.sanity import rank_correlation, with_random_model, with_random_vectors
from superactivators.attribution.scene import Scene
from superactivators.data.dataset import ConceptDataset, Sample
from superactivators.detection.detector import Detector
from superactivators.errors import StudyError
from superactivators.models.backbone import Backbone
from superactivators.states.labels import Labels

VERSION = 1


def survey(
    backbone: Backbone,
    detector: Detector,
    dataset: ConceptDataset,
    labels: Labels,
    plan: SurveyPlan,
    folder: Path | None = None,
    watch: Callable[[Iterable[int]], Iterable[int]] = lambda samples: samples,
) -> AttributionResult:
    """Attribute and judge.

    A sample is asked about the concepts that it holds: is the map right about where they are?

    Parameters
    ----------
    backbone : Backbone
    detector : Detector
        Made from this backbone and the train and cal splits of the data set.
    dataset : ConceptDataset
    labels : Labels
        Of the data set's samples, in the same order, with token labels.
    plan : SurveyPlan
    folder : Path, optional
        Where the records of samples are kept; what is there already and still fits is not made again.
    watch : function
        Wraps the samples that are still to do, to show progress.

    Returns
    -------
    AttributionResult

    Raises
    ------
    StudyError
        If there is no explainer, nobody labelled tokens, or cal or test has no sample with a concept of the detector.
    """
    begun = time.perf_counter()
    samples, records = attribute_samples(backbone, detector, dataset, labels, plan, folder, watch)
    return judge(samples, records, labels, detector.concepts, plan, time.perf_counter() - begun)


def attribute_samples(
    backbone: Backbone,
    detector: Detector,
    dataset: ConceptDataset,
    labels: Labels,
    plan: SurveyPlan,
    folder: Path | None,
    watch: Callable[[Iterable[int]], Iterable[int]],
) -> tuple[Int[np.ndarray, " k"], list[Record]]:
    """Make the records of drawn samples and give their numbers, cal before test; see `survey`."""
    if not plan.explainers:
        raise StudyError("the plan of the survey has no explainer; name at least one (see build_explainers)")
    hiding = check_hiding(plan.hiding, backbone.modality)
    cal, test = (
        draw_samples(labels, detector.concepts, split, number, plan.seed)
        for split, number in (("cal", plan.cal_samples), ("test", plan.test_samples))
    )
    tested, checked = set(test.tolist()), set(test[: plan.sanity_samples].tolist())
    explained = [f"{name}={explainer!r}" for name, explainer in plan.explainers.items()]
    inputs = [detector.fingerprint, backbone.fingerprint, dataset.fingerprint]
    made_from = fingerprint([VERSION, inputs, explained, hiding, plan.steps, plan.seed])
    asked = {number: _held(labels, detector.concepts, number) for number in (*cal.tolist(), *test.tolist())}
    own = {number: fingerprint([made_from, number, number in checked, list(names)]) for number, names in asked.items()}
    held: dict[int, Record] = {}
    if folder is not None:
        with reported(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for number in asked:
            record = Record.load(_file(folder, number), own[number])
            if record is not None:
                held[number] = record
    todo = [number for number in _interleaved(cal, test) if number not in held]
    randomised: dict[str, tuple[Backbone, Detector]] = {}
    for number in watch(todo):
        if number in checked and not randomised:
            if all(bank.activation != "latent" for bank in detector.banks):
                randomised["vectors"] = (backbone, with_random_vectors(detector, plan.seed))
            randomised["model"] = (with_random_model(backbone, plan.seed), detector)
        held[number] = _record(
            backbone,
            detector,
            dataset.samples[number],
            asked[number],
            plan,
            on_test=number in tested,
            randomised=randomised if number in checked else {},
        )
        if folder is not None:
            held[number].save(_file(folder, number), own[number])
    samples = np.concatenate([cal, test])
    return samples, [held[number] for number in samples.tolist()]


def draw_samples(
    labels: Labels, concepts: tuple[str, ...], split: str, number: int, seed: int
) -> Int[np.ndarray, " k"]:
    """Draw samples of a split that hold a concept, with known in-concept tokens.

    The draw depends on the seed and the samples' ids only: a larger number adds samples to those of a smaller one.

    Parameters
    ----------
    labels : Labels
    concepts : tuple of str
    split : str
    number : int
        0 for all.
    seed : int

    Raises
    ------
    StudyError
        If there is none.
    """
    if labels.tokens is None:
        raise StudyError(
            "maps are judged against labelled tokens, but this data set has labels of whole samples only; "
            "give it spans or masks, or leave [attribution] out"
        )
    columns = [labels.concepts.index(name) for name in concepts]
    able = [n for n in labels.in_split(split).tolist() if _inside(labels, n)[:, columns].any()]
    if not able:
        raise StudyError(f"no sample of {split} has a labelled token of {', '.join(concepts)}; nothing can be judged")
    keys = [hashlib.blake2b(f"{seed}:{labels.ids[n]}".encode(), digest_size=8).digest() for n in able]
    order = sorted(range(len(able)), key=lambda place: keys[place])
    return np.array([able[place] for place in order[: number or None]], dtype=np.int64)


def _inside(labels: Labels, sample: int) -> Bool[np.ndarray, "tokens c"]:
    """Known in-concept tokens of one sample."""
    assert labels.tokens is not None  # noqa: S101
    begin, end = labels.offsets[sample], labels.offsets[sample + 1]
    return np.asarray(labels.tokens[begin:end].toarray() & labels.known[begin:end, None])


def _held(labels: Labels, concepts: tuple[str, ...], sample: int) -> tuple[str, ...]:
    inside = set(np.flatnonzero(_inside(labels, sample).any(axis=0)).tolist())
    return tuple(name for name in concepts if labels.concepts.index(name) in inside)


def _interleaved(cal: Int[np.ndarray, " n"], test: Int[np.ndarray, " m"]) -> list[int]:
    """Order the work so that what is done when it is interrupted has both splits."""
    place = np.concatenate([(np.arange(len(part)) + 0.5) / len(part) for part in (cal, test)])
    return [int(number) for number in np.concatenate([cal, test])[np.argsort(place, kind="stable")]]


def _file(folder: Path, number: int) -> Path:
    return folder / f"sample-{number:06d}.safetensors"


def _record(
    backbone: Backbone,
    detector: Detector,
    sample: Sample,
    concepts: tuple[str, ...],
    plan: SurveyPlan,
    *,
    on_test: bool,
    randomised: Mapping[str, tuple[Backbone, Detector]],
) -> Record:
    def scene_of(model: Backbone, vectors: Detector) -> Scene:
        return Scene.of(
            model,
            vectors,
            sample,
            concepts,
            hiding=plan.hiding,
            seed=plan.seed,
            max_batch_tokens=plan.max_batch_tokens,
        )

    scene = scene_of(backbone, detector)
    maps, seconds, forwards = [], [], []
    for explainer in plan.explainers.values():
        begun, before = time.perf_counter(), scene.forwards
        maps.append(explainer.maps(scene))
        seconds.append(time.perf_counter() - begun)
        forwards.append(scene.forwards - before)
    stacked = np.stack(maps)
    begun, before = time.perf_counter(), scene.forwards
    nothing = np.zeros((0, scene.n_columns, plan.steps + 1))
    insertion, deletion = nothing, nothing
    if on_test:
        drawn = curves(scene, stacked, plan.steps)
        insertion, deletion = drawn.insertion, drawn.deletion
    seconds.append(time.perf_counter() - begun)
    forwards.append(scene.forwards - before)
    latent = any(bank.activation == "latent" for bank in detector.banks)
    sanity = {}
    for what, (model, vectors) in randomised.items():
        other = scene_of(model, vectors)
        again = [explainer.maps(other) for explainer in plan.explainers.values()]
        sanity[what] = np.stack([rank_correlation(one, two) for one, two in zip(maps, again, strict=True)])
    return Record(
        concepts=concepts,
        maps=stacked,
        fired=scene.objectives.fired[:, ::2],
        fallback=scene.objectives.fallback[::2],
        hybrid=np.zeros((0, scene.n_tokens, len(concepts)), np.float32) if latent else hybrid_maps(scene, ALPHAS),
        insertion=insertion,
        deletion=deletion,
        sanity=sanity,
        seconds=np.array(seconds),
        forwards=np.array(forwards, dtype=np.int64),
    )
