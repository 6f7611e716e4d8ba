"""Insertion and deletion against one variant at a time, areas against numpy, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superactivators.attribution.faithfulness import LEAST_SPAN, Curves, curves, normalisable
from superactivators.attribution.objectives import Objectives
from superactivators.attribution.scene import Scene
from superactivators.errors import StudyError

PAIRS = (("red", "superactivators"), ("red", "concept"), ("loud", "concept"), ("loud", "superactivators"))


EVERY = np.array(True)


class Fake:
    """A sample whose objectives are any function of the tokens that are kept."""

    def __init__(self, n_tokens: int, seed: int = 0, pairs: tuple[tuple[str, str], ...] = PAIRS) -> None:
        self.n_tokens, self.calls, self.variants = n_tokens, 0, 0
        random = np.random.default_rng(seed)
        self.single = random.standard_normal((n_tokens, len(pairs)))
        self.double = random.standard_normal((n_tokens, n_tokens, len(pairs))) / n_tokens
        self.objectives = Objectives(
            concepts=tuple(concept for concept, _ in pairs),
            objectives=tuple(objective for _, objective in pairs),  # type: ignore[misc]
            sites=("block[0]",) * len(pairs),
            readouts={},
            fired=np.ones((n_tokens, len(pairs)), dtype=bool),
            fallback=np.zeros(len(pairs), dtype=bool),
        )

    def values(self, keep: np.ndarray) -> np.ndarray:
        self.calls += 1
        self.variants += len(keep)
        x = keep.astype(float)
        return (0.5 + x @ self.single + np.einsum("mi,mj,ijc->mc", x, x, self.double)).astype(np.float32)


def slow_curve(scene: Fake | Scene, order: list[int], column: int, steps: int, *, insert: bool) -> list[float]:
    """Number of tokens at each point from exact fractions, one forward pass a point."""
    curve = []
    for step in range(steps + 1):
        count = int(len(order) * step / steps + 0.5)
        chosen = set(order[:count])
        keep = np.array([[(token in chosen) == insert for token in range(len(order))]])
        curve.append(float(scene.values(keep)[0, column]))
    return curve


def slow_order(values: np.ndarray) -> list[int]:
    return sorted(range(len(values)), key=lambda token: (-float(values[token]), token))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), tokens=st.integers(1, 11), steps=st.integers(1, 13), digits=st.sampled_from([0, 4]))
def test_curves_against_one_variant_at_a_time(seed: int, tokens: int, steps: int, digits: int) -> None:
    scene = Fake(tokens, seed)
    maps = np.round(np.random.default_rng(seed).standard_normal((2, tokens, 4)), digits).astype(np.float32)
    found = curves(scene, maps, steps)
    assert scene.calls == 1
    assert found.insertion.shape == found.deletion.shape == (2, 4, steps + 1)
    for explainer in range(2):
        for column, concept in enumerate((1, 1, 2, 2)):
            order = slow_order(maps[explainer, :, column])
            for part, insert in ((found.insertion, True), (found.deletion, False)):
                slow = slow_curve(scene, order, concept, steps, insert=insert)
                np.testing.assert_allclose(part[explainer, column], slow, atol=1e-5)


def test_a_real_scene(text_scene: Callable[..., Scene]) -> None:
    scene = text_scene(text="A brown fox jumps.")
    maps = scene.agreement()
    found = curves(scene, maps, 4)
    columns = {name: number for number, name in enumerate(scene.objectives.concepts[::2])}
    for column, concept in enumerate(scene.objectives.concepts):
        slow = slow_curve(scene, slow_order(maps[:, column]), 2 * columns[concept], 4, insert=True)
        np.testing.assert_allclose(found.insertion[column], slow, atol=2e-6)
        slow = slow_curve(scene, slow_order(maps[:, column]), 2 * columns[concept], 4, insert=False)
        np.testing.assert_allclose(found.deletion[column], slow, atol=2e-6)
    assert np.ptp(found.insertion, axis=-1).min() > 1e-4


def test_the_exact_map_of_an_additive_sample_is_best() -> None:
    scene = Fake(8)
    scene.double[:] = 0
    scene.single[:] = np.abs(scene.single)
    exact = np.repeat(scene.single[:, [1, 2]], 2, axis=1).astype(np.float32)
    random = np.random.default_rng(1)
    others = [random.permutation(exact) for _ in range(50)]
    areas = curves(scene, np.stack([exact, *others]), 8).areas(EVERY)
    assert (areas["insertion"][0] >= areas["insertion"][1:].max(axis=0) - 1e-6).all()
    assert (areas["deletion"][0] <= areas["deletion"][1:].min(axis=0) + 1e-6).all()
    assert areas["insertion"][0].min() > 0.55
    # What is inserted first is deleted first: without interactions the two areas add up to one.
    np.testing.assert_allclose(areas["insertion"] + areas["deletion"], 1, atol=1e-5)


def test_areas_against_numpy_and_normalising_against_the_ends() -> None:
    random = np.random.default_rng(2)
    insertion = random.standard_normal((3, 2, 6))
    deletion = insertion[..., ::-1] + np.pad(random.standard_normal((3, 2, 4)), ((0, 0), (0, 0), (1, 1)))
    both = Curves(insertion, deletion)
    areas, normal = both.areas(EVERY), both.normalised(EVERY)
    assert both.shares.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    for e in range(3):
        for c in range(2):
            empty, full = insertion[e, c, 0], insertion[e, c, -1]
            for name, raw in (("insertion", insertion[e, c]), ("deletion", deletion[e, c])):
                expected = [(value - empty) / (full - empty) for value in raw]
                assert areas[f"{name}_raw"][e, c] == pytest.approx(np.trapezoid(raw, both.shares))
                assert areas[name][e, c] == pytest.approx(np.trapezoid(expected, both.shares))
                np.testing.assert_allclose(getattr(normal, name)[e, c], expected)
    assert normal.insertion.max() > 1  # nothing is clipped
    np.testing.assert_allclose(normal.insertion[..., [0, -1]] - np.array([0, 1]), 0, atol=1e-12)
    np.testing.assert_allclose(normal.deletion[..., [0, -1]] - np.array([1, 0]), 0, atol=1e-12)


def test_what_is_not_chosen_or_has_no_span_is_not_normalised() -> None:
    curve = np.array([[2.0, 5.0, 3.0], [2.0, 5.0, 3.0], [2.0, 5.0, 2.0]])
    both = Curves(curve, curve[:, ::-1])
    areas = both.areas(np.array([True, False, True]))
    assert np.isfinite(areas["insertion"]).tolist() == np.isfinite(areas["deletion"]).tolist() == [True, False, False]
    np.testing.assert_allclose(areas["insertion_raw"], [15 / 4, 15 / 4, 14 / 4])
    assert both.span.tolist() == [1, 1, 0]


def test_cases_are_normalised_where_the_full_input_clearly_agrees_more() -> None:
    random = np.random.default_rng(5)
    span, concepts = random.standard_normal(60), random.integers(0, 4, 60)
    concepts[concepts == 2] = 3  # a number without a case
    found = normalisable(span, concepts)
    assert 5 < found.sum() < 35
    for case in range(60):
        usual = np.mean([abs(span[other]) for other in range(60) if concepts[other] == concepts[case]])
        assert found[case] == (span[case] > 0 and span[case] >= LEAST_SPAN * usual)
    assert not normalisable(np.zeros(3), np.zeros(3, dtype=np.int64)).any()
    assert not len(normalisable(np.zeros(0), np.zeros(0, dtype=np.int64)))


def test_columns_are_independent_and_explainers_may_be_stacked() -> None:
    maps = np.random.default_rng(4).standard_normal((3, 9, 4)).astype(np.float32)
    whole = curves(Fake(9), maps, 6)
    for explainer in range(3):
        alone = curves(Fake(9), maps[explainer], 6)
        np.testing.assert_allclose(alone.insertion, whole.insertion[explainer], atol=1e-6)
        np.testing.assert_allclose(alone.deletion, whole.deletion[explainer], atol=1e-6)
    order = [3, 1, 0, 2]
    turned = Fake(9, pairs=tuple(PAIRS[k] for k in order))
    turned.single, turned.double = Fake(9).single[:, order], Fake(9).double[..., order]
    np.testing.assert_allclose(curves(turned, maps[..., order], 6).insertion, whole.insertion[:, order], atol=1e-6)


def test_shared_variants_are_run_once() -> None:
    scene = Fake(7)
    curves(scene, np.repeat(np.arange(7, dtype=np.float32)[:, None], 4, axis=1)[None].repeat(5, axis=0), 7)
    assert scene.variants == 2 * 8 - 2  # the same order everywhere: full and empty input are in both curves
    few = Fake(2)
    curves(few, np.array([[1.0] * 4, [0.0] * 4], dtype=np.float32), 20)
    assert few.variants == 4


def test_what_cannot_be_measured_is_refused() -> None:
    maps = np.zeros((5, 4), dtype=np.float32)
    with pytest.raises(StudyError, match="at least 1 step; got 0"):
        curves(Fake(5), maps, 0)
    with pytest.raises(StudyError, match=r"have shape \(5, 3\); .* \(5, 4\)"):
        curves(Fake(5), maps[:, :3])
    maps[2, 1] = np.nan
    with pytest.raises(StudyError, match="1 of 20 values of the maps are not finite"):
        curves(Fake(5), maps)
    lacking = Fake(5, pairs=(("red", "concept"), ("loud", "superactivators")))
    with pytest.raises(StudyError, match=r"objective 'concept', which this scene lacks for \['loud'\]"):
        curves(lacking, np.zeros((5, 2), dtype=np.float32))
