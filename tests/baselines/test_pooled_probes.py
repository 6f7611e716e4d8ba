"""Trained pooling probes: poolings, gradients and training against loops; planted concepts; leaks, order and blocks."""

from __future__ import annotations

import dataclasses
import itertools
import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from detection.worlds import World, world
from superactivators.baselines import probe_poolings as poolings
from superactivators.baselines import probe_training
from superactivators.baselines.pooled_probes import PROBES, PooledProbes, train_pooled_probes
from superactivators.baselines.probe_poolings import Tokens
from superactivators.errors import DataError, StudyError
from superactivators.states import arrays
from superactivators.states.arrays import states_from_arrays
from superactivators.states.labels import Labels
from superactivators.states.scaling import Scaling
from superactivators.states.states import States

SITE = "block[1]"
HEADS = {"attention": 2, "softmax": 1, "rolling-max": 1, "multimax": 3}
WINDOW, TEMPERATURE = 3, 0.7
QUICK: dict[str, Any] = {"max_epochs": 4, "batch": 5, "heads": 3, "window": WINDOW, "temperature": TEMPERATURE}


def pooled_slowly(name: str, z: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
    """Score of one sample and one concept, as written in the publications; z [tokens, width], heads [h, width]."""
    logits = [[(row * head).sum() for row in z] for head in heads]
    if name == "attention":
        weights = [torch.exp(key) for key in logits[0]]
        return sum(w * v for w, v in zip(weights, logits[1], strict=True)) / sum(weights)  # type: ignore[return-value]
    if name == "softmax":
        weights = [torch.exp(a / TEMPERATURE) for a in logits[0]]
        return sum(w * a for w, a in zip(weights, logits[0], strict=True)) / sum(weights)  # type: ignore[return-value]
    if name == "rolling-max":
        size = min(WINDOW, len(z))
        means = [sum(logits[0][i : i + size]) / size for i in range(len(z) - size + 1)]
        return torch.stack(means).max()  # type: ignore[arg-type]
    return sum(torch.stack(own).max() for own in logits)  # type: ignore[return-value]


def poolings_of(name: str) -> Any:
    return {
        "attention": poolings.pool_attention,
        "softmax": partial(poolings.pool_softmax, temperature=TEMPERATURE),
        "rolling-max": poolings.pool_rolling_max,
        "multimax": poolings.pool_multimax,
    }[name]


def drawn_probes(concepts: int = 3, width: int = 8) -> PooledProbes:
    generator = torch.Generator().manual_seed(5)
    return PooledProbes(
        site=SITE,
        concepts=tuple(f"concept {c}" for c in range(concepts)),
        scaling=Scaling(torch.randn(width, generator=generator), 1.5),
        weights={name: torch.randn(h, concepts, width, generator=generator) for name, h in HEADS.items()},
        bias={name: np.arange(concepts, dtype=np.float32) - 1 for name in HEADS},
        temperature=TEMPERATURE,
        window=WINDOW,
        chosen={name: np.ones(concepts, dtype=np.int64) for name in HEADS},
        average_precision={name: np.full(concepts, np.nan) for name in HEADS},
        epochs=1,
        estimable=np.ones(concepts, dtype=bool),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("block", [1, 50, 16_384])
def test_scores_against_loops(block: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "BLOCK", block)
    data, probes = world(1), drawn_probes()
    found = probes.score(data.states(dtype))
    assert (found.kind, found.level, found.site) == ("probe", "token", SITE)
    assert list(found.pooled) == list(PROBES)
    assert found.samples.shape == (0,)
    assert found.tokens.shape == (0, 3)
    raw = torch.from_numpy(data.values[SITE]).to(dtype).double()
    z = (raw - probes.scaling.mean.double()) / probes.scaling.scale
    for name, heads in probes.weights.items():
        expected = [
            [float(pooled_slowly(name, z[a:b], heads[:, c].double())) + c - 1 for c in range(3)]
            for a, b in itertools.pairwise(data.offsets)
        ]
        assert found.pooled[name].dtype == np.float32
        np.testing.assert_allclose(found.pooled[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", PROBES)
def test_gradients_against_autograd_of_loops(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    lengths = [1, 7, 3, 2, 12]
    z = torch.randn(sum(lengths), 6, generator=generator)
    heads = torch.randn(HEADS[name], 4, 6, generator=generator)
    slope = torch.randn(5, 4, generator=generator)
    tokens = Tokens(np.concatenate([[0], np.cumsum(lengths)]), WINDOW)
    logits = (z @ heads.view(-1, 6).T).view(len(z), -1, 4).numpy()
    scores, pull = poolings_of(name)(logits, tokens)
    slow_heads = heads.double().requires_grad_()
    slow = torch.stack(
        [
            torch.stack([pooled_slowly(name, z[a:b].double(), slow_heads[:, c]) for c in range(4)])
            for a, b in itertools.pairwise(tokens.offsets)
        ]
    )
    np.testing.assert_allclose(scores, slow.detach(), rtol=1e-5, atol=1e-5)
    (slow * slope.double()).sum().backward()
    assert slow_heads.grad is not None
    np.testing.assert_allclose(pull(slope.numpy(), z), slow_heads.grad, rtol=1e-4, atol=1e-5)


def test_of_equal_logits_the_first_token_counts() -> None:
    logits = np.array([0, 1, 1, 0], dtype=np.float32).reshape(4, 1, 1)
    _, pull = poolings.pool_multimax(logits, Tokens(np.array([0, 4]), 2))
    states = torch.arange(4.0)[:, None] * torch.ones(4, 2)
    assert pull(np.ones((1, 1), dtype=np.float32), states).tolist() == [[[1, 1]]]


def trained_slowly(data: World, epochs: int, batch: int, rate: float, decay: float) -> dict[str, np.ndarray]:
    """All probes by autograd and torch's AdamW, sample by sample in double precision; scores of the last epoch."""
    z = torch.from_numpy(data.values[SITE]).double()
    train = data.in_split("train")
    rows = torch.cat([z[data.offsets[i] : data.offsets[i + 1]] for i in train])
    z = (z - rows.mean(dim=0)) / rows.std(dim=0, correction=0)
    y = torch.from_numpy(data.sample_labels).double()
    positives = y[train].sum(dim=0)
    means = torch.stack([z[a:b].mean(dim=0) for a, b in itertools.pairwise(data.offsets)])
    apart = torch.stack(
        [
            torch.stack([means[i] for i in train if y[i, c]]).mean(dim=0)
            - torch.stack([means[i] for i in train if not y[i, c]]).mean(dim=0)
            for c in range(3)
        ]
    )
    apart = (apart / apart.norm(dim=1, keepdim=True)).float()
    scores = {}
    for name, count in HEADS.items():
        # _start is the definition of the first weights; everything after it is done anew
        heads = probe_training._start(0, name, count, apart).double().requires_grad_()
        bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        steps = epochs * -(-len(train) // batch)
        groups = [{"params": [heads], "weight_decay": decay}, {"params": [bias], "weight_decay": 0.0}]
        optimiser = torch.optim.AdamW(groups, lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for epoch in range(1, epochs + 1):
            order = probe_training.shuffled([data.ids[i] for i in train], 0, epoch)
            for first in range(0, len(train), batch):
                chosen = [train[place] for place in order[first : first + batch]]
                loss = torch.zeros((), dtype=torch.float64)
                for i in chosen:
                    for c in range(3):
                        s = pooled_slowly(name, z[data.offsets[i] : data.offsets[i + 1]], heads[:, c]) + bias[c]
                        share = 0.5 * len(train) / (positives[c] if y[i, c] else len(train) - positives[c])
                        loss = loss + share * torch.nn.functional.binary_cross_entropy_with_logits(s, y[i, c])
                optimiser.zero_grad()
                (loss / len(chosen)).backward()
                optimiser.step()
                schedule.step()
        with torch.no_grad():
            scores[name] = np.array(
                [
                    [float(pooled_slowly(name, z[a:b], heads[:, c]) + bias[c]) for c in range(3)]
                    for a, b in itertools.pairwise(data.offsets)
                ]
            )
    return scores


def test_training_against_autograd_and_torch_adamw() -> None:
    data = world(3, per_split=12)
    # nothing can be chosen on cal without positives, so the last epoch is kept
    labels = data.sample_labels.copy()
    labels[data.in_split("cal")] = False
    states = states_from_arrays(data.values, data.offsets, None, labels, data.splits, data.concepts, ids=data.ids)
    options = QUICK | {"max_epochs": 3, "learning_rate": 0.05, "weight_decay": 0.5}
    probes = train_pooled_probes(states, SITE, **options)
    expected = trained_slowly(data, 3, 5, 0.05, 0.5)
    found = probes.score(states)
    for name in PROBES:
        np.testing.assert_allclose(found.pooled[name], expected[name], rtol=1e-3, atol=1e-3, err_msg=name)
        assert np.abs(expected[name]).max() > 0.1
        assert probes.chosen[name].tolist() == [3, 3, 3]
        assert np.isnan(probes.average_precision[name]).all()


def planted(kind: str, seed: int = 0, n: int = 360, tokens: int = 40, width: int = 6) -> States:
    """Samples of noise; a positive has one strong token, a run of them, or all tokens a little shifted."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((n, tokens, width)).astype(np.float32)
    present = np.arange(n) % 2 == 0
    for i in range(n):
        if kind == "spike" and present[i]:
            values[i, random.integers(tokens), 0] = 8
        if kind == "run":
            # negatives have nearly as many strong tokens, but never side by side
            first = int(random.integers(0, tokens - 12))
            values[i, first : first + (6 if present[i] else 10) : 1 if present[i] else 2, 0] = 5
        if kind == "shift":
            values[i, :, 0] = (values[i, :, 0] - values[i, :, 0].mean()) * 4 + (0.5 if present[i] else -0.5)
    splits = np.array(["train", "cal", "test"])[np.arange(n) // 2 % 3]
    offsets = np.arange(n + 1) * tokens
    return states_from_arrays(values.reshape(-1, width), offsets, None, present[:, None], splits, ["planted"])


def test_planted_concepts_are_found_by_the_probes_made_for_them() -> None:
    precision: dict[str, dict[str, float]] = {}
    for kind in ("spike", "run", "shift"):
        states = planted(kind)
        probes = train_pooled_probes(states, states.sites[0], learning_rate=0.05, weight_decay=0.1, window=6)
        test = states.labels.in_split("test")
        pooled = probes.score(states).pooled
        truth = states.labels.samples[test, 0]
        precision[kind] = {name: average_precision_score(truth, pooled[name][test, 0]) for name in PROBES}
    assert min(precision["spike"][name] for name in ("attention", "softmax", "multimax")) > 0.97, precision
    assert precision["run"]["rolling-max"] > 0.97, precision
    assert precision["run"]["multimax"] < 0.8, precision
    assert precision["shift"]["attention"] > 0.97, precision


def weights_of(probes: PooledProbes) -> dict[str, np.ndarray]:
    return {name: heads.numpy() for name, heads in probes.weights.items()} | {
        f"{name} bias": bias for name, bias in probes.bias.items()
    }


def assert_same(one: PooledProbes, other: PooledProbes) -> None:
    for name, array in weights_of(one).items():
        np.testing.assert_array_equal(array, weights_of(other)[name], err_msg=name)
    assert one.notes == other.notes


def test_test_samples_are_never_looked_at() -> None:
    data = world(4)
    before = train_pooled_probes(data.states(), SITE, **QUICK)
    changed = dataclasses.replace(data, sample_labels=data.sample_labels.copy(), values={**data.values})
    test = np.array(data.in_split("test"))
    changed.sample_labels[test] = ~changed.sample_labels[test]
    changed.token_labels = np.zeros_like(data.token_labels)
    rows = np.concatenate([np.arange(data.offsets[i], data.offsets[i + 1]) for i in test])
    changed.values[SITE] = data.values[SITE].copy()
    changed.values[SITE][rows] = 99
    states = states_from_arrays(
        changed.values, data.offsets, None, changed.sample_labels, data.splits, data.concepts, ids=data.ids
    )
    assert_same(before, train_pooled_probes(states, SITE, **QUICK))


def test_cal_only_chooses_the_epoch() -> None:
    data = world(5)
    flipped = dataclasses.replace(data, sample_labels=data.sample_labels.copy(), token_labels=data.token_labels.copy())
    cal = np.array(data.in_split("cal"))
    flipped.sample_labels[cal] = ~flipped.sample_labels[cal]
    once = QUICK | {"max_epochs": 1}
    args = (data.offsets, None)
    rest = (data.splits, data.concepts)
    one, other = (
        states_from_arrays(data.values, *args, labels, *rest, ids=data.ids)
        for labels in (data.sample_labels, flipped.sample_labels)
    )
    first, second = (train_pooled_probes(states, SITE, **once) for states in (one, other))
    for name, array in weights_of(first).items():
        np.testing.assert_array_equal(array, weights_of(second)[name])
    first, second = (train_pooled_probes(states, SITE, **QUICK | {"max_epochs": 8}) for states in (one, other))
    assert any((first.chosen[name] != second.chosen[name]).any() for name in PROBES)


def test_the_kept_epoch_is_the_best_of_all_epochs_on_cal() -> None:
    data = world(6)
    states, cal = data.states(), data.in_split("cal")
    probes = train_pooled_probes(states, SITE, **QUICK | {"max_epochs": 6, "patience": 6})
    found = probes.score(states)
    for name in PROBES:
        for c in range(3):
            own = average_precision_score(data.sample_labels[cal, c], found.pooled[name][cal, c])
            assert own == pytest.approx(probes.average_precision[name][c], abs=1e-6)
    # fewer epochs of patience can only do worse, and may stop earlier
    hasty = train_pooled_probes(states, SITE, **QUICK | {"max_epochs": 6, "patience": 1})
    assert hasty.epochs <= probes.epochs
    for name in PROBES:
        assert (hasty.average_precision[name] <= probes.average_precision[name]).all()
        assert (hasty.chosen[name] <= probes.chosen[name]).all()


def test_order_of_samples_does_not_matter() -> None:
    data = world(7)
    order = np.random.default_rng(0).permutation(data.n)
    straight = train_pooled_probes(data.states(), SITE, **QUICK).score(data.states())
    mixed = data.permuted(order).states()
    found = train_pooled_probes(mixed, SITE, **QUICK).score(mixed)
    for name in PROBES:
        np.testing.assert_allclose(found.pooled[name], straight.pooled[name][order], rtol=1e-4, atol=1e-4)


def test_blocks_of_the_store_and_memory_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    states = world(8).states(torch.bfloat16)
    whole = train_pooled_probes(states, SITE, **QUICK)
    assert_same(whole, train_pooled_probes(states, SITE, memory=1, **QUICK))
    monkeypatch.setattr(arrays, "BLOCK", 7)
    assert_same(whole, train_pooled_probes(states, SITE, **QUICK))
    monkeypatch.setattr(probe_training, "CHUNK", 11)
    for name, array in weights_of(train_pooled_probes(states, SITE, **QUICK)).items():
        np.testing.assert_allclose(array, weights_of(whole)[name], rtol=1e-3, atol=1e-4)


def test_other_concepts_and_probes_do_not_matter() -> None:
    states = world(9).states()
    whole = train_pooled_probes(states, SITE, **QUICK)
    part = train_pooled_probes(
        states.with_concepts(["concept 2", "concept 0"]), SITE, ["multimax", "attention"], **QUICK
    )
    for name in ("multimax", "attention"):
        np.testing.assert_allclose(part.weights[name], whole.weights[name][:, [2, 0]], rtol=1e-3, atol=1e-4)
        assert part.chosen[name].tolist() == whole.chosen[name][[2, 0]].tolist()


def test_the_seed_matters() -> None:
    states = world(10).states()
    one, other = (train_pooled_probes(states, SITE, seed=seed, **QUICK) for seed in (0, 1))
    assert not np.array_equal(one.weights["multimax"], other.weights["multimax"])
    assert_same(one, train_pooled_probes(states, SITE, seed=0, **QUICK))


def test_concepts_that_cannot_be_learned_and_samples_without_tokens() -> None:
    data = world(11)
    labels = data.sample_labels.copy()
    labels[data.in_split("train"), 1] = False
    lengths = np.diff(data.offsets)
    empty = [data.in_split(split)[0] for split in ("train", "cal", "test")]
    keep = ~np.isin(np.repeat(np.arange(data.n), lengths), empty)
    lengths[empty] = 0
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = {SITE: data.values[SITE][keep]}
    values[SITE][:, 3] = 7  # a column that never changes
    splits = np.array(data.splits)
    known = np.zeros(offsets[-1], dtype=bool)
    held = Labels(data.ids, offsets, splits, tuple(data.concepts), labels, None, known, {})
    tokens = {SITE: torch.from_numpy(values[SITE])}
    states = States(arrays.ArrayValues(tokens, offsets, None), held)
    probes = train_pooled_probes(states, SITE, **QUICK)
    assert probes.estimable.tolist() == [True, False, True]
    found = probes.score(states)
    full = np.setdiff1d(np.arange(data.n), empty)
    for name in PROBES:
        assert (found.pooled[name][empty] == -np.inf).all()
        assert (found.pooled[name][full, 1] == 0).all()
        assert np.isfinite(found.pooled[name][full]).all()
        assert found.pooled[name][full, 0].std() > 0
        assert probes.chosen[name][1] == 0
        assert (probes.weights[name][:, :, 3] == 0).all()
    notes = json.loads(json.dumps(probes.notes, allow_nan=False))
    assert notes["probes"]["softmax"]["concept 1"] == {"epoch": 0, "cal_average_precision": None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": ["atention"]}, "unknown probe 'atention'; did you mean 'attention'"),
        ({"probes": "softmax"}, "probes must be one or more different names"),
        ({"probes": []}, "probes must be one or more different names"),
        ({"probes": ["softmax", "softmax"]}, "probes must be one or more different names"),
        ({"max_epochs": 0}, "max_epochs must be a whole number of 1 or more; got 0"),
        ({"heads": 0}, "heads must be a whole number"),
        ({"window": 0}, "window must be a whole number"),
        ({"batch": 0}, "batch must be a whole number"),
        ({"patience": 0}, "patience must be a whole number"),
        ({"temperature": 0.0}, "temperature must be a positive number; got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a positive number"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        train_pooled_probes(world(0).states(), SITE, **options)


def test_states_that_do_not_fit() -> None:
    data = world(0)
    with pytest.raises(StudyError, match=r"no states at 'block\[9\]'; did you mean"):
        train_pooled_probes(data.states(), "block[9]")
    with pytest.raises(StudyError, match="no states at"):
        dataclasses.replace(drawn_probes(), site="embed").score(data.states())
    with pytest.raises(DataError, match="probes of width 5 do not fit states of width 8"):
        drawn_probes(width=5).score(data.states())
    for missing in ("train", "cal"):
        splits = ["test" if name == missing else name for name in data.splits]
        states = dataclasses.replace(data, splits=splits).states()
        with pytest.raises(DataError, match=f"no {missing} sample has tokens"):
            train_pooled_probes(states, SITE)
