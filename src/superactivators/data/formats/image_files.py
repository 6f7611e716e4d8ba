"""Image files of a folder by their names."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from superactivators.data.faults import Faults
from superactivators.data.pixels import UNREADABLE

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif"})


def is_image(path: Path) -> bool:
    """Whether a file's name is that of an image; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and os.path.isfile(path)


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, by name; empty where there is no such folder."""
    return sorted(path for path in folder.iterdir() if is_image(path)) if folder.is_dir() else []


def folders_in(folder: Path) -> list[Path]:
    """Folders directly in a folder, by name, without hidden ones; empty where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def by_stem(paths: list[Path], faults: Faults) -> dict[str, Path]:
    """Files by their names without suffix; two of one stem are noted as a fault."""
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            faults.add(path, None, f"has the same name as {found[path.stem].name}; give each image a name of its own")
        found.setdefault(path.stem, path)
    return found


def header(path: Path, faults: Faults) -> tuple[tuple[int, int], str] | None:
    """Width and height, and mode, from the head of an image file; a file that cannot be read is noted as a fault."""
    try:
        with Image.open(path) as opened:
            return opened.size, opened.mode
    except UNREADABLE as error:
        faults.add(path, None, f"cannot be read as an image ({str(error).splitlines()[0]})")
        return None


def check_sizes(image: Path, mask: Path, faults: Faults) -> str | None:
    """Mode of the mask; noted as a fault are files that cannot be read and a mask that has not its image's size."""
    of_image, of_mask = header(image, faults), header(mask, faults)
    if of_image is None or of_mask is None:
        return None
    if of_image[0] != of_mask[0]:
        (wide, high), (mask_wide, mask_high) = of_image[0], of_mask[0]
        faults.add(mask, None, f"is {mask_wide} x {mask_high} pixels, but its image {image.name} is {wide} x {high}")
        return None
    return of_mask[1]
