"""Resampled F1 and thresholds against samples that are physically repeated."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp

from detection.oracle import calibrate, calibrate_free, judge, micro, quantile, repeated, sample_tail, token_tail
from superactivators.detection import bootstrap as room
from superactivators.detection.bootstrap import Bootstrapped, Resamples, bootstrap
from superactivators.detection.intervals import interval
from superactivators.detection.selection import Calibration
from superactivators.detection.tail import Tail
from superactivators.ragged import segment_ids

LEVELS = (0.01, 0.1, 0.3, 0.5, 0.9)
LAYERS, CONCEPTS = 3, 4


@dataclass
class Drawn:
    """Tokens of cal, pooled scores of both splits, labels; the last concept is so rare that resamples lose it."""

    tokens: np.ndarray
    token_labels: np.ndarray
    offsets: np.ndarray
    cal: np.ndarray
    cal_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    def fitted(self, source: str) -> Calibration:
        if source == "free":
            return Calibration.fit_free(list(self.cal), self.cal_labels)
        if source == "tokens":
            marked = sp.csr_matrix(self.token_labels)
            tails = [Tail.of_tokens(layer, marked, segment_ids(self.offsets)) for layer in self.tokens]
        else:
            tails = [Tail.of_samples(layer, self.cal_labels) for layer in self.cal]
        return Calibration.fit(tails, list(self.cal), self.cal_labels, LEVELS)

    def run(self, source: str, resamples: Resamples) -> Bootstrapped:
        held = (list(self.cal), self.cal_labels, self.test, self.test_labels)
        return bootstrap(self.fitted(source), *held, resamples, LEVELS)

    def reordered(self, cal: Sequence[int], test: Sequence[int]) -> Drawn:
        rows = np.concatenate([np.arange(self.offsets[i], self.offsets[i + 1]) for i in cal])
        return Drawn(
            self.tokens[:, rows],
            self.token_labels[rows],
            np.concatenate([[0], np.cumsum(np.diff(self.offsets)[list(cal)])]),
            self.cal[:, cal],
            self.cal_labels[cal],
            self.test[:, test],
            self.test_labels[test],
        )


def draw(seed: int, digits: int) -> Drawn:
    random = np.random.default_rng(seed)
    n_cal, n_test = 24, 31
    share = np.array([0.5, 0.25, 0.15, 0.0])

    def split(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        offsets = np.concatenate([[0], np.cumsum(random.integers(1, 6, size=n))])
        present = random.random((n, CONCEPTS)) < share
        present[:2, -1] = True
        inside = present[segment_ids(offsets)] & (random.random((offsets[-1], CONCEPTS)) < 0.6)
        inside[offsets[:-1]] |= present  # at least the first token of a positive sample
        tokens = random.standard_normal((LAYERS, offsets[-1], CONCEPTS)) + 1.3 * inside
        tokens = np.round(tokens, digits).astype(np.float32)
        pooled = np.stack([tokens[:, a:b].max(axis=1) for a, b in itertools.pairwise(offsets)], axis=1)
        return tokens, inside, offsets, pooled, present

    tokens, inside, offsets, cal, cal_labels = split(n_cal)
    _, _, _, test, test_labels = split(n_test)
    return Drawn(tokens, inside, offsets, cal, cal_labels, test, test_labels)


@pytest.mark.parametrize("source", ["tokens", "samples"])
@pytest.mark.parametrize(("seed", "digits"), [(0, 6), (1, 1)])
def test_every_resample_equals_a_study_of_repeated_samples(source: str, seed: int, digits: int) -> None:
    data = draw(seed, digits)
    cal, test = range(len(data.cal_labels)), range(len(data.test_labels))
    resamples = Resamples.draw(len(cal), len(test), 25, seed)
    found, fitted = data.run(source, resamples), data.fitted(source)
    if source == "tokens":
        tail = token_tail(list(data.tokens), data.token_labels, data.offsets)
    else:
        tail = sample_tail(data.cal, data.cal_labels)
    whole = calibrate(tail, data.cal, data.cal_labels, cal, LEVELS)
    assert (whole.layer, whole.level) == (fitted.choice.candidate.tolist(), fitted.choice.level.tolist())
    lost = 0
    for r in range(25):
        drawn_cal, drawn_test = repeated(cal, resamples.cal[r]), repeated(test, resamples.test[r])
        assert len(drawn_cal) == len(cal)
        assert len(drawn_test) == len(test)
        anew = calibrate(tail, data.cal, data.cal_labels, drawn_cal, LEVELS)
        lost += anew.value[-1] == np.inf
        nested = judge(data.test, data.test_labels, drawn_test, anew.layer, anew.value)
        fixed = judge(data.test, data.test_labels, drawn_test, whole.layer, whole.value)
        np.testing.assert_allclose(found.nested[r], nested, atol=1e-12)
        np.testing.assert_allclose(found.fixed[r], fixed, atol=1e-12)
        held = (data.test, data.test_labels, drawn_test)
        assert found.nested_micro[r] == pytest.approx(micro(*held, anew.layer, anew.value), abs=1e-12)
        assert found.fixed_micro[r] == pytest.approx(micro(*held, whole.layer, whole.value), abs=1e-12)
        positives = [sum(bool(data.test_labels[i, c]) for i in drawn_test) for c in range(CONCEPTS)]
        assert found.positives[r].tolist() == positives
        own = [quantile(tail(whole.layer[c], c, drawn_cal), LEVELS[whole.level[c]]) for c in range(CONCEPTS)]
        np.testing.assert_allclose(found.thresholds[r], own, rtol=1e-12)
    assert lost, "some resample must lose the rare concept altogether"
    assert not np.array_equal(found.nested, found.fixed)


@pytest.mark.parametrize(("seed", "digits"), [(0, 6), (1, 1), (2, 0)])
def test_free_thresholds_are_chosen_anew_in_every_resample(seed: int, digits: int) -> None:
    data = draw(seed, digits)
    resamples = Resamples.draw(24, 31, 25, seed)
    found = data.run("free", resamples)
    whole = calibrate_free(data.cal, data.cal_labels, range(24))
    lost = 0
    for r in range(25):
        drawn_cal, drawn_test = repeated(range(24), resamples.cal[r]), repeated(range(31), resamples.test[r])
        anew = calibrate_free(data.cal, data.cal_labels, drawn_cal)
        lost += anew.value[-1] == np.inf
        nested = judge(data.test, data.test_labels, drawn_test, anew.layer, anew.value)
        fixed = judge(data.test, data.test_labels, drawn_test, whole.layer, whole.value)
        np.testing.assert_allclose(found.nested[r], nested, atol=1e-12)
        np.testing.assert_allclose(found.fixed[r], fixed, atol=1e-12)
        np.testing.assert_array_equal(
            found.thresholds[r], [anew.thresholds[whole.layer[c], 0, c] for c in range(CONCEPTS)]
        )
    assert lost, "some resample must lose the rare concept altogether"
    assert not np.array_equal(found.nested, found.fixed)


def test_given_thresholds_need_no_cal_scores_and_stay() -> None:
    data = draw(0, 2)
    answers = (data.test[:1] > 0).astype(np.float32)
    resamples = Resamples.draw(24, 31, 25, 0)
    found = bootstrap(Calibration.fixed(0.5, CONCEPTS), [], data.cal_labels, answers, data.test_labels, resamples, ())
    np.testing.assert_array_equal(found.nested, found.fixed)
    np.testing.assert_array_equal(found.nested_micro, found.fixed_micro)
    assert (found.thresholds == 0.5).all()
    for r in range(25):
        held = (answers, data.test_labels, repeated(range(31), resamples.test[r]), [0] * CONCEPTS, [0.5] * CONCEPTS)
        np.testing.assert_allclose(found.fixed[r], judge(*held), atol=1e-12)
        assert found.fixed_micro[r] == pytest.approx(micro(*held), abs=1e-12)


def test_averages_of_resamples() -> None:
    found = draw(1, 2).run("samples", Resamples.draw(24, 31, 8, 0))
    for kind, f1, micro_f1 in (
        ("nested", found.nested, found.nested_micro),
        ("fixed", found.fixed, found.fixed_micro),
        ("damped", found.damped, found.damped_micro),
    ):
        averages = found.averages(kind)
        for r in range(8):
            assert averages["macro"][r] == pytest.approx(f1[r].mean())
            assert averages["weighted"][r] == pytest.approx(np.average(f1[r], weights=found.positives[r]))
        assert averages["micro"].tolist() == micro_f1.tolist()
    np.testing.assert_allclose((found.damped - found.fixed) ** 2, (found.nested - found.fixed) ** 2 / 2)


@pytest.mark.parametrize("source", ["tokens", "samples", "free"])
@pytest.mark.parametrize("together", [1, 7, 1000])
def test_resamples_do_not_depend_on_how_many_are_worked_on_together(
    together: int, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = draw(2, 2)
    resamples = Resamples.draw(24, 31, 90, 5)
    usual = data.run(source, resamples)
    monkeypatch.setattr(room, "MOST_TOGETHER", together)
    again = data.run(source, resamples)
    for name in ("nested", "fixed", "positives", "thresholds", "nested_micro", "fixed_micro"):
        np.testing.assert_array_equal(getattr(again, name), getattr(usual, name))


def test_memory_bounds_how_many_are_worked_on_together(monkeypatch: pytest.MonkeyPatch) -> None:
    resamples = Resamples.draw(24, 31, 90, 5)
    monkeypatch.setattr(room, "CHUNK_BYTES", 1000)
    assert [(part.start, part.stop) for part in resamples.chunks(25)] == [(0, 40), (40, 80), (80, 90)]
    assert len(list(resamples.chunks(5000))) == 90


@pytest.mark.parametrize("source", ["tokens", "samples"])
def test_the_order_of_samples_does_not_matter(source: str) -> None:
    data = draw(3, 1)
    resamples = Resamples.draw(24, 31, 40, 5)
    random = np.random.default_rng(0)
    cal, test = random.permutation(24), random.permutation(31)
    usual = data.run(source, resamples)
    again = data.reordered(cal.tolist(), test.tolist()).run(
        source, Resamples(resamples.cal[:, cal], resamples.test[:, test])
    )
    for name in ("nested", "fixed", "positives", "thresholds", "nested_micro", "fixed_micro"):
        np.testing.assert_array_equal(getattr(again, name), getattr(usual, name))


def test_drawing_each_sample_once_gives_the_study_itself() -> None:
    data = draw(4, 6)
    once = Resamples(np.ones((1, 24), dtype=np.int32), np.ones((1, 31), dtype=np.int32))
    found, fitted = data.run("tokens", once), data.fitted("tokens")
    truth = judge(data.test, data.test_labels, range(31), fitted.choice.candidate, fitted.chosen_thresholds())
    np.testing.assert_allclose(found.nested[0], truth, atol=1e-12)
    np.testing.assert_array_equal(found.nested, found.fixed)
    np.testing.assert_array_equal(found.thresholds[0], fitted.chosen_thresholds())


def test_draws_are_seeded_multinomial_and_independent_between_splits() -> None:
    first, again, other = (Resamples.draw(20, 20, 400, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.cal, again.cal)
    np.testing.assert_array_equal(first.test, again.test)
    assert not np.array_equal(first.cal, other.cal)
    assert not np.array_equal(first.cal, first.test)
    assert (first.cal.sum(axis=1) == 20).all()
    assert (first.test.sum(axis=1) == 20).all()
    # Each sample is missing from a share (1 - 1/20)^20 of the resamples.
    assert (first.cal == 0).mean() == pytest.approx((1 - 1 / 20) ** 20, abs=0.02)
    assert abs(np.corrcoef(first.cal.ravel(), first.test.ravel())[0, 1]) < 0.05
    assert len(Resamples.draw(3, 4, 0, 0)) == 0
    assert list(Resamples.draw(3, 4, 0, 0).chunks(1)) == []


def test_no_resample_gives_no_interval() -> None:
    found = draw(5, 6).run("tokens", Resamples.draw(24, 31, 0, 0))
    assert found.nested.shape == (0, CONCEPTS)
    low, high = interval(found.nested)
    assert np.isnan(low).all()
    assert np.isnan(high).all()
    assert low.shape == (CONCEPTS,)


def test_interval_takes_the_middle_95_percent() -> None:
    low, high = interval(np.arange(1001.0)[:, None] / 1000)
    assert (float(low[0]), float(high[0])) == pytest.approx((0.025, 0.975))
