"""What checks look at: a finished study, with the views of it that several checks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from superactivators.concepts.bank import ConceptBank
from superactivators.data.dataset import ConceptDataset
from superactivators.detection.evaluation import ScoreSource
from superactivators.detection.methods import methods
from superactivators.detection.results import KINDLESS, REFERENCE, DetectionResult
from superactivators.models.encoding import Encoding
from superactivators.states.states import Level, States

BankSource: TypeAlias = Callable[[str, Level, str], ConceptBank]
"""Gives the bank of a kind, level and site."""


@final
@dataclass(frozen=True, eq=False)
class TokenView:
    """Token activations of the test split, each concept at the site chosen for it.

    Attributes
    ----------
    scores : float32 array of shape (tokens, concepts)
    rows : int64 array of shape (tokens,)
        Their numbers among all tokens.
    offsets : int64 array of shape (samples + 1,)
    """

    scores: Float[np.ndarray, "tokens c"]
    rows: Int[np.ndarray, " tokens"]
    offsets: Int[np.ndarray, " n_plus_1"]


@final
@dataclass(frozen=True, eq=False)
class CheckInputs:
    """A finished study.

    Attributes
    ----------
    dataset : ConceptDataset or None
        What was studied, in the order of the states; None for states made elsewhere.
    states : States
        With the concepts that were studied.
    result : DetectionResult
    scores : callable
        ``scores(kind, level, site)``.
    encoding : Encoding or None
        Where the tokens are.
    bank : callable or None
        ``bank(kind, level, site)``.
    notes : sequence of str
        What the study has noted already.
    prompt : mapping or None
        Counts of a prompt's answers, as `superactivators.baselines.prompt.PromptAnswers.counts` has them.
    """

    dataset: ConceptDataset | None
    states: States
    result: DetectionResult
    scores: ScoreSource
    encoding: Encoding | None
    bank: BankSource | None
    notes: Sequence[str] = ()
    prompt: Mapping[str, Any] | None = None

    @property
    def concepts(self) -> tuple[str, ...]:
        """Concept names, in the order of all arrays here."""
        return self.states.concepts

    @cached_property
    def kind(self) -> str:
        """The kind that checks look at: the best on cal."""
        return str(self.result.summary["best_kind_on_cal"])

    @cached_property
    def method(self) -> str:
        """The method that checks look at: the SuperActivators, or, without them, the best on cal."""
        on_cal = self.result.summary["cal_weighted_f1"][self.kind]
        if REFERENCE in on_cal:
            return REFERENCE
        return str(max(on_cal, key=lambda name: on_cal[name] if on_cal[name] is not None else -1.0))

    @property
    def vector_kinds(self) -> tuple[str, ...]:
        """Kinds of concept vectors that have banks of their own."""
        return tuple(name for name in self.result.summary["chosen"] if name not in (*KINDLESS, "best"))

    def chosen(self, split: str, kind: str | None = None, method: str | None = None) -> dict[str, np.ndarray] | None:
        """Metrics of one split at the choice made on cal.

        Returns
        -------
        dict of str to array of shape (concepts,), or None
            Columns of the metrics table; None where that was not measured.
        """
        return self._metrics.get((split, kind or self.kind, method or self.method))

    @cached_property
    def _metrics(self) -> dict[tuple[str, str, str], dict[str, np.ndarray]]:
        table = self.result.metrics.filter(pc.field("chosen"))
        keys = [table[name].to_pylist() for name in ("split", "kind", "method")]
        rows: dict[tuple[str, str, str], list[int]] = {}
        for number, key in enumerate(zip(*keys, strict=True)):
            rows.setdefault(key, []).append(number)
        return {key: _columns(table.take(held), self.concepts) for key, held in rows.items()}

    def picks(self, name: str, kind: str | None = None, method: str | None = None) -> list[Any]:
        """``"site"``, ``"delta"`` or ``"threshold"`` of every concept, chosen on cal."""
        chosen = self.result.summary["chosen"][kind or self.kind][method or self.method]
        return [chosen[concept][name] for concept in self.concepts]

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Sites that the kind here could be taken from, from shallow to deep."""
        mine = (pc.field("kind") == self.kind) & (pc.field("method") == self.method) & ~pc.field("chosen")
        held = set(self.result.metrics.filter(mine)["site"].to_pylist())
        return tuple(site for site in self.states.sites if site in held)

    @cached_property
    def test_tokens(self) -> TokenView | None:
        """Token activations on test; None where the method scores no tokens of vectors."""
        if methods[self.method].source != "vectors" or methods[self.method].level != "token":
            return None
        sites = self.picks("site")
        view: TokenView | None = None
        for site in dict.fromkeys(sites):
            scores, rows, offsets = self.scores(self.kind, "token", site).of_split(self.states.labels, "test")
            if view is None:
                view = TokenView(np.array(scores), rows, offsets)
            columns = [c for c, name in enumerate(sites) if name == site]
            view.scores[:, columns] = scores[:, columns]
        return view

    @cached_property
    def test_fires(self) -> Bool[np.ndarray, "n c"] | None:
        """Which concepts the method here finds in which test samples; None where it does not look at vectors."""
        method = methods[self.method]
        if method.source != "vectors":
            return None
        test, sites = self.states.labels.in_split("test"), self.picks("site")
        units = {item.concept: item.unit for item in self.result.thresholds if self._is_mine(item.kind, item.method)}
        scores = np.empty((len(test), len(self.concepts)))
        for site in dict.fromkeys(sites):
            held = self.scores(self.kind, method.level, site)
            pooled, of_units = held.candidates(method.pool), held.candidate_units(method.pool)
            for c in (c for c, name in enumerate(sites) if name == site):
                unit = units.get(self.concepts[c])
                place = 0 if unit is None else int(np.argmax(of_units[:, c] == unit))
                scores[:, c] = pooled[place, test, c]
        values = self.picks("threshold")
        return np.asarray(scores >= np.array([np.inf if value is None else value for value in values]))

    def _is_mine(self, kind: str, method: str) -> bool:
        return (kind, method) == (self.kind, self.method)


def _columns(table: pa.Table, concepts: Sequence[str]) -> dict[str, np.ndarray]:
    place = {name: number for number, name in enumerate(table["concept"].to_pylist())}
    ordered = table.take([place[name] for name in concepts])
    return {name: ordered[name].to_numpy(zero_copy_only=False) for name in ordered.column_names}
