"""Writing a data set as a folder in one of the two open formats (docs/data.md)."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Integer
from PIL import Image

from superactivators.artefacts import FolderWriter, Format, writing
from superactivators.data import image_folder, text_folder
from superactivators.data.dataset import VOID, ConceptDataset, ImageSample, Sample, TextSample
from superactivators.data.jsonl import is_name
from superactivators.data.pixels import image_size, open_mask
from superactivators.errors import DataError

FORMAT = Format("superactivators/dataset", 1)
CONCEPTS = "concepts.json"
"""File with the concepts in their order, those that no sample has too."""
_LARGEST_ID = 65535
_RESERVED = re.compile(r"(?i)^(con|prn|aux|nul|com\d|lpt\d)(\.|$)")


def write_dataset(dataset: ConceptDataset, folder: Path) -> Path:
    """Write a data set in the open text or image format.

    Reading the folder gives the same samples: ids, texts, spans, labels, splits, groups and pixels of images and masks.
    Image and mask files are copied as they are; arrays and sources become PNG files. Only the data set's concepts are
    written. Beside the files that docs/data.md describes stand ``concepts.json``, the concepts in their order, and
    ``manifest.json``, by which the folder is known as ours. One sample at a time is in memory.

    Mask ids stay as they are, unless they do not fit the format (beyond 65535); ids that carry none of the data set's
    concepts become 0. Concepts that no mask id carries get one that no pixel has.

    Parameters
    ----------
    dataset : ConceptDataset
    folder : Path
        Where; it appears when it is whole, and replaces only a folder that this function wrote.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    DataError
        If a sample cannot be read, or the format cannot hold it: an empty id, text, group or concept, a span whose
        concept is not among the sample's labels, a mask of another size than its image or with ids that are no class.
    StoreError
        If something else is in the place, or it cannot be written.
    """
    for sample in dataset.samples:
        _check(sample, dataset)
    for concept in dataset.concepts:
        if not is_name(concept):
            raise DataError(f"data set {dataset.name!r}: concept {concept!r} is empty or not UTF-8; rename it")
    parameters = {"name": dataset.name, "modality": dataset.modality, "samples": len(dataset)}
    with writing(folder, FORMAT, dataset.fingerprint, parameters) as writer:
        writer.json(CONCEPTS, list(dataset.concepts))
        if dataset.modality == "text":
            records = [_text_record(sample, dataset) for sample in dataset.samples if isinstance(sample, TextSample)]
            writer.bytes(text_folder.FILE, _lines(records))
        else:
            _ImageWriter(dataset, writer).write()
    return folder


def _check(sample: Sample, dataset: ConceptDataset) -> None:
    """Refuse what the reader would refuse."""
    place = f"data set {dataset.name!r}: sample {sample.id!r}"
    if not is_name(sample.id):
        raise DataError(f"{place}: an id that is empty or not UTF-8 cannot be written; give another")
    if sample.group is not None and not is_name(sample.group):
        raise DataError(f"{place}: group {sample.group!r} is empty or not UTF-8 and cannot be written; give another")
    if isinstance(sample, ImageSample):
        for part in (sample.image, *(sample.mask if isinstance(sample.mask, tuple) else (sample.mask,))):
            if isinstance(part, Path):
                image_size(part)  # refuses what is missing or no image
    else:
        if not is_name(sample.text):
            raise DataError(f"{place}: its text is blank or not UTF-8 and cannot be written")
        for span in sample.spans:
            if sample.labels is not None and span.concept in dataset.concepts and span.concept not in sample.labels:
                raise DataError(
                    f"{place}: has a span of {span.concept!r}, which is not among its labels; add it, or give no labels"
                )


def _record(sample: Sample, dataset: ConceptDataset, **content: object) -> dict[str, object]:
    record: dict[str, object] = {"id": sample.id, **content}
    if sample.labels is not None:
        record["labels"] = [concept for concept in dataset.concepts if concept in sample.labels]
    record |= {"split": sample.split} if sample.split is not None else {}
    record |= {"group": sample.group} if sample.group is not None else {}
    return record


def _text_record(sample: TextSample, dataset: ConceptDataset) -> dict[str, object]:
    spans = [
        {"start": span.start, "end": span.end, "label": span.concept}
        for span in sample.spans
        if span.concept in dataset.concepts
    ]
    return _record(sample, dataset, text=sample.text, **({"spans": spans} if spans else {}))


def _lines(records: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


@final
class _ImageWriter:
    """Writes the files of an image data set, one sample after the other."""

    def __init__(self, dataset: ConceptDataset, writer: FolderWriter) -> None:
        self._dataset = dataset
        self._writer = writer
        self._taken: set[str] = set()
        self._copied: dict[Path, str] = {}
        masked = any(isinstance(sample, ImageSample) and sample.mask is not None for sample in dataset.samples)
        self._classes, self._new_ids = _renumbered(dataset.classes, dataset.concepts, masked)

    def write(self) -> None:
        records = []
        for sample in self._dataset.samples:
            if isinstance(sample, ImageSample):
                image = sample.image if isinstance(sample.image, Path | np.ndarray) else sample.image.load()
                files: dict[str, object] = {"image": self._file("images", sample, image, "")}
                if sample.mask is not None:
                    masks = self._masks(sample, image_size(image))
                    files["mask"] = masks[0] if len(masks) == 1 else masks
                records.append(_record(sample, self._dataset, **files))
        self._writer.bytes(image_folder.FILE, _lines(records))
        if self._classes:
            named = {str(key): names[0] if len(names) == 1 else list(names) for key, names in self._classes.items()}
            self._writer.json(image_folder.CLASSES, named)

    def _masks(self, sample: ImageSample, size: tuple[int, int]) -> list[str]:
        parts = sample.mask if isinstance(sample.mask, tuple) else (sample.mask,)
        names: list[str] = []
        for part in parts:
            if part is None:
                continue
            planes = open_mask(part)
            if planes.shape[:0:-1] != size:
                raise DataError(
                    f"sample {sample.id!r}: its mask is {planes.shape[2]} x {planes.shape[1]} pixels, but its image is "
                    f"{size[0]} x {size[1]}; give a mask of the image's size"
                )
            same = True
            renewed = []
            for plane in planes if len(planes) else np.zeros((1, *planes.shape[1:]), dtype=np.uint8):
                new = self._renewed(plane, sample.id)
                same = same and bool((new == plane).all())
                renewed.append(new)
            if isinstance(part, Path) and same:
                names.append(self._file("masks", sample, part, f"-{len(names)}" if len(parts) > 1 else ""))
            else:
                for new in renewed:
                    ending = f"-{len(names)}" if len(parts) > 1 or len(renewed) > 1 else ""
                    names.append(self._file("masks", sample, new, ending))
        return names

    def _renewed(self, plane: Integer[np.ndarray, "h w"], name: str) -> Integer[np.ndarray, "h w"]:
        """Give the ids of a mask that are written, in the smallest type that holds them."""
        held, inverse = np.unique(plane, return_inverse=True)
        for identity in held.tolist():
            if identity not in self._new_ids:
                raise DataError(f"sample {name!r}: mask id {identity} is not among the classes; add it to them")
        ids = np.array([self._new_ids[identity] for identity in held.tolist()], dtype=np.int64)
        return ids.astype(np.uint8 if ids.max() <= VOID else np.uint16)[inverse].reshape(plane.shape)

    def _file(self, folder: str, sample: ImageSample, pixels: Path | np.ndarray, ending: str) -> str:
        """Copy or write one file, and return its path within the folder."""
        if isinstance(pixels, Path):
            key = pixels.resolve()
            if key not in self._copied:
                name = self._free(f"{folder}/{_slug(sample.id)}{ending}", pixels.suffix)
                self._writer.bytes(name, pixels.read_bytes())
                self._copied[key] = name
            return self._copied[key]
        name = self._free(f"{folder}/{_slug(sample.id)}{ending}", ".png")
        sink = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(sink, format="PNG")
        self._writer.bytes(name, sink.getvalue())
        return name

    def _free(self, stem: str, suffix: str) -> str:
        """Find a path that no other file has, on file systems without upper and lower case too."""
        suffix = suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,8}", suffix) else ""
        name, number = stem + suffix, 1
        while name.lower() in self._taken:
            number += 1
            name = f"{stem}~{number}{suffix}"
        self._taken.add(name.lower())
        return name


def _slug(name: str) -> str:
    """Make a file name of an id: signs that some file system refuses become ``_``."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80].strip("._ ")
    return f"_{kept}" if not kept or _RESERVED.match(kept) else kept


def _renumbered(
    classes: Mapping[int, tuple[str, ...]], concepts: tuple[str, ...], masked: bool
) -> tuple[dict[int, tuple[str, ...]], dict[int, int]]:
    """Choose the ids that are written.

    Returns
    -------
    classes : dict
        Concepts of each written id, every concept in one at least; none where there are neither classes nor masks.
    new_ids : dict
        Written id of each id in the masks.
    """
    new_ids = {0: 0, VOID: VOID}
    kept: dict[int, tuple[str, ...]] = {}
    wanted = {i: tuple(n for n in names if n in concepts) for i, names in classes.items() if i not in (0, VOID)}
    taken = {identity for identity in wanted if 0 < identity <= _LARGEST_ID} | {VOID}
    free = (identity for identity in range(1, _LARGEST_ID + 1) if identity not in taken)
    by_names: dict[tuple[str, ...], int] = {}
    for identity, names in wanted.items():
        if not names:
            new_ids[identity] = 0
            continue
        # Ids that do not fit share one where they carry the same concepts, so that as many as possible have room.
        fits = 0 < identity <= _LARGEST_ID
        new = identity if fits else by_names.get(names)
        new = next(free, None) if new is None else new
        if new is None:
            raise DataError(f"the open image format holds {_LARGEST_ID - 1} classes; these are {len(wanted)}")
        if not fits:
            by_names[names] = new
        new_ids[identity], kept[new] = new, names
    if classes or masked:
        carried = {name for names in kept.values() for name in names}
        for concept in concepts:
            if concept not in carried:
                new = next(free, None)
                if new is None:
                    raise DataError(f"the open image format holds {_LARGEST_ID - 1} classes; merge some")
                kept[new] = (concept,)
    return kept, new_ids
