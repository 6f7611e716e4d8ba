"""Heat maps: numbers as shades that also tell in grey, written into the cells where there is room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from superactivators.figures.labels import thinned
from superactivators.figures.style import HEAT, Axes, Figure
from superactivators.report.verdicts import short

ROOM = 0.175
"""Inches a cell must have for a number."""


def common_range(grids: Sequence[Float[np.ndarray, "..."]]) -> tuple[float, float]:
    """Smallest and largest of all numbers, a little apart where they are equal; 0 and 1 without any."""
    known = np.concatenate([grid[np.isfinite(grid)] for grid in grids])
    if not known.size:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return (low, high) if high > low else (low - 0.05, high + 0.05)


def heat_map(
    axes: Axes,
    values: Float[np.ndarray, "rows columns"],
    rows: Sequence[str],
    columns: Sequence[str],
    ends: tuple[float, float],
    *,
    cell: float,
    turned: bool = False,
    marked: tuple[int, int] | None = None,
) -> Any:
    """Draw a heat map, the first row on top; cells without a number are hatched.

    Parameters
    ----------
    axes : matplotlib Axes
    values : float array of shape (rows, columns)
    rows, columns : sequence of str
        Their names.
    ends : (float, float)
        Numbers of the darkest and the lightest shade.
    cell : float
        Width of a cell in inches: decides whether numbers are written, and how many columns are named.
    turned : bool
        Write the names of columns upwards.
    marked : (row, column), optional
        Gets a frame.

    Returns
    -------
    matplotlib QuadMesh
    """
    from matplotlib.patches import Rectangle

    # white lines between the cells, none where these are tiny
    line = {"edgecolors": "white", "linewidth": 0.4} if cell > 0.08 else {"rasterized": True}
    mesh = axes.pcolormesh(np.ma.masked_invalid(values), cmap=HEAT, vmin=ends[0], vmax=ends[1], **line)
    axes.patch.set(hatch="//////", facecolor="white", edgecolor="#9a9a9a")
    axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    across = thinned(len(columns), len(columns) if turned else int(len(columns) * cell / 0.17))
    axes.set_xticks(np.array(across) + 0.5, [columns[place] for place in across], rotation=90 if turned else 0)
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    if cell >= ROOM:
        for (row, column), value in np.ndenumerate(values):
            if np.isfinite(value):
                place = (column + 0.5, row + 0.5)
                axes.annotate(
                    short(float(value)),
                    place,
                    ha="center",
                    va="center_baseline",
                    fontsize=5.5 if cell >= 0.23 else 5,
                    color=_ink(mesh.cmap(mesh.norm(value))),
                )
    if marked is not None:
        for width, colour in ((2.2, "white"), (1.0, "black")):
            frame = Rectangle((marked[1], marked[0]), 1, 1, fill=False, linewidth=width, edgecolor=colour, zorder=3)
            axes.add_patch(frame)
            frame.set_clip_on(False)
    return mesh


def scale(figure: Figure, mesh: Any, axes: Sequence[Axes], label: str) -> None:
    """Put the scale of shades beside heat maps."""
    bar = figure.colorbar(mesh, ax=list(axes), fraction=0.03, pad=0.015, aspect=28)
    bar.set_label(label, labelpad=5)
    outline: Any = bar.outline
    outline.set_visible(False)
    bar.ax.tick_params(length=2)


def luminance(rgb: Sequence[float] | np.ndarray) -> float:
    """Relative luminance of a colour (WCAG 2): 0 is black, 1 white."""
    parts = np.asarray(rgb[:3], dtype=np.float64)
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def _ink(background: Any) -> str:
    """Black or white, whichever has the greater contrast."""
    return "black" if luminance(background) > 0.179 else "white"
