"""Units matched to concepts, against plain loops over units, levels, concepts and samples."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from detection import oracle
from detection.worlds import World, world
from superactivators.concepts.bank import ConceptBank
from superactivators.detection.evaluation import evaluate_detection
from superactivators.detection.matching import match_samples, match_tokens, matched_bank
from superactivators.detection.tail import DELTAS
from superactivators.scores.site_scores import WHOLE, InConcept, SiteScores
from superactivators.states.scaling import Scaling
from superactivators.states.states import Level, States

LEVELS = tuple(sorted(DELTAS))
UNITS = 11
POOLS = ("max", "mean", "last", "random", "top-k-mean", "kth", "top-share-mean")


def units_of(states: States, site: str, level: Level = "token", seed: int = 0) -> ConceptBank:
    """Random units, some of which lie near the planted concepts; their numbers are not their places."""
    random = np.random.default_rng(seed)
    raw = states.rows(site, "train", level)
    scaling = Scaling.fit(raw)
    rows = torch.cat([block for _, block in raw.scaled(scaling).blocks()])
    inside = torch.from_numpy(raw.labels.toarray())
    near = torch.stack([rows[inside[:, c]].mean(dim=0) for c in range(inside.shape[1])])
    far = torch.from_numpy(random.standard_normal((UNITS - len(near), near.shape[1])).astype(np.float32))
    vectors = torch.cat([far, near + 0.1 * torch.randn(near.shape, generator=torch.Generator().manual_seed(seed))])
    names = tuple(str(3 * number + 1) for number in range(UNITS))
    return ConceptBank(
        "kmeans", site, level, names, vectors, torch.zeros(UNITS), scaling, "cosine", np.ones(UNITS, dtype=bool)
    )


def slow_scores(data: World, states: States, bank: ConceptBank, pool: str) -> tuple[np.ndarray, np.ndarray]:
    """Activations of all tokens and pooled scores of all samples, unit by unit."""
    activations = bank.activations(torch.from_numpy(data.values[bank.site])).numpy()
    pooled = np.array(
        [oracle.pool(activations[data.offsets[i] : data.offsets[i + 1]], pool, data.ids[i], 0) for i in range(data.n)]
    )
    return activations, pooled


def slow_match(data: World, activations: np.ndarray, pooled: np.ndarray, split: str, *, by_tokens: bool) -> np.ndarray:
    """F1 of every concept, unit and level on a split, with thresholds from cal."""
    cal, judged = data.in_split("cal"), data.in_split(split)
    f1 = np.empty((len(data.concepts), UNITS, len(LEVELS)))
    for c in range(len(data.concepts)):
        for unit in range(UNITS):
            if by_tokens:
                tokens = [t for i in cal for t in range(data.offsets[i], data.offsets[i + 1])]
                tail = [activations[t, unit] for t in tokens if data.token_labels[t, c]]
            else:
                tail = [pooled[i, unit] for i in cal if data.sample_labels[i, c]]
            for level, delta in enumerate(LEVELS):
                threshold = oracle.quantile(tail, delta)
                fires = [pooled[i, unit] >= threshold for i in judged]
                f1[c, unit, level] = oracle.f1([data.sample_labels[i, c] for i in judged], fires)
    return f1


def ranking(f1: np.ndarray) -> list[list[int]]:
    """Places of the units of each concept: best F1, then smallest level, then smallest place."""
    return [
        sorted(range(UNITS), key=lambda unit: (-of_units[unit].max(), int(of_units[unit].argmax()), unit))
        for of_units in f1
    ]


@pytest.mark.parametrize("pool", ["max", "mean", "last", "random"])
def test_units_are_ranked_as_plain_loops_rank_them(pool: str) -> None:
    data = world(0)
    states = data.states()
    bank = units_of(states, "block[1]")
    found = match_tokens(states, bank, LEVELS, poolings=POOLS, variants=4, min_tokens=2)
    activations, pooled = slow_scores(data, states, bank, pool)
    order = ranking(slow_match(data, activations, pooled, "cal", by_tokens=pool == "max"))
    for c in range(len(data.concepts)):
        assert [int(unit) for unit in found.units[pool][:, c]] == [3 * place + 1 for place in order[c][:4]]
        for variant in range(4):
            np.testing.assert_allclose(found.variants[pool][variant, :, c], pooled[:, order[c][variant]], atol=1e-6)
    np.testing.assert_array_equal(found.pooled[pool], found.variants[pool][0])


def test_poolings_that_share_units_take_those_of_max_and_tails_are_theirs() -> None:
    data = world(1)
    states = data.states()
    bank = units_of(states, "block[0]")
    found = match_tokens(states, bank, LEVELS, poolings=POOLS, variants=3, min_tokens=2)
    pairs = InConcept.of(states.labels)
    activations = bank.activations(torch.from_numpy(data.values["block[0]"])).numpy()
    place = {int(name): number for number, name in enumerate(bank.concepts)}
    for name in ("kth", "top-share-mean"):
        np.testing.assert_array_equal(found.units[name], found.units["max"])
    for variant in range(3):
        columns = np.array([place[int(unit)] for unit in found.units["max"][variant]])
        np.testing.assert_allclose(found.tail[variant], activations[pairs.rows, columns[pairs.concepts]], atol=1e-6)
    kept, rows, _ = found.of_split(states.labels, "test")
    columns = np.array([place[int(unit)] for unit in found.units["max"][0]])
    np.testing.assert_allclose(kept, activations[rows][:, columns], atol=1e-6)
    concepts = matched_bank(bank, found.units["max"][0], data.concepts)
    assert concepts.concepts == tuple(data.concepts)
    np.testing.assert_allclose(
        concepts.activations(torch.from_numpy(data.values["block[0]"])).numpy(), activations[:, columns], atol=1e-6
    )


def test_the_oracle_is_the_unit_that_test_would_choose_at_the_level_of_cal() -> None:
    data = world(2)
    states = data.states()
    bank = units_of(states, "block[2]")
    found = match_tokens(states, bank, LEVELS, poolings=("max",))
    activations, pooled = slow_scores(data, states, bank, "max")
    on_cal = slow_match(data, activations, pooled, "cal", by_tokens=True)
    on_test = slow_match(data, activations, pooled, "test", by_tokens=True)
    for c in range(len(data.concepts)):
        unit = int(on_test[c].max(axis=1).argmax())
        level = int(on_cal[c, unit].argmax())
        assert found.oracle["unit"][c] == 3 * unit + 1
        assert found.oracle["delta"][c] == LEVELS[level]
        assert found.oracle["f1"][c] == pytest.approx(on_test[c, unit, level])


def test_sample_states_are_matched_by_positive_samples() -> None:
    data = world(3)
    states = data.states()
    bank = units_of(states, "block[1]", "sample")
    found = match_samples(states, bank, LEVELS, variants=5)
    pooled = bank.activations(torch.from_numpy(data.sample_values["block[1]"])).numpy()
    order = ranking(slow_match(data, pooled, pooled, "cal", by_tokens=False))
    for c in range(len(data.concepts)):
        assert [int(unit) for unit in found.units[WHOLE][:, c]] == [3 * place + 1 for place in order[c][:5]]


def test_memory_only_decides_how_often_states_are_read() -> None:
    data = world(4)
    states = data.states()
    bank = units_of(states, "block[1]")
    usual = match_tokens(states, bank, LEVELS, poolings=POOLS, min_tokens=2)
    small = match_tokens(states, bank, LEVELS, poolings=POOLS, min_tokens=2, memory=1)
    for name in POOLS:
        np.testing.assert_array_equal(usual.units[name], small.units[name])
        np.testing.assert_allclose(usual.variants[name], small.variants[name], atol=1e-6)
    for name in ("unit", "delta", "f1"):
        np.testing.assert_allclose(usual.oracle[name], small.oracle[name], atol=1e-6)


def test_test_labels_choose_nothing_but_the_oracle() -> None:
    data = world(5)
    states = data.states()
    changed = data.sample_labels.copy()
    changed[data.in_split("test")] ^= True
    other = dataclasses.replace(states, labels=dataclasses.replace(states.labels, samples=changed))
    bank = units_of(states, "block[1]")
    one, two = (match_tokens(given, bank, LEVELS, poolings=POOLS, min_tokens=2) for given in (states, other))
    for name in POOLS:
        np.testing.assert_array_equal(one.units[name], two.units[name])
    assert not np.array_equal(one.oracle["f1"], two.oracle["f1"])


def test_concepts_may_share_a_unit() -> None:
    data = world(6)
    data.sample_labels[:, 1], data.token_labels[:, 1] = data.sample_labels[:, 0], data.token_labels[:, 0]
    states = data.states()
    found = match_tokens(states, units_of(states, "block[1]"), LEVELS, poolings=("max",))
    np.testing.assert_array_equal(found.units["max"][:, 0], found.units["max"][:, 1])


def test_site_unit_and_level_are_chosen_together_and_anew_in_every_resample() -> None:
    data = world(7)
    states = data.states()
    banks = {site: units_of(states, site, seed=number) for number, site in enumerate(states.sites)}
    held = {site: match_tokens(states, bank, LEVELS, poolings=("max",), variants=UNITS) for site, bank in banks.items()}

    def scores(kind: str, level: str, site: str) -> SiteScores:
        return held[site]

    result = evaluate_detection(
        scores, states.sites, ["kmeans"], states.labels, method_names=["superactivators"], resamples=12
    )
    cal = data.in_split("cal")
    slow = {site: slow_scores(data, states, bank, "max") for site, bank in banks.items()}
    for c, concept in enumerate(data.concepts):
        f1 = np.array(
            [slow_match(data, *slow[site], "cal", by_tokens=True)[c] for site in states.sites]
        )  # [sites, units, levels]
        best = f1.max()
        level = int(np.flatnonzero((f1 == best).any(axis=(0, 1)))[0])
        site = int(np.flatnonzero((f1[:, :, level] == best).any(axis=1))[0])
        unit = int(np.flatnonzero(f1[site, :, level] == best)[0])
        (threshold,) = [item for item in result.thresholds if item.concept == concept]
        assert (threshold.site, threshold.delta) == (states.sites[site], LEVELS[level])
        assert threshold.unit == 3 * unit + 1
        tokens = [t for i in cal for t in range(data.offsets[i], data.offsets[i + 1]) if data.token_labels[t, c]]
        tail = [slow[states.sites[site]][0][t, unit] for t in tokens]
        assert threshold.value == pytest.approx(oracle.quantile(tail, LEVELS[level]), abs=1e-6)
    # the same resamples as in a study whose sites are all pairs of a site and a unit
    apart = {
        f"{site} {variant}": dataclasses.replace(
            held[site],
            pooled={"max": held[site].variants["max"][variant]},
            variants={},
            units={},
            tail=held[site].tail[variant : variant + 1],
            oracle={},
        )
        for site in states.sites
        for variant in range(UNITS)
    }
    spelled_out = evaluate_detection(
        lambda kind, level, site: apart[site],
        list(apart),
        ["kmeans"],
        states.labels,
        method_names=["superactivators"],
        resamples=12,
    )
    name = "kmeans/superactivators"
    np.testing.assert_array_equal(spelled_out.resamples[name], result.resamples[name])
