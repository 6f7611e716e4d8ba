"""Miniatures of the three layouts of plain folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.formats.mini_pictures import COLOURS, HEIGHT, WIDTH, Picture, pictures

FORMAT = "mask-folders"
OPTIONS: dict[str, Any] = {}
IDS = {"person": 1, "car": 2, "bus": 7, "dog": 9}
PARTS = {"train": pictures(16, "t", 1), "val": pictures(12, "v", 2), "test": pictures(12, "s", 3)}


def ids(picture: Picture) -> np.ndarray:
    """Later things hide earlier ones; the last row is unlabelled."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for thing in picture.boxes:
        mask[picture.mask(thing)] = IDS[thing]
    mask[-1] = 255
    return mask


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def build(folder: Path) -> Path:
    """Write layout "classes": ``{train,val,test}/images``, ``{train,val,test}/masks`` and ``classes.json``."""
    for part, made in PARTS.items():
        for picture in made:
            save(folder / part / "images" / f"{picture.name}.png", picture.pixels)
            save(folder / part / "masks" / f"{picture.name}.png", ids(picture))
    (folder / "classes.json").write_text(json.dumps({"0": "background", **{str(v): k for k, v in IDS.items()}}))
    return folder


def build_concepts(folder: Path) -> Path:
    """Write layout "concepts": ``images``, ``masks/CONCEPT`` in several kinds of file, and ``splits.csv``."""
    lines = ["file,split"]
    for part, made in PARTS.items():
        for picture in made:
            save(folder / "images" / f"{picture.name}.jpg", picture.pixels)
            lines.append(f"{picture.name}.jpg,{part}")
            for place, thing in enumerate(picture.boxes):
                mask = picture.mask(thing)
                grey = mask.astype(np.uint8)
                kinds = [mask, grey, grey * 255, np.stack([grey * 0, grey * 9, grey], 2)]
                save(folder / "masks" / thing / f"{picture.name}.png", kinds[place])
    (folder / "splits.csv").write_text("\n".join(lines))
    return folder


def build_labels(folder: Path, parts: bool = True) -> Path:
    """Write layout "labels": a folder for each concept, in ``train``, ``val`` and ``test`` if asked."""
    for part, made in PARTS.items():
        for number, picture in enumerate(made):
            concept = list(COLOURS)[number % 4]
            place = folder / part / concept if parts else folder / concept
            save(place / f"{picture.name}.png", picture.pixels)
    return folder
