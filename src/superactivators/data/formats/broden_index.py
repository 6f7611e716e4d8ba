"""The tables of Broden: ``index.csv`` (pictures and their segmentations) and ``label.csv`` (numbers and names)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from superactivators.data.faults import Faults
from superactivators.data.formats.csv_table import Table
from superactivators.errors import DataError, allowed

WHAT: Final = "the index.csv of Broden (columns image, split, ih, iw, sh, sw, then one for each category)"
_FIXED: Final = ("image", "split", "ih", "iw", "sh", "sw")
LABELS: Final = "the label.csv of Broden (columns number, name, category, ...)"
_HIGHEST: Final = 65535


@final
@dataclass(frozen=True)
class Label:
    """A label of Broden: its name, and its categories in the order of ``label.csv``."""

    name: str
    categories: tuple[str, ...]


@final
@dataclass(frozen=True)
class Entry:
    """One row of ``index.csv``.

    Attributes
    ----------
    line : int
        1-based line of the file.
    image : str
        Path within ``images/``; its first folder is the source data set.
    split : str
        ``"train"`` or ``"val"``.
    size, segmentation : (int, int)
        Width and height of the picture and of its segmentation files.
    cells : dict of str to tuple of str
        For each category with labels: segmentation files within ``images/``, or label numbers of the whole picture.
    """

    line: int
    image: str
    split: str
    size: tuple[int, int]
    segmentation: tuple[int, int]
    cells: Mapping[str, tuple[str, ...]]


def read_labels_table(path: Path, faults: Faults) -> dict[int, Label]:
    """Read ``label.csv``; raises ``DataError`` if it is missing or another table."""
    table = Table(path, faults, ("number", "name", "category"), LABELS)
    number_at, name_at, category_at = (table.column[name] for name in ("number", "name", "category"))
    labels: dict[int, Label] = {}
    homes: dict[str, int] = {}
    for line, cells in table:
        number, name = cells[number_at].strip(), cells[name_at].strip()
        if not number.isdecimal() or not 0 < int(number) <= _HIGHEST:
            table.fault(line, f"number {number!r:.20} must be a whole number from 1 to {_HIGHEST}")
            continue
        if not name or int(number) in labels or name in homes:
            table.fault(line, f"label {number} needs a number and a name of its own; its name is {name!r:.40}")
            continue
        # "material(36);object(3)": in how many pictures the label is of each category
        categories = [re.sub(r"\(\d+\)$", "", part.strip()) for part in cells[category_at].split(";")]
        labels[int(number)] = Label(name, tuple(part for part in categories if part))
        homes[name] = int(number)
    return labels


def index_table(folder: Path, faults: Faults) -> tuple[Table, tuple[str, ...]]:
    """Open ``index.csv`` and tell its categories; raises ``DataError`` if it is missing or another table."""
    path = folder / "index.csv"
    if not os.path.isfile(path):
        if os.path.isfile(folder / "segmentations.pt"):
            raise DataError(
                f"{folder}: is the paper's folder; its segmentations.pt is a pickle, which is not read. Give Broden "
                "itself (such as broden1_224) as the path, and this folder's metadata.csv as the option metadata"
            )
        raise DataError(f"{folder!s:.200}: holds no index.csv; give the folder of Broden, such as broden1_224")
    table = Table(path, faults, _FIXED, WHAT)
    categories = tuple(name for name in table.columns if name not in _FIXED)
    if not categories:
        raise DataError(f"{path}: has no column of a category; give {WHAT}")
    return table, categories


def read_index(
    table: Table, dataset: str, categories: Sequence[str], stems: frozenset[str] | None, faults: Faults
) -> list[Entry]:
    """Read the rows of one source data set.

    Parameters
    ----------
    table : Table
        From `index_table`.
    dataset : str
        First folder of the pictures; ``""`` for all.
    categories : sequence of str
        Whose cells are kept.
    stems : frozenset of str or None
        File names, without ending, of the pictures to keep; None for all.
    faults : Faults
        Gets sizes that are no numbers and pictures that come twice.

    Raises
    ------
    DataError
        If no picture is of the data set.
    """
    image_at, split_at = table.column["image"], table.column["split"]
    sizes = [table.column[name] for name in ("iw", "ih", "sw", "sh")]
    places = [(name, table.column[name]) for name in categories]
    entries, sources, seen = [], set[str](), dict[str, int]()
    for line, cells in table:
        image = cells[image_at].strip().replace("\\", "/")
        source = image.partition("/")[0] if "/" in image else ""
        sources.add(source)
        if dataset and source != dataset:
            continue
        if stems is not None and image.rpartition("/")[2].rpartition(".")[0] not in stems:
            continue
        if image in seen:
            table.fault(line, f"image {image!r:.80} is a duplicate of line {seen[image]}")
            continue
        seen[image] = line
        numbers = [cells[place].strip() for place in sizes]
        if not all(number.isdecimal() and int(number) > 0 for number in numbers):
            table.fault(line, f"iw, ih, sw and sh must be whole numbers; got {', '.join(numbers)}")
            continue
        iw, ih, sw, sh = map(int, numbers)
        found = {name: parts for name, place in places if (parts := _parts(cells[place]))}
        entries.append(Entry(line, image, cells[split_at].strip(), (iw, ih), (sw, sh), found))
    if not seen and not len(faults):
        known = sorted(source for source in sources if source)
        if dataset and dataset not in sources:
            raise DataError(f"{table.path}: has no pictures of {dataset!r}; {allowed(dataset, known)}")
        raise DataError(f"{table.path}: none of its pictures is in the metadata; is it of another data set?")
    return entries


def _parts(cell: str) -> tuple[str, ...]:
    return tuple(part.strip().replace("\\", "/") for part in cell.split(";") if part.strip())
