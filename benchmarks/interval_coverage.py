"""Do the bootstrap intervals of detection F1 cover what they claim? A simulation with planted activations.

Every simulated study draws a calibration and a test split of samples with in-concept and other tokens, calibrates the
SuperActivators (or the ``max`` baseline) as a study does, and asks several 95 % intervals, all made from the same
resamples, whether they hold the truth. Two truths are asked for:

``procedure``
    the mean test F1 of the whole procedure (choose on a cal split of this size, judge on a test split of this size),
    estimated by the mean over all simulated studies;
``detector``
    the F1 of the one detector that the study calibrated, on a practically infinite test split.

::

    python benchmarks/interval_coverage.py                                   # a rare and a common concept
    python benchmarks/interval_coverage.py --prevalence .02 .03 .04 .05 --shift 1.6 --studies 400
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from superactivators.detection.bootstrap import LEVEL, Resamples, bootstrap
from superactivators.detection.metrics import aggregate, f1_of, fire_counts
from superactivators.detection.selection import Calibration
from superactivators.detection.tail import DELTAS, Tail

TOKENS = 12
"""Tokens of every sample."""

POPULATION = 60_000
"""Samples that stand for an infinite test split."""

MOST_SHOWN = 4
"""With more concepts than this only the averages are printed."""


@dataclass(frozen=True)
class Setting:
    """A population of samples.

    Attributes
    ----------
    prevalence : float array of shape (concepts,)
    shift : float array of shape (layers,)
        How far in-concept tokens stand out at each layer, in standard deviations of all others.
    weak : float
        Share of in-concept tokens that do not stand out at all.
    """

    prevalence: np.ndarray
    shift: np.ndarray
    weak: float

    def draw(self, n: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Activations [layers, n, tokens, concepts], token labels [n, tokens, concepts] and labels [n, concepts]."""
        concepts, layers = len(self.prevalence), len(self.shift)
        labels = generator.random((n, concepts)) < self.prevalence
        run = generator.integers(1, 5, size=(n, 1, concepts))
        inside = (np.arange(TOKENS)[None, :, None] < run) & labels[:, None, :]
        stands_out = inside & (generator.random(inside.shape) >= self.weak)
        # Half of the variance is common to all layers, as in a residual stream.
        common = generator.standard_normal((1, n, TOKENS, concepts), dtype=np.float32)
        own = generator.standard_normal((layers, n, TOKENS, concepts), dtype=np.float32)
        noise = np.sqrt(0.5, dtype=np.float32) * (common + own)
        return noise + self.shift.astype(np.float32)[:, None, None, None] * stands_out, inside, labels


@dataclass(frozen=True)
class Population:
    """F1 on infinitely many samples, at any layer and threshold."""

    setting: Setting
    present: list[list[np.ndarray]]
    absent: list[list[np.ndarray]]

    @staticmethod
    def of(setting: Setting, generator: np.random.Generator) -> Population:
        """Sort the highest activations of many samples with and without each concept."""
        parts = [setting.draw(5000, generator) for _ in range(POPULATION // 5000)]
        highest = np.concatenate([part[0].max(axis=2) for part in parts], axis=1)
        labels = np.concatenate([part[2] for part in parts])
        layers, concepts = range(len(setting.shift)), range(len(setting.prevalence))
        present = [[np.sort(highest[layer, labels[:, c], c]) for c in concepts] for layer in layers]
        absent = [[np.sort(highest[layer, ~labels[:, c], c]) for c in concepts] for layer in layers]
        return Population(setting, present, absent)

    def f1(self, layers: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """F1 of one detector for each concept."""
        result = []
        for c, (layer, threshold) in enumerate(zip(layers, thresholds, strict=True)):
            share = self.setting.prevalence[c]
            caught, alarms = (
                1 - np.searchsorted(scores, threshold, side="left") / len(scores)
                for scores in (self.present[layer][c], self.absent[layer][c])
            )
            result.append(2 * share * caught / (share * caught + (1 - share) * alarms + share))
        return np.array(result)


@dataclass(frozen=True)
class Simulated:
    """One study: point estimates, resampled values and the detector's true F1, by quantity."""

    point: dict[str, float]
    nested: dict[str, np.ndarray]
    fixed: dict[str, np.ndarray]
    detector: dict[str, float]


def quantities(f1: np.ndarray, positives: np.ndarray) -> dict[str, np.ndarray]:
    """Weighted and macro average, and the F1 of every concept."""
    return {**aggregate(f1, positives), **{f"concept {c}": f1[..., c] for c in range(f1.shape[-1])}}


def simulate(
    setting: Setting, population: Population, method: str, sizes: tuple[int, int], resamples: int, seed: int
) -> Simulated:
    """Draw, calibrate, judge and resample one study."""
    generator = np.random.default_rng([seed, 1])
    cal, inside, cal_labels = setting.draw(sizes[0], generator)
    test, _, test_labels = setting.draw(sizes[1], generator)
    cal_scores, test_scores = cal.max(axis=2), test.max(axis=2)
    flat = sp.csr_matrix(inside.reshape(-1, inside.shape[2]))
    owners = np.repeat(np.arange(sizes[0]), TOKENS)
    tails = [
        Tail.of_tokens(layer.reshape(-1, layer.shape[2]), flat, owners)
        if method == "superactivators"
        else Tail.of_samples(scores, cal_labels)
        for layer, scores in zip(cal, cal_scores, strict=True)
    ]
    fitted = Calibration.fit(tails, list(cal_scores), cal_labels, DELTAS)
    draws = Resamples.draw(*sizes, resamples, seed)
    boot = bootstrap(fitted, list(cal_scores), cal_labels, test_scores, test_labels, draws, DELTAS)
    counts = fire_counts(fitted.chosen(test_scores), test_labels, fitted.chosen_thresholds()[None])
    positives = test_labels.sum(axis=0)
    truth = population.f1(fitted.choice.layer, fitted.chosen_thresholds())
    return Simulated(
        {name: float(value) for name, value in quantities(f1_of(*counts, positives)[0], positives).items()},
        quantities(boot.nested, boot.positives),
        quantities(boot.fixed, boot.positives),
        {name: float(value) for name, value in quantities(truth, setting.prevalence).items()},
    )


def difference(one: Simulated, other: Simulated) -> Simulated:
    """Paired differences of two methods on the same samples and draws."""
    return Simulated(
        {name: value - other.point[name] for name, value in one.point.items()},
        {name: values - other.nested[name] for name, values in one.nested.items()},
        {name: values - other.fixed[name] for name, values in one.fixed.items()},
        {name: value - other.detector[name] for name, value in one.detector.items()},
    )


def percentile(value: float, resampled: np.ndarray) -> tuple[float, float]:
    """Take plain percentiles (what `superactivators.detection.bootstrap.interval` gives)."""
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def shifted(value: float, resampled: np.ndarray) -> tuple[float, float]:
    """Take percentiles, moved so that the mean of the resamples is at the point estimate."""
    return percentile(value, resampled - resampled.mean() + value)


def basic(value: float, resampled: np.ndarray) -> tuple[float, float]:
    """Take reflected percentiles: 2 * estimate - percentile."""
    low, high = percentile(value, resampled)
    return 2 * value - high, 2 * value - low


def widened(value: float, resampled: np.ndarray) -> tuple[float, float]:
    """Take the union of the plain and the shifted percentiles."""
    pairs = (percentile(value, resampled), shifted(value, resampled))
    return min(low for low, _ in pairs), max(high for _, high in pairs)


INTERVALS: dict[str, tuple[str, Callable[[float, np.ndarray], tuple[float, float]]]] = {
    "nested percentile": ("nested", percentile),
    "nested shifted": ("nested", shifted),
    "nested basic": ("nested", basic),
    "nested union of percentile and shifted": ("nested", widened),
    "fixed percentile": ("fixed", percentile),
    "fixed shifted": ("fixed", shifted),
}


def report(studies: Sequence[Simulated]) -> None:
    """Print coverage, misses on each side and mean width, for the averages and each of a few concepts."""
    for name in studies[0].point:
        if name.startswith("concept") and len(studies[0].point) > MOST_SHOWN + 2:
            continue
        points = np.array([study.point[name] for study in studies])
        nested_means = np.array([study.nested[name].mean() for study in studies])
        detector = np.array([study.detector[name] for study in studies])
        outside = np.mean(
            [
                not low <= p <= high
                for p, (low, high) in zip(
                    points, (percentile(0.0, study.nested[name]) for study in studies), strict=True
                )
            ]
        )
        print(
            f"\n{name}: procedure {points.mean():.3f} (sd {points.std():.3f}), detector {detector.mean():.3f}, "
            f"mean of nested resamples {nested_means.mean():.3f}, estimate outside its own interval {outside:.1%}"
        )
        print(f"  {'interval':<40} {'procedure':>10} {'truth<low':>10} {'truth>high':>11} {'detector':>9} {'width':>7}")
        for label, (source, make) in INTERVALS.items():
            bounds = np.array([make(study.point[name], getattr(study, source)[name]) for study in studies])
            low, high = bounds.T
            truth = points.mean()
            print(
                f"  {label:<40} {np.mean((low <= truth) & (truth <= high)):>10.1%} {np.mean(truth < low):>10.1%} "
                f"{np.mean(truth > high):>11.1%} {np.mean((low <= detector) & (detector <= high)):>9.1%} "
                f"{np.mean(high - low):>7.3f}"
            )


def main() -> None:
    """Read the options, simulate and print."""
    parser = argparse.ArgumentParser(description="Coverage of the bootstrap intervals of detection F1.")
    parser.add_argument("--prevalence", type=float, nargs="+", default=[0.06, 0.35], help="one for each concept")
    parser.add_argument("--shift", type=float, nargs="+", default=[1.8, 2.1, 2.4], help="separation at each layer")
    parser.add_argument("--weak", type=float, default=0.35, help="share of in-concept tokens that do not stand out")
    parser.add_argument("--n-cal", type=int, default=330)
    parser.add_argument("--n-test", type=int, default=330)
    parser.add_argument("--method", choices=["superactivators", "max"], default="superactivators")
    parser.add_argument("--against", choices=["superactivators", "max"], help="study the difference to this method")
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    setting = Setting(np.array(given.prevalence), np.array(given.shift), given.weak)
    start = time.perf_counter()
    population = Population.of(setting, np.random.default_rng([given.seed, 0]))

    def study(method: str, number: int) -> Simulated:
        sizes = (given.n_cal, given.n_test)
        return simulate(setting, population, method, sizes, given.resamples, given.seed + 1 + number)

    studies = [study(given.method, number) for number in range(given.studies)]
    if given.against:
        studies = [difference(held, study(given.against, number)) for number, held in enumerate(studies)]
    seconds = time.perf_counter() - start
    print(f"{given.studies} studies of {given.resamples} resamples in {seconds:.0f} s; {vars(given)}")
    print(f"The standard error of a coverage of 95 % is {np.sqrt(0.95 * 0.05 / given.studies):.1%}.")
    report(studies)


if __name__ == "__main__":
    main()
