"""What the printed tables of a study are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

from superactivators.analysis.results import AnalysisResult
from superactivators.attribution.results import AttributionResult
from superactivators.detection.results import KINDLESS, REFERENCE, DetectionResult
from superactivators.report.tables import selected

INTERVALS = "Brackets hold 95 % intervals; resamples repeat every choice made on cal."
BOLD = "Bold (in plain text a star) marks the best on cal, where every choice is made; test never decides it."

Pair: TypeAlias = tuple[str, str]
"""Kind and method."""


@final
@dataclass(frozen=True, eq=False)
class StudyTables:
    """What the tables of a study are made from.

    Attributes
    ----------
    result : DetectionResult
    summary : mapping
        The study's ``summary.json``; without a study folder, ``result.summary``.
    attribution : AttributionResult or None
    analysis : AnalysisResult or None
    """

    result: DetectionResult
    summary: Mapping[str, Any]
    attribution: AttributionResult | None = None
    analysis: AnalysisResult | None = None

    @property
    def pairs(self) -> list[Pair]:
        """Every kind and method, vector kinds first, as the study has them."""
        found = [(kind, method) for kind, by_method in self.summary["weighted_f1"].items() for method in by_method]
        return sorted(found, key=lambda pair: pair[0] in KINDLESS)

    @property
    def kinds(self) -> list[str]:
        """Every kind once, vector kinds first."""
        return list(dict.fromkeys(kind for kind, _ in self.pairs))

    def on_cal(self, average: str = "weighted") -> dict[Pair, float]:
        """Average F1 on cal, as chosen there, of every kind and method that has one."""
        scores: dict[Pair, float] = {}
        if average == "weighted":
            for kind, by_method in self.summary.get("cal_weighted_f1", {}).items():
                scores |= {(kind, method): value for method, value in by_method.items() if value is not None}
        column = f"{average}_f1"
        if column in self.result.aggregates.column_names:
            for row in selected(self.result.aggregates, split="cal", site="chosen").to_pylist():
                if row[column] is not None and np.isfinite(row[column]):
                    scores.setdefault((row["kind"], row["method"]), row[column])
        return {pair: scores[pair] for pair in self.pairs if pair in scores}

    def best_method(self, kind: str) -> str:
        """Give the method of a kind with the highest weighted F1 on cal."""
        scores = {method: value for (owner, method), value in self.on_cal().items() if owner == kind}
        return best_of(scores) or next(method for owner, method in self.pairs if owner == kind)

    def focus(self, kind: str) -> str:
        """Give the SuperActivators where a kind has them, otherwise its best method on cal."""
        return REFERENCE if (kind, REFERENCE) in self.pairs else self.best_method(kind)

    def chosen_rows(self, split: str = "test") -> dict[tuple[str, str, str], dict[str, Any]]:
        """Metrics at the site and level chosen on cal, by kind, method and concept."""
        rows = selected(self.result.metrics, split=split, chosen=True).to_pylist()
        return {(row["kind"], row["method"], row["concept"]): row for row in rows}


def best_of(scores: Mapping[Any, float]) -> Any:
    """Give the key of the highest value, the first of equals; None without any."""
    return max(scores, key=lambda key: scores[key]) if scores else None
