"""Splits by group: nothing leaks, shares are kept, and every split has something in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superactivators.data.dataset import SPLITS, ConceptDataset, ImageSample, TextSample
from superactivators.data.splits import ensure_splits, make_splits
from superactivators.errors import DataError

quick = settings(derandomize=True, deadline=None, max_examples=60)


def texts(rows: list[tuple[str | None, str]], splits: list[str | None] | None = None) -> ConceptDataset:
    """Data set of (group, text) pairs."""
    given = splits or [None] * len(rows)
    samples = tuple(
        TextSample(f"s{number}", text, labels=frozenset({"x"}), split=split, group=group)
        for number, ((group, text), split) in enumerate(zip(rows, given, strict=True))
    )
    return ConceptDataset("made", ("x",), samples)


def families(rows: list[tuple[str | None, str]]) -> list[set[int]]:
    """Samples that must stay together, found by merging until nothing changes."""
    sets = [{number} for number in range(len(rows))]
    changed = True
    while changed:
        changed = False
        for first in sets:
            for second in sets:
                linked = any(
                    rows[a][1] == rows[b][1] or (rows[a][0] is not None and rows[a][0] == rows[b][0])
                    for a in first
                    for b in second
                )
                if first is not second and linked:
                    first |= second
                    sets.remove(second)
                    changed = True
                    break
            if changed:
                break
    return sets


rows_strategy = st.lists(
    st.tuples(st.none() | st.sampled_from(["g1", "g2", "g3", "g4"]), st.sampled_from([f"text {k}" for k in range(9)])),
    min_size=3,
    max_size=14,
)
fractions_strategy = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)).map(
    lambda parts: tuple(part / sum(parts) for part in parts)
)


@quick
@given(rows_strategy, fractions_strategy, st.integers(0, 20))
def test_nothing_leaks_and_every_split_is_filled(
    rows: list[tuple[str | None, str]], fractions: tuple[float, float, float], seed: int
) -> None:
    together = families(rows)
    if len(together) < 3:
        with pytest.raises(DataError, match="at least three are needed"):
            make_splits(texts(rows), fractions, seed)
        return
    made = make_splits(texts(rows), fractions, seed)
    assert made.ids == texts(rows).ids
    for family in together:
        assert len({made.samples[number].split for number in family}) == 1
    assert set(made.splits) == set(SPLITS)
    assert ensure_splits(made) is made


@quick
@given(st.integers(3, 400), fractions_strategy, st.integers(0, 20))
def test_shares_are_kept_to_one_sample(n: int, fractions: tuple[float, float, float], seed: int) -> None:
    made = make_splits(texts([(None, f"text {k}") for k in range(n)]), fractions, seed)
    for split, share in zip(SPLITS, fractions, strict=True):
        count = int((made.splits == split).sum())
        assert abs(count - share * n) <= 1 or count == 1 or n < 6


@pytest.mark.parametrize("sizes", [(98, 1, 1), (1, 98, 1), (50, 49, 1), (30, 30, 30), (1, 1, 1)])
def test_uneven_groups_fill_every_split_under_any_seed(sizes: tuple[int, ...]) -> None:
    rows = [(f"g{group}", f"text {group}-{k}") for group, size in enumerate(sizes) for k in range(size)]
    for seed in range(12):
        assert set(make_splits(texts(rows), seed=seed).splits) == set(SPLITS)


def test_the_seed_decides_and_the_defaults_are_a_half_and_two_quarters() -> None:
    dataset = texts([(None, f"text {k}") for k in range(200)])
    first, again, other = make_splits(dataset, seed=1), make_splits(dataset, seed=1), make_splits(dataset, seed=2)
    assert first.samples == again.samples
    assert (first.splits != other.splits).any()
    assert [int((first.splits == split).sum()) for split in SPLITS] == [100, 50, 50]
    assert make_splits(first, seed=2).samples == other.samples, "splits that are there are replaced"


def test_equal_image_files_stay_together() -> None:
    paths = [Path(f"{k % 5}.png") for k in range(20)]
    samples = tuple(ImageSample(str(k), path, labels=frozenset({"x"})) for k, path in enumerate(paths))
    made = make_splits(ConceptDataset("made", ("x",), samples))
    for k in range(5):
        assert len({sample.split for sample in made.samples[k::5]}) == 1
    pixels = tuple(ImageSample(str(k), np.zeros((2, 2, 3), np.uint8), labels=frozenset({"x"})) for k in range(6))
    assert set(make_splits(ConceptDataset("made", ("x",), pixels)).splits) == set(SPLITS)


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.0), (0.5, 0.3, 0.3), (1.2, -0.1, -0.1)])
def test_wrong_fractions(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(DataError, match="three positive numbers that sum to 1"):
        make_splits(texts([(None, f"text {k}") for k in range(9)]), fractions)


ROWS: list[tuple[str | None, str]] = [("a", "one"), ("b", "two"), (None, "three"), ("a", "four")]


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        (["train", None, "test", "cal"], r"1 of 4 samples have no split \(first: 's1'\)"),
        (["train", "train", "test", "train"], "has no cal samples"),
        (["cal", "test", "test", "cal"], "has no train samples"),
        (["train", "cal", "test", "test"], "group 'a' is in two splits.*'s0' in train, 's3' in test"),
    ],
)
def test_splits_that_cannot_be_used(splits: list[str | None], says: str) -> None:
    with pytest.raises(DataError, match=says):
        ensure_splits(texts(ROWS, splits))


def test_good_splits_are_kept_and_missing_ones_made() -> None:
    good = texts(ROWS, ["train", "cal", "test", "train"])
    assert ensure_splits(good) is good
    assert set(ensure_splits(texts(ROWS), seed=3).splits) == set(SPLITS)
