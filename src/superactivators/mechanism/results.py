"""What was found about the mechanism, as tables, and their folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import pyarrow as pa

from superactivators.artefacts import FolderReader, Format, writing
from superactivators.errors import StoreError

FORMAT = Format("superactivators/mechanism", 1)

TABLES = {
    "growth": ("site", "vector", "concept", "gap", "growth", "skewness_in", "tail_mass"),
    "splits": ("block", "vector", "concept", "part", "change_in", "change_out", "change_fired", "apart", "error"),
    "heads": ("block", "head", "concept", "vector", "ov_gain", "qk_gain", "attention", "share", "lift"),
    "ablations": ("block", "head", "concept", "site", "auroc", "auroc_change", "tail_mass", "max_activation"),
}
"""Tables, with columns that they must have if they have rows."""


@final
@dataclass(frozen=True, eq=False)
class MechanismResult:
    """Growth, parts of blocks, heads and ablations of drawn test samples (METHOD section 8, Mechanism).

    Attributes
    ----------
    growth : pyarrow Table
        See `superactivators.mechanism.growth.growth_table`.
    splits : pyarrow Table
        See `superactivators.mechanism.splits.split_rows`; ``error`` is the largest relative error of the block's
        identity.
    heads : pyarrow Table
        ``block, head, kv_head, concept, vector``; ``ov_gain, ov_cosine, qk_gain, qk_cosine`` (see
        `superactivators.mechanism.heads.HeadGains`); ``variance`` (mean over samples of the variance of a sample's
        activations before the block); ``amplification``, the product of both gains and the variance: by which share
        statement 1 of `superactivators.mechanism.theorems` lets the head widen small gaps if all else were even;
        ``attention`` (mean attention to the concept's SuperActivators), ``share`` (of them among the places seen) and
        ``lift`` (the first over the second).
    ablations : pyarrow Table
        ``block, head, concept, site, auroc, tail_mass, max_activation, recall`` without the head, and their changes
        (``auroc_change`` and so on) against the whole model; at each concept's own site, never before the head.
    summary : mapping
        JSON types: what was looked at, and ``notes`` on what could not be.
    """

    growth: pa.Table
    splits: pa.Table
    heads: pa.Table
    ablations: pa.Table
    summary: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {getattr(self, name).num_rows}" for name in TABLES)
        return f"MechanismResult({self.summary.get('samples', '?')} samples; rows: {sizes})"

    def save(self, folder: str | Path, made_from: str = "") -> None:
        """Write the tables as a folder of format ``superactivators/mechanism``; raises ``StoreError``."""
        with writing(Path(folder), FORMAT, made_from, {"tables": list(TABLES)}) as writer:
            for name in TABLES:
                writer.table(f"{name}.parquet", getattr(self, name))
            writer.json("summary.json", dict(self.summary))

    @staticmethod
    def load(folder: str | Path) -> MechanismResult:
        """Read what `save` wrote; raises ``StoreError`` if it is missing, damaged or foreign."""
        reader = FolderReader(Path(folder), FORMAT)
        tables = {name: reader.table(f"{name}.parquet") for name in TABLES}
        for name, needed in TABLES.items():
            if tables[name].num_rows and not set(needed) <= set(tables[name].column_names):
                raise StoreError(f"{folder}: {name}.parquet lacks columns; make it again")
        return MechanismResult(**tables, summary=reader.json("summary.json"))

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        return {"summary": dict(self.summary), **{name: getattr(self, name).to_pylist() for name in TABLES}}
