"""Sentences must say what the intervals say, in both directions."""

from __future__ import annotations

import pytest

from superactivators.report.verdicts import advantage, finding, listed, short, verdict, with_interval


def summary(difference: tuple[float, float | None, float | None]) -> dict:
    value, low, high = difference
    f1 = {"value": 0.61, "low": 0.59, "high": 0.63}
    return {
        "weighted_f1": {"linear": {"superactivators": f1, "max": f1}},
        "weighted_f1_minus_superactivators": {"linear": {"max": {"value": value, "low": low, "high": high}}},
    }


@pytest.mark.parametrize(
    ("difference", "expected", "words"),
    [
        ((-0.05, -0.08, -0.02), "better", "they beat max"),
        ((0.05, 0.02, 0.08), "worse", "they lose to max (lead −.050 [−.080, −.020])"),
        ((-0.004, -0.02, 0.01), "unclear", "no clear difference to max (lead +.004 [−.010, +.020])"),
        ((-0.05, -0.08, 0.0), "unclear", "no clear difference"),
        ((0.05, None, None), "unknown", "without intervals nothing can be said about max (lead −.050)"),
    ],
)
def test_verdicts(difference: tuple[float, float | None, float | None], expected: str, words: str) -> None:
    found = finding(summary(difference), "linear", "weighted")
    assert [entry["verdict"] for entry in found["verdicts"]] == [expected]
    assert words in found["headline"]
    assert "weighted test F1 of .61 [.59, .63] with linear vectors" in found["headline"]


def test_advantage_turns_the_interval_round() -> None:
    assert advantage({"value": -0.1, "low": -0.3, "high": 0.2}) == {"value": 0.1, "low": -0.2, "high": 0.3}
    assert verdict(advantage({"value": -0.1, "low": -0.3, "high": -0.05})) == "better"


def test_study_without_superactivators_names_its_best_method() -> None:
    f1 = {method: {"value": value, "low": None, "high": None} for method, value in (("mean", 0.4), ("max", 0.5))}
    found = finding({"macro_f1": {"mean": f1}}, "mean", "macro")
    assert found["headline"].startswith("max reaches the highest macro test F1, .50, with mean vectors")
    assert found["verdicts"] == []


@pytest.mark.parametrize(
    ("value", "places", "signed", "text"),
    [(0.614, 2, False, ".61"), (1.0, 2, False, "1.00"), (-0.0001, 3, True, "+.000"), (-0.02, 2, True, "−.02")],
)
def test_printed_numbers(value: float, places: int, signed: bool, text: str) -> None:
    assert short(value, places, signed=signed) == text


def test_lists_and_missing_intervals() -> None:
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert with_interval({"value": 0.5, "low": None, "high": None}) == ".50"
