"""KernelSHAP and SHAP-IQ."""

from __future__ import annotations

import ast
import inspect
import itertools
import math
import sys
import warnings

import numpy as np
import pytest

from planted_scene import PlantedScene, crooked_scene, linear_scene
from superactivators.attribution import shapley
from superactivators.attribution.explainer import explainers
from superactivators.attribution.shapley import Coalitions, KernelShap, ShapIq
from superactivators.errors import ModelError, StudyError

BOTH = pytest.mark.parametrize("kind", [KernelShap, ShapIq])


def brute_force(scene):
    """Weighted marginal contributions over all coalitions."""
    n = scene.n_tokens
    result = np.zeros((n, scene.n_columns))
    for size in range(n):
        weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
        for others in itertools.combinations(range(n), size):
            keep = np.zeros((1, n))
            keep[0, list(others)] = 1
            without = scene.game(keep)[0]
            for token in set(range(n)) - set(others):
                more = keep.copy()
                more[0, token] = 1
                result[token] += weight * (scene.game(more)[0] - without)
    return result


def difference(scene):
    ends = scene.game(np.array([np.zeros(scene.n_tokens), np.ones(scene.n_tokens)]))
    return (ends[1] - ends[0]).astype(np.float32)


@pytest.mark.parametrize("explainer", [KernelShap(), ShapIq(), ShapIq(order=2)])
@pytest.mark.parametrize("n_tokens", [1, 2, 3, 5, 8])
def test_all_coalitions_give_the_exact_values(explainer, n_tokens):
    scene = crooked_scene(n_tokens)
    np.testing.assert_allclose(explainer.maps(scene), brute_force(scene), rtol=1e-4, atol=1e-5)
    assert scene.forwards == 2**n_tokens


@BOTH
def test_more_coalitions_come_nearer(kind):
    truth = brute_force(crooked_scene(10))

    def error(budget):
        runs = [kind(budget=budget).maps(crooked_scene(10, name=f"sample {number}")) - truth for number in range(6)]
        return np.sqrt(np.mean(np.square(runs)))

    errors = [error(budget) for budget in (40, 200, 800)]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    assert errors[2] < 0.15 * np.std(truth)


def test_kernel_shap_is_exact_on_sums():
    """The equations have one solution from about twice as many coalitions as tokens."""
    scene, weights = linear_scene(60)
    np.testing.assert_allclose(KernelShap().maps(scene), weights, atol=1e-4)


def reference(scene, kind, budget, seed, column, **options):
    """Run the library's own approximator, on what the values differ from the straight line between the ends."""
    import shapiq

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        n = scene.n_tokens
        share = difference(scene)[column] / n
        approximator = getattr(shapiq, kind)(n, pairing_trick=True, random_state=seed, **options)
        found = approximator.approximate(budget, lambda keep: scene.game(keep)[:, column] - share * keep.sum(axis=1))
    singles = share + found.get_n_order_values(1)
    if found.max_order == 2:
        singles = singles + found.get_n_order_values(2).sum(axis=1) / 2
    return singles


@pytest.mark.parametrize(
    ("explainer", "kind", "options"),
    [
        (KernelShap(budget=150), "KernelSHAP", {}),
        (ShapIq(budget=150), "SHAPIQ", {"max_order": 1, "index": "SV"}),
        (ShapIq(budget=150), "UnbiasedKernelSHAP", {}),
        (ShapIq(budget=150, order=2), "SHAPIQ", {"max_order": 2, "index": "k-SII"}),
    ],
)
@pytest.mark.parametrize("n_tokens", [9, 14])
def test_equals_the_library_with_the_same_draws(explainer, kind, options, n_tokens):
    scene = crooked_scene(n_tokens)
    maps = explainer.maps(scene)
    seed = int(scene.generator("coalitions").integers(2**63))
    for column in range(scene.n_columns):
        wanted = reference(scene, kind, 150, seed, column, **options)
        np.testing.assert_allclose(maps[:, column], wanted, rtol=1e-3, atol=1e-4)


def test_order_two_takes_all_single_tokens():
    scene = crooked_scene(20)
    ShapIq(budget=60, order=2).maps(scene)
    sizes = scene.asked[0].sum(axis=1)
    assert [(sizes == size).sum() for size in (0, 1, 19, 20)] == [1, 20, 20, 1]
    with pytest.raises(StudyError, match="order 2 needs a budget of at least 515 for 256 tokens, got 256"):
        ShapIq(order=2).maps(crooked_scene(256))
    assert np.isfinite(ShapIq(budget=43, order=2).maps(scene)).all()


@pytest.mark.parametrize("n_tokens", [100, 128, 256, 400, 1000, 1700])
def test_many_tokens(n_tokens):
    """No factorial overflows, values sum to the difference of the ends, and noise stays in bounds."""
    scene = crooked_scene(n_tokens)
    shap, iq = KernelShap().maps(scene), ShapIq().maps(scene)
    assert (len(scene.asked), scene.forwards) == (2, 256)
    for maps in (shap, iq):
        np.testing.assert_allclose(maps.astype(np.float64).sum(axis=0), difference(scene), rtol=1e-4)
    spread = scene.values(scene.asked[0]).std(axis=0)
    assert (np.abs(shap).max(axis=0) < 3 * spread).all()


@BOTH
def test_seed_sample_and_columns(kind):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    whole = kind().maps(crooked_scene(15))
    np.testing.assert_array_equal(kind().maps(crooked_scene(15)), whole)
    np.testing.assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert np.abs(kind().maps(crooked_scene(15, name="another")) - whole).max() > 1e-3
    for columns in ([1], [2, 0, 1]):
        np.testing.assert_allclose(
            kind().maps(crooked_scene(15, columns=columns)), whole[:, columns], rtol=1e-5, atol=1e-6
        )


@BOTH
def test_tokens_that_act_alike_get_the_same(kind):
    """With all coalitions: exchangeable tokens have equal values, and one without effect has none."""
    scene = PlantedScene(lambda keep: (keep[:, 0] + keep[:, 1]) ** 3 * (1 + keep[:, 2]), 6)
    maps = kind().maps(scene)[:, 0]
    assert maps[0] == pytest.approx(maps[1], rel=1e-5)
    np.testing.assert_allclose(maps[3:], 0, atol=1e-5)


def test_coalitions_stand_for_the_whole_kernel():
    for n_tokens, budget in ((1, 2), (2, 4), (6, 20), (12, 100), (300, 64)):
        drawn = Coalitions.drawn(crooked_scene(n_tokens), budget, "shap-iq")
        assert len(np.unique(drawn.members, axis=0)) == len(drawn.members) == min(budget, 2**n_tokens)
        assert drawn.weights.sum() == pytest.approx(float(n_tokens > 1))
        np.testing.assert_allclose(drawn.centred().sum(axis=1), 0, atol=1e-9)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "shapiq", None)
    monkeypatch.setitem(sys.modules, "shapiq.approximator.sampling", None)
    with pytest.raises(ModelError, match=r"'shap-iq' needs the package shapiq; install superactivators\[attribution\]"):
        ShapIq().maps(crooked_scene(5))


def test_the_library_is_not_loaded_before_it_is_needed():
    """Its import takes seconds, so no module-level statement may do it."""
    body = ast.parse(inspect.getsource(shapley)).body
    imported = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imported
    assert "shapiq" not in " ".join(map(ast.dump, imported))


def test_wrong_options_are_named():
    for kind in (KernelShap, ShapIq):
        with pytest.raises(StudyError, match="budget must be a whole number, at least 2; got 1"):
            kind(budget=1)
    for order in (0, 3, True):
        with pytest.raises(StudyError, match="the order of shap-iq must be 1 or 2"):
            ShapIq(order=order)


def test_real_scenes(text_scene, image_scene):
    assert (explainers["kernel-shap"], explainers["shap-iq"]) == (KernelShap, ShapIq)
    for scene in (text_scene(), image_scene()):
        empty, full = scene.values(np.array([[False], [True]]).repeat(scene.n_tokens, axis=1))
        for explainer in (KernelShap(budget=64), ShapIq(budget=64)):
            maps = explainer.maps(scene)
            assert maps.shape == (scene.n_tokens, scene.n_columns)
            np.testing.assert_allclose(maps.sum(axis=0), full - empty, rtol=1e-4, atol=1e-5)
