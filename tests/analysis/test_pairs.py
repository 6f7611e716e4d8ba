"""Cosines of token pairs: which samples and tokens, and their values, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import torch

from superactivators.analysis.pairs import cosines, nearest, read_rows, typical_hits


def test_cosines_equal_plain_loops() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32))
    rows[3] = 0
    found = cosines(rows)
    assert found.dtype == np.float32
    for i in range(7):
        for j in range(7):
            a, b = rows[i].tolist(), rows[j].tolist()
            lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
            expected = sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0
            assert abs(found[i, j] - expected) < 1e-6
    np.testing.assert_array_equal(found, found.T)
    assert np.abs(found).max() <= 1


def test_the_middle_hit_of_each_concept_comes_first_and_no_sample_twice() -> None:
    scores = np.array([[5, 1], [3, 2], [1, 3], [4, 9], [2, 0]], dtype=np.float32)
    hits = np.array([[1, 0], [1, 1], [1, 0], [1, 0], [1, 0]], dtype=bool)
    ids = list("abcde")
    # concept 0: scores 1..5, the middle one is that of sample 1; concept 1 has only that sample, which is taken
    assert typical_hits(scores, hits, ids, [0, 1], 3) == [(1, 0), (4, 0), (3, 0)]
    assert typical_hits(scores, hits, ids, [1, 0], 2) == [(1, 1), (4, 0)]
    assert typical_hits(scores, np.zeros_like(hits), ids, [0, 1]) == []
    assert len(typical_hits(scores, hits, ids, [0, 1], 9)) == 5


def test_order_of_samples_does_not_change_the_examples() -> None:
    generator = np.random.default_rng(4)
    scores = np.round(generator.random((30, 3)), 1).astype(np.float32)  # ties
    hits, ids = generator.random((30, 3)) < 0.5, [f"s{number:02d}" for number in range(30)]
    before = [(ids[row], c) for row, c in typical_hits(scores, hits, ids, [2, 0, 1])]
    order = generator.permutation(30)
    turned = [ids[row] for row in order]
    after = typical_hits(scores[order], hits[order], turned, [2, 0, 1])
    assert before == [(turned[row], c) for row, c in after]
    assert len(before) == 4
    assert [c for _, c in before[:3]] == [2, 0, 1]


def test_nearest_tokens_of_texts_are_a_stretch_and_of_images_a_patch() -> None:
    line = np.arange(10)[:, None]
    assert nearest(line, 5, 3).tolist() == [4, 5, 6]
    assert nearest(line, 0, 3).tolist() == [0, 1, 2]
    assert nearest(line, 9, 4).tolist() == [6, 7, 8, 9]
    assert nearest(line, 4, 99).tolist() == list(range(10))
    square = np.stack(np.divmod(np.arange(25), 5), axis=1)
    assert nearest(square, 12, 5).tolist() == [7, 11, 12, 13, 17]


class Blocks:
    """States in blocks, counting how many are read."""

    def __init__(self, matrix: torch.Tensor, size: int) -> None:
        self.matrix, self.size, self.read, self.width = matrix, size, 0, matrix.shape[1]
        self.sites, self.offsets, self.fingerprint = ("somewhere",), np.array([0, len(matrix)]), "f"
        self.has_sample_states = False

    def samples(self, site: str) -> torch.Tensor:
        raise NotImplementedError

    def blocks(self, site: str):
        for start in range(0, len(self.matrix), self.size):
            self.read += 1
            yield start, self.matrix[start : start + self.size].half()


def test_rows_are_the_same_whatever_the_blocks_and_reading_ends_early() -> None:
    matrix = torch.arange(60.0).reshape(20, 3)
    wanted = [np.array([9, 10, 2]), np.array([0, 11])]
    for size in (1, 4, 7, 50):
        values = Blocks(matrix, size)
        found = read_rows(values, "somewhere", wanted)
        for rows, group in zip(wanted, found, strict=True):
            assert group.dtype == torch.float32
            assert torch.equal(group, matrix[rows])
        assert values.read == 11 // size + 1
    untouched = Blocks(matrix, 4)
    assert read_rows(untouched, "somewhere", []) == []
    assert untouched.read == 0
