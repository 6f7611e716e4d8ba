"""All analyses of a study: one layer's activations at a time, choices of cal, figures of test (METHOD section 8)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float

from superactivators.analysis.choices import choice_counts, curve_columns, together
from superactivators.analysis.confusion import confusion
from superactivators.analysis.errors import median_size, rates_by_length, recall_by_size, token_shares
from superactivators.analysis.histograms import histograms
from superactivators.analysis.pairs import PairPlan, pair_examples
from superactivators.analysis.results import SCHEMAS, AnalysisResult, table_of
from superactivators.analysis.separation import Separation, separation
from superactivators.analysis.sparsity import GRID, cumulative, shares
from superactivators.analysis.tokens import CELLS, carried_tokens, labelled_tokens
from superactivators.concepts.bank import ConceptBank
from superactivators.data.dataset import Modality
from superactivators.detection.evaluation import ScoreSource, SiteSource
from superactivators.detection.results import REFERENCE, DetectionResult
from superactivators.ragged import offsets_of, rows_of
from superactivators.scores.site_scores import SiteScores
from superactivators.states.labels import Labels
from superactivators.states.states import Level, States

BankSource = Callable[[str, Level, str], ConceptBank]
"""Loads the vectors of a kind, level and site."""

MEASURES = tuple(field.name for field in fields(Separation))


@final
@dataclass(frozen=True, eq=False)
class Chosen:
    """What each concept of a kind chose on cal for its SuperActivators.

    Attributes
    ----------
    sites : str array of shape (concepts,)
    deltas, thresholds : float64 array of shape (concepts,)
        A threshold is infinite where nothing can fire.
    """

    sites: np.ndarray
    deltas: Float[np.ndarray, " c"]
    thresholds: Float[np.ndarray, " c"]

    @staticmethod
    def of(summary: Mapping[str, Any], kind: str) -> Chosen | None:
        """Read the summary of a study's detection; None where the kind's SuperActivators were not evaluated."""
        held = summary["chosen"].get(kind, {}).get(REFERENCE)
        if held is None:
            return None
        picks = [held[name] for name in summary["concepts"]]

        def numbers(name: str, missing: float) -> Float[np.ndarray, " c"]:
            return np.array([missing if pick[name] is None else pick[name] for pick in picks], dtype=np.float64)

        return Chosen(
            np.array([pick["site"] for pick in picks]), numbers("delta", np.nan), numbers("threshold", np.inf)
        )


def analyse(
    scores: ScoreSource,
    sites: SiteSource,
    kinds: Sequence[str],
    states: States,
    result: DetectionResult,
    bank: BankSource,
    *,
    modality: Modality = "text",
    cells: int = CELLS,
) -> AnalysisResult:
    """Analyse the activations and the errors of a study.

    Parameters
    ----------
    scores : callable
        ``scores(kind, "token", site)`` loads the activations of a layer; they are asked for one layer at a time.
    sites : callable
        Layers of a kind, from shallow to deep.
    kinds : sequence of str
        Kinds of vectors with activations of tokens.
    states : States
        With the concepts of ``result``, in their order.
    result : DetectionResult
        Says what was chosen on cal.
    bank : callable
        ``bank(kind, "token", site)`` loads vectors; only their scaling is used.
    modality : str
        Lengths are compared of texts only.
    cells : int
        Most activations that are worked on at a time.

    Returns
    -------
    AnalysisResult

    Raises
    ------
    StoreError
        If scores or vectors cannot be read.
    """
    labels, found = states.labels, _Parts()
    test = labels.in_split("test")
    present, lengths = labels.samples[test], np.diff(labels.offsets)[test]
    offsets = offsets_of(lengths)
    sizes = token_shares(carried_tokens(labels, rows_of(labels.offsets, test)), offsets, present)
    for kind in kinds:
        chosen = Chosen.of(result.summary, kind)
        fired = np.zeros(present.shape, dtype=bool)
        for site in sites(kind):
            # handed over without a name, so that the next layer is loaded when this one is gone
            fired |= _of_layer(found, scores(kind, "token", site), labels, chosen, cells)
        if chosen is None:
            continue
        _of_choices(found, result, kind, chosen, sites(kind), labels)
        found.add("errors", kind, _error_columns(result, kind, sizes, labels))
        found.add("confusion", kind, confusion(fired, present, labels.concepts))
        found.add("sizes", kind, recall_by_size(sizes, fired))
        if modality == "text":
            found.add("lengths", kind, rates_by_length(lengths, fired, present))
    tables = {name: table_of(name, found.parts[name]) for name in SCHEMAS}
    return AnalysisResult(**tables, pairs=_pairs(scores, kinds, states, result, bank))


@final
class _Parts:
    """Columns of every table, collected kind by kind."""

    def __init__(self) -> None:
        self.parts: dict[str, list[Mapping[str, Any]]] = {name: [] for name in SCHEMAS}

    def add(self, name: str, kind: str, columns: Mapping[str, Any]) -> None:
        """Add a kind's columns to a table."""
        self.parts[name].append({"kind": kind, **columns})


def _of_layer(
    found: _Parts, held: SiteScores, labels: Labels, chosen: Chosen | None, cells: int
) -> Bool[np.ndarray, "n c"]:
    """Compare D_in with D_out at one layer, find the shares of concepts that chose it, and say where these fire."""
    names = np.array(labels.concepts, dtype=object)
    for tokens in labelled_tokens(held, labels, cells):
        concepts, inside, outside = names[tokens.columns], tokens.inside, tokens.outside
        apart = separation(tokens.activations, inside, outside, tokens.offsets)
        counts = histograms(tokens.activations, inside, outside)
        where = {"site": held.site, "concept": concepts.tolist()}
        numbers = {"n_in": inside.sum(axis=0), "n_out": outside.sum(axis=0)}
        found.add("separation", held.kind, {**where, **numbers, **{name: getattr(apart, name) for name in MEASURES}})
        found.add("histograms", held.kind, {**where, **{name: getattr(counts, name) for name in HISTOGRAM}})
        if chosen is None:
            continue
        here = np.flatnonzero(chosen.sites[tokens.columns] == held.site)
        if len(here):
            thresholds = chosen.thresholds[tokens.columns[here]]
            fired = tokens.activations[:, here].astype(np.float64) >= thresholds
            curves = cumulative(shares(fired, inside[:, here], tokens.offsets))
            columns = {
                "concept": np.repeat(concepts[here], len(GRID)).tolist(),
                "share": np.tile(GRID, len(here)),
                "cumulative": curves.T.ravel(),
            }
            found.add("sparsity", held.kind, columns)
    pooled = held.pooled["max"][labels.in_split("test")].astype(np.float64)
    if chosen is None:
        return np.zeros(pooled.shape, dtype=bool)
    return np.asarray((pooled >= chosen.thresholds) & (chosen.sites == held.site))


HISTOGRAM = ("low", "high", "inside", "outside")


def _of_choices(
    found: _Parts, result: DetectionResult, kind: str, chosen: Chosen, sites: Sequence[str], labels: Labels
) -> None:
    cal, test = (
        together(
            _selected(result.curves, kind=kind, split=split),
            labels.concepts,
            labels.samples[labels.in_split(split)].sum(axis=0),
        )
        for split in ("cal", "test")
    )
    found.add("deltas", kind, curve_columns(cal, test))
    deltas = [None if np.isnan(delta) else delta for delta in chosen.deltas.tolist()]
    found.add("best_deltas", kind, choice_counts(deltas, result.summary["deltas"], "delta"))
    found.add("best_layers", kind, choice_counts(chosen.sites.tolist(), sites, "site"))


def _error_columns(
    result: DetectionResult, kind: str, sizes: Float[np.ndarray, "n c"], labels: Labels
) -> Mapping[str, Any]:
    rows = _selected(result.metrics, kind=kind, split="test", chosen=True)
    size = dict(zip(labels.concepts, median_size(sizes).tolist(), strict=True))
    names = rows["concept"].to_pylist()
    return {
        "concept": names,
        "size": np.array([size[name] for name in names]),
        **{name: rows[name].to_numpy() for name in SCHEMAS["errors"] if name in ERRORS},
    }


ERRORS = ("n_positive", "prevalence", "f1", "precision", "recall", "fpr")


def _selected(table: pa.Table, **wanted: object) -> pa.Table:
    """Rows of the SuperActivators with the wanted values."""
    condition = pc.field("method") == REFERENCE
    for name, value in wanted.items():
        condition &= pc.field(name) == value
    return table.filter(condition)


def _pairs(
    scores: ScoreSource, kinds: Sequence[str], states: States, result: DetectionResult, bank: BankSource
) -> dict[str, dict[str, Any]]:
    """Compare tokens at the layer that most concepts of the best kind on cal chose."""
    kind = result.summary["best_kind_on_cal"]
    chosen = Chosen.of(result.summary, kind)
    if kind not in kinds or chosen is None or states.labels.tokens is None:
        return {}
    names, counts = np.unique(chosen.sites, return_counts=True)
    site = min(names[counts == counts.max()].tolist(), key=states.sites.index)
    rows = _selected(result.metrics, kind=kind, split="cal", chosen=True)
    f1 = dict(zip(rows["concept"].to_pylist(), rows["f1"].to_pylist(), strict=True))
    columns = sorted(
        np.flatnonzero(chosen.sites == site).tolist(), key=lambda column: -f1[states.labels.concepts[column]]
    )
    plan = PairPlan(kind, site, columns, chosen.thresholds)
    return pair_examples(states, scores(kind, "token", site), bank(kind, "token", site).scaling, plan)
