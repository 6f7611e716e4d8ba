"""The rendered demo set: masks against a slow march along each ray, light and paint against what they must do."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest

from superactivators.data.dataset import ConceptDataset
from superactivators.data.scenes import (
    CLASSES,
    CONCEPTS,
    GREY,
    PAINTS,
    SHAPES,
    Scene,
    Solid,
    draw_scene,
    render,
    scenes,
)
from superactivators.errors import DataError


@pytest.fixture(scope="module")
def many() -> ConceptDataset:
    return scenes(400, seed=0, pixels=48)


def inside(solid: Solid, points: np.ndarray) -> np.ndarray:
    """Whether points (n, 3) of the world lie in a solid, from the textbook definition of its shape."""
    x, y, z = solid.axes.astype(float) @ (points - solid.centre).T
    r, h = solid.radius, solid.half
    width_there = r * (h - y) / (2 * h)
    return {
        "sphere": np.sqrt(x**2 + y**2 + z**2) <= r,
        "cube": np.max(np.abs([x, y, z]), axis=0) <= r,
        "cylinder": (np.hypot(x, z) <= r) & (np.abs(y) <= h),
        "cone": (np.hypot(x, z) <= width_there) & (np.abs(y) <= h),
        "pyramid": (np.maximum(np.abs(x), np.abs(z)) <= width_there) & (np.abs(y) <= h),
    }[solid.shape]


def directions(scene: Scene, pixels: int) -> np.ndarray:
    """Directions (pixels², 3) from the eye through pixel centres, by the look-at rule."""
    ahead = np.array([0, -float(scene.tilt[1]), -float(scene.tilt[0])])
    right = np.cross(ahead, [0, 1, 0])
    right /= np.linalg.norm(right)
    up = np.cross(right, ahead)
    place = (2 * np.arange(pixels) + 1) / pixels - 1
    rays = ahead + scene.zoom * (place[None, :, None] * right - place[:, None, None] * up)
    return (rays / np.linalg.norm(rays, axis=2, keepdims=True)).reshape(-1, 3)


def marched(scene: Scene, pixels: int, step: float = 0.01) -> np.ndarray:
    """Mask by walking along every ray in small steps until it is inside a solid."""
    rays = directions(scene, pixels)
    mask = np.zeros(len(rays), dtype=int)
    for distance in np.arange(4.0, 15.0, step):
        free = np.flatnonzero(mask == 0)
        points = scene.eye.astype(float) + distance * rays[free]
        for solid in scene.solids:
            mask[free[inside(solid, points)]] = solid.code
    return mask.reshape(pixels, pixels)


def borders(mask: np.ndarray) -> np.ndarray:
    """Pixels with a neighbour of another id."""
    padded = np.pad(mask, 1, mode="edge")
    moved = [padded[1 + i : 1 + i + len(mask), 1 + j : 1 + j + len(mask)] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return np.any([other != mask for other in moved], axis=0)


def test_masks_agree_with_a_march_along_each_ray() -> None:
    seen: set[str] = set()
    for index in range(8):
        scene = draw_scene(7, index)
        seen |= {solid.shape for solid in scene.solids}
        mask, slow = render(scene, 48)[1].astype(int), marched(scene, 48)
        differ = mask != slow
        assert differ.mean() < 0.005, index
        assert not (differ & ~borders(slow)).any(), index
    assert seen == set(SHAPES)


def test_a_solid_alone_covers_the_mask_that_it_has_among_others() -> None:
    hidden = 0
    for index in range(20):
        scene = draw_scene(1, index)
        mask = render(scene, 64)[1]
        alone = [render(replace(scene, solids=(solid,)), 64)[1] > 0 for solid in scene.solids]
        np.testing.assert_array_equal(mask > 0, np.any(alone, axis=0))
        for code in set(mask.ravel()) - {0}:
            own = [shown for shown, solid in zip(alone, scene.solids, strict=True) if solid.code == code]
            assert np.any(own, axis=0)[mask == code].all()
        hidden += int(sum(shown.sum() for shown in alone) > (mask > 0).sum())
    assert hidden >= 5, "solids should hide parts of one another in many scenes"


def test_every_solid_shows_and_stands_on_the_floor() -> None:
    for index in range(25):
        scene = draw_scene(2, index)
        mask = render(scene, 224)[1]
        assert 2 <= len(scene.solids) <= 5
        counts = np.bincount(mask.ravel(), minlength=256)
        assert all(counts[solid.code] >= 30 for solid in scene.solids)
        for number, solid in enumerate(scene.solids):
            rest = tuple(other for other in scene.solids if other is not solid)
            uncovered = int(
                (mask == solid.code).sum() - (render(replace(scene, solids=rest), 224)[1] == solid.code).sum()
            )
            assert uncovered >= 30, (index, number)  # also where another solid has the same colour and shape
            points = np.random.default_rng(number).uniform(-1, 1, (20_000, 3)) * solid.reach + solid.centre
            lowest = points[inside(solid, points), 1].min()
            assert -1e-5 <= lowest < 0.15


def test_solids_do_not_cut_into_each_other() -> None:
    for index in range(40):
        scene = draw_scene(3, index)
        points = np.random.default_rng(index).uniform((-3, 0, -3.5), (3, 2.2, 3), (50_000, 3))
        assert np.sum([inside(solid, points) for solid in scene.solids], axis=0).max() <= 1


def test_the_picture_does_not_depend_on_its_resolution() -> None:
    for index in range(5):
        scene = draw_scene(4, index)
        kinds = {solid.code: solid for solid in scene.solids}
        scene = replace(scene, solids=tuple(kinds.values()))  # so that the mask shows every outline
        (small, small_mask), (large, large_mask) = render(scene, 40), render(scene, 120)
        # the centre of a pixel of the small picture is the centre of every third pixel of the large one
        np.testing.assert_array_equal(small_mask, large_mask[1::3, 1::3])
        calm = ~borders(small_mask) & ~borders(large_mask)[1::3, 1::3]
        assert calm.mean() > 0.7
        gap = np.abs(small.astype(int) - large[1::3, 1::3])[calm]
        assert gap.max() <= 1


def test_colours_agree_with_the_mask() -> None:
    gaps = []
    for sample in scenes(40, seed=5, pixels=112).samples:
        for code in np.unique(sample.mask):
            if code and CLASSES[int(code)][0] in PAINTS:
                paint = CLASSES[int(code)][0]
                own = (sample.mask == code) & ~borders(sample.mask)
                if not own.any():
                    continue
                colour = np.median(sample.image[own], axis=0) / 255
                hue, wanted = colorsys.rgb_to_hsv(*colour)[0], colorsys.rgb_to_hsv(*np.cbrt(PAINTS[paint]))[0]
                gap = abs((hue - wanted + 0.5) % 1 - 0.5) * 360
                gaps.append(gap)
                nearest = {
                    name: abs((hue - colorsys.rgb_to_hsv(*np.cbrt(rgb))[0] + 0.5) % 1 - 0.5)
                    for name, rgb in PAINTS.items()
                }
                assert min(nearest, key=nearest.__getitem__) == paint
    assert len(gaps) > 60
    assert np.median(gaps) < 12


def test_paint_is_shaded() -> None:
    """A flat fill would have one brightness; the side towards the light must be the brighter one."""
    for index in range(10):
        scene = draw_scene(6, index)
        image, mask = render(scene, 112)
        for code in np.unique(mask[mask > 0]):
            own = (mask == code) & ~borders(mask)
            if own.sum() > 200:
                assert np.ptp(np.percentile(image[own].mean(axis=1), [5, 95])) > 12
    ball = next(
        scene
        for index in range(200)
        for scene in [draw_scene(6, index)]
        if [s.shape for s in scene.solids] == ["sphere"] * 2
    )
    ball = replace(ball, solids=ball.solids[:1])
    image, mask = render(ball, 112)
    y, x = np.nonzero(mask)
    value = image[y, x].mean(axis=1)
    tilt = np.corrcoef(x - x.mean(), value)[0, 1]
    assert np.sign(tilt) == np.sign(ball.light[0, 0])


def test_shadows_fall_where_the_light_is_blocked() -> None:
    umbras = 0
    for index in range(6):
        scene = draw_scene(8, index)
        image, mask = render(scene, 64)
        bare = render(replace(scene, solids=()), 64)[0]
        rays = directions(scene, 64)
        floor = np.flatnonzero((mask.ravel() == 0) & (rays[:, 1] < -0.08))
        points = scene.eye + rays[floor] * (-scene.eye[1] / rays[floor, 1])[:, None]
        blocked = np.zeros(len(floor), dtype=int)
        for ray in scene.light.T.astype(float):
            hit = np.zeros(len(floor), dtype=bool)
            for distance in np.arange(0.02, 6.0, 0.04):
                for solid in scene.solids:
                    hit |= inside(solid, points + distance * ray)
            blocked += hit
        ratio = (image.reshape(-1, 3)[floor].sum(axis=1) + 1) / (bare.reshape(-1, 3)[floor].sum(axis=1) + 1)
        calm = ~borders(mask).ravel()[floor] & (np.abs(points[:, 0]) < 4) & (points[:, 2] > -4)
        umbra, free = calm & (blocked == scene.light.shape[1]), calm & (blocked == 0)
        umbras += int(umbra.sum())
        assert ratio[umbra].max(initial=0) < 0.85
        assert np.median(ratio[free]) > 0.95
    assert umbras > 100


def test_outlines_are_smooth() -> None:
    scene = draw_scene(0, 0)
    image, mask = render(scene, 64)
    slow = render(scene, 64 * 9)[0].reshape(64, 9, 64, 9, 3).mean(axis=(1, 3))
    edge = borders(mask)
    assert edge.sum() > 50
    assert np.abs(image - slow)[edge].mean() < 8


def test_scenes_are_the_same_every_time_and_smaller_sets_begin_larger_ones() -> None:
    few, more, again, other = (
        scenes(3, 9, pixels=32),
        scenes(6, 9, pixels=32),
        scenes(6, 9, pixels=32),
        scenes(6, 8, pixels=32),
    )
    assert more.fingerprint == again.fingerprint != other.fingerprint
    assert more.subset(range(3)).fingerprint == few.fingerprint
    assert len({sample.image.tobytes() for sample in more.samples}) == 6
    assert more.ids[:2] == ["scene-00000", "scene-00001"]


def test_samples_are_as_promised(many: ConceptDataset) -> None:
    assert many.modality == "image"
    assert many.concepts == CONCEPTS
    assert set(many.classes) == set(range(1, 1 + len(SHAPES) * (len(PAINTS) + 1)))
    assert sorted(many.classes.values()) == sorted(
        (shape,) if paint == GREY else (paint, shape) for paint in (*PAINTS, GREY) for shape in SHAPES
    )
    for index, sample in enumerate(many.samples):
        assert sample.image.shape == (48, 48, 3)
        assert sample.mask.shape == (48, 48)
        assert sample.image.dtype == sample.mask.dtype == np.uint8
        shown = {concept for code in set(sample.mask.ravel()) - {0} for concept in many.classes[int(code)]}
        assert sample.labels == shown
        assert sample.split == ("train", "cal", "train", "test")[index % 4]


def test_concepts_are_balanced(many: ConceptDataset) -> None:
    labels, known = many.given_labels()
    assert known.all()
    assert (labels.mean(axis=0) > 0.25).all(), labels.mean(axis=0)
    assert (labels.mean(axis=0) < 0.50).all(), labels.mean(axis=0)
    for split in ("cal", "test"):
        assert labels[many.splits == split].sum(axis=0).min() >= 15
    both = labels.T.astype(int) @ labels
    assert (both[: len(PAINTS), len(PAINTS) :] >= 20).all(), "every colour goes with every shape"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"size": 0}, "size"),
        ({"size": -3}, "size"),
        ({"size": 1, "pixels": 0}, "pixels"),
        ({"size": 1, "seed": -1}, "seed"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments: dict[str, int], named: str) -> None:
    with pytest.raises(DataError, match=rf"{named} is -?\d+, but must be at least"):
        scenes(**arguments)


def test_one_pixel_is_enough() -> None:
    assert scenes(1, pixels=1).samples[0].image.shape == (1, 1, 3)
