"""Mixtures against plain loops, and both ends against the objectives themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from attribution.conftest import CONCEPTS, random_detector
from superactivators.attribution.hybrid import ALPHAS, hybrid_maps
from superactivators.attribution.scene import Scene
from superactivators.errors import StudyError

Make = Callable[..., Scene]


def test_maps_equal_loops(text_scene: Make, image_scene: Make) -> None:
    for make in (text_scene, image_scene):
        for activation in ("logit", "cosine"):
            scene = make(activation=activation)
            maps = hybrid_maps(scene, (0.0, 0.3, 1.0))
            assert maps.shape == (3, scene.n_tokens, len(CONCEPTS))
            assert maps.dtype == np.float32
            for site, readout in scene.objectives.readouts.items():
                mean, scale = readout.scaling.mean.double().numpy(), readout.scaling.scale
                for place, name in enumerate(readout.bank.concepts):
                    vector = readout.bank.vectors[place].double().numpy()
                    fired = scene.objectives.fired[:, readout.concepts[place]]
                    states = (scene.states[site].double().numpy() - mean) / scale
                    local = states[fired].mean(axis=0)
                    for number, alpha in enumerate((0.0, 0.3, 1.0)):
                        mixed = alpha * vector / np.linalg.norm(vector) + (1 - alpha) * local / np.linalg.norm(local)
                        for token, z in enumerate(states):
                            expected = z @ mixed / np.linalg.norm(mixed)
                            expected /= np.linalg.norm(z) if activation == "cosine" else 1.0
                            assert maps[number, token, CONCEPTS.index(name)] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("activation", ["logit", "cosine"])
def test_ends_rank_as_the_objectives(text_scene: Make, activation: str) -> None:
    scene = text_scene(activation=activation)
    agreement, maps = scene.agreement(), hybrid_maps(scene)
    for end, objective in ((-1, "concept"), (0, "superactivators")):
        columns = [number for number, name in enumerate(scene.objectives.objectives) if name == objective]
        ordered = agreement[:, columns].argsort(axis=0)
        np.testing.assert_array_equal(maps[end].argsort(axis=0), ordered)
    np.testing.assert_allclose(maps[0], agreement[:, 1::2], atol=1e-5)
    middle = maps[len(ALPHAS) // 2]
    assert any(not np.array_equal(maps[end].argsort(axis=0), middle.argsort(axis=0)) for end in (0, -1))


def test_concepts_keep_the_order_of_the_scene(text_scene: Make) -> None:
    whole = hybrid_maps(text_scene())
    turned = hybrid_maps(text_scene(concepts=("warm", "loud"), objectives=("superactivators", "concept")))
    np.testing.assert_allclose(turned, whole[:, :, [2, 1]], atol=1e-5)


def test_no_forward_pass(text_scene: Make) -> None:
    scene = text_scene()
    hybrid_maps(scene)
    assert scene.forwards == 0


@pytest.mark.filterwarnings("error")
def test_a_mixture_without_direction_gives_zeros(text_scene: Make) -> None:
    detector = random_detector(32)
    scene = text_scene(detector=detector)
    opposed = {}
    for site, readout in scene.objectives.readouts.items():
        opposed[site] = replace(readout, bank=replace(readout.bank, vectors=-readout.local))
    scene.objectives = replace(scene.objectives, readouts=opposed)
    maps = hybrid_maps(scene, (0.5, 1.0))
    assert np.isfinite(maps).all()
    assert np.abs(maps[0]).max() < 1e-4 < np.abs(maps[1]).max()


def test_bad_input(text_scene: Make) -> None:
    with pytest.raises(StudyError, match="both objectives"):
        hybrid_maps(text_scene(objectives=("concept",)))
    for alphas in ((), (0.5, 1.1), (-0.1,), (float("nan"),)):
        with pytest.raises(StudyError, match="from 0 to 1"):
            hybrid_maps(text_scene(), alphas)
    scene = text_scene()
    latent = object.__new__(type(next(iter(scene.objectives.readouts.values())).bank))
    latent.__dict__.update({**next(iter(scene.objectives.readouts.values())).bank.__dict__, "activation": "latent"})
    site = next(iter(scene.objectives.readouts))
    readouts = {site: replace(scene.objectives.readouts[site], bank=latent)}
    scene.objectives = replace(scene.objectives, readouts=readouts)
    with pytest.raises(StudyError, match="latents"):
        hybrid_maps(scene)
