"""Calibrate every kind and method on cal, resample, localise: what the result tables are made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from superactivators.detection.bootstrap import Resamples, bootstrap
from superactivators.detection.localisation import Localisation, TokenScores, localise
from superactivators.detection.methods import Method, methods
from superactivators.detection.results import REFERENCE, DetectionResult, Evaluated, tabulate
from superactivators.detection.selection import Calibration
from superactivators.detection.tail import DELTAS, Tail, check_deltas
from superactivators.errors import CalibrationError, StudyError
from superactivators.ragged import segment_ids
from superactivators.scores.site_scores import SiteScores
from superactivators.states.labels import Labels
from superactivators.states.states import Level

RESAMPLES = 1000

ScoreSource: TypeAlias = Callable[[str, Level, str], SiteScores]
"""Loads the scores of a kind, level and site."""


def evaluate_detection(
    scores: ScoreSource,
    sites: Sequence[str],
    kinds: Sequence[str],
    labels: Labels,
    *,
    method_names: Sequence[str],
    deltas: Sequence[float] = DELTAS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[str], None] = lambda message: None,
) -> DetectionResult:
    """Calibrate and evaluate every kind with every method.

    Parameters
    ----------
    scores : callable
        ``scores(kind, level, site)`` loads the scores of one bank.
    sites : sequence of str
        From shallow to deep.
    kinds : sequence of str
        Concept kinds.
    labels : Labels
        Every concept has positives in train, cal and test.
    method_names : sequence of str
        Names in `superactivators.detection.methods.methods`.
    deltas : sequence of float
        Sparsity levels.
    resamples : int
        Bootstrap resamples; 0 for no intervals.
    seed : int
    progress : callable
        Told what is being worked on.

    Raises
    ------
    StudyError
        If a method is unknown, or the sparsity levels are wrong.
    CalibrationError
        If the SuperActivators are asked for but no token is labelled on cal.
    """
    levels = check_deltas(deltas)
    chosen_methods = [methods[name] for name in dict.fromkeys(method_names)]
    if not chosen_methods:
        raise StudyError("no detection method given; name at least one")
    if resamples < 0:
        raise StudyError(f"resamples must be 0 or more; got {resamples}")
    needs_tokens = [method.name for method in chosen_methods if method.candidates == "tokens"]
    if needs_tokens and labels.tokens is None:
        raise CalibrationError(
            f"the method {needs_tokens[0]!r} takes its thresholds from labelled tokens, but these data label whole "
            "samples only; leave it out, or give spans or masks"
        )
    draws = Resamples.draw(len(labels.in_split("cal")), len(labels.in_split("test")), resamples, seed)
    found: list[Evaluated] = []
    located: dict[str, Localisation] = {}
    for kind in kinds:
        tails = _token_tails(scores, sites, kind, labels) if needs_tokens else []
        for method in chosen_methods:
            progress(f"{kind} {method.name}")
            evaluated = _evaluate_one(scores, sites, kind, method, tails, labels, levels, draws)
            found.append(evaluated)
            if method.name == REFERENCE:
                located[kind] = _localise(scores, evaluated, labels, levels, draws)
    return tabulate(found, located, labels, levels, resamples)


def _token_tails(scores: ScoreSource, sites: Sequence[str], kind: str, labels: Labels) -> list[Tail]:
    """In-concept activations of the cal tokens, for each site."""
    assert labels.tokens is not None  # noqa: S101  # evaluate_detection has checked
    tails = []
    for site in sites:
        activations, rows, offsets = scores(kind, "token", site).of_split(labels, "cal")
        tails.append(Tail.of_tokens(activations, labels.tokens[rows], segment_ids(offsets)))
    return tails


def _evaluate_one(
    scores: ScoreSource,
    sites: Sequence[str],
    kind: str,
    method: Method,
    token_tails: list[Tail],
    labels: Labels,
    deltas: tuple[float, ...],
    draws: Resamples,
) -> Evaluated:
    pooled = np.stack([scores(kind, method.level, site).pooled[method.pool] for site in sites])
    cal, test = labels.in_split("cal"), labels.in_split("test")
    cal_scores, cal_labels = list(pooled[:, cal]), labels.samples[cal]
    if method.candidates == "tokens":
        tails = token_tails
    else:
        tails = [Tail.of_samples(layer, cal_labels) for layer in cal_scores]
    calibration = Calibration.fit(tails, cal_scores, cal_labels, deltas)
    boot = bootstrap(calibration, cal_scores, cal_labels, pooled[:, test], labels.samples[test], draws, deltas)
    return Evaluated(kind, method, sites, pooled, calibration, boot)


def _localise(
    scores: ScoreSource, item: Evaluated, labels: Labels, deltas: tuple[float, ...], draws: Resamples
) -> Localisation:
    """Localise with every concept's activations at its chosen site."""
    layer = item.calibration.choice.layer
    chosen = item.calibration.chosen(item.pooled)
    thresholds = item.calibration.chosen_thresholds()
    held = {number: scores(item.kind, "token", item.sites[number]) for number in np.unique(layer).tolist()}
    parts: dict[str, TokenScores] = {}
    for split in ("cal", "test"):
        activations, rows, offsets = next(iter(held.values())).of_split(labels, split)
        for number, site_scores in held.items():
            columns = layer == number
            activations[:, columns] = site_scores.of_split(labels, split)[0][:, columns]
        assert labels.tokens is not None  # noqa: S101  # evaluate_detection has checked
        detected = chosen[labels.in_split(split)].astype(np.float64) >= thresholds
        parts[split] = TokenScores(activations, labels.tokens[rows], labels.known[rows], offsets, detected)
    tail = Tail.of_tokens(parts["cal"].scores, parts["cal"].labels, segment_ids(parts["cal"].offsets))
    return localise(parts["cal"], parts["test"], tail, item.calibration.choice.level, deltas, draws)
