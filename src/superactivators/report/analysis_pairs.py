"""How alike the tokens of a sample are: cosines of a few examples in few bytes."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from superactivators.analysis.results import AnalysisResult
from superactivators.data.dataset import TextSample
from superactivators.report.analysis_sentences import pairs_sentence
from superactivators.report.inputs import ReportInputs

EXAMPLES = 12
"""Most examples in one report."""
TOKENS = 96
"""Most tokens of one example."""
LONGEST = 24
"""Most characters of a token."""
STEPS = 127
MISSING = -128


def pair_maps(inputs: ReportInputs, result: AnalysisResult) -> dict[str, Any] | None:
    """Lay out the examples of token-pair cosines.

    Parameters
    ----------
    inputs : ReportInputs
    result : AnalysisResult

    Returns
    -------
    dict or None
        ``sentence``, ``left_out`` (examples over the budget) and ``examples``, one dict each: ``sample``, ``concept``,
        ``kind``, ``site``, ``total`` (tokens that were compared), ``tokens`` (numbers in the sample of those shown),
        ``groups`` (of each: see `token_groups`), ``names`` (of each, or None) and ``cosine`` (see `packed_cosines`).
        None without examples. The sentence is from all tokens of all examples.
    """
    if not result.pairs:
        return None
    shown = list(result.pairs.items())[:EXAMPLES]
    return {
        "sentence": pairs_sentence([mean_cosines(found) for found in result.pairs.values()]),
        "left_out": len(result.pairs) - len(shown),
        "examples": [_example(inputs, sample, found) for sample, found in shown],
    }


def mean_cosines(found: Mapping[str, Any]) -> dict[str, float]:
    """Mean cosine of pairs of in-concept tokens, of those that fire, and of in-concept with other tokens."""
    cosine, inside, fired = (np.asarray(found[name]) for name in ("cosine", "inside", "fired"))
    return {
        "within": _among(cosine, inside),
        "across": _mean(cosine[np.ix_(inside, ~inside)]),
        "fired": _among(cosine, inside & fired),
    }


def _among(cosine: Float[np.ndarray, "t t"], members: Bool[np.ndarray, " t"]) -> float:
    block = cosine[np.ix_(members, members)]
    return _mean(block[np.triu_indices(len(block), 1)])


def _mean(values: Float[np.ndarray, "..."]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean(dtype=np.float64)) if known.size else float("nan")


def token_groups(inside: Bool[np.ndarray, " t"], fired: Bool[np.ndarray, " t"]) -> Int[np.ndarray, " t"]:
    """Sort tokens into groups: 0 in-concept and fired, 1 in-concept, 2 fired elsewhere, 3 the rest."""
    return np.where(inside, np.where(fired, 0, 1), np.where(fired, 2, 3)).astype(np.int64)


def shown_tokens(groups: Int[np.ndarray, " t"], most: int = TOKENS) -> Int[np.ndarray, " shown"]:
    """Choose tokens to show: a quarter for each group at least, then group by group; evenly spaced within a group."""
    sizes = np.bincount(groups, minlength=4)
    quota = np.minimum(sizes, most // 4)
    for group in range(4):
        quota[group] += min(int(sizes[group] - quota[group]), most - int(quota.sum()))
    chosen = [
        members[np.linspace(0, len(members) - 1, int(quota[group])).round().astype(np.int64)]
        for group in range(4)
        if len(members := np.flatnonzero(groups == group))
    ]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def packed_cosines(cosine: Float[np.ndarray, "t t"]) -> str:
    """Write the upper triangle by rows, without the diagonal: base64 of signed bytes, value * 127, -128 missing."""
    values = cosine[np.triu_indices(len(cosine), 1)].astype(np.float64)
    known = np.isfinite(values)
    steps = np.rint(np.clip(np.where(known, values, 0), -1, 1) * STEPS).astype(np.int8)
    steps[~known] = MISSING
    return base64.b64encode(steps.tobytes()).decode("ascii")


def _example(inputs: ReportInputs, sample: str, found: Mapping[str, Any]) -> dict[str, Any]:
    groups = token_groups(np.asarray(found["inside"]), np.asarray(found["fired"]))
    chosen = shown_tokens(groups)
    tokens = np.asarray(found["tokens"])[chosen]
    return {
        "sample": sample,
        **{name: found[name] for name in ("concept", "kind", "site")},
        "total": len(groups),
        "tokens": tokens,
        "groups": groups[chosen],
        "names": _names(inputs, sample, tokens),
        "cosine": packed_cosines(np.asarray(found["cosine"])[np.ix_(chosen, chosen)]),
    }


def _names(inputs: ReportInputs, sample: str, tokens: Int[np.ndarray, " shown"]) -> list[str] | None:
    """Characters of text tokens, rows and columns of patches; None where the sample is not at hand."""
    dataset, encoding = inputs.dataset, inputs.encoding
    if dataset is None or encoding is None:
        return None
    number = next((place for place, one in enumerate(dataset.samples) if one.id == sample), None)
    if number is None:
        return None
    start, one = int(encoding.offsets[number]), dataset.samples[number]
    if isinstance(one, TextSample):
        assert encoding.chars is not None  # noqa: S101  # text encodings always have character ranges
        return [one.text[first:last][:LONGEST] for first, last in encoding.chars[start + tokens].tolist()]
    assert encoding.grids is not None and encoding.cells is not None  # noqa: S101, PT018
    columns = int(encoding.grids[number, 1])
    return [
        f"row {cell // columns + 1}, column {cell % columns + 1}" for cell in encoding.cells[start + tokens].tolist()
    ]
