"""Statistics of activations inside and outside concepts, against scipy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from superactivators.analysis.separation import BINS, FAR, separation
from superactivators.analysis.sparsity import GRID, cumulative, shares


@pytest.fixture
def world() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    lengths = generator.integers(1, 9, 40)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens, concepts = int(offsets[-1]), 5
    activations = np.round(generator.standard_normal((tokens, concepts)), 1).astype(np.float32)  # many ties
    present = generator.random((40, concepts)) < 0.5
    owner = np.repeat(np.arange(40), lengths)
    inside = present[owner] & (generator.random((tokens, concepts)) < 0.6)
    activations[inside] += 0.7
    return {"activations": activations, "inside": inside, "outside": ~present[owner], "offsets": offsets}


def test_every_statistic_equals_a_slow_one(world) -> None:
    found = separation(**world)
    for c in range(5):
        inner = world["activations"][world["inside"][:, c], c].astype(np.float64)
        outer = world["activations"][world["outside"][:, c], c].astype(np.float64)
        truth = np.r_[np.ones(len(inner)), np.zeros(len(outer))]
        assert found.auroc[c] == pytest.approx(roc_auc_score(truth, np.r_[inner, outer]), abs=1e-12)
        pooled = np.sqrt(
            ((len(inner) - 1) * inner.var(ddof=1) + (len(outer) - 1) * outer.var(ddof=1))
            / (len(inner) + len(outer) - 2)
        )
        assert found.cohens_d[c] == pytest.approx((inner.mean() - outer.mean()) / pooled)
        assert found.skewness_in[c] == pytest.approx(stats.skew(inner))
        assert found.skewness_out[c] == pytest.approx(stats.skew(outer))
        far = np.quantile(outer, FAR)
        assert found.far[c] == pytest.approx(far, abs=1e-12)
        assert found.tail_mass[c] == pytest.approx((inner > far).mean())
        edges = np.linspace(min(inner.min(), outer.min()), max(inner.max(), outer.max()), BINS + 1)
        counts = [np.histogram(part, edges)[0] / len(part) for part in (inner, outer)]
        # a value on an edge may fall into either bin, so that a few of them can differ
        assert found.overlap[c] == pytest.approx(np.minimum(*counts).sum(), abs=0.06)
        positive = covered = 0
        for start, end in zip(world["offsets"][:-1], world["offsets"][1:], strict=True):
            own = world["inside"][start:end, c]
            positive += own.any()
            covered += (own & (world["activations"][start:end, c].astype(np.float64) > far)).any()
        assert found.coverage[c] == pytest.approx(covered / positive)


def test_tokens_that_do_not_count_change_nothing(world) -> None:
    before = separation(**world)
    neither = ~world["inside"] & ~world["outside"]
    assert neither.any()
    world["activations"][neither] = 50.0
    after = separation(**world)
    for name in ("overlap", "auroc", "cohens_d", "skewness_in", "far", "tail_mass", "coverage"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


def test_order_of_samples_and_concepts_does_not_matter(world) -> None:
    before = separation(**world)
    order = np.random.default_rng(0).permutation(5)
    turned = {name: world[name][:, order] for name in ("activations", "inside", "outside")}
    after = separation(**turned, offsets=world["offsets"])
    np.testing.assert_allclose(before.auroc[order], after.auroc)
    np.testing.assert_array_equal(before.coverage[order], after.coverage)


def test_a_concept_without_tokens_or_without_negatives_is_nan(world) -> None:
    world["inside"][:, 0] = False
    world["outside"][:, 1] = False
    found = separation(**world)
    for name in ("overlap", "auroc", "cohens_d", "tail_mass", "coverage"):
        assert np.isnan(getattr(found, name)[:2]).all()
        assert np.isfinite(getattr(found, name)[2:]).all()


def test_shares_and_their_distribution(world) -> None:
    fired = world["activations"] > 0.9
    found = shares(fired, world["inside"], world["offsets"])
    for row, (start, end) in enumerate(zip(world["offsets"][:-1], world["offsets"][1:], strict=True)):
        for c in range(5):
            own = np.flatnonzero(world["inside"][start:end, c])
            if len(own) == 0:
                assert np.isnan(found[row, c])
            else:
                assert found[row, c] == fired[start:end, c][own].sum() / len(own)
    curve = cumulative(found)
    for c in range(5):
        held = found[~np.isnan(found[:, c]), c]
        for place, edge in enumerate(GRID):
            assert curve[place, c] == sum(value <= edge for value in held) / len(held)
    assert (np.diff(curve, axis=0) >= 0).all()
    np.testing.assert_array_equal(curve[-1], 1)
    assert np.isnan(cumulative(np.full((3, 1), np.nan))).all()
