"""A miniature of VOC 2012: palette masks with a void border, lists of train and val, and images that none lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.formats.mini_pictures import HEIGHT, WIDTH, Picture, pictures

FORMAT = "voc"
OPTIONS: dict[str, Any] = {}
IDS = {"person": 15, "car": 7, "bus": 6, "dog": 12}
TRAIN, VAL, OTHER = pictures(20, "2007_00", 1), pictures(24, "2008_00", 2), pictures(2, "2009_00", 3)


def palette() -> list[int]:
    """VOC's colours of ids 0 to 255, by shifting the bits of the id one by one."""
    colours = []
    for identity in range(256):
        red = green = blue = 0
        rest = identity
        for place in range(7, -1, -1):
            red += (rest % 2) * 2**place
            green += (rest // 2 % 2) * 2**place
            blue += (rest // 4 % 2) * 2**place
            rest //= 8
        colours += [red, green, blue]
    return colours


def ids(picture: Picture) -> np.ndarray:
    """Later things hide earlier ones; the outermost pixels of each are void."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for thing, (left, top, right, bottom) in picture.boxes.items():
        mask[top:bottom, left:right] = 255
        mask[top + 1 : bottom - 1, left + 1 : right - 1] = IDS[thing]
    return mask


def save_palette(path: Path, mask: np.ndarray) -> None:
    image = Image.fromarray(mask)
    image.putpalette(palette())
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def build(folder: Path) -> Path:
    """Write ``VOCdevkit/VOC2012``."""
    root = folder / "VOCdevkit" / "VOC2012"
    for inner in ("JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation", "Annotations"):
        (root / inner).mkdir(parents=True, exist_ok=True)
    for picture in TRAIN + VAL + OTHER:
        Image.fromarray(picture.pixels).save(root / "JPEGImages" / f"{picture.name}.jpg", quality=95)
    for picture in TRAIN + VAL:
        save_palette(root / "SegmentationClass" / f"{picture.name}.png", ids(picture))
    for name, made in (("train", TRAIN), ("val", VAL), ("trainval", TRAIN + VAL)):
        lines = "".join(f"{picture.name}\n" for picture in made)
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text(lines)
    return folder
