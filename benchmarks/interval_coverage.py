"""Do the intervals of detection F1 cover what they claim? A simulation with planted activations.

Every simulated study draws a calibration and a test split of samples with in-concept and other tokens, calibrates and
resamples three methods as a study does, and asks 95 % intervals, all made from the same resamples, whether they hold
the truth:

``procedure`` (nested intervals, and differences between methods)
    the mean test F1 of the whole procedure (choose on a cal split of this size, judge on a test split of this size),
    estimated by the mean over all simulated studies;
``detector`` (fixed intervals)
    the F1 of the one detector that the study calibrated, on a practically infinite test split.

Beside the library's intervals stand those that it does not use: percentiles of resamples, and percentiles moved to
the estimate.

::

    OMP_NUM_THREADS=1 python benchmarks/interval_coverage.py              # three settings, 1,000 studies each
    python benchmarks/interval_coverage.py --settings common --studies 100

Prints a line for each interval, and writes them to ``benchmarks/results/interval_coverage.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from superactivators.detection.bootstrap import Resamples, bootstrap
from superactivators.detection.comparisons import Series, compare
from superactivators.detection.intervals import f1_interval, interval
from superactivators.detection.metrics import aggregate, f1_of, fire_counts
from superactivators.detection.selection import Calibration
from superactivators.detection.tail import DELTAS, Tail

RESULTS = Path(__file__).parent / "results" / "interval_coverage.jsonl"
POOLS = {"superactivators": "max", "max": "max", "mean": "mean"}
PAIRS = (("mean", "superactivators"), ("max", "superactivators"))
AVERAGES = ("weighted", "macro", "micro")

TOKENS = 12
"""Tokens of every sample."""

POPULATION = 40_000
"""Samples with, and as many without, a concept that stand for an infinite test split."""

WEAK = 0.35
"""Share of in-concept tokens that do not stand out at all."""

SHIFT = np.array([2.0, 2.4], dtype=np.float32)
"""How far in-concept tokens stand out at each layer, in standard deviations of all others."""


LINE = (
    "{of:<24} {quantity:<16} {positives:>5} positives  {claim:<9} {interval:<38} {coverage:6.1%} "
    "(truth below {truth_below:.1%}, above {truth_above:.1%}) width {width:.3f}"
)


@dataclass(frozen=True)
class Setting:
    """Prevalence of every concept, and samples in cal and in test."""

    prevalence: tuple[float, ...]
    n: int

    def draw(
        self, n: int, generator: np.random.Generator, prevalence: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Activations [layers, n, tokens, concepts], token labels [n, tokens, concepts] and labels [n, concepts]."""
        share = np.array(self.prevalence) if prevalence is None else prevalence
        labels = generator.random((n, len(share))) < share
        run = generator.integers(1, 5, size=(n, 1, len(share)))
        inside = (np.arange(TOKENS)[None, :, None] < run) & labels[:, None, :]
        stands_out = inside & (generator.random(inside.shape) >= WEAK)
        # Half of the variance is common to all layers, as in a residual stream.
        common = generator.standard_normal((1, n, TOKENS, len(share)), dtype=np.float32)
        own = generator.standard_normal((len(SHIFT), n, TOKENS, len(share)), dtype=np.float32)
        noise = np.sqrt(0.5, dtype=np.float32) * (common + own)
        return noise + SHIFT[:, None, None, None] * stands_out, inside, labels


SETTINGS = {
    "common": Setting((0.05, 0.4), 1000),
    "rare": Setting((0.01, 0.02), 1000),
    "many": Setting((0.02, 0.03, 0.04, 0.05, 0.08, 0.12, 0.2, 0.4), 400),
}


@cache
def population(name: str, pool: str) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Sorted scores of many samples with and without each concept, by layer and concept."""
    setting, generator = SETTINGS[name], np.random.default_rng([0, len(pool)])
    even = np.full(len(setting.prevalence), 0.5)
    parts = [setting.draw(4000, generator, even) for _ in range(2 * POPULATION // 4000)]
    pooled = np.concatenate([getattr(part[0], pool)(axis=2) for part in parts], axis=1)
    labels = np.concatenate([part[2] for part in parts])
    return [
        [(np.sort(layer[labels[:, c], c]), np.sort(layer[~labels[:, c], c])) for c in range(len(even))]
        for layer in pooled
    ]


def detector_f1(name: str, pool: str, fitted: Calibration) -> np.ndarray:
    """Weighted, macro and micro average and the F1 of every concept, of one detector on infinitely many samples."""
    share = np.array(SETTINGS[name].prevalence)
    held = population(name, pool)
    reached = np.array(
        [
            [1 - np.searchsorted(scores, threshold, side="left") / len(scores) for scores in held[layer][c]]
            for c, (layer, threshold) in enumerate(
                zip(fitted.choice.candidate, fitted.chosen_thresholds(), strict=True)
            )
        ]
    )
    hits = share * reached[:, 0]
    return point(hits, hits + (1 - share) * reached[:, 1], share)


def point(hits: np.ndarray, fired: np.ndarray, positives: np.ndarray) -> np.ndarray:
    f1 = f1_of(hits, fired, positives)
    averages = aggregate(f1, positives, (hits, fired))
    return np.array([*(float(averages[name]) for name in AVERAGES), *f1])


def simulate(name: str, number: int, resamples: int) -> dict[str, np.ndarray]:
    """Draw, calibrate, judge and resample one study; arrays over quantities, ends as [2, quantities]."""
    setting, generator = SETTINGS[name], np.random.default_rng([1, number])
    (cal, inside, cal_labels), (test, _, test_labels) = (setting.draw(setting.n, generator) for _ in range(2))
    flat = sp.csr_matrix(inside.reshape(-1, inside.shape[2]))
    owners = np.repeat(np.arange(setting.n), TOKENS)
    draws = Resamples.draw(setting.n, setting.n, resamples, number)
    positives = test_labels.sum(axis=0).astype(float)
    found: dict[str, np.ndarray] = {"positives": positives}
    series = {}
    for method, pool in POOLS.items():
        cal_scores, test_scores = getattr(cal, pool)(axis=2), getattr(test, pool)(axis=2)
        if method == "superactivators":
            tails = [Tail.of_tokens(layer.reshape(-1, layer.shape[2]), flat, owners) for layer in cal]
        else:
            tails = [Tail.of_samples(layer, cal_labels) for layer in cal_scores]
        fitted = Calibration.fit(tails, list(cal_scores), cal_labels, DELTAS)
        boot = bootstrap(fitted, list(cal_scores), cal_labels, test_scores, test_labels, draws, DELTAS)
        hits, fired = fire_counts(fitted.chosen(test_scores), test_labels, fitted.chosen_thresholds()[None])
        value = point(hits[0], fired[0], positives)
        missed = fired[0] + positives - hits[0]
        counted = np.concatenate([np.full(3, missed.sum()), missed])
        resampled = {
            kind: np.column_stack([*boot.averages(kind).values(), getattr(boot, kind)])
            for kind in ("nested", "fixed", "damped")
        }
        found[f"{method} point"] = value
        found[f"{method} detector"] = detector_f1(name, pool, fitted)
        nested = resampled["nested"]
        found[f"{method} procedure nested"] = np.stack(f1_interval(resampled["damped"], value, counted))
        found[f"{method} detector fixed"] = np.stack(f1_interval(resampled["fixed"], value, counted))
        found[f"{method} procedure nested percentile (not used)"] = np.stack(interval(nested))
        found[f"{method} procedure nested moved percentile (not used)"] = np.clip(
            np.stack(interval(nested - nested.mean(axis=0) + value)), 0, 1
        )
        found[f"{method} procedure nested undamped (not used)"] = np.stack(f1_interval(nested, value, counted))
        found[f"{method} detector fixed percentile (not used)"] = np.stack(interval(resampled["fixed"]))
        series[method] = Series.of(boot, hits[0], fired[0], positives)
    table = compare(series, PAIRS, [str(c) for c in range(len(positives))])
    for k, pair in enumerate(PAIRS):
        rows = table.slice(k * len(value), len(value))
        names = " - ".join(pair)
        found[f"{names} point"] = rows["difference"].to_numpy()
        found[f"{names} detector"] = found[f"{pair[0]} detector"] - found[f"{pair[1]} detector"]
        found[f"{names} procedure nested"] = np.stack([rows[end].to_numpy() for end in ("low", "high")])
    return found


def rows_of(name: str, held: dict[str, np.ndarray]) -> list[dict[str, object]]:
    """Coverage, misses on each side and mean width of every interval."""
    setting, rows = SETTINGS[name], []
    quantities = [*AVERAGES, *(f"prevalence {share}" for share in setting.prevalence)]
    for key, ends in held.items():
        if ends.ndim != 3:
            continue
        of, claim, label = next(
            (key[: key.index(f" {claim} ")], claim, key.split(f" {claim} ")[1])
            for claim in ("procedure", "detector")
            if f" {claim} " in key
        )
        points = held[f"{of} point"]
        truths = np.broadcast_to(points.mean(axis=0), points.shape) if claim == "procedure" else held[f"{of} detector"]
        for q, quantity in enumerate(quantities):
            low, high, truth = ends[:, 0, q], ends[:, 1, q], truths[:, q]
            known = np.isfinite(low)
            low, high, truth = low[known], high[known], truth[known]
            positives = held["positives"][:, q - 3].mean() if q >= 3 else held["positives"].sum(axis=1).mean()
            rows.append(
                {
                    "setting": name,
                    "n": setting.n,
                    "of": of,
                    "quantity": quantity,
                    "positives": round(float(positives)),
                    "claim": claim,
                    "interval": label,
                    "coverage": round(float(((low <= truth) & (truth <= high)).mean()), 4),
                    "truth_below": round(float((truth < low).mean()), 4),
                    "truth_above": round(float((truth > high).mean()), 4),
                    "width": round(float((high - low).mean()), 4),
                    "truth": round(float(truth.mean()), 4),
                    "estimable": round(float(known.mean()), 4),
                    "studies": len(points),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=250)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    rows = []
    with ProcessPoolExecutor(given.processes) as pool:
        for name in given.settings:
            start = time.perf_counter()
            jobs = [[argument] * given.studies for argument in (name, given.resamples)]
            found = list(pool.map(simulate, jobs[0], range(given.studies), jobs[1], chunksize=10))
            held = {key: np.array([study[key] for study in found]) for key in found[0]}
            rows += [{**row, "resamples": given.resamples} for row in rows_of(name, held)]
            seconds = time.perf_counter() - start
            print(f"\n{name}: {given.studies} studies of {given.resamples} resamples in {seconds:.0f} s")
            for row in rows:
                if row["setting"] == name:
                    print(LINE.format(**row))
    error = np.sqrt(0.95 * 0.05 / given.studies)
    print(f"\nThe standard error of a coverage of 95 % is {error:.1%}.")
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
