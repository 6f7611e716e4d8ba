"""Reader of Hugging Face data sets: names on the hub, saved folders, and local Parquet, Arrow, CSV or JSON files."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, final

import numpy as np
from PIL import Image, ImageOps

from superactivators.data.dataset import ConceptDataset, Sample
from superactivators.data.faults import Faults
from superactivators.data.formats.bio import spans_of_tags
from superactivators.data.formats.columns import (
    Columns,
    Reading,
    check_splits,
    collect,
    our_split,
    read_classes,
)
from superactivators.data.formats.offsets import check_unit
from superactivators.data.formats.text_files import shown
from superactivators.data.pixels import UNREADABLE
from superactivators.errors import DataError, allowed

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_FILES = {".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".json": "json", ".jsonl": "json"}
_TAGS = ("ner_tags", "tags")
_JOINED = "__text"
"""Column that tokens are joined into."""


@final
@dataclass(frozen=True)
class RowPixels:
    """Image or mask in a row of a Hugging Face data set, decoded when asked.

    Attributes
    ----------
    rows : datasets.Dataset
        With one column, whose images are not decoded.
    column : str
    row : int
    mask : bool
        Class ids of one channel, in place of RGB.
    name : str
        How messages call it.
    """

    rows: Any
    column: str
    row: int
    mask: bool
    name: str

    def load(self) -> np.ndarray:
        """Decode the pixels, turned as the file says, as ``datasets`` does.

        Raises
        ------
        DataError
            If they cannot be read, or a mask has several channels.
        """
        try:
            with Image.open(io.BytesIO(self._bytes())) as opened:
                turned = ImageOps.exif_transpose(opened)
                if not self.mask:
                    return np.asarray(turned.convert("RGB"))
                if turned.mode not in ("L", "P", "I", "I;16"):
                    raise DataError(
                        f"{self.name}: a mask must have one channel of class ids; its mode is {turned.mode!r}"
                    )
                return np.asarray(turned)
        except UNREADABLE as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.name}: cannot be read as an image ({str(error).splitlines()[0]:.100})") from None

    def content(self) -> bytes:
        """Digest of the encoded image."""
        return hashlib.sha256(bytes([self.mask]) + self._bytes()).digest()

    def _bytes(self) -> bytes:
        value = self.rows[self.row][self.column]
        held = value.get("bytes") if isinstance(value, dict) else None
        if held is not None:
            return bytes(held)
        path = value.get("path") if isinstance(value, dict) else None
        if not path or "://" in path:
            raise DataError(f"{self.name}: holds neither the bytes of an image nor a path on this machine")
        try:
            return Path(path).read_bytes()
        except OSError as error:
            raise DataError(f"{self.name}: {path} cannot be read ({error.strerror})") from None


def read_hub(
    path: Path,
    *,
    text: str = "",
    labels: str = "",
    concepts: list[str] | None = None,
    spans: str = "",
    tokens: str = "",
    tags: str = "",
    image: str = "",
    mask: str = "",
    id: str = "",
    split: str = "",
    group: str = "",
    separator: str = "",
    names: dict[str, str] | None = None,
    offsets: str = "code-points",
    splits: dict[str, str] | None = None,
    classes: dict[str, Any] | None = None,
    config: str = "",
    revision: str = "",
    check_images: bool = True,
) -> ConceptDataset:
    """Read a data set through the library ``datasets``.

    The network is used only if ``path`` is the name of a data set on the hub. Code of a data set is never run.

    Parameters
    ----------
    path : Path
        A folder written by ``save_to_disk``; a folder with Parquet, Arrow, CSV or JSON files, as a clone of a data set
        has; one such file; or a name on the hub, such as ``org/name``, if there is no file or folder of this name.
    text, labels, concepts, spans, image, mask, id, split, group, separator, names, offsets, classes
        As for tables: columns, with usual names taken where left out, ``"-"`` for none, and how values are read. Class
        labels have their names, also as lists. Image and mask columns hold images; they are decoded when asked, turned
        as the file says.
    tokens, tags : str
        Columns with lists of tokens and of their tags (BIO, IOB, IOBES or plain; class labels, strings, or numbers that
        ``names`` names). The text is the tokens joined by blanks; each tagged run is a span. Left out, ``tokens`` with
        ``ner_tags`` or ``tags`` are taken if there is no text column.
    splits : dict
        Splits to read, each with our name: ``{"train": "train", "validation": "cal"}``. Left out, all are read: train
        and training are ``train``; val, valid, validation, dev, cal and calibration ``cal``; test and testing
        ``test``; a sole split says nothing, and splits are left open.
    split : str
        Column with the split's name, in place of the data set's own; ``"-"``: leave splits open.
    config, revision : str
        Configuration of the data set; branch, tag or commit on the hub.
    check_images : bool
        Open every image and mask.

    Returns
    -------
    ConceptDataset
        Concepts in the order of the class labels, else of the alphabet. Ids without a column are the split and the
        number of the row, from 0.

    Raises
    ------
    DataError
        If ``datasets`` is not installed, nothing is found or can be reached, or rows are wrong: every fault is listed
        with split and row.
    """
    check_unit(offsets)
    check_splits(splits or {})
    parts = _load(path, config, revision)
    if splits:
        for name in splits:
            if name not in parts:
                raise DataError(f"{path}: has no split {name!r} (option splits); {allowed(name, parts)}")
        parts = {name: parts[name] for name in splits}
    mask_classes = read_classes(classes or {}, path)
    given = {"text": text, "labels": labels, "spans": spans, "image": image, "mask": mask}
    given |= {"id": id, "split": split, "group": group}
    faults = Faults()
    read: list[tuple[Sample, Path, int | None]] = []
    order: list[str] = [*(concepts or ()), *(name for found in mask_classes.values() for name in found)]
    columns = Columns()
    for name, part in parts.items():
        home = None
        if name and not split and (splits or len(parts) > 1):
            problems: list[str] = []
            home = our_split(name, splits or {}, problems.append)
            if problems:
                raise DataError(f"{path}: {problems[0]}")
        table = _Table.choose(part, f"{path} {name}".strip(), given, concepts, tokens, tags)
        columns = table.columns
        if columns.mask and not mask_classes:
            raise DataError(f"{path}: masks need the option classes, such as {{'1': 'cat'}}")
        order += table.class_names
        reading = Reading(columns, names or {}, separator, offsets, splits or {}, mask_classes, path, check_images)
        reading = replace(reading, names={}) if table.tags else reading
        place = f"{name} row".lstrip()
        for row, content in enumerate(table.rows(names or {}, f"{path}: {place}")):
            note = _note(faults, path, f"{place} {row}: ")
            for problem in content.pop("__faults", ()):
                note(problem)
            sample = reading.sample(content, f"{name or path.stem}-{row}", home, note)
            if sample is not None:
                read.append((sample, path, None))
    return collect(path.name, path, read, order, mask_classes if columns.mask else {}, faults)


def _note(faults: Faults, path: Path, place: str) -> Callable[[str], None]:
    return lambda message: faults.add(path, None, place + message)


def _library() -> ModuleType:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(
            "Hugging Face data sets need the library datasets; pip install 'superactivators[data]'"
        ) from None
    module: ModuleType = datasets
    return module


def _load(path: Path, config: str, revision: str) -> dict[str, Any]:
    """Open every split, by its name; the empty name where there are none."""
    library = _library()
    try:
        if path.is_file():
            if path.suffix.lower() not in _FILES:
                raise DataError(f"{path}: is no file that can be read; give one of {', '.join(_FILES)}, or a folder")
            kind = _FILES[path.suffix.lower()]
            return {"": library.load_dataset(kind, data_files=str(path.resolve()), split="train")}
        if path.is_dir():
            if (path / "dataset_dict.json").is_file():
                return dict(library.DatasetDict.load_from_disk(str(path)))
            if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
                return {"": library.load_from_disk(str(path))}
            found = library.load_dataset(str(path.resolve()), name=config or None)
        else:
            name = path.as_posix()
            if not _NAME.fullmatch(name):
                raise DataError(f"{name!s:.200}: no such file or folder, and no name of a data set (org/name)")
            found = library.load_dataset(name, name=config or None, revision=revision or None)
    except DataError:
        raise
    except Exception as error:  # the library raises whatever its parts do, network and parsers among them
        reason = " ".join(str(error).split()) or type(error).__name__
        tried = "as a data set of files" if path.exists() else "from the hub, and is no file or folder here"
        raise DataError(f"{path.as_posix()}: cannot be loaded {tried} ({reason:.300})") from error
    return dict(found) if isinstance(found, dict) else {"": found}


@final
@dataclass(frozen=True)
class _Table:
    """One split with its columns."""

    data: Any
    columns: Columns
    tokens: str
    tags: str
    class_names: tuple[str, ...]

    @staticmethod
    def choose(
        data: Any,
        place: str,
        given: Mapping[str, str],
        concepts: Sequence[str] | None,
        tokens: str,
        tags: str,
    ) -> _Table:
        held = list(data.column_names)
        if not tokens and not tags and not (given["text"] or given["image"]) and "tokens" in held:
            marked = [name for name in _TAGS if name in held]
            if len(marked) == 1:
                tokens, tags = "tokens", marked[0]
        if tokens or tags:
            for option, name in (("tokens", tokens), ("tags", tags)):
                if name not in held:
                    raise DataError(f"{place}: has no column {name!r} (option {option}); {allowed(name, held)}")
            beside = [name for name in held if name not in (tokens, tags)]
            chosen = Columns.choose(
                [*beside, _JOINED, "spans"], {**given, "text": _JOINED, "spans": "spans"}, concepts, place
            )
            chosen = chosen if given["labels"] or concepts else replace(chosen, labels="")
        else:
            chosen = Columns.choose(held, given, concepts, place)
        for name in (chosen.image, chosen.mask):
            if name and type(data.features[name]).__name__ != "Image":
                raise DataError(f"{place}: column {name!r} holds no images but {data.features[name]}")
        class_names = () if not chosen.labels else tuple(_class_names(data.features[chosen.labels]) or ())
        return _Table(data, chosen, tokens, tags, class_names)

    def rows(self, names: Mapping[str, str], place: str) -> Iterator[dict[str, Any]]:
        """Yield the rows with class labels by name, tags as spans, and images as sources."""
        columns, library = self.columns, _library()
        pictures = [name for name in (columns.image, columns.mask) if name]
        raw = {
            name: self.data.select_columns([name]).cast_column(name, library.Image(decode=False)) for name in pictures
        }
        plain = [name for name in columns.used() if name in self.data.column_names and name not in pictures]
        plain += [name for name in (self.tokens, self.tags) if name]
        table = self.data.select_columns(plain).with_format(None) if plain else None
        for number in range(len(self.data)):
            row = dict(table[number]) if table is not None else {}
            problems: list[str] = []
            for name in plain:
                row[name] = _decoded(row[name], self.data.features[name], name, problems)
            for name, rows in raw.items():
                held = rows[number][name] is not None
                row[name] = RowPixels(rows, name, number, name == columns.mask, f"{place} {number}") if held else None
            if self.tags:
                row[_JOINED], row["spans"] = _joined(row[self.tokens], row[self.tags], names, problems)
            row["__faults"] = problems
            yield row


def _inner(feature: Any) -> Any:
    """Feature of a list's items; None for what is no list."""
    return feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)


def _class_names(feature: Any) -> list[str]:
    """Names of a class label, also within a list."""
    inner = _inner(feature)
    return list(getattr(feature if inner is None else inner, "names", None) or ())


def _decoded(value: Any, feature: Any, column: str, problems: list[str]) -> Any:
    """Give class labels their names, wherever they stand in a value."""
    if isinstance(value, list) and (inner := _inner(feature)) is not None:
        return [_decoded(item, inner, column, problems) for item in value]
    if isinstance(value, dict) and isinstance(feature, dict):
        return {key: _decoded(item, feature.get(key), column, problems) for key, item in value.items()}
    names = getattr(feature, "names", None)
    if not names or not isinstance(value, int):
        return value
    if not 0 <= value < len(names):
        problems.append(
            f"column {column!r} holds {value}, which is no class (of an unlabelled split?); name the splits to read "
            "with the option splits"
        )
        return None
    return names[value]


def _joined(
    tokens: Any, tags: Any, names: Mapping[str, str], problems: list[str]
) -> tuple[str | None, list[tuple[int, int, str]] | None]:
    """Text and spans of tokens with tags."""
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        problems.append(f"tokens must be a list of strings; got {shown(tokens)}")
        return None, None
    if not isinstance(tags, list) or len(tags) != len(tokens):
        problems.append(f"has {len(tokens)} tokens, but its tags are {shown(tags)}; give one for each token")
        return " ".join(tokens), None
    if all(tag is not None for tag in tags):
        marks = [names.get(str(tag), "" if names and isinstance(tag, int) else str(tag)) for tag in tags]
        if any(isinstance(tag, int) and str(tag) not in names for tag in tags):
            problems.append(
                f"tags are numbers ({shown(tags)}); name them with the option names: {{'0': 'O', '1': 'B-…'}}"
            )
            return " ".join(tokens), None
        found, problem = spans_of_tags(tokens, marks)
        if problem:
            problems.append(problem)
        return " ".join(tokens), found
    return " ".join(tokens), None
