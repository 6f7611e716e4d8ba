"""Reliable concept detection in transformers, from the tail of token activations.

The public names are loaded when they are first used, so that importing the package is cheap::

    import superactivators as sa

    data = sa.load_dataset("path/to/folder")
    backbone = sa.Backbone.from_pretrained("bundled:minilm")
    states = sa.extract(backbone, data, layers="all", out="states")
    banks = sa.learn_concepts(states, states.sites[-1], ["linear"])
    detector = sa.SuperActivatorDetector(banks).calibrate(states)
    detector.evaluate(states, split="test")
    list(sa.detect(detector, ["a new text"], backbone))
    list(sa.attribute(detector, ["a new text"], backbone, methods="rise"))
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superactivators.attribution.attribute import attribute as attribute
    from superactivators.concepts.bank import ConceptBank as ConceptBank
    from superactivators.concepts.kinds import KindOptions as KindOptions
    from superactivators.concepts.learning import learn_concepts as learn_concepts
    from superactivators.concepts.prototypes import MeanPrototypes as MeanPrototypes
    from superactivators.concepts.sae_files import read_sae as read_sae
    from superactivators.concepts.sae_object import wrap_sae as wrap_sae
    from superactivators.concepts.separators import LinearSeparators as LinearSeparators
    from superactivators.data.dataset import ConceptDataset as ConceptDataset
    from superactivators.data.dataset import ImageSample as ImageSample
    from superactivators.data.dataset import Span as Span
    from superactivators.data.dataset import TextSample as TextSample
    from superactivators.data.sources import load_dataset as load_dataset
    from superactivators.detection.detector import Detector as Detector
    from superactivators.detection.inference import detect as detect
    from superactivators.detection.results import DetectionResult as DetectionResult
    from superactivators.detection.superactivators import SuperActivatorDetector as SuperActivatorDetector
    from superactivators.detection.thresholds import Threshold as Threshold
    from superactivators.errors import SuperActivatorsError as SuperActivatorsError
    from superactivators.models.backbone import Backbone as Backbone
    from superactivators.models.doctor import diagnose as diagnose
    from superactivators.states.arrays import states_from_arrays as states_from_arrays
    from superactivators.states.extraction import extract as extract
    from superactivators.states.extraction import open_states as open_states
    from superactivators.states.states import States as States
    from superactivators.study.compare import compare_studies as compare_studies
    from superactivators.study.fit import fit_detector as fit_detector
    from superactivators.study.fit import open_detector as open_detector
    from superactivators.study.run import run_study as run_study
    from superactivators.study.run import study_states as study_states

_HOMES = {
    "Backbone": "models.backbone",
    "ConceptBank": "concepts.bank",
    "ConceptDataset": "data.dataset",
    "DetectionResult": "detection.results",
    "Detector": "detection.detector",
    "ImageSample": "data.dataset",
    "KindOptions": "concepts.kinds",
    "LinearSeparators": "concepts.separators",
    "MeanPrototypes": "concepts.prototypes",
    "Span": "data.dataset",
    "States": "states.states",
    "SuperActivatorDetector": "detection.superactivators",
    "SuperActivatorsError": "errors",
    "TextSample": "data.dataset",
    "Threshold": "detection.thresholds",
    "attribute": "attribution.attribute",
    "compare_studies": "study.compare",
    "detect": "detection.inference",
    "diagnose": "models.doctor",
    "extract": "states.extraction",
    "fit_detector": "study.fit",
    "learn_concepts": "concepts.learning",
    "load_dataset": "data.sources",
    "open_detector": "study.fit",
    "open_states": "states.extraction",
    "read_sae": "concepts.sae_files",
    "run_study": "study.run",
    "states_from_arrays": "states.arrays",
    "study_states": "study.run",
    "wrap_sae": "concepts.sae_object",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("superactivators")
    if name not in _HOMES:
        raise AttributeError(f"module 'superactivators' has no attribute {name!r}")
    value = getattr(import_module(f"superactivators.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
