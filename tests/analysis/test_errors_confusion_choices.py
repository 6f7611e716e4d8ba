"""Errors against size and length, confusions and choices, against plain loops."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from superactivators.analysis.choices import choice_counts, curve_columns, together
from superactivators.analysis.confusion import confusion
from superactivators.analysis.errors import fifths, median_size, rates_by_length, recall_by_size, token_shares
from superactivators.analysis.results import SCHEMAS, table_of
from superactivators.ragged import offsets_of

N, C = 60, 4


def world(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(0, 12, N)
    offsets = offsets_of(lengths)
    present = generator.random((N, C)) < 0.4
    owner = np.repeat(np.arange(N), lengths)
    inside = present[owner] & (generator.random((len(owner), C)) < 0.3)
    fired = generator.random((N, C)) < 0.5
    return {"offsets": offsets, "present": present, "inside": inside, "fired": fired, "lengths": lengths}


def slow_shares(w: dict[str, np.ndarray]) -> np.ndarray:
    expected = np.full((N, C), np.nan)
    for i in range(N):
        own = w["inside"][w["offsets"][i] : w["offsets"][i + 1]]
        for c in range(C):
            carried = sum(own[:, c].tolist())
            if w["present"][i, c] and carried:
                expected[i, c] = carried / len(own)
    return expected


@given(seed=st.integers(0, 500))
def test_sizes_equal_plain_loops(seed: int) -> None:
    w = world(seed)
    found = token_shares(sp.csr_matrix(w["inside"]), w["offsets"], w["present"])
    np.testing.assert_array_equal(found, slow_shares(w))
    for c, median in enumerate(median_size(found).tolist()):
        held = [value for value in found[:, c].tolist() if not math.isnan(value)]
        assert median == pytest.approx(statistics.median(held))


def test_sizes_of_absent_concepts_and_of_none() -> None:
    w = world(0)
    w["present"][:, 1] = False
    found = token_shares(sp.csr_matrix(w["inside"]), w["offsets"], w["present"])
    assert np.isnan(found[:, 1]).all()
    assert np.isnan(median_size(found)[1])
    assert np.isfinite(median_size(found)[[0, 2, 3]]).all()
    assert np.isnan(median_size(np.empty((0, 2)))).all()


@given(values=st.lists(st.integers(0, 9), min_size=1, max_size=40), bins=st.integers(1, 6))
def test_bins_hold_about_equally_many_and_do_not_overlap(values: list[int], bins: int) -> None:
    place, low, high = fifths(np.array(values), bins)
    assert len(low) == len(high) <= bins
    for number in range(len(low)):
        held = [value for value, where in zip(values, place.tolist(), strict=True) if where == number]
        assert (min(held), max(held)) == (low[number], high[number])
    assert all(high[k] < low[k + 1] for k in range(len(low) - 1))
    if len(set(values)) == len(values) >= bins:
        sizes = np.bincount(place)
        assert sizes.max() - sizes.min() <= 1


@given(seed=st.integers(0, 500))
def test_recall_by_size_equals_plain_loops(seed: int) -> None:
    w = world(seed)
    sizes = slow_shares(w)
    found = recall_by_size(sizes, w["fired"])
    pairs = [(sizes[i, c], bool(w["fired"][i, c])) for i in range(N) for c in range(C) if not np.isnan(sizes[i, c])]
    assert sum(found["n"]) == len(pairs)
    for low, high, n, recall in zip(*(found[name] for name in ("low", "high", "n", "recall")), strict=True):
        held = [hit for size, hit in pairs if low <= size <= high]
        assert n == len(held)
        assert recall == pytest.approx(sum(held) / len(held))


@given(seed=st.integers(0, 500))
def test_rates_by_length_equal_plain_loops(seed: int) -> None:
    w = world(seed)
    found = rates_by_length(w["lengths"], w["fired"], w["present"])
    assert sum(found["n"]) == N
    for k, (low, high) in enumerate(zip(found["low"], found["high"], strict=True)):
        rows = [i for i in range(N) if low <= w["lengths"][i] <= high]
        assert found["n"][k] == len(rows)
        for name, present in (("recall", True), ("fpr", False)):
            held = [bool(w["fired"][i, c]) for i in rows for c in range(C) if w["present"][i, c] == present]
            assert found[name][k] == pytest.approx(sum(held) / len(held))


def test_rates_are_missing_without_pairs() -> None:
    lengths, fired = np.array([1, 1, 9, 9]), np.ones((4, 1), dtype=bool)
    found = rates_by_length(lengths, fired, np.array([[True], [True], [False], [False]]))
    assert found["recall"].tolist()[0] == 1
    assert math.isnan(found["recall"][1])
    assert math.isnan(found["fpr"][0])
    assert table_of("lengths", [{"kind": "x", **found}])["recall"].to_pylist() == [1.0, None]
    nothing = recall_by_size(np.full((3, 2), np.nan), np.ones((3, 2), dtype=bool))
    assert table_of("sizes", [{"kind": "x", **nothing}]).num_rows == 0


@given(seed=st.integers(0, 500))
def test_confusion_equals_plain_loops(seed: int) -> None:
    w = world(seed)
    present, fired = w["present"], w["fired"]
    present[:, 3] = True  # never absent: it can be no false alarm
    found = table_of("confusion", [{"kind": "x", **confusion(fired, present, list("abcd"))}]).to_pylist()
    expected = []
    for a in range(C):
        for b in range(C):
            rows = [i for i in range(N) if present[i, a] and not present[i, b]]
            if a == b or not rows:
                continue
            without = [i for i in range(N) if not present[i, b]]
            hits = sum(bool(fired[i, b]) for i in rows)
            expected.append(
                {
                    "kind": "x",
                    "present": "abcd"[a],
                    "absent": "abcd"[b],
                    "n": len(rows),
                    "fired": hits,
                    "rate": pytest.approx(hits / len(rows)),
                    "base": pytest.approx(sum(bool(fired[i, b]) for i in without) / len(without)),
                }
            )
    assert found == expected
    assert "d" not in [row["absent"] for row in found]


@given(seed=st.integers(0, 100))
def test_order_of_samples_does_not_matter(seed: int) -> None:
    w = world(seed)
    order = np.random.default_rng(seed + 1).permutation(N)
    sizes = slow_shares(w)
    for one, other in (
        (recall_by_size(sizes, w["fired"]), recall_by_size(sizes[order], w["fired"][order])),
        (
            rates_by_length(w["lengths"], w["fired"], w["present"]),
            rates_by_length(w["lengths"][order], w["fired"][order], w["present"][order]),
        ),
        (
            confusion(w["fired"], w["present"], list("abcd")),
            confusion(w["fired"][order], w["present"][order], list("abcd")),
        ),
    ):
        for name in one:
            np.testing.assert_array_equal(np.asarray(one[name]), np.asarray(other[name]))


def curves(seed: int) -> pa.Table:
    generator = np.random.default_rng(seed)
    rows = [
        {"site": site, "delta": delta, "concept": concept, "f1": float(generator.random())}
        for site in ("early", "late")
        for delta in (0.1, 0.5)
        for concept in ("a", "b", "c")
    ]
    return pa.Table.from_pylist(rows)


def test_one_level_for_all_concepts_is_the_mean_weighted_by_positives() -> None:
    table, positives = curves(0), np.array([1, 5, 2])
    found = together(table, ["a", "b", "c"], positives)
    assert list(found) == [("early", 0.1), ("early", 0.5), ("late", 0.1), ("late", 0.5)]
    for (site, delta), value in found.items():
        total = weight = 0.0
        for row in table.to_pylist():
            if (row["site"], row["delta"]) == (site, delta):
                own = float(positives["abc".index(row["concept"])])
                total, weight = total + own * row["f1"], weight + own
        assert value == pytest.approx(total / weight)
    shuffled = together(table.take(np.random.default_rng(1).permutation(12)), ["a", "b", "c"], positives)
    assert shuffled == pytest.approx(found)
    columns = table_of("deltas", [{"kind": "x", **curve_columns(found, {**found, ("late", 0.5): 0.25})}])
    assert columns["test"].to_pylist()[-1] == 0.25
    assert columns["cal"].to_pylist() == list(found.values())


def test_choices_are_counted_and_what_nobody_chose_is_listed() -> None:
    found = choice_counts([0.5, None, 0.1, 0.5], [0.1, 0.2, 0.5], "delta")
    assert found == {"delta": [0.1, 0.2, 0.5], "concepts": [1, 0, 2]}
    assert choice_counts(["late"], ["early"], "site") == {"site": ["early", "late"], "concepts": [0, 1]}


def test_every_table_has_its_columns_without_rows() -> None:
    for name, columns in SCHEMAS.items():
        assert table_of(name, []).column_names == list(columns)
