"""Detection results as a folder of tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from superactivators.artefacts import FolderReader, Format, held_format, writing
from superactivators.detection.results import DetectionResult
from superactivators.detection.thresholds import Threshold

DETECTION = Format("superactivators/detection", 2)
FIRST = Format("superactivators/detection", 1)
"""Without oracle, lengths, comparisons and resamples."""

TABLES = ("metrics", "curves", "aggregates", "localisation", "oracle", "lengths", "comparisons")


def save_detection(result: DetectionResult, folder: Path, made_from: str) -> None:
    """Write all tables of a detection result as a folder of format ``superactivators/detection``."""
    with writing(folder, DETECTION, made_from, {"concepts": result.summary["concepts"]}) as writer:
        for name in TABLES:
            writer.table(f"{name}.parquet", getattr(result, name))
        writer.table("thresholds.parquet", pa.Table.from_pylist([item.as_dict() for item in result.thresholds]))
        writer.arrays("resamples.safetensors", {f"nested/{name}": values for name, values in result.resamples.items()})
        writer.json("summary.json", result.summary)


def load_detection(folder: Path) -> DetectionResult:
    """Read what `save_detection` wrote; raises ``StoreError`` if it is missing, damaged or foreign.

    Folders of version 1 have no resamples, and empty tables of what they lack.
    """
    held = held_format(folder, DETECTION, FIRST)
    reader = FolderReader(folder, held)
    there = TABLES if held == DETECTION else TABLES[:4]
    tables = {name: reader.table(f"{name}.parquet") if name in there else pa.table({}) for name in TABLES}
    rows: Sequence[dict[str, object]] = reader.table("thresholds.parquet").to_pylist()
    thresholds = [Threshold.from_dict(row) for row in rows]
    arrays = reader.arrays("resamples.safetensors") if held == DETECTION else {}
    resamples = {name.removeprefix("nested/"): values for name, values in arrays.items()}
    return DetectionResult(**tables, thresholds=thresholds, resamples=resamples, summary=reader.json("summary.json"))
