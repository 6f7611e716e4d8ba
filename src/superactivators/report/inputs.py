"""What a report is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from superactivators.data.dataset import ConceptDataset
from superactivators.detection.evaluation import ScoreSource
from superactivators.detection.results import REFERENCE, DetectionResult
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
    """

    title: str
    dataset: ConceptDataset | None
    labels: Labels
    encoding: Encoding | None
    result: DetectionResult
    scores: ScoreSource
    about: dict[str, Any]

    @property
    def methods(self) -> list[str]:
        """Detection methods that were evaluated, in order."""
        found = [method for by_method in self.result.summary["weighted_f1"].values() for method in by_method]
        return list(dict.fromkeys(found))

    @property
    def kinds(self) -> list[str]:
        """Concept kinds that were evaluated, in order."""
        return list(self.result.summary["weighted_f1"])

    @property
    def sites(self) -> list[str]:
        """Sites that were evaluated, from shallow to deep (the curves are laid out in that order)."""
        return list(dict.fromkeys(self.result.curves.column("site").to_pylist()))

    @property
    def focus(self) -> str:
        """Method that curves, concepts and examples are shown for: the SuperActivators where they were evaluated."""
        return REFERENCE if REFERENCE in self.methods else self.methods[0]
