"""Direct alignment against plain loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from attribution.conftest import CONCEPTS, SITES, random_detector
from superactivators.attribution.activation import Activation, MeanDifference
from superactivators.attribution.explainer import explainers
from superactivators.attribution.scene import Scene
from superactivators.errors import StudyError

Make = Callable[..., Scene]


def scaled_of(scene: Scene, site: str) -> np.ndarray:
    scaling = scene.objectives.readouts[site].scaling
    return (scene.states[site].double().numpy() - scaling.mean.double().numpy()) / scaling.scale


@pytest.mark.parametrize("activation", ["logit", "cosine"])
def test_activations_average_to_the_objective(text_scene: Make, activation: str) -> None:
    scene = text_scene(activation=activation)
    maps = Activation().maps(scene)
    whole = scene.values(np.ones((1, scene.n_tokens), dtype=bool))[0]
    np.testing.assert_allclose(maps.mean(axis=0), whole, atol=2e-6)
    assert scene.forwards == 1


@pytest.mark.parametrize("activation", ["logit", "cosine"])
def test_mean_differences_equal_a_loop(text_scene: Make, image_scene: Make, activation: str) -> None:
    for scene in (text_scene(activation=activation), image_scene("dinov2", activation=activation)):
        maps = MeanDifference().maps(scene)
        assert maps.dtype == np.float32
        for column, (name, objective) in enumerate(
            zip(scene.objectives.concepts, scene.objectives.objectives, strict=True)
        ):
            bank = scene.objectives.readouts[SITES[name]].bank
            rows = scaled_of(scene, SITES[name])
            fired = scene.objectives.fired[:, column]
            direction = rows[fired].mean(axis=0) - (0 if fired.all() else rows[~fired].mean(axis=0))
            if objective == "superactivators" and fired.all():
                direction = 0 * direction
            elif objective == "concept":
                direction = bank.vectors[bank.concepts.index(name)].double().numpy()
            unit = direction / max(float(np.linalg.norm(direction)), 1e-9)
            np.testing.assert_allclose(maps[:, column], [row @ unit for row in rows], atol=2e-5)


def test_banks_give_the_concept_columns_only(text_scene: Make) -> None:
    scene = text_scene()
    other = random_detector(32, seed=5)
    # in another order, and with a concept that nobody asks for
    banks = {bank.site: bank.subset(list(range(len(bank.concepts)))[::-1]) for bank in other.banks}
    maps, plain = MeanDifference(banks).maps(scene), MeanDifference().maps(scene)
    np.testing.assert_array_equal(maps[:, 1::2], plain[:, 1::2])
    for number, name in enumerate(CONCEPTS):
        bank = banks[SITES[name]]
        unit = bank.vectors[bank.concepts.index(name)].double().numpy()
        expected = scaled_of(scene, SITES[name]) @ (unit / np.linalg.norm(unit))
        np.testing.assert_allclose(maps[:, 2 * number], expected, atol=2e-5)


def test_no_other_tokens_make_a_map_of_zeros(text_scene: Make) -> None:
    detector = random_detector(32)
    low = replace(detector, thresholds=tuple(replace(t, value=-1e6) for t in detector.thresholds))
    scene = text_scene(detector=low)
    assert scene.objectives.fired.all()
    maps = MeanDifference().maps(scene)
    assert not maps[:, 1::2].any()
    assert maps[:, ::2].all()


def test_columns_do_not_depend_on_their_company(text_scene: Make) -> None:
    for explainer in (Activation(), MeanDifference()):
        whole = explainer.maps(text_scene())
        turned = explainer.maps(text_scene(concepts=["warm", "red", "loud"]))
        np.testing.assert_allclose(turned, whole[:, [4, 5, 0, 1, 2, 3]], atol=1e-6)
        alone = explainer.maps(text_scene(concepts=["loud"], objectives=["superactivators"]))
        np.testing.assert_allclose(alone[:, 0], whole[:, 3], atol=1e-6)


def test_banks_that_do_not_fit_are_told_in_one_line(text_scene: Make) -> None:
    scene = text_scene()
    banks = {bank.site: bank for bank in random_detector(32).banks}
    first, second = banks["block[2]"], banks["block[1]"]
    wrong = {
        "no bank of block\\[1\\]": {"block[2]": first},
        "lacks warm": {"block[2]": first.subset([first.concepts.index("red")]), "block[1]": second},
        "width 16": {bank.site: bank for bank in random_detector(16).banks},
    }
    for named, given in wrong.items():
        with pytest.raises(StudyError, match=named) as caught:
            MeanDifference(given).maps(scene)
        assert "\n" not in str(caught.value)


def test_names_are_registered() -> None:
    assert isinstance(explainers["activation"](), Activation)
    assert isinstance(explainers["mean-difference"](), MeanDifference)
