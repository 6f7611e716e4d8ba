"""A built-in demo set of images: painted solids on a textured floor, ray cast with exact masks.

Every solid is convex: the points inside some half-spaces and, for round ones, inside a quadric. A ray therefore
crosses it in one interval, which is found in closed form; nothing is approximated but light. The light is a disc far
away (soft shadows) and a sky (ambient light, dimmed near other solids); the finish is a diffuse paint under a
GGX highlight and a Fresnel reflection of the sky.

Pixels are made with the IEEE-exact operations ``+ - * /`` and square root in float32 alone, without BLAS and without
library functions such as ``exp``, so that one seed gives the same bytes on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float32

from superactivators.data.dataset import ConceptDataset, ImageSample
from superactivators.errors import DataError

PAINTS = {
    "red": (0.60, 0.022, 0.020),
    "orange": (0.85, 0.230, 0.012),
    "yellow": (0.82, 0.600, 0.020),
    "green": (0.040, 0.330, 0.060),
    "cyan": (0.020, 0.480, 0.520),
    "blue": (0.022, 0.085, 0.560),
    "purple": (0.210, 0.035, 0.430),
    "pink": (0.830, 0.190, 0.400),
}
"""Linear reflectance of each colour."""
GREY = "grey"
"""Paint of distractors: their shape is a concept, their colour is none."""
SHAPES = ("sphere", "cube", "cylinder", "cone", "pyramid")
CONCEPTS = (*PAINTS, *SHAPES)
CLASSES = {
    1 + len(SHAPES) * row + column: (shape,) if paint == GREY else (paint, shape)
    for row, paint in enumerate((*PAINTS, GREY))
    for column, shape in enumerate(SHAPES)
}
"""Which concepts a mask id stands for; a grey solid carries its shape only."""

_FRAME = 224
_LEAST_VISIBLE = 30
_FLOORS = ("planks", "tiles", "checks", "stone", "carpet")
_LIGHT_RAYS = 16
_SUBPIXELS = 4

Vectors = Float32[np.ndarray, "3 *rays"]


@final
@dataclass(frozen=True, eq=False)
class Solid:
    """A convex solid: all points within its half-spaces and, where it has one, its quadric.

    Attributes
    ----------
    shape, paint : str
        One of ``SHAPES``; a key of ``PAINTS`` or ``GREY``.
    centre : float32 array of shape (3,)
        In the world: x to the right, y up (the floor is y = 0), z towards the camera.
    axes : float32 array of shape (3, 3)
        Rows are the solid's own x, y and z axes in the world; y is the axis of symmetry.
    radius, half : float
        Half width across the axis and half height along it.
    albedo : float32 array of shape (3,)
        Linear reflectance.
    roughness, mirror : float
        Width of the highlight, and share of light that a perpendicular ray reflects.
    """

    shape: str
    paint: str
    centre: Float32[np.ndarray, " 3"]
    axes: Float32[np.ndarray, "3 3"]
    radius: float
    half: float
    albedo: Float32[np.ndarray, " 3"]
    roughness: float
    mirror: float

    @property
    def reach(self) -> float:
        """Radius of the sphere about ``centre`` that holds the solid."""
        corner = {"sphere": 0.0, "cube": 2.0, "pyramid": 2.0}.get(self.shape, 1.0) * self.radius**2
        return math.sqrt(corner + self.half**2)

    @property
    def half_spaces(self) -> Float32[np.ndarray, "faces 4"]:
        """Rows (n, d) of the half-spaces n·p ≤ d, in the solid's own axes."""
        r, h = self.radius, self.half
        ends = [(0, 1, 0, h), (0, -1, 0, h)]
        slope = math.sqrt(4 * h * h + r * r)
        a, b, d = 2 * h / slope, r / slope, r * h / slope
        faces = {
            "sphere": [],
            "cube": [(1, 0, 0, r), (-1, 0, 0, r), (0, 0, 1, r), (0, 0, -1, r), *ends],
            "cylinder": ends,
            "cone": ends,
            "pyramid": [(a, b, 0, d), (-a, b, 0, d), (0, b, a, d), (0, b, -a, d), ends[1]],
        }[self.shape]
        return np.array(faces, dtype=np.float32).reshape(-1, 4)

    @property
    def quadric(self) -> tuple[float, float, float] | None:
        """Numbers (w, s, c) of the quadric x² + w(y − s)² + z² ≤ c, in the solid's own axes; None if flat-faced."""
        return {
            "sphere": (1.0, 0.0, self.radius**2),
            "cylinder": (0.0, 0.0, self.radius**2),
            "cone": (-((self.radius / (2 * self.half)) ** 2), self.half, 0.0),
        }.get(self.shape)


@final
@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that is in a picture, at no particular resolution.

    Attributes
    ----------
    solids : tuple of Solid
        Two to five.
    eye : float32 array of shape (3,)
        The camera; it looks along −z, tilted down.
    tilt : tuple of float
        Cosine and sine of that tilt.
    zoom : float
        Tangent of half the field of view.
    light : float32 array of shape (3, rays)
        Directions from a point to places on the light's disc.
    lamp, sky, backdrop : float32 arrays of shape (3,)
        Colours of the light, of the ambient light, and of what lies behind the floor.
    floor : str
        Kind of texture.
    stains : float32 array of shape (3, 2)
        The two colours of the texture.
    turn : tuple of float
        Cosine and sine of the rotation of the texture, then its shift along both of its axes.
    grain : float32 array of shape (64, 64)
        Uniform noise that the textures draw on.
    """

    solids: tuple[Solid, ...]
    eye: Float32[np.ndarray, " 3"]
    tilt: tuple[float, float]
    zoom: float
    light: Float32[np.ndarray, "3 rays"]
    lamp: Float32[np.ndarray, " 3"]
    sky: Float32[np.ndarray, " 3"]
    backdrop: Float32[np.ndarray, " 3"]
    floor: str
    stains: Float32[np.ndarray, "3 2"]
    turn: tuple[float, float, float, float]
    grain: Float32[np.ndarray, "64 64"]


def scenes(size: int = 400, seed: int = 0, *, pixels: int = 224) -> ConceptDataset:
    """Make pictures of coloured solids with exact masks of their visible surfaces.

    Each scene holds two to five solids in at most three shapes; size, place, rotation, finish, light, camera, floor
    and backdrop vary. Shadows and reflections are not part of a solid. Sample ``i`` depends on ``seed`` and ``i`` only, so
    that a smaller set is the beginning of a larger one; what a scene shows does not depend on ``pixels`` either. Of
    every four samples two are train, one cal and one test.

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
        Images as uint8 arrays of shape (pixels, pixels, 3), masks as uint8 arrays of ids that ``classes`` explains.
        A concept is among a sample's labels where the mask shows it; at 224 pixels each solid shows at least 30.

    Raises
    ------
    DataError
        If ``size`` or ``pixels`` is not positive, or ``seed`` is negative.
    """
    for name, value in (("size", size), ("pixels", pixels)):
        if value < 1:
            raise DataError(f"scenes: {name} must be at least 1, got {value}; give a positive number")
    if seed < 0:
        raise DataError(f"scenes: seed must not be negative, got {seed}; give 0 or more")
    samples = []
    for index in range(size):
        image, mask = render(draw_scene(seed, index), pixels)
        shown = frozenset(concept for code in np.unique(mask) if code for concept in CLASSES[int(code)])
        split = split_of(index)
        samples.append(ImageSample(f"scene-{index:05d}", image, mask, shown, split))
    return ConceptDataset("scenes", CONCEPTS, tuple(samples), CLASSES)


# --- drawing a scene -------------------------------------------------------------------------------------------------


def draw_scene(seed: int, index: int) -> Scene:
    """Draw scene ``index``; it is drawn again until every solid shows at least 30 of 224 × 224 pixels."""
    rng = np.random.default_rng([seed, index])
    while True:
        scene = _draw(rng)
        shown = np.bincount(_trace(scene, _ways(scene, *_grid(_FRAME)))[0] + 1, minlength=len(scene.solids) + 1)
        if shown[1:].min() >= _LEAST_VISIBLE:
            return scene


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _angle(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    """Cosine and sine of an angle between two bounds in degrees, rounded so that every machine has the same."""
    angle = math.radians(_between(rng, low, high))
    return round(math.cos(angle), 6), round(math.sin(angle), 6)


def _vector(*values: float) -> Float32[np.ndarray, " n"]:
    return np.array(values, dtype=np.float32)


def _draw(rng: np.random.Generator) -> Scene:
    count = int(rng.choice(4, p=(0.20, 0.32, 0.30, 0.18))) + 2
    kinds = rng.permutation(len(SHAPES))[: 1 + int(rng.integers(min(count, 3)))]
    shapes = [SHAPES[kinds[number if number < len(kinds) else rng.integers(len(kinds))]] for number in range(count)]
    solids: list[Solid] = []
    places: list[tuple[float, float, float]] = []
    for shape in shapes:
        scale = _between(rng, 0.42, 0.92) * (1.0 if count < 4 else 0.85)
        solid, wide = _draw_solid(rng, shape, scale)
        for _ in range(60):
            x, z = _between(rng, -2.5, 2.5), _between(rng, -2.6, 1.9)
            room = 1.0 - 0.07 * z
            if abs(x) + wide < 2.75 * room and all(
                math.hypot(x - a, z - b) > wide + other + 0.06 for a, b, other in places
            ):
                break
        else:
            return _draw(rng)
        places.append((x, z, wide))
        solid.centre[[0, 2]] = x, z
        solids.append(solid)

    tilt = _angle(rng, 13, 27)
    away = _between(rng, 9.0, 10.2)
    turn = (*_angle(rng, 0, 360), 40 * rng.random(), 40 * rng.random())
    warm = _between(rng, -1, 1)
    floor = _FLOORS[rng.integers(len(_FLOORS))]
    stains = _draw_stains(rng, floor)
    shade = _between(rng, 0.18, 0.75)
    tint = np.array([_between(rng, 0.75, 1.0) for _ in range(3)])
    return Scene(
        solids=tuple(solids),
        eye=_vector(0, 0.45 + away * tilt[1], -0.2 + away * tilt[0]),
        tilt=tilt,
        zoom=_between(rng, 0.32, 0.37),
        light=_draw_light(rng),
        lamp=_vector(1 + 0.10 * warm, 1, 1 - 0.16 * warm) * np.float32(_between(rng, 1.9, 2.6)),
        sky=_vector(1 - 0.12 * warm, 1 - 0.03 * warm, 1 + 0.14 * warm) * np.float32(_between(rng, 0.42, 0.62)),
        backdrop=(shade * tint).astype(np.float32),
        floor=floor,
        stains=stains,
        turn=turn,
        grain=rng.random((64, 64), dtype=np.float32),
    )


def _draw_solid(rng: np.random.Generator, shape: str, scale: float) -> tuple[Solid, float]:
    """Draw a solid that stands (a cylinder may lie) on the floor at x = z = 0, and the radius of the disc it needs."""
    radius, half = {
        "sphere": (scale, scale),
        "cube": (0.80 * scale, 0.80 * scale),
        "cylinder": (0.72 * scale, _between(rng, 0.6, 1.1) * scale),
        "cone": (0.88 * scale, _between(rng, 0.85, 1.15) * scale),
        "pyramid": (0.86 * scale, _between(rng, 0.65, 0.95) * scale),
    }[shape]
    c, s = _angle(rng, 0, 360)
    lies = shape == "cylinder" and rng.random() < 0.3
    axes = [(0, 1, 0), (c, 0, s), (-s, 0, c)] if lies else [(c, 0, s), (0, 1, 0), (-s, 0, c)]
    corner = radius * math.sqrt(2) if shape in ("cube", "pyramid") else radius
    paint = GREY if rng.random() < 0.1 else tuple(PAINTS)[rng.integers(len(PAINTS))]
    tone = _between(rng, 0.8, 1.2)
    if paint == GREY:
        albedo = np.full(3, 0.03 + 0.6 * rng.random() ** 2)
    else:
        albedo = np.clip(np.array(PAINTS[paint]) * tone + 0.02 * rng.random(), 0, 0.9)
    roughness, mirror = ((0.55, 0.03), (0.28, 0.045), (0.14, 0.06))[rng.integers(3)]
    solid = Solid(
        shape=shape,
        paint=paint,
        centre=_vector(0, radius if lies else half, 0),
        axes=np.array(axes, dtype=np.float32),
        radius=radius,
        half=half,
        albedo=albedo.astype(np.float32),
        roughness=roughness,
        mirror=mirror,
    )
    return solid, math.hypot(radius, half) if lies else corner


def _draw_light(rng: np.random.Generator) -> Float32[np.ndarray, "3 rays"]:
    side = _angle(rng, 15, 105)
    left = -1 if rng.random() < 0.5 else 1
    rise = _angle(rng, 36, 62)
    spread = _between(rng, 0.035, 0.13)
    towards = np.array([left * side[1] * rise[0], rise[1], side[0] * rise[0]])
    across = np.array([side[0], 0, -left * side[1]])
    above = np.array([-left * side[1] * rise[1], rise[0], -side[0] * rise[1]])
    number = np.arange(_LIGHT_RAYS)
    out = spread * np.sqrt((number + 0.5) / _LIGHT_RAYS)
    around = number * 2.399963  # the golden angle spreads the rays evenly over the disc
    x, y = out * np.round(np.cos(around), 6), out * np.round(np.sin(around), 6)
    rays = towards[:, None] + across[:, None] * x + above[:, None] * y
    return (rays / np.sqrt(rays[0] ** 2 + rays[1] ** 2 + rays[2] ** 2)).astype(np.float32)


def _draw_stains(rng: np.random.Generator, floor: str) -> Float32[np.ndarray, "3 2"]:
    wood = ((0.34, 0.20, 0.10), (0.50, 0.34, 0.20), (0.20, 0.12, 0.07), (0.58, 0.45, 0.32))
    stone = ((0.52, 0.50, 0.46), (0.30, 0.31, 0.33), (0.62, 0.56, 0.47), (0.36, 0.42, 0.42), (0.45, 0.36, 0.33))
    cloth = ((0.30, 0.33, 0.38), (0.42, 0.36, 0.28), (0.26, 0.32, 0.27), (0.46, 0.44, 0.42), (0.34, 0.25, 0.25))
    bank = {"planks": wood, "carpet": cloth}.get(floor, stone)
    base = np.array(bank[rng.integers(len(bank))]) * _between(rng, 0.8, 1.15)
    other = base * _between(rng, 0.40, 0.72)
    return np.stack([base, other], axis=1).astype(np.float32)


def split_of(index: int) -> str:
    """Split of a generated sample: train, cal, train, test, and again, so that every prefix is nearly balanced."""
    return (SPLITS[0], SPLITS[1], SPLITS[0], SPLITS[2])[index % 4]


# --- geometry --------------------------------------------------------------------------------------------------------


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit(a: np.ndarray) -> np.ndarray:
    return a / np.sqrt(np.maximum(_dot(a, a), np.float32(1e-12)))


def _turned(axes: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Write vectors (3, ...) in the given axes."""
    return np.stack([_dot(row, a) for row in axes])


def _grid(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres of all pixels, row-major, in pixels."""
    y, x = np.divmod(np.arange(pixels * pixels), pixels)
    return (x + 0.5) / pixels, (y + 0.5) / pixels


def _ways(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Unit directions from the eye through places (0 to 1 from left and top) of the picture."""
    right = ((2 * x - 1) * scene.zoom).astype(np.float32)
    up = ((1 - 2 * y) * scene.zoom).astype(np.float32)
    c, s = np.float32(scene.tilt[0]), np.float32(scene.tilt[1])
    return _unit(np.stack([right, up * c - s, -c - up * s]))


def _crossing(solid: Solid, origin: np.ndarray, way: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rays enter and leave a solid, in its own axes and in lengths of ``way``; they miss it if enter > leave."""
    near, far = np.float32(-np.inf), np.float32(np.inf)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for face in solid.half_spaces:
            slope = _dot(face, way)
            at = (face[3] - _dot(face, origin)) / slope
            near = np.maximum(near, np.where(slope < 0, at, -np.inf))
            far = np.minimum(far, np.where(slope > 0, at, np.inf))
        if solid.quadric is not None:
            w, s, c = (np.float32(number) for number in solid.quadric)
            x, y, z = origin[0], origin[1] - s, origin[2]
            a = way[0] * way[0] + w * way[1] * way[1] + way[2] * way[2]
            a = np.where(np.abs(a) < 1e-6, np.float32(1e-6), a)
            b = x * way[0] + w * y * way[1] + z * way[2]
            q = x * x + w * y * y + z * z - c
            root = b * b - a * q
            stable = -(b + np.copysign(np.sqrt(np.maximum(root, 0)), b))
            one, two = stable / a, q / stable
            low, high = np.minimum(one, two), np.maximum(one, two)
            # a < 0: the ray is steeper than the cone and passes through both of its halves; ours is the lower one
            near = np.maximum(near, np.where(a > 0, low, np.where(way[1] < 0, high, -np.inf)))
            far = np.minimum(far, np.where(a > 0, high, np.where(way[1] < 0, np.inf, low)))
            far = np.where(root < 0, -np.inf, far)
    return near, far


def _trace(scene: Scene, ways: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First solid (-1: none) that each ray from the eye meets, and how far away."""
    first = np.full(ways.shape[1], -1)
    depth = np.full(ways.shape[1], np.inf, dtype=np.float32)
    for number, solid in enumerate(scene.solids):
        to = solid.centre - scene.eye
        along = _dot(to, ways)
        rows = np.flatnonzero(_dot(to, to) - along * along < solid.reach**2)
        near, far = _crossing(solid, _turned(solid.axes, -to[:, None]), _turned(solid.axes, ways[:, rows]))
        hit = (near <= far) & (near < depth[rows])
        first[rows[hit]], depth[rows[hit]] = number, near[hit]
    return first, depth


def _normals(solid: Solid, points: np.ndarray) -> np.ndarray:
    """Outward normals in the solid's own axes at points of its surface; edges are shaded as if slightly rounded."""
    bevel = np.float32(0.09 * solid.radius)
    total = np.zeros_like(points)
    quadric = solid.quadric
    parts = [(face[:3, None], face[3] - _dot(face, points)) for face in solid.half_spaces]
    if quadric is not None:
        w, s, c = (np.float32(number) for number in quadric)
        slope = np.stack([points[0], w * (points[1] - s), points[2]])
        value = slope[0] * points[0] + slope[1] * (points[1] - s) + slope[2] * points[2] - c
        length = np.sqrt(np.maximum(_dot(slope, slope), np.float32(1e-8)))
        parts.append((slope / length, -value / (2 * length)))
    for normal, inside in parts:
        near = np.clip(1 - inside / bevel, 0, 1)
        total += normal * (near * near * (3 - 2 * near))
    return _unit(total)


# --- light -----------------------------------------------------------------------------------------------------------


def _lit(scene: Scene, points: np.ndarray, skip: int) -> np.ndarray:
    """Share of the light's disc that points see past all solids but one (a convex solid never shades itself)."""
    middle = _unit(_dot_mean(scene.light))
    blocked = np.zeros((_LIGHT_RAYS, points.shape[1]), dtype=bool)
    spread = np.float32(0.14)
    for number, solid in enumerate(scene.solids):
        if number == skip:
            continue
        to = solid.centre[:, None] - points
        along = _dot(middle, to)
        aside = _dot(to, to) - along * along
        reach = np.float32(solid.reach)
        limit = reach + spread * np.maximum(along, 0)
        rows = np.flatnonzero((aside < limit * limit) & (along > -reach))
        origin = _turned(solid.axes, -to[:, rows])[:, None, :]
        near, far = _crossing(solid, origin, _turned(solid.axes, scene.light)[:, :, None])
        blocked[:, rows] |= (near <= far) & (far > 1e-3)
    return 1 - np.count_nonzero(blocked, axis=0).astype(np.float32) / np.float32(_LIGHT_RAYS)


def _dot_mean(rays: np.ndarray) -> np.ndarray:
    total = rays[:, 0].copy()
    for number in range(1, rays.shape[1]):
        total += rays[:, number]
    return total


def _near_solids(scene: Scene, points: np.ndarray, normals: np.ndarray, skip: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of the sky is left at points, and the light that neighbouring solids throw back."""
    left = np.ones(points.shape[1], dtype=np.float32)
    bounce = np.zeros_like(points)
    for number, solid in enumerate(scene.solids):
        if number == skip:
            continue
        to = solid.centre[:, None] - points
        square = _dot(to, to)
        size = np.float32((0.5 * (solid.radius + solid.half)) ** 2)
        cosine = np.maximum(_dot(normals, to), 0) / np.sqrt(square)
        share = np.minimum(cosine * size / square, 1)
        left *= 1 - np.float32(0.85) * share
        bounce += share * solid.albedo[:, None]
    return left, bounce


def _noise(scene: Scene, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Smooth noise from 0 to 1 that varies over about one unit."""
    low_u, low_v = np.floor(u), np.floor(v)
    i, j = low_u.astype(np.int64) & 63, low_v.astype(np.int64) & 63
    x, y = u - low_u, v - low_v
    x, y = x * x * (3 - 2 * x), y * y * (3 - 2 * y)
    grain, k, m = scene.grain, (i + 1) & 63, (j + 1) & 63
    top = grain[i, j] * (1 - x) + grain[k, j] * x
    return top * (1 - y) + (grain[i, m] * (1 - x) + grain[k, m] * x) * y


def _line(place: np.ndarray, step: float, width: float, blur: np.ndarray) -> np.ndarray:
    """How much lines of a given width at every multiple of ``step`` cover places blurred over a length."""
    off = np.abs(place - step * np.round(place / np.float32(step)))
    wide = np.maximum(blur, np.float32(width))
    return np.clip((wide - off) / wide * 2, 0, 1) * (np.float32(width) / wide)


def _floor_stain(scene: Scene, points: np.ndarray, blur: np.ndarray) -> np.ndarray:
    """Share, from 0 to 1, of the second colour of the floor at points of it, blurred over a length."""
    c, s, du, dv = (np.float32(number) for number in scene.turn)
    u, v = c * points[0] + s * points[2] + du, c * points[2] - s * points[0] + dv
    fine = np.clip(1 - blur * 6, 0, 1)
    cloud = _noise(scene, u * 0.7, v * 0.7) * np.float32(0.6) + _noise(scene, u * 2.3, v * 2.3) * np.float32(0.4)
    if scene.floor == "planks":
        row = np.floor(v / np.float32(0.62))
        tone = scene.grain[row.astype(np.int64) & 63, 7]
        shift = u + tone * 11
        veins = _noise(scene, shift * 0.9 + tone * 50, v * 13)
        seams = np.maximum(_line(v, 0.62, 0.018, blur), _line(shift, 3.1, 0.018, blur))
        return np.clip(0.55 * tone + (veins - 0.5) * 0.7 * fine + 0.2 * cloud, 0, 1) + seams * np.float32(0.7)
    if scene.floor == "tiles":
        tone = scene.grain[np.floor(u).astype(np.int64) & 63, np.floor(v).astype(np.int64) & 63]
        seams = np.maximum(_line(u, 1, 0.03, blur), _line(v, 1, 0.03, blur))
        return 0.35 * tone + 0.35 * cloud + seams * np.float32(0.9)
    if scene.floor == "checks":
        sides = [np.abs(place - 2 * np.floor(place / 2) - 1) - 0.5 for place in (u * 1.1, v * 1.1)]
        a, b = (np.clip(side / np.maximum(blur * 1.2, np.float32(0.01)), -1, 1) for side in sides)
        return np.asarray(0.5 + 0.42 * a * b + 0.3 * (cloud - 0.5), dtype=np.float32)
    if scene.floor == "stone":
        specks = np.clip((_noise(scene, u * 11, v * 11) - 0.68) * 5, 0, 1)
        return np.asarray(0.9 * cloud + 0.5 * (specks - 0.3) * fine, dtype=np.float32)
    weave = _noise(scene, u * 17, v * 5) + _noise(scene, u * 5, v * 17) - 1
    return np.asarray(0.15 + 0.5 * cloud + 0.7 * weave * fine, dtype=np.float32)


def _backdrop(scene: Scene, ways: np.ndarray) -> np.ndarray:
    high = np.clip(ways[1] * 3, -0.3, 1)
    return scene.backdrop[:, None] * (1 - np.float32(0.45) * high)


def _sky(scene: Scene, ways: np.ndarray) -> np.ndarray:
    """What a glossy surface reflects: sky above, floor below."""
    above = np.clip(0.5 + ways[1] * 6, 0, 1)
    lift = np.maximum(ways[1], 0)
    floor = scene.stains[:, :1] * np.float32(0.8)
    return above * (scene.backdrop[:, None] * (1 - lift) + scene.sky[:, None] * 1.8 * lift) + (1 - above) * floor


def _floor_light(scene: Scene, ways: np.ndarray, depth: np.ndarray) -> np.ndarray:
    points = scene.eye[:, None] + ways * depth
    blur = depth * depth * np.float32(scene.zoom * 2 / _FRAME) / scene.eye[1]
    stain = np.clip(_floor_stain(scene, points, blur), 0, 1)
    albedo = scene.stains[:, :1] * (1 - stain) + scene.stains[:, 1:] * stain
    up = np.array([[0], [1], [0]], dtype=np.float32)
    left, bounce = _near_solids(scene, points, up, -1)
    middle = _unit(_dot_mean(scene.light))
    lamp = scene.lamp[:, None] * (middle[1] * _lit(scene, points, -1) * np.float32(0.8))
    light = albedo * (lamp + scene.sky[:, None] * left + bounce * np.float32(0.45))
    far = np.clip((depth - 11) / 16, 0, 1)
    far = far * far * (3 - 2 * far)
    return light * (1 - far) + _backdrop(scene, ways) * far


def _solid_light(scene: Scene, number: int, ways: np.ndarray, depth: np.ndarray) -> np.ndarray:
    solid = scene.solids[number]
    points = scene.eye[:, None] + ways * depth
    local = _turned(solid.axes, points - solid.centre[:, None])
    normals = _turned(solid.axes.T, _normals(solid, local))
    middle = _unit(_dot_mean(scene.light))
    toward = np.maximum(_dot(middle, normals), 0)
    lit = np.zeros_like(depth)
    facing = np.flatnonzero(toward > 0)
    lit[facing] = _lit(scene, points[:, facing], number)
    left, bounce = _near_solids(scene, points, normals, number)
    floor = scene.stains[:, :1] * np.float32(0.7) * np.clip(points[1] * 1.4 + 0.25, 0, 1)
    up = 0.5 + 0.5 * normals[1]
    ambient = (scene.sky[:, None] * up + floor * (1 - up)) * left + bounce * np.float32(0.5)
    diffuse = solid.albedo[:, None] * (scene.lamp[:, None] * (toward * lit) + ambient)

    seen = -_dot(normals, ways)
    half = _unit(middle[:, None] - ways)
    wide = np.float32(solid.roughness**2)
    spot = np.maximum(_dot(normals, half), 0)
    spread = spot * spot * (wide * wide - 1) + 1
    shine = wide * wide / (4 * spread * spread + np.float32(1e-6)) * np.float32(solid.mirror * 1.3)
    edge = 1 - np.clip(seen, 0, 1)
    edge = edge * edge
    fresnel = np.float32(solid.mirror) + np.float32(1 - solid.mirror) * edge * edge * (1 - edge * 0.5)
    fresnel *= np.float32(1 - 1.4 * solid.roughness)
    mirrored = _sky(scene, ways + normals * (2 * seen)) * left
    return diffuse * (1 - fresnel) + mirrored * fresnel + scene.lamp[:, None] * (shine * toward * lit)


def _developed(light: np.ndarray) -> np.ndarray:
    """Linear light as linear screen values from 0 to 1, with soft highlights."""
    return np.clip(light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14), 0, 1)


def _seen(scene: Scene, ways: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Screen values (3, rays) along rays from the eye, and the number of the solid met (-1: floor, -2: nothing)."""
    first, depth = _trace(scene, ways)
    with np.errstate(divide="ignore"):
        ground = np.where(ways[1] < -1e-3, -scene.eye[1] / ways[1], np.inf).astype(np.float32)
    first[(first == -1) & (ground > 60)] = -2
    light = _backdrop(scene, ways)
    rows = np.flatnonzero(first == -1)
    light[:, rows] = _floor_light(scene, ways[:, rows], ground[rows])
    for number in range(len(scene.solids)):
        rows = np.flatnonzero(first == number)
        light[:, rows] = _solid_light(scene, number, ways[:, rows], depth[rows])
    return _developed(light * np.float32(0.62)), first


def render(scene: Scene, pixels: int) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Picture a scene.

    Returns
    -------
    image : uint8 array of shape (pixels, pixels, 3)
        Pixels at silhouettes are averages over 4 × 4 rays.
    mask : uint8 array of shape (pixels, pixels)
        Id (see ``CLASSES``) of the solid that the ray through each pixel's centre meets, 0 for none.
    """
    x, y = _grid(pixels)
    colour, first = _seen(scene, _ways(scene, x, y))
    grid = first.reshape(pixels, pixels)
    edge = np.zeros((pixels, pixels), dtype=bool)
    down, across = grid[1:] != grid[:-1], grid[:, 1:] != grid[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    rows = np.flatnonzero(edge)
    inner = ((np.arange(_SUBPIXELS) + 0.5) / _SUBPIXELS - 0.5) / pixels
    dy, dx = (grid.reshape(-1, 1) for grid in np.meshgrid(inner, inner))
    fine = _seen(scene, _ways(scene, (x[rows] + dx).ravel(), (y[rows] + dy).ravel()))[0]
    fine = fine.reshape(3, _SUBPIXELS**2, -1)
    total = fine[:, 0].copy()
    for number in range(1, _SUBPIXELS**2):
        total += fine[:, number]
    colour[:, rows] = total / np.float32(_SUBPIXELS**2)
    codes = np.array([code_of(solid) for solid in scene.solids] + [0, 0], dtype=np.uint8)
    curve = np.linspace(0, 1, 1 << 14)
    curve = np.where(curve <= 0.0031308, 12.92 * curve, 1.055 * curve ** (1 / 2.4) - 0.055)
    screen = np.round(255 * curve).astype(np.uint8)
    image = screen[(colour * np.float32(len(screen) - 1) + np.float32(0.5)).astype(np.int64)]
    return np.ascontiguousarray(image.T.reshape(pixels, pixels, 3)), codes[first].reshape(pixels, pixels)


def code_of(solid: Solid) -> int:
    """Mask id of a solid."""
    return 1 + len(SHAPES) * (*PAINTS, GREY).index(solid.paint) + SHAPES.index(solid.shape)
