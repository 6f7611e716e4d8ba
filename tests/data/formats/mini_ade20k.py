"""Miniatures of both releases of ADE20K."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.formats.mini_pictures import HEIGHT, WIDTH, Picture, pictures

FORMAT = "ade20k"
OPTIONS: dict[str, Any] = {}
IDS = {"person": 13, "car": 21, "bus": 81, "dog": 127}
NAMES = {
    13: ("0.02", "person, individual, someone"),
    21: ("0.01", "car, auto, automobile"),
    81: ("0.0009", "bus, autobus "),
    127: ("0.001", "dog"),
    131: ("0.0005", "screen, silver screen"),
    142: ("0.0004", "screen, CRT screen"),
}
TRAIN, VAL = pictures(20, "ADE_train_00000", 1), pictures(24, "ADE_val_00000", 2)
CODES = {"person": 1831, "car": 401, "bus": 255, "dog": 256}
"""Class codes of the full release; two are at the edge of the second colour channel."""
WHEEL = 2978
FULL_NAMES = {1831: "person, individual", 401: "car, auto", 255: "bus", 256: "dog", WHEEL: "wheel, café"}


def ids(picture: Picture) -> np.ndarray:
    """Later things hide earlier ones."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for thing in picture.boxes:
        mask[picture.mask(thing)] = IDS[thing]
    return mask


def names_file(stuff: bool) -> str:
    head = ["Idx", "Ratio", "Train", "Val", *(["Stuff"] if stuff else []), "Name"]
    rows = [[str(key), ratio, "5", "2", *(["0"] if stuff else []), name] for key, (ratio, name) in NAMES.items()]
    return "".join("\t".join(row) + "\n" for row in [head, *rows])


def build(folder: Path, stuff: bool = True) -> Path:
    """Write the release of 2016."""
    root = folder / "ADEChallengeData2016"
    for part, made in (("training", TRAIN), ("validation", VAL)):
        for inner in ("images", "annotations"):
            (root / inner / part).mkdir(parents=True)
        for picture in made:
            Image.fromarray(picture.pixels).save(root / "images" / part / f"{picture.name}.jpg", quality=95)
            Image.fromarray(ids(picture)).save(root / "annotations" / part / f"{picture.name}.png")
    (root / "objectInfo150.txt").write_text(names_file(stuff))
    (root / "sceneCategories.txt").write_text("ADE_train_00000000 street\n")
    return root


def coded(mask: np.ndarray) -> np.ndarray:
    """Colours of class codes; the third channel counts objects."""
    return np.stack([mask // 256 * 10, mask % 256, mask > 0], axis=2).astype(np.uint8)


def codes(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Class codes of the objects and of their parts: each car's lower half is a wheel."""
    whole, parts = (np.zeros((HEIGHT, WIDTH), dtype=np.int64) for _ in range(2))
    for thing in picture.boxes:
        whole[picture.mask(thing)] = CODES[thing]
    if "car" in picture.boxes:
        left, top, right, bottom = picture.boxes["car"]
        parts[(top + bottom) // 2 : bottom, left:right] = WHEEL
    return whole, parts


def build_full(folder: Path) -> Path:
    """Write the release of 2021: scene folders, colour-coded masks, a JSON for each image (some in Latin-1)."""
    root = folder / "ADE20K_2021_17_01"
    (root / "images" / "ADE").mkdir(parents=True)
    (root / "index_ade20k.pkl").write_bytes(b"not to be read")
    for part, made in (("training", TRAIN), ("validation", VAL)):
        for number, picture in enumerate(made):
            place = root / "images" / "ADE" / part / "urban" / ("street" if number % 2 else "crosswalk")
            (place / picture.name).mkdir(parents=True)
            (place / picture.name / "instance_000.png").write_bytes(b"")
            Image.fromarray(picture.pixels).save(place / f"{picture.name}.jpg", quality=95)
            whole, parts = codes(picture)
            Image.fromarray(coded(whole)).save(place / f"{picture.name}_seg.png")
            objects = [
                {"id": n, "name": FULL_NAMES[CODES[t]], "name_ndx": CODES[t], "parts": {"part_level": 0}}
                for n, t in enumerate(picture.boxes)
            ]
            if parts.any():
                Image.fromarray(coded(parts)).save(place / f"{picture.name}_parts_1.png")
                objects.append({"id": 9, "name": FULL_NAMES[WHEEL], "name_ndx": WHEEL, "parts": {"part_level": 1}})
            content = json.dumps(
                {"annotation": {"filename": f"{picture.name}.jpg", "object": objects}}, ensure_ascii=False
            )
            (place / f"{picture.name}.json").write_bytes(content.encode("latin-1" if number % 2 else "utf-8"))
    return root
