"""Gaps of token pairs and growth from site to site, against plain loops."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from superactivators.analysis.separation import separation
from superactivators.errors import DataError
from superactivators.mechanism.growth import growth_rows, growth_table, pair_gaps


def world(seed: int, n: int = 12, concepts: int = 3) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 9, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    activations = np.round(generator.normal(40, 3, (offsets[-1], concepts)), 1).astype(np.float32)  # with ties
    return {"activations": activations, "inside": generator.random(activations.shape) < 0.4, "offsets": offsets}


def slow(activations: np.ndarray, inside: np.ndarray, offsets: np.ndarray, which: str) -> np.ndarray:
    wanted = {"every": (0, 1, 2), "inside": (2,), "outside": (0,), "across": (1,)}[which]
    result = np.full((len(offsets) - 1, activations.shape[1]), np.nan)
    for sample in range(len(offsets) - 1):
        for c in range(activations.shape[1]):
            gaps = [
                abs(float(activations[i, c]) - float(activations[j, c]))
                for i, j in combinations(range(offsets[sample], offsets[sample + 1]), 2)
                if int(inside[i, c]) + int(inside[j, c]) in wanted
            ]
            if gaps:
                result[sample, c] = np.mean(gaps)
    return result


@pytest.mark.parametrize("which", ["every", "inside", "outside", "across"])
@pytest.mark.parametrize("seed", range(4))
def test_gaps_equal_those_of_a_loop_over_pairs(which: str, seed: int) -> None:
    given_ = world(seed)
    expected = slow(**given_, which=which)
    assert np.isfinite(expected).any()
    assert np.isnan(expected).any()
    np.testing.assert_allclose(getattr(pair_gaps(**given_), which), expected, atol=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_order_shift_and_scale(seed: int) -> None:
    given_ = world(seed)
    generator = np.random.default_rng(seed)
    turned = np.concatenate(
        [
            generator.permutation(np.arange(a, b))
            for a, b in zip(given_["offsets"][:-1], given_["offsets"][1:], strict=True)
        ]
    ).astype(int)
    before = pair_gaps(**given_)
    after = pair_gaps(
        -2 * given_["activations"][turned].astype(np.float64) + 5, given_["inside"][turned], given_["offsets"]
    )
    for name in ("every", "inside", "outside", "across"):
        np.testing.assert_allclose(2 * getattr(before, name), getattr(after, name), atol=1e-9)


def test_a_sample_does_not_see_the_others() -> None:
    given_ = world(5)
    whole = pair_gaps(**given_).across
    for sample, (begin, end) in enumerate(zip(given_["offsets"][:-1], given_["offsets"][1:], strict=True)):
        alone = pair_gaps(given_["activations"][begin:end], given_["inside"][begin:end], np.array([0, end - begin]))
        np.testing.assert_allclose(alone.across[0], whole[sample], atol=1e-12)


def test_offsets_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="offsets"):
        pair_gaps(np.zeros((3, 1)), np.zeros((3, 1), bool), np.array([0, 2]))


def test_rows_of_a_site() -> None:
    given_ = world(7, n=30)
    owner = np.repeat(np.arange(30), np.diff(given_["offsets"]))
    present = np.random.default_rng(0).random((30, 3)) < 0.5
    inside = given_["inside"] & present[owner]
    lengths = np.random.default_rng(1).random(len(owner)).astype(np.float32)
    rows = growth_rows(
        "block[1]", "own", ("a", "b", "c"), given_["activations"], lengths, inside, present, given_["offsets"]
    )
    apart = separation(given_["activations"], inside, ~present[owner], given_["offsets"])
    every = slow(given_["activations"], inside, given_["offsets"], "every")
    across = slow(given_["activations"], inside, given_["offsets"], "across")
    for c, row in enumerate(rows):
        assert (row["concept"], row["site"], row["vector"]) == ("abc"[c], "block[1]", "own")
        assert row["gap"] == pytest.approx(np.nanmean(every[:, c]))
        assert row["gap_across"] == pytest.approx(np.nanmean(across[present[:, c], c]))
        assert row["gap_absent"] == pytest.approx(np.nanmean(every[~present[:, c], c]))
        assert row["skewness"] == pytest.approx(stats.skew(given_["activations"][:, c].astype(np.float64)))
        assert row["tail_mass"] == pytest.approx(apart.tail_mass[c])
        assert row["n_in"] == inside[:, c].sum()
        assert row["n_out"] == (~present[owner, c]).sum()
        assert row["length"] == pytest.approx(lengths.mean())


def test_growth_is_the_gap_over_that_of_the_site_before() -> None:
    rows = [
        {"site": site, "vector": vector, "concept": "a", "gap": gap}
        for site, vector, gap in (("embed", "fixed", 2.0), ("block[0]", "fixed", 3.0), ("block[0]", "own", 7.0))
    ]
    found = growth_table([*rows, {"site": "block[1]", "vector": "fixed", "concept": "a", "gap": 1.5}])
    assert found["growth"].to_pylist()[1::2] == [1.5, 0.5]
    assert np.isnan(found["growth"].to_numpy()[[0, 2]]).all()
