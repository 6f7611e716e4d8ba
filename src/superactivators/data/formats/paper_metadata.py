"""The paper's ``metadata.csv``: which samples, in which split, with which concepts; and how it is put on a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final, final

import numpy as np

from superactivators.data.dataset import SPLITS, VOID, ConceptDataset, ImageSample, Sample, Span, TextSample
from superactivators.data.faults import Faults
from superactivators.data.formats.csv_table import Flags, Table
from superactivators.data.formats.paper_concepts import evaluated_of
from superactivators.errors import DataError, allowed

FILE: Final = "metadata.csv"
WHAT: Final = (
    "the paper's metadata.csv: one row a sample, with image_path or text_path, split, and a column of 0 and 1 for "
    "each concept"
)
_PATHS = ("image_path", "text_path")
_OTHERS = ("split", "class")


@final
@dataclass(frozen=True)
class PaperRow:
    """One sample of a ``metadata.csv``.

    Attributes
    ----------
    line : int
        1-based line of the file.
    path : str
        ``image_path`` or ``text_path`` as written.
    split : str
        ``"train"``, ``"cal"`` or ``"test"``.
    labels : frozenset of str
        Concept columns that hold 1.
    kind : str
        Column ``class`` (CLEVR has it); ``""`` without one.
    """

    line: int
    path: str
    split: str
    labels: frozenset[str]
    kind: str


@final
@dataclass(frozen=True)
class PaperMetadata:
    """A ``metadata.csv`` as read: its file, its concept columns in order, and its rows in order."""

    path: Path
    concepts: tuple[str, ...]
    rows: tuple[PaperRow, ...]

    @property
    def stems(self) -> frozenset[str]:
        """File names of all rows, without folder and ending."""
        return frozenset(_posix(row.path).stem for row in self.rows)

    def chosen(self, evaluated: bool) -> tuple[str, ...]:
        """Concept columns; of a set of the paper, only those that it evaluates if this is asked."""
        return evaluated_of(self.concepts) if evaluated else self.concepts


def read_paper_metadata(path: Path, faults: Faults) -> PaperMetadata:
    """Read a ``metadata.csv`` of the paper (its repository's ``Data/{data set}/metadata.csv``).

    Parameters
    ----------
    path : Path
        The CSV file. A column without a name, such as an index that pandas wrote, is left out.
    faults : Faults
        Gets what is wrong with single rows: a split that is none of the three, a concept cell that is neither 0 nor
        1, an empty path, a path that an earlier row already has.

    Returns
    -------
    PaperMetadata

    Raises
    ------
    DataError
        If the file cannot be read, or lacks ``split``, a path column, or any concept.
    """
    table = Table(path, faults, ("split",), WHAT)
    found = [name for name in _PATHS if name in table.column]
    if len(found) != 1:
        raise DataError(f"{path}: has {' and '.join(found) or 'neither image_path nor text_path'}; give {WHAT}")
    concepts = tuple(name for name in table.columns if name not in (*_PATHS, *_OTHERS))
    if not concepts:
        raise DataError(f"{path}: has no concept column; give {WHAT}")
    where, split, kind = table.column[found[0]], table.column["split"], table.column.get("class")
    flags, rows, seen = Flags(table, concepts), [], dict[str, int]()
    for line, cells in table:
        name, part = cells[where].strip(), cells[split].strip()
        labels = frozenset(flags(line, cells))
        if part not in SPLITS:
            table.fault(line, f"split {part!r:.40} is unknown; {allowed(part, SPLITS)}")
        if not name:
            table.fault(line, f"{found[0]} is empty; name the sample's file")
        elif name in seen:
            table.fault(line, f"{found[0]} {name!r:.80} is a duplicate of line {seen[name]}; list each sample once")
        seen.setdefault(name, line)
        rows.append(PaperRow(line, name, part, labels, "" if kind is None else cells[kind].strip()))
    if not rows and not len(faults):
        table.fault(None, "has no rows; list at least one sample")
    return PaperMetadata(path, concepts, tuple(rows))


def apply_paper_metadata(
    dataset: ConceptDataset, metadata: Path | PaperMetadata, *, evaluated: bool = True
) -> ConceptDataset:
    """Give a data set the samples, order, splits, sample labels and concept names of a ``metadata.csv`` of the paper.

    A row finds its sample by the file's name without its ending; where several samples share that, by the folders
    before it. Samples that no row names are left out, as they are in the paper. A column finds its concept by name,
    or by the name behind ``::`` (``object::dog`` and ``dog``), whatever the case, with blanks for ``_`` and ``-``;
    the result bears the column's name. Spans and masks stay as they are: they may disagree with the columns (see
    `label_disagreements`).

    Parameters
    ----------
    dataset : ConceptDataset
        Its original files, read with any reader.
    metadata : Path or PaperMetadata
        The table.
    evaluated : bool
        Keep only the concepts that the paper evaluates (`paper_concepts.EVALUATED`); if the columns are of none of
        its data sets, all are kept.

    Returns
    -------
    ConceptDataset
        One sample for each row, in the order of the rows; concepts in the order of the columns.

    Raises
    ------
    DataError
        One error with every fault: a row without a sample or with several, a sample in two rows, a column without a
        concept or with several, and the faults of the table itself.
    """
    faults = Faults()
    table = metadata if isinstance(metadata, PaperMetadata) else read_paper_metadata(metadata, faults)
    columns = table.chosen(evaluated)
    renamed = _match_concepts(table.path, columns, dataset, faults)
    numbers = _match_samples(table, dataset.samples, faults)
    faults.raise_if_any(f"data set {dataset.name!r} with {table.path}")
    kept = frozenset(columns)
    samples = tuple(
        _relabelled(dataset.samples[number], row, kept, renamed)
        for number, row in zip(numbers, table.rows, strict=True)
        if number is not None  # none is None here: it would have been a fault
    )
    classes = {key: tuple(renamed.get(name, name) for name in names) for key, names in dataset.classes.items()}
    return ConceptDataset(dataset.name, columns, samples, classes)


def label_disagreements(dataset: ConceptDataset) -> dict[str, tuple[int, int]]:
    """Count the samples whose given labels disagree with their own spans or mask.

    Parameters
    ----------
    dataset : ConceptDataset
        Samples without given labels, and those without spans or mask, are not counted. All masks are made.

    Returns
    -------
    dict
        For each concept with a disagreement: in how many samples it is a label without a place, and in how many it
        has a place but is no label.
    """
    counts = {name: [0, 0] for name in dataset.concepts}
    for sample in dataset.samples:
        placed = _placed(sample, dataset)
        if sample.labels is None or placed is None:
            continue
        for name in counts:
            if (name in sample.labels) != (name in placed):
                counts[name][name in placed] += 1
    return {name: (without, unnamed) for name, (without, unnamed) in counts.items() if without or unnamed}


def _placed(sample: Sample, dataset: ConceptDataset) -> set[str] | None:
    if isinstance(sample, TextSample):
        return {span.concept for span in sample.spans} if sample.spans else None
    mask = sample.load_mask()
    if mask is None:
        return None
    void = (mask == VOID).any(axis=0)
    found = np.unique(mask[:, ~void]).tolist()
    return None if void.all() else {name for identity in found for name in dataset.classes.get(identity, ())}


def _posix(path: str) -> PurePosixPath:
    return PurePosixPath(path.replace("\\", "/"))


def _relabelled(sample: Sample, row: PaperRow, kept: frozenset[str], renamed: dict[str, str]) -> Sample:
    labels = row.labels & kept
    if isinstance(sample, ImageSample):
        return replace(sample, labels=labels, split=row.split)
    spans = tuple(Span(span.start, span.end, renamed.get(span.concept, span.concept)) for span in sample.spans)
    return replace(sample, labels=labels, split=row.split, spans=spans)


def _match_concepts(path: Path, columns: Sequence[str], dataset: ConceptDataset, faults: Faults) -> dict[str, str]:
    """Find the concept of every column; the result maps concepts to columns."""
    levels: list[dict[str, set[str]]] = [{}, {}]
    for concept in dataset.concepts:
        for level, key in enumerate(_keys(concept)):
            levels[level].setdefault(key, set()).add(concept)
    renamed: dict[str, str] = {}
    for column in columns:
        found = {column} if column in dataset.concepts else set()
        for known, key in zip(levels, _keys(column), strict=True):
            found = found or known.get(key, set())
        if not found:
            faults.add(path, None, f"column {column!r} is no concept of the data; {_near(column, dataset.concepts)}")
        elif len(found) > 1:
            faults.add(path, None, f"column {column!r} could be any of {', '.join(sorted(found))}; rename it")
        elif (concept := found.pop()) in renamed:
            faults.add(path, None, f"columns {renamed[concept]!r} and {column!r} are both the concept {concept!r}")
        else:
            renamed[concept] = column
    return renamed


def _near(column: str, concepts: Iterable[str]) -> str:
    """Name the nearest concepts; a data set may have a thousand, which no one wants to read."""
    names = sorted(concepts)
    if len(names) <= 20:
        return allowed(column, names)
    hint = allowed(column, names).partition("Known: ")[0]
    return f"{hint}it has {len(names)} concepts, such as {', '.join(names[:5])}"


def _keys(name: str) -> tuple[str, str]:
    plain = " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
    return plain, plain.rpartition("::")[2].strip()


def _match_samples(table: PaperMetadata, samples: Sequence[Sample], faults: Faults) -> list[int | None]:
    """Find the sample of every row."""
    paths = [_path_of(sample) for sample in samples]
    homes: dict[str, list[int]] = {}
    for number, path in enumerate(paths):
        homes.setdefault(path.stem, []).append(number)
    first: dict[int, PaperRow] = {}
    found: list[int | None] = []
    for row in table.rows:
        wanted = _posix(row.path)
        candidates = homes.get(wanted.stem) or homes.get(wanted.name) or []
        shared = [_shared_folders(wanted, paths[number]) for number in candidates]
        best = [number for number, folders in zip(candidates, shared, strict=True) if folders == max(shared)]
        if not best:
            faults.add(table.path, row.line, f"{row.path!r:.80} is no sample of the data; add its file")
        elif len(best) > 1:
            names = ", ".join(samples[number].id for number in best[:3])
            faults.add(table.path, row.line, f"{row.path!r:.80} could be any of the samples {names}; give more folders")
        elif best[0] in first:
            line = first[best[0]].line
            faults.add(table.path, row.line, f"{row.path!r:.80} is the sample of line {line}; list each sample once")
        found.append(best[0] if len(best) == 1 else None)
        first.update({best[0]: row} if len(best) == 1 and best[0] not in first else {})
    return found


def _path_of(sample: Sample) -> PurePosixPath:
    if isinstance(sample, ImageSample) and isinstance(sample.image, Path):
        return PurePosixPath(sample.image.as_posix())
    return _posix(f"{sample.id}.sample")  # an id has no ending, though it may hold dots


def _shared_folders(one: PurePosixPath, other: PurePosixPath) -> int:
    """Count the folders, from the file upwards, that two paths have in common."""
    count = 0
    for left, right in zip(one.parts[-2::-1], other.parts[-2::-1], strict=False):
        if left != right:
            break
        count += 1
    return count
