"""Analyses of a study as JSON types: tables as grids of sites and concepts, and a sentence for each (METHOD 8)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from superactivators.analysis.results import AnalysisResult
from superactivators.report import analysis_sentences as say
from superactivators.report.analysis_pairs import pair_maps
from superactivators.report.inputs import ReportInputs
from superactivators.report.tables import selected

MEASURES = (
    *("auroc", "cohens_d", "overlap", "skewness_in", "skewness_out", "tail_mass", "coverage", "far"),
    *("n_in", "n_out"),
)
"""Columns of the separation table that the page shows, each as a grid of sites and concepts."""
TOLD = ("auroc", "cohens_d", "overlap", "skewness_in", "tail_mass", "coverage")
"""Measures of which a sentence says where they are highest and lowest."""
SHARES = ("tail_mass", "coverage", "overlap")
LISTED = 12
"""Most pairs of concepts that are listed."""


def analyses(inputs: ReportInputs, result: AnalysisResult) -> dict[str, Any]:
    """Lay out what the activations of a study look like.

    Parameters
    ----------
    inputs : ReportInputs
    result : AnalysisResult

    Returns
    -------
    dict
        ``kinds``: by kind, see `of_kind`; ``pairs``: see `superactivators.report.analysis_pairs.pair_maps`.
    """
    tables = (result.separation, result.sparsity, result.deltas, result.best_deltas, result.errors, result.confusion)
    found = {kind for table in tables for kind in table["kind"].unique().to_pylist()}
    return {
        "kinds": {kind: of_kind(inputs, result, kind) for kind in inputs.kinds if kind in found},
        "pairs": pair_maps(inputs, result),
    }


def of_kind(inputs: ReportInputs, result: AnalysisResult, kind: str) -> dict[str, Any]:
    """Lay out the analyses of one kind of vectors.

    Returns
    -------
    dict
        ``sites`` (with activations of tokens, shallow to deep), ``separation`` (measure to grid of sites and
        concepts), ``means`` (measure to list over sites), ``histograms``, ``sparsity``, ``levels``, ``best_deltas``,
        ``best_layers``, ``errors``, ``sizes``, ``lengths``, ``confusion`` and ``sentences`` (by analysis).
    """
    concepts: list[str] = inputs.result.summary["concepts"]

    def mine(table: pa.Table) -> pa.Table:
        return selected(table, kind=kind)

    separation = mine(result.separation)
    sites = in_order(separation["site"].unique().to_pylist(), inputs.sites)
    values = {name: grid(separation, name, sites, concepts) for name in MEASURES}
    means = {name: say.mean_over_concepts(values[name]) for name in MEASURES}
    shares, cumulative = _sparsity(mine(result.sparsity), concepts)
    levels = _levels(mine(result.deltas), inputs.sites)
    best_deltas = say.counted(mine(result.best_deltas).to_pylist(), "delta")
    best_layers = say.counted(mine(result.best_layers).to_pylist(), "site")
    layers = in_order([*levels["sites"], *best_layers], inputs.sites)
    errors = mine(result.errors).drop_columns(["kind"]).to_pylist()
    sizes, lengths = (_bins(mine(table)) for table in (result.sizes, result.lengths))
    confusion, pairs, compared = _confusion(mine(result.confusion), concepts)
    measured = int(np.isfinite(values["auroc"]).any(axis=0).sum())
    return {
        "sites": sites,
        "separation": values,
        "means": means,
        "histograms": _histograms(mine(result.histograms), sites, concepts),
        "sparsity": {"shares": shares, "concepts": cumulative, "median": _median(cumulative)},
        "levels": levels,
        "best_deltas": [[delta, best_deltas[delta]] for delta in sorted(best_deltas)],
        "best_layers": [[site, best_layers.get(site, 0)] for site in layers],
        "errors": errors,
        "sizes": sizes,
        "lengths": lengths,
        "confusion": confusion,
        "sentences": {
            "distributions": say.tail_sentence(values["tail_mass"], sites, concepts),
            "separation": say.separation_sentence(means, sites, measured),
            "measures": {name: say.measure_sentence(means[name], sites, share=name in SHARES) for name in TOLD},
            "sparsity": say.sparsity_sentence(cumulative, shares, concepts),
            "levels": say.levels_sentence(levels["cal"], levels["test"], levels["sites"], levels["deltas"]),
            "best_deltas": say.best_levels_sentence(best_deltas),
            "best_layers": say.best_layers_sentence(best_layers, layers),
            "errors": say.prevalence_sentence(errors),
            "sizes": say.sizes_sentence(sizes),
            "lengths": say.lengths_sentence(lengths),
            "confusion": say.confusion_sentence(pairs, compared),
        },
    }


def in_order(found: Sequence[str], order: Sequence[str]) -> list[str]:
    """Put each name once into a given order; names that it lacks come last."""
    names = list(dict.fromkeys(found))
    return [name for name in order if name in names] + [name for name in names if name not in order]


def grid(table: pa.Table, name: str, sites: Sequence[str], concepts: Sequence[str]) -> Float[np.ndarray, "sites c"]:
    """One column of a table as a grid; NaN where there is no row."""
    values = np.full((len(sites), len(concepts)), np.nan)
    row, column, kept = _places(table, sites, concepts)
    values[row, column] = _floats(table, name)[kept]
    return values


def _places(
    table: pa.Table, sites: Sequence[str], concepts: Sequence[str]
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"], Int[np.ndarray, " rows"]]:
    """Site and concept numbers of the rows that have both, and which rows these are."""
    places = []
    for name, order in (("site", sites), ("concept", concepts)):
        number = {value: place for place, value in enumerate(order)}
        places.append(np.array([number.get(value, -1) for value in table[name].to_pylist()], dtype=np.int64))
    kept = np.flatnonzero((places[0] >= 0) & (places[1] >= 0))
    return places[0][kept], places[1][kept], kept


def _floats(table: pa.Table, name: str) -> Float[np.ndarray, " rows"]:
    return np.array([np.nan if value is None else value for value in table[name].to_pylist()], dtype=np.float64)


def _histograms(table: pa.Table, sites: Sequence[str], concepts: Sequence[str]) -> dict[str, Any] | None:
    """Edges as grids, and one text of packed counts a site: for each concept its inside bins, then its outside bins."""
    row, column, kept = _places(table, sites, concepts)
    if not len(kept):
        return None
    parts = [table[name].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1) for name in _SIDES]
    bins = parts[0].shape[1]
    counts = np.zeros((len(sites), len(concepts), 2, bins), dtype=np.int64)
    for side, part in enumerate(parts):
        counts[row, column, side] = part[kept]
    edges = {name: grid(table, name, sites, concepts) for name in ("low", "high")}
    return {"bins": bins, **edges, "counts": [packed_counts(block.ravel()) for block in counts]}


_SIDES = ("inside", "outside")


def packed_counts(counts: Int[np.ndarray, " n"]) -> str:
    """Write numbers that are not negative in few bytes.

    Parameters
    ----------
    counts : int64 array of shape (n,)

    Returns
    -------
    str
        Base64 of unsigned LEB128: seven bits a byte, lowest first, and the highest bit says that more follow. Nothing
        is rounded.
    """
    wide = counts.astype(np.uint64)
    length = np.ones(len(wide), dtype=np.int64)
    for shift in range(7, 64, 7):
        length += (wide >> np.uint64(shift)) > 0
    ends = np.cumsum(length)
    raw = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=np.uint8)
    for place in range(int(length.max(initial=0))):
        rows = np.flatnonzero(length > place)
        part = (wide[rows] >> np.uint64(7 * place)) & np.uint64(0x7F)
        more = np.where(length[rows] > place + 1, 0x80, 0)
        raw[ends[rows] - length[rows] + place] = part.astype(np.uint8) | more.astype(np.uint8)
    return base64.b64encode(raw.tobytes()).decode("ascii")


def _sparsity(
    table: pa.Table, concepts: Sequence[str]
) -> tuple[Float[np.ndarray, " shares"], Float[np.ndarray, "c shares"]]:
    shares = np.unique(_floats(table, "share"))
    number = {name: place for place, name in enumerate(concepts)}
    values = np.full((len(concepts), len(shares)), np.nan)
    rows = np.array([number.get(name, -1) for name in table["concept"].to_pylist()], dtype=np.int64)
    known = rows >= 0
    columns = np.searchsorted(shares, _floats(table, "share"))
    values[rows[known], columns[known]] = _floats(table, "cumulative")[known]
    return shares, values


def _median(values: Float[np.ndarray, "c shares"]) -> Float[np.ndarray, " shares"]:
    known = values[np.isfinite(values).all(axis=1)]
    return np.median(known, axis=0) if len(known) else np.full(values.shape[1], np.nan)


def _levels(table: pa.Table, order: Sequence[str]) -> dict[str, Any]:
    sites = in_order(table["site"].unique().to_pylist(), order)
    deltas = np.unique(_floats(table, "delta"))
    places = {site: place for place, site in enumerate(sites)}
    rows = np.array([places[site] for site in table["site"].to_pylist()], dtype=np.int64)
    columns = np.searchsorted(deltas, _floats(table, "delta"))
    found: dict[str, Any] = {"sites": sites, "deltas": deltas.tolist()}
    for split in ("cal", "test"):
        values = np.full((len(sites), len(deltas)), np.nan)
        values[rows, columns] = _floats(table, split)
        found[split] = values
    return found


def _bins(table: pa.Table) -> list[dict[str, Any]]:
    rows = table.drop_columns(["kind"]).to_pylist()
    return sorted(rows, key=lambda row: float(row["low"]) if say.finite(row["low"]) else float("inf"))


def _confusion(table: pa.Table, concepts: Sequence[str]) -> tuple[dict[str, Any] | None, list[dict[str, Any]], int]:
    """Lay out counts by present and absent concept; the pairs beyond their base rate, most first; how many compared."""
    rows = table.drop_columns(["kind"]).to_pylist()
    if not rows:
        return None, [], 0
    number = {name: place for place, name in enumerate(concepts)}
    counts = np.zeros((2, len(concepts), len(concepts)), dtype=np.int64)
    base = np.full(len(concepts), np.nan)
    for row in rows:
        place = number[row["present"]], number[row["absent"]]
        counts[(slice(None), *place)] = row["n"], row["fired"]
        base[place[1]] = np.nan if row["base"] is None else row["base"]
    enough = [
        row for row in rows if row["n"] >= say.FEW and say.finite(row["base"]) and row["present"] != row["absent"]
    ]
    over = [row for row in enough if row["rate"] > row["base"]]
    over.sort(key=lambda row: float(row["base"] - row["rate"]))
    shown = [[number[row["present"]], number[row["absent"]]] for row in over[:LISTED]]
    return {"n": counts[0], "fired": counts[1], "base": base, "pairs": shown, "least": say.FEW}, over, len(enough)
