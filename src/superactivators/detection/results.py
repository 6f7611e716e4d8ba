"""Results of the detection stage: tables, thresholds, resampled figures and a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from superactivators.detection.bootstrap import Bootstrapped
from superactivators.detection.methods import Method
from superactivators.detection.selection import Calibration
from superactivators.detection.thresholds import Threshold

REFERENCE = "superactivators"
KINDLESS = ("probe", "input", "prompt")
"""Kinds that are no kinds of vectors: sources of scores of their own."""


@final
@dataclass(frozen=True, eq=False)
class DetectionResult:
    """Tables and summary of a study's detection stage.

    Attributes
    ----------
    metrics : pyarrow Table
        A row per split, site, kind, method and concept at that site's best level (``chosen`` false), and one per
        split, kind, method and concept at the site and level chosen on cal (``chosen`` true). ``vectors`` names the
        kind of the vector, ``unit`` the cluster or latent matched to the concept (null where there is none).
    curves : pyarrow Table
        F1 on cal and test at every sparsity level, per site, kind, method and concept.
    aggregates : pyarrow Table
        Weighted, macro and micro F1 per split, site (or the chosen ones), kind and method.
    localisation : pyarrow Table
        Direct localisation per kind and concept; no rows without token labels.
    oracle : pyarrow Table
        For kinds whose units are matched to concepts: test F1 of the unit that *test* would choose, per site, and at
        the site that test would choose (``chosen`` true). For comparison only.
    lengths : pyarrow Table
        False-positive rate on test against the number of tokens, per kind and method.
    comparisons : pyarrow Table
        Paired differences of test F1 between the SuperActivators of each kind and every other method, with Holm's
        correction; see `superactivators.detection.comparisons.compare`. Names are ``"kind/method"``.
    thresholds : list of Threshold
        The chosen ones.
    resamples : mapping of str to float32 array of shape (resamples, concepts)
        Test F1 of every resample with choices repeated (`superactivators.detection.intervals.damped`), under
        ``"kind/method"``; the positive test samples drawn under ``"positives"``.
    summary : dict
        JSON types: ``weighted_f1``, ``macro_f1`` and ``micro_f1`` by kind and method on test with intervals, paired
        differences to the SuperActivators, chosen layers and sparsity levels, best kind by cal.
    """

    metrics: pa.Table
    curves: pa.Table
    aggregates: pa.Table
    localisation: pa.Table
    oracle: pa.Table
    lengths: pa.Table
    comparisons: pa.Table
    thresholds: list[Threshold]
    resamples: Mapping[str, Float[np.ndarray, "r c"]]
    summary: dict[str, Any]

    def __repr__(self) -> str:
        lines = [f"DetectionResult, weighted F1 on test ({self.summary['resamples']} resamples):"]
        for kind, by_method in self.summary["weighted_f1"].items():
            for method, estimate in by_method.items():
                low, high = (f"{estimate[end]:.3f}" if estimate[end] is not None else "?" for end in ("low", "high"))
                lines.append(f"  {kind:>14} {method:<16} {estimate['value']:.3f} [{low}, {high}]")
        return "\n".join(lines)


@final
@dataclass(frozen=True, eq=False)
class Evaluated:
    """One kind and method, calibrated and resampled.

    Attributes
    ----------
    kind : str
    method : Method
    sites : sequence of str
        From shallow to deep.
    pooled : float32 array of shape (sites, samples, concepts)
        One score per sample; NaN where it was not scored.
    calibration : Calibration
        A candidate a site: its best unit, where units are matched.
    boot : Bootstrapped
    units : int32 array of shape (sites, concepts)
        Unit matched to the concept; -1 where there is none.
    vectors : str array of shape (sites, concepts)
        Kind of the vector (the method's source, if it has none).
    """

    kind: str
    method: Method
    sites: Sequence[str]
    pooled: Float[np.ndarray, "layers n c"]
    calibration: Calibration
    boot: Bootstrapped
    units: Int[np.ndarray, "layers c"]
    vectors: np.ndarray
