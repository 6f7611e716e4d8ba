"""A miniature of COCO 2017: two instance files with gaps in the category ids, and every notation of an outline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.formats.mini_pictures import HEIGHT, WIDTH, Picture, pictures

FORMAT = "coco"
OPTIONS: dict[str, Any] = {}
CATEGORIES = [
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "vehicle", "id": 3, "name": "car"},
    {"supercategory": "vehicle", "id": 6, "name": "bus"},
    {"supercategory": "animal", "id": 18, "name": "dog"},
]
IDS = {str(category["name"]): int(str(category["id"])) for category in CATEGORIES}
CONCEPTS = ("person", "car", "bus", "dog", "vehicle", "animal")


def corners(box: tuple[int, int, int, int]) -> list[float]:
    left, top, right, bottom = box
    return [left, top, right, top, right, bottom, left, bottom]


def runs(mask: np.ndarray) -> list[int]:
    """Run lengths down the columns, those of zeros first, by a plain loop."""
    lengths, value, length = [], 0, 0
    for pixel in mask.T.ravel().tolist():
        if int(pixel) != value:
            lengths.append(length)
            value, length = int(pixel), 0
        length += 1
    return [*lengths, length]


def compressed(lengths: list[int]) -> str:
    """COCO's compressed notation of run lengths, by a plain loop."""
    signs = []
    for place, length in enumerate(lengths):
        value = length - lengths[place - 2] if place > 2 else length
        while True:
            low, value = value & 31, value >> 5
            done = (value == 0 and not low & 16) or (value == -1 and bool(low & 16))
            signs.append(chr(48 + low + (0 if done else 32)))
            if done:
                break
    return "".join(signs)


def annotation(picture: Picture, thing: str, notation: int) -> dict[str, Any]:
    """One object in one of five notations."""
    left, top, right, bottom = box = picture.boxes[thing]
    size, mask = [HEIGHT, WIDTH], picture.mask(thing)
    middle = (left + right) // 2
    outlines: list[Any] = [
        [corners(box)],
        [corners((left, top, middle, bottom)), corners((middle, top, right, bottom)), [1.0, 1.0, 9.0, 9.0]],
        {"size": size, "counts": runs(mask)},
        {"size": size, "counts": compressed(runs(mask))},
        [],
    ]
    return {
        "segmentation": outlines[notation],
        "area": float(mask.sum()),
        "iscrowd": int(notation == 2),
        "bbox": [left, top, right - left, bottom - top],
        "category_id": IDS[thing],
    }


def instances(made: list[Picture], first: int = 1) -> dict[str, Any]:
    """The content of an instances file; notations go by turns, so that each thing has all of them."""
    images, annotations = [], []
    for number, picture in enumerate(made):
        key = first + 7 * number
        images.append({"license": 1, "file_name": f"{picture.name}.png", "height": HEIGHT, "width": WIDTH, "id": key})
        for thing in picture.boxes:
            made_one = annotation(picture, thing, (number + len(annotations)) % 5)
            annotations.append({**made_one, "image_id": key, "id": 1000 * first + len(annotations)})
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": CATEGORIES}


def write_images(folder: Path, made: list[Picture]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for picture in made:
        Image.fromarray(picture.pixels).save(folder / f"{picture.name}.png")


TRAIN, VAL = pictures(20, "0000001", 1), pictures(24, "0000009", 2)


def build(folder: Path) -> Path:
    """Write ``annotations/instances_{train,val}2017.json`` and the two folders of images."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for part, made, first in (("train2017", TRAIN, 1), ("val2017", VAL, 500)):
        write_images(folder / part, made)
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(instances(made, first)))
    return folder
