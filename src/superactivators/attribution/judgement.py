"""Judge the maps of drawn samples: put the records together, evaluate every explainer and objective, lay out tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from superactivators.attribution.cases import Cases
from superactivators.attribution.evaluation import Outcome, draw, evaluate_maps, references
from superactivators.attribution.faithfulness import Curves, normalisable
from superactivators.attribution.hybrid import ALPHAS
from superactivators.attribution.objectives import OBJECTIVES
from superactivators.attribution.plan import SurveyPlan
from superactivators.attribution.records import Record
from superactivators.attribution.results import AttributionResult, ExampleMaps
from superactivators.attribution.sanity import MapCorrelations, Randomised, sanity_table
from superactivators.attribution.tabulation import tabulate
from superactivators.ragged import offsets_of
from superactivators.states.labels import Labels

SIDES = len(OBJECTIVES)
RANDOMISED: tuple[Randomised, ...] = get_args(Randomised)


def judge(
    samples: Int[np.ndarray, " k"],
    records: Sequence[Record],
    labels: Labels,
    concepts: tuple[str, ...],
    plan: SurveyPlan,
    seconds: float,
) -> AttributionResult:
    """Evaluate records.

    Parameters
    ----------
    samples : int64 array of shape (k,)
        Numbers of the samples.
    records : sequence of Record
        One for each of them.
    labels : Labels
    concepts : tuple of str
        Of the detector.
    plan : SurveyPlan
    seconds : float
        What making the records took.

    Returns
    -------
    AttributionResult
    """
    names = list(plan.explainers)
    on_test = labels.splits[samples] == "test"
    parts = {
        split: [
            (int(number), record)
            for number, record, own in zip(samples, records, on_test, strict=True)
            if own == is_test
        ]
        for split, is_test in (("cal", False), ("test", True))
    }
    cases = {split: _cases(part, labels, concepts) for split, part in parts.items()}
    flat = {split: _maps(part) for split, part in parts.items()}
    drawn = _curves(parts["test"])
    usable = normalisable(drawn.span[0, 0], cases["test"].concepts)
    areas = drawn.areas(usable)
    outcomes: dict[tuple[str, str], Outcome] = {}
    for e, name in enumerate(names):
        for side, objective in enumerate(OBJECTIVES):
            outcomes[name, objective] = evaluate_maps(
                cases["cal"],
                flat["cal"][e, side],
                cases["test"],
                flat["test"][e, side],
                len(concepts),
                plan.deltas,
                {measure: values[e, side] for measure, values in areas.items()},
            )
    floor = references(cases["cal"], cases["test"], len(concepts), plan.seed)
    draws = draw(cases["test"], plan.resamples, plan.seed)
    tables = tabulate({**outcomes, **floor}, concepts, draws)
    fallback = np.concatenate([record.fallback for _, record in parts["test"]])
    judged = next(iter(outcomes.values())).estimable[cases["test"].concepts]
    summary: dict[str, Any] = {
        "explainers": {name: repr(explainer) for name, explainer in plan.explainers.items()},
        "samples": {split: len(part) for split, part in parts.items()},
        "cases": {split: len(part) for split, part in cases.items()},
        "judged_cases": int(judged.sum()),
        "fallback_cases": int(fallback[judged].sum()),
        "cases_with_normalised_curves": int((usable & judged).sum()),
        "cases_where_the_hidden_input_agrees_more": int(((drawn.span[0, 0] < 0) & judged).sum()),
        "seconds": round(seconds, 1),
        "seconds_per_sample": _means(records, "seconds", names),
        "forwards_per_sample": _means(records, "forwards", names),
    }
    return AttributionResult(
        aggregates=tables.aggregates,
        concepts=tables.concepts,
        comparisons=tables.comparisons,
        curves=_curve_table(drawn.normalised(usable), names),
        hybrid=_hybrid(parts, cases, concepts, plan, draws),
        sanity=_sanity(parts["test"], names, plan),
        examples=_examples(parts["test"][: plan.examples], labels, concepts, outcomes),
        summary=summary,
    )


def _cases(part: Sequence[tuple[int, Record]], labels: Labels, concepts: tuple[str, ...]) -> Cases:
    """Cases in the order of the samples and of their concepts."""
    assert labels.tokens is not None  # noqa: S101
    owners, numbers, inside, known = [], [], [], []
    for sample, record in part:
        rows = slice(labels.offsets[sample], labels.offsets[sample + 1])
        columns = [labels.concepts.index(name) for name in record.concepts]
        truth = labels.tokens[rows].toarray()[:, columns]
        inside.append(truth.T.ravel())
        known.append(np.tile(labels.known[rows], len(columns)))
        owners += [sample] * len(columns)
        numbers += [concepts.index(name) for name in record.concepts]
    lengths = labels.offsets[np.array(owners) + 1] - labels.offsets[np.array(owners)]
    return Cases(
        np.array(owners, dtype=np.int64),
        np.array(numbers, dtype=np.int64),
        offsets_of(lengths.astype(np.int64)),
        np.concatenate(inside).astype(bool),
        np.concatenate(known),
    )


def _maps(part: Sequence[tuple[int, Record]]) -> Float[np.ndarray, "e sides rows"]:
    """Lay the maps of all cases end to end."""
    runs = []
    for _, record in part:
        explainers, tokens, columns = record.maps.shape
        by_case = record.maps.reshape(explainers, tokens, columns // SIDES, SIDES)
        runs.append(by_case.transpose(0, 3, 2, 1).reshape(explainers, SIDES, -1))
    return np.concatenate(runs, axis=2)


def _curves(part: Sequence[tuple[int, Record]]) -> Curves:
    """Lay out the curves of all cases, (explainers, sides, cases, points)."""
    ends = []
    for name in ("insertion", "deletion"):
        runs = []
        for _, record in part:
            drawn = getattr(record, name)
            explainers, columns, points = drawn.shape
            runs.append(drawn.reshape(explainers, columns // SIDES, SIDES, points).transpose(0, 2, 1, 3))
        ends.append(np.concatenate(runs, axis=2))
    return Curves(ends[0], ends[1])


def _curve_table(drawn: Curves, names: Sequence[str]) -> pa.Table:
    """Average normalised curves over the cases that have one."""
    known = ~np.isnan(drawn.insertion).any(axis=(0, 1, 3))
    rows = [
        {"explainer": name, "objective": objective, "share": float(share), "insertion": up, "deletion": down}
        for e, name in enumerate(names)
        for side, objective in enumerate(OBJECTIVES)
        if known.any()
        for share, up, down in zip(
            drawn.shares,
            drawn.insertion[e, side, known].mean(axis=0).tolist(),
            drawn.deletion[e, side, known].mean(axis=0).tolist(),
            strict=True,
        )
    ]
    kinds = {"explainer": pa.string(), "objective": pa.string()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in (*kinds, "share", "insertion", "deletion")])
    return pa.Table.from_pylist(rows, schema)


def _hybrid(
    parts: Mapping[str, Sequence[tuple[int, Record]]],
    cases: Mapping[str, Cases],
    concepts: tuple[str, ...],
    plan: SurveyPlan,
    draws: Int[np.ndarray, "r n"],
) -> pa.Table:
    rows = []
    for number, alpha in enumerate(ALPHAS):
        if any(not len(record.hybrid) for part in parts.values() for _, record in part):
            break  # latents are no directions to mix with
        maps = {
            split: np.concatenate([record.hybrid[number].T.ravel() for _, record in part])
            for split, part in parts.items()
        }
        outcome = evaluate_maps(cases["cal"], maps["cal"], cases["test"], maps["test"], len(concepts), plan.deltas)
        only = replace(outcome, parts={"token_f1": outcome.parts["token_f1"]})
        (found,) = tabulate({("hybrid", "mixture"): only}, concepts, draws).aggregates.to_pylist()
        delta = float(np.nanmedian(outcome.choice.delta[outcome.estimable])) if outcome.estimable.any() else math.nan
        row = {"alpha": float(alpha), "token_f1": found["value"], "low": found["low"], "high": found["high"]}
        rows.append({**row, "delta": delta})
    return pa.Table.from_pylist(rows, pa.schema([(name, pa.float64()) for name in _HYBRID]))


_HYBRID = ("alpha", "token_f1", "low", "high", "delta")


def _sanity(part: Sequence[tuple[int, Record]], names: Sequence[str], plan: SurveyPlan) -> pa.Table:
    rows = []
    for what in RANDOMISED:
        checked = [(sample, record) for sample, record in part if what in record.sanity]
        if not checked:
            continue  # latents have no vectors to randomise
        owners = np.concatenate([np.full(len(record.concepts), sample) for sample, record in checked])
        values = np.concatenate([record.sanity[what].reshape(len(names), -1, SIDES) for _, record in checked], axis=1)
        rows += [
            MapCorrelations(name, objective, what, owners, values[e, :, side])
            for e, name in enumerate(names)
            for side, objective in enumerate(OBJECTIVES)
        ]
    return sanity_table(rows, resamples=plan.resamples, seed=plan.seed)


def _examples(
    part: Sequence[tuple[int, Record]],
    labels: Labels,
    concepts: tuple[str, ...],
    outcomes: Mapping[tuple[str, str], Outcome],
) -> tuple[ExampleMaps, ...]:
    assert labels.tokens is not None  # noqa: S101
    found = []
    names = list(dict.fromkeys(name for name, _ in outcomes))
    for sample, record in part:
        rows = slice(labels.offsets[sample], labels.offsets[sample + 1])
        truth = labels.tokens[rows].toarray()
        for c, concept in enumerate(record.concepts):
            own = concepts.index(concept)
            maps: dict[tuple[str, str], Float[np.ndarray, " tokens"]] = {}
            thresholds: dict[tuple[str, str], float] = {}
            for e, name in enumerate(names):
                for side, objective in enumerate(OBJECTIVES):
                    values = record.maps[e, :, c * SIDES + side]
                    choice = outcomes[name, objective].choice
                    # a map of zeros stays as it is when maps are scaled, and so does its threshold
                    unit = (float(np.abs(values).max()) or 1.0) if choice.scale[own] else 1.0
                    maps[name, objective] = values
                    thresholds[name, objective] = float(choice.threshold[own]) * unit
            found.append(
                ExampleMaps(
                    sample=sample,
                    concept=concept,
                    truth=truth[:, labels.concepts.index(concept)].astype(bool),
                    known=labels.known[rows],
                    fired=record.fired[:, c],
                    fallback=bool(record.fallback[c]),
                    maps=maps,
                    thresholds=thresholds,
                )
            )
    return tuple(found)


def _means(records: Sequence[Record], field: str, names: Sequence[str]) -> dict[str, float]:
    """Mean by explainer, over all samples; for insertion and deletion over those of test."""
    held = np.stack([getattr(record, field) for record in records]).astype(np.float64)
    tested = np.array([len(record.insertion) > 0 for record in records])
    means = {name: float(value) for name, value in zip(names, held[:, :-1].mean(axis=0), strict=True)}
    means["insertion and deletion"] = float(held[tested, -1].mean()) if tested.any() else 0.0
    return {name: round(value, 4) for name, value in means.items()}
