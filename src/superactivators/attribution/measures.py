"""Measures of maps against the truth, for all cases at once (METHOD section 7).

Tokens whose label is not known are left out of every measure. Measures that depend on the order of tokens do not depend
on how ties are broken: equal tokens share what they would get on average.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from superactivators.attribution.cases import Cases
from superactivators.detection.metrics import ratio
from superactivators.errors import StudyError
from superactivators.ragged import segment_max

Scale: TypeAlias = Literal["raw", "relative"]
SCALES: tuple[Scale, ...] = get_args(Scale)
"""Maps as they are, or divided by the largest absolute value of their case."""

MEASURES = ("average_precision", "pointing", "mass", "rank", "sparseness")
"""What `measure` gives."""


def check_maps(maps: Float[np.ndarray, " rows"], cases: Cases) -> None:
    """Raise ``StudyError`` unless there is one finite number for each row."""
    if len(maps) != len(cases.inside):
        raise StudyError(f"maps have {len(maps)} rows, the cases {len(cases.inside)}; give one number for each token")
    wrong = np.flatnonzero(~np.isfinite(maps))
    if len(wrong):
        case = int(np.searchsorted(cases.offsets, wrong[0], side="right")) - 1
        raise StudyError(
            f"{len(wrong)} of {len(maps)} values of the maps are not finite, the first in sample "
            f"{cases.samples[case]}, concept {cases.concepts[case]}; explainers must give "
            "finite numbers"
        )


def scaled(maps: Float[np.ndarray, " rows"], cases: Cases, scale: Scale) -> Float[np.ndarray, " rows"]:
    """Bring maps of different samples to one size.

    Parameters
    ----------
    maps : float array of shape (rows,)
    cases : Cases
    scale : {"raw", "relative"}
        See `SCALES`. The largest value is that of all tokens, known or not: new samples have no labels. A map of
        zeros stays as it is.

    Returns
    -------
    float64 array of shape (rows,)
    """
    values = maps.astype(np.float64)
    if scale == "raw":
        return values
    largest = segment_max(np.abs(values)[:, None], cases.offsets)[cases.owners, 0]
    return np.asarray(np.divide(values, largest, out=values, where=largest > 0))


def token_counts(
    values: Float[np.ndarray, " rows"], cases: Cases, thresholds: Float[np.ndarray, "levels cases"]
) -> tuple[Int[np.ndarray, "levels cases"], Int[np.ndarray, "levels cases"], Int[np.ndarray, " cases"]]:
    """Count tokens that reach thresholds, with one histogram for all of them.

    Parameters
    ----------
    values : float array of shape (rows,)
        Maps; compared in float64.
    cases : Cases
    thresholds : float64 array of shape (levels, cases)
        In any order.

    Returns
    -------
    hits, fired : int64 arrays of shape (levels, cases)
        Known tokens with value >= threshold: those inside the concept, and all.
    positives : int64 array of shape (cases,)
        Known in-concept tokens.
    """
    levels, n_cases = thresholds.shape
    owners, inside = cases.owners[cases.known], cases.inside[cases.known]
    order = np.argsort(thresholds, axis=0, kind="stable")
    keys = np.empty(thresholds.size, dtype=np.complex128)
    keys.real = np.repeat(np.arange(n_cases), levels)
    keys.imag = np.take_along_axis(thresholds, order, axis=0).T.ravel()
    wanted = np.empty(len(owners), dtype=np.complex128)
    wanted.real, wanted.imag = owners, values[cases.known]
    slots = np.searchsorted(keys, wanted, side="right") + owners  # levels + 1 slots for each case

    def reaching(chosen: Int[np.ndarray, " k"]) -> Int[np.ndarray, "levels cases"]:
        histogram = np.bincount(chosen, minlength=n_cases * (levels + 1)).reshape(n_cases, levels + 1)
        ascending = np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1][:, 1:].T
        counts = np.empty(thresholds.shape, dtype=np.int64)
        np.put_along_axis(counts, order, ascending, axis=0)
        return counts

    return reaching(slots[inside]), reaching(slots), cases.positives


def measure(maps: Float[np.ndarray, " rows"], cases: Cases) -> dict[str, Float[np.ndarray, " cases"]]:
    """Take all measures that need no threshold.

    ``average_precision``
        Of the sample's tokens as a ranking; equal tokens enter together.
    ``pointing``
        Pointing game (Zhang et al. 2018): whether the highest token is inside; of several, the share that is.
    ``mass``
        Relevance mass accuracy (Arras et al. 2022): positive values inside / all positive values; 0 without any.
    ``rank``
        Relevance rank accuracy (Arras et al. 2022): share of the k highest tokens that are inside, where k tokens are.
    ``sparseness``
        Gini index of the absolute values (Chalasani et al. 2020): 0 if all are equal or 0, towards 1 if one stands out.

    Parameters
    ----------
    maps : float array of shape (rows,)
    cases : Cases

    Returns
    -------
    dict of str to float64 array of shape (cases,)
        Keys are `MEASURES`. NaN for a case without a known in-concept token, sparseness without a known token.

    Raises
    ------
    StudyError
        If there is not one finite number for each row.
    """
    check_maps(maps, cases)
    kept, values = cases.without_unknown(), maps[cases.known].astype(np.float64)
    owners, offsets, total = kept.owners, kept.offsets, kept.total
    positives = kept.positives

    order = np.lexsort((-values, owners))
    ranked, inside = values[order], kept.inside[order]
    begins, ends = _ties(ranked, owners)
    starts = offsets[:-1][owners]
    found = np.concatenate([[0], np.cumsum(inside)])
    precision = (found[ends] - found[starts]) / (ends - starts)
    tied_first = begins == starts
    positive = np.maximum(values, 0.0)
    among_highest = np.clip((positives[owners] - (begins - starts)) / (ends - begins), 0.0, 1.0)
    result = {
        "average_precision": ratio(total(precision * inside), positives),
        "pointing": ratio(total(tied_first & inside), total(tied_first)),
        "mass": ratio(total(positive * kept.inside), total(positive)),
        "rank": ratio(total(among_highest * inside), positives),
    }
    result = {name: np.where(positives > 0, value, np.nan) for name, value in result.items()}
    return {**result, "sparseness": _gini(np.abs(values), kept)}


def _ties(
    ranked: Float[np.ndarray, " rows"], owners: Int[np.ndarray, " rows"]
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """Where the run of equal values of one case that each row is in begins, and where it ends."""
    new: Bool[np.ndarray, " rows"] = np.ones(len(ranked), dtype=bool)
    new[1:] = (ranked[1:] != ranked[:-1]) | (owners[1:] != owners[:-1])
    begins = np.flatnonzero(new)
    run = np.cumsum(new) - 1
    return begins[run], np.append(begins[1:], len(ranked))[run]


def _gini(sizes: Float[np.ndarray, " rows"], cases: Cases) -> Float[np.ndarray, " cases"]:
    owners, lengths = cases.owners, np.diff(cases.offsets)
    ascending = sizes[np.lexsort((sizes, owners))]
    # Of d sizes the k-th smallest counts 2 (d - k + 1/2) / d.
    above = cases.offsets[1:][owners] - np.arange(len(owners)) - 0.5
    weighted, sums = cases.total(2 * ascending * above), cases.total(ascending)
    gini = np.where(sums > 0, 1 - ratio(weighted, sums * lengths), 0.0)
    return np.where(lengths > 0, gini, np.nan)
