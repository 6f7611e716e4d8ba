"""The analyses of a study as a folder of tables and arrays (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from superactivators.analysis.results import SCHEMAS, AnalysisResult
from superactivators.artefacts import FolderReader, Format, writing
from superactivators.errors import StoreError

FORMAT = Format("superactivators/analysis", 1)

WORDS = ("concept", "kind", "site")
ARRAYS = ("cosine", "inside", "fired", "tokens")
"""Of each pair example."""


def save_analysis(folder: Path, result: AnalysisResult, made_from: str) -> None:
    """Write the folder in one step.

    Raises
    ------
    StoreError
        If the file system refuses it, or another kind of folder is in the way.
    """
    with writing(folder, FORMAT, made_from, {"tables": list(SCHEMAS)}) as writer:
        for name in SCHEMAS:
            writer.table(f"{name}.parquet", getattr(result, name))
        arrays: dict[str, np.ndarray] = {}
        for number, example in enumerate(result.pairs.values()):
            for name in ARRAYS:
                held = example[name]
                arrays[f"{number}.{name}"] = held.astype(np.uint8) if held.dtype == bool else held
        writer.arrays("pairs.safetensors", arrays)
        told = [{"sample": sample, **{name: held[name] for name in WORDS}} for sample, held in result.pairs.items()]
        writer.json("pairs.json", told)


def load_analysis(folder: Path) -> AnalysisResult:
    """Read what `save_analysis` wrote; raises ``StoreError`` if it is missing, damaged or foreign."""
    reader = FolderReader(folder, FORMAT)
    tables = {name: reader.table(f"{name}.parquet") for name in SCHEMAS}
    told, arrays = reader.json("pairs.json"), reader.arrays("pairs.safetensors")
    try:
        for name, columns in SCHEMAS.items():
            if not set(columns) <= set(tables[name].column_names):
                raise ValueError(f"{name}.parquet lacks columns")
        pairs = {
            str(entry["sample"]): _pair(entry, {name: arrays[f"{number}.{name}"] for name in ARRAYS})
            for number, entry in enumerate(told)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{folder}: its content does not fit the format ({error!r}); make it again") from None
    return AnalysisResult(**tables, pairs=pairs)


def _pair(entry: Mapping[str, Any], held: Mapping[str, np.ndarray]) -> dict[str, Any]:
    n_tokens = len(held["tokens"])
    if held["cosine"].shape != (n_tokens, n_tokens) or any(held[name].shape != (n_tokens,) for name in ARRAYS[1:]):
        raise ValueError("arrays of an example differ in their number of tokens")
    return {
        **{name: str(entry[name]) for name in WORDS},
        "cosine": held["cosine"].astype(np.float32),
        "inside": held["inside"].astype(bool),
        "fired": held["fired"].astype(bool),
        "tokens": held["tokens"].astype(np.int64),
    }
