"""Numbers and text on their way into a page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superactivators.report.json_values import embeddable, plain


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=64), max_size=8))
def test_numbers_are_close_or_missing(values: list[float]) -> None:
    for given_value, kept in zip(values, plain(np.array(values, dtype=np.float64)), strict=True):
        if not np.isfinite(given_value):
            assert kept is None
        elif abs(given_value) > 1e-270:
            assert kept == pytest.approx(given_value, rel=6e-4, abs=0) or abs(given_value) > 1e270


def test_containers_keep_their_shape() -> None:
    value = {1: (np.float32(0.123456), np.int64(7)), "x": [np.array([[1.0, np.nan]]), None, True, np.bool_(False)]}
    assert plain(value) == {"1": [0.1235, 7], "x": [[[1.0, None]], None, True, False]}


def test_whole_numbers_are_not_rounded() -> None:
    assert plain(np.array([123456, 7])) == [123456, 7]
    assert plain(123456) == 123456


def test_unknown_things_become_text() -> None:
    assert plain({"path": complex(1, 2)}) == {"path": "(1+2j)"}


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--", "]]>", "a\u2028b\u2029", "&lt;", "\ud800", "{{main}}", "😀"]
)
def test_embedded_json_round_trips_and_cannot_end_its_element(text: str) -> None:
    written = embeddable({text: [text]})
    assert json.loads(written) == {text: [text]}
    assert not set("<>&\u2028\u2029") & set(written)
    assert written.isascii()


def test_numbers_that_json_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        embeddable({"value": float("nan")})
