"""Reader of doccano's exports: sequence labelling and text classification, as JSON Lines, JSON, CSV, folder or zip."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from superactivators.data.dataset import ConceptDataset, Sample, Span, TextSample
from superactivators.data.faults import Faults
from superactivators.data.formats.columns import collect
from superactivators.data.formats.offsets import check_unit, place_span, units_agree
from superactivators.data.formats.tables import csv_records
from superactivators.data.formats.text_files import decode, json_lines, parse_json, read_bytes, shown
from superactivators.data.jsonl import is_name
from superactivators.errors import DataError, allowed

UNLABELLED = "unknown"
"""Name of the file with the texts that nobody labelled."""
_SUFFIXES = (".jsonl", ".json", ".csv")
_TEXT_KEYS, _ID_KEYS = ("text", "data"), ("id", "doc_id")
_LABEL_KEYS = ("label", "labels", "entities", "annotations", "cats")


@final
@dataclass
class _Found:
    """One document: spans as the file has them, labels, and where it stands."""

    path: Path
    line: int | None
    id: str
    text: str
    group: str | None
    spans: list[tuple[object, object, str]] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)


def read_doccano(
    path: Path,
    *,
    annotator: str = "",
    offsets: str = "auto",
    newlines: str = "auto",
    names: dict[str, str] | None = None,
    group: str = "",
    encoding: str = "utf-8",
) -> ConceptDataset:
    """Read a doccano export.

    Labels stand under ``label``, ``labels``, ``entities``, ``annotations`` or ``cats``, as ``[start, end, name]``, as
    ``{"start_offset", "end_offset", "label"}``, or, for whole texts, as names. Texts stand under ``text`` or ``data``,
    ids under ``id`` or ``doc_id`` (else they are line numbers). Relations, comments and other fields are ignored.
    doccano knows no splits.

    Parameters
    ----------
    path : Path
        A ``.jsonl``, ``.json`` or ``.csv`` file (CSV: classification only, several labels joined by ``#``), the zip
        that doccano offers, or the folder in it. A zip or folder has a file for each annotator (``admin.jsonl``), or
        ``all.jsonl``; ``unknown.jsonl``, the texts that nobody labelled, is not read.
    annotator : str
        Whose file, without suffix; needed where there are several.
    offsets : str
        What offsets count: ``"code-points"``, ``"utf-16"`` (newer releases) or ``"graphemes"`` (projects that count
        grapheme clusters as one character). ``"auto"``: whatever, as long as code points and UTF-16 units give the same
        spans, as they do in texts without emoji; where they do not, an error shows both readings.
    newlines : str
        Whether a Windows line end counts ``"two"`` or ``"one"``; ``"auto"`` as for offsets.
    names : dict
        Concept for each label, such as ``{"7": "person"}`` for old exports that give numbers; the empty string for
        labels to leave out.
    group : str
        Field (also of ``meta`` or ``metadata``) whose equal values never come into two splits.
    encoding : str
        Of the files.

    Returns
    -------
    ConceptDataset
        Without splits. If any text has spans, texts without spans hold no concept; labels of whole texts are kept
        beside them.

    Raises
    ------
    DataError
        One error that lists every fault with file and line.
    """
    check_unit(offsets, ("auto",))
    if newlines not in ("auto", "one", "two"):
        raise DataError(f"option newlines must be 'auto', 'one' or 'two'; got {newlines!r}")
    faults = Faults()
    file, content = _content(path, annotator)
    found: list[_Found] = []
    whole = False
    for line, record in _records(file, decode(content, file, encoding), faults):
        one = _document(file, line, len(found) + 1, record, names or {}, group, faults)
        if one is not None:
            found.append(one)
            whole = whole or bool(one.labels)
    spanned = any(one.spans for one in found)
    readings = _readings(offsets, newlines)
    read: list[tuple[Sample, Path, int | None]] = []
    for one in found:
        spans = _spans(one, readings, faults)
        labels = frozenset(one.labels | {span.concept for span in spans}) if whole or not spanned else None
        read.append((TextSample(one.id, one.text, spans, labels, None, one.group), one.path, one.line))
    return collect(path.resolve().stem if path.is_file() else path.resolve().name, path, read, (), {}, faults)


def _content(path: Path, annotator: str) -> tuple[Path, bytes]:
    """Find the file to read, in a folder or zip if need be."""
    if path.is_dir():
        held = {file.stem: file for file in sorted(path.iterdir()) if file.suffix.lower() in _SUFFIXES}
        file = held[_choose(list(held), annotator, path)]
        return file, read_bytes(file)
    if path.suffix.lower() == ".zip":
        try:
            with zipfile.ZipFile(io.BytesIO(read_bytes(path))) as archive:
                inner = {Path(name).stem: name for name in archive.namelist() if name.lower().endswith(_SUFFIXES)}
                name = inner[_choose(list(inner), annotator, path)]
                return path / name, archive.read(name)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise DataError(f"{path}: is not a readable zip file ({error})") from None
    if path.is_file() and path.suffix.lower() not in _SUFFIXES:
        raise DataError(f"{path}: is no doccano export; give a file of {', '.join(_SUFFIXES)}, a zip or a folder")
    return path, read_bytes(path)


def _choose(held: list[str], annotator: str, path: Path) -> str:
    if annotator:
        if annotator not in held:
            raise DataError(f"{path}: has no file of annotator {annotator!r}; {allowed(annotator, held)}")
        return annotator
    labelled = [name for name in held if name != UNLABELLED]
    if len(labelled) == 1:
        return labelled[0]
    if labelled:
        raise DataError(f"{path}: holds files of several annotators: {', '.join(labelled)}; set the option annotator")
    raise DataError(f"{path}: holds no labelled texts ({', '.join(held) or 'no JSON Lines, JSON or CSV file'})")


def _records(file: Path, content: str, faults: Faults) -> Iterator[tuple[int | None, dict[str, Any]]]:
    suffix = file.suffix.lower()
    if suffix == ".jsonl":
        yield from json_lines(content, file, faults)
    elif suffix == ".json":
        rows = parse_json(content, file)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{file}: must hold a list of objects; got {shown(rows)}")
        yield from ((None, row) for row in rows)
    else:
        records = csv_records(content, file, ",", 0)
        header: list[str] = next((cells for _, cells in records), [])
        if not {"label", "labels"} & set(header) or not set(_TEXT_KEYS) & set(header):
            raise DataError(f"{file}: is no doccano CSV: its columns are {', '.join(header)}, not id, data, label")
        for line, cells in records:
            if len(cells) != len(header):
                faults.add(file, line, f"has {len(cells)} cells, but the header names {len(header)} columns")
                continue
            row: dict[str, Any] = dict(zip(header, cells, strict=True))
            key = "label" if "label" in row else "labels"
            yield line, row | {key: [part for part in row[key].split("#") if part.strip()]}


def _document(
    file: Path,
    line: int | None,
    number: int,
    record: Mapping[str, Any],
    names: Mapping[str, str],
    group: str,
    faults: Faults,
) -> _Found | None:
    place = "" if line is not None else f"row {number}: "

    def fault(message: str) -> None:
        faults.add(file, line, place + message)

    text = next((record[key] for key in _TEXT_KEYS if key in record), None)
    if not is_name(text):
        fault(f"needs a text under one of {', '.join(_TEXT_KEYS)}; got {shown(text)}")
        return None
    identity = next((record[key] for key in _ID_KEYS if key in record), line if line is not None else number)
    if isinstance(identity, bool) or not (isinstance(identity, int) or is_name(identity)):
        fault(f"id must be a string or whole number; got {shown(identity)}")
        return None
    found = _Found(file, line, str(identity), text, _group(record, group))
    held = [key for key in _LABEL_KEYS if key in record]
    if not held:
        fault(f"has none of the fields {', '.join(_LABEL_KEYS)}; its fields are {', '.join(record) or 'none'}")
    for key in held:
        value = record[key]
        if isinstance(value, dict) and "entities" in value:
            value = value["entities"]
        if isinstance(value, str):
            value = [value] if value.strip() else []
        if value is None:
            continue
        if not isinstance(value, list):
            fault(f"field {key!r} must be a list; got {shown(value)}")
            continue
        for item in value:
            _add(found, item, names, fault)
    return found


def _add(found: _Found, item: object, names: Mapping[str, str], fault: Any) -> None:
    """Sort one label into spans or labels of the whole text."""
    start = end = None
    if isinstance(item, dict):
        start, end, label = item.get("start_offset"), item.get("end_offset"), item.get("label")
    elif isinstance(item, list) and len(item) == 3:
        start, end, label = item
    else:
        label = item
    placed = isinstance(item, list) or (isinstance(item, dict) and bool({"start_offset", "end_offset"} & item.keys()))
    named = str(label) if isinstance(label, int) and not isinstance(label, bool) else label
    if isinstance(named, str) and named in names:
        named = names[named]
        if not named:
            return
    elif isinstance(label, int) and not isinstance(label, bool):
        fault(
            f"label {label} is a number; export with text labels, or name it with the option names = {{'{label}': …}}"
        )
        return
    if not is_name(named):
        fault(f"a label must be a name, [start, end, name] or {{start_offset, end_offset, label}}; got {shown(item)}")
    elif placed:
        found.spans.append((start, end, named))
    else:
        found.labels.add(named)


def _group(record: Mapping[str, Any], name: str) -> str | None:
    if not name:
        return None
    for held in (record, record.get("meta"), record.get("metadata")):
        if isinstance(held, dict) and held.get(name) not in (None, ""):
            return str(held[name])
    return None


def _readings(offsets: str, newlines: str) -> list[tuple[str, bool]]:
    """All units that the offsets may be in, with whether a Windows line end counts one."""
    if offsets == "graphemes":
        return [("graphemes", True)]
    units = ("code-points", "utf-16") if offsets == "auto" else (offsets,)
    ends = (False, True) if newlines == "auto" else (newlines == "one",)
    return [(unit, one) for unit in units for one in ends]


def _spans(one: _Found, readings: list[tuple[str, bool]], faults: Faults) -> tuple[Span, ...]:
    """Place the spans of a document; note those that are wrong, or different in different units."""
    placed: list[Span] = []
    for start, end, label in one.spans:
        tried = readings[:1] if units_agree(one.text) else readings
        made = {
            reading: place_span(one.text, start, end, label, reading[0], one_newline=reading[1]) for reading in tried
        }
        good = {span: reading for reading, span in made.items() if isinstance(span, Span)}
        if len(good) == 1:
            placed += good
        elif good:
            shown_each = ", ".join(
                f"{one.text[span.start : span.end]!r:.40} ({unit}{', newlines one' if ends else ''})"
                for span, (unit, ends) in good.items()
            )
            faults.add(
                one.path,
                one.line,
                f"span of {label!r} [{start}, {end}) reads {shown_each}; "
                "say which is right with the options offsets and newlines",
            )
        else:
            faults.add(one.path, one.line, str(next(iter(made.values()))))
    return tuple(placed)
