"""The minimiser reaches the known minima of other functions than the one it was written for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from superactivators.concepts.lbfgs import minimise


@pytest.mark.parametrize("quality", [1.0, 30.0, 0.05])
def test_minimiser_survives_a_bad_preconditioner(quality):
    rng = np.random.default_rng(8)
    k, d = 4, 6
    shift = torch.tensor(rng.normal(size=(k, d)) * 3)
    mixing = torch.tensor(rng.normal(size=(k, d, d)))

    def evaluate_cosh(point: torch.Tensor, alive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inner = torch.einsum("kde,ke->kd", mixing[alive], point - shift[alive])
        loss = torch.logaddexp(inner, -inner).sum(1) + 0.05 * inner.square().sum(1)
        return loss, torch.einsum("kde,kd->ke", mixing[alive], torch.tanh(inner) + 0.1 * inner)

    factors = (quality * torch.eye(d)).expand(k, -1, -1).contiguous()
    goal = torch.full((k,), 1e-8, dtype=torch.float64)
    found = minimise(evaluate_cosh, torch.zeros(k, d, dtype=torch.float64), factors, goal, 300)
    assert (found.gradient_norm <= goal).all()
    torch.testing.assert_close(found.point, shift, atol=1e-5, rtol=0)
    assert (found.n_iter < 300).all()
    loss, gradient = evaluate_cosh(found.point, torch.arange(k))
    torch.testing.assert_close(loss, found.loss)
    torch.testing.assert_close(torch.linalg.vector_norm(gradient, dim=1), found.gradient_norm)


def test_problems_at_their_goal_are_left_alone():
    point = torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    calls = []

    def evaluate_square(at: torch.Tensor, alive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(alive.tolist())
        return at.square().sum(1), 2 * at

    found = minimise(evaluate_square, point, torch.full((2, 1, 1), 0.5), torch.full((2,), 1e-9).double(), 50)
    assert calls[0] == [0, 1]
    assert all(alive == [1] for alive in calls[1:])
    np.testing.assert_array_equal(found.n_iter.numpy(), [1, len(calls)])
    torch.testing.assert_close(found.point, torch.zeros(2, 1).double(), atol=1e-8, rtol=0)
