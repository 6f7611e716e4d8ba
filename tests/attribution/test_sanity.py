"""Random vectors and models, rank correlation against scipy, and that the check tells good maps from bad ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import spearmanr

from attribution.conftest import CONCEPTS, random_detector
from superactivators.attribution.activation import Activation
from superactivators.attribution.explainer import Explainer
from superactivators.attribution.rollout import Rollout
from superactivators.attribution.sanity import (
    MapCorrelations,
    rank_correlation,
    sanity_table,
    unchanged,
    with_random_model,
    with_random_vectors,
)
from superactivators.attribution.scene import Scene
from superactivators.detection.detector import Detector
from superactivators.errors import StudyError
from superactivators.models.backbone import Backbone

Make = Callable[..., Scene]


# ------------------------------------------------------------------ random vectors


def test_random_vectors_keep_norm_and_nothing_else() -> None:
    detector = random_detector(32)
    drawn = with_random_vectors(detector, seed=3)
    assert drawn.concepts == detector.concepts
    assert drawn.sites == detector.sites
    for before, after in zip(detector.banks, drawn.banks, strict=True):
        norms = [torch.linalg.vector_norm(bank.vectors, dim=1) for bank in (before, after)]
        torch.testing.assert_close(*norms)
        cosine = torch.nn.functional.cosine_similarity(before.vectors, after.vectors)
        assert bool((cosine.abs() < 0.7).all())
        assert before.scaling is after.scaling
        torch.testing.assert_close(before.bias, after.bias)
    assert all(np.isposinf(threshold.value) for threshold in drawn.thresholds)
    assert all(np.isfinite(threshold.value) for threshold in detector.thresholds)


def test_random_vectors_depend_on_seed_and_concept_only() -> None:
    detector = random_detector(32)
    first, again, other = (with_random_vectors(detector, seed) for seed in (1, 1, 2))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    (alone,) = [bank for bank in first.banks if "loud" in bank.concepts]
    fewer = Detector.of({alone.site: detector.banks[1]}, [detector.thresholds[CONCEPTS.index("loud")]])
    torch.testing.assert_close(with_random_vectors(fewer, 1).banks[0].vectors, alone.vectors)
    a, b = first.banks[0].vectors
    assert abs(float(torch.nn.functional.cosine_similarity(a, b, dim=0))) < 0.7


def test_vectors_that_could_not_be_learned_stay_zero() -> None:
    detector = random_detector(32)
    bank = detector.banks[0]
    zero = replace(bank, vectors=torch.zeros_like(bank.vectors))
    drawn = with_random_vectors(replace(detector, banks=(zero, *detector.banks[1:])))
    assert not drawn.banks[0].vectors.any()


def test_latents_are_refused() -> None:
    detector = random_detector(32)
    bank = object.__new__(type(detector.banks[0]))
    bank.__dict__.update({**detector.banks[0].__dict__, "activation": "latent"})
    with pytest.raises(StudyError, match="encoder"):
        with_random_vectors(replace(detector, banks=(bank, *detector.banks[1:])))


def test_the_highest_token_stands_in_for_superactivators(text_scene: Make) -> None:
    scene = text_scene(detector=with_random_vectors(random_detector(32)))
    assert scene.objectives.fallback.all()
    np.testing.assert_array_equal(scene.objectives.fired.sum(axis=0), 1)


# ------------------------------------------------------------------ random models


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_random_model_is_a_changed_copy(
    backbones: Callable[[str], Backbone], text_scene: Make, image_scene: Make, family: str
) -> None:
    original = backbones(family)
    before = {name: value.clone() for name, value in original.model.state_dict().items()}
    mark = original.fingerprint
    drawn = with_random_model(original, seed=5)
    assert drawn.reader is original.reader
    assert drawn.fingerprint != mark == original.fingerprint
    for name, value in original.model.state_dict().items():
        assert torch.equal(value, before[name])
    changed = {name for name, value in drawn.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(original.blocks_path) for name in changed)
    for name, value in drawn.model.named_parameters():
        if name in changed:
            error = 6 / value.numel() ** 0.5 * float(before[name].std())
            assert abs(float(value.detach().mean() - before[name].mean())) < error
            assert abs(float(value.detach().std() - before[name].std())) < error
    make = text_scene if family == "bert" else image_scene
    scene = make(family)
    other = Scene.of(drawn, random_detector(32), scene.sample)
    assert float((scene.states["block[1]"] - other.states["block[1]"]).abs().max()) > 0.1
    again = Scene.of(with_random_model(original, seed=5), random_detector(32), scene.sample)
    torch.testing.assert_close(other.states["block[1]"], again.states["block[1]"], rtol=0, atol=0)


def test_random_model_from_a_block_on(backbones: Callable[[str], Backbone], text_scene: Make) -> None:
    scene = text_scene()
    drawn = with_random_model(backbones("bert"), first_block=2)
    other = Scene.of(drawn, random_detector(32), scene.sample)
    assert torch.equal(other.states["block[1]"], scene.states["block[1]"])
    assert not torch.allclose(other.states["block[2]"], scene.states["block[2]"])
    for block in (-1, 4):
        with pytest.raises(StudyError, match="give 0 to 3"):
            with_random_model(backbones("bert"), first_block=block)


def test_parameters_of_equal_entries_stay(backbones: Callable[[str], Backbone]) -> None:
    constant = with_random_model(backbones("bert"))
    with torch.no_grad():
        constant.blocks[1].output.dense.weight.fill_(0.25)
    drawn = with_random_model(constant)
    assert bool((drawn.blocks[1].output.dense.weight == 0.25).all())


# ------------------------------------------------------------------ rank correlation

FEW_VALUES = st.integers(-3, 3).map(float)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.just(2), st.integers(2, 12), st.integers(1, 4)), elements=FEW_VALUES),
)
def test_rank_correlation_equals_scipy(pair: np.ndarray) -> None:
    found = rank_correlation(*pair)
    for column, value in enumerate(found):
        first, second = pair[0, :, column], pair[1, :, column]
        if np.ptp(first) == 0 or np.ptp(second) == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)


def test_rank_correlation_of_no_or_one_token() -> None:
    assert np.isnan(rank_correlation(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32))).all()
    assert np.isnan(rank_correlation(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32))).all()


def test_constant_maps_of_any_length_have_no_correlation() -> None:
    for length in range(2, 300):
        assert np.isnan(rank_correlation(np.full((length, 1), 0.1), np.arange(length, dtype=float)[:, None]))


# ------------------------------------------------------------------ table


def test_table_equals_loops() -> None:
    generator = np.random.default_rng(0)
    samples = generator.integers(0, 8, 30)
    values = generator.uniform(-1, 1, 30)
    values[[3, 11]] = np.nan
    table = sanity_table([MapCorrelations("lime", "concept", "model", samples, values)], resamples=3000)
    (row,) = table.to_pylist()
    kept = np.isfinite(values)
    assert row["cases"] == 28
    assert row["correlation"] == pytest.approx(values[kept].mean())
    groups = [values[kept & (samples == number)] for number in np.unique(samples[kept])]
    means = [
        np.concatenate([groups[place] for place in generator.integers(0, len(groups), len(groups))]).mean()
        for _ in range(3000)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    assert row["low"] == pytest.approx(low, abs=0.03)
    assert row["high"] == pytest.approx(high, abs=0.03)


def test_table_without_cases() -> None:
    none = MapCorrelations("rollout", "concept", "vectors", np.array([0, 1]), np.array([np.nan, np.nan]))
    (row,) = sanity_table([none]).to_pylist()
    assert row["cases"] == 0
    assert np.isnan(row["correlation"])
    assert unchanged(sanity_table([none])) == []
    assert sanity_table([]).column_names == [
        "explainer",
        "objective",
        "randomised",
        "correlation",
        "low",
        "high",
        "cases",
    ]


def test_maps_that_know_nothing_of_the_concept_are_caught(
    backbones: Callable[[str], Backbone], text_scene: Make
) -> None:
    detector = random_detector(32)
    texts = ["The quick brown fox jumps.", "A model of language reads tokens.", "Concepts are directions."]
    random_detectors = with_random_vectors(detector, seed=1)
    drawn = with_random_model(backbones("bert"), seed=1)
    kinds: dict[str, Explainer] = {"activation": Activation(), "rollout": Rollout()}
    found: dict[tuple[str, str, str], list[float]] = {}
    for number, text in enumerate(texts):
        scene = text_scene(text=text, name=str(number), detector=detector)
        others = {
            "vectors": text_scene(text=text, name=str(number), detector=random_detectors),
            "model": Scene.of(drawn, detector, scene.sample),
        }
        for name, explainer in kinds.items():
            for randomised, other in others.items():
                correlation = rank_correlation(explainer.maps(scene), explainer.maps(other))
                for column, value in enumerate(correlation):
                    objective = scene.objectives.objectives[column]
                    found.setdefault((name, objective, randomised), []).append(float(value))
    samples = np.repeat(np.arange(len(texts)), len(CONCEPTS))
    table = sanity_table([MapCorrelations(*key, samples, np.array(values)) for key, values in found.items()])
    assert unchanged(table) == [("rollout", "concept", "vectors")]
    by_row = {tuple(row[name] for name in ("explainer", "objective", "randomised")): row for row in table.to_pylist()}
    assert by_row["rollout", "concept", "vectors"]["correlation"] == 1.0
    assert by_row["activation", "concept", "vectors"]["correlation"] < 0.6
    assert by_row["activation", "concept", "model"]["correlation"] < 0.9
