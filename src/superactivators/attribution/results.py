"""Results of attribution over a data set: tables, example maps and a summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float


@final
@dataclass(frozen=True, eq=False)
class ExampleMaps:
    """Maps of one concept in one sample, to be looked at.

    Attributes
    ----------
    sample : int
        Number of the sample in the states.
    concept : str
    truth, known : bool array of shape (tokens,)
        In-concept tokens, and tokens of which it is known whether they are.
    fired : bool array of shape (tokens,)
        SuperActivators, or the highest token where there is none (``fallback``).
    fallback : bool
    maps : mapping of (explainer, objective) to float32 array of shape (tokens,)
    thresholds : mapping of (explainer, objective) to float
        Chosen on cal, in units of these maps.
    """

    sample: int
    concept: str
    truth: Bool[np.ndarray, " tokens"]
    known: Bool[np.ndarray, " tokens"]
    fired: Bool[np.ndarray, " tokens"]
    fallback: bool
    maps: Mapping[tuple[str, str], Float[np.ndarray, " tokens"]]
    thresholds: Mapping[tuple[str, str], float]


@final
@dataclass(frozen=True, eq=False)
class AttributionResult:
    """What attribution found.

    A case is a sample that holds a concept. Thresholds are chosen on cases of cal, everything is reported on cases of
    test. Averages over concepts are weighted by their cases.

    Attributes
    ----------
    aggregates : pyarrow Table
        ``explainer, objective, measure, value, low, high, macro, macro_low, macro_high, cases``: averages with
        intervals by sample; the explainers ``"(all tokens)"`` and ``"(random)"`` are references.
    concepts : pyarrow Table
        ``explainer, objective, concept, cases, scale, delta, threshold`` and a column for each measure.
    comparisons : pyarrow Table
        ``explainer, measure, difference, low, high, p, p_holm``: SuperActivators minus concept, paired.
    curves : pyarrow Table
        ``explainer, objective, share, insertion, deletion``: mean normalised curves, by the share of tokens
        inserted or deleted.
    hybrid : pyarrow Table
        ``alpha, token_f1, low, high, delta``: activation maps of alpha * concept + (1 - alpha) * SuperActivators.
    sanity : pyarrow Table
        ``explainer, objective, randomised, correlation, low, high, cases``: rank correlation of maps with those of a
        randomised concept vector or model.
    examples : tuple of ExampleMaps
    summary : dict
        JSON types: what was run, cases, fallbacks, forward passes, seconds.
    """

    aggregates: pa.Table
    concepts: pa.Table
    comparisons: pa.Table
    curves: pa.Table
    hybrid: pa.Table
    sanity: pa.Table
    examples: tuple[ExampleMaps, ...]
    summary: dict[str, Any]
