"""Concept by concept: what makes a concept hard, and which concepts are taken for each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from superactivators.detection.results import REFERENCE
from superactivators.figures.distributions import analysis_of, kind_of
from superactivators.figures.heat import common_range, heat_map, scale
from superactivators.figures.labels import shortened
from superactivators.figures.style import (
    COLOURS,
    COLUMN,
    GREY,
    PAGE,
    Axes,
    Figure,
    in_style,
    new_figure,
    panels,
)
from superactivators.report.study_results import StudyTables
from superactivators.report.tables import selected
from superactivators.report.verdicts import percent

ANY = "(any)"
"""Heads the column of base rates."""


@in_style
def errors(study: StudyTables, kind: str | None = None) -> Figure:
    """Test F1 of each concept against its prevalence and its size, and recall by size (METHOD section 8).

    Parameters
    ----------
    study : StudyTables
        With its analyses.
    kind : str, optional
        Kind of vectors; by default the best on cal.

    Returns
    -------
    matplotlib Figure
        Size is the share of a positive sample's tokens that carry the concept: the median in the second panel, fifths
        of all positive samples in the third. Both are left out where no token is labelled. Names are written where
        they have room.

    Raises
    ------
    StudyError
        If the study has no analyses, or matplotlib is missing.
    """
    held = analysis_of(study)
    kind = kind_of(study, held.errors, kind, "errors by concept")
    rows = selected(held.errors, kind=kind).to_pylist()
    bins = selected(held.sizes, kind=kind).to_pylist()
    shown = [("prevalence", "share of test samples"), ("size", "share of tokens (median)")]
    shown = [(name, label) for name, label in shown if any(_known(row[name]) and _known(row["f1"]) for row in rows)]
    count = len(shown) + bool(bins)
    figure, axes = panels(max(count, 1), 3, 2.0, extra=0.05, sharey=True, width=COLUMN if count < 2 else PAGE)
    for one, (name, label) in zip(axes, shown, strict=False):
        points = [row for row in rows if _known(row[name]) and _known(row["f1"])]
        x, y = (np.array([row[part] for row in points]) for part in (name, "f1"))
        one.plot(x, y, "o", color=COLOURS[0], mec="white", mew=0.4, ms=4.2)
        one.set(xlabel=f"{name}: {label}")
        _shares(one)
    if bins:
        # steps from the low to the high end of each fifth, with the number of pairs
        last = axes[len(shown)]
        for row in bins:
            if _known(row["recall"]) and _known(row["low"]):
                last.plot([row["low"], row["high"]], [row["recall"]] * 2, "-", color=COLOURS[1], lw=2.2)
        last.set(xlabel="size: share of tokens (fifths)", ylabel="recall on test")
        _shares(last)
    for one, _ in zip(axes, shown, strict=False):
        one.set_ylabel("F1 on test")
    axes[0].set_ylim(-0.04, 1.04)
    figure.draw_without_rendering()
    for one, (name, _) in zip(axes, shown, strict=False):
        points = [row for row in rows if _known(row[name]) and _known(row["f1"])]
        names = shortened([row["concept"] for row in points], 16)
        write_names(figure, one, [(row[name], row["f1"]) for row in points], names)
    return figure


def write_names(figure: Figure, axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Write names beside points, lowest first, each where it hides no point and no other name; else nowhere.

    The figure must have been laid out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    canvas: Any = FigureCanvasAgg(figure)
    renderer = canvas.get_renderer()
    pixels = axes.transData.transform(points) if len(points) else np.empty((0, 2))
    half = 2.4 * figure.dpi / 72
    taken = [Bbox.from_extents(x - half, y - half, x + half, y + half) for x, y in pixels]
    frame = axes.get_window_extent(renderer)
    sides = [(3.5, 0, "left", "center"), (-3.5, 0, "right", "center"), (0, 3.5, "center", "bottom")]
    sides += [(0, -3.5, "center", "top"), (2.5, 2.5, "left", "bottom"), (-2.5, 2.5, "right", "bottom")]
    sides += [(2.5, -2.5, "left", "top"), (-2.5, -2.5, "right", "top")]
    for number in np.argsort([y for _, y in points], kind="stable"):
        for dx, dy, across, along in sides:
            text = axes.annotate(
                names[number],
                points[number],
                (dx, dy),
                textcoords="offset points",
                ha=across,
                va=along,
                fontsize=5.5,
                color="#333333",
            )
            box = text.get_window_extent(renderer)
            inside = box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1
            others = [other for place, other in enumerate(taken) if place != number]
            if inside and not any(box.overlaps(other) for other in others):
                taken.append(box)
                text.set_in_layout(False)
                break
            text.remove()


@in_style
def confusion(study: StudyTables, kind: str | None = None) -> Figure:
    """How often an absent concept fires where another is present, as a heat map (METHOD section 8).

    Parameters
    ----------
    study : StudyTables
        With its analyses.
    kind : str, optional
        Kind of vectors; by default the best on cal.

    Returns
    -------
    matplotlib Figure
        Shares of the test samples that hold the concept of the column and not that of the row; the last column is the
        share among all samples without the concept of the row. Hatched where there is no such sample.

    Raises
    ------
    StudyError
        If the study has no analyses, or matplotlib is missing.
    """
    held = analysis_of(study)
    kind = kind_of(study, held.confusion, kind, "pairs of concepts")
    concepts = list(study.summary["concepts"])
    number = {name: place for place, name in enumerate(concepts)}
    grid = np.full((len(concepts), len(concepts) + 1), np.nan)
    for row in selected(held.confusion, kind=kind).to_pylist():
        absent = number[row["absent"]]
        if row["n"] and _known(row["rate"]):
            grid[absent, number[row["present"]]] = row["rate"]
        if _known(row["base"]):
            grid[absent, -1] = row["base"]
    count = len(concepts)
    width = PAGE if count > 7 else COLUMN
    cell = (width - 2.0) / (count + 1)
    names = shortened(concepts, 22)
    figure = new_figure(width, max(max(0.13, min(cell, 0.2)) * count, 1.15) + 0.45 + 0.055 * max(map(len, names)))
    axes = figure.subplots()
    mesh = heat_map(axes, grid, names, [*names, ANY], common_range([grid, np.zeros(1)]), cell=cell, turned=True)
    axes.axvline(count, color="white", lw=3)
    axes.set(xlabel="present", ylabel="absent, and fires")
    scale(figure, mesh, [axes], "share of test samples")
    return figure


@in_style
def concept_f1(study: StudyTables, kind: str | None = None) -> Figure:
    """Test F1 of each concept's SuperActivators as dots with 95 % intervals, the highest first.

    Parameters
    ----------
    study : StudyTables
    kind : str, optional
        Kind of vectors; by default the best on cal.

    Raises
    ------
    StudyError
        If the study has no SuperActivators of the kind, or matplotlib is missing.
    """
    wanted = {"split": "test", "method": REFERENCE, "chosen": True}
    table = selected(study.result.metrics, **wanted)
    kind = kind_of(study, table, kind, "SuperActivators")
    rows = sorted(selected(table, kind=kind).to_pylist(), key=lambda row: (-row["f1"], row["concept"]))
    ending = "_fixed" if study.summary.get("intervals") == "fixed" else ""
    value, low, high = (
        np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)
        for name in ("f1", f"f1{ending}_low", f"f1{ending}_high")
    )
    figure = new_figure(COLUMN, 0.15 * len(rows) + 0.45)
    axes = figure.subplots()
    axes.errorbar(
        value,
        np.arange(len(rows)),
        xerr=np.maximum(np.stack([value - low, high - value]), 0),
        color=COLOURS[0],
        ecolor=GREY,
        marker="o",
        linestyle="none",
        elinewidth=0.9,
    )
    axes.set_yticks(range(len(rows)), shortened([row["concept"] for row in rows], 28))
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(-0.02, 1.02), xlabel="F1 on test")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    return figure


def _shares(axes: Axes) -> None:
    """Make the axis logarithmic, in percent."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        shown = [step * 10.0**power for power in range(-6, 1) for step in steps]
        shown = [tick for tick in shown if low <= tick <= high]
        if len(shown) >= 3:
            break
    apart = (high / low) ** 0.13
    kept: list[float] = []
    for tick in shown:
        if not kept or tick >= kept[-1] * apart:
            kept.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(kept) if len(kept) >= 2 else MaxNLocator(3))
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid()


def _percent(value: float, _: Any) -> str:
    return percent(value)


def _known(value: Any) -> bool:
    return value is not None and bool(np.isfinite(value))
