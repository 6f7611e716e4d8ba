"""Train the pooling probes of one site; time, and how well they rank test samples beside a mean-pooled probe.

The reference is scikit-learn's balanced ``LogisticRegression`` on standardised means of the token states, with C chosen
per concept by average precision on cal. ``--texts DATA`` adds the bag of words of the data set that the states are of.

::

    OMP_NUM_THREADS=2 python benchmarks/bench_probes.py STATES --site "block[9]"

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import superactivators as sa
from superactivators.baselines.bag_of_words import bag_of_words
from superactivators.baselines.pooled_probes import train_pooled_probes
from superactivators.ragged import segment_mean
from superactivators.ranking import auroc, average_precision
from superactivators.study.coverage import cover

CS = (1e-4, 1e-3, 1e-2, 1e-1)


def quality(scores: np.ndarray, states: sa.States) -> dict[str, float]:
    """Average precision and AUROC on test, averaged over concepts."""
    test = states.labels.in_split("test")
    truth = states.labels.samples[test]
    ap, area = average_precision(scores[test], truth), auroc(scores[test], truth)
    return {"ap": round(float(np.nanmean(ap)), 4), "auroc": round(float(np.nanmean(area)), 4)}


def mean_probe(states: sa.States, site: str) -> np.ndarray:
    """Logits of the reference."""
    means = np.empty((len(states.labels.ids), states.values.width), dtype=np.float32)
    for first, block in states.values.blocks(site):
        begin, end = np.searchsorted(states.offsets, [first, first + len(block)])
        means[begin:end] = segment_mean(block.float().numpy(), states.offsets[begin : end + 1] - first)
    train, cal, truth = states.labels.in_split("train"), states.labels.in_split("cal"), states.labels.samples
    means = StandardScaler().fit(means[train]).transform(means)
    scores = np.empty(truth.shape, dtype=np.float32)
    for concept in range(truth.shape[1]):
        tried = []
        for c in CS:
            model = LogisticRegression(C=c, class_weight="balanced", max_iter=1000)
            logits = model.fit(means[train], truth[train, concept]).decision_function(means)
            tried.append((average_precision(logits[cal, None], truth[cal][:, [concept]])[0], -c, logits))
        scores[:, concept] = max(tried, key=lambda entry: entry[:2])[2]
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("states", type=Path)
    parser.add_argument("--site")
    parser.add_argument("--texts", type=Path, help="data set of the states, for the bag of words")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--max-epochs", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    states = sa.open_states(arguments.states)
    states = states.with_concepts(cover(states.labels, 5).kept)
    site = arguments.site or states.sites[-1]
    begin, used = time.perf_counter(), time.process_time()
    probes = train_pooled_probes(states, site, max_epochs=arguments.max_epochs)
    seconds, used = time.perf_counter() - begin, time.process_time() - used
    begin = time.perf_counter()
    scores = probes.score(states)
    record: dict[str, object] = {
        "site": site,
        "concepts": len(states.concepts),
        "train_tokens": int(np.diff(states.offsets)[states.labels.in_split("train")].sum()),
        "threads": arguments.threads,
        "epochs": probes.epochs,
        "train_seconds": round(seconds, 1),
        "train_cpu_seconds": round(used, 1),
        "score_seconds": round(time.perf_counter() - begin, 1),
        "cal_ap": {name: round(float(np.nanmean(found)), 4) for name, found in probes.average_precision.items()},
        "chosen_epochs": {name: np.quantile(found, [0, 0.5, 1]).tolist() for name, found in probes.chosen.items()},
        "test": {name: quality(pooled, states) for name, pooled in scores.pooled.items()},
        "mean_probe": quality(mean_probe(states, site), states),
    }
    if arguments.texts:
        texts = {sample.id: sample.text for sample in sa.load_dataset(arguments.texts).samples}
        begin = time.perf_counter()
        words = bag_of_words([texts[name] for name in states.labels.ids], states.labels)
        record["bag_of_words_seconds"] = round(time.perf_counter() - begin, 1)
        record["bag_of_words"] = quality(words.scores.pooled["bag-of-words"], states)
    print(json.dumps(record))


if __name__ == "__main__":
    main()
