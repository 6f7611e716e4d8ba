"""Reader of the open text format: a folder with ``data.jsonl`` (docs/data.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from superactivators.data.dataset import ConceptDataset, Span, TextSample
from superactivators.data.faults import Faults
from superactivators.data.jsonl import Record, is_name, listed_concepts, note_repeated_ids, read_records
from superactivators.errors import allowed

FILE = "data.jsonl"


def read_text_folder(folder: Path) -> ConceptDataset:
    """Read texts with character spans.

    Each line of ``data.jsonl`` holds ``id`` and ``text``, and may hold ``spans`` (objects with ``start``, ``end``,
    ``label``), ``labels`` (concepts present), ``split`` and ``group``. Other fields are ignored.

    Parameters
    ----------
    folder : Path
        Holds ``data.jsonl``; its name becomes the data set's.

    Returns
    -------
    ConceptDataset
        Concepts in the order of ``concepts.json`` if there is one, then others in alphabetical order.

    Raises
    ------
    DataError
        One error that lists every fault with file and line: bad JSON, missing or empty text, span outside the text
        or on blanks only, label missing or not among the sample's labels, unknown split, duplicate id.
    """
    faults = Faults()
    listed = listed_concepts(folder, faults)
    read: list[tuple[Record, TextSample]] = []
    named: list[tuple[Record, str]] = []
    for record in read_records(folder / FILE, faults):
        name = record.text("id", required=True)
        text = record.text("text", required=True)
        labels = record.strings("labels")
        given = None if labels is None else frozenset(labels)
        split, group = record.split(), record.text("group", required=False)
        spans = tuple(
            span for item in record.objects("spans") if (span := _span(record, item, text, given)) is not None
        )
        if name is not None:
            named.append((record, name))
            if text is not None:
                read.append((record, TextSample(name, text, spans, given, split, group)))
    note_repeated_ids(named)
    if not len(faults) and not read:
        faults.add(folder / FILE, None, "has no samples; give one JSON object a line")
    faults.raise_if_any(f"data set {folder}")
    samples = tuple(sample for _, sample in read)
    concepts = {span.concept for sample in samples for span in sample.spans}
    concepts |= {label for sample in samples for label in sample.labels or ()}
    return ConceptDataset(folder.resolve().name, (*listed, *sorted(concepts - set(listed))), samples)


def _span(record: Record, item: dict[str, Any], text: str | None, labels: frozenset[str] | None) -> Span | None:
    start, end, label = item.get("start"), item.get("end"), item.get("label")
    if not is_name(label):
        record.fault(f"span {item} needs a 'label' that is a non-empty string")
        return None
    if type(start) is not int or type(end) is not int:
        record.fault(f"span of {label!r} needs whole numbers 'start' and 'end'; got {start!r} and {end!r}")
        return None
    if labels is not None and label not in labels:
        record.fault(f"span label {label!r} is not among the sample's labels; {allowed(label, labels)}")
    if text is None:
        return None
    if not 0 <= start < end <= len(text):
        record.fault(
            f"span of {label!r} is [{start}, {end}), but 0 <= start < end <= {len(text)} (the text's length) must hold"
        )
        return None
    if not text[start:end].strip():
        record.fault(f"span of {label!r} [{start}, {end}) holds only blanks")
        return None
    return Span(start, end, label)
