"""Short texts that a reader found, as paragraphs or by themselves; filler from a file, one neutral text a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from superactivators.artefacts import write_bytes
from superactivators.data.augmentation import SourceText, augment
from superactivators.data.dataset import ConceptDataset, TextSample
from superactivators.data.formats.text_files import decode, read_bytes
from superactivators.errors import DataError


def read_filler(path: Path) -> list[SourceText]:
    """Read a UTF-8 file with one neutral text a line; blank lines are left out.

    Parameters
    ----------
    path : Path
        A relative path is taken from where the program runs.

    Returns
    -------
    list of SourceText
        Without concepts and split; ids are ``line-000001`` and so on, by line number.

    Raises
    ------
    DataError
        If the file cannot be read, is not UTF-8 or holds no text.
    """
    # Not splitlines(): texts may hold U+2028 and other characters that Python also takes for line ends.
    lines = decode(read_bytes(path), path).split("\n")
    texts = [SourceText(f"line-{number:06d}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not texts:
        raise DataError(f"{path}: holds no text; a file of filler has one neutral text a line")
    return texts


def read_augmented(
    texts: Sequence[SourceText], *, filler: str, report: str, left_out: Mapping[str, int], **options: Any
) -> ConceptDataset:
    """Augment what a reader found, for readers: the neutral texts are its own, or the lines of a file.

    Parameters
    ----------
    texts : sequence of SourceText
        Labelled and neutral ones.
    filler : str
        Path of a file with one neutral text a line, used in place of the neutral texts; ``""`` for none.
    report : str
        Path to which the counts are written as JSON; ``""`` for none.
    left_out : mapping of str to int
        Texts that the reader itself left out, by reason; goes into the report as ``left_out``.
    **options
        For `augment`.

    Raises
    ------
    DataError
        As `augment`, or if the file of filler cannot be read.
    StoreError
        If the report cannot be written.
    """
    labelled = [text for text in texts if text.concepts]
    neutral = read_filler(Path(filler)) if filler else [text for text in texts if not text.concepts]
    made = augment(labelled, neutral, **options)
    if report:
        content = {"filler": filler or "the corpus", "left_out": dict(left_out), **made.counts}
        write_bytes(Path(report), (json.dumps(content, indent=2) + "\n").encode())
    return made.dataset


def single_texts(texts: Iterable[SourceText], name: str, concepts: Sequence[str]) -> ConceptDataset:
    """Make a data set of the texts as they are: labels of whole texts, tokens unknown."""
    chosen = frozenset(concepts)
    samples = tuple(
        TextSample(text.id, text.text, (), text.concepts & chosen, text.split, text.group) for text in texts
    )
    return ConceptDataset(name, tuple(concepts), samples)
