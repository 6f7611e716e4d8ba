"""Evidence within a sentence or among connected patches, against loops and flood fill over every threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superactivators.errors import StudyError
from superactivators.scores import segments
from superactivators.scores.layout import Layout
from superactivators.scores.segments import segment_evidence, with_evidence

quick = settings(derandomize=True, deadline=None, max_examples=80)


def groups_of_texts(layout: Layout, sample: int, passing: set[int]) -> list[set[int]]:
    assert layout.sentences is not None
    found: dict[int, set[int]] = {}
    for token in range(int(layout.offsets[sample]), int(layout.offsets[sample + 1])):
        if token in passing:
            found.setdefault(int(layout.sentences[token]), set()).add(token)
    return list(found.values())


def groups_of_images(layout: Layout, sample: int, passing: set[int]) -> list[set[int]]:
    """Flood fill over the patches that pass."""
    assert layout.grids is not None
    assert layout.cells is not None
    columns = int(layout.grids[sample, 1])
    own = range(int(layout.offsets[sample]), int(layout.offsets[sample + 1]))
    places = {divmod(int(layout.cells[token]), columns): token for token in own if token in passing}
    found = []
    while places:
        reached, waiting = set(), [next(iter(places))]
        while waiting:
            y, x = waiting.pop()
            if (y, x) in places:
                reached.add(places.pop((y, x)))
                waiting += [(y + down, x + right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
        found.append(reached)
    return found


def slow(values: np.ndarray, layout: Layout, wanted: int, threshold: float | None = None) -> np.ndarray:
    """Try every activation as the threshold; or, given one, mark the tokens in large enough groups."""
    groups = groups_of_texts if layout.sentences is not None else groups_of_images
    n = len(layout.offsets) - 1
    result = np.full((n, values.shape[1]), -np.inf) if threshold is None else np.zeros(values.shape, dtype=bool)
    for sample in range(n):
        own = range(int(layout.offsets[sample]), int(layout.offsets[sample + 1]))
        for c in range(values.shape[1]):
            tried = [float(values[token, c]) for token in own] if threshold is None else [threshold]
            for tau in tried:
                passing = {token for token in own if values[token, c] >= tau}
                large = [group for group in groups(layout, sample, passing) if len(group) >= wanted]
                if threshold is not None:
                    for group in large:
                        result[list(group), c] = True
                elif large:
                    result[sample, c] = max(result[sample, c], tau)
    return result


def texts(random: np.random.Generator, n: int) -> Layout:
    lengths = random.integers(0, 14, size=n)
    numbers = [np.cumsum(random.random(length) < 0.25) for length in lengths]
    return Layout(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        sentences=np.concatenate([np.empty(0, int), *numbers]).astype(np.int32),
    )


def images(random: np.random.Generator, n: int) -> Layout:
    """Grids of several shapes, some with cells that hold no token."""
    grids = random.integers(1, 6, size=(n, 2)).astype(np.int32)
    cells = [np.flatnonzero(random.random(int(rows * columns)) < 0.85) for rows, columns in grids]
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in cells])]).astype(np.int64)
    return Layout(offsets, grids=grids, cells=np.concatenate(cells).astype(np.int32))


@quick
@given(st.integers(0, 10**6), st.integers(1, 7), st.booleans(), st.sampled_from([1, 50, 2**22]))
def test_evidence_against_loops(seed: int, wanted: int, of_texts: bool, board: int) -> None:
    random = np.random.default_rng(seed)
    layout = texts(random, 6) if of_texts else images(random, 5)
    values = np.round(random.standard_normal((int(layout.offsets[-1]), 2)), 1).astype(np.float32)
    threshold = float(np.float32(round(float(random.normal(0, 0.8)), 1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "BOARD", board)
        found = segment_evidence(values, layout, wanted)
        kept = with_evidence(values >= threshold, layout, wanted)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, slow(values, layout, wanted))
    np.testing.assert_array_equal(kept, slow(values, layout, wanted, threshold))
    for sample in range(len(layout.offsets) - 1):
        own = kept[layout.offsets[sample] : layout.offsets[sample + 1]]
        np.testing.assert_array_equal(own.any(axis=0), found[sample] >= threshold)


@pytest.mark.parametrize("wanted", [2, 3, 4, 9])
def test_evidence_on_many_grids_against_loops(wanted: int) -> None:
    random = np.random.default_rng(wanted)
    n, rows, columns = 12, 7, 5
    cells = np.tile(np.arange(rows * columns, dtype=np.int32), n)
    layout = Layout(np.arange(n + 1) * rows * columns, grids=np.full((n, 2), (rows, columns), np.int32), cells=cells)
    values = random.standard_normal((len(cells), 3)).astype(np.float32)
    np.testing.assert_array_equal(segment_evidence(values, layout, wanted), slow(values, layout, wanted))


def test_a_ring_and_a_diagonal_are_connected_but_a_gap_is_not() -> None:
    ring = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 1, 0, 1], [0, 0, 0, 0, 0], [0, 1, 0, 1, 0]])
    diagonal = np.eye(5, dtype=int)
    layout = Layout(
        np.array([0, 25, 50]),
        grids=np.full((2, 2), 5, np.int32),
        cells=np.tile(np.arange(25, dtype=np.int32), 2),
    )
    passes = np.concatenate([ring.ravel(), diagonal.ravel()]).astype(bool)[:, None]
    values = passes.astype(np.float32)
    for wanted, expected in ((5, [1, 1]), (6, [1, 0]), (8, [1, 0]), (9, [0, 0]), (25, [0, 0])):
        assert segment_evidence(values, layout, wanted)[:, 0].tolist() == expected
    assert segment_evidence(values, layout, 26)[:, 0].tolist() == [-math.inf, -math.inf]
    kept = with_evidence(passes, layout, 4)[:, 0]
    assert kept[:25].reshape(5, 5)[:3, :3].sum() == 8
    assert kept[:25].sum() == 8
    assert kept[25:].sum() == 5


def test_one_token_is_the_maximum() -> None:
    random = np.random.default_rng(3)
    for layout in (texts(random, 9), images(random, 9)):
        values = random.standard_normal((int(layout.offsets[-1]), 2)).astype(np.float32)
        found = segment_evidence(values, layout, 1)
        for sample in range(9):
            own = values[layout.offsets[sample] : layout.offsets[sample + 1]]
            np.testing.assert_array_equal(found[sample], own.max(axis=0, initial=-np.inf))
        np.testing.assert_array_equal(with_evidence(values > 0, layout, 1), values > 0)


def test_samples_do_not_depend_on_their_neighbours() -> None:
    random = np.random.default_rng(4)
    for layout in (texts(random, 12), images(random, 12)):
        values = random.standard_normal((int(layout.offsets[-1]), 3)).astype(np.float32)
        for wanted in (2, 3, 5):
            usual = segment_evidence(values, layout, wanted)
            kept = with_evidence(values > 0.3, layout, wanted)
            for sample in range(12):
                own = slice(int(layout.offsets[sample]), int(layout.offsets[sample + 1]))
                alone = layout.block(sample, sample + 1)
                np.testing.assert_array_equal(segment_evidence(values[own], alone, wanted)[0], usual[sample])
                np.testing.assert_array_equal(with_evidence(values[own] > 0.3, alone, wanted), kept[own])


def test_no_evidence_of_no_tokens() -> None:
    random = np.random.default_rng(5)
    for layout in (texts(random, 3), images(random, 3)):
        values = np.zeros((int(layout.offsets[-1]), 1), dtype=np.float32)
        with pytest.raises(StudyError, match="min_tokens must be at least 1; got 0"):
            segment_evidence(values, layout, 0)
