"""Activations inside and outside each concept on the test split, as histograms (METHOD section 8)."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from superactivators.detection.metrics import ratio
from superactivators.ragged import segment_ids
from superactivators.report.inputs import ReportInputs

BINS = 96
LOWEST = 0.0005
"""Share of tokens below the left edge; they are counted in the first bin. The right edge is the maximum."""


def histograms(
    scores: Float[np.ndarray, "tokens c"], members: Bool[np.ndarray, "tokens c"], edges: Float[np.ndarray, "c two"]
) -> Int[np.ndarray, "c bins"]:
    """Histogram of each column's members between its own edges; values outside count in the outer bins."""
    row, column = np.nonzero(members)
    low, high = edges[column, 0], edges[column, 1]
    place = np.floor((scores[row, column] - low) / np.where(high > low, high - low, 1) * BINS)
    slot = column * BINS + np.clip(place, 0, BINS - 1).astype(np.int64)
    return np.bincount(slot, minlength=BINS * scores.shape[1]).reshape(scores.shape[1], BINS)


def distributions(inputs: ReportInputs) -> dict[str, list[dict[str, Any]]]:
    """D_in and D_out of every kind and concept at its chosen layer, on test tokens.

    Returns
    -------
    dict of str to list
        By kind, in the order of the concepts: ``edges``, ``inside`` and ``outside`` (counts in bins), ``above_inside``
        and ``above_outside`` (exact share of tokens at or above the threshold), ``typical`` (median of D_out). Empty
        lists without token labels.
    """
    labels, names = inputs.labels, inputs.result.summary["concepts"]
    content: dict[str, list[dict[str, Any]]] = {kind: [] for kind in inputs.kinds}
    if labels.tokens is None:
        return content
    for kind in inputs.kinds:
        chosen = inputs.result.summary["chosen"][kind][inputs.focus]
        sites = np.array([chosen[name]["site"] for name in names])
        values = np.array(
            [np.nan if chosen[name]["threshold"] is None else chosen[name]["threshold"] for name in names]
        )
        found: dict[int, dict[str, Any]] = {}
        for site in dict.fromkeys(sites.tolist()):
            columns = np.flatnonzero(sites == site)
            activations, rows, offsets = inputs.scores(kind, "token", site).of_split(labels, "test")
            absent = ~labels.samples[labels.in_split("test")][:, columns]
            inside = labels.tokens[rows][:, columns].toarray() & labels.known[rows][:, None]
            entries = _of_columns(activations[:, columns], inside, absent[segment_ids(offsets)], values[columns])
            found |= dict(zip(columns.tolist(), entries, strict=True))
        content[kind] = [found[number] for number in range(len(names))]
    return content


def _of_columns(
    scores: Float[np.ndarray, "tokens c"],
    inside: Bool[np.ndarray, "tokens c"],
    outside: Bool[np.ndarray, "tokens c"],
    thresholds: Float[np.ndarray, " c"],
) -> list[dict[str, Any]]:
    wide = scores.astype(np.float64)
    shown = np.where(inside | outside, wide, np.nan)
    shown[:, np.isnan(shown).all(axis=0)] = 0.0
    edges = np.stack([np.nanquantile(shown, LOWEST, axis=0), np.nanmax(shown, axis=0)], axis=1)
    edges[:, 0] = np.fmin(edges[:, 0], thresholds)
    edges[:, 1] = np.fmax(edges[:, 1], np.where(np.isfinite(thresholds), thresholds, -np.inf))
    far = np.where(outside, wide, np.nan)
    far[:, np.isnan(far).all(axis=0)] = 0.0
    typical = np.nanmedian(far, axis=0)
    above = wide >= thresholds
    shares = [ratio((above & part).sum(axis=0), part.sum(axis=0)) for part in (inside, outside)]
    counts = [histograms(scores, part, edges) for part in (inside, outside)]
    return [
        {
            "edges": edges[c],
            "inside": counts[0][c],
            "outside": counts[1][c],
            "above_inside": shares[0][c],
            "above_outside": shares[1][c],
            "typical": typical[c],
        }
        for c in range(scores.shape[1])
    ]
