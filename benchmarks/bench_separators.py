"""Time one layer's separators against a loop of scikit-learn's LogisticRegression over concepts.

Prints one line of JSON. Without files it makes a matrix of the shape of 650 photographs of 256 patches, 384 wide, with
14 concepts. Set OMP_NUM_THREADS to the value of ``--threads`` before starting, so that both sides use as many threads.

    python benchmarks/bench_separators.py
    python benchmarks/bench_separators.py --tokens train.npy --labels train.npz --held-out cal.npy cal.npz

A label file holds ``labels`` (rows x concepts) and may hold ``known`` (rows) and ``offsets`` (of samples).
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from superactivators.concepts.rows import ArrayRows
from superactivators.concepts.separators import STRENGTHS, fit_separators
from superactivators.ragged import segment_any, segment_max


def synthetic(rows: int, width: int, concepts: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows with a decaying spectrum and one massive column, and concepts of 0.1 % to 15 % prevalence."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, width), dtype=np.float32)
    X *= np.geomspace(3.0, 0.05, width, dtype=np.float32)
    X = X @ (rng.standard_normal((width, width), dtype=np.float32) / np.float32(width**0.5))
    X[:, width // 3] += 30.0
    scores = (X / X.std(axis=0)) @ rng.standard_normal((width, concepts), dtype=np.float32)
    scores += 0.7 * scores.std(axis=0) * rng.standard_normal(scores.shape, dtype=np.float32)
    prevalence = np.geomspace(0.001, 0.15, concepts)
    cut = np.array([np.quantile(column, 1 - share) for column, share in zip(scores.T, prevalence, strict=True)])
    return X.astype(np.float16), scores > cut, np.ones(rows, dtype=bool)


def objective(Z: np.ndarray, positive: np.ndarray, weights: np.ndarray, bias: float, strength: float) -> float:
    """Balanced loss and penalty in double precision."""
    margin = np.where(positive, 1.0, -1.0) * (Z @ weights.astype(np.float32) + bias).astype(np.float64)
    loss = np.logaddexp(0.0, -margin)
    return float(0.5 * loss[positive].mean() + 0.5 * loss[~positive].mean() + 0.5 * strength * (weights**2).sum())


def ranking(tokens: Path, labels: Path, weights: np.ndarray, bias: np.ndarray, columns: np.ndarray) -> dict[str, float]:
    """Average precision of the highest logit of held-out samples, averaged over concepts with five positives."""
    with np.load(labels) as held:
        offsets, truth = held["offsets"], segment_any(held["labels"][:, columns].astype(bool), held["offsets"])
    logits = np.load(tokens).astype(np.float32) @ weights.T.astype(np.float32) + bias.astype(np.float32)
    highest = segment_max(logits, offsets)
    enough = np.flatnonzero(truth.sum(axis=0) >= 5)
    return {"average_precision": float(np.mean([average_precision_score(truth[:, c], highest[:, c]) for c in enough]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=Path, help="train rows, .npy")
    parser.add_argument("--labels", type=Path, help="their labels, .npz")
    parser.add_argument("--held-out", type=Path, nargs=2, metavar=("TOKENS", "LABELS"))
    parser.add_argument("--strength", type=float, default=0.01)
    parser.add_argument("--min-positives", type=int, default=100)
    parser.add_argument("--concepts", type=int, default=14, help="at most this many, the most frequent")
    parser.add_argument("--rows", type=int, default=166_400)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.tokens is None:
        X, Y, known = synthetic(arguments.rows, arguments.width, arguments.concepts, seed=0)
    else:
        X = np.load(arguments.tokens)
        with np.load(arguments.labels) as held:
            Y = held["labels"].astype(bool)
            known = held["known"] if "known" in held else np.ones(len(Y), dtype=bool)
    frequency = Y[known].sum(axis=0)
    columns = np.sort(np.argsort(-frequency, kind="stable")[: arguments.concepts])
    columns = columns[frequency[columns] >= arguments.min_positives]
    labels = sp.csr_matrix(Y[:, columns])

    def timed(strengths: tuple[float, ...]) -> tuple[list[float], object]:
        seconds = []
        for _ in range(arguments.repeats):
            begin = time.perf_counter()
            path = fit_separators(ArrayRows(X), labels, known, strengths)
            seconds.append(time.perf_counter() - begin)
        return seconds, path

    single_seconds, single = timed((arguments.strength,))
    path_seconds, path = timed(STRENGTHS)
    Z = X[known].astype(np.float32)
    centre, deviation = Z.mean(axis=0, dtype=np.float64), Z.std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1.0
    Z = ((Z - centre.astype(np.float32)) / deviation.astype(np.float32)).astype(np.float32)
    loop_seconds, gaps, iterations = 0.0, [], []
    loop_weights, loop_bias = np.zeros_like(single.weights[0]), np.zeros_like(single.bias[0])
    for place, column in enumerate(columns):
        positive = Y[known, column]
        model = LogisticRegression(C=1 / (arguments.strength * len(Z)), class_weight="balanced", max_iter=1000)
        begin = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(Z, positive)
        loop_seconds += time.perf_counter() - begin
        iterations.append(int(model.n_iter_[0]))
        theirs = objective(Z, positive, model.coef_[0].astype(np.float64), model.intercept_[0], arguments.strength)
        weights = single.weights[0, place] * deviation
        bias = single.bias[0, place] + single.weights[0, place] @ centre
        gaps.append(objective(Z, positive, weights, bias, arguments.strength) - theirs)
        loop_weights[place] = model.coef_[0] / deviation
        loop_bias[place] = model.intercept_[0] - loop_weights[place] @ centre
    record: dict[str, object] = {
        "rows": len(Z),
        "width": Z.shape[1],
        "concepts": len(columns),
        "threads": arguments.threads,
        "strength": arguments.strength,
        "seconds": round(min(single_seconds), 3),
        "seconds_all": [round(value, 3) for value in single_seconds],
        "path_strengths": list(STRENGTHS),
        "path_seconds": round(min(path_seconds), 3),
        "loop_seconds": round(loop_seconds, 3),
        "ratio": round(loop_seconds / min(single_seconds), 1),
        "loss_gap_worst": max(gaps),
        "loss_gap_mean": float(np.mean(gaps)),
        "passes_most": int(single.n_iter.max()),
        "path_passes_most": int(path.n_iter.max()),
        "loop_iterations": iterations,
    }
    if arguments.held_out:
        record["held_out"] = ranking(*arguments.held_out, single.weights[0], single.bias[0], columns)
        record["held_out_loop"] = ranking(*arguments.held_out, loop_weights, loop_bias, columns)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
