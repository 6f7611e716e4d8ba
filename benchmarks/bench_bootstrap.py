"""Nested resamples of one kind and method: seconds, and memory beyond what the scores take, by number of candidates.

Synthetic scores: cal and test of equal size, 20 concepts of 2 to 40 % prevalence, 12 tokens a sample. ``quantile``
repeats the choice among candidates and the paper's 12 sparsity levels in every resample, ``free`` the choice among
candidates and all thresholds, ``fixed`` chooses nothing.

::

    OMP_NUM_THREADS=2 python benchmarks/bench_bootstrap.py

Appends one line per row to ``benchmarks/results/bootstrap.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from superactivators.detection.bootstrap import Resamples, bootstrap
from superactivators.detection.selection import Calibration
from superactivators.detection.tail import PAPER_DELTAS, Tail

RESULTS = Path(__file__).parent / "results" / "bootstrap.jsonl"


def draw(
    n: int, tokens: int, concepts: int, candidates: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activations [candidates, n, tokens, concepts], token labels [n, tokens, concepts], labels [n, concepts]."""
    labels = generator.random((n, concepts)) < np.linspace(0.02, 0.4, concepts)
    labels[:2] = True
    inside = labels[:, None, :] & (generator.random((n, tokens, concepts)) < 0.3)
    inside[:, 0] |= labels
    noise = generator.standard_normal((candidates, n, tokens, concepts), dtype=np.float32)
    return noise + np.float32(1.5) * inside, inside, labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=12)
    parser.add_argument("--concepts", type=int, default=20)
    parser.add_argument("--candidates", type=int, nargs="+", default=[1, 6, 48])
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--memory", action="store_true", help="measure memory too (slows everything down)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    shape = (given.samples, given.tokens, given.concepts)
    draws = Resamples.draw(given.samples, given.samples, given.resamples, 0)
    for candidates in given.candidates:
        generator = np.random.default_rng(0)
        cal, inside, cal_labels = draw(*shape, candidates, generator)
        test, _, test_labels = draw(*shape, candidates, generator)
        cal_scores, test_scores = list(cal.max(axis=2)), test.max(axis=2)
        flat = sp.csr_matrix(inside.reshape(-1, given.concepts))
        owners = np.repeat(np.arange(given.samples), given.tokens)
        tails = [Tail.of_tokens(part.reshape(-1, given.concepts), flat, owners) for part in cal]
        of_samples = [Tail.of_samples(part, cal_labels) for part in cal_scores]
        for rule, fitted in (
            ("quantile of tokens", Calibration.fit(tails, cal_scores, cal_labels, PAPER_DELTAS)),
            ("quantile of samples", Calibration.fit(of_samples, cal_scores, cal_labels, PAPER_DELTAS)),
            ("free", Calibration.fit_free(cal_scores, cal_labels)),
            ("fixed", Calibration.fixed(0.5, given.concepts)),
        ):
            if given.memory:
                tracemalloc.start()
            start = time.perf_counter()
            bootstrap(fitted, cal_scores, cal_labels, test_scores, test_labels, draws, PAPER_DELTAS)
            row = {
                "rule": rule,
                "candidates": candidates,
                "samples": given.samples,
                "concepts": given.concepts,
                "levels": fitted.thresholds.shape[1],
                "resamples": given.resamples,
                "scores_in_tails": int(sum(len(tail.values) for tail in fitted.tails)),
                "seconds": round(time.perf_counter() - start, 3),
                "threads": os.environ.get("OMP_NUM_THREADS"),
            }
            if given.memory:
                row["peak_mib"] = round(tracemalloc.get_traced_memory()[1] / 2**20, 1)
                tracemalloc.stop()
            print(json.dumps(row), flush=True)
            with given.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
