"""Reader of Broden, the data set of Network Dissection: pictures of several sources with colour-coded segmentations."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, final

import numpy as np

from superactivators.data.dataset import ConceptDataset, ImageSample
from superactivators.data.faults import Faults
from superactivators.data.formats.broden_index import Entry, Label, index_table, read_index, read_labels_table
from superactivators.data.formats.broden_masks import BrodenMask, read_labels
from superactivators.data.formats.csv_table import find_file
from superactivators.data.formats.held_out import split_in_three
from superactivators.data.formats.image_files import header
from superactivators.data.formats.paper_metadata import PaperMetadata, apply_paper_metadata, read_paper_metadata
from superactivators.data.formats.planes import class_ids
from superactivators.errors import DataError, allowed

NAMES: Final = ("short", "full", "merged")
_DEFAULTS: Final = {"pascal": ("object", "part"), "opensurfaces": ("material",)}
Found: TypeAlias = "list[tuple[str, Path | int, tuple[int, ...]]]"
"""Of one picture: category, segmentation file (or the label of the whole picture), and the labels that occur in it."""


def read_broden(
    path: Path,
    *,
    dataset: str = "pascal",
    categories: Sequence[str] = (),
    names: str = "",
    min_images: int = 1,
    keep_unlabelled: bool = True,
    metadata: str = "",
    evaluated: bool = True,
) -> ConceptDataset:
    """Read Broden (Bau et al., CVPR 2017; releases ``broden1_224``, ``broden1_227`` and ``broden1_384``).

    ``index.csv`` names pictures and segmentation files (label number = red + 256 * green, usually half as large as the
    picture: they are enlarged, each pixel taking the label at its centre). Parts may have several files, and so
    several labels a pixel; all are read (the paper's code leaves out cells with several files). Scenes and textures
    are labels of whole pictures, and every pixel carries them. A pixel of number 0 has no label of the category and
    counts as a negative of all its concepts. Every segmentation is read once, to find what occurs in it.

    Splits: ``train`` is train; half of ``val`` is cal and half is test, by a hash of the picture's path. With
    ``metadata`` they are the paper's.

    Parameters
    ----------
    path : Path
        The folder with ``index.csv``, ``label.csv`` and ``images/``.
    dataset : str
        Source data set: the first folder of the pictures, such as ``"pascal"``, ``"opensurfaces"``, ``"ade20k"`` or
        ``"dtd"``; ``""`` for all.
    categories : sequence of str
        Columns of ``index.csv`` whose labels become concepts. Empty: object and part for pascal, material for
        opensurfaces (what the paper evaluates), all for others.
    names : str
        ``"short"`` (the default): the label's name, with ``category::`` before it where ``label.csv`` lists the label
        under several of the chosen categories (each of them is a concept of its own). ``"full"``: always with it.
        ``"merged"``: one concept for each label, whatever its category, named by the last of them, as in the paper
        (the default with ``metadata``).
    min_images : int
        Leave out concepts that occur in fewer of the pictures read. With ``metadata``: of the metadata's pictures.
    keep_unlabelled : bool
        Whether pictures without any label of the chosen categories stay, as negatives of every concept.
    metadata : str
        Path of the paper's ``metadata.csv``, as it is or within the folder: its samples, splits, labels and concepts
        (see `apply_paper_metadata`).
    evaluated : bool
        With ``metadata``: only the concepts that the paper evaluates.

    Returns
    -------
    ConceptDataset
        Samples in the order of ``index.csv``, or of the metadata; their ids are paths within ``images/`` without
        ending. Concepts in the order of label numbers. Labels are those of the segmentations.

    Raises
    ------
    DataError
        If an option is unknown, a table is missing or another one, or the folder is the paper's (its
        ``segmentations.pt`` is a pickle, which is not read); or one error with every fault: a picture or segmentation
        that is missing, cannot be read or has another size than the index says, a number that is no label.
    """
    if names and names not in NAMES:
        raise DataError(f"broden: option names: {names!r} is unknown; {allowed(names, NAMES)}")
    if type(min_images) is not int or min_images < 1:
        raise DataError(f"broden: option min_images must be a whole number of at least 1; got {min_images!r}")
    faults = Faults()
    index, known = index_table(path, faults)
    table = read_paper_metadata(find_file(metadata, path, "broden: metadata"), faults) if metadata else None
    chosen = _categories(dataset, categories, known, table, evaluated)
    labels = read_labels_table(path / "label.csv", faults)
    entries = read_index(index, dataset, chosen, table.stems if table else None, faults)
    pictures = [(entry, _scan(entry, path / "images", labels, index.path, faults)) for entry in entries]
    faults.raise_if_any(f"data set {path}")
    if not keep_unlabelled:
        pictures = [(entry, found) for entry, found in pictures if any(occurring for _, _, occurring in found)]
    naming = _Naming(labels, chosen, names or ("merged" if table else "short"))
    coding = _code(naming, pictures, min_images)
    if not coding.classes:
        where = f"{path}: no label of {', '.join(chosen)} is in at least {min_images} pictures of {dataset or 'Broden'}"
        raise DataError(f"{where}; lower min_images or choose other categories")
    samples = tuple(
        ImageSample(
            entry.image.rpartition(".")[0],
            path / "images" / entry.image,
            BrodenMask(tuple((source, coding.codes[category]) for category, source, _ in found), entry.size)
            if found
            else BrodenMask(((0, coding.nothing),), entry.size),
            frozenset(coding.concepts_of(found)),
            split_in_three(entry.split, entry.image),
        )
        for entry, found in pictures
    )
    name = f"broden-{dataset}" if dataset else "broden"
    concepts = tuple(dict.fromkeys(concept for (concept,) in coding.classes.values()))
    read = ConceptDataset(name, concepts, samples, coding.classes)
    return apply_paper_metadata(read, table, evaluated=evaluated) if table else read


def _categories(
    dataset: str, given: Sequence[str], known: Sequence[str], table: PaperMetadata | None, evaluated: bool
) -> tuple[str, ...]:
    """Choose the categories: the given ones, or those of the metadata's columns, or the data set's."""
    for name in given:
        if name not in known:
            raise DataError(f"broden: option categories: {name!r} is unknown; {allowed(name, known)}")
    if given:
        return tuple(dict.fromkeys(given))
    wanted = set(_DEFAULTS.get(dataset, known))
    if table is not None:
        wanted |= {name.partition("::")[0] for name in table.chosen(evaluated) if "::" in name}
    return tuple(name for name in known if name in wanted) or tuple(known)


def _scan(entry: Entry, images: Path, labels: Mapping[int, Label], index: Path, faults: Faults) -> Found:
    """Check the files of a picture, and find which labels occur in each of its segmentations."""
    picture = images / entry.image
    if not os.path.isfile(picture):
        faults.add(index, entry.line, f"image {entry.image!r:.80} does not exist within {images}")
    elif (head := header(picture, faults)) is not None and head[0] != entry.size:
        faults.add(index, entry.line, f"says {entry.size[0]} x {entry.size[1]}, but {entry.image} is {_by(head[0])}")
    found: Found = []
    for category, parts in entry.cells.items():
        for part in parts:
            source = int(part) if part.isdecimal() else images / part
            occurring = (source,) if isinstance(source, int) else _occurring(source, entry, index, faults)
            wrong = [number for number in occurring if number not in labels]
            if wrong:
                faults.add(index, entry.line, f"{category} {part!r:.80} has {wrong[0]}, which label.csv does not list")
            found.append((category, source, occurring))
    return found


def _occurring(source: Path, entry: Entry, index: Path, faults: Faults) -> tuple[int, ...]:
    try:
        numbers = read_labels(source)
    except DataError as error:
        faults.add(index, entry.line, str(error))
        return ()
    if numbers.shape != entry.segmentation[::-1]:
        said, given = _by(entry.segmentation), _by((numbers.shape[1], numbers.shape[0]))
        faults.add(index, entry.line, f"says that segmentations are {said}, but {source.name} is {given}")
    counts = np.bincount(numbers.ravel())
    counts[0] = 0
    return tuple(np.flatnonzero(counts).tolist())


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


@final
class _Naming:
    """Concept of a label in a category."""

    def __init__(self, labels: Mapping[int, Label], chosen: Sequence[str], names: str) -> None:
        self.labels = labels
        self._chosen = chosen
        self._names = names

    def __call__(self, category: str, number: int) -> str:
        label = self.labels[number]
        listed = [name for name in label.categories if name in self._chosen]
        if self._names == "merged":
            return f"{listed[-1] if listed else category}::{label.name}"
        alone = listed == [category]
        return label.name if self._names == "short" and alone else f"{category}::{label.name}"


@final
@dataclass(frozen=True)
class _Coding:
    """Class ids: for each category, the id of every label number; and the concept of every id."""

    codes: dict[str, tuple[int, ...]]
    classes: dict[int, tuple[str, ...]]
    nothing: tuple[int, ...]

    def concepts_of(self, found: Found) -> set[str]:
        ids = {self.codes[category][number] for category, _, occurring in found for number in occurring}
        return {self.classes[identity][0] for identity in ids - {0}}


def _code(naming: _Naming, pictures: Sequence[tuple[Entry, Found]], least: int) -> _Coding:
    """Give ids to the pairs of category and label whose concept occurs in enough pictures, in the order of labels."""
    pairs: set[tuple[int, str]] = set()
    counts: Counter[str] = Counter()
    for _, found in pictures:
        here = {(number, category) for category, _, occurring in found for number in occurring}
        pairs |= here
        counts.update({naming(category, number) for number, category in here})
    kept = sorted(pair for pair in pairs if counts[naming(pair[1], pair[0])] >= least)
    size = max(naming.labels, default=0) + 1
    codes = {category: [0] * size for _, found in pictures for category, _, _ in found}
    classes: dict[int, tuple[str, ...]] = {}
    for identity, (number, category) in zip(class_ids(len(kept)), kept, strict=True):
        codes[category][number] = identity
        classes[identity] = (naming(category, number),)
    return _Coding({category: tuple(code) for category, code in codes.items()}, classes, (0,))
