"""Ways to decide whether a sample holds a concept: the SuperActivators and the baselines (METHOD section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from superactivators.registry import Registry
from superactivators.scores.site_scores import WHOLE
from superactivators.states.states import Level


@final
@dataclass(frozen=True)
class Method:
    """A score per sample, and the set of scores whose quantiles are its candidate thresholds.

    Attributes
    ----------
    name : str
    level : str
        ``"token"``: vectors of token states; ``"sample"``: own vectors of sample states.
    pool : str
        Which pooled score is compared with the threshold.
    candidates : str
        ``"tokens"``: in-concept tokens of cal; ``"samples"``: pooled scores of positive cal samples.
    summary : str
        One sentence for reports.
    """

    name: str
    level: Level
    pool: str
    candidates: Literal["tokens", "samples"]
    summary: str


methods: Registry[Method] = Registry("detection method", "superactivators.methods")
for _method in (
    Method("superactivators", "token", "max", "tokens", "any token above a quantile of in-concept token scores"),
    Method("max", "token", "max", "samples", "highest token, threshold from positive samples' highest tokens"),
    Method("mean", "token", "mean", "samples", "mean over the sample's tokens"),
    Method("last", "token", "last", "samples", "the sample's last token"),
    Method("random", "token", "random", "samples", "one token drawn at random"),
    Method("cls", "sample", WHOLE, "samples", "own vectors on the sample state (CLS, or the mean state)"),
):
    methods.register(_method.name)(_method)
