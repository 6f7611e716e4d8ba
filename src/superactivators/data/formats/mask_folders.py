"""Reader of plain folders of images with masks, or of images sorted into a folder for each concept (docs/data.md)."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, final

import numpy as np
from jaxtyping import Bool, UInt16
from PIL import Image

from superactivators.data.dataset import VOID, ConceptDataset, ImageSample
from superactivators.data.faults import Faults
from superactivators.data.formats.class_names import Naming, find_naming
from superactivators.data.formats.colour_codes import ColourMask
from superactivators.data.formats.image_files import by_stem, check_sizes, folders_in, header, images_in
from superactivators.data.formats.planes import class_ids, pack_planes
from superactivators.data.pixels import UNREADABLE, Pixels, open_mask
from superactivators.errors import DataError, allowed

LAYOUTS: Final = ("classes", "concepts", "labels")
SPLIT_OF: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("cal", "calibration", "val", "valid", "validation", "dev"), "cal"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Which split of ours the names of folders, and of a ``splits.csv``, stand for."""


def read_mask_folders(
    path: Path,
    *,
    layout: str = "",
    images: str = "",
    masks: str = "",
    names: str = "",
    splits: str = "",
    skip_unmasked: bool = False,
    check_masks: bool = True,
) -> ConceptDataset:
    """Read a folder of images with masks, without any list of them.

    Three layouts are told apart by what the folder holds:

    - ``"classes"``: folders ``images`` and ``masks`` (or CVAT's ``JPEGImages`` and ``SegmentationClass``); each image
      has one mask of its name. A mask holds class ids or colours, named by one of ``labelmap.txt``
      (``name:red,green,blue::``; masks of one channel then hold the classes' numbers in this file, background not
      counted), ``classes.json`` (``{"1": "cat"}``) or ``classes.txt`` (``1 cat`` on each line; or names only: then ids
      count from 1, or from 0 if the first name is that of background).
    - ``"concepts"``: folders ``images`` and ``masks``; ``masks`` has a folder for each concept, which has a mask for
      each image with the concept: pixels that are not black carry it. An image without any mask has no concept.
    - ``"labels"``: a folder for each concept, which holds its images. There are no masks: only samples are labelled.

    Each may stand in folders ``train``, ``val`` (or ``valid``, ``cal``) and ``test``, which become train, cal and test;
    in the first two, these may also stand within ``images`` and ``masks``. Otherwise splits are left open, unless a
    ``splits.csv`` is there: columns ``file`` (name with or without suffix) and ``split``.

    Parameters
    ----------
    path : Path
        The folder.
    layout : str
        ``"classes"``, ``"concepts"`` or ``"labels"``; left out, it is found.
    images, masks : str
        Names of the two folders, where they are others.
    names : str
        File of the class names, relative to the path, where its name is another.
    splits : str
        File of the splits, relative to the path, where it is not ``splits.csv``.
    skip_unmasked : bool
        Layout ``"classes"``: leave out images without mask instead of noting a fault.
    check_masks : bool
        Also decode every mask and look for unknown ids and colours. Off, only headers are read.

    Returns
    -------
    ConceptDataset
        Ids are the images' paths within the folder, without suffix.

    Raises
    ------
    DataError
        One line if none of the layouts is found; else one error that lists every fault: images and masks without
        counterpart, unreadable, or of other sizes; unknown ids or colours; wrong lines of the names or splits.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; give the folder of the images")
    if layout and layout not in LAYOUTS:
        raise DataError(f"option layout: {layout!r} is unknown; {allowed(layout, LAYOUTS)}")
    pairs = [] if layout == "labels" else list(_pairs(path, images, masks))
    if layout == "labels" or (not pairs and not images and not masks and not layout):
        if not layout:
            _refuse_masks(path)
        found = _read_labels(path)
    elif not pairs:
        raise _unknown(path)
    elif layout == "concepts" or (not layout and not any(images_in(pair.masks) for pair in pairs)):
        found = _read_concepts(path, pairs, check_masks)
    else:
        naming = find_naming(path, path / names if names else None)
        found = _read_classes(path, pairs, naming, skip_unmasked, check_masks)
    table = path / (splits or "splits.csv")
    return _with_splits(found, table, path) if splits or table.is_file() else found


@final
@dataclass(frozen=True)
class BinaryMasks:
    """Class ids of the pixels of one image, from one mask file for each of its concepts: what is not black counts."""

    files: tuple[tuple[int, Path], ...]

    def load(self) -> UInt16[np.ndarray, "planes h w"]:
        """Read all files; concepts that overlap go to further planes."""
        masks = [(identity, _not_black(path)) for identity, path in self.files]
        shapes = {mask.shape for _, mask in masks}
        if len(shapes) > 1:
            raise DataError(f"{self.files[0][1]}: the masks of its image differ in size; give all the image's size")
        return pack_planes(masks, (masks[0][1].shape[0], masks[0][1].shape[1]))

    def content(self) -> bytes:
        """Hash of the files and their ids."""
        digest = hashlib.sha256()
        for identity, path in self.files:
            digest.update(f"{identity}:".encode() + hashlib.sha256(path.read_bytes()).digest())
        return digest.digest()


@final
@dataclass(frozen=True)
class NoConcept:
    """Mask of an image that nothing was marked in: 0 everywhere."""

    width: int
    height: int

    def load(self) -> UInt16[np.ndarray, "h w"]:
        """Make zeros."""
        return np.zeros((self.height, self.width), dtype=np.uint16)

    def content(self) -> bytes:
        """Give the size."""
        return f"{self.width} {self.height}".encode()


def _not_black(path: Path) -> Bool[np.ndarray, "h w"]:
    try:
        with Image.open(path) as opened:
            # Transparency marks nothing, and a palette's first entry need not be black: colours and ids count.
            pixels = np.asarray(opened if opened.mode in ("1", "L", "P", "I", "I;16") else opened.convert("RGB"))
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a mask ({error}); give a PNG") from error
    marked: Bool[np.ndarray, "h w"] = pixels != 0 if pixels.ndim == 2 else (pixels != 0).any(axis=2)
    return marked


@final
@dataclass(frozen=True, slots=True)
class _Pair:
    split: str | None
    images: Path
    masks: Path


def _pairs(path: Path, images: str, masks: str) -> Iterator[_Pair]:
    """Folders of images and of masks, for each split where there are such."""
    usual = [(images or "images", masks or "masks")]
    if not images and not masks:
        usual += [("JPEGImages", "SegmentationClass"), ("images", "labels"), ("images", "annotations")]
    parts = [folder for folder in folders_in(path) if folder.name.lower() in SPLIT_OF]
    for of_images, of_masks in usual:
        held = [(SPLIT_OF[part.name.lower()], part / of_images, part / of_masks) for part in parts]
        found = [_Pair(*pair) for pair in held if pair[1].is_dir() and pair[2].is_dir()]
        if not found and (path / of_images).is_dir() and (path / of_masks).is_dir():
            inner = [folder for folder in folders_in(path / of_images) if folder.name.lower() in SPLIT_OF]
            found = [
                _Pair(SPLIT_OF[folder.name.lower()], folder, path / of_masks / folder.name)
                for folder in inner
                if (path / of_masks / folder.name).is_dir()
            ] or [_Pair(None, path / of_images, path / of_masks)]
        if found:
            yield from found
            return


def _unknown(path: Path) -> DataError:
    held = ", ".join(folder.name for folder in folders_in(path)[:8]) or "no folders"
    return DataError(
        f"{path}: is none of the layouts; it holds {held} and {len(images_in(path))} images. Give images/ with masks/, "
        "images/ with masks/CONCEPT/, or a folder of images for each concept; or name the folders with images and masks"
    )


def _name(root: Path, image: Path) -> str:
    return image.relative_to(root).with_suffix("").as_posix()


def _read_classes(
    path: Path, pairs: list[_Pair], naming: Naming, skip_unmasked: bool, check_masks: bool
) -> ConceptDataset:
    faults = Faults()
    samples = []
    for pair in pairs:
        files = by_stem(images_in(pair.images), faults)
        masks = by_stem(images_in(pair.masks), faults)
        for stem, image in files.items():
            if stem not in masks:
                if not skip_unmasked:
                    faults.add(image, None, f"has no mask of its name in {pair.masks.name}; or set skip_unmasked")
                continue
            mode = check_sizes(image, masks[stem], faults)
            mask: Pixels = masks[stem]
            if naming.codes is not None and mode != "L":
                mask = ColourMask(masks[stem], naming.codes)
            elif mode is not None and mode not in ("L", "P", "I", "I;16"):
                faults.add(
                    masks[stem],
                    None,
                    f"is in colour (mode {mode!r}), but {naming.file.name} gives ids; add a labelmap.txt",
                )
                continue
            if check_masks and mode is not None:
                _check(masks[stem], mask, naming, faults)
            samples.append(ImageSample(_name(path, image), image, mask, split=pair.split))
        for stem in masks.keys() - files.keys():
            faults.add(masks[stem], None, f"has no image of its name in {pair.images.name}")
    if not samples and not len(faults):
        faults.add(path, None, "holds no images")
    faults.raise_if_any(f"data set {path}")
    concepts = tuple(dict.fromkeys(name for listed in naming.classes.values() for name in listed))
    return ConceptDataset(path.resolve().name, concepts, tuple(samples), naming.classes)


def _check(path: Path, mask: Pixels, naming: Naming, faults: Faults) -> None:
    try:
        unknown = np.setdiff1d(np.unique(open_mask(mask)), [0, VOID, *naming.classes])
    except DataError as error:
        faults.add(path, None, str(error).removeprefix(f"{path}: "))
        return
    if len(unknown):
        faults.add(path, None, f"has ids that {naming.file.name} does not name: {unknown[:8].tolist()}")


def _read_concepts(path: Path, pairs: list[_Pair], check_masks: bool) -> ConceptDataset:
    faults = Faults()
    concepts = sorted({folder.name for pair in pairs for folder in folders_in(pair.masks)})
    identity = dict(zip(concepts, class_ids(len(concepts)), strict=True))
    samples = []
    for pair in pairs:
        files = by_stem(images_in(pair.images), faults)
        marked: dict[str, list[tuple[int, Path]]] = {}
        for folder in folders_in(pair.masks):
            for stem, mask in by_stem(images_in(folder), faults).items():
                if stem not in files:
                    faults.add(mask, None, f"has no image of its name in {pair.images.name}")
                elif check_sizes(files[stem], mask, faults) is not None:
                    marked.setdefault(stem, []).append((identity[folder.name], mask))
        for stem, image in files.items():
            head = header(image, faults)
            if head is None:
                continue
            of_image = tuple(sorted(marked.get(stem, ())))
            mask_source: Pixels = BinaryMasks(of_image) if of_image else NoConcept(*head[0])
            if check_masks and of_image:
                try:
                    open_mask(mask_source)
                except DataError as error:
                    faults.add(image, None, str(error))
            samples.append(ImageSample(_name(path, image), image, mask_source, split=pair.split))
    if not concepts:
        faults.add(pairs[0].masks, None, "holds neither masks nor a folder of masks for each concept")
    if not samples and not len(faults):
        faults.add(path, None, "holds no images")
    faults.raise_if_any(f"data set {path}")
    classes = {number: (name,) for name, number in identity.items()}
    return ConceptDataset(path.resolve().name, tuple(concepts), tuple(samples), classes)


def _refuse_masks(path: Path) -> None:
    """Refuse folders that look like images and their masks under other names, rather than take them for concepts."""
    held: dict[frozenset[str], list[tuple[str, bool]]] = {}
    for folder in folders_in(path):
        files = images_in(folder)
        head = header(files[0], Faults()) if files else None
        if head is not None:
            held.setdefault(frozenset(file.stem for file in files), []).append((folder.name, head[1] == "RGB"))
    for alike in held.values():
        images = [name for name, coloured in alike if coloured]
        masks = [name for name, coloured in alike if not coloured]
        if images and masks:
            raise DataError(
                f"{path}: {images[0]} and {masks[0]} hold files of the same names, as images and masks do; name them "
                'with the options images and masks, or set layout to "labels" if they are concepts'
            )


def _read_labels(path: Path) -> ConceptDataset:
    faults = Faults()
    parts = [folder for folder in folders_in(path) if folder.name.lower() in SPLIT_OF and folders_in(folder)]
    homes: list[tuple[str | None, Path]] = [(SPLIT_OF[part.name.lower()], part) for part in parts]
    samples: list[ImageSample] = []
    concepts: set[str] = set()
    for split, home in homes or [(None, path)]:
        for image in images_in(home):
            faults.add(image, None, "lies in no concept's folder; move it into one")
        for folder in folders_in(home):
            for inner in folders_in(folder):
                if images_in(inner):
                    faults.add(inner, None, "lies in a concept's folder; put its images directly there")
            files = by_stem(images_in(folder), faults)
            if files:
                concepts.add(folder.name)
            samples += [
                ImageSample(_name(path, image), image, None, frozenset({folder.name}), split)
                for image in files.values()
                if header(image, faults) is not None
            ]
    if not samples and not len(faults):
        raise _unknown(path)
    faults.raise_if_any(f"data set {path}")
    return ConceptDataset(path.resolve().name, tuple(sorted(concepts)), tuple(samples))


def _with_splits(dataset: ConceptDataset, table: Path, path: Path) -> ConceptDataset:
    """Put the splits of a CSV on the samples; every sample needs one."""
    faults = Faults()
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"file", "split"} <= set(reader.fieldnames or ()):
                raise DataError(f"{table}: needs the columns file and split; got {', '.join(reader.fieldnames or ())}")
            rows = [(reader.line_num, (row["file"] or "").strip(), (row["split"] or "").strip()) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as CSV ({error}); give columns file and split") from error
    known: dict[str, list[int]] = {}
    for number, sample in enumerate(dataset.samples):
        assert isinstance(sample, ImageSample)  # noqa: S101  # this reader makes images only,
        assert isinstance(sample.image, Path)  # noqa: S101  # of files
        for key in {sample.image.relative_to(path).as_posix(), sample.id, sample.image.name, sample.image.stem}:
            known.setdefault(key, []).append(number)
    given: dict[int, str] = {}
    for line, name, split in rows:
        found = known.get(name.replace("\\", "/").removeprefix("./"), [])
        if len(found) != 1:
            faults.add(table, line, f"file {name!r:.80} is {'that of several images' if found else 'no image here'}")
        elif split.lower() not in SPLIT_OF:
            faults.add(table, line, f"split {split!r} is unknown; {allowed(split, SPLIT_OF)}")
        elif found[0] in given:
            faults.add(table, line, f"file {name!r:.80} has a split already; list each image once")
        else:
            given[found[0]] = SPLIT_OF[split.lower()]
    for number, sample in enumerate(dataset.samples):
        if number not in given and not len(faults):
            faults.add(table, None, f"gives {sample.id!r} no split; list every image")
    faults.raise_if_any(f"data set {path}")
    samples = tuple(replace(sample, split=given[number]) for number, sample in enumerate(dataset.samples))
    return replace(dataset, samples=samples)
