"""How far activations stand apart, from block to block: gaps of token pairs, skewness and tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int

from superactivators.analysis.separation import separation
from superactivators.ragged import check_offsets, segment_ids


@final
@dataclass(frozen=True, eq=False)
class PairGaps:
    """Gaps of token pairs of the same sample, by what the two tokens are; a mean over pairs of each sample.

    Attributes
    ----------
    every : float64 array of shape (samples, concepts)
        Over all pairs. NaN where there is no pair, here as in the others.
    inside : float64 array of shape (samples, concepts)
        Both tokens carry the concept.
    outside : float64 array of shape (samples, concepts)
        Neither does.
    across : float64 array of shape (samples, concepts)
        One does.
    """

    every: Float[np.ndarray, "n c"]
    inside: Float[np.ndarray, "n c"]
    outside: Float[np.ndarray, "n c"]
    across: Float[np.ndarray, "n c"]


def pair_gaps(
    activations: Float[np.ndarray, "tokens c"],
    inside: Bool[np.ndarray, "tokens c"],
    offsets: Int[np.ndarray, " n_plus_1"],
) -> PairGaps:
    """Mean absolute difference of activations over the token pairs of every sample.

    Parameters
    ----------
    activations : float array of shape (tokens, concepts)
    inside : bool array of shape (tokens, concepts)
        Which tokens carry the concept.
    offsets : int64 array of shape (samples + 1,)

    Returns
    -------
    PairGaps

    Raises
    ------
    DataError
        If the offsets do not describe the tokens.

    Notes
    -----
    In ascending order the k-th of n values is the larger one of k pairs and the smaller one of n - 1 - k, so that a
    sort gives the sum of all gaps in n log n steps; pairs across are what is left of all pairs.
    """
    offsets = check_offsets(offsets, len(activations))
    wide = activations.astype(np.float64)
    sums, pairs = zip(
        *(_sums(wide, members, offsets) for members in (np.ones_like(inside), inside, ~inside)), strict=True
    )
    counts = [*pairs, pairs[0] - pairs[1] - pairs[2]]
    # rounding can leave a tiny negative remainder
    totals = [*sums, np.maximum(sums[0] - sums[1] - sums[2], 0)]
    with np.errstate(invalid="ignore", divide="ignore"):
        return PairGaps(
            *(total / np.where(count > 0, count, np.nan) for total, count in zip(totals, counts, strict=True))
        )


def _sums(
    values: Float[np.ndarray, "tokens c"], members: Bool[np.ndarray, "tokens c"], offsets: Int[np.ndarray, " n_plus_1"]
) -> tuple[Float[np.ndarray, "n c"], Int[np.ndarray, "n c"]]:
    """Sum of gaps over the pairs of members of each sample, and the number of these pairs."""
    samples, columns = len(offsets) - 1, values.shape[1]
    owner = segment_ids(offsets)
    sizes = np.zeros((samples, columns), dtype=np.int64)
    filled = np.flatnonzero(np.diff(offsets))
    totals = np.zeros((samples, columns))
    if len(filled):
        starts = offsets[filled]
        sizes[filled] = np.add.reduceat(members.astype(np.int64), starts, axis=0)
        shown = np.where(members, values, np.inf).T
        order = np.lexsort((shown, np.broadcast_to(owner, shown.shape)), axis=-1).T
        ordered = np.take_along_axis(np.where(members, values, 0), order, axis=0)
        held = np.take_along_axis(members, order, axis=0)
        rank = np.arange(len(values)) - offsets[owner]
        weight = np.where(held, 2 * rank[:, None] - sizes[owner] + 1, 0)
        totals[filled] = np.add.reduceat(ordered * weight, starts, axis=0)
    return totals, sizes * (sizes - 1) // 2


def growth_rows(
    site: str,
    vector: str,
    concepts: Sequence[str],
    activations: Float[np.ndarray, "tokens c"],
    lengths: Float[np.ndarray, " tokens"],
    inside: Bool[np.ndarray, "tokens c"],
    present: Bool[np.ndarray, "n c"],
    offsets: Int[np.ndarray, " n_plus_1"],
) -> list[dict[str, object]]:
    """Describe one site's activations.

    Parameters
    ----------
    site, vector : str
        Where, and along which vectors (``"fixed"`` or ``"own"``).
    concepts : sequence of str
    activations : float array of shape (tokens, concepts)
        Along unit vectors, in units of the raw states.
    lengths : float array of shape (tokens,)
        Norms of the raw states.
    inside : bool array of shape (tokens, concepts)
    present : bool array of shape (samples, concepts)
        Which samples hold the concept. Tokens of the others are D_out.
    offsets : int64 array of shape (samples + 1,)

    Returns
    -------
    list of dict
        One for each concept, with the columns of `growth_table` but ``growth``. Means over samples: ``gap_inside``,
        ``gap_outside`` and ``gap_across`` over samples that hold the concept, ``gap_absent`` over the others, ``gap``
        over all.
    """
    gaps = pair_gaps(activations, inside, offsets)
    outside = ~present[segment_ids(offsets)]
    apart = separation(activations, inside, outside, offsets)
    wide = activations.astype(np.float64)
    spread = wide.std(axis=0)
    centred = wide - wide.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        skewness = (centred**3).mean(axis=0) / spread**3
    columns = {
        "gap": _mean(gaps.every, np.ones_like(present)),
        "gap_inside": _mean(gaps.inside, present),
        "gap_across": _mean(gaps.across, present),
        "gap_outside": _mean(gaps.outside, present),
        "gap_absent": _mean(gaps.every, ~present),
        "spread": spread,
        "skewness": skewness,
        "skewness_in": apart.skewness_in,
        "skewness_out": apart.skewness_out,
        "auroc": apart.auroc,
        "far": apart.far,
        "tail_mass": apart.tail_mass,
        "coverage": apart.coverage,
    }
    counts = {"n_in": inside.sum(axis=0), "n_out": outside.sum(axis=0)}
    return [
        {
            "site": site,
            "vector": vector,
            "concept": name,
            **{key: int(value[c]) for key, value in counts.items()},
            "length": float(lengths.mean()),
            **{key: float(value[c]) for key, value in columns.items()},
        }
        for c, name in enumerate(concepts)
    ]


def growth_table(rows: Sequence[dict[str, object]]) -> pa.Table:
    """Put the rows of several sites, from shallow to deep, together.

    Parameters
    ----------
    rows : sequence of dict
        From `growth_rows`.

    Returns
    -------
    pyarrow Table
        ``site, vector, concept, n_in, n_out, length`` (mean norm of the states), ``gap, gap_inside, gap_across,
        gap_outside, gap_absent, spread`` (standard deviation over all tokens), ``skewness`` (of all tokens),
        ``skewness_in, skewness_out, auroc, far, tail_mass, coverage`` (as `separation`) and ``growth``: the gap over
        that of the site before, along the same kind of vector; NaN for the first site.
    """
    before: dict[tuple[object, object], float] = {}
    found = []
    for row in rows:
        key, gap = (row["vector"], row["concept"]), float(str(row["gap"]))
        last = before.get(key, float("nan"))
        found.append({**row, "growth": gap / last if last else float("nan")})
        before[key] = gap
    return pa.Table.from_pylist(found)


def _mean(values: Float[np.ndarray, "n c"], counted: Bool[np.ndarray, "n c"]) -> Float[np.ndarray, " c"]:
    """Mean of the counted numbers of each column; NaN without any."""
    held = counted & ~np.isnan(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(held, values, 0).sum(axis=0) / held.sum(axis=0))
