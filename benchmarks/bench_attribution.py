"""Cost of attribution for many concepts: shared forward passes against one concept, and against plain Captum.

Explains one sample with both objectives of 12 concepts. "one": the same explainer asked about one concept under one
objective. "Captum": the library's own class (LIME, KernelSHAP), called once for each of the 24 columns, with the same
number of hidden variants and the same batch of forward passes. Captum has no RISE: there, "Captum" is our RISE called
once for each column, without sharing.

::

    OMP_NUM_THREADS=2 python benchmarks/bench_attribution.py STUDY --budget 64 --out RESULTS
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import KernelShap, Lime

from superactivators.attribution.catalogue import build_explainers
from superactivators.attribution.scene import Scene
from superactivators.detection.inference import load_backbone
from superactivators.study.fit import open_detector
from superactivators.study.run import open_dataset
from superactivators.study.settings import StudySettings

SAMPLERS = ("lime", "kernel-shap", "shap-iq", "rise", "occlusion")
OTHERS = ("integrated-gradients", "input-gradient", "full-grad", "mfaba", "grad-cam", "rollout", "activation")


def timed(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def captum_per_column(kind: type, make: Callable[..., Scene], columns: int, budget: int) -> float:
    """Seconds of one Captum call a column."""

    def one(column: int) -> None:
        scene = make()

        def forward(keep: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(scene.values(keep.numpy() > 0.5)[:, column])

        ones = torch.ones(1, scene.n_tokens)
        step = max(1, scene.max_batch_tokens // scene.hidden.n_places)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind(forward).attribute(
                ones, baselines=0.0, n_samples=budget, perturbations_per_eval=step, show_progress=False
            )

    return sum(timed(lambda column=column: one(column)) for column in range(columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--kind", default="linear")
    parser.add_argument("--concepts", type=int, default=12)
    parser.add_argument("--budget", type=int, default=64)
    parser.add_argument("--sample", type=int, default=0, help="position among the test samples")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    settings = StudySettings.of(json.loads((options.study / "summary.json").read_text())["settings"])
    detector = open_detector(options.study, options.kind)
    backbone, dataset = load_backbone(detector), open_dataset(settings)
    sample = dataset.samples[np.flatnonzero(dataset.splits == "test")[options.sample]]
    concepts = detector.concepts[: options.concepts]

    def make(**more: Any) -> Scene:
        return Scene.of(backbone, detector, sample, **{"concepts": concepts, **more})

    columns = 2 * len(concepts)
    scene = make()
    for explainer in build_explainers(SAMPLERS, budget=4).values():  # what is imported and allocated once
        explainer.maps(scene)
    depth = {
        name: int(site[6:-1]) for name, site in zip(scene.objectives.concepts, scene.objectives.sites, strict=True)
    }
    deepest = {"concepts": [max(depth, key=lambda name: depth[name])]}  # no advantage by stopping earlier
    for name, explainer in build_explainers([*SAMPLERS, *OTHERS], budget=options.budget).items():
        whole, alone = make(), make(**deepest, objectives=["superactivators"])
        found: dict[str, Any] = {
            "study": options.study.name,
            "tokens": scene.n_tokens,
            "explainer": name,
            "budget": options.budget,
            "columns": columns,
            "seconds": timed(lambda: explainer.maps(whole)),  # noqa: B023
            "seconds_one": timed(lambda: explainer.maps(alone)),  # noqa: B023
            "threads": torch.get_num_threads(),
        }
        found["ratio_to_one"] = found["seconds"] / found["seconds_one"]
        if name in ("lime", "kernel-shap"):
            kind = Lime if name == "lime" else KernelShap
            found["captum_seconds"] = captum_per_column(kind, make, columns, options.budget)
        elif name == "rise":
            found["captum_seconds"] = sum(timed(lambda: explainer.maps(make())) for _ in range(columns))  # noqa: B023
        if "captum_seconds" in found:
            found["faster_than_captum"] = found["captum_seconds"] / found["seconds"]
        print(json.dumps(found), flush=True)
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
