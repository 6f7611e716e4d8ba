"""Checks of thresholds, choices and separators: how much they rest on, and whether they hold on test."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from superactivators.concepts.separator_path import TOLERANCE
from superactivators.concepts.units import kinds
from superactivators.detection.methods import methods
from superactivators.detection.results import REFERENCE
from superactivators.states.states import Level
from superactivators.study.checks.check import Finding, check, counted, named
from superactivators.study.checks.inputs import CheckInputs

FEW = 5
"""Fewest in-concept cal tokens, and fewest positive cal samples, that a threshold should rest on."""

EDGE_SHARE = 0.25
"""Largest share of concepts whose choice may lie at an end of what could be chosen."""

LEAST_CHOICE = 3
"""With fewer levels or sites, ends say nothing."""

OPTIMISM = 0.1
"""Largest F1 by which cal may be better than test."""


@check("SA004", "thresholds rest on few examples")
def few_in_tail(inputs: CheckInputs) -> Finding | None:
    """In-concept cal tokens at or above the threshold, and positive cal samples that it finds."""
    on_cal = inputs.chosen("cal")
    if on_cal is None:
        return None
    kept = on_cal["tp"].astype(np.float64)
    of_tokens = np.full(len(kept), np.inf)
    if inputs.method == REFERENCE:
        own = {t.concept: t for t in inputs.result.thresholds if (t.kind, t.method) == (inputs.kind, inputs.method)}
        of_tokens = np.array([_above(own[name].n, own[name].delta) for name in inputs.concepts], dtype=np.float64)
    least = np.minimum(kept, of_tokens)
    worst = int(least.argmin())
    if least[worst] >= FEW:
        return None
    concerned = tuple(inputs.concepts[c] for c in np.argsort(least, kind="stable") if least[c] < FEW)
    tokens = f"{counted(int(of_tokens[worst]), 'in-concept cal token')} and " if np.isfinite(of_tokens[worst]) else ""
    return Finding(
        f"The threshold of {inputs.concepts[worst]} keeps {tokens}"
        f"{counted(int(kept[worst]), 'positive cal sample')} (concerned: {named(concerned)}). So few examples say "
        "little about new samples: label more, or allow larger deltas only.",
        least[worst],
        FEW,
        concerned,
    )


def _above(n: int, delta: float) -> int:
    """Scores of n, all different, at or above their interpolated (1 - delta) quantile."""
    return n - int(np.ceil((n - 1) * (1 - delta) - 1e-6)) if n else 0


@check("SA008", "something was judged on the split it was fitted on")
def own_split(inputs: CheckInputs) -> Finding | None:
    """Thresholds that were fitted on test, and figures of fitted splits that are not marked as such."""
    metrics = inputs.result.metrics
    fitted = [t for t in inputs.result.thresholds if t.split == "test"]
    splits, marks = (np.array(metrics[name].to_pylist(), dtype=object) for name in ("split", "in_sample"))
    named_test = (splits == "test") & (marks != "")
    unmarked = (splits != "test") & (marks == "")
    rows = int((named_test | unmarked).sum())
    if not fitted and not rows:
        return None
    columns = np.array(metrics["concept"].to_pylist(), dtype=object)
    held = {*(t.concept for t in fitted), *columns[named_test | unmarked].tolist()}
    concerned = tuple(name for name in inputs.concepts if name in held)
    return Finding(
        f"Fitted on test: {counted(len(fitted), 'threshold')}; rows of the metrics whose mark of what was fitted on "
        f"their split is wrong: {rows:,}. Such figures flatter: fit on cal, judge on test.",
        len(fitted) + rows,
        0,
        concerned,
    )


@check("SA013", "no better than always saying yes")
def always_yes(inputs: CheckInputs) -> Finding | None:
    """Test F1 against that of calling every sample positive, 2p / (1 + p) at prevalence p."""
    on_test = inputs.chosen("test")
    if on_test is None:
        return None
    share = on_test["prevalence"].astype(np.float64)
    gain = on_test["f1"].astype(np.float64) - 2 * share / (1 + share)
    worst = int(gain.argmin())
    if gain[worst] > 1e-12:
        return None
    concerned = tuple(inputs.concepts[c] for c in np.argsort(gain, kind="stable") if gain[c] <= 1e-12)
    return Finding(
        f"Always saying yes does as well on test, or better, for {len(concerned)} of {counted(len(gain), 'concept')} "
        f"({named(concerned)}): {inputs.concepts[worst]} has F1 {on_test['f1'][worst]:.2f}, and yes to everything "
        f"{2 * share[worst] / (1 + share[worst]):.2f}. Do not use these detectors.",
        gain[worst],
        0,
        concerned,
    )


@check("SA014", "choices lie at the edge of what could be chosen")
def at_the_edge(inputs: CheckInputs) -> Finding | None:
    """Concepts that take the smallest or largest delta, or the shallowest or deepest site."""
    parts, value = [], 0.0
    concerned: list[str] = []
    ends: tuple[tuple[str, str, Sequence[object], Callable[[object], str]], ...] = (
        ("delta", "deltas", inputs.result.summary["deltas"], lambda end: f"{end:g}"),
        ("site", "layers", inputs.sites, str),
    )
    for name, what, options, spelled in ends:
        if len(options) < LEAST_CHOICE:
            continue
        picked = inputs.picks(name)
        for end in (options[0], options[-1]):
            here = [concept for concept, pick in zip(inputs.concepts, picked, strict=True) if pick == end]
            if len(here) > EDGE_SHARE * len(picked):
                value = max(value, len(here) / len(picked))
                concerned += here
                of_all = f"{len(here)} of {counted(len(picked), 'concept')}"
                parts.append(f"{spelled(end)}, an end of the {what}, is chosen for {of_all}")
    if not parts:
        return None
    return Finding(
        f"At an edge: {'; '.join(parts)}. The best may lie beyond it: give more on that side, unless it is the end of "
        "the model.",
        value,
        EDGE_SHARE,
        tuple(name for name in inputs.concepts if name in concerned),
    )


@check("SA016", "F1 on cal is far above F1 on test")
def optimism(inputs: CheckInputs) -> Finding | None:
    """Cal F1 minus test F1, averaged over concepts by their positive test samples."""
    on_cal, on_test = inputs.chosen("cal"), inputs.chosen("test")
    if on_cal is None or on_test is None:
        return None
    gap = (on_cal["f1"] - on_test["f1"]).astype(np.float64)
    weight = on_test["n_positive"].astype(np.float64)
    value = float((gap * weight).sum() / max(weight.sum(), 1.0))
    if value <= OPTIMISM:
        return None
    concerned = tuple(inputs.concepts[c] for c in np.argsort(-gap, kind="stable") if gap[c] > 2 * OPTIMISM)
    return Finding(
        f"Weighted F1 is {value:.2f} higher on cal, where thresholds, deltas and layers were chosen, than on test"
        f"{f' (most: {named(concerned)})' if concerned else ''}. The choice fits chance, or the splits differ: use "
        "more cal samples, or fewer deltas and layers.",
        value,
        OPTIMISM,
        concerned,
    )


@check("SA017", "separators did not converge")
def not_converged(inputs: CheckInputs) -> Finding | None:
    """Relative gradient norm of the separators at the chosen sites, or training that was stopped at the last epoch."""
    if inputs.bank is None:
        return None
    places: set[str] = set()
    concerned: set[str] = set()
    worst = 0.0
    for kind, level, site in _banks(inputs):
        notes = inputs.bank(kind, level, site).notes
        norms = np.array(notes.get("gradient_norm", ()), dtype=np.float64).ravel()
        late = np.array([reason == "epochs" for reason in notes.get("stopped", ())], dtype=bool)
        missed = norms > TOLERANCE if len(norms) else late
        if not missed.any():
            continue
        places.add(f"{kind} at {site}")
        worst = max([worst, *norms[missed].tolist()]) if len(norms) else worst
        # Notes of clusters are of clusters, not of concepts.
        if not kinds[kind].matched and len(missed) == len(inputs.concepts):
            concerned |= {inputs.concepts[c] for c in np.flatnonzero(missed)}
    if not places:
        return None
    how = f"relative gradient norm up to {worst:.0e}" if worst else "training stopped at the last epoch allowed"
    return Finding(
        f"Separators of {named(sorted(places))} did not converge ({how}; the tolerance is {TOLERANCE:g}). Their "
        "vectors depend on where the solver stopped: allow more passes, or leave out outlying tokens.",
        worst or 1.0,
        TOLERANCE if worst else 0.0,
        tuple(name for name in inputs.concepts if name in concerned),
    )


def _banks(inputs: CheckInputs) -> list[tuple[str, Level, str]]:
    """Kind, level and site of every bank that some method has chosen for a concept."""
    return list(
        dict.fromkeys(
            (kind, methods[method].level, site)
            for kind in inputs.vector_kinds
            for method in inputs.result.summary["chosen"][kind]
            for site in inputs.picks("site", kind, method)
        )
    )
