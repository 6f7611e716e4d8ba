"""Attribution results as a study would give them, with maps made from labels and noise."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from report.planted import METHODS, PlantedScores
from superactivators.attribution.evaluation import MEASURES
from superactivators.attribution.results import AttributionResult, ExampleMaps
from superactivators.data.dataset import ConceptDataset
from superactivators.data.passages import passages
from superactivators.data.scenes import scenes
from superactivators.detection.evaluation import evaluate_detection
from superactivators.models.encoding import Encoding
from superactivators.ragged import offsets_of
from superactivators.report.inputs import ReportInputs
from superactivators.states.labels import label

EXPLAINERS = (
    *("activation", "full-grad", "grad-cam", "input-gradient", "integrated-gradients", "kernel-shap", "lime"),
    *("mean-difference", "mfaba", "occlusion", "rise", "rollout", "shap-iq"),
)
OBJECTIVES = ("superactivators", "concept")
REFERENCES = ("(all tokens)", "(random)")
UNSIGNED = ("rise", "rollout", "grad-cam")


def attributed(inputs: ReportInputs, per_concept: int = 2, seed: int = 0) -> ReportInputs:
    """Give a study the attribution part."""
    return replace(inputs, attribution=result_of(inputs, per_concept, seed))


def result_of(inputs: ReportInputs, per_concept: int = 2, seed: int = 0) -> AttributionResult:
    """Tables of plausible numbers, and maps of the first test samples of every concept."""
    random = np.random.default_rng(seed)
    skill = random.uniform(0.2, 0.6, len(EXPLAINERS))
    return AttributionResult(
        aggregates=pa.Table.from_pylist(_aggregates(random, skill)),
        concepts=pa.table({"explainer": pa.array([], pa.string())}),
        comparisons=pa.Table.from_pylist(_comparisons(random)),
        curves=pa.Table.from_pylist(_curves(skill)),
        hybrid=pa.Table.from_pylist(
            [
                _row(0.5 + 0.2 * a - 0.35 * a * a, {"alpha": float(a), "delta": 0.1}, "token_f1")
                for a in np.linspace(0, 1, 11)
            ]
        ),
        sanity=pa.Table.from_pylist(_sanity(random)),
        examples=tuple(_examples(inputs, per_concept, random)),
        summary={"cases": {"cal": 118, "test": 120}, "fallback_cases": 7},
    )


def _row(value: float, start: dict[str, Any], name: str = "value") -> dict[str, Any]:
    return start | {name: float(value), "low": float(value) - 0.04, "high": float(value) + 0.03}


def _aggregates(random: np.random.Generator, skill: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for number, explainer in enumerate(EXPLAINERS):
        for objective in OBJECTIVES:
            for measure in MEASURES:
                value = skill[number] + (0.08 if objective == "superactivators" else 0) + random.normal(0, 0.02)
                value = 1 - value if measure.startswith("deletion") else value
                start = {"explainer": explainer, "objective": objective, "measure": measure, "cases": 120}
                rows.append(_row(value, start))
    for number, reference in enumerate(REFERENCES):
        start = {"explainer": reference, "objective": "none", "measure": "token_f1", "cases": 120}
        rows.append(_row(0.21 - 0.05 * number, start))
    return rows


def _comparisons(random: np.random.Generator) -> list[dict[str, Any]]:
    rows = []
    for explainer in EXPLAINERS:
        for measure in MEASURES:
            value = random.normal(0.06 if not measure.startswith("deletion") else -0.04, 0.06)
            value = 0.0 if explainer == "rollout" else value
            p = float(min(1.0, 2 * np.exp(-((value / 0.02) ** 2) / 2)))
            start = {"explainer": explainer, "measure": measure, "p": p, "p_holm": min(1.0, 13 * p)}
            rows.append(_row(value, start, "difference"))
    return rows


def _curves(skill: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for number, explainer in enumerate(EXPLAINERS):
        for objective in OBJECTIVES:
            power = 1.6 - skill[number] - (0.4 if objective == "superactivators" else 0)
            for share in np.linspace(0, 1, 21):
                insertion, deletion = float(share**power), float((1 - share) ** (2.2 - power / 2))
                start = {"explainer": explainer, "objective": objective, "share": float(share)}
                rows.append(start | {"insertion": insertion, "deletion": deletion})
    return rows


def _sanity(random: np.random.Generator) -> list[dict[str, Any]]:
    return [
        _row(
            1.0 if explainer == "rollout" and randomised == "vectors" else random.normal(0.05, 0.15),
            {"explainer": explainer, "objective": objective, "randomised": randomised, "cases": 40},
            "correlation",
        )
        for explainer in EXPLAINERS
        for objective in OBJECTIVES
        for randomised in ("vectors", "model")
    ]


def _examples(inputs: ReportInputs, per_concept: int, random: np.random.Generator) -> list[ExampleMaps]:
    labels, found = inputs.labels, []
    assert labels.tokens is not None
    for number, concept in enumerate(labels.concepts):
        holders = np.flatnonzero(labels.samples[:, number] & (labels.splits == "test"))
        for turn, sample in enumerate(holders[:per_concept]):
            place = slice(int(labels.offsets[sample]), int(labels.offsets[sample + 1]))
            truth = labels.tokens[place][:, [number]].toarray()[:, 0].astype(bool)
            noise = random.normal(size=len(truth))
            fired = truth & (noise > 0.8)
            fallback = not fired.any()
            if fallback:
                fired[(truth * 2 + noise).argmax()] = True
            maps, thresholds = {}, {}
            for explainer in EXPLAINERS:
                for objective in OBJECTIVES:
                    strength = 1.4 if objective == "superactivators" else 0.7
                    values = 0.3 * random.normal(size=len(truth)) + strength * truth * random.gamma(2, 0.4, len(truth))
                    values = np.abs(values) if explainer in UNSIGNED else values - 0.1
                    maps[explainer, objective] = (values * 10.0 ** (turn - 2)).astype(np.float32)
                    thresholds[explainer, objective] = 0.6 * 10.0 ** (turn - 2)
            maps["rollout", "concept"] = maps["rollout", "superactivators"]
            found.append(
                ExampleMaps(int(sample), concept, truth, labels.known[place].copy(), fired, fallback, maps, thresholds)
            )
    return found


def scene_study(size: int = 36) -> ReportInputs:
    """Pictures of the built-in scenes in 16 x 16 patches."""
    dataset = scenes(size)
    encoding = Encoding(
        modality="image",
        offsets=offsets_of(np.full(size, 256)),
        token_ids=None,
        chars=None,
        grids=np.full((size, 2), 16, dtype=np.int32),
        cells=np.tile(np.arange(256, dtype=np.int32), size),
        views=np.tile(np.array([0.0, 0.0, 224.0, 224.0]), (size, 1)),
        cut=np.zeros(size, dtype=np.int32),
    )
    return _study(dataset, encoding)


def passage_study(size: int = 120) -> ReportInputs:
    """Texts of the built-in passages, one token a word or mark."""
    dataset = passages(size)
    ranges = [[match.span() for match in re.finditer(r"\w+|[^\w\s]", sample.text)] for sample in dataset.samples]
    total = sum(map(len, ranges))
    encoding = Encoding(
        modality="text",
        offsets=offsets_of(np.array([len(one) for one in ranges])),
        token_ids=np.zeros(total, dtype=np.int32),
        chars=np.array([pair for one in ranges for pair in one], dtype=np.int32),
        grids=None,
        cells=None,
        views=None,
        cut=np.zeros(size, dtype=np.int32),
    )
    return _study(dataset, encoding)


def _study(dataset: ConceptDataset, encoding: Encoding) -> ReportInputs:
    labels = label(dataset, encoding)
    enough = [name for number, name in enumerate(labels.concepts) if _common(labels.samples[:, number], labels.splits)]
    labels = labels.with_concepts(enough[:6])
    scores = PlantedScores(labels)
    result = evaluate_detection(scores, ("block[2]",), ("mean",), labels, method_names=METHODS[:3], resamples=0, seed=0)
    about = {"model": {"name": "planted/model", "blocks": 3, "width": 32}, "seed": 0}
    return ReportInputs(dataset.name, dataset, labels, encoding, result, scores, about)


def _common(members: np.ndarray, splits: np.ndarray) -> bool:
    return all((members & (splits == split)).sum() >= 3 for split in ("train", "cal", "test"))
