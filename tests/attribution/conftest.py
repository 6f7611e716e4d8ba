"""Scenes: a text or an image, a tiny checkpoint of a real family, and a detector of random directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from small_survey import Small, make_small
from superactivators.attribution.scene import Scene
from superactivators.concepts.bank import ConceptBank
from superactivators.data.dataset import ImageSample, Sample, TextSample
from superactivators.detection.detector import Detector
from superactivators.detection.thresholds import Threshold
from superactivators.models.backbone import Backbone
from superactivators.states.scaling import Scaling
from tiny_models import build_checkpoint

SENTENCE = "The quick brown fox jumps over the lazy dog."
CONCEPTS = ("red", "loud", "warm")
THRESHOLDS = {"red": 0.1, "loud": -1e6, "warm": 1e6}
SITES = {"red": "block[2]", "loud": "block[1]", "warm": "block[2]"}


def random_detector(width: int, seed: int = 0, activation: str = "logit") -> Detector:
    """Three concepts at two sites: one of a middling threshold, one that every token reaches, one that none does."""
    generator = torch.Generator().manual_seed(seed)
    banks = {}
    for site in dict.fromkeys(SITES.values()):
        names = tuple(name for name in CONCEPTS if SITES[name] == site)
        banks[site] = ConceptBank(
            kind="linear" if activation == "logit" else "mean",
            site=site,
            level="token",
            concepts=names,
            vectors=torch.randn(len(names), width, generator=generator),
            bias=torch.randn(len(names), generator=generator) * (activation == "logit"),
            scaling=Scaling(torch.randn(width, generator=generator), 3.0),
            activation=activation,
            estimable=np.ones(len(names), dtype=bool),
        )
    thresholds = [
        Threshold(
            value=THRESHOLDS[name], delta=0.1, concept=name, kind="linear", method="superactivators", site=site, n=9
        )
        for name, site in SITES.items()
    ]
    return Detector.of(banks, thresholds)


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backbone]:
    """Backbone of a family; never to be changed."""
    root, loaded = tmp_path_factory.mktemp("scenes"), {}
    torch.set_num_threads(1)

    def get(family: str) -> Backbone:
        if family not in loaded:
            loaded[family] = Backbone.from_pretrained(build_checkpoint(family, root / family), device="cpu")
        return loaded[family]

    return get


@pytest.fixture(scope="session")
def detector_of(backbones: Callable[[str], Backbone]) -> Callable[[str], Detector]:
    """Random detector of a family's backbone."""
    return lambda family: random_detector(backbones(family).width)


@pytest.fixture(scope="session")
def small(backbones: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Labelled texts with a detector; never to be changed."""
    return make_small(backbones("bert"), tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def text_scene(backbones: Callable[[str], Backbone]) -> Callable[..., Scene]:
    """Make a scene of a sentence."""

    def make(
        family: str = "bert",
        *,
        text: str = SENTENCE,
        name: str = "a text",
        detector: Detector | None = None,
        activation: str = "logit",
        **options: Any,
    ) -> Scene:
        model = backbones(family)
        sample: Sample = TextSample(name, text)
        return Scene.of(model, detector or random_detector(model.width, activation=activation), sample, **options)

    return make


@pytest.fixture(scope="session")
def image_scene(backbones: Callable[[str], Backbone]) -> Callable[..., Scene]:
    """Make a scene of a noisy image that is not square."""

    def make(
        family: str = "vit",
        *,
        size: tuple[int, int] = (60, 90),
        name: str = "an image",
        detector: Detector | None = None,
        activation: str = "logit",
        **options: Any,
    ) -> Scene:
        model = backbones(family)
        pixels = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
        sample: Sample = ImageSample(name, pixels)
        return Scene.of(model, detector or random_detector(model.width, activation=activation), sample, **options)

    return make
