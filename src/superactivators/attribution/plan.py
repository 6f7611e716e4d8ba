"""What a survey attributes, where, and how it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from superactivators.attribution.evaluation import RESAMPLES
from superactivators.attribution.explainer import Explainer
from superactivators.detection.tail import DELTAS
from superactivators.models.backbone import MAX_BATCH_TOKENS

STEPS = 10


@final
@dataclass(frozen=True)
class SurveyPlan:
    """What to attribute, where, and how it is judged.

    Attributes
    ----------
    explainers : mapping of str to Explainer
    hiding : str or None
        See `superactivators.attribution.hiding.HIDINGS`.
    cal_samples, test_samples : int
        Most samples of each split that are explained, drawn among those that hold a concept; 0 for all of them.
    steps : int
        Points of the insertion and deletion curves, less one.
    sanity_samples : int
        Test samples whose maps are made again with randomised vectors and model.
    examples : int
        Test samples whose maps are kept to be looked at.
    deltas : tuple of float
        Sparsity levels among which thresholds on maps are chosen.
    resamples : int
    seed : int
    max_batch_tokens : int
    """

    explainers: Mapping[str, Explainer] = field(default_factory=dict)
    hiding: str | None = None
    cal_samples: int = 60
    test_samples: int = 100
    steps: int = STEPS
    sanity_samples: int = 10
    examples: int = 16
    deltas: tuple[float, ...] = DELTAS
    resamples: int = RESAMPLES
    seed: int = 0
    max_batch_tokens: int = MAX_BATCH_TOKENS
