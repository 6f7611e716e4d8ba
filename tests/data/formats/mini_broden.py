"""A Broden of a few noisy pictures: index.csv, label.csv, category.csv, c_*.csv and RGB-coded segmentations."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

FORMAT = "broden"
OPTIONS: dict[str, Any] = {"dataset": "pascal"}
WIDTH, HEIGHT = 64, 48
PICTURES = 40
SMALL = (31, 24)  # 31 is not half of 64: sizes need not divide

LABELS = [
    (1, "black-c", "color(40)"),
    (7, "dog", "object(30)"),
    (12, "head", "part(25)"),
    (30, "chair", "object(9);part(3)"),
    (255, "sky", "object(20)"),
    (300, "leg, arm", "part(7)"),
    (301, "wood", "material(9);object(1)"),
    (302, "striped", "texture(12)"),
    (303, "street-s", "scene(12)"),
]
"""Number 255 is an ordinary label of Broden; numbers above it need the green channel."""

CATEGORIES = ("color", "object", "part", "material", "scene", "texture")


def build(folder: Path) -> Path:
    """Pictures of pascal, and a few of opensurfaces and of dtd."""
    root = folder / "broden1_mini"
    write_labels(root)
    rows = [pascal(root, number) for number in range(PICTURES)]
    rows += [opensurfaces(root, number) for number in range(4)]
    rows += [dtd(root, number) for number in range(2)]
    write_index(root, rows)
    return root


def object_labels(number: int) -> np.ndarray:
    """Objects: mostly sky above, a dog or a chair below it, nothing at the bottom."""
    labels = np.zeros(SMALL[::-1], dtype=np.int64)
    if number % 7 != 6:
        labels[:6] = 255
    if number % 4 != 3:
        labels[8:18, 5 + number % 3 : 20] = (7, 30, 7)[number % 4]
    return labels


def part_labels(number: int) -> list[np.ndarray]:
    """Parts: none, one plane, or two that overlap."""
    first, second = (np.zeros(SMALL[::-1], dtype=np.int64) for _ in range(2))
    first[8:12, 6:12] = 12 if number % 2 == 0 else 30
    second[10:16, 8:18] = 300
    return [[], [first], [first, second]][number % 3]


def pascal(root: Path, number: int) -> dict[str, Any]:
    name = f"pascal/2008_{number:06d}"
    picture(root, name, number)
    objects = [f"{name}_object.png"]
    segmentation(root, objects[0], object_labels(number))
    planes = part_labels(number)
    parts = [f"{name}_part_{plane + 1}.png" for plane in range(len(planes))]
    for part, labels in zip(parts, planes, strict=True):
        segmentation(root, part, labels)
    segmentation(root, f"{name}_color.png", np.ones(SMALL[::-1], dtype=np.int64))
    return row(name, number, color=[f"{name}_color.png"], object=objects, part=parts)


def opensurfaces(root: Path, number: int) -> dict[str, Any]:
    name = f"opensurfaces/{number}"
    picture(root, name, 100 + number)
    labels = np.zeros(SMALL[::-1], dtype=np.int64)
    labels[number : number + 9] = 301
    segmentation(root, f"{name}_material.png", labels)
    return row(name, number, material=[f"{name}_material.png"])


def dtd(root: Path, number: int) -> dict[str, Any]:
    name = f"dtd/striped_{number:04d}"
    picture(root, name, 200 + number)
    return row(name, number, texture=["302", "303"][: number + 1], scene=["303"] if number == 0 else [])


def row(name: str, number: int, **cells: list[str]) -> dict[str, Any]:
    fixed = {"image": f"{name}.jpg", "split": "val" if number % 5 in (0, 2, 3) else "train", "ih": HEIGHT, "iw": WIDTH}
    small = {"sh": SMALL[1], "sw": SMALL[0]}
    return fixed | small | {category: ";".join(cells.get(category, [])) for category in CATEGORIES}


def picture(root: Path, name: str, seed: int) -> None:
    path = root / "images" / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def segmentation(root: Path, name: str, labels: np.ndarray) -> None:
    coded = np.zeros((*labels.shape, 3), dtype=np.uint8)
    coded[:, :, 0], coded[:, :, 1] = labels % 256, labels // 256
    Image.fromarray(coded).save(root / "images" / name)


def write_labels(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "label.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "name", "category", "frequency", "coverage", "syns"])
        writer.writerows([*label, 9, 1.25, ""] for label in LABELS)
    with (root / "category.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "first", "last", "count", "frequency"])
        writer.writerows([category, 1, 303, 3, 40] for category in CATEGORIES)
    for category in CATEGORIES:
        with (root / f"c_{category}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["code", "number", "name", "frequency", "coverage"])
            inside = [label for label in LABELS if category in label[2]]
            writer.writerows([code, label[0], label[1], 9, 1.25] for code, label in enumerate(inside, start=1))


def write_index(root: Path, rows: list[dict[str, Any]]) -> None:
    with (root / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "split", "ih", "iw", "sh", "sw", *CATEGORIES])
        writer.writeheader()
        writer.writerows(rows)


def write_metadata(path: Path, columns: list[str]) -> Path:
    """Write a metadata.csv in the manner of the paper: some pictures of pascal, in another order, with an index."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", "image_path", *columns, "split"])
        for place, number in enumerate((9, 2, 4, 0, 7, 5)):
            occurring = set(np.unique(object_labels(number)).tolist())
            for labels in part_labels(number):
                occurring |= set(np.unique(labels).tolist())
            present = {name for label, name, _ in LABELS if label in occurring}
            flags = [int(column.rpartition("::")[2] in present) for column in columns]
            image = f"../Broden/dataset/broden1_224/images/pascal/2008_{number:06d}.jpg"
            writer.writerow([place, image, *flags, ("train", "cal", "test")[place % 3]])
    return path
