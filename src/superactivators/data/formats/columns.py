"""Columns of a table as labelled samples: which column holds what, and how its values are read."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np

from superactivators.data.dataset import VOID, ConceptDataset, ImageSample, Sample, Span, TextSample
from superactivators.data.faults import Faults
from superactivators.data.formats.offsets import place_span
from superactivators.data.formats.text_files import shown
from superactivators.data.jsonl import is_name
from superactivators.data.pixels import Pixels, PixelSource, image_size, open_mask
from superactivators.errors import DataError, allowed

SPLIT_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "cal", "calibration"), "cal"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What others call our splits."""

USUAL: Mapping[str, tuple[str, ...]] = {
    "text": ("text", "sentence", "content"),
    "image": ("image",),
    "labels": ("labels", "label", "category"),
    "spans": ("spans",),
    "mask": ("mask",),
    "id": ("id",),
    "split": ("split",),
    "group": ("group",),
}
"""Column names that are taken without being asked for, by option."""
NONE = "-"
"""As the name of a column: use none."""

Note: TypeAlias = Callable[[str], None]
Row: TypeAlias = Mapping[str, Any]


@final
@dataclass(frozen=True)
class Columns:
    """Names of the columns in use; empty where there is none."""

    text: str = ""
    image: str = ""
    labels: str = ""
    concepts: tuple[str, ...] = ()
    spans: str = ""
    mask: str = ""
    id: str = ""
    split: str = ""
    group: str = ""

    @staticmethod
    def choose(
        found: Sequence[str], given: Mapping[str, str], concepts: Sequence[str] | None, place: object
    ) -> Columns:
        """Take the columns asked for, and those of usual names for what was not asked for.

        Raises
        ------
        DataError
            If a column is missing, or several could be meant: the message lists the columns and the option to set.
        """
        chosen: dict[str, str] = {}
        for option in USUAL:
            name = given.get(option, "")
            if name and name != NONE:
                if name not in found:
                    raise DataError(f"{place}: has no column {name!r} (option {option}); {allowed(name, found)}")
                chosen[option] = name
        for name in concepts or ():
            if name not in found:
                raise DataError(f"{place}: has no column {name!r} (option concepts); {allowed(name, found)}")

        def usual(option: str) -> None:
            if option in chosen or given.get(option) == NONE:
                return
            held = [name for name in found if name.strip().lower() in USUAL[option]]
            if len(held) > 1:
                raise DataError(
                    f"{place}: several columns could be meant by option {option}: {', '.join(held)}; set {option} to "
                    f"one of them, or to {NONE!r} for none"
                )
            if held:
                chosen[option] = held[0]

        listed = ", ".join(found)
        if "image" not in chosen:
            usual("text")
        if "text" not in chosen or not (given.get("text") or given.get("image")):
            usual("image")
        if "text" in chosen and "image" in chosen:
            raise DataError(
                f"{place}: holds texts and images; set one of text and image to {NONE!r}. Columns: {listed}"
            )
        if "text" not in chosen and "image" not in chosen:
            raise DataError(f"{place}: which column holds the text? Set the option text (or image). Columns: {listed}")
        wrong = "mask" if "text" in chosen else "spans"
        if wrong in chosen:
            raise DataError(f"{place}: option {wrong} does not go with {'texts' if 'text' in chosen else 'images'}")
        if concepts and "labels" in chosen:
            raise DataError(f"{place}: give labels (one column) or concepts (a 0/1 column for each), not both")
        for option in ("spans" if "text" in chosen else "mask", "id", "split", "group"):
            usual(option)
        if not concepts:
            usual("labels")
        if not (concepts or chosen.keys() & {"labels", "spans", "mask"}):
            raise DataError(
                f"{place}: which column holds the labels? Set one of labels, concepts, spans or mask. Columns: {listed}"
            )
        return Columns(concepts=tuple(concepts or ()), **chosen)

    def used(self) -> list[str]:
        """All of them, each once."""
        named = (self.text, self.image, self.labels, self.spans, self.mask, self.id, self.split, self.group)
        return list(dict.fromkeys([name for name in (*named, *self.concepts) if name]))


@final
@dataclass(frozen=True)
class Reading:
    """How values are read.

    Attributes
    ----------
    columns : Columns
    names : mapping of str to str
        Concept of each label value; the empty string for values that stand for no concept. Empty: values are names.
    separator : str
        Between several labels in one cell; empty: one label, or a list in JSON.
    offsets : str
        Unit of the spans' offsets.
    splits : mapping of str to str
        Our name of each of the table's splits; empty: the common names.
    classes : mapping of int to tuple of str
    folder : Path
        What paths of images and masks are relative to.
    check : bool
        Open every image and mask.
    """

    columns: Columns
    names: Mapping[str, str] = field(default_factory=dict)
    separator: str = ""
    offsets: str = "code-points"
    splits: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    folder: Path = Path()
    check: bool = True

    def sample(self, row: Row, fallback_id: str, split: str | None, note: Note) -> Sample | None:
        """Make a sample of one row; what is wrong with it is noted, and None comes back if it cannot be made."""
        columns = self.columns
        name = self._plain(row, columns.id, note) if columns.id else fallback_id
        group = self._plain(row, columns.group, note, needed=False) if columns.group else None
        if columns.split:
            original = self._plain(row, columns.split, note, needed=False)
            split = None if original is None else our_split(original, self.splits, note)
        labels = self._given(row, note)
        if columns.image:
            image, mask = self._picture(row, columns.image, note), None
            if columns.mask and row.get(columns.mask) not in (None, ""):
                mask = self._picture(row, columns.mask, note)
            if image is None or name is None:
                return None
            if self.check:
                check_pair(image, mask, self.classes, note)
            return ImageSample(name, image, mask, labels, split, group)
        text = row.get(columns.text)
        if not is_name(text):
            held = "is empty" if text is None or text == "" else f"must hold text; got {shown(text)}"
            note(f"column {columns.text!r} {held}")
            return None
        spans = self._spans(row, text, labels, note) if columns.spans else ()
        return None if name is None else TextSample(name, text, spans, labels, split, group)

    def _plain(self, row: Row, column: str, note: Note, *, needed: bool = True) -> str | None:
        value = _word(row.get(column))
        if value is None:
            note(f"column {column!r} must hold text or a whole number; got {shown(row.get(column))}")
        elif not value:
            if needed:
                note(f"column {column!r} is empty")
            return None
        return value

    def _given(self, row: Row, note: Note) -> frozenset[str] | None:
        columns = self.columns
        if columns.concepts:
            return frozenset(name for name in columns.concepts if _flag(row.get(name), name, note))
        if not columns.labels:
            return None
        value = row.get(columns.labels)
        parts = list_of(value, self.separator) if isinstance(value, str) else value
        if parts is None or (isinstance(value, str) and not parts):
            return None if columns.spans or columns.mask else frozenset()
        words = [_word(part) for part in (parts if isinstance(parts, list | tuple) else [parts])]
        if any(not is_name(word) for word in words):
            note(f"column {columns.labels!r} must hold labels; got {shown(value)}")
            return None
        return frozenset(filter(None, (self._named(str(word), note) for word in words)))

    def _named(self, value: str, note: Note) -> str:
        if not self.names:
            return value
        if value not in self.names:
            note(f"label {value!r} is not among the option names; {allowed(value, self.names)}")
        return self.names.get(value, "")

    def _spans(self, row: Row, text: str, labels: frozenset[str] | None, note: Note) -> tuple[Span, ...]:
        column, value = self.columns.spans, row.get(self.columns.spans)
        if isinstance(value, str) and value.strip():
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                note(f"column {column!r} must hold a JSON list of spans; got {shown(value)}")
                return ()
        if isinstance(value, dict):  # a struct of lists is what some libraries make of a list of structs
            value = _rows_of(value)
        if value is None or isinstance(value, str):
            return ()
        if not isinstance(value, list):
            note(f"column {column!r} must hold a list of spans; got {shown(value)}")
            return ()
        found = []
        for item in value:
            parts = [item.get(key) for key in ("start", "end", "label")] if isinstance(item, dict) else item
            if not isinstance(parts, list | tuple) or len(parts) != 3:
                note(f"a span must be {{start, end, label}} or [start, end, label]; got {shown(item)}")
                continue
            label = _word(parts[2])
            if label and not (label := self._named(label, note)):
                continue
            span = place_span(text, parts[0], parts[1], label, self.offsets)
            if isinstance(span, str):
                note(span)
                continue
            if labels is not None and span.concept not in labels:
                note(
                    f"span label {span.concept!r} is not among the sample's labels; {allowed(span.concept, labels)}. "
                    f"Set labels to {NONE!r} to take them from the spans"
                )
            found.append(span)
        return tuple(found)

    def _picture(self, row: Row, column: str, note: Note) -> Pixels | None:
        value = row.get(column)
        if isinstance(value, PixelSource):
            return value
        if not is_name(value):
            note(f"column {column!r} must hold the path of a file; got {shown(value)}")
            return None
        return local_file(value, self.folder, note, f"column {column!r}: ")


def local_file(name: str, folder: Path, note: Note, what: str = "") -> Path | None:
    """Path of a file that must be on this machine."""
    if "://" in name:
        note(f"{what}{name:.80} is not fetched; download it and give the path of the file")
        return None
    path = folder / name
    try:
        if path.is_file():
            return path
    except (OSError, ValueError):
        pass
    note(f"{what}{name!r:.80} does not exist in {folder}")
    return None


def check_pair(image: Pixels, mask: Pixels | None, classes: Mapping[int, tuple[str, ...]], note: Note) -> None:
    """Open an image and its mask; note what cannot be read, sizes that differ, and ids that are no class."""
    try:
        size = image_size(image)
        if mask is None:
            return
        found = open_mask(mask)
    except DataError as error:
        note(str(error))
        return
    if found.shape[:0:-1] != size:
        note(f"mask is {found.shape[2]} x {found.shape[1]} pixels, but its image is {size[0]} x {size[1]}")
    unknown = np.setdiff1d(np.unique(found), np.array([0, VOID, *classes], dtype=np.int64))
    if len(unknown):
        note(f"mask has ids that the option classes does not name: {unknown[:8].tolist()}")


def read_classes(given: Mapping[str, Any], place: object) -> dict[int, tuple[str, ...]]:
    """Read the option ``classes``: mask ids to concepts; raises ``DataError``."""
    classes: dict[int, tuple[str, ...]] = {}
    for key, value in given.items():
        names = [value] if isinstance(value, str) else value
        if not str(key).isdecimal() or int(key) > 65535:
            raise DataError(f"{place}: mask id {key!r:.20} of classes must be a whole number from 0 to 65535")
        if not isinstance(names, list | tuple) or not names or not all(is_name(name) for name in names):
            raise DataError(f"{place}: mask id {key} of classes must map to a name or a list of names; got {value!r}")
        if int(key) not in (0, VOID):
            classes[int(key)] = tuple(names)
    return classes


def our_split(original: str, splits: Mapping[str, str], note: Note) -> str | None:
    """Our name of a split, by the option ``splits`` or the common names."""
    known = splits or SPLIT_NAMES
    found = known.get(original if splits else original.strip().lower())
    if found is None:
        note(
            f"split {original!r} is unknown; {allowed(original, known)}. Map the names with the option splits, or set "
            f"split to {NONE!r} to have splits made"
        )
    return found


def check_splits(splits: Mapping[str, str]) -> None:
    """Raise ``DataError`` if the option ``splits`` leads anywhere but to our three."""
    for original, name in splits.items():
        if name not in ("train", "cal", "test"):
            raise DataError(f"option splits maps {original!r} to {name!r}; {allowed(name, ('train', 'cal', 'test'))}")


def list_of(value: str, separator: str) -> list[Any]:
    """Labels of one cell: parts between separators, a list in JSON or as Python prints it, or one label."""
    if separator:
        return [part.strip() for part in value.split(separator) if part.strip()]
    if value.strip().startswith("[") and value.strip().endswith("]"):
        for parse in (json.loads, ast.literal_eval):
            try:
                found = parse(value.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(found, list):
                return found
    return [value.strip()] if value.strip() else []


def collect(
    name: str,
    place: object,
    read: Iterable[tuple[Sample, Path, int | None]],
    order: Sequence[str],
    classes: Mapping[int, tuple[str, ...]],
    faults: Faults,
) -> ConceptDataset:
    """Make a data set of samples and where each was found; concepts that ``order`` does not name follow by alphabet.

    Raises
    ------
    DataError
        All faults, those of repeated ids with them.
    """
    first: dict[str, str] = {}
    samples: list[Sample] = []
    for sample, path, line in read:
        spot = f"{path.name}:{line}" if line is not None else path.name
        if sample.id in first:
            faults.add(path, line, f"id {sample.id!r} is a duplicate of {first[sample.id]}; ids must be unique")
        first.setdefault(sample.id, spot)
        samples.append(sample)
    if not samples and not len(faults):
        raise DataError(f"data set {place}: has no samples")
    faults.raise_if_any(f"data set {place}")
    found = {label for sample in samples for label in sample.labels or ()}
    found |= {span.concept for sample in samples if isinstance(sample, TextSample) for span in sample.spans}
    found |= {concept for names in classes.values() for concept in names}
    concepts = [concept for concept in dict.fromkeys(order) if concept in found]
    concepts += sorted(found - set(concepts))
    if not concepts:
        raise DataError(f"data set {place}: no sample has a label; check which columns hold them")
    return ConceptDataset(name, tuple(concepts), tuple(samples), dict(classes))


def _word(value: object) -> str | None:
    """Text of a cell, of a whole number too; empty for nothing, None for anything else."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if isinstance(value, str) and (not value.strip() or is_name(value)):
        return value.strip()
    return None


def _flag(value: object, column: str, note: Note) -> bool:
    word = (_word(value) or "").lower()
    if word in ("1", "1.0", "true", "yes"):
        return True
    if word not in ("0", "0.0", "false", "no"):
        note(f"column {column!r} must hold 0 or 1; got {shown(value)}")
    return False


def _rows_of(lists: dict[str, Any]) -> object:
    columns = [lists.get(key) for key in ("start", "end", "label")]
    if all(isinstance(column, list) for column in columns) and len({len(column) for column in columns if column}) <= 1:
        return [list(parts) for parts in zip(*columns, strict=False)]
    return lists
