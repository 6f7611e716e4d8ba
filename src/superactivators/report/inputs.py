"""What a report is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import pyarrow.compute as pc

from superactivators.analysis.results import AnalysisResult
from superactivators.attribution.results import AttributionResult
from superactivators.data.dataset import ConceptDataset
from superactivators.detection.evaluation import BEST, ScoreSource, deepest_list
from superactivators.detection.results import KINDLESS, REFERENCE, DetectionResult
from superactivators.models.encoding import Encoding
from superactivators.states.labels import Labels


@final
@dataclass(frozen=True, eq=False)
class ReportInputs:
    """Results of a study and what they came from.

    Attributes
    ----------
    title : str
    dataset : ConceptDataset or None
        None where states came as arrays: the report then shows no examples.
    labels : Labels
        With the concepts of ``result``, in their order.
    encoding : Encoding or None
        Of the data set's samples, in their order.
    result : DetectionResult
    scores : callable
        ``scores(kind, level, site)`` loads the scores that ``result`` was made from.
    about : dict
        JSON types, all optional: ``model`` (``name``, ``blocks``, ``width``), ``data`` (``excluded``: reason by
        concept), ``seed``, ``notes`` (sentences), ``seconds`` (by stage), ``command``, ``packages`` (version by name)
        and ``settings`` (of the study file). Other entries are not shown.
    attribution : AttributionResult or None
        Where the concepts are; its examples are of ``dataset`` and ``encoding``. None: the report has no such section.
    analysis : AnalysisResult or None
        What activations look like, with the same concepts. None: the report has no such section.
    """

    title: str
    dataset: ConceptDataset | None
    labels: Labels
    encoding: Encoding | None
    result: DetectionResult
    scores: ScoreSource
    about: dict[str, Any]
    attribution: AttributionResult | None = None
    analysis: AnalysisResult | None = None

    @property
    def methods(self) -> list[str]:
        """Detection methods that were evaluated, in order."""
        found = [method for by_method in self.result.summary["weighted_f1"].values() for method in by_method]
        return list(dict.fromkeys(found))

    @property
    def groups(self) -> list[str]:
        """Kinds of vectors, the mixed kind, and sources without vectors, in order."""
        return list(self.result.summary["weighted_f1"])

    @property
    def kinds(self) -> list[str]:
        """Kinds of vectors that were evaluated, in order: those that have activations of their own."""
        return [group for group in self.groups if group not in (BEST, *KINDLESS)] or self.groups

    @property
    def sites(self) -> list[str]:
        """Sites at which these kinds were evaluated, from shallow to deep."""
        metrics = self.result.metrics
        table = metrics.filter(pc.field("kind").isin(self.kinds) & ~pc.field("chosen"))
        by_kind: dict[str, list[str]] = {}
        for kind, site in zip(table["kind"].to_pylist(), table["site"].to_pylist(), strict=True):
            sites = by_kind.setdefault(kind, [])
            if site not in sites:
                sites.append(site)
        return deepest_list(list(by_kind.values()))

    @property
    def focus(self) -> str:
        """Method that curves, concepts and examples are shown for: the SuperActivators where they were evaluated."""
        of_vectors = list(self.result.summary["weighted_f1"][self.kinds[0]])
        return REFERENCE if REFERENCE in of_vectors else of_vectors[0]
