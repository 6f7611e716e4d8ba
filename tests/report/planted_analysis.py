"""Analyses as a study would give them: plausible numbers for any number of kinds, layers and concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from superactivators.analysis.results import SCHEMAS, AnalysisResult
from superactivators.analysis.sparsity import GRID
from superactivators.report.inputs import ReportInputs
from superactivators.states.labels import Labels

DELTAS = (0.02, 0.05, 0.1, 0.25, 0.5, 0.9)
BINS = 60


def analysed(inputs: ReportInputs, *, tokens: bool = True, lengths: bool = True, seed: int = 0) -> ReportInputs:
    """Give a study its analyses."""
    concepts = inputs.result.summary["concepts"]
    result = analysis_of(inputs.kinds, inputs.sites, concepts, tokens=tokens, lengths=lengths, seed=seed)
    return replace(inputs, analysis=replace(result, pairs=pairs_of(inputs.labels, concepts) if tokens else {}))


def analysis_of(
    kinds: Sequence[str],
    sites: Sequence[str],
    concepts: Sequence[str],
    *,
    tokens: bool = True,
    lengths: bool = True,
    size: int = 30_000,
    seed: int = 0,
) -> AnalysisResult:
    """Tables in which the tail grows with depth, and the first concept is taken for the second."""
    random = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    for kind in kinds:
        skill = random.uniform(0.5, 1.5, len(concepts))
        for depth, site in enumerate(sites):
            if tokens:
                for number, concept in enumerate(concepts):
                    start = {"kind": kind, "site": site, "concept": concept}
                    one, bins = _tokens(random, skill[number] * (0.4 + depth / len(sites)), size)
                    rows["separation"].append(start | one)
                    rows["histograms"].append(start | bins)
            for delta in DELTAS:
                f1 = 0.45 + 0.3 * depth / len(sites) - 0.05 * np.log(delta / 0.08) ** 2
                start = {"kind": kind, "site": site, "delta": delta}
                rows["deltas"].append(start | {"cal": f1, "test": f1 - 0.02 * random.random()})
        for name, values, column in (("best_deltas", DELTAS, "delta"), ("best_layers", sites, "site")):
            chosen = random.binomial(len(values) - 1, 0.4, len(concepts))
            rows[name] += [
                {"kind": kind, column: value, "concepts": int((chosen == place).sum())}
                for place, value in enumerate(values)
            ]
        for number, concept in enumerate(concepts):
            prevalence = float(random.uniform(0.03, 0.4))
            f1 = float(np.clip(0.2 + prevalence + 0.3 * skill[number] + random.normal(0, 0.05), 0, 1))
            rows["errors"].append(
                {"kind": kind, "concept": concept, "n_positive": int(1000 * prevalence), "prevalence": prevalence}
                | {"size": float(random.uniform(0.02, 0.5)) if tokens else None}
                | {"f1": f1, "precision": f1, "recall": f1, "fpr": 0.3 * (1 - f1)}
            )
            if tokens:
                scale = random.uniform(0.2, 1.5)
                rows["sparsity"] += [
                    {"kind": kind, "concept": concept, "share": share, "cumulative": float(min(1, 0.2 + share**scale))}
                    for share in GRID
                ]
        edges = (0.01, 0.04, 0.09, 0.2, 0.4, 1.0)
        for fifth in range(5):
            start = {"kind": kind, "n": 200}
            if tokens:
                found = {"low": edges[fifth], "high": edges[fifth + 1], "recall": 0.4 + 0.1 * fifth}
                rows["sizes"].append(start | found)
            if lengths:
                found = {"low": 20.0 * fifth + 5, "high": 20.0 * fifth + 24, "recall": 0.7 + 0.03 * fifth}
                rows["lengths"].append(start | found | {"fpr": 0.02 + 0.02 * fifth})
        for absent in range(len(concepts)):
            base = float(random.uniform(0.02, 0.15))
            for present in range(len(concepts)):
                if present == absent:
                    continue
                n = int(random.integers(20, 90))
                fired = int(0.6 * n) if (present, absent) == (0, 1) else int(random.binomial(n, base))
                rows["confusion"].append(
                    {"kind": kind, "present": concepts[present], "absent": concepts[absent], "n": n, "fired": fired}
                    | {"rate": fired / n, "base": base}
                )
    return AnalysisResult(**{name: table_from(name, found) for name, found in rows.items()}, pairs={})


def table_from(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Make the named table of rows."""
    return pa.Table.from_pylist(rows, schema=pa.schema(list(SCHEMAS[name].items())))


def _tokens(random: np.random.Generator, strength: float, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measures and bins of one concept at one layer."""
    inside = random.normal(size=max(20, size // 40)) + strength * random.gamma(1.0, 1.6, max(20, size // 40))
    outside = random.normal(size=size)
    far = float(np.quantile(outside, 0.98))
    tail = float((inside > far).mean())
    low, high = float(min(inside.min(), outside.min())), float(max(inside.max(), outside.max()))
    counts = [np.histogram(part, BINS, (low, high))[0].tolist() for part in (inside, outside)]
    measures = {
        "n_in": len(inside),
        "n_out": len(outside),
        "overlap": float(np.minimum(*(np.array(part) / sum(part) for part in counts)).sum()),
        "auroc": float((inside[:, None] > outside[None, :500]).mean()),
        "cohens_d": float(inside.mean() - outside.mean()),
        "skewness_in": strength,
        "skewness_out": float(random.normal(0, 0.05)),
        "far": far,
        "tail_mass": tail,
        "coverage": float(1 - (1 - tail) ** 3),
    }
    return measures, {"low": low, "high": high, "inside": counts[0], "outside": counts[1]}


def pairs_of(labels: Labels, concepts: Sequence[str], examples: int = 2, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Cosines of the first test samples of each concept; in-concept tokens share a direction."""
    random = np.random.default_rng(seed)
    found: dict[str, dict[str, Any]] = {}
    assert labels.tokens is not None
    for number, concept in enumerate(concepts):
        positive = labels.in_split("test")[labels.samples[labels.in_split("test"), number]]
        for sample in [one for one in positive if labels.ids[one] not in found][:examples]:
            rows = slice(labels.offsets[sample], labels.offsets[sample + 1])
            inside = labels.tokens[rows].toarray()[:, number].astype(bool)
            states = random.normal(size=(len(inside), 16)) + 0.3
            states[inside] += 1.2
            states /= np.linalg.norm(states, axis=1, keepdims=True)
            fired = inside & (random.random(len(inside)) < 0.6) | (random.random(len(inside)) < 0.03)
            found[str(labels.ids[sample])] = {
                "concept": concept,
                "kind": "linear",
                "site": "block[2]",
                "cosine": (states @ states.T).astype(np.float32),
                "inside": inside,
                "fired": fired,
                "tokens": np.arange(len(inside)),
            }
    return found
