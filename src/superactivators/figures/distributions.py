"""Activations inside and outside a concept: histograms with the tail, and how far apart they lie layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float

from superactivators.analysis.results import AnalysisResult
from superactivators.analysis.separation import FAR
from superactivators.detection.results import REFERENCE
from superactivators.errors import StudyError, allowed
from superactivators.figures.labels import level, plain, shortened, site_names, sites_of, thinned
from superactivators.figures.style import (
    INSIDE,
    OUTSIDE,
    PALE,
    Axes,
    Figure,
    NothingToDraw,
    in_style,
    legend,
    looks,
    panels,
)
from superactivators.report.study_results import StudyTables
from superactivators.report.tables import selected

MOST = 24
"""Concepts of one figure."""
ACROSS = 4

MEASURES = {
    "tail_mass": f"$D_{{in}}$ above $q_{{{FAR}}}$ of $D_{{out}}$",
    "coverage": "positive samples with one above",
    "auroc": "AUROC",
}


@in_style
def distributions(
    study: StudyTables,
    kind: str | None = None,
    concepts: Sequence[str] | None = None,
    *,
    site: str | None = None,
) -> Figure:
    """Histograms of D_in and D_out on test, a panel for each concept, with the threshold and the tail above it shaded.

    Parameters
    ----------
    study : StudyTables
        With its analyses.
    kind : str, optional
        Kind of vectors; by default the best on cal.
    concepts : sequence of str, optional
        By default the first `MOST` that have labelled tokens.
    site : str, optional
        One layer for all; by default the layer that each concept chose on cal.

    Returns
    -------
    matplotlib Figure
        Heights are shares of the tokens of D_in and of D_out, in bins of equal width. The threshold is that of the
        SuperActivators at the layer, from cal.

    Raises
    ------
    StudyError
        If the study has no labelled tokens, a name is unknown, or matplotlib is missing.
    """
    held = analysis_of(study)
    kind = kind_of(study, held.histograms, kind, "labelled tokens")
    names = drawn_concepts(study, kind)
    if concepts is not None:
        for name in concepts:
            if name not in names:
                raise StudyError(f"no histogram of concept {name!r} with {kind} vectors; {allowed(name, names)}")
    shown = list(concepts or names[:MOST])
    rows = {(row["site"], row["concept"]): row for row in selected(held.histograms, kind=kind).to_pylist()}
    cuts = _cuts(study, kind, site)
    figure, axes = panels(len(shown), ACROSS, 1.15, extra=0.45)
    across = min(ACROSS, len(shown))
    titles = shortened(shown, 24 if across > 2 else 40)
    handles: dict[str, Any] = {}
    for number, (one, concept) in enumerate(zip(axes, shown, strict=True)):
        cut = cuts.get(concept, {})
        place = site or cut.get("site")
        handles |= _histogram(one, rows.get((place, concept)), cut)
        one.set_title(titles[number])
        one.set_yticks([])
        one.spines["left"].set_visible(False)
        if number % across == 0:
            one.set_ylabel("share of tokens")
        if number >= len(shown) - across:
            one.set_xlabel("activation")
    legend(figure, list(handles.values()), list(handles))
    return figure


def analysis_of(study: StudyTables) -> AnalysisResult:
    """Analyses of a study, which it must have."""
    if study.analysis is None:
        raise NothingToDraw("the study has no analyses; run it again")
    return study.analysis


def kind_of(study: StudyTables, table: pa.Table, kind: str | None, what: str) -> str:
    """Kind to draw: the given one, or the best on cal of those in the table."""
    found = list(dict.fromkeys(table["kind"].to_pylist()))
    if not found:
        raise NothingToDraw(f"the study has no {what}, so there is nothing to draw")
    if kind is None:
        best: str | None = study.summary.get("best_kind_on_cal")
        return best if best is not None and best in found else str(found[0])
    if kind not in found:
        raise StudyError(f"the study has no {what} of the kind {kind!r}; {allowed(kind, found)}")
    return kind


def drawn_concepts(study: StudyTables, kind: str) -> list[str]:
    """Concepts of a kind that have histograms, in the study's order."""
    held = set(selected(analysis_of(study).histograms, kind=kind)["concept"].to_pylist())
    return [concept for concept in study.summary["concepts"] if concept in held]


def _cuts(study: StudyTables, kind: str, site: str | None) -> dict[str, dict[str, Any]]:
    """Threshold, level and layer of every concept: at its own choice, or at the best level of one layer."""
    wanted = {"split": "test", "kind": kind, "method": REFERENCE, "chosen": site is None}
    table = selected(study.result.metrics, **wanted, **({} if site is None else {"site": site}))
    return {row["concept"]: row for row in table.to_pylist()}


def _histogram(axes: Axes, row: dict[str, Any] | None, cut: dict[str, Any]) -> dict[str, Any]:
    """Draw both distributions of one concept; return what the legend names."""
    from matplotlib.ticker import MaxNLocator

    counts = [] if row is None else [np.asarray(row[name], dtype=np.float64) for name in ("inside", "outside")]
    if row is None or not all(part.sum() for part in counts) or not np.isfinite([row["low"], row["high"]]).all():
        axes.text(0.5, 0.5, "no tokens to compare", ha="center", va="center", transform=axes.transAxes)
        axes.set_xticks([])
        return {}
    low, high = row["low"], row["high"] if row["high"] > row["low"] else row["low"] + 1e-6
    edges = np.linspace(low, high, len(counts[0]) + 1)
    inside, outside = (part / part.sum() for part in counts)
    handles: dict[str, Any] = {
        "$D_{out}$": axes.stairs(outside, edges, fill=True, facecolor=PALE, edgecolor=OUTSIDE, lw=0.6, ls=(0, (2, 1))),
        "$D_{in}$": axes.stairs(inside, edges, color=INSIDE, lw=1.0),
    }
    threshold = cut.get("threshold")
    told = [] if cut.get("site") is None else [site_text(cut["site"])]
    if threshold is not None and low < threshold < high:
        bins, ends = above(inside, edges, threshold)
        tail = axes.stairs(bins, ends, fill=True, facecolor=INSIDE, alpha=0.75, hatch="//////", edgecolor="white", lw=0)
        line = axes.axvline(threshold, color="black", lw=0.9, ls=(0, (4, 1.5)))
        handles |= {"SuperActivators (tail of $D_{in}$)": tail, "threshold": line}
    if cut.get("delta") is not None and np.isfinite(cut["delta"]):
        told.append(f"δ = {level(cut['delta'])}")
    # on the side where the threshold is not
    left = threshold is None or threshold > (low + high) / 2
    axes.text(
        0.02 if left else 0.98,
        0.98,
        "\n".join(told),
        ha="left" if left else "right",
        va="top",
        fontsize=6,
        transform=axes.transAxes,
    )
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    # 2 % of room on both sides, and some above for the words
    axes.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    axes.set_ylim(0, 1.4 * max(inside.max(), outside.max()))
    return handles


def above(
    heights: Float[np.ndarray, " bins"], edges: Float[np.ndarray, " bins_plus_1"], threshold: float
) -> tuple[Float[np.ndarray, " some"], Float[np.ndarray, " some_plus_1"]]:
    """Part of a histogram above a threshold within it; the bin that holds the threshold is cut there.

    Returns
    -------
    heights, edges : float64 arrays of shape (bins,) and (bins + 1,)
    """
    first = int(np.searchsorted(edges, threshold, side="right")) - 1
    return heights[first:], np.concatenate([[threshold], edges[first + 1 :]])


def site_text(site: str) -> str:
    """Write one layer."""
    names, axis = site_names([site])
    return f"block {names[0]}" if axis == "block" and names[0].isdigit() else plain(site)


@in_style
def separation(study: StudyTables) -> Figure:
    """Tail mass, coverage and AUROC over layers on test, by kind: means over concepts (METHOD section 8).

    Parameters
    ----------
    study : StudyTables
        With its analyses.

    Returns
    -------
    matplotlib Figure
        Concepts without labelled tokens are left out of the means.

    Raises
    ------
    StudyError
        If the study has no labelled tokens, or matplotlib is missing.
    """
    table = analysis_of(study).separation
    kind_of(study, table, None, "labelled tokens")
    kinds = list(dict.fromkeys(table["kind"].to_pylist()))
    order = sites_of(study)
    held = set(table["site"].to_pylist())
    sites = [site for site in order if site in held] + [site for site in sorted(held) if site not in order]
    names, axis = site_names(sites)
    figure, axes = panels(len(MEASURES), len(MEASURES), 1.75, extra=0.3)
    marks, handles = looks(kinds), {}
    grids = {kind: _means(selected(table, kind=kind), sites) for kind in kinds}
    for one, (measure, label) in zip(axes, MEASURES.items(), strict=True):
        for kind in kinds:
            (handles[kind],) = one.plot(np.arange(len(sites)), grids[kind][measure], **marks[kind].line)
        ticks = thinned(len(sites), 9)
        one.set_xticks(ticks, [names[place] for place in ticks])
        one.set(xlabel=axis, title=label, xlim=(-0.4, len(sites) - 0.6))
        one.grid()
    legend(figure, list(handles.values()), [plain(kind) for kind in handles])
    return figure


def _means(table: pa.Table, sites: Sequence[str]) -> dict[str, Float[np.ndarray, " sites"]]:
    place = {site: number for number, site in enumerate(sites)}
    at = np.array([place[site] for site in table["site"].to_pylist()], dtype=np.int64)
    found = {}
    for name in MEASURES:
        values = np.array([np.nan if v is None else v for v in table[name].to_pylist()], dtype=np.float64)
        known = np.isfinite(values)
        count = np.bincount(at[known], minlength=len(sites))
        total = np.bincount(at[known], weights=values[known], minlength=len(sites))
        found[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found
