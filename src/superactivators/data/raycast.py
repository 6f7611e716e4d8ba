"""Ray casting of painted convex solids on a textured floor, with exact masks.

Every solid is convex: the points inside some half-spaces and, if it is round, inside a quadric. A ray crosses it in one
interval, found in closed form, so that masks are exact; only light is approximated: a disc far away (soft shadows), a
sky (ambient light, dimmed and tinted near other solids), diffuse paint under a GGX highlight and a Fresnel reflection.
Pixels are made in float32 with the IEEE-exact operations + - × ÷ √ alone, without BLAS and without functions such as
``exp``, so that one seed gives the same bytes on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

GREY = "grey"
"""Paint of distractors: their shape is a concept, their colour is none."""
PAINTS = {
    "red": (0.60, 0.022, 0.020),
    "orange": (0.80, 0.150, 0.008),
    "yellow": (0.80, 0.610, 0.020),
    "green": (0.040, 0.330, 0.060),
    "cyan": (0.020, 0.480, 0.520),
    "blue": (0.022, 0.085, 0.560),
    "purple": (0.210, 0.035, 0.430),
    "pink": (0.830, 0.190, 0.400),
}
"""Linear reflectance of each colour."""
SHAPES = ("sphere", "cube", "cylinder", "cone", "pyramid")
CONCEPTS = (*PAINTS, *SHAPES)
_PAIRS = [(paint, shape) for paint in (*PAINTS, GREY) for shape in SHAPES]
CLASSES = {code: (shape,) if paint == GREY else (paint, shape) for code, (paint, shape) in enumerate(_PAIRS, start=1)}
"""Concepts that each mask id stands for."""

FRAME = 224
"""Pixels that a scene is composed for."""
LIGHT_RAYS, _SUBPIXELS = 16, 4

Vectors: TypeAlias = Float32[np.ndarray, "3 ..."]
Numbers: TypeAlias = Float32[np.ndarray, "..."]


@final
@dataclass(frozen=True, eq=False)
class Solid:
    """A convex solid: the points within its half-spaces and, if it is round, its quadric.

    Attributes
    ----------
    shape, paint : str
        One of ``SHAPES``; a key of ``PAINTS``, or ``GREY``.
    radius, half : float
        Half width across the axis of symmetry and half height along it.
    axes : float32 array of shape (3, 3)
        Rows are the solid's own x, y and z axes in the world (x right, y up, z towards the camera); y is the axis of
        symmetry. The floor is y = 0.
    centre, albedo : float32 arrays of shape (3,)
        Place in the world; linear reflectance.
    roughness, mirror : float
        Width of the highlight, and share of light that it reflects when seen from straight above.
    """

    shape: str
    paint: str
    radius: float
    half: float
    axes: Float32[np.ndarray, "3 3"]
    centre: Float32[np.ndarray, " 3"]
    albedo: Float32[np.ndarray, " 3"]
    roughness: float
    mirror: float

    @property
    def code(self) -> int:
        """Mask id."""
        return 1 + _PAIRS.index((self.paint, self.shape))

    @property
    def reach(self) -> float:
        """Radius of a sphere about ``centre`` that holds the solid."""
        across = {"sphere": 0, "cube": 2, "pyramid": 2}.get(self.shape, 1)
        return math.sqrt(across * self.radius**2 + self.half**2)

    @property
    def half_spaces(self) -> Float32[np.ndarray, "faces 4"]:
        """Rows (n, d) of the half-spaces n·p ≤ d, in the solid's own axes."""
        r, h = self.radius, self.half
        top, bottom = (0, 1, 0, h), (0, -1, 0, h)
        a, b, d = (length / math.sqrt(4 * h * h + r * r) for length in (2 * h, r, r * h))
        faces = {
            "cube": [(1, 0, 0, r), (-1, 0, 0, r), (0, 0, 1, r), (0, 0, -1, r), top, bottom],
            "cylinder": [top, bottom],
            "cone": [top, bottom],
            "pyramid": [(a, b, 0, d), (-a, b, 0, d), (0, b, a, d), (0, b, -a, d), bottom],
        }.get(self.shape, [])
        return np.array(faces, dtype=np.float32).reshape(-1, 4)

    @property
    def quadric(self) -> Float32[np.ndarray, " 3"] | None:
        """Numbers (w, s, c) of the quadric x² + w(y - s)² + z² ≤ c, in the solid's own axes; None without one."""
        r, h = self.radius, self.half
        numbers = {"sphere": (1, 0, r * r), "cylinder": (0, 0, r * r), "cone": (-((r / h / 2) ** 2), h, 0)}
        return np.array(numbers[self.shape], dtype=np.float32) if self.shape in numbers else None


@final
@dataclass(frozen=True, eq=False)
class Scene:
    """What there is to see, at no particular resolution.

    Attributes
    ----------
    solids : tuple of Solid
        Two to five.
    eye : float32 array of shape (3,)
        The camera, which looks along -z.
    tilt : float32 array of shape (2,)
        Cosine and sine of the angle by which it looks down.
    zoom : float
        Tangent of half the field of view.
    light : float32 array of shape (3, 16)
        Unit directions to the middle of the light's disc and to places spread over it.
    lamp, sky, backdrop : float32 arrays of shape (3,)
        Colours of the light, of the ambient light, and of what lies behind the floor.
    floor, stains : str, float32 array of shape (3, 2)
        Texture of the floor and its two colours.
    turn : float32 array of shape (4,)
        Cosine and sine of the texture's rotation, and its shift along both of its axes.
    grain : float32 array of shape (64, 64)
        Uniform noise that textures draw on.
    """

    solids: tuple[Solid, ...]
    eye: Float32[np.ndarray, " 3"]
    tilt: Float32[np.ndarray, " 2"]
    zoom: float
    light: Float32[np.ndarray, "3 k"]
    lamp: Float32[np.ndarray, " 3"]
    sky: Float32[np.ndarray, " 3"]
    backdrop: Float32[np.ndarray, " 3"]
    floor: str
    stains: Float32[np.ndarray, "3 2"]
    turn: Float32[np.ndarray, " 4"]
    grain: Float32[np.ndarray, "64 64"]


def vector(*values: float) -> Float32[np.ndarray, " n"]:
    """Give numbers as a float32 array."""
    return np.array(values, dtype=np.float32)


def _dot(a: Vectors, b: Vectors) -> Numbers:
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])


def unit(a: Vectors) -> Vectors:
    """Scale vectors to length one."""
    return np.asarray(a / np.sqrt(np.maximum(_dot(a, a), np.float32(1e-12))))


def _along(axes: Float32[np.ndarray, "3 3"], a: Vectors) -> Vectors:
    """Write vectors in the given axes."""
    return np.stack([_dot(row, a) for row in axes])


def _smooth(a: Numbers) -> Numbers:
    a = np.clip(a, 0, 1)
    return np.asarray(a * a * (3 - 2 * a))


def centres(pixels: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Centres of all pixels, row by row: how far (0 to 1) from the left and from the top."""
    row, column = np.divmod(np.arange(pixels * pixels), pixels)
    return (column + 0.5) / pixels, (row + 0.5) / pixels


def ways_through(scene: Scene, x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Vectors:
    """Give the unit directions from the eye through places of the picture."""
    right, up = ((2 * x - 1) * scene.zoom).astype(np.float32), ((1 - 2 * y) * scene.zoom).astype(np.float32)
    c, s = scene.tilt
    return unit(np.stack([right, up * c - s, -c - up * s]))


def _crossing(solid: Solid, origin: Vectors, way: Vectors) -> tuple[Numbers, Numbers]:
    """Find where rays, in the solid's own axes, enter and leave it; a ray that misses it enters after it leaves."""
    shape = np.broadcast_shapes(origin.shape[1:], way.shape[1:])
    near, far = np.full(shape, -np.inf, dtype=np.float32), np.full(shape, np.inf, dtype=np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for face in solid.half_spaces:
            slope = _dot(face[:3], way)
            at = (face[3] - _dot(face[:3], origin)) / slope
            near = np.maximum(near, np.where(slope < 0, at, -np.inf))
            far = np.minimum(far, np.where(slope > 0, at, np.inf))
        if solid.quadric is not None:
            w, s, c = solid.quadric
            x, y, z = origin[0], origin[1] - s, origin[2]
            a = way[0] * way[0] + w * way[1] * way[1] + way[2] * way[2]
            a = np.where(np.abs(a) < 1e-6, np.float32(1e-6), a)
            b = x * way[0] + w * y * way[1] + z * way[2]
            q = x * x + w * y * y + z * z - c
            root = b * b - a * q
            stable = -(b + np.copysign(np.sqrt(np.maximum(root, 0)), b))
            low, high = np.minimum(stable / a, q / stable), np.maximum(stable / a, q / stable)
            # a < 0: the ray is steeper than the cone and passes through both of its halves; ours is the lower one
            near = np.maximum(near, np.where(a > 0, low, np.where(way[1] < 0, high, -np.inf)))
            far = np.minimum(far, np.where(a > 0, high, np.where(way[1] < 0, np.inf, low)))
            far = np.where(root < 0, -np.inf, far)
    return near, far


def trace(scene: Scene, ways: Vectors) -> tuple[Int[np.ndarray, " n"], Numbers]:
    """Find the first solid (-1: none) that each ray from the eye meets, and how far away."""
    first, depth = np.full(ways.shape[1], -1), np.full(ways.shape[1], np.inf, dtype=np.float32)
    for number, solid in enumerate(scene.solids):
        to = solid.centre - scene.eye
        rows = np.flatnonzero(_dot(to, to) - _dot(to, ways) ** 2 < solid.reach**2)
        near, far = _crossing(solid, _along(solid.axes, -to[:, None]), _along(solid.axes, ways[:, rows]))
        hit = (near <= far) & (near < depth[rows])
        first[rows[hit]], depth[rows[hit]] = number, near[hit]
    return first, depth


def _normals(solid: Solid, points: Vectors) -> Vectors:
    """Find outward normals, in the solid's own axes, of its surface; edges are shaded as if slightly rounded."""
    parts = [(face[:3, None], face[3] - _dot(face[:3], points)) for face in solid.half_spaces]
    if solid.quadric is not None:
        w, s, c = solid.quadric
        slope = np.stack([points[0], w * (points[1] - s), points[2]])
        length = np.sqrt(np.maximum(_dot(slope, slope), np.float32(1e-8)))
        value = slope[0] * points[0] + slope[1] * (points[1] - s) + slope[2] * points[2] - c
        parts.append((slope / length, -value / (2 * length)))
    return unit(sum(normal * _smooth(1 - inside / np.float32(0.09 * solid.radius)) for normal, inside in parts))


def _around(scene: Scene, points: Vectors, normals: Vectors, skip: int) -> tuple[Numbers, Numbers, Vectors]:
    """Find what the solids, all but one, do to the light at points.

    Returns the share of the light's disc that is seen, the share of the sky that is seen, and the light thrown back.
    """
    blocked = np.zeros((LIGHT_RAYS, points.shape[1]), dtype=bool)
    sky, back = np.ones(points.shape[1], dtype=np.float32), np.zeros_like(points)
    for number, solid in enumerate(scene.solids):
        if number == skip:  # a convex solid does not shade itself
            continue
        to = solid.centre[:, None] - points
        away, along = _dot(to, to), _dot(scene.light[:, 0], to)
        limit = np.float32(solid.reach) + np.float32(0.14) * np.maximum(along, 0)
        rows = np.flatnonzero((away - along * along < limit * limit) & (along > -solid.reach))
        origin, ways = _along(solid.axes, -to[:, rows]), _along(solid.axes, scene.light)
        near, far = _crossing(solid, origin[:, None, :], ways[:, :, None])
        blocked[:, rows] |= (near <= far) & (far > 1e-3)
        size = np.float32((0.5 * (solid.radius + solid.half)) ** 2)  # as a sphere about as large
        share = np.minimum(np.maximum(_dot(normals, to), 0) / np.sqrt(away) * size / away, 1)
        sky *= 1 - np.float32(0.85) * share
        back += share * solid.albedo[:, None]
    return 1 - np.count_nonzero(blocked, axis=0).astype(np.float32) / np.float32(LIGHT_RAYS), sky, back


def _noise(scene: Scene, u: Numbers, v: Numbers) -> Numbers:
    """Draw smooth noise from 0 to 1 that varies over about one unit."""
    low_u, low_v = np.floor(u), np.floor(v)
    i, j = low_u.astype(np.int64) & 63, low_v.astype(np.int64) & 63
    k, m = (i + 1) & 63, (j + 1) & 63
    x, y, grain = _smooth(u - low_u), _smooth(v - low_v), scene.grain
    left, right = grain[i, j] * (1 - x) + grain[k, j] * x, grain[i, m] * (1 - x) + grain[k, m] * x
    return np.asarray(left * (1 - y) + right * y)


def _lines(place: Numbers, step: float, blur: Numbers) -> Numbers:
    """Cover share of thin lines at every multiple of ``step``, blurred over a length."""
    thin = np.float32(0.022)
    wide = np.maximum(blur, thin)
    off = np.abs(place - np.float32(step) * np.round(place / np.float32(step)))
    return np.asarray(np.clip((wide - off) / wide * 2, 0, 1) * (thin / wide))


def _stain(scene: Scene, points: Vectors, blur: Numbers) -> Numbers:
    """Share of the second colour of the floor's texture, blurred over a length."""
    c, s, right, ahead = scene.turn
    u, v = c * points[0] + s * points[2] + right, c * points[2] - s * points[0] + ahead
    fine = np.clip(1 - blur * 6, 0, 1)
    cloud = _noise(scene, u * 0.7, v * 0.7) * 0.6 + _noise(scene, u * 2.3, v * 2.3) * 0.4
    if scene.floor == "planks":
        tone = scene.grain[np.floor(v / np.float32(0.62)).astype(np.int64) & 63, 7]
        shift = u + tone * 11
        veins = (_noise(scene, shift * 0.9 + tone * 50, v * 13) - 0.5) * fine
        seams = np.maximum(_lines(v, 0.62, blur), _lines(shift, 3.1, blur))
        share = 0.55 * tone + 0.75 * veins + 0.25 * cloud + 0.7 * seams
    elif scene.floor == "tiles":
        tone = scene.grain[np.floor(u).astype(np.int64) & 63, np.floor(v).astype(np.int64) & 63]
        share = 0.4 * tone + 0.4 * cloud + 0.9 * np.maximum(_lines(u, 1, blur), _lines(v, 1, blur))
    elif scene.floor == "checks":
        sides = [np.abs(place - 2 * np.floor(place / 2) - 1) - 0.5 for place in (u * 1.1, v * 1.1)]
        a, b = (np.clip(side / np.maximum(blur, np.float32(0.01)), -1, 1) for side in sides)
        share = 0.35 + 0.42 * a * b + 0.35 * cloud
    elif scene.floor == "stone":
        share = cloud + (np.clip((_noise(scene, u * 11, v * 11) - 0.68) * 5, 0, 1) * 0.6 - 0.1) * fine
    else:
        weave = _noise(scene, u * 17, v * 5) + _noise(scene, u * 5, v * 17) - 1
        share = 0.15 + 0.6 * cloud + 0.8 * weave * fine
    return np.asarray(np.clip(share, 0, 1))


def _backdrop(scene: Scene, ways: Vectors) -> Vectors:
    return np.asarray(scene.backdrop[:, None] * (1 - np.float32(0.5) * np.clip(ways[1] * 3, -0.4, 1)))


def _floor_light(scene: Scene, ways: Vectors, depth: Numbers) -> Vectors:
    points = scene.eye[:, None] + ways * depth
    stain = _stain(scene, points, depth * depth * np.float32(scene.zoom * 2 / FRAME) / scene.eye[1])
    albedo = scene.stains[:, :1] * (1 - stain) + scene.stains[:, 1:] * stain
    lit, sky, back = _around(scene, points, vector(0, 1, 0)[:, None], -1)
    light = scene.lamp[:, None] * (scene.light[1, 0] * lit) + scene.sky[:, None] * sky + back * np.float32(0.5)
    haze = _smooth((depth - 12) / 22)
    return np.asarray(albedo * light * (1 - haze) + _backdrop(scene, ways) * haze)


def _solid_light(scene: Scene, number: int, ways: Vectors, depth: Numbers) -> Vectors:
    solid, sun = scene.solids[number], scene.light[:, :1]
    points = scene.eye[:, None] + ways * depth
    normals = _along(solid.axes.T, _normals(solid, _along(solid.axes, points - solid.centre[:, None])))
    lit, sky, back = _around(scene, points, normals, number)
    lit = lit * np.maximum(_dot(sun, normals), 0)
    ground = scene.stains[:, :1] * np.clip(points[1] * 1.4 + 0.2, 0, 1)
    rise = 0.5 + 0.5 * normals[1]
    ambient = (scene.sky[:, None] * rise + ground * (1 - rise)) * sky + back * np.float32(0.5)
    paint = solid.albedo[:, None] * (scene.lamp[:, None] * lit + ambient)

    seen = -_dot(normals, ways)
    spot, wide = _dot(normals, unit(sun - ways)), np.float32(solid.roughness**4)
    spread = spot * spot * (wide - 1) + 1
    shine = np.float32(solid.mirror) * wide / (3 * spread * spread + np.float32(1e-6))  # GGX without its masking term
    rim = (1 - np.clip(seen, 0, 1)) ** 2
    fresnel = np.float32(solid.mirror) + np.float32(1 - 1.6 * solid.roughness) * rim * rim * np.float32(0.6)
    mirrored = ways + normals * (2 * seen)
    high, up = np.maximum(mirrored[1], 0), np.clip(0.5 + mirrored[1] * 5, 0, 1)
    above = scene.backdrop[:, None] * (1 - high) + scene.sky[:, None] * 2 * high
    glance = (above * up + ground * (1 - up)) * sky
    return np.asarray(paint * (1 - fresnel) + glance * fresnel + scene.lamp[:, None] * (shine * lit))


def _look(scene: Scene, ways: Vectors) -> tuple[Vectors, Int[np.ndarray, " n"]]:
    """Give the brightness on the screen, 0 to 1, along rays from the eye, and the solid (-1: none) that each meets."""
    first, depth = trace(scene, ways)
    light = _backdrop(scene, ways)
    rows = np.flatnonzero((first == -1) & (ways[1] < -0.02))
    light[:, rows] = _floor_light(scene, ways[:, rows], -scene.eye[1] / ways[1, rows])
    for number in range(len(scene.solids)):
        rows = np.flatnonzero(first == number)
        light[:, rows] = _solid_light(scene, number, ways[:, rows], depth[rows])
    light *= np.float32(0.62)  # and a film's curve, which keeps highlights soft
    return np.clip(light * (2.51 * light + 0.03) / (light * (2.43 * light + 0.59) + 0.14), 0, 1), first


def render(scene: Scene, pixels: int) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
    """Picture a scene.

    Returns
    -------
    image : uint8 array of shape (pixels, pixels, 3)
        sRGB. Pixels at outlines are means over 4 × 4 rays.
    mask : uint8 array of shape (pixels, pixels)
        ``code`` of the solid that the ray through the pixel's centre meets, or 0.
    """
    x, y = centres(pixels)
    colour, first = _look(scene, ways_through(scene, x, y))
    grid, edge = first.reshape(pixels, pixels), np.zeros((pixels, pixels), dtype=bool)
    edge[1:] = grid[1:] != grid[:-1]
    edge[:, 1:] |= grid[:, 1:] != grid[:, :-1]
    edge[:-1] |= grid[1:] != grid[:-1]
    edge[:, :-1] |= grid[:, 1:] != grid[:, :-1]
    rows = np.flatnonzero(edge)
    down, right = np.divmod(np.arange(_SUBPIXELS**2)[:, None], _SUBPIXELS)
    aside, below = (((place + 0.5) / _SUBPIXELS - 0.5) / pixels for place in (right, down))
    fine = _look(scene, ways_through(scene, (x[rows] + aside).ravel(), (y[rows] + below).ravel()))[0]
    colour[:, rows] = sum(np.moveaxis(fine.reshape(3, _SUBPIXELS**2, -1), 1, 0)) / np.float32(_SUBPIXELS**2)
    linear = np.linspace(0, 1, 1 << 14)
    curve = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    levels = (255 * curve).round().astype(np.uint8)
    image = levels[(colour * np.float32(len(levels) - 1)).round().astype(np.int64)]
    codes = np.array([solid.code for solid in scene.solids] + [0], dtype=np.uint8)
    return np.ascontiguousarray(image.T).reshape(pixels, pixels, 3), codes[first].reshape(pixels, pixels)
