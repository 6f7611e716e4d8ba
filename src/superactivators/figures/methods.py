"""Detection by method: F1 with intervals, and layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from superactivators.detection.results import KINDLESS, REFERENCE
from superactivators.figures.heat import common_range, heat_map, scale
from superactivators.figures.labels import plain, shortened, site_names, sites_of
from superactivators.figures.style import (
    COLUMN,
    GREY,
    PAGE,
    Figure,
    Look,
    NothingToDraw,
    in_style,
    legend,
    looks,
    new_figure,
    panels,
)
from superactivators.report.study_results import StudyTables
from superactivators.report.tables import selected
from superactivators.report.verdicts import name_of

NO_VECTORS = "no vectors"


@in_style
def methods(study: StudyTables, average: str = "weighted", *, width: float = COLUMN) -> Figure:
    """Test F1 of every method as dots with 95 % intervals, a mark for each kind of vectors (METHOD section 6).

    Parameters
    ----------
    study : StudyTables
    average : str
        ``"weighted"`` (the paper's headline), ``"macro"`` or ``"micro"``.
    width : float
        Inches.

    Returns
    -------
    matplotlib Figure
        Intervals are those that the study leads with: with choices repeated, or with thresholds fixed. Where a study
        has none, dots stand alone.

    Raises
    ------
    StudyError
        If matplotlib is missing.
    """
    ending = "_fixed" if study.summary.get("intervals") == "fixed" else ""
    found = study.summary.get(f"{average}_f1{ending}") or study.summary[f"{average}_f1"]
    rows = list(dict.fromkeys(method for _, method in study.pairs))
    apart = 0.095
    series = {kind: [method for owner, method in study.pairs if owner == kind] for kind in study.kinds}
    heights = {method: sum(method in members for members in series.values()) for method in rows}
    tops = dict(zip(rows, np.cumsum([0, *(heights[method] + 0.9 for method in rows)]), strict=False))
    figure = new_figure(width, apart * sum(heights[method] + 0.9 for method in rows) + 0.75)
    axes = figure.subplots()
    for place, method in enumerate(rows):
        if place % 2 == 0:
            axes.axhspan(tops[method] - 0.45, tops[method] + heights[method] + 0.45, color="#f4f4f4", lw=0, zorder=0)
    marks = looks(study.kinds) | {kind: Look(GREY, "-", "X") for kind in KINDLESS}
    named: set[str] = set()
    for kind, members in series.items():
        y = [tops[m] + sum(m in series[other] for other in study.kinds[: study.kinds.index(kind)]) for m in members]
        estimates = [found[kind][method] for method in members]
        value, low, high = (_floats(estimates, name) for name in ("value", "low", "high"))
        axes.errorbar(
            value,
            np.array(y) + 0.5,
            xerr=np.maximum(np.stack([value - low, high - value]), 0),
            color=marks[kind].colour,
            marker=marks[kind].marker,
            linestyle="none",
            elinewidth=0.9,
            label=f"_{kind}" if _shown(kind) in named else _shown(kind),
        )
        named.add(_shown(kind))
    axes.set_yticks(
        [tops[method] + heights[method] / 2 for method in rows], [plain(name_of(method)) for method in rows]
    )
    if REFERENCE in rows:
        axes.get_yticklabels()[rows.index(REFERENCE)].set_fontweight("bold")
    axes.set(ylim=(tops[rows[-1]] + heights[rows[-1]] + 0.45, -0.45), xlabel=f"{average} F1 on test")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    handles, names = axes.get_legend_handles_labels()
    legend(figure, handles, names)
    return figure


@in_style
def layer_methods(study: StudyTables) -> Figure:
    """Weighted test F1 of every layer and method as heat maps, one for each kind; each layer at its own best levels.

    Methods without layers, such as bag of words, are left out.

    Parameters
    ----------
    study : StudyTables

    Raises
    ------
    StudyError
        If no method has layers, or matplotlib is missing.
    """
    sites = sites_of(study)
    place = {site: number for number, site in enumerate(sites)}
    rows = selected(study.result.aggregates, split="test").to_pylist()
    groups: dict[str, dict[str, Float[np.ndarray, " sites"]]] = {}
    for row in rows:
        if row["site"] in place and row["weighted_f1"] is not None:
            group = groups.setdefault(_shown(row["kind"]), {})
            line = group.setdefault(row["method"], np.full(len(sites), np.nan))
            line[place[row["site"]]] = row["weighted_f1"]
    if not groups:
        raise NothingToDraw("no method has layers, so there is no heat map of layers")
    grids = {name: np.stack(list(group.values())) for name, group in groups.items()}
    names, axis = site_names(sites)
    across = 1 if len(grids) == 1 or len(sites) > 26 else 2
    tallest = max(len(grid) for grid in grids.values())
    figure, axes = panels(len(grids), across, max(0.15 * tallest, 0.4) + 0.42, extra=0.1, width=PAGE)
    ends = common_range(list(grids.values()))
    cell = (PAGE / across - 1.25) / len(sites)
    mesh: Any = None
    for one, (name, grid) in zip(axes, grids.items(), strict=True):
        mesh = heat_map(one, grid, _methods(list(groups[name])), names, ends, cell=cell)
        one.set(title=name, xlabel=axis)
    scale(figure, mesh, axes, "weighted F1 on test")
    return figure


def _shown(kind: str) -> str:
    return NO_VECTORS if kind in KINDLESS else plain(kind)


def _methods(names: Sequence[str]) -> list[str]:
    return shortened([name_of(name) for name in names], 18)


def _floats(estimates: Sequence[Any], name: str) -> Float[np.ndarray, " n"]:
    return np.array([np.nan if one.get(name) is None else one[name] for one in estimates], dtype=np.float64)
