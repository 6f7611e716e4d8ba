"""Every pooling against loops, and the seeded draw of one token."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superactivators.errors import StudyError
from superactivators.scores.layout import Layout
from superactivators.scores.pooling import MIN_TOKENS, PoolBlock, pools


def draw(seed: int, n: int, concepts: int = 3) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, 9, size=n))])
    values = np.round(3 * random.standard_normal((offsets[-1], concepts)), 1).astype(np.float32)
    return values, offsets, [f"s{seed}-{number}" for number in range(n)]


def drawn_of(values: np.ndarray, offsets: np.ndarray, ids: list[str], seed: int) -> np.ndarray:
    return pools["random"](PoolBlock(values, offsets, ids, seed))


def sentences(offsets: np.ndarray) -> Layout:
    """Two sentences in every sample."""
    numbers = [number >= length // 2 for length in np.diff(offsets).tolist() for number in range(length)]
    return Layout(offsets, sentences=np.array(numbers, dtype=np.int32))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 15), min_tokens=st.integers(1, 5))
def test_pools_against_loops(seed: int, n: int, min_tokens: int) -> None:
    values, offsets, ids = draw(seed, n)
    block = PoolBlock(values, offsets, ids, 7, sentences(offsets), min_tokens)
    found = {name: pools[name](block) for name in pools}
    assert set(found) == {"max", "mean", "last", "random", "top-k-mean", "top-share-mean", "kth", "segment"}
    for i in range(n):
        for c in range(3):
            own = values[offsets[i] : offsets[i + 1], c].tolist()
            assert found["max"][i, c] == max(own)
            assert found["mean"][i, c] == pytest.approx(math.fsum(own) / len(own), abs=1e-6)
            assert found["last"][i, c] == own[-1]
            assert found["random"][i, c] in own
            ordered = sorted(own, reverse=True)
            assert found["top-k-mean"][i, c] == pytest.approx(math.fsum(ordered[:5]) / len(ordered[:5]), abs=1e-6)
            kept = math.ceil(Fraction(len(own), 10))
            assert found["top-share-mean"][i, c] == pytest.approx(math.fsum(ordered[:kept]) / kept, abs=1e-6)
            kth = [value for value in own if sum(other >= value for other in own) >= min_tokens]
            assert found["kth"][i, c] == max(kth, default=-math.inf)
            halves = own[: len(own) // 2], own[len(own) // 2 :]
            best = [value for half in halves for value in half if sum(other >= value for other in half) >= min_tokens]
            assert found["segment"][i, c] == max(best, default=-math.inf)
    for pooled in found.values():
        assert pooled.shape == (n, 3)
        assert pooled.dtype == np.float32


def test_the_drawn_token_is_the_same_one_for_all_concepts() -> None:
    _, offsets, ids = draw(0, 200)
    marked = np.repeat(np.arange(offsets[-1], dtype=np.float32)[:, None], 4, axis=1)
    drawn = drawn_of(marked, offsets, ids, 0)
    assert (drawn == drawn[:, :1]).all()
    assert ((drawn[:, 0] >= offsets[:-1]) & (drawn[:, 0] < offsets[1:])).all()


def test_the_drawn_token_depends_on_seed_and_id_only() -> None:
    values, offsets, ids = draw(1, 60)
    usual = drawn_of(values, offsets, ids, 3)
    for i in range(60):
        own = values[offsets[i] : offsets[i + 1]]
        alone = drawn_of(own, np.array([0, len(own)]), [ids[i]], 3)
        np.testing.assert_array_equal(alone[0], usual[i])
    positions = np.arange(offsets[-1], dtype=np.float32)[:, None]
    assert (
        pools["random"](PoolBlock(positions, offsets, ids, 3)) != pools["random"](PoolBlock(positions, offsets, ids, 4))
    ).any()
    renamed = [f"{name}x" for name in ids]
    assert (
        pools["random"](PoolBlock(positions, offsets, ids, 3))
        != pools["random"](PoolBlock(positions, offsets, renamed, 3))
    ).any()


def test_every_token_is_drawn_equally_often() -> None:
    n = 6000
    offsets = np.arange(0, 4 * n + 1, 4)
    positions = np.tile(np.arange(4, dtype=np.float32), n)[:, None]
    counts = Counter(drawn_of(positions, offsets, [str(i) for i in range(n)], 0)[:, 0].tolist())
    assert sorted(counts) == [0, 1, 2, 3]
    for count in counts.values():  # five standard deviations
        assert abs(count - n / 4) < 5 * math.sqrt(n * 0.25 * 0.75)


def test_means_of_many_single_precision_numbers_keep_their_digits() -> None:
    values = np.concatenate([np.full((1, 1), 1e8), np.full((200_000, 1), 1.0), np.full((1, 1), -1e8)])
    found = pools["mean"](PoolBlock(values.astype(np.float32), np.array([0, len(values)]), ["x"]))
    assert found[0, 0] == pytest.approx(200_000 / 200_002, rel=1e-6)


def test_an_unknown_pooling_names_the_known_ones() -> None:
    with pytest.raises(StudyError, match="unknown pooling 'maximum'; did you mean 'max'"):
        pools["maximum"]


def test_segments_need_a_layout() -> None:
    values, offsets, ids = draw(2, 5)
    with pytest.raises(StudyError, match=r"got no layout; pass layout=Layout.of") as caught:
        pools["segment"](PoolBlock(values, offsets, ids))
    assert "\n" not in str(caught.value)
    for name in set(pools) - {"segment"}:
        assert pools[name](PoolBlock(values, offsets, ids)).shape == (5, 3)


def test_evidence_is_of_three_tokens_by_default() -> None:
    values = np.array([[3.0], [2.0], [1.0], [0.0]], dtype=np.float32)
    assert MIN_TOKENS == 3
    assert pools["kth"](PoolBlock(values, np.array([0, 4]), ["x"]))[0, 0] == 1
