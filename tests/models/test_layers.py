"""Layers as users write them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superactivators.errors import StudyError
from superactivators.models.layers import block_at_percent, resolve_layers, site_name, site_place


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (0, [0]),
        (-1, [11]),
        (np.int64(3), [3]),
        ("-2", [10]),
        (0.5, [5]),
        (1.0, [11]),
        (1, [1]),
        ("1.0", [11]),
        ("50%", [5]),
        ("1%", [0]),
        ("all", range(12)),
        ("every:5", [1, 6, 11]),
        ("sweep:50-75", [5, 6, 7, 8]),
        ("block[7]", [7]),
        ("first", [0]),
        ("middle", [5]),
        ("last", [11]),
        ([11, "0", -1, 0.5], [0, 5, 11]),
        ("last, 0", [0, 11]),
    ],
)
def test_blocks(spec, expected):
    assert resolve_layers(spec, 12) == tuple(f"block[{number}]" for number in expected)


def test_sites_come_once_and_in_depth_order():
    assert resolve_layers(["final_norm", "last", -1, "embed"], 4) == ("embed", "block[3]", "final_norm")


@pytest.mark.parametrize(
    "spec", [12, -13, 1.5, 0.0, -0.5, "0%", "101%", "every:0", "sweep:80-20", "lst", "block[12]", "", [], True]
)
def test_nonsense_is_refused_on_one_line(spec):
    with pytest.raises(StudyError) as caught:
        resolve_layers(spec, 12)
    assert "\n" not in str(caught.value)


@given(st.integers(1, 100), st.integers(1, 200))
def test_percent_is_the_formula_in_exact_arithmetic(percent, n_blocks):
    exact = min(max(int(Fraction(percent, 100) * n_blocks) - 1, 0), n_blocks - 1)
    assert block_at_percent(percent, n_blocks) == exact


@given(st.integers(1, 60), st.data())
def test_names_and_places_are_inverse(n_blocks, data):
    place = data.draw(st.integers(-1, n_blocks))
    assert site_place(site_name(place, n_blocks), n_blocks) == place
