"""A CLEVR of a few painted pictures, laid out as its generator, its publishers and the paper's authors lay it out."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FORMAT = "clevr"
OPTIONS: dict[str, Any] = {}
WIDTH, HEIGHT = 64, 48
PICTURES = 48
PAINTS = {"red": (173, 35, 35), "green": (29, 105, 20), "blue": (42, 75, 215), "gray": (87, 87, 87)}
SHAPES = ("cube", "sphere", "cylinder")


def build(folder: Path) -> Path:
    """Pictures of one object each, as the generator writes them: one scene file a picture, split ``new``."""
    root = folder / "clevr"
    for number in range(PICTURES):
        write_scene(root, f"CLEVR_new_{number:06d}", "new", number, [single(number)])
    return root


def single(number: int) -> dict[str, Any]:
    """Make the object of a picture."""
    return solid(tuple(PAINTS)[number % 3], SHAPES[number // 3 % 3], 14 + number, 12 + number % 20)


def solid(colour: str, shape: str, x: int, y: int, radius: int = 8, **more: Any) -> dict[str, Any]:
    """Make one object of a scene file; ``radius`` is ours."""
    return {
        "color": colour,
        "shape": shape,
        "material": "rubber" if x % 2 else "metal",
        "size": "large" if radius > 6 else "small",
        "pixel_coords": [x, y, 11.25],
        "3d_coords": [x / 10 - 3, y / 10 - 2.4, 0.7],
        "rotation": 30.0,
        "radius": radius,
    } | more


def covers(thing: dict[str, Any], x: int, y: int) -> bool:
    """Whether an object covers a pixel: cubes are squares, spheres discs, cylinders upright boxes."""
    right, down, radius = x - thing["pixel_coords"][0], y - thing["pixel_coords"][1], thing["radius"]
    if thing["shape"] == "sphere":
        return right * right + down * down <= radius * radius
    return abs(right) <= (radius if thing["shape"] == "cube" else radius // 2) and abs(down) <= radius


def paint(things: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Paint the picture, shadows included, and which object (from 1) each pixel shows; later ones are in front."""
    picture, owner = _painted(json.dumps(things))
    return picture.copy(), owner.copy()


@cache
def _painted(content: str) -> tuple[np.ndarray, np.ndarray]:
    things = json.loads(content)
    picture = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)
    owner = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for y in range(HEIGHT):
        for x in range(WIDTH):
            shade = any(covers(thing, x - 3, y - 3) for thing in things)
            picture[y, x] = (60, 62, 65) if shade else (128 + x % 5, 128, 126 + y % 7)
            for number, thing in enumerate(things, start=1):
                if covers(thing, x, y):
                    picture[y, x] = PAINTS[thing["color"]]
                    owner[y, x] = number
    return picture, owner


def write_scene(root: Path, name: str, split: str, number: int, things: list[dict[str, Any]]) -> dict[str, Any]:
    """Write one picture and its scene file; returns the scene."""
    save(root / "images" / f"{name}.png", paint(things)[0])
    scene = scene_of(name, split, number, things)
    path = root / "scenes" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(scene))
    return scene


def scene_of(name: str, split: str, number: int, things: list[dict[str, Any]]) -> dict[str, Any]:
    """Scene as JSON, with the fields that nobody here reads."""
    objects = [{key: value for key, value in thing.items() if key != "radius"} for thing in things]
    return {
        "split": split,
        "image_index": number,
        "image_filename": f"{name}.png",
        "objects": objects,
        "relationships": {"left": [[] for _ in things]},
        "directions": {"left": [-0.65, -0.75, 0.0]},
    }


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def published(folder: Path, things: dict[str, list[list[dict[str, Any]]]]) -> Path:
    """Lay pictures out as CLEVR v1.0: images/{split}/ and one merged scene file a split; test has no scenes."""
    root = folder / "CLEVR_v1.0"
    (root / "scenes").mkdir(parents=True)
    for split, pictures in things.items():
        names = [f"CLEVR_{split}_{number:06d}" for number in range(len(pictures))]
        for name, objects in zip(names, pictures, strict=True):
            save(root / "images" / split / f"{name}.png", paint(objects)[0])
        if split != "test":
            scenes = [scene_of(name, split, number, pictures[number]) for number, name in enumerate(names)]
            content = {"info": {"split": split, "version": "1.0"}, "scenes": scenes}
            (root / "scenes" / f"CLEVR_{split}_scenes.json").write_text(json.dumps(content))
    return root


COLUMNS = ("color::blue", "color::green", "color::red", "shape::cube", "shape::cylinder", "shape::sphere")


def paper_layout(folder: Path, count: int = 12) -> Path:
    """Lay pictures out as in the paper's repository: images/ and metadata.csv with a column ``class``."""
    root = folder / "CLEVR"
    root.mkdir(parents=True)
    with (root / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_path", "class", *COLUMNS, "split"])
        for number in range(count):
            colour, shape = tuple(PAINTS)[number % 3], SHAPES[number // 3 % 3]
            save(
                root / "images" / f"CLEVR_new_{number:06d}.png",
                paint([solid(colour, shape, 20 + number, 20 + number)])[0],
            )
            flags = [int(name in (f"color::{colour}", f"shape::{shape}")) for name in COLUMNS]
            split = ("train", "test", "cal", "train")[number % 4]
            writer.writerow([f"images/CLEVR_new_{number:06d}.png", f"{colour}_{shape}", *flags, split])
    return root
