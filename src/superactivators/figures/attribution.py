"""Attribution: each explainer asked for the concept vector and for the sample's SuperActivators."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from superactivators.figures.labels import plain
from superactivators.figures.style import (
    COLOURS,
    COLUMN,
    GREY,
    PAGE,
    Axes,
    Figure,
    NothingToDraw,
    in_style,
    legend,
    panels,
)
from superactivators.report.attribution_tables import HEADLINE
from superactivators.report.attributions import direction, explainer_label, is_reference, measure_label
from superactivators.report.study_results import StudyTables

OBJECTIVES: dict[str, tuple[str, dict[str, Any]]] = {
    "concept": ("concept vector", {"color": COLOURS[1], "marker": "o", "mfc": "white"}),
    "superactivators": ("SuperActivators", {"color": COLOURS[0], "marker": "D"}),
    "none": ("no explainer", {"color": GREY, "marker": "|", "markersize": 7}),
}
"""Name in the legend and look of each objective."""
APART = 0.17
"""How far the objectives of one explainer stand off its row."""


@in_style
def attribution(study: StudyTables, measures: tuple[str, ...] = HEADLINE) -> Figure:
    """Measures of every explainer for both objectives, joined, with 95 % intervals (METHOD section 7).

    Parameters
    ----------
    study : StudyTables
        With attribution.
    measures : tuple of str
        By default token F1, insertion and deletion, as in the paper; those that the study lacks are left out.

    Raises
    ------
    StudyError
        If the study has no attribution with these measures, or matplotlib is missing.
    """
    rows = [] if study.attribution is None else study.attribution.aggregates.to_pylist()
    found = {(row["explainer"], row["objective"], row["measure"]): row for row in rows if _known(row["value"])}
    shown = [measure for measure in measures if any(key[2] == measure for key in found)]
    if not shown:
        raise NothingToDraw("the study has no attribution, so there is nothing to draw; see docs/attribution.md")
    names = list(dict.fromkeys(explainer for explainer, _, measure in found if measure in shown))
    names.sort(key=is_reference)
    figure, axes = panels(
        len(shown), 3, 0.2 * len(names) + 0.4, extra=0.3, sharey=True, width=COLUMN if len(shown) == 1 else PAGE
    )
    handles: dict[str, Any] = {}
    for one, measure in zip(axes, shown, strict=True):
        handles |= _dumbbells(one, found, names, measure)
        arrow = {1: " (more is better)", -1: " (less is better)", 0: ""}[direction(measure)]
        one.set_xlabel(measure_label(measure) + arrow)
        one.grid(axis="x")
        one.tick_params(axis="y", length=0)
    for one in axes[:: min(3, len(shown))]:
        one.set_yticks(range(len(names)), [plain(explainer_label(name)) for name in names])
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    legend(figure, list(handles.values()), list(handles))
    return figure


def _dumbbells(axes: Axes, found: dict[tuple[str, str, str], Any], names: list[str], measure: str) -> dict[str, Any]:
    handles: dict[str, Any] = {}
    places: dict[str, Float[np.ndarray, "2 rows"]] = {}
    for objective, (label, look) in OBJECTIVES.items():
        held = [name for name in names if (name, objective, measure) in found]
        if not held:
            continue
        rows = [found[name, objective, measure] for name in held]
        value, low, high = (np.array([_number(row[part]) for row in rows]) for part in ("value", "low", "high"))
        off = {"concept": -APART, "superactivators": APART, "none": 0.0}[objective]
        y = np.array([names.index(name) for name in held], dtype=np.float64) + off
        ends = np.maximum(np.stack([value - low, high - value]), 0)
        drawn = axes.errorbar(value, y, xerr=ends, linestyle="none", elinewidth=0.7, zorder=3, **look)
        handles[label] = drawn
        places[objective] = np.stack([value, y])
        places[f"{objective} rows"] = np.array([names.index(name) for name in held])
    if "concept" in places and "superactivators" in places:
        both, first, second = np.intersect1d(
            places["concept rows"], places["superactivators rows"], return_indices=True
        )
        ends = np.stack([places["concept"][:, first], places["superactivators"][:, second]])
        for number in range(len(both)):
            axes.plot(ends[:, 0, number], ends[:, 1, number], color="#9a9a9a", lw=1.8, zorder=2, label="_joined")
    return handles


def _known(value: float | None) -> bool:
    return value is not None and bool(np.isfinite(value))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
