"""The sub-sample is small, unbiased and holds what is rare."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from superactivators.concepts.subsample import draw_rows


def test_sub_sample_is_unbiased_and_holds_both_classes():
    rng = np.random.default_rng(1)
    Y = rng.random((60_000, 5)) < np.array([0.3, 0.001, 0.97, 0.0, 2.0])
    Y[rng.choice(len(Y), 3, replace=False), 3] = True
    Y[rng.choice(len(Y), 5, replace=False), 4] = False
    labels = sp.csr_matrix(Y)
    sizes, estimates = [], []
    for seed in range(20):
        rows, weights = draw_rows(labels, 4000, seed)
        chosen = Y[rows]
        assert (chosen.any(axis=0) & ~chosen.all(axis=0)).all()
        assert (np.diff(rows) > 0).all()
        sizes.append(len(rows))
        estimates.append(np.append((weights[:, None] * chosen).sum(axis=0), weights.sum()))
    assert max(sizes) < len(Y) / 2
    np.testing.assert_allclose(np.mean(estimates, axis=0), np.append(Y.sum(axis=0), len(Y)), rtol=0.01)


def test_sub_sample_of_many_concepts_stays_small():
    n, c = 20_000, 200
    member = np.random.default_rng(9).integers(0, c, n)
    labels = sp.csr_matrix((np.ones(n, dtype=bool), (np.arange(n), member)), shape=(n, c))
    rows, _ = draw_rows(labels, 2000, 0)
    assert len(rows) < 3.2 * 2000
    assert len(np.unique(member[rows])) == c
