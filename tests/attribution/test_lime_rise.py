"""LIME and RISE."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from planted_scene import PlantedScene, crooked_scene, linear_scene
from superactivators.attribution.explainer import explainers
from superactivators.attribution.lime import Lime, closeness
from superactivators.attribution.masks import halves
from superactivators.attribution.rise import Rise
from superactivators.errors import StudyError

BOTH = pytest.mark.parametrize("kind", [Lime, Rise])


def slow_lime(scene, keep, alpha):
    """Normal equations with an intercept that is not penalised, one column at a time."""
    distance = np.array([cosine(mask, np.ones(len(mask))) if mask.any() else 1.0 for mask in keep.astype(float)])
    weight = np.sqrt(np.exp(-(distance**2) / 0.25**2))
    X = np.column_stack([np.ones(len(keep)), keep])
    penalty = np.diag([0.0] + [alpha] * scene.n_tokens)
    values = scene.game(keep.astype(float)).reshape(len(keep), -1)
    return np.column_stack(
        [np.linalg.solve(X.T @ (weight[:, None] * X) + penalty, X.T @ (weight * column))[1:] for column in values.T]
    )


def slow_rise(scene, keep):
    values = scene.game(keep.astype(float)).reshape(len(keep), -1)
    return np.array([values[mask].mean(axis=0) - values[~mask].mean(axis=0) for mask in keep.T])


@pytest.mark.parametrize("grid", [None, (3, 4)])
@pytest.mark.parametrize("alpha", [0.3, 20.0])
def test_lime_equals_the_normal_equations(grid, alpha):
    scene = crooked_scene(12, grid=grid)
    maps = Lime(budget=60, alpha=alpha).maps(scene)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, slow_lime(scene, scene.asked[0], alpha), rtol=1e-4, atol=1e-5)


def test_the_kernel_is_that_of_the_package():
    """Cosine distance by scipy; a mask that hides all has distance 1."""
    keep = np.random.default_rng(0).random((30, 8)) < 0.4
    keep[0], keep[1] = True, False
    distance = [cosine(mask, np.ones(8)) if mask.any() else 1.0 for mask in keep.astype(float)]
    np.testing.assert_allclose(closeness(keep), np.sqrt(np.exp(-(np.array(distance) ** 2) / 0.25**2)))
    assert closeness(keep)[0] == 1


@pytest.mark.parametrize("grid", [None, (3, 4)])
def test_rise_equals_loops(grid):
    scene = crooked_scene(12, grid=grid)
    maps = Rise(budget=60).maps(scene)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, slow_rise(scene, scene.asked[0]), rtol=1e-4, atol=1e-5)


def test_rise_is_the_published_map_up_to_a_constant_and_a_factor():
    scene, _ = linear_scene(9)
    maps = Rise(budget=20000).maps(scene)
    keep = scene.asked[0]
    published = keep.T.astype(float) @ scene.game(keep.astype(float)) / (0.5 * len(keep))
    for ours, theirs in zip(maps.T, published.T, strict=True):
        assert np.corrcoef(ours, theirs)[0, 1] > 0.995
        assert np.polyfit(theirs, ours, 1)[0] == pytest.approx(2, rel=0.05)


def test_a_token_that_is_always_kept_has_no_rise():
    """One mask keeps or hides a token, so there is no difference to take; with more masks there is."""
    scene, _ = linear_scene(40)
    maps = Rise(budget=2).maps(scene)
    same = scene.asked[0][0] == scene.asked[0][1]
    assert same.any()
    assert (~same).any()
    assert (maps[same] == 0).all()
    assert (maps[~same] != 0).all()


def error(kind, budget, **options):
    scene, weights = linear_scene(36, grid=(6, 6))
    return np.abs(kind(budget=budget, grain=1, **options).maps(scene) - weights).max()


def test_lime_is_exact_on_sums_and_more_masks_bring_rise_nearer():
    assert error(Lime, 60, alpha=0.0) < 1e-4
    assert error(Lime, 60, alpha=1e-6) < 1e-4
    rise = [error(Rise, budget) for budget in (64, 1024, 16384)]
    assert rise[0] > 2 * rise[1] > 4 * rise[2]
    assert rise[2] < 0.35
    lime = [error(Lime, budget) for budget in (64, 1024, 16384)]
    assert lime[0] > 2 * lime[1] > 4 * lime[2]
    assert lime[2] < 0.005


def test_blocks_still_find_the_place():
    """Only the patch in row 4, column 5 counts."""
    scene = PlantedScene(lambda keep: keep[:, [4 * 10 + 5]], 100, grid=(10, 10))
    for kind in (Lime, Rise):
        assert int(kind().maps(scene)[:, 0].argmax()) == 45
    assert scene.forwards == 256


def test_fewer_masks_than_tokens_and_one_token():
    scene, _ = linear_scene(50)
    for alpha in (0.0, 1.0):
        assert np.isfinite(Lime(budget=20, alpha=alpha).maps(scene)).all()
    single, weight = linear_scene(1)
    np.testing.assert_allclose(Lime(alpha=0).maps(single), weight, rtol=1e-5)
    np.testing.assert_allclose(Rise().maps(single), weight, rtol=1e-5)


def test_both_share_their_forward_passes():
    scene = crooked_scene(20, grid=(4, 5))
    Lime().maps(scene)
    Rise().maps(scene)
    assert (len(scene.asked), scene.forwards) == (2, 256)
    np.testing.assert_array_equal(scene.asked[0], halves(scene, 256))


@BOTH
def test_seed_sample_and_columns(kind):
    whole = kind().maps(crooked_scene(15))
    np.testing.assert_array_equal(kind().maps(crooked_scene(15)), whole)
    assert np.abs(kind().maps(crooked_scene(15, name="another")) - whole).max() > 1e-3
    for columns in ([1], [2, 0, 1]):
        np.testing.assert_allclose(kind().maps(crooked_scene(15, columns=columns)), whole[:, columns], rtol=1e-5)


def test_wrong_options_are_named():
    for options, message in (
        ({"budget": 1}, "budget must be a whole number, at least 2; got 1"),
        ({"grain": 0}, "grain must be a whole number, at least 1; got 0"),
        ({"alpha": -1.0}, "alpha must be a number of at least 0; got -1.0"),
        ({"alpha": float("nan")}, "alpha must be a number of at least 0; got nan"),
    ):
        with pytest.raises(StudyError, match=message):
            Lime(**options)
    with pytest.raises(StudyError, match="budget must be a whole number"):
        Rise(budget=1)


@BOTH
def test_real_scenes(kind, text_scene, image_scene):
    assert explainers[kind.__name__.lower()] is kind
    for scene in (text_scene(), image_scene()):
        maps = kind(budget=16).maps(scene)
        assert maps.shape == (scene.n_tokens, scene.n_columns)
        assert np.isfinite(maps).all()
        assert maps.any()
