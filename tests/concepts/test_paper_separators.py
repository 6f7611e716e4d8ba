"""Separators of the paper's published code, against one plain torch loop for each concept that makes the same draws."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.metrics import f1_score

from superactivators.concepts import paper_separators
from superactivators.concepts.paper_separators import PaperSeparators, fit_paper_separators, generator_of
from superactivators.concepts.rows import ArrayRows
from superactivators.errors import DataError, StudyError

NAMES = ["common", "rare", "whole batches", "easy", "most"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def study() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels of five concepts (common, rare, filling whole steps, easy, in most rows), and which are known."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(900, 12)).astype(np.float32)
    known = rng.random(900) < 0.9
    directions = rng.normal(size=(12, 5))
    noise = rng.normal(size=(900, 5)) * [4, 2, 3, 0, 3]
    logits = X @ directions + noise
    share = np.array([0.35, 0.02, 0.0, 0.4, 0.8])
    labels = logits > np.diag(np.quantile(logits, 1 - share, axis=0))
    labels[:, 2] = False
    labels[np.flatnonzero(known)[np.argsort(logits[known, 2])[-64:]], 2] = True
    X[:, 0] += 10 * (labels[:, 3] - 0.5)
    return X, labels, known


def fit(study: tuple[np.ndarray, ...], names: list[str] = NAMES, **options: object) -> PaperSeparators:
    X, labels, known = study
    block = options.pop("block_rows", 4096)
    return fit_paper_separators(
        ArrayRows(X, block), sp.csr_matrix(labels), known, names=names, **{"seed": 5, "max_epochs": 60} | options
    )


def slow(
    X: np.ndarray, positive: np.ndarray, known: np.ndarray, name: str, seed: int, batch: int, max_epochs: int
) -> tuple[np.ndarray, int, float, float, str]:
    """The published procedure for one concept, step by step: torch's own module, loss, optimiser and schedule."""
    generator = generator_of(seed, name)
    inside, outside = np.flatnonzero(positive & known), np.flatnonzero(~positive & known)
    n = min(len(inside), len(outside))
    rows = np.concatenate([generator.choice(inside, n, replace=False), generator.choice(outside, n, replace=False)])
    assert len(set(rows.tolist())) == 2 * n
    x, y = torch.from_numpy(X[rows]), torch.from_numpy(positive[rows]).float()
    module = torch.nn.Linear(X.shape[1], 1, bias=False)
    reach = 1 / math.sqrt(X.shape[1])
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(generator.uniform(-reach, reach, X.shape[1]))[None])
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=5, gamma=0.8)
    best, waited, reason = math.inf, 0, "epochs"
    for epoch in range(1, max_epochs + 1):
        losses = []
        for part in torch.from_numpy(generator.permutation(2 * n)).split(batch):
            optimiser.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(module(x[part])[:, 0], y[part])
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        schedule.step()
        train_loss = float(np.mean(losses))
        with torch.no_grad():
            f1 = float(f1_score(y.numpy(), (torch.sigmoid(module(x)[:, 0]) > 0.5).numpy(), zero_division=0))
        if f1 >= 0.99:
            reason = "f1"
            break
        if epoch > 1:
            waited = waited + 1 if best - train_loss < 1e-3 else 0
        best = min(best, train_loss)
        if waited >= 20:
            reason = "patience"
            break
    return module.weight.detach().numpy()[0], epoch, train_loss, f1, reason


@pytest.mark.parametrize(("batch", "reasons"), [(64, {"patience", "epochs"}), (25, {"f1", "patience", "epochs"})])
def test_it_is_the_published_loop(study: tuple[np.ndarray, ...], batch: int, reasons: set[str]) -> None:
    X, labels, known = study
    found = fit(study, batch=batch)
    seen = set()
    for c, name in enumerate(NAMES):
        weights, epochs, loss, f1, reason = slow(X, labels[:, c], known, name, 5, batch, 60)
        np.testing.assert_allclose(found.weights[c], weights, atol=1e-5, err_msg=name)
        assert (found.epochs[c], found.stopped[c]) == (epochs, reason)
        assert found.loss[c] == pytest.approx(loss, rel=1e-5)
        assert found.f1[c] == pytest.approx(f1, abs=1e-12)
        seen.add(reason)
    assert seen == reasons, "the examples must show every way to stop"
    positives = (labels & known[:, None]).sum(axis=0)
    np.testing.assert_array_equal(found.n, np.minimum(positives, known.sum() - positives))
    assert found.estimable.all()


def test_the_defaults_are_those_of_the_published_code(study: tuple[np.ndarray, ...]) -> None:
    X, labels, known = study
    found = fit_paper_separators(ArrayRows(X), sp.csr_matrix(labels[:, :2]), known, names=NAMES[:2])
    for c in range(2):
        weights, epochs, *_ = slow(X, labels[:, c], known, NAMES[c], 0, 64, 1000)
        np.testing.assert_allclose(found.weights[c], weights, atol=2e-5)
        assert found.epochs[c] == epochs


def test_blocks_memory_and_steps_ahead_do_not_matter(
    study: tuple[np.ndarray, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    once = fit(study)
    X = study[0]
    kept_on_disk = fit(study, memory=4 * X.shape[1] * 100, block_rows=37)
    np.testing.assert_allclose(kept_on_disk.weights, once.weights, atol=1e-6)
    monkeypatch.setattr(paper_separators, "STEP_BYTES", 1)
    stepwise = fit(study)
    np.testing.assert_allclose(stepwise.weights, once.weights, atol=1e-6)
    monkeypatch.setattr(paper_separators, "LEAST_AT_ONCE", 2)
    in_groups = fit(study)
    np.testing.assert_allclose(in_groups.weights, once.weights, atol=1e-6)
    for other in (kept_on_disk, stepwise, in_groups):
        np.testing.assert_array_equal(other.epochs, once.epochs)
        np.testing.assert_allclose(other.f1, once.f1, atol=1e-12)


def test_same_seed_same_bits_other_seed_other_draws(study: tuple[np.ndarray, ...]) -> None:
    once, again = fit(study), fit(study)
    np.testing.assert_array_equal(once.weights, again.weights)
    assert not np.allclose(fit(study, seed=6).weights, once.weights, atol=1e-2)


def test_other_concepts_and_their_order_change_nothing(study: tuple[np.ndarray, ...]) -> None:
    X, labels, known = study
    once = fit(study)
    order = [3, 0, 4]
    some = fit((X, labels[:, order], known), [NAMES[c] for c in order])
    np.testing.assert_allclose(some.weights, once.weights[order], atol=1e-6)
    np.testing.assert_array_equal(some.epochs, once.epochs[order])
    renamed = fit(study, ["other", *NAMES[1:]])
    np.testing.assert_allclose(renamed.weights[1:], once.weights[1:], atol=1e-6)
    assert not np.allclose(renamed.weights[0], once.weights[0], atol=1e-3)


def test_unknown_rows_do_not_count(study: tuple[np.ndarray, ...]) -> None:
    X, labels, known = study
    X, labels = X.copy(), labels.copy()
    X[~known], labels[~known] = np.nan, True
    np.testing.assert_array_equal(fit((X, labels, known)).weights, fit(study).weights)


def test_a_concept_without_both_classes_is_marked_and_zero(study: tuple[np.ndarray, ...]) -> None:
    X, labels, known = study
    labels = labels.copy()
    labels[:, 1] = ~known
    labels[:, 4] = True
    found = fit((X, labels, known))
    np.testing.assert_array_equal(found.estimable, [True, False, True, True, False])
    assert not found.weights[[1, 4]].any()
    assert found.notes["rows_per_class"][1] == found.notes["epochs"][4] == 0
    assert found.notes["train_loss"][1] is None
    assert found.stopped[1] == "not estimable"
    np.testing.assert_allclose(found.weights[0], fit(study).weights[0], atol=1e-6)
    assert not fit((X, labels[:, [1, 4]], known), ["a", "b"]).estimable.any()


def test_explicit_zeros_and_duplicates_of_a_sparse_matrix_mean_what_they_say(study: tuple[np.ndarray, ...]) -> None:
    X, labels, known = study
    row, column = np.nonzero(labels)
    messy = sp.csr_matrix(
        (
            np.concatenate([np.ones(2 * len(row), dtype=bool), np.zeros(900, dtype=bool)]),
            (
                np.concatenate([row, row, np.arange(900)]),
                np.concatenate([column, column, np.zeros(900, dtype=np.int64)]),
            ),
        ),
        shape=labels.shape,
    )
    found = fit_paper_separators(ArrayRows(X), messy, known, names=NAMES, seed=5, max_epochs=60)
    np.testing.assert_array_equal(found.weights, fit(study).weights)


def test_wrong_input_is_named(study: tuple[np.ndarray, ...]) -> None:
    X, labels, known = study
    with pytest.raises(StudyError, match="at least 1; got 0 and 60"):
        fit(study, batch=0)
    with pytest.raises(DataError, match="5 distinct ones"):
        fit(study, ["a"] * 5)
    with pytest.raises(DataError, match="do not fit 900 rows"):
        fit((X, labels[:-1], known))
    with pytest.raises(DataError, match="none of the 900 rows"):
        fit((X, labels, known & False))
    bad = X.copy()
    bad[np.flatnonzero(known)] = np.inf
    with pytest.raises(DataError, match="not finite"):
        fit((bad, labels, known))
