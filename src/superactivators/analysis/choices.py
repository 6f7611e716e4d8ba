"""What concepts choose on cal, and what one sparsity level for all of them gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from superactivators.detection.metrics import aggregate


def together(
    curves: pa.Table, concepts: Sequence[str], positives: Int[np.ndarray, " c"]
) -> dict[tuple[str, float], float]:
    """Average F1 over concepts where all of them take the same level.

    Parameters
    ----------
    curves : pyarrow Table
        ``site, delta, concept, f1`` of one kind, method and split.
    concepts : sequence of str
    positives : int64 array of shape (concepts,)
        Positive samples of the split: the weights.

    Returns
    -------
    dict of (site, level) to float
        In the order of the table.
    """
    place = {name: number for number, name in enumerate(concepts)}
    sites, deltas, names, f1 = (curves[name].to_pylist() for name in ("site", "delta", "concept", "f1"))
    order = list(dict.fromkeys(zip(sites, deltas, strict=True)))
    number = {key: row for row, key in enumerate(order)}
    values = np.full((len(order), len(concepts)), np.nan)
    values[[number[key] for key in zip(sites, deltas, strict=True)], [place[name] for name in names]] = f1
    averages = aggregate(values, positives)["weighted"]
    return {key: float(average) for key, average in zip(order, averages, strict=True)}


def curve_columns(
    cal: Mapping[tuple[str, float], float], test: Mapping[tuple[str, float], float]
) -> Mapping[str, list[Any]]:
    """Put `together` of cal and test side by side: columns ``site, delta, cal, test``."""
    sites, deltas = ([key[part] for key in test] for part in (0, 1))
    return {"site": sites, "delta": deltas, "cal": [cal[key] for key in test], "test": list(test.values())}


def choice_counts(chosen: Iterable[Any], offered: Iterable[Any], name: str) -> Mapping[str, list[Any]]:
    """Count how many concepts choose each value.

    Parameters
    ----------
    chosen : iterable
        One for each concept; None does not count.
    offered : iterable
        Values to be listed, in order, also those that no concept chooses.
    name : str
        Of the column.

    Returns
    -------
    mapping
        Columns ``name`` and ``concepts``.
    """
    counts = Counter(value for value in chosen if value is not None)
    values = list(dict.fromkeys([*offered, *counts]))
    return {name: values, "concepts": [counts[value] for value in values]}
