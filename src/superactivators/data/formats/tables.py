"""Reader of tables: CSV, TSV, JSON Lines and Parquet files with a text or an image in each row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from superactivators.data.dataset import ConceptDataset, Sample
from superactivators.data.faults import Faults
from superactivators.data.formats.columns import (
    SPLIT_NAMES,
    Columns,
    Reading,
    Row,
    check_splits,
    collect,
    our_split,
    read_classes,
)
from superactivators.data.formats.offsets import check_unit
from superactivators.data.formats.text_files import decode, json_lines, parse_json, read_bytes, read_json, shown
from superactivators.errors import DataError

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json", ".parquet")
_TABLES = tuple(suffix for suffix in SUFFIXES if suffix not in (".txt", ".json"))
_SHARD = re.compile(r"[-_.]\d+(-of-\d+)?$")
_LARGEST_CELL = 2**30


def read_table(
    path: Path,
    *,
    text: str = "",
    labels: str = "",
    concepts: list[str] | None = None,
    spans: str = "",
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
    delimiter: str = "",
    encoding: str = "utf-8",
    check_images: bool = True,
) -> ConceptDataset:
    """Read labelled texts or images from rows of a table.

    The options ``text`` to ``group`` name columns. Left out, a column of a usual name (in any case) is taken:
    ``text``, ``sentence`` or ``content``; ``labels``, ``label`` or ``category``; ``spans``, ``image``, ``mask``,
    ``id``, ``split``, ``group``. ``"-"`` says that no column is meant. Other columns are ignored.

    Parameters
    ----------
    path : Path
        A file (``.csv``, ``.tsv``, ``.txt``, ``.jsonl``, ``.ndjson``, ``.json`` with a list of objects, ``.parquet``),
        or a folder that holds one, or one or more for each split (``train.csv``, ``val.csv``, ``test.csv``;
        ``train-00000-of-00002.parquet``).
    text, image : str
        Column with the text, or with the path of an image file, relative to the table.
    labels : str
        Column with the sample's label, a list of labels (also written as JSON), or several between separators. An
        empty cell means no label; with spans or a mask: those that have a token.
    concepts : list of str
        In place of labels: one column for each concept, with 0 or 1 (true or false, yes or no).
    spans : str
        Column with a list, also written as JSON, of ``{"start", "end", "label"}`` or ``[start, end, label]``.
    mask : str
        Column with the path of a single-channel image of class ids.
    id : str
        Column of ids; without one, ids are the file's name and the number of the row, from 1.
    split : str
        Column with the split's name. Without one, a folder's files tell it. train and training become ``train``;
        val, valid, validation, dev, cal and calibration ``cal``; test and testing ``test``.
    group : str
        Column whose equal values (document, author) never come into two splits.
    separator : str
        Between several labels in one cell, such as ``";"``.
    names : dict
        Concept for each label value, such as ``{"0": "", "1": "sarcasm"}``; the empty string for none.
    offsets : str
        What spans count: ``"code-points"`` (Python), ``"utf-16"`` (JavaScript, Java) or ``"graphemes"``.
    splits : dict
        Our name of each of the table's own split names, in place of those above.
    classes : dict
        Concept, or list of concepts, of each mask id; left out, ``classes.json`` beside the table.
    delimiter : str
        Between the cells of a CSV file. Left out: a tab in ``.tsv``; else what a first line ``sep=`` says; else
        whichever of comma, semicolon and tab the header has most often outside of quotes.
    encoding : str
        Of CSV and JSON files.
    check_images : bool
        Open every image and mask.

    Returns
    -------
    ConceptDataset
        Concepts in the order of ``concepts`` or ``classes``, else of the alphabet.

    Raises
    ------
    DataError
        One error that lists every fault with file and line (of Parquet: row).

    Notes
    -----
    A row of a CSV file whose cells are all empty is left out, since spreadsheets append such rows.
    """
    check_unit(offsets)
    check_splits(splits or {})
    files = _files(path, splits or {}, split)
    folder = files[0][0].parent
    if classes is None:
        beside = folder / "classes.json"
        classes = read_json(beside) if beside.is_file() else {}
    if not isinstance(classes, dict):
        raise DataError(f"{path}: classes must map mask ids to concepts, such as {{'1': 'cat'}}; got {shown(classes)}")
    mask_classes = read_classes(classes, path)
    given = {"text": text, "labels": labels, "spans": spans, "image": image, "mask": mask}
    given |= {"id": id, "split": split, "group": group}
    faults = Faults()
    read: list[tuple[Sample, Path, int | None]] = []
    columns = Columns()
    for file, home in files:
        names_found, rows = _open(file, delimiter, encoding, faults)
        columns = Columns.choose(names_found, given, concepts, file)
        repeated = [name for name in columns.used() if names_found.count(name) > 1]
        if repeated:
            raise DataError(f"{file}: column {repeated[0]!r} comes twice; give columns different names")
        if columns.mask and not mask_classes:
            raise DataError(f"{file}: masks need the option classes (or a file classes.json): {{'1': 'cat'}}")
        reading = Reading(
            columns, names or {}, separator, offsets, splits or {}, mask_classes, file.parent, check_images
        )
        for number, (line, row) in enumerate(rows(columns), start=1):
            note = _note(faults, file, line, number)
            sample = reading.sample(row, f"{file.stem}-{number}", home, note)
            if sample is not None:
                read.append((sample, file, line))
    order = [*(concepts or ()), *(name for found in mask_classes.values() for name in found)]
    name = path.resolve().stem if path.is_file() else path.resolve().name
    return collect(name, path, read, order, mask_classes if columns.mask else {}, faults)


def _note(faults: Faults, file: Path, line: int | None, number: int) -> Callable[[str], None]:
    place = "" if line is not None else f"row {number}: "
    return lambda message: faults.add(file, line, place + message)


def _files(path: Path, splits: Mapping[str, str], split: str) -> list[tuple[Path, str | None]]:
    """Find the files to read, each with the split that its name tells."""
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise DataError(f"{path}: is no table that can be read; give one of {', '.join(SUFFIXES)}")
        return [(path, None)]
    if not path.is_dir():
        raise DataError(f"{path!s:.200}: no such file or folder; check the path")
    held = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in _TABLES)
    if len(held) == 1 and _split_name(held[0], splits) is None:
        return [(held[0], None)]
    found = []
    for file in held:
        original = _split_name(file, splits)
        if original is None:
            raise DataError(
                f"{path}: cannot tell the split of {file.name}; name the files after splits, map their names with "
                f"the option splits, or give one file. Known: {', '.join(splits or SPLIT_NAMES)}"
            )
        home = our_split(original, splits, lambda message: None)
        found.append((file, None if split else home))
    if not found:
        raise DataError(f"{path}: holds no table; give a file or folder with {', '.join(_TABLES)}")
    kinds = {(home, file.suffix.lower()) for file, home in found}
    doubled = [home for home, _ in kinds if home and sum(other == home for other, _ in kinds) > 1]
    if doubled:
        raise DataError(f"{path}: holds files of two types for split {doubled[0]}; remove one of them")
    return found


def _split_name(file: Path, splits: Mapping[str, str]) -> str | None:
    stem = _SHARD.sub("", file.stem)
    known = splits or SPLIT_NAMES
    return next((name for name in (file.stem, stem, stem.lower()) if name in known), None)


def _open(
    file: Path, delimiter: str, encoding: str, faults: Faults
) -> tuple[list[str], Callable[[Columns], Iterator[tuple[int | None, Row]]]]:
    """Read the column names of a file, and say how to read the rows of chosen columns."""
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _parquet(file)
    content = decode(read_bytes(file), file, encoding)
    if suffix in (".csv", ".tsv", ".txt"):
        return _csv(content, file, delimiter or ("\t" if suffix == ".tsv" else ""), faults)
    found: list[tuple[int | None, Row]]
    if suffix == ".json":
        rows = parse_json(content, file)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{file}: must hold a list of objects, one for each row; got {shown(rows)}")
        found = [(None, row) for row in rows]
    else:
        found = list(json_lines(content, file, faults))
    if not found:
        faults.raise_if_any(f"data set {file}")
        raise DataError(f"{file}: has no rows")
    held = list(dict.fromkeys(str(key) for _, row in found for key in row))
    return held, lambda columns: iter(found)


def _parquet(file: Path) -> tuple[list[str], Callable[[Columns], Iterator[tuple[int | None, Row]]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file)
        held = list(opened.schema_arrow.names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: is not readable Parquet ({str(error).splitlines()[0]:.120})") from None

    def rows(columns: Columns) -> Iterator[tuple[int | None, Row]]:
        try:
            for batch in opened.iter_batches(batch_size=1024, columns=columns.used()):
                for row in batch.to_pylist():
                    yield None, row
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file}: is not readable Parquet ({str(error).splitlines()[0]:.120})") from None

    return held, rows


def _csv(
    content: str, file: Path, delimiter: str, faults: Faults
) -> tuple[list[str], Callable[[Columns], Iterator[tuple[int | None, Row]]]]:
    skipped = 0
    said = re.match(r"sep=(.)\r?\n", content)
    if said:
        content, skipped = content[said.end() :], 1
        delimiter = delimiter or said.group(1)
    if len(delimiter or ",") != 1:
        raise DataError(f"{file}: option delimiter must be one character; got {delimiter!r}")
    records = csv_records(content, file, delimiter or _likely_delimiter(content), skipped)
    header: list[str] = next((cells for _, cells in records), [])
    if not any(name.strip() for name in header):
        raise DataError(f"{file}: is empty; the first line must name the columns")

    def rows(columns: Columns) -> Iterator[tuple[int | None, Row]]:
        for line, cells in records:
            if len(cells) == len(header):
                yield line, dict(zip(header, cells, strict=True))
            else:
                faults.add(file, line, f"has {len(cells)} cells, but the header names {len(header)} columns")

    return header, rows


def csv_records(content: str, file: Path, delimiter: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the first line and the cells of every record that is not blank."""
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + skipped + 1
        limit = csv.field_size_limit(_LARGEST_CELL)  # for the whole process, so it is put back at once
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(
                f"{file}:{line}: is not CSV with the delimiter {delimiter!r} ({error}); check its quotes"
            ) from None
        finally:
            csv.field_size_limit(limit)
        if any(cell.strip() for cell in cells):
            yield line, cells


def _likely_delimiter(content: str) -> str:
    """Whichever of comma, semicolon and tab the header has most often outside of quotes; of equals, the first."""
    header: list[str] = []
    quoted = False
    for sign in content:
        quoted ^= sign == '"'
        if sign in "\r\n" and not quoted and header:
            break
        if not quoted:
            header.append(sign)
    return max((",", ";", "\t"), key=header.count)
