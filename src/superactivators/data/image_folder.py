"""Reader of the open image format: a folder with ``samples.jsonl``, masks and ``classes.json`` (docs/data.md)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from superactivators.data.dataset import VOID, ConceptDataset, ImageSample
from superactivators.data.faults import Faults
from superactivators.data.jsonl import Record, is_name, listed_concepts, note_repeated_ids, read_records
from superactivators.data.pixels import UNREADABLE, open_mask
from superactivators.errors import DataError, allowed

FILE = "samples.jsonl"
CLASSES = "classes.json"


def read_image_folder(folder: Path, *, check_masks: bool = True) -> ConceptDataset:
    """Read images with index masks.

    Each line of ``samples.jsonl`` holds ``id`` and ``image`` (a path within the folder), and may hold ``mask``,
    ``labels``, ``split`` and ``group``. ``classes.json`` maps each mask id to a concept name or a list of names.
    Ids 0 (none of the classes) and 255 (unlabelled) are no concepts.

    Parameters
    ----------
    folder : Path
        Holds both files; its name becomes the data set's.
    check_masks : bool
        Also decode every image and mask and look for unknown ids. Off, only their headers are read.

    Returns
    -------
    ConceptDataset
        Concepts in the order of ``concepts.json`` if there is one, then of ``classes.json``, then others.

    Raises
    ------
    DataError
        One error that lists every fault with file and line: missing or unreadable image or mask, sizes that differ,
        unknown mask id or label, unknown split, duplicate id, path outside the folder.
    """
    faults = Faults()
    listed = listed_concepts(folder, faults)
    classes = _read_classes(folder / CLASSES, faults)
    concepts = list(dict.fromkeys(name for names in classes.values() for name in names))
    read: list[ImageSample] = []
    named: list[tuple[Record, str]] = []
    for record in read_records(folder / FILE, faults):
        name = record.text("id", required=True)
        image = _file(record, folder, "image", required=True)
        masks = _masks(record, folder)
        labels = record.strings("labels")
        for label in labels or ():
            if classes and label not in concepts:
                record.fault(f"label {label!r} is not in {CLASSES}; {allowed(label, concepts)}")
        split, group = record.split(), record.text("group", required=False)
        if image is not None:
            _check_pair(record, image, masks, classes, check_masks)
        if name is not None:
            named.append((record, name))
            if image is not None:
                given = None if labels is None else frozenset(labels)
                mask = masks[0] if len(masks) == 1 else masks or None
                read.append(ImageSample(name, image, mask, given, split, group))
    note_repeated_ids(named)
    if not len(faults) and not read:
        faults.add(folder / FILE, None, "has no samples; give one JSON object a line")
    if not classes and any(sample.mask is not None for sample in read):
        faults.add(
            folder / CLASSES,
            None,
            'is missing, but masks are given; map each mask id to a name: {"1": "cat"}',
        )
    faults.raise_if_any(f"data set {folder}")
    found = set(concepts) | {label for sample in read for label in sample.labels or ()}
    concepts = list(dict.fromkeys([*listed, *concepts, *sorted(found)]))
    return ConceptDataset(folder.resolve().name, tuple(concepts), tuple(read), classes)


def _read_classes(path: Path, faults: Faults) -> dict[int, tuple[str, ...]]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        faults.add(path, None, f"is not readable JSON ({error})")
        return {}
    if not isinstance(content, dict):
        faults.add(path, None, 'must be an object that maps mask ids to names, such as {"1": "cat"}')
        return {}
    classes: dict[int, tuple[str, ...]] = {}
    for key, value in content.items():
        names = [value] if isinstance(value, str) else value
        if not key.isdecimal() or len(key) > 5 or int(key) > 65535:
            faults.add(path, None, f"mask id {key!r:.20} must be a whole number from 0 to 65535")
        elif not isinstance(names, list) or not names or not all(is_name(n) for n in names):
            faults.add(path, None, f"mask id {key} must map to a name or a list of names; got {json.dumps(value)}")
        elif int(key) not in (0, VOID):
            classes[int(key)] = tuple(names)
    return classes


def _masks(record: Record, folder: Path) -> tuple[Path, ...]:
    """Read the field ``mask``: one path, or a list of them where pixels carry several ids."""
    names = record.text_or_texts("mask")
    found = [_inside(record, folder, "mask", name) for name in names]
    return tuple(path for path in found if path is not None)


def _file(record: Record, folder: Path, field: str, *, required: bool) -> Path | None:
    name = record.text(field, required=required)
    return None if name is None else _inside(record, folder, field, name)


def _inside(record: Record, folder: Path, field: str, name: str) -> Path | None:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        record.fault(f"{field} {name!r} must be a path within the data folder")
        return None
    if not os.path.isfile(path):  # unlike Path.is_file, it takes names that no file system allows
        record.fault(f"{field} {name!r:.80} does not exist")
        return None
    return path


def _check_pair(
    record: Record, image: Path, masks: tuple[Path, ...], classes: dict[int, tuple[str, ...]], decode: bool
) -> None:
    try:
        with Image.open(image) as opened:
            size = opened.size
            if decode:
                opened.load()
    except UNREADABLE as error:
        record.fault(f"image {image.name!r} cannot be read ({str(error).splitlines()[0]})")
        return
    for mask in masks:
        _check_mask(record, mask, size, classes, decode)


def _check_mask(
    record: Record, mask: Path, size: tuple[int, int], classes: dict[int, tuple[str, ...]], decode: bool
) -> None:
    try:
        with Image.open(mask) as opened:
            mask_size = opened.size
        if mask_size != size:
            record.fault(
                f"mask {mask.name!r} is {mask_size[0]} x {mask_size[1]} pixels, but its image is {size[0]} x {size[1]}"
            )
        elif decode:
            content = open_mask(mask)
            known = np.array([0, VOID, *classes], dtype=np.int64)
            unknown = np.setdiff1d(np.unique(content), known)
            if len(unknown):
                record.fault(f"mask {mask.name!r} has ids that {CLASSES} does not name: {unknown[:8].tolist()}")
    except UNREADABLE as error:
        message = str(error) if isinstance(error, DataError) else f"cannot be read ({str(error).splitlines()[0]})"
        record.fault(f"mask {mask.name!r}: {message}")
