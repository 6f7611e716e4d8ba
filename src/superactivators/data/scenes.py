"""A built-in demo set of images: scenes of coloured solids, drawn at random."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32

from superactivators.data.dataset import SPLITS, ConceptDataset, ImageSample
from superactivators.data.raycast import (
    CLASSES,
    CONCEPTS,
    FRAME,
    GREY,
    LIGHT_RAYS,
    PAINTS,
    SHAPES,
    Scene,
    Solid,
    centres,
    render,
    trace,
    unit,
    vector,
    ways_through,
)
from superactivators.errors import DataError

_LEAST_VISIBLE = 30
_WOOD = ((0.26, 0.14, 0.065), (0.40, 0.25, 0.13), (0.13, 0.07, 0.04), (0.46, 0.34, 0.22))
_STONE = ((0.38, 0.37, 0.34), (0.16, 0.17, 0.19), (0.46, 0.40, 0.32), (0.20, 0.26, 0.27), (0.30, 0.22, 0.19))
_CLOTH = ((0.15, 0.17, 0.22), (0.27, 0.22, 0.16), (0.13, 0.17, 0.13), (0.33, 0.32, 0.30), (0.22, 0.13, 0.13))
_FLOORS = {"planks": _WOOD, "tiles": _STONE, "checks": _STONE, "stone": _STONE, "carpet": _CLOTH}


def scenes(size: int = 400, seed: int = 0, *, pixels: int = 224) -> ConceptDataset:
    """Make pictures of coloured solids, with exact masks of their visible surfaces.

    Each scene holds two to five solids of one to three shapes; size, place, rotation, finish, light, camera, floor and
    backdrop vary. Shadows and reflections are not part of a solid. Scene ``i`` depends on ``seed`` and ``i`` only, so
    that a smaller set begins a larger one, and what it shows does not depend on ``pixels``. Of every four scenes two
    are train, one is cal and one is test.

    Parameters
    ----------
    size : int
        Number of scenes.
    seed : int
        Not negative.
    pixels : int
        Width and height.

    Returns
    -------
    ConceptDataset
        Images as uint8 arrays of shape (pixels, pixels, 3), masks as uint8 arrays of the ids in ``classes``. Labels
        are the concepts that the mask shows; at 224 pixels each solid shows at least 30.

    Raises
    ------
    DataError
        If ``size`` or ``pixels`` is not positive, or ``seed`` is negative.
    """
    for name, value, least in (("size", size, 1), ("pixels", pixels, 1), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"scenes: {name} is {value}, but must be at least {least}; give a larger number")
    order = (SPLITS[0], SPLITS[1], SPLITS[0], SPLITS[2])
    samples = []
    for index in range(size):
        image, mask = render(draw_scene(seed, index), pixels)
        shown = frozenset(concept for code in np.unique(mask) if code for concept in CLASSES[int(code)])
        samples.append(ImageSample(f"scene-{index:05d}", image, mask, shown, order[index % 4]))
    return ConceptDataset("scenes", CONCEPTS, tuple(samples), CLASSES)


def draw_scene(seed: int, index: int) -> Scene:
    """Draw scene ``index``, again and again until each solid shows at least 30 of 224 × 224 pixels."""
    rng = np.random.default_rng([seed, index])
    while True:
        scene = _draw(rng)
        first = trace(scene, ways_through(scene, *centres(FRAME)))[0]
        if np.bincount(first + 1, minlength=len(scene.solids) + 1)[1:].min() >= _LEAST_VISIBLE:
            return scene


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _angle(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    """Draw an angle in degrees; its cosine and sine, rounded so that every machine has the same."""
    angle = math.radians(_between(rng, low, high))
    return round(math.cos(angle), 6), round(math.sin(angle), 6)


def _draw(rng: np.random.Generator) -> Scene:
    count = 2 + int(np.searchsorted((0.2, 0.52, 0.82), rng.random()))
    kinds = [SHAPES[kind] for kind in rng.permutation(len(SHAPES))[: 1 + rng.integers(min(count, 3))]]
    kinds += [kinds[rng.integers(len(kinds))] for _ in range(count - len(kinds))]
    solids: list[Solid] = []
    places: list[tuple[float, float, float]] = []
    for kind in kinds:
        solid, wide = _draw_solid(rng, kind, _between(rng, 0.5, 0.98) * (1.0 if count < 4 else 0.84))
        for _ in range(60):
            x, z = _between(rng, -2.3, 2.3), _between(rng, -2.6, 1.7)
            apart = all(math.hypot(x - a, z - b) > wide + other + 0.06 for a, b, other in places)
            if apart and abs(x) + wide < 2.35 - 0.25 * z:
                break
        else:
            return _draw(rng)  # no room: another set of solids
        places.append((x, z, wide))
        solid.centre[[0, 2]] = x, z
        solids.append(solid)
    tilt, away, warm = _angle(rng, 13, 27), _between(rng, 8.8, 9.8), _between(rng, -1, 1)
    floor = tuple(_FLOORS)[rng.integers(len(_FLOORS))]
    base = np.array(_FLOORS[floor][rng.integers(len(_FLOORS[floor]))]) * _between(rng, 0.75, 1.15)
    tint = 1 - 0.5 * rng.random(3) * rng.random()
    return Scene(
        solids=tuple(solids),
        eye=vector(0, 0.5 + away * tilt[1], -0.3 + away * tilt[0]),
        tilt=vector(*tilt),
        zoom=_between(rng, 0.275, 0.325),
        light=_draw_light(rng),
        lamp=vector(1 + 0.1 * warm, 1, 1 - 0.16 * warm) * np.float32(_between(rng, 2.6, 3.3)),
        sky=vector(1 - 0.12 * warm, 1 - 0.03 * warm, 1 + 0.14 * warm) * np.float32(_between(rng, 0.38, 0.58)),
        backdrop=(_between(rng, 0.1, 0.8) * tint).astype(np.float32),
        floor=floor,
        stains=np.stack([base, base * _between(rng, 0.35, 0.68)], axis=1).astype(np.float32),
        turn=vector(*_angle(rng, 0, 360), 40 * rng.random(), 40 * rng.random()),
        grain=rng.random((64, 64)).astype(np.float32),
    )


def _draw_solid(rng: np.random.Generator, shape: str, scale: float) -> tuple[Solid, float]:
    """Draw a solid that stands (some cylinders lie) on the floor at x = z = 0; and the radius of the disc it needs."""
    wide, low, high = {
        "sphere": (1.0, 1.0, 1.0),
        "cube": (0.8, 0.8, 0.8),
        "cylinder": (0.72, 0.6, 1.1),
        "cone": (0.88, 0.85, 1.15),
        "pyramid": (0.86, 0.65, 0.95),
    }[shape]
    radius, half = wide * scale, _between(rng, low, high) * scale
    lies = rng.random() < 0.3 and shape == "cylinder"
    c, s = _angle(rng, 0, 360)
    axes = ((0, 1, 0), (c, 0, s), (s, 0, -c)) if lies else ((c, 0, s), (0, 1, 0), (-s, 0, c))
    paint = GREY if rng.random() < 0.1 else tuple(PAINTS)[rng.integers(len(PAINTS))]
    albedo = 0.03 + 0.6 * rng.random() ** 2 if paint == GREY else np.array(PAINTS[paint]) * _between(rng, 0.8, 1.15)
    roughness, mirror = ((0.5, 0.035), (0.3, 0.05), (0.16, 0.08))[rng.integers(3)]
    solid = Solid(
        shape=shape,
        paint=paint,
        radius=radius,
        half=half,
        axes=np.array(axes, dtype=np.float32),
        centre=vector(0, radius if lies else half, 0),
        albedo=(np.zeros(3) + albedo).astype(np.float32),
        roughness=roughness,
        mirror=mirror,
    )
    corner = math.sqrt(2) if shape in ("cube", "pyramid") else 1.0
    return solid, math.hypot(radius, half) if lies else corner * radius


def _draw_light(rng: np.random.Generator) -> Float32[np.ndarray, "3 k"]:
    (front, side), (flat, rise) = _angle(rng, 35, 125), _angle(rng, 34, 60)
    side *= -1 if rng.random() < 0.5 else 1
    towards = np.array([[side * flat], [rise], [front * flat]])
    across, above = np.array([[front], [0], [-side]]), np.array([[-side * rise], [flat], [-front * rise]])
    number = np.arange(LIGHT_RAYS)
    out = _between(rng, 0.035, 0.13) * np.sqrt(number / LIGHT_RAYS)
    turn = number * 2.399963  # the golden angle spreads the rays evenly over the disc
    return unit(
        (towards + across * out * np.cos(turn).round(6) + above * out * np.sin(turn).round(6)).astype(np.float32)
    )
