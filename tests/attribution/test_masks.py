"""Designs of masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planted_scene import PlantedScene, crooked_scene
from superactivators.attribution.masks import MaskableScene, halves, leave_out
from superactivators.attribution.scene import Scene
from superactivators.errors import StudyError


def blank(n_tokens: int, grid: tuple[int, int] | None = None, **options: object) -> PlantedScene:
    return PlantedScene(lambda keep: keep[:, :1], n_tokens, grid=grid, **options)


def test_a_scene_is_what_explainers_by_masks_see():
    assert all(hasattr(Scene, name) for name in ("n_tokens", "n_columns", "grid", "cells", "values", "generator"))
    assert isinstance(crooked_scene(4), MaskableScene)


def test_halves_depend_on_the_sample_and_the_settings_only():
    masks = halves(blank(30), 50)
    np.testing.assert_array_equal(masks, halves(blank(30, name="a sample"), 50))
    assert (masks != halves(blank(30, name="another"), 50)).any()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    halves(blank(30), 50)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_halves_keep_the_share_and_tokens_are_independent_with_grain_one(share):
    masks = halves(blank(30, (5, 6)), 4000, share, grain=1).astype(float)
    assert np.abs(masks.mean(axis=0) - share).max() < 0.04
    correlation = np.corrcoef(masks.T) - np.eye(30)
    assert np.abs(correlation).max() < 0.08


def test_blocks_are_squares_with_a_shift():
    rows, columns, grain = 7, 9, 3
    masks = halves(blank(rows * columns, (rows, columns)), 400, grain=grain).reshape(-1, rows, columns)
    shifts = set()
    for mask in masks:
        fitting = []
        for down in range(grain):
            for right in range(grain):
                blocks: dict[tuple[int, int], set[bool]] = {}
                for y in range(rows):
                    for x in range(columns):
                        blocks.setdefault(((y + down) // grain, (x + right) // grain), set()).add(bool(mask[y, x]))
                if all(len(block) == 1 for block in blocks.values()):
                    fitting.append((down, right))
        assert fitting
        if len(fitting) == 1:
            shifts.add(fitting[0])
    assert len(shifts) == grain**2


def test_texts_have_no_blocks():
    np.testing.assert_array_equal(halves(blank(40), 30, grain=5), halves(blank(40), 30, grain=1))


def test_tokens_are_where_their_cells_are():
    """Tokens in another order, some patches without a token."""
    order = np.random.default_rng(0).permutation(30)[:20]
    whole, part = blank(30, (5, 6)), blank(20, (5, 6), places=order)
    np.testing.assert_array_equal(halves(whole, 40)[:, order], halves(part, 40))
    windows = leave_out(whole, 2, 1)[:, order]
    np.testing.assert_array_equal(windows[(~windows).any(axis=1)], leave_out(part, 2, 1))


@given(rows=st.integers(1, 7), columns=st.integers(1, 7), text=st.booleans(), window=st.integers(1, 9), data=st.data())
@settings(max_examples=60, deadline=None)
def test_windows_equal_loops_and_cover_every_token(rows, columns, text, window, data):
    stride = data.draw(st.integers(1, window))
    if text:
        rows = 1
    scene = blank(rows * columns, None if text else (rows, columns))
    tops = [*range(0, max(0, rows - window), stride), max(0, rows - window)]
    lefts = [*range(0, max(0, columns - window), stride), max(0, columns - window)]
    wanted = []
    for top in tops:
        for left in lefts:
            keep = np.ones((rows, columns), dtype=bool)
            keep[top : top + window, left : left + window] = False
            wanted.append(keep.ravel())
    masks = leave_out(scene, window, stride)
    np.testing.assert_array_equal(masks, wanted)
    assert (~masks).any(axis=0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda scene: halves(scene, 0), "budget must be a whole number, at least 1; got 0"),
        (lambda scene: halves(scene, 8, grain=True), "grain must be a whole number, at least 1; got True"),
        (lambda scene: halves(scene, 8, 1.0), "keep_share must be a number between 0 and 1"),
        (lambda scene: leave_out(scene, 0, 1), "window must be a whole number"),
        (lambda scene: leave_out(scene, 2, 3), "stride 3 is longer than window 2"),
    ],
)
def test_wrong_settings_are_named(call, message):
    with pytest.raises(StudyError, match=message) as caught:
        call(blank(6))
    assert "\n" not in str(caught.value)
