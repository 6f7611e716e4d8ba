"""Reader of Pascal VOC segmentation folders, and of the same layout as labelling tools write it (docs/data.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from superactivators.data.dataset import VOID, ConceptDataset, ImageSample
from superactivators.data.faults import Faults
from superactivators.data.formats.colour_codes import ColourMask, code_of, read_labelmap, voc_colour
from superactivators.data.formats.held_out import split_in_three
from superactivators.data.formats.image_files import by_stem, check_sizes, folders_in, images_in
from superactivators.data.formats.planes import class_ids
from superactivators.data.pixels import Pixels, open_mask
from superactivators.errors import DataError, allowed

CLASSES: Final = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""VOC's classes in the order of their mask ids, from 1."""

NO_CLASS: Final = frozenset({"background", "_background_", "bg"})
IGNORED: Final = frozenset({"void", "ignore", "ignored", "__ignore__", "unlabeled", "unlabelled"})
SETS: Final = ("train", "cal", "val", "test")


def read_voc(
    path: Path,
    *,
    masks: str = "SegmentationClass",
    sets: dict[str, str] | None = None,
    check_masks: bool = False,
) -> ConceptDataset:
    """Read images with VOC's segmentation masks.

    The folder holds ``JPEGImages``, ``SegmentationClass`` and ``ImageSets/Segmentation``; only images of the set lists
    are read. Mask ids 1 to 20 are VOC's classes, 0 is background, 255 the border of objects and what nobody labelled
    (void). Masks in colour are read by VOC's palette. Where a ``labelmap.txt`` is there (exports of CVAT and
    Datumaro), it names the classes and their colours instead.

    Splits: ``train.txt`` is train; one half of ``val.txt`` is cal and the other test, by a hash of the image's name.
    Where there are no such lists but others (``default.txt``), their images are read and splits are left open.

    Parameters
    ----------
    path : Path
        The folder of one year, such as ``VOC2012``, or one above it that holds a single year.
    masks : str
        Folder of the masks, such as ``"SegmentationClassAug"``.
    sets : dict of str to str, optional
        List of each split, of ``train``, ``cal``, ``test``, or ``val`` for halves of cal and test: a name in
        ``ImageSets/Segmentation`` or a file relative to the path. Left out: ``{"train": "train", "val": "val"}``.
    check_masks : bool
        Also decode every mask and look for unknown ids. Off, only headers are read.

    Returns
    -------
    ConceptDataset
        Ids are the images' names without suffix.

    Raises
    ------
    DataError
        One line if a folder is missing or of another layout; else one error that lists every fault: images or masks
        that are missing, unreadable or of other sizes, images in two lists, unknown ids.
    """
    root = _root(path)
    folder = root / masks
    if masks == "SegmentationObject":
        raise DataError(f"{folder}: its ids count objects and name no class; use SegmentationClass")
    if not folder.is_dir():
        known = ", ".join(part.name for part in folders_in(root))
        raise DataError(f"{root}: has no folder {masks!r} of masks; name it with the option masks (there are {known})")
    faults = Faults()
    labelmap = root / "labelmap.txt"
    colours = read_labelmap(labelmap, faults) if labelmap.is_file() else None
    faults.raise_if_any(f"data set {path}")
    identity, codes = _codes(colours)
    images = by_stem(images_in(root / "JPEGImages"), faults)
    files = by_stem(images_in(folder), faults)
    samples = []
    for name, (split, source, line) in _listed(root, sets, faults).items():
        if name not in images or name not in files:
            lacking = "image in JPEGImages" if name not in images else f"mask in {masks}"
            faults.add(source, line, f"{name!r:.80} has no {lacking}")
            continue
        mode = check_sizes(images[name], files[name], faults)
        plain = mode in ("P", "L") and (colours is None or mode == "L")
        mask: Pixels = files[name] if plain else ColourMask(files[name], codes)
        if check_masks and mode is not None:
            _check_ids(files[name], mask, identity, faults)
        samples.append(ImageSample(name, images[name], mask, split=split))
    if not samples and not len(faults):
        faults.add(root, None, "its set lists name no image")
    faults.raise_if_any(f"data set {path}")
    classes = {number: (name,) for name, number in identity.items()}
    return ConceptDataset(root.resolve().name, tuple(identity), tuple(samples), classes)


def _root(path: Path) -> Path:
    held = [path, path / "VOCdevkit"]
    for folder in held:
        if (folder / "JPEGImages").is_dir():
            return folder
        years = [part for part in folders_in(folder) if (part / "JPEGImages").is_dir()]
        if len(years) == 1:
            return years[0]
        if years:
            names = ", ".join(year.name for year in years)
            raise DataError(f"{folder}: holds several years ({names}); give the folder of one")
    raise DataError(
        f"{path}: holds no folder JPEGImages; give a VOC folder such as VOCdevkit/VOC2012 with JPEGImages, "
        "SegmentationClass and ImageSets"
    )


def _codes(colours: Mapping[str, tuple[int, int, int]] | None) -> tuple[dict[str, int], tuple[tuple[int, int], ...]]:
    """Mask ids of the classes, and those of the colours."""
    if colours is None:
        identity = {name: number for number, name in enumerate(CLASSES, start=1)}
        numbers = (0, *identity.values(), VOID)
        return identity, tuple((code_of(voc_colour(number)), number) for number in numbers)
    return colour_codes(colours)


def colour_codes(colours: Mapping[str, tuple[int, int, int]]) -> tuple[dict[str, int], tuple[tuple[int, int], ...]]:
    """Give the classes of a colour table ids; names of background are 0 and names of void 255.

    Returns
    -------
    identity : dict of str to int
        Id of each class, in the order of the table.
    codes : tuple of (int, int)
        Number of each colour and the id it stands for. Black is background where the table does not name it.
    """
    named = [name for name in colours if name.lower() not in NO_CLASS | IGNORED]
    identity = dict(zip(named, class_ids(len(named)), strict=True))
    codes = {0: 0} | {
        code_of(colour): identity.get(name, 0 if name.lower() in NO_CLASS else VOID) for name, colour in colours.items()
    }
    return identity, tuple(sorted(codes.items()))


def _listed(root: Path, sets: dict[str, str] | None, faults: Faults) -> dict[str, tuple[str | None, Path, int]]:
    """Split of every image of the set lists, and where it is listed."""
    folder = root / "ImageSets" / "Segmentation"
    lists: dict[str | None, list[Path]] = {}
    if sets is None:
        plain = {name: folder / f"{name}.txt" for name in ("train", "val") if (folder / f"{name}.txt").is_file()}
        if len(plain) == 2:
            lists = {name: [file] for name, file in plain.items()}
        else:
            lists = {None: sorted(folder.glob("*.txt"))}
    else:
        for name, given in sets.items():
            if name not in SETS:
                raise DataError(f"option sets: {name!r} is no split; {allowed(name, SETS)}")
            lists[name] = [folder / f"{given}.txt" if (folder / f"{given}.txt").is_file() else root / given]
    if not any(lists.values()):
        raise DataError(f"{folder}: holds no set lists (train.txt, val.txt); name them with the option sets")
    found: dict[str, tuple[str | None, Path, int]] = {}
    for split, files in lists.items():
        for file in files:
            for line, name in _names(file):
                if name in found and (split is not None or found[name][1] == file):
                    _, other, at = found[name]
                    faults.add(file, line, f"{name!r:.80} is also in {other.name}, line {at}; list each image once")
                    continue
                part = split_in_three("val", name) if split == "val" else split
                found.setdefault(name, (part, file, line))
    return found


def _names(file: Path) -> list[tuple[int, str]]:
    """Line and image name; lines may hold paths of image and mask instead, or a name and a flag."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a set list ({error}); give a text file of image names") from error
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            first = PurePosixPath(line.split()[0])
            found.append((number, first.stem if first.suffix.lower() in (".jpg", ".jpeg", ".png") else first.name))
    return found


def _check_ids(path: Path, mask: Pixels, identity: Mapping[str, int], faults: Faults) -> None:
    try:
        ids = np.unique(open_mask(mask))
    except DataError as error:
        faults.add(path, None, str(error).removeprefix(f"{path}: "))
        return
    unknown = np.setdiff1d(ids, [0, VOID, *identity.values()])
    if len(unknown):
        faults.add(path, None, f"has ids that are no classes: {unknown[:8].tolist()}")
