"""Tokens and lengths: how many in-concept tokens are SuperActivators, how alike tokens are, how length matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from superactivators.detection.lengths import ALL
from superactivators.detection.results import REFERENCE
from superactivators.figures.distributions import analysis_of, kind_of, site_text
from superactivators.figures.heat import scale
from superactivators.figures.labels import plain, shortened
from superactivators.figures.style import (
    COLOURS,
    COLUMN,
    GREY,
    HEAT,
    PAGE,
    PALE,
    Axes,
    Figure,
    Look,
    NothingToDraw,
    in_style,
    legend,
    looks,
    panels,
)
from superactivators.report.study_results import StudyTables
from superactivators.report.tables import selected


@in_style
def sparsity(study: StudyTables) -> Figure:
    """Distribution over test samples of the share of in-concept tokens that are SuperActivators (METHOD section 8).

    Parameters
    ----------
    study : StudyTables
        With its analyses.

    Returns
    -------
    matplotlib Figure
        A panel for each kind: thin lines are concepts, the thick one is their median.

    Raises
    ------
    StudyError
        If the study has no labelled tokens, or matplotlib is missing.
    """
    table = analysis_of(study).sparsity
    kind_of(study, table, None, "labelled tokens")
    kinds = list(dict.fromkeys(table["kind"].to_pylist()))
    figure, axes = panels(len(kinds), 3, 1.75, extra=0.3, sharey=True)
    handles: dict[str, Any] = {}
    for place, (one, kind) in enumerate(zip(axes, kinds, strict=True)):
        mine = selected(table, kind=kind)
        shares, lines = _lines(mine)
        for line in lines:
            (handles["one concept"],) = one.plot(shares, line, color="#a8a8a8", lw=0.6)
        known = lines[np.isfinite(lines).all(axis=1)]
        if len(known) > 1:
            median = np.median(known, axis=0)
            (handles["median"],) = one.plot(shares, median, color=COLOURS[0], lw=2.0)
        one.set(title=plain(kind), xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        one.set_xlabel("share of in-concept tokens that fire")
        if place % 3 == 0:
            one.set_ylabel("samples with at most that")
        one.grid()
    legend(figure, list(handles.values()), list(handles))
    return figure


def _lines(table: pa.Table) -> tuple[Float[np.ndarray, " shares"], Float[np.ndarray, "concepts shares"]]:
    rows = table.to_pylist()
    shares = sorted({row["share"] for row in rows})
    concepts = list(dict.fromkeys(row["concept"] for row in rows))
    values = np.full((len(concepts), len(shares)), np.nan)
    column = {share: number for number, share in enumerate(shares)}
    line = {concept: number for number, concept in enumerate(concepts)}
    for row in rows:
        if row["cumulative"] is not None:
            values[line[row["concept"]], column[row["share"]]] = row["cumulative"]
    return np.array(shares, dtype=np.float64), values


@in_style
def lengths(study: StudyTables) -> Figure:
    """Draw false alarms and recall of the SuperActivators against the number of tokens, by kind.

    Parameters
    ----------
    study : StudyTables

    Returns
    -------
    matplotlib Figure
        Test samples in fifths by length, at the middle of each. False alarms of all concepts together have Wilson's
        95 % intervals; recall is drawn where the study's analyses have it.

    Raises
    ------
    StudyError
        If all samples have the same length, or matplotlib is missing.
    """
    alarms = selected(study.result.lengths, method=REFERENCE, concept=ALL).to_pylist()
    hits = [] if study.analysis is None else study.analysis.lengths.to_pylist()
    if len({(row["low"], row["high"]) for row in alarms}) < 2:
        raise NothingToDraw("all samples have the same length, so there is nothing to draw against it")
    kinds = list(dict.fromkeys(row["kind"] for row in alarms))
    count = 2 if hits else 1
    figure, axes = panels(count, 2, 1.9, extra=0.3, width=COLUMN if count == 1 else PAGE)
    marks, handles = looks(kinds), {}
    for turn, kind in enumerate(kinds):
        rows = [row for row in alarms if row["kind"] == kind]
        handles[kind] = _fifths(axes[0], rows, "fpr", marks[kind], (turn - (len(kinds) - 1) / 2) * 0.012)
        if hits:
            _fifths(axes[1], [row for row in hits if row["kind"] == kind], "recall", marks[kind], 0.0)
    for one, label in zip(axes, ("false alarms: share of negatives", "recall: share of positives"), strict=False):
        one.set(xlabel="tokens", ylabel=label)
        one.set_ylim(0, max(1.06 * one.dataLim.y1, 1e-3))
        one.grid()
    legend(figure, list(handles.values()), [plain(kind) for kind in kinds])
    return figure


def _fifths(axes: Axes, rows: Sequence[Mapping[str, Any]], name: str, look: Look, aside: float) -> Any:
    """Draw a line through the middles of bins; ``aside`` of the whole width apart, so that intervals do not hide."""
    rows = sorted(rows, key=lambda row: float(row["low"]))
    middle = np.array([(row["low"] + row["high"]) / 2 for row in rows], dtype=np.float64)
    value = np.array([np.nan if row[name] is None else row[name] for row in rows], dtype=np.float64)
    if len(middle):
        middle += aside * (middle[-1] - middle[0])
    ends = None
    if rows and f"{name}_low" in rows[0]:
        low, high = (np.array([row[f"{name}_{end}"] for row in rows], dtype=np.float64) for end in ("low", "high"))
        ends = np.maximum(np.stack([value - low, high - value]), 0)
    return axes.errorbar(middle, value, yerr=ends, elinewidth=0.7, **look.line)


@in_style
def token_pairs(study: StudyTables) -> Figure:
    """Cosines between the scaled states of the tokens of a few test samples (METHOD section 8).

    Parameters
    ----------
    study : StudyTables
        With its analyses.

    Returns
    -------
    matplotlib Figure
        A map for each sample. Tokens stand in groups, in the order of the sample within each: SuperActivators among
        the in-concept tokens, other in-concept tokens, tokens that fire elsewhere, the rest; a strip
        beside the map names the groups.

    Raises
    ------
    StudyError
        If the study has no such samples, or matplotlib is missing.
    """
    from matplotlib.patches import Rectangle

    pairs = analysis_of(study).pairs
    if not pairs:
        raise NothingToDraw("the study looked at no pairs of tokens, so there is nothing to draw")
    across = min(4, len(pairs))
    width = COLUMN if len(pairs) == 1 else PAGE
    side = (width - 0.6) / max(across, 2)
    figure, axes = panels(len(pairs), across, side + 0.45, extra=0.3, width=width)
    grids = [np.asarray(found["cosine"], dtype=np.float64) for found in pairs.values()]
    low = min((float(np.nanmin(grid)) for grid in grids if np.isfinite(grid).any()), default=0.0)
    image: Any = None
    handles: dict[str, Any] = {}
    for one, (sample, found), grid in zip(axes, pairs.items(), grids, strict=True):
        order, edges, names = grouped(np.asarray(found["inside"]), np.asarray(found["fired"]))
        one.patch.set(hatch="//////", edgecolor=GREY)
        image = one.imshow(
            np.ma.masked_invalid(grid[np.ix_(order, order)]),
            cmap=HEAT,
            vmin=min(low, 0.99),
            vmax=1,
            interpolation="nearest",
            aspect="equal",
        )
        for edge in edges[1:-1]:
            one.axhline(edge - 0.5, color="white", lw=0.8)
            one.axvline(edge - 0.5, color="white", lw=0.8)
        for (start, end), name in zip(pairwise(edges), names, strict=True):
            strip = Rectangle((-0.06, start - 0.5), 0.045, end - start, facecolor=GROUPS[name], clip_on=False)
            strip.set_transform(one.get_yaxis_transform())
            one.add_patch(strip)
            handles[name] = strip
        one.set_yticks([])
        one.set_xticks([])
        one.spines[:].set_visible(False)
        title = [*shortened([found["concept"]], 24), f"{plain(found['kind'])}, {site_text(found['site'])}"]
        one.set_title("\n".join(title))
        one.set_xlabel(f"{shortened([sample], 20)[0]}: {len(grid)} tokens", fontsize=6)
    scale(figure, image, axes, "cosine")
    shown = [name for name in GROUPS if name in handles]
    legend(figure, [handles[name] for name in shown], shown)
    return figure


GROUPS = {
    "SuperActivators in the concept": COLOURS[2],
    "other tokens of the concept": COLOURS[0],
    "fire elsewhere": COLOURS[1],
    "rest": PALE,
}
"""Groups of tokens in their order, and the colour of their strip."""


def grouped(
    inside: Bool[np.ndarray, " t"], fired: Bool[np.ndarray, " t"]
) -> tuple[Int[np.ndarray, " t"], list[int], list[str]]:
    """Put tokens into groups.

    Returns
    -------
    order : int64 array of shape (tokens,)
        Token numbers, group after group.
    edges : list of int
        Where groups start in this order, and their end.
    names : list of str
        Of the groups that have tokens.
    """
    group = np.where(inside, np.where(fired, 0, 1), np.where(fired, 2, 3))
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=len(GROUPS))
    held = [number for number in range(len(GROUPS)) if sizes[number]]
    edges = [0, *np.cumsum(sizes[held]).tolist()]
    return order, edges, [list(GROUPS)[number] for number in held]
