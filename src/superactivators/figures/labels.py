"""What is written in figures: layers, concepts and numbers, short and free of mark-up."""

from __future__ import annotations

import re
from collections.abc import Sequence

from superactivators.detection.results import KINDLESS
from superactivators.report.cells import one_line
from superactivators.report.study_results import StudyTables

BLOCK = re.compile(r"block\[(\d+)\]")
SHORT = {"embed": "emb", "final_norm": "norm"}


def plain(text: str) -> str:
    """Write a name as it is: one line, and dollar signs start no formula."""
    return one_line(text).replace("$", r"\$")


def shortened(names: Sequence[str], most: int) -> list[str]:
    """Cut names to a length without making two alike.

    Parameters
    ----------
    names : sequence of str
        All different.
    most : int
        Letters. A name keeps its start, or start and end where starts are alike; where neither tells names apart they
        stay whole.
    """
    lines = [one_line(name) for name in names]
    for cut in (_start, _both_ends):
        found = [line if len(line) <= most else cut(line, most) for line in lines]
        if len(set(found)) == len(set(lines)):
            return [plain(name) for name in found]
    return [plain(line) for line in lines]


def _start(line: str, most: int) -> str:
    return line[: most - 1].rstrip() + "…"


def _both_ends(line: str, most: int) -> str:
    ending = (most - 1) // 2
    return line[: most - 1 - ending].rstrip() + "…" + line[len(line) - ending :].lstrip()


def site_names(sites: Sequence[str]) -> tuple[list[str], str]:
    """Write layers short.

    Returns
    -------
    names : list of str
        Numbers of blocks, where every layer is a block, the embedding or the final norm.
    axis : str
        What they are.
    """
    if all(BLOCK.fullmatch(site) or site in SHORT for site in sites):
        found = [BLOCK.fullmatch(site) for site in sites]
        return [SHORT[s] if m is None else m[1] for s, m in zip(sites, found, strict=True)], "block"
    return shortened(sites, 14), "layer"


def thinned(count: int, most: int) -> list[int]:
    """Places that get a tick, evenly spaced from the first on, at most so many."""
    return list(range(0, count, -(-count // max(most, 1)))) if count else []


def sites_of(study: StudyTables) -> list[str]:
    """Layers of a study, from shallow to deep."""
    model = study.summary.get("model", {}).get("sites", [])
    table = study.result.aggregates
    found = dict.fromkeys(
        site
        for site, kind in zip(table["site"].to_pylist(), table["kind"].to_pylist(), strict=True)
        if site != "chosen" and (kind not in KINDLESS or site in model)
    )
    order = {site: place for place, site in enumerate(model)}
    return sorted(found, key=lambda site: order.get(site, len(order)))


def level(delta: float) -> str:
    """Write a sparsity level: no zero before the point, no zeros at the end."""
    text = f"{delta:.3f}".rstrip("0")
    return text[1:] if text.startswith("0.") else text.rstrip(".")
