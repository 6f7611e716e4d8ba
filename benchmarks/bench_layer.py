"""One layer of a finished study: all separators against scikit-learn, and all detection metrics against one fit.

The scikit-learn side is a loop of ``LogisticRegression(class_weight="balanced")`` over concepts on the same
standardised rows, at the C that equals one strength of our path, run to convergence. Cal F1 is that of the
SuperActivator detector calibrated on each set of vectors.

::

    OMP_NUM_THREADS=2 python benchmarks/bench_layer.py STUDY [--site "block[11]"]

Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import superactivators as sa
from superactivators.concepts.separators import STRENGTHS, fit_separators
from superactivators.detection.evaluation import evaluate_detection
from superactivators.detection.methods import methods
from superactivators.detection.tail import PAPER_DELTAS
from superactivators.scores.activations import score_samples, score_tokens
from superactivators.states.scaling import Scaling
from superactivators.study.coverage import cover


def best_cal_f1(bank: sa.ConceptBank, states: sa.States) -> float:
    """Mean over concepts of the best cal F1 of the SuperActivator detector."""
    detector = sa.SuperActivatorDetector(bank).calibrate(states)
    return float(np.mean(detector.evaluate(states, "cal", in_sample=True)["f1"].to_numpy()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--site")
    options = parser.parse_args()
    states = sa.open_states(options.study / "states")
    states = states.with_concepts(cover(states.labels, 5).kept)
    site = options.site or states.sites[-1]
    raw = states.rows(site, "train")
    scaling = Scaling.fit(raw)
    rows = raw.scaled(scaling)
    fit_separators(
        rows, rows.labels, rows.known, [1.0]
    )  # reads the shards once, so that both sides find them in memory

    start = time.perf_counter()
    fit_separators(rows, rows.labels, rows.known, [STRENGTHS[2]])
    one_strength = time.perf_counter() - start
    start = time.perf_counter()
    (ours,) = sa.learn_concepts(states, site, ["linear"])
    whole = time.perf_counter() - start

    X = torch.cat([block for _, block in rows.blocks()]).numpy()[rows.known]
    Y = rows.labels[rows.known].toarray()
    mean, deviation = X.mean(axis=0), np.maximum(X.std(axis=0), 1e-6)
    X = (X - mean) / deviation
    weights, bias, fits = [], [], []
    for column in Y.T:
        start = time.perf_counter()
        # Both classes weigh n/2 there and 1/2 here, so its C is 1 / (n strength).
        model = LogisticRegression(class_weight="balanced", C=1 / (len(X) * STRENGTHS[2]), max_iter=1000).fit(X, column)
        fits.append(time.perf_counter() - start)
        weights.append(model.coef_[0] / deviation)
        bias.append(model.intercept_[0] - (model.coef_[0] / deviation) @ mean)
    theirs = replace(
        ours, vectors=torch.tensor(np.array(weights)).float(), bias=torch.tensor(np.array(bias)).float(), notes={}
    )

    banks = {"token": ours, "sample": sa.learn_concepts(states, site, ["linear"], "sample")[0]}
    start = time.perf_counter()
    scored = {"token": score_tokens(states, [banks["token"]])[0], "sample": score_samples(states, banks["sample"])}
    scoring = time.perf_counter() - start
    start = time.perf_counter()
    evaluate_detection(
        lambda kind, level, where: scored[level],
        [site],
        ["linear"],
        states.labels,
        method_names=list(methods),
        deltas=PAPER_DELTAS,
        resamples=0,
    )
    detection = time.perf_counter() - start
    print(
        json.dumps(
            {
                "study": options.study.name,
                "site": site,
                "train_tokens": len(X),
                "concepts": len(fits),
                "threads": torch.get_num_threads(),
                "ours_one_strength_s": round(one_strength, 2),
                "ours_path_and_choice_s": round(whole, 2),
                "sklearn_loop_s": round(sum(fits), 2),
                "sklearn_one_concept_s": round(float(np.median(fits)), 2),
                "ratio_one_strength": round(sum(fits) / one_strength, 1),
                "ratio_whole_path": round(sum(fits) / whole, 1),
                "cal_f1_ours": round(best_cal_f1(ours, states), 4),
                "cal_f1_sklearn": round(best_cal_f1(theirs, states), 4),
                "strength_ours": ours.notes["strength"],
                "largest_gradient_norm": max(ours.notes["gradient_norm"]),
                "scoring_s": round(scoring, 3),
                "detection_metrics_s": round(detection, 3),
                "detection_methods": len(list(methods)),
            }
        )
    )


if __name__ == "__main__":
    main()
