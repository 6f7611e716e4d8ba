"""The tables and figures of the paper as presets: which studies each needs, and what it shows of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from superactivators.errors import StudyError, allowed
from superactivators.paper.catalogue import DATASETS, MODELS
from superactivators.paper.finished import Finished
from superactivators.paper.tables import (
    attribution,
    best_deltas,
    coverage,
    deltas,
    detection,
    distributions,
    kinds,
    layers,
    practical,
    sparsity,
)
from superactivators.report.cells import Table

Cell: TypeAlias = tuple[str, str]
"""Data set and model, by their names in the catalogue."""

CELLS: tuple[Cell, ...] = tuple(
    (data, model) for data in DATASETS for model in MODELS if DATASETS[data].modality == MODELS[model].modality
)
"""Every data set with every model that reads it."""

COCO: tuple[Cell, ...] = (("coco", "clip"), ("coco", "llama-vision"))

LINEAR = "linear"
"""Stands for the paper's linear separators: kind ``linear-adam`` under the paper's protocol."""

POOLED = ("superactivators", "max", "mean", "last", "random", "cls")
EXPLAINERS = ("lime", "kernel-shap", "rise", "integrated-gradients", "mfaba")


@final
@dataclass(frozen=True)
class Preset:
    """One table or figure of the paper.

    Attributes
    ----------
    name : str
    shows : str
        What it shows, in a sentence.
    cells : tuple of (data, model)
    kinds, methods : tuple of str
        Concept kinds (``"linear"`` stands for the paper's separators) and detection methods that it needs.
    tables : function of (finished studies by cell, kind of the separators)
    attribution : bool
        Whether it needs the attribution stage.
    """

    name: str
    shows: str
    cells: tuple[Cell, ...]
    kinds: tuple[str, ...]
    methods: tuple[str, ...]
    tables: Callable[[Mapping[Cell, Finished], str], Sequence[Table]]
    attribution: bool = False


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "detection",
            "Weighted F1 of the SuperActivators, of poolings and of CLS, by data set and model.",
            CELLS,
            ("mean", LINEAR),
            POOLED,
            detection,
        ),
        Preset(
            "kinds",
            "The SuperActivators by kind of concept vector: mean, separators, clusters, separators of clusters.",
            CELLS,
            ("mean", LINEAR, "kmeans", "kmeans-linear"),
            ("superactivators", "max", "cls"),
            kinds,
        ),
        Preset("layers", "F1 by layer and method.", CELLS, ("mean", LINEAR), POOLED, layers),
        Preset(
            "deltas",
            "F1 against the sparsity level, one level for all concepts, at the last layer.",
            COCO,
            ("mean", LINEAR, "kmeans"),
            ("superactivators",),
            deltas,
        ),
        Preset(
            "best-deltas",
            "How many concepts choose each sparsity level on cal.",
            CELLS,
            ("mean", LINEAR),
            ("superactivators",),
            best_deltas,
        ),
        Preset(
            "practical",
            "The practical variant: thresholds from sample labels, on the top tenth of tokens.",
            CELLS,
            (LINEAR,),
            ("superactivators", "top-tokens", "top-tokens-max"),
            practical,
        ),
        Preset(
            "attribution",
            "Token F1, insertion and deletion by explainer, for the concept vector and for the SuperActivators.",
            COCO,
            (LINEAR,),
            ("superactivators",),
            attribution,
            attribution=True,
        ),
        Preset(
            "distributions",
            "Activations inside and outside concepts: overlap, AUROC, distance of means, skewness and tail, by layer.",
            CELLS,
            ("mean", LINEAR),
            ("superactivators",),
            distributions,
        ),
        Preset(
            "coverage",
            "Share of positive samples with a token in the far tail of what absent concepts reach, by layer.",
            CELLS,
            ("mean", LINEAR),
            ("superactivators",),
            coverage,
        ),
        Preset(
            "sparsity",
            "Distribution of the share of in-concept tokens that are SuperActivators.",
            CELLS,
            ("mean", LINEAR),
            ("superactivators",),
            sparsity,
        ),
    )
}

SMOKE = "smoke"
"""All presets on built-in stand-ins."""


def chosen_presets(names: Sequence[str]) -> list[Preset]:
    """Look presets up; none, ``"all"`` or ``"smoke"`` means all of them; an unknown name raises ``StudyError``."""
    if not names or set(names) & {"all", SMOKE}:
        names = list(PRESETS)
    for name in names:
        if name not in PRESETS:
            raise StudyError(f"unknown preset {name!r}; {allowed(name, ['all', SMOKE, *PRESETS])}")
    return [PRESETS[name] for name in dict.fromkeys(names)]


def needed_sections(presets: Sequence[Preset], cell: Cell, protocol: str, *, prompted: bool) -> dict[str, Any]:
    """Sections of the study file of a cell: everything that any of the presets needs of it.

    Parameters
    ----------
    presets : sequence of Preset
    cell : (data, model)
    protocol : str
        ``"paper"`` or ``"default"``.
    prompted : bool
        Whether a chat model can be asked.
    """
    mine = [preset for preset in presets if cell in preset.cells]
    kinds = dict.fromkeys(separators(protocol) if kind == LINEAR else kind for p in mine for kind in p.kinds)
    methods = dict.fromkeys(method for preset in mine for method in preset.methods)
    if prompted and any(preset.name == "detection" for preset in mine):
        methods["prompt"] = None
    sections: dict[str, Any] = {
        "concepts": {"kinds": list(kinds)},
        "detection": {"methods": list(methods)},
        "run": {"protocol": protocol},
    }
    if any(preset.attribution for preset in mine):
        sections["attribution"] = {"explainers": list(EXPLAINERS), "kind": separators(protocol)}
    return sections


def separators(protocol: str) -> str:
    """Kind of the linear separators under a protocol."""
    return "linear-adam" if protocol == "paper" else LINEAR
