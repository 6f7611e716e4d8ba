"""Ways to decide whether a sample holds a concept: the SuperActivators and the baselines (METHOD section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from superactivators.registry import Registry
from superactivators.scores.site_scores import WHOLE
from superactivators.states.states import Level

Source: TypeAlias = Literal["vectors", "probe", "input", "prompt"]
"""Whose scores a method looks at: those of concept vectors, of probes trained for it, of the input itself, or answers.

The last three have no kind of vector; in the tables they are kinds of their own.
"""

Candidates: TypeAlias = Literal["tokens", "samples", "every", "given"]
"""Where candidate thresholds come from: quantiles over in-concept tokens of cal; quantiles over the scores of positive
cal samples; every score of a positive cal sample; or nowhere, the threshold is given."""


@final
@dataclass(frozen=True)
class Method:
    """A score per sample, and the set of scores that its candidate thresholds are taken from.

    Attributes
    ----------
    name : str
    level : str
        ``"token"``: vectors of token states; ``"sample"`` and ``"mean"``: own vectors of sample states, or of the means
        of token states.
    pool : str
        Which pooled score is compared with the threshold.
    candidates : str
        Where thresholds come from; see `Candidates`.
    summary : str
        One sentence for reports.
    source : str
        Whose scores; see `Source`.
    modality : str or None
        The only modality that it can be used for.
    """

    name: str
    level: Level
    pool: str
    candidates: Candidates
    summary: str
    source: Source = "vectors"
    modality: Literal["text", "image"] | None = None


methods: Registry[Method] = Registry("detection method", "superactivators.methods")
for _method in (
    Method("superactivators", "token", "max", "tokens", "any token above a quantile of in-concept token scores"),
    Method("max", "token", "max", "samples", "highest token, threshold from positive samples' highest tokens"),
    Method("mean", "token", "mean", "samples", "mean over the sample's tokens"),
    Method("last", "token", "last", "samples", "the sample's last token"),
    Method("random", "token", "random", "samples", "one token drawn at random"),
    Method("top-k-mean", "token", "top-k-mean", "samples", "mean of the five highest tokens"),
    Method("min-tokens", "token", "kth", "tokens", "several tokens above a quantile of in-concept token scores"),
    Method("segment", "token", "segment", "tokens", "several such tokens in one sentence, or in connected patches"),
    Method(
        "top-tokens", "token", "top-share-mean", "every", "mean of the highest 10 % of tokens, needs no token labels"
    ),
    Method("top-tokens-max", "token", "max", "every", "highest token, threshold from sample labels alone"),
    Method("cls", "sample", WHOLE, "samples", "own vectors on the sample state (CLS, or the mean state)"),
    Method("mean-probe", "mean", WHOLE, "samples", "own vectors on the mean of the sample's token states"),
    Method("attention", "token", "attention", "samples", "attention probe trained on sample labels", "probe"),
    Method("softmax", "token", "softmax", "samples", "softmax-weighted token probe trained on sample labels", "probe"),
    Method("rolling-max", "token", "rolling-max", "samples", "highest window mean of a token probe", "probe"),
    Method("multimax", "token", "multimax", "samples", "sum of several heads' highest tokens (MultiMax)", "probe"),
    Method(
        "bag-of-words", "sample", "bag-of-words", "samples", "TF-IDF logistic regression on the text", "input", "text"
    ),
    Method("prompt", "sample", "prompt", "given", "a chat model is asked whether the concept is there", "prompt"),
):
    methods.register(_method.name)(_method)
