"""A threshold decides exactly, refuses the splits it knows, and survives being written down."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from superactivators.detection.thresholds import Threshold
from superactivators.errors import CalibrationError


def threshold(value: float = 0.5, **other: object) -> Threshold:
    fields = {"delta": 0.1, "concept": "c", "kind": "mean", "method": "superactivators", "site": "block[0]", "n": 7}
    return Threshold(value=value, **{**fields, **other})  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["cal", "train"])
def test_splits_that_something_was_fitted_on_are_refused_unless_asked_for(split: str) -> None:
    scores = np.array([0.4, 0.5, 0.6], dtype=np.float32)
    with pytest.raises(CalibrationError, match="in_sample=True") as caught:
        threshold().present(scores, split)
    assert split in str(caught.value)
    assert "\n" not in str(caught.value)
    assert threshold().present(scores, split, in_sample=True).tolist() == [False, True, True]


@pytest.mark.parametrize("split", ["test", "new"])
def test_other_splits_are_judged(split: str) -> None:
    assert threshold().present(np.array([0.4, 0.5]), split).tolist() == [False, True]


def test_a_threshold_of_another_split_refuses_that_one() -> None:
    fitted = threshold(split="test")
    assert fitted.present(np.array([1.0]), "cal").tolist() == [True]
    with pytest.raises(CalibrationError, match="fitted on the test split"):
        fitted.present(np.array([1.0]), "test")


def test_a_score_that_is_the_threshold_counts_in_any_precision() -> None:
    score = np.float32(0.1)
    fitted = threshold(float(score))
    for dtype in (np.float32, np.float64):
        around = np.array([np.nextafter(score, np.float32(0)), score, np.nextafter(score, np.float32(1))], dtype=dtype)
        assert fitted.present(around, "test").tolist() == [False, True, True]
    # a threshold between two single-precision numbers must not be rounded to the lower one
    between = threshold(float(np.nextafter(np.float64(score), 1.0)))
    assert between.present(np.array([score]), "test").tolist() == [False]
    assert between.present(np.array([np.nextafter(score, np.float32(1))]), "test").tolist() == [True]


def test_not_a_number_is_no_threshold() -> None:
    with pytest.raises(CalibrationError, match="'c' is not a number"):
        threshold(float("nan"))


@pytest.mark.parametrize("value", [0.25, -1e-30, math.inf])
@pytest.mark.parametrize("ends", [(0.1, 0.3), (math.nan, math.nan)])
def test_written_and_read_again(value: float, ends: tuple[float, float]) -> None:
    """Infinite: a concept without a single in-concept token on cal, which is never found."""
    given = threshold(value, low=ends[0], high=ends[1])
    again = Threshold.from_dict(json.loads(json.dumps(given.as_dict(), allow_nan=False)))
    assert again.value == given.value
    assert again.as_dict() == given.as_dict()
    np.testing.assert_equal([again.low, again.high], ends)
    with pytest.raises(TypeError):
        Threshold.from_dict({**given.as_dict(), "colour": "red"})
