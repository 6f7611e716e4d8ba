"""The two statements on amplification: known answers, finite differences, and a stack that really runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from superactivators.errors import StudyError
from superactivators.mechanism.theorems import (
    AlignedStack,
    check_statements,
    gap_factors,
    largest_factor,
    predicted_activations,
    tilted_moments,
)


def activations(seed: int = 0, n: int = 15) -> np.ndarray:
    return np.random.default_rng(seed).gamma(0.7, 1.0, n)


def states(seed: int = 0, n: int = 20, width: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator), torch.randn(width, generator=generator)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_two_kinds_of_token_have_a_closed_form(share: float) -> None:
    """A share p of tokens has activation 1, the rest 0: the gap of 1 becomes 1 + l (s(1) - s(0))."""
    value_gain, score_gain, n = 0.8, 3.0, 40
    held = np.zeros(n)
    held[: int(share * n)] = 1
    at_one = share * math.exp(score_gain) / (1 - share + share * math.exp(score_gain))
    expected = 1 + value_gain * (at_one - share)
    assert gap_factors(held, value_gain, score_gain)[0, -1] == pytest.approx(expected, abs=1e-9)
    grown = predicted_activations(held, value_gain, score_gain)
    assert grown[0] - grown[-1] == pytest.approx(expected)
    stack = AlignedStack(torch.eye(6)[2], [value_gain], [score_gain])
    before = torch.randn(n, 6, generator=torch.Generator().manual_seed(1))
    before[:, 2] = torch.from_numpy(held).float()
    with torch.inference_mode():
        after = stack(before)[1][:, 2]
    assert float(after[0] - after[-1]) == pytest.approx(expected, abs=1e-9)


def test_moments_equal_those_of_a_loop() -> None:
    held, preference = activations(), np.random.default_rng(3).normal(size=15)
    mean, variance, third = tilted_moments(held, held[:4], 1.7, preference)
    for number, at in enumerate(held[:4]):
        weights = [math.exp(1.7 * at * key + own) for key, own in zip(held, preference, strict=True)]
        weights = [weight / sum(weights) for weight in weights]
        middle = sum(weight * key for weight, key in zip(weights, held, strict=True))
        assert mean[number] == pytest.approx(middle)
        for moment, power in ((variance, 2), (third, 3)):
            expected = sum(weight * (key - middle) ** power for weight, key in zip(weights, held, strict=True))
            assert moment[number] == pytest.approx(expected)


def test_the_factor_of_a_tiny_gap_is_a_derivative() -> None:
    held, step = activations(1), 1e-5
    for number, at in enumerate(held):
        means, _, _ = tilted_moments(held, np.array([at - step, at + step]), 0.9)
        slope = (means[1] - means[0]) / (2 * step)
        assert gap_factors(held, 0.4, 0.9)[number, number] == pytest.approx(1 + 0.4 * slope, abs=1e-7)


@pytest.mark.parametrize("gains", [(0.5, 0.8), (0.5, -0.8), (-0.3, 0.8)])
def test_factors_equal_gaps_after_over_gaps_before(gains: tuple[float, float]) -> None:
    held, preference = activations(2), np.random.default_rng(4).normal(size=15)
    grown = predicted_activations(held, *gains, preference)
    pairs = ~np.eye(len(held), dtype=bool)
    measured = (grown[:, None] - grown)[pairs] / (held[:, None] - held)[pairs]
    factors = gap_factors(held, *gains, preference)[pairs]
    np.testing.assert_allclose(factors, measured, rtol=1e-8)
    if gains[0] * gains[1] > 0:
        assert (factors > 1).all()
        assert (factors <= largest_factor(held, *gains) + 1e-12).all()
    else:
        assert (factors < 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_real_stack_does_as_predicted_in_every_layer(seed: int) -> None:
    found = check_statements(*states(seed), value_gains=(0.4, 0.2, 0.5), score_gains=(0.5, 0.3, 0.1), seed=seed)
    rows = found.to_pylist()
    assert [row["layer"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert row["error"] < 1e-6
        assert 1 < row["measured_low"] < row["measured_high"] <= row["bound"]
        assert row["ordered"]
        assert row["highest_gains_most"]


def test_a_stack_that_is_not_aligned_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    made = AlignedStack.__init__

    def crooked(self: AlignedStack, *args: object, **kwargs: object) -> None:
        made(self, *args, **kwargs)
        with torch.no_grad():
            self.layers[0]["output"].weight += 0.3

    monkeypatch.setattr(AlignedStack, "__init__", crooked)
    assert check_statements(*states(), value_gains=[0.4], score_gains=[0.5])["error"][0].as_py() > 0.01


def test_heads_that_push_apart_shrink_gaps() -> None:
    rows = check_statements(*states(), value_gains=[0.2], score_gains=[-0.4]).to_pylist()
    assert rows[0]["measured_high"] < 1
    assert rows[0]["error"] < 1e-6
    assert not rows[0]["ordered"]


def test_gaps_are_multiplied_by_more_at_the_top_while_high_tokens_are_few() -> None:
    held = np.concatenate([np.linspace(0, 0.2, 95), [1.0, 1.1, 1.2, 1.3, 1.4]])
    _, _, third = tilted_moments(held, held, 1.0)
    assert (third > 0).all()
    factors = np.diag(gap_factors(held, 0.5, 1.0))
    assert (np.diff(factors[np.argsort(held)]) > 0).all()


def test_what_cannot_be_checked_is_refused() -> None:
    with pytest.raises(StudyError, match="no gap"):
        check_statements(torch.ones(5, 4), torch.ones(4))
    with pytest.raises(StudyError, match="one of each gain"):
        AlignedStack(torch.ones(4), [0.1], [0.1, 0.2])
    with pytest.raises(StudyError, match="width 2"):
        AlignedStack(torch.ones(4), [0.1], [0.1], head_width=1)
