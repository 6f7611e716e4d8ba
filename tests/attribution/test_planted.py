"""Every explainer finds a planted concept in transformers whose answer is known (token F1 of at least 0.95)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attribution.planted import Planted, planted_images, planted_rows, planted_text
from superactivators.attribution.explainer import explainers
from superactivators.attribution.objectives import OBJECTIVES
from superactivators.attribution.scene import Scene
from superactivators.models.backbone import Backbone

N_CAL, N_TEST = 8, 8
LEAST = 0.95
MODULES = {
    "lime": "lime",
    "kernel-shap": "shapley",
    "shap-iq": "shapley",
    "rise": "rise",
    "occlusion": "occlusion",
    "integrated-gradients": "integrated_gradients",
    "input-gradient": "input_gradient",
    "grad-cam": "grad_cam",
    "full-grad": "full_grad",
    "mfaba": "mfaba",
    "rollout": "rollout",
    "activation": "activation",
    "mean-difference": "activation",
}
# Concept patches lie anywhere, so masks that hide blocks of patches would not tell them from their neighbours.
SINGLE_PATCHES: dict[str, dict[str, Any]] = {"rise": {"grain": 1}, "occlusion": {"window": 1, "stride": 1}}
MODALITIES = ("text", "image", "image rows")


@dataclass(frozen=True)
class World:
    """Scenes of one planted model with their answers."""

    scenes: list[Scene]
    truth: list[np.ndarray]
    backbone: Backbone


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], World]:
    """World of a modality; scenes keep their forward passes, so that explainers with equal masks share them."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("planted")
    makers: dict[str, Callable[[Path, int], Planted]] = {
        "text": planted_text,
        "image": planted_images,
        "image rows": planted_rows,
    }

    @cache
    def get(modality: str) -> World:
        planted = makers[modality](root / modality, N_CAL + N_TEST)
        scenes = [Scene.of(planted.backbone, planted.detector, sample) for sample in planted.samples]
        return World(scenes, planted.truth, planted.backbone)

    return get


def f1(fires: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (fires & truth).sum() / (fires.sum() + truth.sum()))


def best_threshold(maps: np.ndarray, truth: np.ndarray) -> float:
    """Try halfway between every two neighbouring values, and below all."""
    values = np.unique(maps.astype(np.float64))
    candidates = [values[0], *((values[:-1] + values[1:]) / 2)]
    return float(max(candidates, key=lambda value: f1(maps >= value, truth)))


def judged(maps: list[np.ndarray], truth: list[np.ndarray]) -> list[float]:
    """Token F1 on test of every column, its threshold chosen on cal."""
    cal, test = np.concatenate(maps[:N_CAL]), np.concatenate(maps[N_CAL:])
    cal_truth, test_truth = np.concatenate(truth[:N_CAL]), np.concatenate(truth[N_CAL:])
    return [
        f1(test[:, column] >= best_threshold(cal[:, column], cal_truth), test_truth) for column in range(cal.shape[1])
    ]


def test_all_explainers_are_here() -> None:
    for module in MODULES.values():
        import_module(f"superactivators.attribution.{module}")
    own = {name for name in explainers if explainers[name].__module__.startswith("superactivators.")}
    assert own == set(MODULES)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("name", MODULES)
def test_finds_the_planted_concept(worlds: Callable[[str], World], name: str, modality: str) -> None:
    if name in ("kernel-shap", "shap-iq"):
        pytest.importorskip("shapiq")
    import_module(f"superactivators.attribution.{MODULES[name]}")
    world = worlds(modality)
    options = SINGLE_PATCHES.get(name, {}) if modality != "text" else {}
    explainer = explainers[name](**options)
    found = judged([explainer.maps(scene) for scene in world.scenes], world.truth)
    chosen = world.scenes[0].objectives
    assert chosen.objectives == OBJECTIVES * 2
    below = {
        f"{concept}, {objective}": value
        for concept, objective, value in zip(chosen.concepts, chosen.objectives, found, strict=True)
        if value < LEAST
    }
    assert not below


@pytest.mark.parametrize("modality", MODALITIES)
def test_the_answer_is_what_the_model_says(worlds: Callable[[str], World], modality: str) -> None:
    world = worlds(modality)
    for scene, truth in zip(world.scenes, world.truth, strict=True):
        assert not scene.objectives.fallback.any()
        np.testing.assert_array_equal(scene.objectives.fired, np.repeat(truth[:, None], 4, axis=1))
        lengths = scene.states["block[2]"].norm(dim=1)
        assert float(lengths.max() / lengths.min()) < 1.3  # the concept is a direction, not a length


@pytest.mark.parametrize("modality", MODALITIES)
def test_attention_is_real(worlds: Callable[[str], World], modality: str) -> None:
    """Tokens without the concept change where a concept token is hidden, and are told apart all the same."""
    world = worlds(modality)
    for scene, truth in zip(world.scenes[:3], world.truth[:3], strict=True):
        hidden = np.ones((1, scene.n_tokens), dtype=bool)
        hidden[0, np.flatnonzero(truth)[0]] = False
        states: dict[str, torch.Tensor] = {}
        scene._run(
            scene.hidden.variants(hidden),
            list(scene.objectives.readouts),
            lambda site, raw, scene=scene, states=states: states.update({site: scene.token_rows(raw)[0].clone()}),
            False,
        )
        change = (scene.agreement() - scene.objectives.agreement(states).numpy())[~truth]
        assert float(np.abs(change).mean(axis=0).min()) > 1e-3


def test_chance_is_not_enough(worlds: Callable[[str], World]) -> None:
    """Random maps, and maps that are the wrong way round, fail the same judge."""
    generator = np.random.default_rng(0)
    for modality in MODALITIES:
        world = worlds(modality)
        noise = [generator.standard_normal((len(truth), 1)) for truth in world.truth]
        turned = [-scene.agreement() for scene in world.scenes]
        assert max(judged(noise, world.truth) + judged(turned, world.truth)) < 0.6
