"""Evidence within one segment: several tokens of one sentence, or several connected patches.

Patches are connected if they touch at a side or a corner (8-neighbourhood) on the patch grid of their image.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import ndimage

from superactivators.errors import StudyError
from superactivators.ragged import offsets_of, rows_of, segment_ids, segment_kth, segment_max
from superactivators.scores.layout import Layout

BOARD = 2**22
"""Most numbers on the grids that are worked on together (the grids of one image may hold more)."""

NEIGHBOURS = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0))
TOUCHING = np.stack([np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])
"""Stacked grids: cells touch within a grid, never between grids."""


def token_evidence(
    activations: Float[np.ndarray, "tokens c"],
    offsets: Int[np.ndarray, " n_plus_1"],
    min_tokens: int,
    layout: Layout | None = None,
) -> Float[np.ndarray, "n c"]:
    """Find the highest threshold that ``min_tokens`` tokens of a sample reach; with a layout, of one segment of it."""
    if layout is None:
        return segment_kth(activations, offsets, min_tokens)
    return segment_evidence(activations, layout, min_tokens)


def segment_evidence(
    activations: Float[np.ndarray, "tokens c"], layout: Layout, min_tokens: int
) -> Float[np.ndarray, "n c"]:
    """Find the highest threshold that ``min_tokens`` tokens of one sentence, or connected patches, reach.

    Parameters
    ----------
    activations : float array of shape (tokens, concepts)
    layout : Layout
        Of the same tokens.
    min_tokens : int
        At least 1; with 1 this is the maximum.

    Returns
    -------
    float array of shape (samples, concepts)
        A segment of the sample has ``min_tokens`` tokens at or above a threshold exactly if this value is at or above
        it. Minus infinity where no segment has so many tokens.

    Raises
    ------
    StudyError
        If ``min_tokens`` is less than 1.
    """
    if min_tokens < 1:
        raise StudyError(f"min_tokens must be at least 1; got {min_tokens}")
    if min_tokens == 1:
        return segment_max(activations, layout.offsets)
    if layout.sentences is not None:
        sentences = layout.sentence_offsets()
        within = segment_kth(activations, sentences, min_tokens)
        return segment_max(within, np.searchsorted(sentences, layout.offsets).astype(np.int64))
    result = np.full((len(layout.offsets) - 1, activations.shape[1]), -np.inf, dtype=activations.dtype)
    for samples, rows, places in _boards(layout, activations.shape[1]):
        board = _laid_out(activations[rows], places, len(samples), -np.inf)
        result[samples] = _few(board, min_tokens) if min_tokens <= 3 else _many(board, min_tokens)
    return result


def with_evidence(
    passes: Bool[np.ndarray, "tokens c"], layout: Layout, min_tokens: int
) -> Bool[np.ndarray, "tokens c"]:
    """Keep the passing tokens whose sentence, or group of connected patches, has ``min_tokens`` of them.

    Parameters
    ----------
    passes : bool array of shape (tokens, concepts)
        Whether each token reaches the threshold.
    layout : Layout
        Of the same tokens.
    min_tokens : int

    Returns
    -------
    bool array of shape (tokens, concepts)
        True somewhere in a sample exactly if its `segment_evidence` reaches the threshold.
    """
    if layout.sentences is not None:
        sentences = layout.sentence_offsets()
        sentence = np.repeat(np.arange(len(sentences) - 1), np.diff(sentences))
        running = np.concatenate([np.zeros((1, passes.shape[1]), np.int64), np.cumsum(passes, axis=0, dtype=np.int64)])
        counts = running[sentences[1:]] - running[sentences[:-1]]
        return np.asarray(passes & (counts >= min_tokens)[sentence])
    result = np.zeros_like(passes)
    for samples, rows, places in _boards(layout, passes.shape[1]):
        marked = _laid_out(passes[rows], places, len(samples), False)[:, 1:-1, 1:-1]
        large = _large_groups(np.moveaxis(marked, 3, 1), min_tokens)
        sample, y, x = places
        result[rows] = large[sample, :, y - 1, x - 1]
    return result


def _boards(
    layout: Layout, columns: int
) -> Iterator[tuple[Int[np.ndarray, " m"], Int[np.ndarray, " rows"], tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Yield images of similar grids: their numbers, their tokens, and each token's image, row and column.

    Rows and columns count from 1, since a board has a border.
    """
    assert layout.grids is not None and layout.cells is not None  # noqa: S101, PT018  # a layout without sentences
    order = np.lexsort((layout.grids[:, 1], layout.grids[:, 0]))
    largest = int(np.prod(layout.grids.max(axis=0, initial=1), dtype=np.int64))
    step = max(1, BOARD // (largest * max(1, columns)))
    for start in range(0, len(order), step):
        samples = order[start : start + step]
        rows = rows_of(layout.offsets, samples)
        image = segment_ids(offsets_of(np.diff(layout.offsets)[samples]))
        y, x = np.divmod(layout.cells[rows].astype(np.int64), layout.grids[samples, 1].astype(np.int64)[image])
        yield samples, rows, (image, y + 1, x + 1)


def _laid_out(
    values: Shaped[np.ndarray, "rows c"], places: tuple[np.ndarray, np.ndarray, np.ndarray], images: int, empty: float
) -> Shaped[np.ndarray, "m y x c"]:
    """Lay tokens out on boards with a border; border and cells without a token are ``empty``."""
    image, y, x = places
    size = (images, int(y.max(initial=0)) + 2, int(x.max(initial=0)) + 2, values.shape[1])
    board = np.full(size, empty, dtype=values.dtype)
    board[image, y, x] = values
    return board


def _few(board: Float[np.ndarray, "m y x c"], wanted: int) -> Float[np.ndarray, "m c"]:
    """Two or three connected cells: a cell with its best neighbour, or with its best two.

    Three connected cells always have one that touches both others.
    """
    centre = board[:, 1:-1, 1:-1]
    best, second = np.full_like(centre, -np.inf), np.full_like(centre, -np.inf)
    height, width = centre.shape[1:3]
    for down, right in NEIGHBOURS:
        other = board[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]
        np.maximum(second, np.minimum(best, other), out=second)
        np.maximum(best, other, out=best)
    return np.asarray(np.minimum(centre, best if wanted == 2 else second).max(axis=(1, 2), initial=-np.inf))


def _many(board: Float[np.ndarray, "m y x c"], wanted: int) -> Float[np.ndarray, "m c"]:
    """Any number of connected cells: bisection over the sorted activations of each grid."""
    images, columns = board.shape[0], board.shape[3]
    grids = np.ascontiguousarray(np.moveaxis(board[:, 1:-1, 1:-1], 3, 1)).reshape(-1, *_inside(board))
    ranked = -np.sort(-grids.reshape(len(grids), -1), axis=1)
    held = np.isfinite(ranked).sum(axis=1)
    result = np.full(len(grids), -np.inf, dtype=board.dtype)
    # The answer is the activation of rank low; rank held stands for none.
    low, high = np.minimum(wanted - 1, held), held.copy()
    while len(open_ := np.flatnonzero(low < high)):
        middle = (low[open_] + high[open_]) // 2
        passes = grids[open_] >= ranked[open_, middle][:, None, None]
        found = _large_groups(passes, wanted).any(axis=(1, 2))
        high[open_[found]] = middle[found]
        low[open_[~found]] = middle[~found] + 1
    some = np.flatnonzero(low < held)
    result[some] = ranked[some, low[some]]
    return result.reshape(images, columns)


def _inside(board: np.ndarray) -> tuple[int, int]:
    return board.shape[1] - 2, board.shape[2] - 2


def _large_groups(passes: Bool[np.ndarray, "*g y x"], wanted: int) -> Bool[np.ndarray, "*g y x"]:
    """Cells of each grid in a connected group of at least ``wanted`` cells."""
    stacked = passes.reshape(-1, *passes.shape[-2:])
    groups, _ = ndimage.label(stacked, TOUCHING)
    sizes = np.bincount(groups.ravel(), minlength=1)
    sizes[0] = 0
    return np.asarray((sizes >= wanted)[groups].reshape(passes.shape))
