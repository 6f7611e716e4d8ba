"""K-means of rows that are streamed (METHOD section 4, kind ``kmeans``).

Seeds come from greedy k-means++ (Arthur and Vassilvitskii, 2007) on a drawn sub-sample; where K is small, the best of
several sets. Lloyd's algorithm then runs on drawn sub-samples that grow fourfold, each from where the last one stopped,
and at last on all rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, final, get_args

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int, Int32, Int64
from torch import Tensor

from superactivators.concepts.points import CHUNK, InMemory, Points, even_blocks, unit_rows
from superactivators.concepts.rows import RowSource
from superactivators.errors import DataError, StudyError, allowed

Metric: TypeAlias = Literal["euclidean", "cosine"]
"""``"cosine"`` is spherical k-means: rows and centroids count by their directions only."""

MEMORY = 4 * 2**30
MAX_ITER = 100

TOLERANCE = 3e-4
"""Relative fall of the inertia in one pass below which the passes over all rows end."""

ROWS_PER_CLUSTER = 2
"""K is lowered until there are this many rows for each cluster."""

SEED_ROWS = 32
"""Rows of the first sub-sample for each cluster."""

LEAST_ROWS = 4096
"""Rows of the first sub-sample at least."""

GROWTH = 4
"""How many times larger each sub-sample is than the one before."""

SUB_TOLERANCE = 5e-3
"""As the tolerance, on sub-samples: their minima are no closer to that of all rows."""

STARTS = 8
"""Sets of seeds that Lloyd's algorithm is tried from on the first sub-sample; the best of them goes on."""

STARTS_OF = 800
"""At most this many seeds in all of these sets, but always one set: where K is large, sets differ little."""

TRIALS = 32
"""Candidates for each seed, of which the one that lowers the inertia most is taken: many trials on few rows end lower
than few trials on many rows, and cost less."""

POOL = 8
"""Candidates that are drawn together, for each seed that is to come from them."""

FRESH = 4
"""One more seed comes from the same candidates for as many seeds that there are; then their chances are out of date."""

MOST_FRESH = 32
"""Most seeds that come from the same candidates."""

NEAR = 1e-5
"""Squared distances below this share of the squared norms have lost their digits and are taken again directly."""


LEAST_GAP = 1e-12
"""Share of a row's squared norm; a row that is no farther from its centroid differs by rounding only."""


@final
@dataclass(frozen=True, eq=False)
class Clusters:
    """Centroids of clustered rows.

    Attributes
    ----------
    centroids : float32 tensor of shape (clusters, width)
        In the units of the rows as given; of unit length for the metric ``"cosine"``.
    counts : int64 array of shape (clusters,)
        Rows whose nearest centroid it is; all are positive.
    inertia : float
        Sum over rows of the squared distance to the nearest centroid; for the metric ``"cosine"`` between vectors of
        unit length, that is twice one minus the cosine.
    n_iter : int
        Passes of Lloyd's algorithm over all rows, without the one that takes the counts.
    reseeded : int
        How often an empty cluster was given a row far from its centroid.
    metric : str
    notes : dict
        What was done, of JSON types: ``sub_samples`` (rows of each), ``converged``, and ``lowered`` (why there are
        fewer clusters than were asked for) where that is so.
    """

    centroids: Float[Tensor, "k d"]
    counts: Int64[np.ndarray, " k"]
    inertia: float
    n_iter: int
    reseeded: int
    metric: Metric = "euclidean"
    notes: dict[str, object] = field(default_factory=dict)


def fit_kmeans(
    rows: RowSource,
    n_clusters: int,
    *,
    metric: Metric = "euclidean",
    seed: int = 0,
    memory: int = MEMORY,
    max_iter: int = MAX_ITER,
    tolerance: float = TOLERANCE,
) -> Clusters:
    """Find centroids with a small sum of squared distances to the rows.

    The result depends on rows, their order and the seed, but not on how the rows are cut into blocks or on whether
    they fit the memory. Sums are taken in float64. A cluster that loses all its rows starts again at the row that is
    farthest from its centroid.

    Parameters
    ----------
    rows : RowSource
    n_clusters : int
        Wanted number of clusters K. There are fewer, and ``notes["lowered"]`` says so, if there are fewer than two rows
        for each cluster, or fewer distinct rows than clusters.
    metric : str
        ``"euclidean"`` or ``"cosine"``. For the latter a row of zeros has no direction: it is equally far from all
        centroids and moves none.
    seed : int
        Of the sub-samples and of k-means++.
    memory : int
        Bytes that copies of rows may take. Rows that do not fit are read again in each pass.
    max_iter : int
        Most passes over all rows; sub-samples have as many each.
    tolerance : float
        The passes end when one lowers the inertia by less than this share, or moves no row.

    Returns
    -------
    Clusters

    Raises
    ------
    DataError
        If there are no rows, or one is not finite.
    StudyError
        If K or the passes are no positive integers, the tolerance is negative, or the metric is unknown.
    """
    check_options(n_clusters, metric, max_iter, tolerance)
    points = Points(rows, metric, memory)
    notes: dict[str, object] = {}
    count = min(int(n_clusters), max(1, rows.n_rows // ROWS_PER_CLUSTER))
    if count < n_clusters:
        notes["lowered"] = f"{count} clusters instead of {n_clusters}: fewer than two of {rows.n_rows} rows for each"

    random = np.random.default_rng(seed)
    order = random.permutation(rows.n_rows)
    sizes = _sample_sizes(count, rows, memory)
    sample = points.take(np.sort(order[: sizes[0]]))
    shift = points.shift if metric == "cosine" else None
    lloyd = _best_start(sample, count, random, shift, max_iter, max(tolerance, SUB_TOLERANCE))
    passes = 0
    for size in sizes:
        whole = size == rows.n_rows
        if len(sample) < size < rows.n_rows:
            sample = points.take(np.sort(order[:size]))
        source = points if whole else InMemory(sample)
        passes = lloyd.run(source, max_iter, tolerance if whole else max(tolerance, SUB_TOLERANCE))
    notes["sub_samples"] = [size for size in sizes if size < rows.n_rows]
    notes["converged"] = lloyd.converged

    centroids = (lloyd.centroids[lloyd.alive] + points.shift).float()
    if metric == "cosine":
        centroids = unit_rows(centroids)
    while True:
        inertia, counts = 0.0, np.zeros(len(centroids), dtype=np.int64)
        for _, members, distances in _nearest(rows, centroids, metric):
            inertia += float(distances.sum(dtype=torch.float64))
            counts += np.bincount(members, minlength=len(counts))
        if (counts > 0).all():
            break
        centroids = centroids[torch.from_numpy(counts > 0)]
    if len(centroids) < count:
        notes["lowered"] = f"{len(centroids)} clusters instead of {n_clusters}: no more rows that differ enough"
    return Clusters(centroids, counts, inertia, passes, lloyd.reseeded, metric, notes)


def assign(rows: RowSource, clusters: Clusters) -> Int32[np.ndarray, " rows"]:
    """Nearest centroid of every row, in one streamed pass; of equally near ones, the first.

    Parameters
    ----------
    rows : RowSource
        In the same units as those that were clustered.
    clusters : Clusters

    Returns
    -------
    int32 array of shape (rows,)

    Raises
    ------
    DataError
        If the widths differ.
    """
    if rows.width != clusters.centroids.shape[1]:
        raise DataError(
            f"rows of width {rows.width} and centroids of width {clusters.centroids.shape[1]}; "
            "give states of the site that was clustered"
        )
    nearest = np.empty(rows.n_rows, dtype=np.int32)
    for start, members, _ in _nearest(rows, clusters.centroids, clusters.metric):
        nearest[start : start + len(members)] = members
    return nearest


def check_options(n_clusters: object, metric: object, max_iter: object, tolerance: object) -> None:
    """Check the options of `fit_kmeans`.

    Raises
    ------
    StudyError
        If one asks for something impossible.
    """
    for name, value in (("number of clusters", n_clusters), ("number of passes", max_iter)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise StudyError(f"{name} {value!r} is not possible; give a whole number of 1 or more")
    if not isinstance(tolerance, (int, float, np.number)) or not tolerance >= 0:
        raise StudyError(f"tolerance {tolerance!r} is not possible; give 0 or a small positive number")
    if metric not in get_args(Metric):
        raise StudyError(f"unknown metric {metric!r}; {allowed(metric, get_args(Metric))}")


def _sample_sizes(count: int, rows: RowSource, memory: int) -> list[int]:
    """Rows of each sub-sample, and last of all rows."""
    size = max(SEED_ROWS * count, LEAST_ROWS)
    sizes: list[int] = []
    while 2 * size < rows.n_rows and (not sizes or 4 * rows.width * size <= memory // 2):
        sizes.append(size)
        size *= GROWTH
    return [*sizes, rows.n_rows]


def _seeds(points: Float[Tensor, "n d"], count: int, random: np.random.Generator) -> Float[Tensor, "k d"]:
    """Greedy k-means++; fewer seeds where there are no more distinct points.

    Candidates are drawn for several seeds at once, so that their distances come from one large product. Each seed takes
    its trials from them with weights that undo what the seeds since have changed about the chances.
    """
    squares = points.square().sum(dim=1)
    chosen = [int(random.integers(len(points)))]
    nearest = (points - points[chosen[0]]).square().sum(dim=1).numpy()
    while len(chosen) < count:
        chances = nearest.copy()
        candidates = _draw(chances, POOL * max(1, min(len(chosen) // FRESH, MOST_FRESH)), random)
        if not len(candidates):
            break
        pool = torch.from_numpy(candidates)
        distances = torch.addmm(squares, points[pool], points.T, alpha=-2).add_(squares[pool, None])
        for _ in range(min(len(candidates) // POOL, count - len(chosen))):
            trials = np.unique(_draw(nearest[candidates] / chances[candidates], TRIALS, random))
            if not len(trials):
                break
            potentials = np.minimum(distances.numpy()[trials], nearest).sum(axis=1)
            best = int(trials[potentials.argmin()])
            chosen.append(int(candidates[best]))
            latest = distances[best]
            unsure = torch.nonzero(latest <= NEAR * (squares + squares[chosen[-1]])).ravel()
            latest[unsure] = (points[unsure] - points[chosen[-1]]).square().sum(dim=1)
            np.minimum(nearest, latest.numpy(), out=nearest)
    return points[torch.tensor(chosen)]


def _draw(weights: Float[np.ndarray, " n"], size: int, random: np.random.Generator) -> Int64[np.ndarray, " k"]:
    """Draw places with replacement, each with a chance in proportion to its weight; none if all weights are zero."""
    upto = weights.cumsum(dtype=np.float64)
    if not upto[-1] > 0:
        return np.empty(0, dtype=np.int64)
    drawn = np.searchsorted(upto, random.random(size) * upto[-1], side="right")
    # A draw can be rounded up to the total; the last place with any weight is the one meant.
    return np.asarray(np.minimum(drawn, np.searchsorted(upto, upto[-1])))


def _best_start(
    points: Float[Tensor, "n d"],
    count: int,
    random: np.random.Generator,
    shift: Float[Tensor, " d"] | None,
    max_iter: int,
    tolerance: float,
) -> _Lloyd:
    starts = [
        _Lloyd(_seeds(points, count, random), count, shift) for _ in range(max(1, min(STARTS, STARTS_OF // count)))
    ]
    if len(starts) > 1:
        for start in starts:
            start.run(InMemory(points), max_iter, tolerance)
    return min(starts, key=lambda start: start.inertia)


class _Lloyd:
    """Lloyd's algorithm on one set of points after another, from where the last one stopped."""

    def __init__(self, seeds: Float[Tensor, "s d"], count: int, shift: Float[Tensor, " d"] | None) -> None:
        self.centroids = torch.zeros(count, seeds.shape[1])
        self.centroids[: len(seeds)] = seeds
        # Without a seed, a cluster waits for a row that is far from all others.
        self.alive = torch.arange(count) < len(seeds)
        self._shift = shift
        self.reseeded = 0
        self.converged = False
        self.inertia = float("inf")

    def run(self, points: InMemory | Points, max_iter: int, tolerance: float) -> int:
        """Pass over the points until a pass changes little; the number of passes."""
        count, width = self.centroids.shape
        members = np.full(points.n_rows, -1, dtype=np.int64)
        distances = torch.empty(points.n_rows)
        sums = np.zeros((count, width))
        self.inertia = float("inf")
        self.converged = refilled = False
        for number in range(1, max_iter + 1):
            moved = 0
            compare = _Comparison(self.centroids, self.alive)
            for start, chunk in points.chunks():
                stop = start + len(chunk)
                nearest, distances[start:stop] = compare(chunk)
                changed = np.flatnonzero(nearest != members[start:stop])
                if len(changed):
                    rows = chunk[torch.from_numpy(changed)].numpy().astype(np.float64)
                    sums += _change(members[start:stop][changed], nearest[changed], count) @ rows
                    members[start:stop] = nearest
                    moved += len(changed)
            filled = self._fill(points, members, distances, sums)
            self._centre(sums, np.bincount(members, minlength=count))
            before, self.inertia = self.inertia, float(distances.sum(dtype=torch.float64))
            # Rows that fill empty clusters deserve another pass, but not one after the other without any effect.
            settled = not filled or refilled
            if settled and (not moved or before - self.inertia <= tolerance * self.inertia):
                self.converged = True
                return number
            refilled = filled > 0
        return max_iter

    def _centre(self, sums: Float[np.ndarray, "k d"], counts: Int[np.ndarray, " k"]) -> None:
        held = torch.from_numpy(counts > 0)
        means = torch.from_numpy(sums)[held] / torch.from_numpy(counts)[held, None]
        if self._shift is not None:
            means = unit_rows(means + self._shift) - self._shift
        self.centroids[held] = means.float()
        self.alive |= held

    def _fill(
        self,
        points: InMemory | Points,
        members: Int[np.ndarray, " n"],
        distances: Float[Tensor, " n"],
        sums: Float[np.ndarray, "k d"],
    ) -> int:
        """Give each empty cluster the farthest row that is left; how many got one. Changes members and sums."""
        counts = np.bincount(members, minlength=len(sums))
        empty = np.flatnonzero(counts == 0)
        if not len(empty):
            return 0
        most = min(len(members), 16 * len(empty) + 1024)
        farthest = np.argsort(-distances.numpy(), kind="stable")[:most]
        ascending = np.argsort(farthest)
        rows = torch.empty(most, sums.shape[1])
        rows[torch.from_numpy(ascending)] = points.take(farthest[ascending])
        _, first = np.unique(rows.numpy(), axis=0, return_index=True)
        gaps = (rows - self.centroids[torch.from_numpy(members[farthest])]).square().sum(dim=1).numpy()
        lengths = rows.square().sum(dim=1).numpy() + (0.0 if self._shift is None else 1.0)
        filled = 0
        for place in np.sort(first):
            row, old = farthest[place], members[farthest[place]]
            if filled == len(empty):
                break
            if gaps[place] > LEAST_GAP * lengths[place] and counts[old] > 1:
                value = rows[place].numpy().astype(np.float64)
                sums[old] -= value
                sums[empty[filled]] = value
                counts[old] -= 1
                members[row] = empty[filled]
                filled += 1
        self.reseeded += filled
        return filled


class _Comparison:
    """Nearest of some centroids, by one product for each chunk of points."""

    def __init__(self, centroids: Float[Tensor, "k d"], alive: Tensor | None = None) -> None:
        self._across = centroids.T.contiguous()
        # The nearest centroid c of a point x is that of the largest x·c - |c|²/2.
        self._bias = -0.5 * centroids.square().sum(dim=1)
        if alive is not None:
            self._bias = torch.where(alive, self._bias, -torch.inf)
        self._products = torch.empty(CHUNK, len(centroids))

    def __call__(self, chunk: Float[Tensor, "n d"]) -> tuple[Int64[np.ndarray, " n"], Float[Tensor, " n"]]:
        products = torch.addmm(self._bias, chunk, self._across, out=self._products[: len(chunk)])
        nearest = products.numpy().argmax(axis=1)
        best = products.gather(1, torch.from_numpy(nearest)[:, None])[:, 0]
        return nearest, (chunk.square().sum(dim=1) - 2 * best).clamp_(min=0)


def _nearest(
    rows: RowSource, centroids: Float[Tensor, "k d"], metric: str
) -> Iterator[tuple[int, Int64[np.ndarray, " n"], Float[Tensor, " n"]]]:
    """Nearest centroid and squared distance of every row, the latter taken directly."""
    if metric == "cosine":
        centroids = unit_rows(centroids)
    shift = centroids.mean(dim=0)
    centroids = centroids - shift
    compare = _Comparison(centroids)
    for start, chunk in even_blocks(rows):
        points = (unit_rows(chunk) if metric == "cosine" else chunk) - shift
        nearest, _ = compare(points)
        yield start, nearest, (points - centroids[torch.from_numpy(nearest)]).square().sum(dim=1)


def _change(old: Int[np.ndarray, " n"], new: Int[np.ndarray, " n"], count: int) -> sp.csr_matrix:
    """Matrix that adds rows to their new clusters and takes them from their old ones (-1: none), [clusters, rows]."""
    number = np.arange(len(new))
    had = np.flatnonzero(old >= 0)
    values = np.concatenate([np.ones(len(new)), -np.ones(len(had))])
    places = (np.concatenate([new, old[had]]), np.concatenate([number, number[had]]))
    return sp.csr_matrix((values, places), shape=(count, len(new)))
