"""Everything the page shows, as JSON types."""

from __future__ import annotations

from typing import Any

import numpy as np

from superactivators.data.dataset import SPLITS
from superactivators.detection.methods import methods
from superactivators.detection.results import REFERENCE
from superactivators.report.analyses import analyses
from superactivators.report.attributions import attributions
from superactivators.report.distributions import distributions
from superactivators.report.examples import examples
from superactivators.report.inputs import ReportInputs
from superactivators.report.json_values import plain
from superactivators.report.tables import (
    AVERAGES,
    concept_rows,
    curves,
    floor,
    layer_f1,
    length_rows,
    method_rows,
    oracle_rows,
)
from superactivators.report.verdicts import PLAIN_NAME, finding, listed, name_of, percent, short

VERSION = 1
GROUPS = {
    "best": "best kind for each concept, chosen on cal",
    "probe": "probes trained on sample labels",
    "input": "the text itself",
    "prompt": "a chat model",
}
"""What entries of the methods table that are no kinds of vectors are called."""

PAPER_ZONE = (0.05, 0.10)
"""Sparsity levels at which the paper finds the best F1."""


def build_payload(inputs: ReportInputs) -> dict[str, Any]:
    """Lay out a study's results for the page.

    Parameters
    ----------
    inputs : ReportInputs

    Returns
    -------
    dict
        JSON types only; numbers have four significant digits, and those that are not finite are None.
    """
    summary = inputs.result.summary
    concepts, spread = concept_rows(inputs), distributions(inputs)
    located = {} if inputs.attribution is None else {"attribution": plain(attributions(inputs, inputs.attribution))}
    analysed = {} if inputs.analysis is None else {"analyses": plain(analyses(inputs, inputs.analysis))}
    return {
        "version": VERSION,
        "title": inputs.title,
        "about": plain(_about(inputs), digits=8),
        "reference": REFERENCE,
        "focus": inputs.focus,
        "kinds": inputs.kinds,
        "groups": [{"name": group, "label": GROUPS.get(group, f"{group} vectors")} for group in inputs.groups],
        "best_kind": summary["best_kind_on_cal"],
        "methods": [
            {"name": name, "label": name_of(name), "summary": methods[name].summary} for name in inputs.methods
        ],
        "sites": inputs.sites,
        "deltas": summary["deltas"],
        "paper_zone": list(PAPER_ZONE),
        "concepts": summary["concepts"],
        "data": _data(inputs),
        "finding": {average: {kind: finding(summary, kind, average) for kind in inputs.kinds} for average in AVERAGES},
        "further": {kind: _further(inputs, kind, concepts[kind], spread[kind]) for kind in inputs.kinds},
        "method_rows": plain(method_rows(inputs)),
        "floor": plain(floor(inputs.labels)),
        "oracle": plain(oracle_rows(inputs)),
        "lengths": plain(length_rows(inputs)),
        "layers": plain(layer_f1(inputs)),
        "curves": plain(curves(inputs)),
        "rows": plain(concepts),
        "distributions": plain(spread),
        "examples": plain(examples(inputs)),
        **located,
        **analysed,
    }


def _about(inputs: ReportInputs) -> dict[str, Any]:
    """Say what was run, with an empty entry for everything that was not told."""
    given = inputs.about
    model = given.get("model") or {}
    return {
        "model": {name: model.get(name) for name in ("name", "blocks", "width")},
        "excluded": (given.get("data") or {}).get("excluded") or {},
        "seed": given.get("seed"),
        "resamples": inputs.result.summary["resamples"],
        "notes": given.get("notes") or [],
        "checks": given.get("checks") or [],
        "seconds": given.get("seconds") or {},
        "command": given.get("command"),
        "versions": given.get("packages") or {},
        "settings": given.get("settings") or {},
    }


def _data(inputs: ReportInputs) -> dict[str, Any]:
    """Name and modality, and sizes of the splits."""
    labels, dataset = inputs.labels, inputs.dataset
    lengths = np.diff(labels.offsets)
    splits = []
    for split in SPLITS:
        samples = labels.in_split(split)
        splits.append({"split": split, "samples": len(samples), "tokens": int(lengths[samples].sum())})
    return {
        "name": None if dataset is None else dataset.name,
        "modality": None if dataset is None else dataset.modality,
        "splits": splits,
        "token_labels": labels.tokens is not None,
    }


def _further(inputs: ReportInputs, kind: str, rows: list[dict[str, Any]], spread: list[dict[str, Any]]) -> list[str]:
    """Sentences on the tail: where the sparsity levels lie, and what is above the thresholds."""
    sentences = []
    if inputs.focus == REFERENCE:
        low = sum(row["delta"] <= PAPER_ZONE[1] for row in rows)
        sentences.append(f"For {low} of {len(rows)} concepts the best δ on cal is {short(PAPER_ZONE[1])} or less.")
    if spread and inputs.focus == REFERENCE:
        inside, outside = (
            float(np.median([entry[f"above_{part}"] for entry in spread])) for part in ("inside", "outside")
        )
        sentences.append(
            f"Of the median concept, {percent(inside)} of the in-concept test tokens are {PLAIN_NAME}, and "
            f"{percent(outside)} of the tokens of test samples without the concept reach the threshold too."
        )
    weak = [row["concept"] for row in rows if row["f1"] <= row["always_yes"]]
    if weak:
        sentences.append(
            f"For {len(weak)} of {len(rows)} concepts ({listed(weak[:6])}{' …' if len(weak) > 6 else ''}) the test F1 "
            "is not above that of saying yes to every sample."
        )
    undefined = [row["concept"] for row in rows if row["undefined"]]
    if undefined:
        sentences.append(f"A ratio was undefined (0/0, read as 0) for {listed(undefined)}; marked † below.")
    return sentences
