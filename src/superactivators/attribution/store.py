"""The result of attribution as a folder of tables, arrays and a summary (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from superactivators.artefacts import FolderReader, Format, writing
from superactivators.attribution.results import AttributionResult, ExampleMaps
from superactivators.errors import StoreError

FORMAT = Format("superactivators/attribution", 1)

TABLES = {
    "aggregates": ("explainer", "objective", "measure", "value", "low", "high", "macro", "cases"),
    "concepts": ("explainer", "objective", "concept", "cases", "scale", "delta", "threshold"),
    "comparisons": ("explainer", "measure", "difference", "low", "high", "p", "p_holm"),
    "curves": ("explainer", "objective", "share", "insertion", "deletion"),
    "hybrid": ("alpha", "token_f1", "low", "high", "delta"),
    "sanity": ("explainer", "objective", "randomised", "correlation", "low", "high", "cases"),
}
"""Tables, with columns that they must have."""

MARKS = ("truth", "known", "fired")


def save_attribution(folder: Path, result: AttributionResult, made_from: str) -> None:
    """Write the folder in one step.

    Raises
    ------
    StoreError
        If the file system refuses it, or another kind of folder is in the way.
    """
    keys = list(dict.fromkeys(key for example in result.examples for key in example.maps))
    with writing(folder, FORMAT, made_from, {"tables": list(TABLES)}) as writer:
        for name in TABLES:
            writer.table(f"{name}.parquet", getattr(result, name))
        arrays: dict[str, np.ndarray] = {}
        entries: list[dict[str, Any]] = []
        for number, example in enumerate(result.examples):
            held = np.stack([example.maps[key] for key in keys]) if keys else np.zeros((0, len(example.truth)))
            arrays[f"{number}.maps"] = held.astype(np.float32)
            for name in MARKS:
                arrays[f"{number}.{name}"] = getattr(example, name).astype(np.uint8)
            entries.append(
                {
                    "sample": example.sample,
                    "concept": example.concept,
                    "fallback": example.fallback,
                    # thresholds can be infinite, which JSON cannot say
                    "thresholds": [repr(example.thresholds[key]) for key in keys],
                }
            )
        writer.arrays("examples.safetensors", arrays)
        writer.json("examples.json", {"maps": [list(key) for key in keys], "examples": entries})
        writer.json("summary.json", result.summary)


def load_attribution(folder: Path) -> AttributionResult:
    """Read what `save_attribution` wrote; raises ``StoreError`` if it is missing, damaged or foreign."""
    reader = FolderReader(folder, FORMAT)
    tables = {name: reader.table(f"{name}.parquet") for name in TABLES}
    try:
        for name, needed in TABLES.items():
            if not set(needed) <= set(tables[name].column_names):
                raise ValueError(f"{name}.parquet lacks columns")
        told, arrays = reader.json("examples.json"), reader.arrays("examples.safetensors")
        keys = [(str(explainer), str(objective)) for explainer, objective in told["maps"]]
        examples = tuple(
            _example(entry, keys, {name: arrays[f"{number}.{name}"] for name in ("maps", *MARKS)})
            for number, entry in enumerate(told["examples"])
        )
        summary = reader.json("summary.json")
        if not isinstance(summary, dict):
            raise TypeError("its summary is no object")
    except StoreError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{folder}: its content does not fit the format ({error!r}); make it again") from None
    return AttributionResult(**tables, examples=examples, summary=summary)


def _example(entry: Mapping[str, Any], keys: Sequence[tuple[str, str]], held: Mapping[str, np.ndarray]) -> ExampleMaps:
    marks = {name: held[name].astype(bool) for name in MARKS}
    n_tokens = len(marks["truth"])
    if held["maps"].shape != (len(keys), n_tokens) or any(mark.shape != (n_tokens,) for mark in marks.values()):
        raise ValueError("arrays of an example differ in their number of tokens")
    return ExampleMaps(
        sample=int(entry["sample"]),
        concept=str(entry["concept"]),
        fallback=bool(entry["fallback"]),
        maps=dict(zip(keys, held["maps"].astype(np.float32), strict=True)),
        thresholds=dict(zip(keys, map(float, entry["thresholds"]), strict=True)),
        **marks,
    )
