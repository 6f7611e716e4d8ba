"""Sparsity levels and layers: F1 against δ, and what concepts choose on cal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from superactivators.detection.metrics import aggregate
from superactivators.detection.results import REFERENCE
from superactivators.figures.heat import common_range, heat_map, scale
from superactivators.figures.labels import level, plain, site_names, sites_of, thinned
from superactivators.figures.style import (
    COLUMN,
    PAGE,
    Axes,
    Figure,
    NothingToDraw,
    in_style,
    legend,
    looks,
    new_figure,
    panels,
)
from superactivators.report.study_results import StudyTables
from superactivators.report.study_tables import deltas_tables
from superactivators.report.tables import curve, selected

TICKS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9)
SHADES = ("", "//////", "......", "xxxxxx", "------")
"""Hatches of bars, beside their colours."""


@in_style
def deltas(study: StudyTables) -> Figure:
    """Weighted test F1 with one δ for all concepts, by kind: at the last layer, and at each kind's best layer on cal.

    A ring marks the δ that is best on cal.

    Parameters
    ----------
    study : StudyTables

    Raises
    ------
    StudyError
        If the study has no SuperActivators, or matplotlib is missing.
    """
    tables = [table for table in deltas_tables(study) if table.rows]
    if not tables:
        raise NothingToDraw("the study has no SuperActivators, so there is no F1 against δ")
    titles = ("last layer", "best layer on cal")
    figure, axes = panels(len(tables), 2, 1.9, extra=0.3, sharey=True, width=PAGE)
    handles: dict[str, Any] = {}
    for one, table, title in zip(axes, tables, titles, strict=True):
        x = np.array([row[0].value for row in table.rows], dtype=np.float64)
        kinds = [column.name.rsplit(" at ", 1)[0] for column in table.columns[1:]]
        marks = looks(kinds)
        for number, kind in enumerate(kinds, start=1):
            cells = [row[number] for row in table.rows]
            y = np.array([np.nan if cell.value is None else cell.value for cell in cells], dtype=np.float64)
            (handles[kind],) = one.plot(x, y, **marks[kind].line, label=plain(kind))
            best = np.array([cell.best for cell in cells])
            one.plot(x[best], y[best], "o", ms=8, mfc="none", mec=marks[kind].colour, mew=0.9, label="_best")
        _log_levels(one, x)
        one.set(title=title, xlabel="δ")
        one.grid()
    axes[0].set_ylabel("weighted F1 on test")
    legend(figure, list(handles.values()), [plain(kind) for kind in handles])
    return figure


@in_style
def layer_deltas(study: StudyTables) -> Figure:
    """Weighted test F1 of every layer and δ, one δ for all concepts, as heat maps by kind.

    A frame marks the layer and δ that are best on cal.

    Parameters
    ----------
    study : StudyTables

    Raises
    ------
    StudyError
        If the study has no SuperActivators, or matplotlib is missing.
    """
    held = selected(study.result.curves, method=REFERENCE)
    kinds = list(dict.fromkeys(held["kind"].to_pylist()))
    if not kinds:
        raise NothingToDraw("the study has no SuperActivators, so there is no F1 against δ")
    found = {kind: together(study, kind, "test") for kind in kinds}
    longest = max(len(sites) for sites, _ in found.values())
    across = 1 if len(kinds) == 1 or longest > 26 else 2
    levels = [level(delta) for delta in study.result.summary["deltas"]]
    figure, axes = panels(len(kinds), across, len(levels) * 0.14 + 0.42, extra=0.1, width=PAGE)
    ends = common_range([grid for _, grid in found.values()])
    mesh: Any = None
    for one, (kind, (sites, grid)) in zip(axes, found.items(), strict=True):
        names, axis = site_names(sites)
        cal = together(study, kind, "cal")[1].T
        best = np.unravel_index(np.nanargmax(cal), cal.shape) if np.isfinite(cal).any() else None
        marked = None if best is None else (int(best[0]), int(best[1]))
        mesh = heat_map(one, grid.T, levels, names, ends, cell=(PAGE / across - 0.8) / len(sites), marked=marked)
        one.set(title=plain(kind), xlabel=axis, ylabel="δ")
    scale(figure, mesh, axes, "weighted F1 on test")
    return figure


def together(study: StudyTables, kind: str, split: str) -> tuple[list[str], Float[np.ndarray, "sites deltas"]]:
    """Layers of a kind, and its weighted F1 with one level for all concepts."""
    held = set(selected(study.result.curves, kind=kind, method=REFERENCE)["site"].to_pylist())
    sites = [site for site in sites_of(study) if site in held]
    rows = study.chosen_rows(split)
    positives = np.array([rows[kind, REFERENCE, concept]["n_positive"] for concept in study.summary["concepts"]])
    values = curve(study.result, sites, kind, REFERENCE, split)
    return sites, np.asarray(aggregate(values, positives)["weighted"])


@in_style
def best_deltas(study: StudyTables) -> Figure:
    """How many concepts choose each δ on cal, by kind.

    Parameters
    ----------
    study : StudyTables
        With its analyses.

    Raises
    ------
    StudyError
        If the study has no analyses, or matplotlib is missing.
    """
    table = _analysed(study, "best_deltas")
    found = sorted(set(study.summary.get("deltas", [])) | set(table["delta"].to_pylist()))
    figure = new_figure(COLUMN, 2.0)
    _counts(figure, figure.subplots(), table, "delta", found, [level(delta) for delta in found])
    figure.axes[0].set_xlabel("best δ on cal")
    return figure


@in_style
def best_layers(study: StudyTables) -> Figure:
    """How many concepts choose each layer on cal, by kind.

    Parameters
    ----------
    study : StudyTables
        With its analyses.

    Raises
    ------
    StudyError
        If the study has no analyses, or matplotlib is missing.
    """
    table = _analysed(study, "best_layers")
    order = sites_of(study)
    found = [*order, *(site for site in dict.fromkeys(table["site"].to_pylist()) if site not in order)]
    names, axis = site_names(found)
    figure = new_figure(COLUMN if len(found) <= 16 else PAGE, 2.0)
    _counts(figure, figure.subplots(), table, "site", found, names)
    figure.axes[0].set_xlabel(f"best {axis} on cal")
    return figure


def _analysed(study: StudyTables, name: str) -> pa.Table:
    table = None if study.analysis is None else getattr(study.analysis, name)
    if table is None or not table.num_rows:
        raise NothingToDraw(f"the study has no table of {name.replace('_', ' ')}; run it again with its analyses")
    return table


def _counts(
    figure: Figure, axes: Axes, table: pa.Table, column: str, places: Sequence[Any], names: Sequence[str]
) -> None:
    """Bars side by side, one for each kind."""
    from matplotlib.ticker import MaxNLocator

    kinds = list(dict.fromkeys(table["kind"].to_pylist()))
    number = {value: place for place, value in enumerate(places)}
    marks, wide = looks(kinds), 0.84 / len(kinds)
    handles = []
    for turn, kind in enumerate(kinds):
        heights = np.zeros(len(places))
        for row in selected(table, kind=kind).to_pylist():
            heights[number[row[column]]] += row["concepts"]
        handles.append(
            axes.bar(
                np.arange(len(places)) + (turn - (len(kinds) - 1) / 2) * wide,
                heights,
                wide,
                facecolor=marks[kind].colour,
                hatch=SHADES[turn % len(SHADES)],
                edgecolor="white",
                linewidth=0.3,
                label=plain(kind),
            )
        )
    ticks = thinned(len(places), int(figure.get_figwidth() / 0.2))
    axes.set_xticks(ticks, [names[place] for place in ticks])
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.set(ylabel="concepts", xlim=(-0.6, len(places) - 0.4))
    axes.grid(axis="y")
    legend(figure, handles, [plain(kind) for kind in kinds])


def _log_levels(axes: Axes, x: Float[np.ndarray, " deltas"]) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    shown = [tick for tick in TICKS if x.min() * 0.99 <= tick <= x.max() * 1.01]
    shown = shown if len(shown) > 1 else x.tolist()
    axes.set_xticks(shown, [level(tick) for tick in shown])
    axes.xaxis.set_minor_locator(NullLocator())
