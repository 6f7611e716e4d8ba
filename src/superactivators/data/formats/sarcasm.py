"""Reader of the News Headlines Dataset for Sarcasm Detection (Misra and Arora 2023)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from superactivators.data.augmentation import SourceText
from superactivators.data.dataset import ConceptDataset
from superactivators.data.faults import Faults
from superactivators.data.filler import read_augmented, single_texts
from superactivators.data.formats.text_files import decode, json_lines, read_bytes, shown
from superactivators.data.jsonl import is_name
from superactivators.errors import DataError

FILES: Final = ("Sarcasm_Headlines_Dataset_v2.json", "Sarcasm_Headlines_Dataset.json")
SARCASM: Final = "sarcasm"
"""The concept, as the paper's Sarcasm set calls it."""


def read_sarcasm(
    path: Path,
    *,
    augment: bool = True,
    filler: str = "",
    report: str = "",
    seed: int = 0,
    two: float = 0.0,
    none: float = 0.5,
    min_filler: int = 3,
    max_filler: int = 6,
    min_words: int = 3,
    max_words: int = 40,
    per_concept: int | None = None,
) -> ConceptDataset:
    """Read news headlines, by default as paragraphs in which a sarcastic headline stands among others.

    The paper's files do not say what its Sarcasm set was made from. That these headlines (The Onion against HuffPost)
    stand in for it is our choice. A file holds one JSON object a line with ``headline`` and ``is_sarcastic`` (0 or 1);
    ``article_link`` and other fields are not read. It has no splits.

    Parameters
    ----------
    path : Path
        The file, or a folder that holds one of ``Sarcasm_Headlines_Dataset.json`` and
        ``Sarcasm_Headlines_Dataset_v2.json``.
    augment : bool
        False: single headlines with the label of the whole; tokens are unknown.
    filler, report, seed, two, none, min_filler, max_filler, min_words, max_words, per_concept
        As for `superactivators.data.formats.goemotions.read_goemotions`. Every labelled headline is sarcastic, so that
        no two of them can share a paragraph; half of the paragraphs hold none.

    Returns
    -------
    ConceptDataset
        The one concept is ``sarcasm``; ids are ``headline-`` and the line number.

    Raises
    ------
    DataError
        If the file is missing or of another version, or lines have faults (all are listed).
    """
    file = path
    if path.is_dir():
        found = [path / name for name in FILES if (path / name).is_file()]
        if len(found) != 1:
            held = "both" if found else "neither"
            raise DataError(f"{path}: holds {held} of {' and '.join(FILES)}; give the path of one file")
        file = found[0]
    faults = Faults()
    content = decode(read_bytes(file), file)
    if content.lstrip().startswith("["):
        raise DataError(f"{file}: is a JSON array, but the original has one object a line; write each on its own line")
    texts: list[SourceText] = []
    for line, record in json_lines(content, file, faults):
        headline, mark = record.get("headline"), record.get("is_sarcastic")
        if not is_name(headline):
            faults.add(file, line, f"field 'headline' must be a string that is not empty; got {shown(headline)}")
        elif isinstance(mark, bool) or mark not in (0, 1):
            faults.add(file, line, f"field 'is_sarcastic' must be 0 or 1; got {shown(mark)}")
        else:
            texts.append(SourceText(f"headline-{line:06d}", headline, frozenset({SARCASM} if mark else ())))
    if not texts and not len(faults):
        faults.add(file, None, "holds no headline; give one JSON object a line")
    faults.raise_if_any(f"data set {path}")
    if not augment:
        if filler or report:
            raise DataError("sarcasm-headlines: filler and report are for augment = true; leave them out")
        return single_texts(texts, "sarcasm-headlines", (SARCASM,))
    return read_augmented(
        texts,
        filler=filler,
        report=report,
        left_out={},
        seed=seed,
        name="sarcasm-headlines",
        concepts=(SARCASM,),
        two=two,
        none=none,
        min_filler=min_filler,
        max_filler=max_filler,
        min_words=min_words,
        max_words=max_words,
        per_concept=per_concept,
    )
