"""Insertion and deletion: whether the concept comes and goes with the tokens a map puts first (METHOD section 7).

Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018. Insertion
shows the tokens of a hidden input again, highest first: a good map gives a large area. Deletion hides the tokens of the
full input, highest first: a good map gives a small area. The curve is the agreement with the concept vector, whatever
objective the map was made for, so that maps of both objectives are judged alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from superactivators.attribution.objectives import Objectives
from superactivators.errors import StudyError

STEPS = 20

LEAST_SPAN = 0.5
"""Curves are normalised where the full input agrees more with the concept than the empty one, by at least this share of
what is usual for the concept; ratios to smaller differences, or to negative ones, say nothing about a map."""


@runtime_checkable
class Perturbed(Protocol):
    """What is needed of a `superactivators.attribution.scene.Scene`."""

    objectives: Objectives

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        ...

    def values(self, keep: Bool[np.ndarray, "m tokens"]) -> Float[np.ndarray, "m columns"]:
        """Objectives of variants with hidden tokens."""
        ...


@final
@dataclass(frozen=True, eq=False)
class Curves:
    """Agreement with the concept of each map's column, by the share of tokens inserted or deleted.

    Attributes
    ----------
    insertion, deletion : float64 arrays of shape (..., columns, steps + 1)
        From the empty to the full input, and from the full to the empty one.
    """

    insertion: Float[np.ndarray, "*explainers columns points"]
    deletion: Float[np.ndarray, "*explainers columns points"]

    @property
    def shares(self) -> Float[np.ndarray, " points"]:
        """Share of tokens at each point; their number is rounded."""
        return np.linspace(0.0, 1.0, self.insertion.shape[-1])

    @property
    def span(self) -> Float[np.ndarray, "*explainers columns"]:
        """Full minus empty input; where it is negative the hidden input agrees more with the concept."""
        return np.asarray(self.insertion[..., -1] - self.insertion[..., 0])

    def normalised(self, chosen: Bool[np.ndarray, "*columns"]) -> Curves:
        """Put the empty input at 0 and the full one at 1.

        Nothing is clipped: where a part of the input agrees more than the whole, curves pass 1.

        Parameters
        ----------
        chosen : bool array that broadcasts to (..., columns)
            Which curves to normalise, see `normalisable`; the others become NaN, and so do those without any span.
        """
        empty = self.insertion[..., :1]
        span = np.where(chosen & (self.span != 0), self.span, np.nan)[..., None]
        return Curves((self.insertion - empty) / span, (self.deletion - empty) / span)

    def areas(self, chosen: Bool[np.ndarray, "*columns"]) -> dict[str, Float[np.ndarray, "*explainers columns"]]:
        """Areas under the curves by the trapezoid rule over the share of tokens.

        Parameters
        ----------
        chosen : bool array that broadcasts to (..., columns)
            As for `normalised`.

        Returns
        -------
        dict of str to float64 array of shape (..., columns)
            ``insertion`` and ``deletion`` of the normalised curves, ``insertion_raw`` and ``deletion_raw``.
        """
        normalised = self.normalised(chosen)
        return {
            "insertion": _area(normalised.insertion),
            "deletion": _area(normalised.deletion),
            "insertion_raw": _area(self.insertion),
            "deletion_raw": _area(self.deletion),
        }


def normalisable(span: Float[np.ndarray, " cases"], concepts: Int[np.ndarray, " cases"]) -> Bool[np.ndarray, " cases"]:
    """Tell which cases can be normalised; see `LEAST_SPAN`. It depends on the inputs only, not on any map.

    Parameters
    ----------
    span : float array of shape (cases,)
        Full minus empty input.
    concepts : int array of shape (cases,)
        What is usual is the mean absolute span of a concept's cases.
    """
    if not len(span):
        return np.zeros(0, dtype=bool)
    usual = np.bincount(concepts, weights=np.abs(span)) / np.maximum(np.bincount(concepts), 1)
    return np.asarray((span > 0) & (span >= LEAST_SPAN * usual[concepts]))


def curves(scene: Perturbed, maps: Float[np.ndarray, "*explainers tokens columns"], steps: int = STEPS) -> Curves:
    """Insert and delete the tokens of one sample by all of its maps, in one batch of variants.

    Variants that several curves share (the empty and the full input, equal beginnings of an order) are run once.

    Parameters
    ----------
    scene : Scene
        With the objective ``"concept"`` of every concept.
    maps : float array of shape (..., tokens, columns)
        Maps of the scene's columns, of any number of explainers. Equal tokens are taken by their number.
    steps : int
        At point ``i`` of ``steps + 1``, ``tokens * i / steps`` tokens are inserted or deleted, rounded (halves up).

    Returns
    -------
    Curves

    Raises
    ------
    StudyError
        If ``steps`` is less than 1, a map is not finite or not of the scene's shape, or a concept lacks its
        ``"concept"`` column.
    """
    columns = concept_columns(scene.objectives)
    wanted = (scene.n_tokens, len(columns))
    if steps < 1:
        raise StudyError(f"insertion and deletion need at least 1 step; got {steps}")
    if maps.shape[-2:] != wanted:
        raise StudyError(f"maps have shape {maps.shape}; this sample needs (tokens, columns) = {wanted} at the end")
    if not np.isfinite(maps).all():
        raise StudyError(
            f"{int((~np.isfinite(maps)).sum())} of {maps.size} values of the maps are not finite; explainers must give "
            "finite numbers"
        )
    by_column = np.swapaxes(maps, -1, -2)
    order = np.argsort(-by_column, axis=-1, kind="stable")
    place = np.argsort(order, axis=-1, kind="stable")
    counts = (2 * scene.n_tokens * np.arange(steps + 1) + steps) // (2 * steps)
    inserted = place[..., None, :] < counts[:, None]
    keep, which = _distinct(np.stack([inserted, ~inserted]))
    values = scene.values(keep).astype(np.float64)
    insertion, deletion = values[which, columns[:, None]]
    return Curves(insertion, deletion)


def concept_columns(objectives: Objectives) -> Int[np.ndarray, " columns"]:
    """For each column, the column of its concept under the objective ``"concept"``; raises ``StudyError`` without."""
    pairs = zip(objectives.concepts, objectives.objectives, strict=True)
    held = {concept: number for number, (concept, objective) in enumerate(pairs) if objective == "concept"}
    missing = [name for name in dict.fromkeys(objectives.concepts) if name not in held]
    if missing:
        raise StudyError(
            f"insertion and deletion are measured by the objective 'concept', which this scene lacks for {missing}; "
            "make the scene with the objectives 'concept' and 'superactivators'"
        )
    return np.array([held[name] for name in objectives.concepts], dtype=np.int64)


def _distinct(
    keep: Bool[np.ndarray, "*batch tokens"],
) -> tuple[Bool[np.ndarray, "m tokens"], Int[np.ndarray, "*batch"]]:
    """Different variants, and which of them each one is."""
    packed = np.packbits(keep.reshape(-1, keep.shape[-1]), axis=1)
    rows = packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]
    _, first, which = np.unique(rows, return_index=True, return_inverse=True)
    return keep.reshape(-1, keep.shape[-1])[first], which.reshape(keep.shape[:-1])


def _area(curve: Float[np.ndarray, "*some points"]) -> Float[np.ndarray, "*some"]:
    return np.asarray((curve[..., 1:] + curve[..., :-1]).mean(axis=-1) / 2)
