"""K-means of one site of a study against scikit-learn: inertia, and seconds in one run.

``KMeans(n_init=1)`` with its defaults (greedy k-means++, Lloyd) and ours cluster the same scaled train tokens with each
seed, ours before and after theirs (the slower time counts), and ``MiniBatchKMeans(n_init=1)`` beside them. CPU seconds
are shown too, since on a machine that is shared they depend less on its other work than wall seconds do.

::

    OMP_NUM_THREADS=2 python benchmarks/bench_kmeans.py STATES_OR_STUDY [--site "block[11]"] [--clusters 1000]

Prints one JSON line and appends it to ``benchmarks/results/kmeans.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.cluster import KMeans, MiniBatchKMeans

import superactivators as sa
from superactivators.concepts.kmeans import fit_kmeans
from superactivators.concepts.rows import ArrayRows
from superactivators.states.scaling import Scaling

RESULTS = Path(__file__).parent / "results" / "kmeans.jsonl"


def measured(fit: Callable[[], tuple[float, int]]) -> dict[str, float]:
    """Inertia, passes, wall and CPU seconds of a fit."""
    wall, cpu = time.perf_counter(), time.process_time()
    inertia, passes = fit()
    return {
        "inertia": round(inertia, 2),
        "passes": passes,
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("states", type=Path, help="folder of states, or of a study")
    parser.add_argument("--site")
    parser.add_argument("--clusters", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    folder = options.states / "states" if (options.states / "states").is_dir() else options.states
    states = sa.open_states(folder)
    site = options.site or states.sites[-1]
    raw = states.rows(site, "train")
    scaled = raw.scaled(Scaling.fit(raw))
    X = torch.cat([block for _, block in scaled.blocks()]).numpy()

    def ours(seed: int) -> tuple[float, int]:
        found = fit_kmeans(ArrayRows(X), options.clusters, seed=seed)
        return found.inertia, found.n_iter

    def theirs(kind: type[KMeans | MiniBatchKMeans], seed: int) -> tuple[float, int]:
        model = kind(options.clusters, n_init=1, random_state=seed).fit(X)
        # Mini-batches report the inertia of their last one; the score is taken over all rows.
        return -float(model.score(X)) if kind is MiniBatchKMeans else float(model.inertia_), int(model.n_iter_)

    runs = []
    for seed in range(options.seeds):
        before = measured(lambda seed=seed: ours(seed))
        print(json.dumps(before), flush=True)
        full = measured(lambda seed=seed: theirs(KMeans, seed))
        batches = measured(lambda seed=seed: theirs(MiniBatchKMeans, seed))
        after = measured(lambda seed=seed: ours(seed))
        slower = {key: max(before[key], after[key]) for key in before}
        runs.append({"seed": seed, "ours": slower, "sklearn": full, "sklearn_minibatch": batches})
        print(json.dumps(runs[-1]), flush=True)

    def ratio(what: str, over: str, under: str) -> float:
        return round(statistics.median(run[over][what] / run[under][what] for run in runs), 4)

    line = {
        "states": options.states.name,
        "site": site,
        "rows": len(X),
        "width": X.shape[1],
        "clusters": options.clusters,
        "threads": torch.get_num_threads(),
        "inertia_ratio_to_sklearn": ratio("inertia", "ours", "sklearn"),
        "speed_ratio_to_sklearn": ratio("wall_s", "sklearn", "ours"),
        "cpu_ratio_to_sklearn": ratio("cpu_s", "sklearn", "ours"),
        "inertia_ratio_to_minibatch": ratio("inertia", "ours", "sklearn_minibatch"),
        "speed_ratio_to_minibatch": ratio("wall_s", "sklearn_minibatch", "ours"),
        "runs": runs,
    }
    print(json.dumps(line))
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
