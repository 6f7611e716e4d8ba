"""What the analyses of one study found: tables and a few samples looked at pair by pair (METHOD section 8)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa

SCHEMAS: dict[str, dict[str, pa.DataType]] = {
    "separation": {
        **{name: pa.string() for name in ("kind", "site", "concept")},
        **{name: pa.int64() for name in ("n_in", "n_out")},
        **{name: pa.float64() for name in ("overlap", "auroc", "cohens_d", "skewness_in", "skewness_out")},
        **{name: pa.float64() for name in ("far", "tail_mass", "coverage")},
    },
    "histograms": {
        **{name: pa.string() for name in ("kind", "site", "concept")},
        **{name: pa.float64() for name in ("low", "high")},
        **{name: pa.list_(pa.int64()) for name in ("inside", "outside")},
    },
    "sparsity": {
        **{name: pa.string() for name in ("kind", "concept")},
        **{name: pa.float64() for name in ("share", "cumulative")},
    },
    "deltas": {
        **{name: pa.string() for name in ("kind", "site")},
        **{name: pa.float64() for name in ("delta", "cal", "test")},
    },
    "best_deltas": {"kind": pa.string(), "delta": pa.float64(), "concepts": pa.int64()},
    "best_layers": {"kind": pa.string(), "site": pa.string(), "concepts": pa.int64()},
    "errors": {
        **{name: pa.string() for name in ("kind", "concept")},
        "n_positive": pa.int64(),
        **{name: pa.float64() for name in ("prevalence", "size", "f1", "precision", "recall", "fpr")},
    },
    "sizes": {
        "kind": pa.string(),
        **{name: pa.float64() for name in ("low", "high")},
        "n": pa.int64(),
        "recall": pa.float64(),
    },
    "lengths": {
        "kind": pa.string(),
        **{name: pa.float64() for name in ("low", "high")},
        "n": pa.int64(),
        **{name: pa.float64() for name in ("recall", "fpr")},
    },
    "confusion": {
        **{name: pa.string() for name in ("kind", "present", "absent")},
        **{name: pa.int64() for name in ("n", "fired")},
        **{name: pa.float64() for name in ("rate", "base")},
    },
}
"""Columns of every table."""


@final
@dataclass(frozen=True, eq=False)
class AnalysisResult:
    """What the analyses found, on test tokens and samples unless it says otherwise.

    Layers, levels and thresholds are those chosen on cal. Tables about tokens have no rows where no token was labelled.

    Attributes
    ----------
    separation : pyarrow Table
        ``kind, site, concept, n_in, n_out, overlap, auroc, cohens_d, skewness_in, skewness_out, far, tail_mass,
        coverage``: the fields of `superactivators.analysis.separation.Separation`, and the tokens of D_in and D_out.
    histograms : pyarrow Table
        ``kind, site, concept, low, high, inside, outside``: tokens of D_in and D_out in 60 bins of equal width from
        ``low`` to ``high``.
    sparsity : pyarrow Table
        ``kind, concept, share, cumulative``: share of positive samples of which at most this share of in-concept tokens
        are SuperActivators.
    deltas : pyarrow Table
        ``kind, site, delta, cal, test``: weighted F1 with one level for all concepts.
    best_deltas, best_layers : pyarrow Table
        ``kind, delta, concepts`` and ``kind, site, concepts``: how many concepts choose each on cal.
    errors : pyarrow Table
        ``kind, concept, n_positive, prevalence, size, f1, precision, recall, fpr``; ``size`` is the median share of a
        positive sample's tokens that carry the concept, null without labelled tokens.
    sizes : pyarrow Table
        ``kind, low, high, n, recall``: pairs of a positive sample and its concept, in fifths of that share.
    lengths : pyarrow Table
        ``kind, low, high, n, recall, fpr``: samples in fifths of their number of tokens; texts only. The rates are
        over all pairs of these samples with a concept.
    confusion : pyarrow Table
        ``kind, present, absent, n, fired, rate, base``: samples with ``present`` and without ``absent``, and how many
        of them fire ``absent``; ``base`` is its rate over all samples without it.
    pairs : mapping of str to mapping
        A few samples by id: ``concept``, ``kind``, ``site``, ``cosine`` (float32 [tokens, tokens], of the scaled
        states), ``inside`` and ``fired`` (bool [tokens]), ``tokens`` (int64 [tokens], their numbers in the sample).
    """

    separation: pa.Table
    histograms: pa.Table
    sparsity: pa.Table
    deltas: pa.Table
    best_deltas: pa.Table
    best_layers: pa.Table
    errors: pa.Table
    sizes: pa.Table
    lengths: pa.Table
    confusion: pa.Table
    pairs: Mapping[str, Mapping[str, Any]]


def table_of(name: str, parts: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Make the named table.

    Parameters
    ----------
    name : str
        One of `SCHEMAS`.
    parts : iterable of mappings
        Values of each column: arrays or lists of one length, or single values, which are repeated. Numbers that are NaN
        become null.

    Returns
    -------
    pyarrow Table
        The parts below each other; an empty table with the same columns without any.
    """
    schema = pa.schema(list(SCHEMAS[name].items()))
    return pa.concat_tables([schema.empty_table(), *(_part(columns, schema) for columns in parts)])


def _part(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    length = next(len(values) for values in columns.values() if isinstance(values, np.ndarray | list | tuple))
    arrays = []
    for field in schema:
        values = columns[field.name]
        if isinstance(values, np.ndarray) and values.ndim == 2:
            values = list(values)
        elif not isinstance(values, np.ndarray | list | tuple):
            values = [values] * length
        arrays.append(pa.array(values, type=field.type, from_pandas=True))
    return pa.table(arrays, schema=schema)
