"""The choice of sparsity level and layer for each concept, by F1 on the calibration split (METHOD section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from superactivators.detection.metrics import f1_of, fire_counts
from superactivators.detection.tail import Tail


@final
@dataclass(frozen=True, eq=False)
class Choice:
    """One (layer, level) for each concept.

    Attributes
    ----------
    layer, level : int64 arrays of shape (..., concepts)
        Positions among the layers and among the sparsity levels.
    """

    layer: Int[np.ndarray, "*r c"]
    level: Int[np.ndarray, "*r c"]


def choose(f1: Float[np.ndarray, "*r layers levels c"]) -> Choice:
    """Take the best F1 of each concept; ties go to the smallest level, then to the shallowest layer.

    Parameters
    ----------
    f1 : float array of shape (..., layers, levels, concepts)
        Levels ascending, layers from shallow to deep.
    """
    n_layers, n_levels, n_concepts = f1.shape[-3:]
    flat = np.swapaxes(f1, -3, -2).reshape(*f1.shape[:-3], n_levels * n_layers, n_concepts)
    best = flat.argmax(axis=-2)
    return Choice(layer=best % n_layers, level=best // n_layers)


@final
@dataclass(frozen=True, eq=False)
class Calibration:
    """Candidate thresholds of one kind and method on the calibration split, and the choice among them.

    Attributes
    ----------
    tails : list of Tail
        One for each layer.
    thresholds, f1 : float64 arrays of shape (layers, levels, concepts)
        Every candidate and its F1 on cal.
    choice : Choice
        Best layer and level together.
    level_of_layer : int64 array of shape (layers, concepts)
        Best level at each layer.
    """

    tails: list[Tail]
    thresholds: Float[np.ndarray, "layers levels c"]
    f1: Float[np.ndarray, "layers levels c"]
    choice: Choice
    level_of_layer: Int[np.ndarray, "layers c"]

    @staticmethod
    def fit(
        tails: Sequence[Tail],
        scores: Sequence[Float[np.ndarray, "n c"]],
        labels: Bool[np.ndarray, "n c"],
        deltas: tuple[float, ...],
    ) -> Calibration:
        """Fit on the calibration split.

        Parameters
        ----------
        tails : sequence of Tail
            One for each layer, from shallow to deep.
        scores : sequence of float arrays of shape (n, concepts)
            Pooled scores of the cal samples at each layer.
        labels : bool array of shape (n, concepts)
        deltas : ascending sparsity levels
        """
        thresholds = np.stack([tail.quantiles(deltas) for tail in tails])
        positives = labels.sum(axis=0)
        f1 = np.stack(
            [
                f1_of(*fire_counts(score, labels, candidates), positives)
                for score, candidates in zip(scores, thresholds, strict=True)
            ]
        )
        return Calibration(list(tails), thresholds, f1, choose(f1), f1.argmax(axis=1))

    def chosen_thresholds(self) -> Float[np.ndarray, " c"]:
        """Threshold of every concept at its chosen layer and level."""
        return np.asarray(self.thresholds[self.choice.layer, self.choice.level, np.arange(self.thresholds.shape[2])])

    def layer_thresholds(self, layer: int) -> Float[np.ndarray, " c"]:
        """Threshold of every concept at one layer, at that layer's best level."""
        return np.asarray(self.thresholds[layer, self.level_of_layer[layer], np.arange(self.thresholds.shape[2])])

    def chosen(self, by_layer: Float[np.ndarray, "layers n c"]) -> Float[np.ndarray, "n c"]:
        """Take every concept's column from its chosen layer."""
        return np.asarray(by_layer[self.choice.layer, :, np.arange(by_layer.shape[2])].T)
