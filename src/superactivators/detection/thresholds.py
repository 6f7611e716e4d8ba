"""A threshold knows where it comes from, and refuses to be judged on the split it was fitted on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

import numpy as np
from jaxtyping import Bool, Float

from superactivators.data.dataset import SPLITS
from superactivators.errors import CalibrationError, StudyError, allowed

Evidence: TypeAlias = Literal["sample", "segment"]
"""Where the tokens that reach a threshold must lie."""


def refuse_own_split(fitted_on: str, judged_on: str, *, in_sample: bool) -> None:
    """Raise ``CalibrationError`` if thresholds would be judged on their own split without being asked to.

    Splits are ``"train"``, ``"cal"``, ``"test"`` and ``"new"`` (samples of no split); others raise ``StudyError``.
    """
    if judged_on not in (*SPLITS, "new"):
        raise StudyError(f"unknown split {judged_on!r}; {allowed(judged_on, SPLITS)}")
    if judged_on == fitted_on and not in_sample:
        raise CalibrationError(
            f"these thresholds were fitted on the {fitted_on} split, so metrics on it are flattering; "
            "use another split, or pass in_sample=True to get them marked as such"
        )
    if judged_on == "train" and not in_sample:
        raise CalibrationError(
            "the concept vectors were learned on the train split, so metrics on it are flattering; "
            "use another split, or pass in_sample=True to get them marked as such"
        )


@final
@dataclass(frozen=True)
class Threshold:
    """From which score on a concept counts as present.

    Attributes
    ----------
    value : float
        Present if score >= value.
    delta : float
        Sparsity level: share of in-concept scores above the value.
    concept, kind, method, site : str
        What it belongs to.
    n : int
        Scores that the quantile was taken over.
    low, high : float
        95 % interval of the value, by resampling the split's samples; NaN where none was computed.
    split : str
        Split it was fitted on.
    unit : int or None
        Cluster or latent whose vector it is, for kinds that are matched to concepts.
    min_tokens : int
        Tokens that must reach the value.
    within : str
        ``"sample"``: anywhere in it; ``"segment"``: in one sentence, or connected on the patch grid.
    """

    value: float
    delta: float
    concept: str
    kind: str
    method: str
    site: str
    n: int
    low: float = float("nan")
    high: float = float("nan")
    split: str = "cal"
    unit: int | None = None
    min_tokens: int = 1
    within: Evidence = "sample"

    def __post_init__(self) -> None:
        if np.isnan(self.value):
            raise CalibrationError(f"the threshold of {self.concept!r} is not a number; calibrate again")

    def present(
        self, scores: Float[np.ndarray, " n"], split: str, *, in_sample: bool = False
    ) -> Bool[np.ndarray, " n"]:
        """Decide for the scores of a split's samples.

        Parameters
        ----------
        scores : float array of shape (n,)
        split : str
            Where the scores come from; ``"new"`` for samples of no split.
        in_sample : bool
            Allow the split that the threshold was fitted on.

        Raises
        ------
        CalibrationError
            If ``split`` is the threshold's own and ``in_sample`` is false.
        """
        refuse_own_split(self.split, split, in_sample=in_sample)
        return np.asarray(scores, dtype=np.float64) >= np.float64(self.value)

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON types; numbers that are not finite become None."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in fields.items()
        }

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> Threshold:
        """Read what `as_dict` gave; raises ``TypeError`` if fields are missing or unknown."""
        absent = {"value": float("inf"), **dict.fromkeys(("delta", "low", "high"), float("nan"))}
        given: dict[str, Any] = {name: absent.get(name) if value is None else value for name, value in fields.items()}
        return Threshold(**given)
