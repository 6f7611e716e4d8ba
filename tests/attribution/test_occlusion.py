"""Occlusion."""

from __future__ import annotations

import numpy as np
import pytest

from planted_scene import crooked_scene, linear_scene
from superactivators.attribution.explainer import explainers
from superactivators.attribution.occlusion import Occlusion
from superactivators.errors import StudyError


def slow_occlusion(scene, grid, window, stride):
    """Loops over windows and tokens."""
    rows, columns = grid
    lost: list[list[np.ndarray]] = [[] for _ in range(scene.n_tokens)]
    full = scene.game(np.ones((1, scene.n_tokens)))[0]
    for top in [*range(0, max(0, rows - window), stride), max(0, rows - window)]:
        for left in [*range(0, max(0, columns - window), stride), max(0, columns - window)]:
            keep = np.ones((rows, columns))
            keep[top : top + window, left : left + window] = 0
            change = full - scene.game(keep.reshape(1, -1))[0]
            for token in np.flatnonzero(keep.ravel() == 0):
                lost[token].append(change)
    return np.array([np.mean(changes, axis=0) for changes in lost])


@pytest.mark.parametrize(
    ("grid", "window", "stride"),
    [((5, 7), None, None), ((5, 7), 3, 2), ((5, 7), 1, 1), (None, None, None), (None, 4, 3), ((2, 2), 9, 9)],
)
def test_equals_loops(grid, window, stride):
    n_tokens = 11 if grid is None else grid[0] * grid[1]
    scene = crooked_scene(n_tokens, grid=grid)
    default = 1 if grid is None else 2
    wanted = slow_occlusion(scene, grid or (1, n_tokens), window or default, stride or window or default)
    maps = Occlusion(window=window, stride=stride).maps(scene)
    assert maps.dtype == np.float32
    np.testing.assert_allclose(maps, wanted, atol=1e-5)


def test_single_tokens_of_a_sum_give_its_terms():
    scene, weights = linear_scene(25)
    np.testing.assert_allclose(Occlusion().maps(scene), weights, atol=1e-5)
    assert (len(scene.asked), scene.forwards) == (1, 26)


def test_an_image_costs_a_window_for_four_patches():
    scene = crooked_scene(196, grid=(14, 14))
    Occlusion().maps(scene)
    assert (len(scene.asked), scene.forwards) == (1, 50)


def test_a_column_does_not_depend_on_the_others():
    whole = Occlusion().maps(crooked_scene(12))
    np.testing.assert_allclose(Occlusion().maps(crooked_scene(12, columns=[2])), whole[:, [2]], rtol=1e-6)
    np.testing.assert_allclose(Occlusion().maps(crooked_scene(12, columns=[2, 0, 1])), whole[:, [2, 0, 1]], rtol=1e-6)


def test_wrong_options_are_named():
    with pytest.raises(StudyError, match="window must be a whole number, at least 1; got 0"):
        Occlusion(window=0)
    with pytest.raises(StudyError, match="stride 2 is longer than window 1"):
        Occlusion(stride=2).maps(crooked_scene(5))


def test_real_scenes(text_scene, image_scene):
    assert explainers["occlusion"] is Occlusion
    for scene in (text_scene(), image_scene()):
        full = scene.values(np.ones((1, scene.n_tokens), dtype=bool))[0]
        keep = np.ones((1, scene.n_tokens), dtype=bool)
        keep[0, 1] = False
        wanted = full - scene.values(keep)[0]
        np.testing.assert_allclose(Occlusion(window=1).maps(scene)[1], wanted, atol=1e-5)
