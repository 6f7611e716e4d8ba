"""Attribution results as JSON types: who wins, table, curves, hybrid sweep, sanity checks and the gallery."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from superactivators.attribution.results import AttributionResult
from superactivators.report.attribution_maps import gallery
from superactivators.report.inputs import ReportInputs
from superactivators.report.verdicts import listed, short, with_interval

OBJECTIVES = {"superactivators": "SuperActivators", "concept": "concept vector"}
"""Objectives in the order shown, with their names in prose."""
LEVEL = 0.05
"""Level at which an adjusted p value is called a difference."""
FIRST = ("token_f1", "insertion", "deletion")
"""Measures that the table always shows."""
MEASURES = {
    "token_f1": ("token F1", "Tokens above the threshold chosen on cal, against the labelled tokens."),
    "iou": ("IoU", "Tokens in both the map and the label, of the tokens in either."),
    "average_precision": ("AP", "Average precision of the tokens ranked by the map: needs no threshold."),
    "pointing": ("pointing", "Share of cases whose highest token is labelled."),
    "mass": ("mass", "Share of the positive part of the map that lies on labelled tokens."),
    "rank": ("rank", "Share of labelled tokens among the highest tokens, as many as are labelled."),
    "sparseness": ("sparseness", "Gini index: near 1 if a few tokens have it all, 0 if all have the same."),
    "insertion": ("insertion", "Area under the normalised insertion curve: tokens are shown in the map’s order."),
    "deletion": ("deletion", "Area under the normalised deletion curve: tokens are hidden in the map’s order."),
    "insertion_raw": ("insertion, raw", "Area under the insertion curve in units of the agreement."),
    "deletion_raw": ("deletion, raw", "Area under the deletion curve in units of the agreement."),
}
"""Measures with a short name and what they are; others appear under their own names."""
EXPLAINERS = {
    "lime": "LIME",
    "kernel-shap": "KernelSHAP",
    "shap-iq": "SHAP-IQ",
    "rise": "RISE",
    "integrated-gradients": "Integrated Gradients",
    "grad-cam": "Grad-CAM",
    "full-grad": "FullGrad",
    "mfaba": "MFABA",
    "input-gradient": "gradient × input",
    "rollout": "attention rollout",
    "mean-difference": "difference of means",
}
"""Published names by registered name; others appear under their own names."""
RANDOMISED = {"vectors": "random concept vectors", "model": "random model"}


def attributions(inputs: ReportInputs, result: AttributionResult) -> dict[str, Any]:
    """Lay out what attribution found.

    Parameters
    ----------
    inputs : ReportInputs
    result : AttributionResult

    Returns
    -------
    dict
        ``headline`` and ``note`` (sentences), ``objectives``, ``explainers`` and ``measures`` (lists of dicts with
        ``name`` and ``label``), ``rows`` (one for each explainer and objective), ``comparisons``, ``curves``,
        ``hybrid``, ``sanity`` (None where their table is empty) and ``gallery`` (None without data set or examples).
    """
    rows = _rows(result.aggregates)
    compared = [row | {"verdict": _verdict(row)} for row in result.comparisons.to_pylist() if direction(row["measure"])]
    names = list(dict.fromkeys(row["explainer"] for row in rows))
    found = list(dict.fromkeys(result.aggregates["measure"].to_pylist()))
    measures = [name for name in FIRST if name in found] + [name for name in found if name not in FIRST]
    return {
        "headline": headline(compared),
        "note": _note(result),
        "objectives": [{"name": name, "label": label} for name, label in OBJECTIVES.items()],
        "explainers": [
            {"name": name, "label": explainer_label(name), "reference": is_reference(name)} for name in names
        ],
        "measures": [
            {
                "name": name,
                "label": measure_label(name),
                "hint": MEASURES.get(name, ("", ""))[1],
                "better": direction(name),
                "first": name in FIRST,
            }
            for name in measures
        ],
        "rows": rows,
        "comparisons": compared,
        "curves": _curves(result.curves),
        "hybrid": _hybrid(result.hybrid),
        "sanity": _sanity(result.sanity),
        "gallery": gallery(inputs, result.examples),
    }


def is_reference(explainer: str) -> bool:
    """Tell whether a row is no explainer but something to compare with, such as ``(all tokens)``."""
    return explainer.startswith("(")


def explainer_label(name: str) -> str:
    """Name of an explainer in prose."""
    return EXPLAINERS.get(name, name.replace("_", " ").replace("-", " "))


def measure_label(name: str) -> str:
    """Short name of a measure."""
    return MEASURES[name][0] if name in MEASURES else name.replace("_", " ")


def direction(measure: str) -> int:
    """Say whether higher (1) or lower (-1) is better, or neither (0)."""
    return -1 if measure.startswith("deletion") else 0 if measure == "sparseness" else 1


def headline(compared: list[dict[str, Any]]) -> str:
    """Say for how many explainers the SuperActivators objective locates better, and where not.

    Parameters
    ----------
    compared : list of dict
        Rows of ``comparisons`` with their ``verdict``.

    Returns
    -------
    str
        One sentence, on token F1.
    """
    rows = [row for row in compared if row["measure"] == "token_f1" and known(row["difference"])]
    if not rows:
        return "The two objectives were not compared."
    higher = [row for row in rows if row["difference"] > 0]
    lower = [row for row in rows if row["difference"] < 0]
    equal = [row for row in rows if row["difference"] == 0]
    text = (
        f"The SuperActivators objective gives a higher token F1 than the concept objective for {len(higher)} of "
        f"{len(rows)} explainers"
    )
    tested = any(known(row["p_holm"]) for row in rows)
    if not tested:
        text += " (no test was made)"
    elif higher:
        text += f", and for {_those(higher, 'better')} the difference survives Holm’s correction"
    if lower:
        text += f"; it is lower for {_named(lower)}"
        worse = [row for row in lower if row["verdict"] == "worse"]
        if tested:
            text += f", beyond the correction for {_named(worse)}" if worse else ", but not beyond the correction"
    if equal:
        text += f"; it is the same for {_named(equal)}"
    return text + "."


def _those(rows: list[dict[str, Any]], verdict: str) -> str:
    count = sum(row["verdict"] == verdict for row in rows)
    return "all of these" if count == len(rows) > 1 else f"{count or 'none'} of these"


def _named(rows: list[dict[str, Any]]) -> str:
    return listed([explainer_label(row["explainer"]) for row in rows])


def _verdict(row: dict[str, Any]) -> str:
    """Judge the SuperActivators objective by the adjusted p value and the measure's direction."""
    if not known(row["p_holm"]) or not known(row["difference"]):
        return "unknown"
    gain = row["difference"] * direction(row["measure"])
    if row["p_holm"] >= LEVEL or gain == 0:
        return "unclear"
    return "better" if gain > 0 else "worse"


def known(value: float | None) -> bool:
    """Tell whether a cell of a table holds a finite number."""
    return value is not None and math.isfinite(value)


def _note(result: AttributionResult) -> str:
    cases = max(result.aggregates["cases"].to_pylist(), default=0)
    text = (
        f"{cases} cases of the test split, each a sample that holds a concept. Every explainer made two maps of each: "
        "one asks which tokens speak for the concept’s vector, the other which tokens speak for the mean state of the "
        "sample’s own SuperActivators. Thresholds were chosen on cal."
    )
    fallbacks = result.summary.get("fallback_cases")
    if isinstance(fallbacks, int):
        text += (
            f" In {fallbacks or 'none'} of the cases the highest token had to stand in for a missing SuperActivator."
        )
    return text


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Turn one line per measure into one line per explainer and objective."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for line in table.to_pylist():
        explainer, objective = line["explainer"], line["objective"]
        row = rows.setdefault(
            (explainer, objective), {"explainer": explainer, "objective": objective, "cases": 0, "values": {}}
        )
        row["values"][line["measure"]] = {part: line[part] for part in ("value", "low", "high")}
        row["cases"] = max(row["cases"], line["cases"])
    return list(rows.values())


def _curves(table: pa.Table) -> list[dict[str, Any]] | None:
    curves: dict[tuple[str, str], dict[str, Any]] = {}
    for line in table.sort_by("share").to_pylist():
        curve = curves.setdefault(
            (line["explainer"], line["objective"]),
            {
                "explainer": line["explainer"],
                "objective": line["objective"],
                "share": [],
                "insertion": [],
                "deletion": [],
            },
        )
        for part in ("share", "insertion", "deletion"):
            curve[part].append(line[part])
    return list(curves.values()) or None


def _hybrid(table: pa.Table) -> dict[str, Any] | None:
    rows = [row for row in table.sort_by("alpha").to_pylist() if known(row["token_f1"])]
    if not rows:
        return None
    best = max(rows, key=lambda row: float(row["token_f1"]))

    def told(row: dict[str, Any]) -> str:
        return with_interval({"value": row["token_f1"], "low": row["low"], "high": row["high"]})

    sentence = f"Token F1 on test is highest at α = {_alpha(best['alpha'])}: {told(best)}."
    ends = {0.0: "the SuperActivators alone (α = 0)", 1.0: "the concept vector alone (α = 1)"}
    others = [
        f"{ends[row['alpha']]} reach{'' if row['alpha'] == 0 else 'es'} {told(row)}"
        for row in rows
        if row["alpha"] in ends and row is not best
    ]
    if others:
        said = listed(others)
        sentence = f"{sentence[:-1]}; {said}."
    return {"rows": rows, "best": best["alpha"], "sentence": sentence}


def _alpha(value: float) -> str:
    return f"{value:g}" if value in (0, 1) else short(value)


def _sanity(table: pa.Table) -> dict[str, Any] | None:
    lines = table.to_pylist()
    if not lines:
        return None
    found = list(dict.fromkeys(line["randomised"] for line in lines))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        row = rows.setdefault(
            (line["explainer"], line["objective"]),
            {"explainer": line["explainer"], "objective": line["objective"], "values": {}},
        )
        row["values"][line["randomised"]] = {
            "value": line["correlation"],
            "low": line["low"],
            "high": line["high"],
            "cases": line["cases"],
        }
    return {
        "randomised": [{"name": name, "label": RANDOMISED.get(name, name.replace("_", " "))} for name in found],
        "rows": list(rows.values()),
    }
