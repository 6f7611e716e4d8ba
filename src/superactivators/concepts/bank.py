"""Concept vectors of one kind at one layer: the frozen result of learning, and how it scores states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from superactivators.artefacts import FolderReader, FolderWriter
from superactivators.errors import StoreError
from superactivators.states.scaling import Scaling
from superactivators.states.states import Level

Activation: TypeAlias = Literal["cosine", "logit"]


@final
@dataclass(frozen=True, eq=False)
class ConceptBank:
    """One vector for each concept, learned at one site.

    Attributes
    ----------
    kind : str
        How the vectors were learned, such as ``"mean"`` or ``"linear"``.
    site : str
        Where, such as ``"block[3]"``.
    level : str
        ``"token"`` or ``"sample"``: from which states, and for which.
    concepts : tuple of str
    vectors : float32 tensor of shape (concepts, width)
        In units of scaled states.
    bias : float32 tensor of shape (concepts,)
        Added to logits; zero for cosines.
    scaling : Scaling
        Of the train states (METHOD section 3).
    activation : str
        ``"cosine"`` or ``"logit"`` (METHOD section 4).
    estimable : bool array of shape (concepts,)
        False where the train split has no example, or nothing but examples; such a vector is zero.
    notes : mapping
        What the learner reports, as JSON types (strength, gradient norm, iterations).
    """

    kind: str
    site: str
    level: Level
    concepts: tuple[str, ...]
    vectors: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    scaling: Scaling
    activation: Activation
    estimable: Bool[np.ndarray, " c"]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ConceptBank({self.kind!r}, {self.site}, {self.level}, {len(self.concepts)} concepts)"

    def activations(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows c"]:
        """Score raw states against every concept.

        Parameters
        ----------
        states : float tensor of shape (rows, width)
            As the backbone or the store gives them, not scaled.

        Returns
        -------
        float32 tensor of shape (rows, concepts)
        """
        return self.score(self.scaling.apply(states))

    def score(self, scaled: Float[Tensor, "rows d"]) -> Float[Tensor, "rows c"]:
        """Score states that are already scaled; see `activations`."""
        if self.activation == "logit":
            return torch.addmm(self.bias, scaled, self.vectors.T)
        lengths = torch.linalg.vector_norm(scaled, dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        directions: Tensor = torch.nn.functional.normalize(self.vectors, dim=1)
        return torch.div(scaled @ directions.T, lengths)

    def write(self, writer: FolderWriter, file: str) -> None:
        """Write the arrays into a folder; `read` needs the `entry` of the same file beside them."""
        writer.arrays(
            file,
            {
                "vectors": self.vectors.numpy(),
                "bias": self.bias.numpy(),
                "mean": self.scaling.mean.numpy(),
                "scale": np.array([self.scaling.scale]),
                "estimable": self.estimable.astype(np.uint8),
            },
        )

    def entry(self, file: str) -> dict[str, Any]:
        """Everything but the arrays, as JSON types."""
        return {
            "file": file,
            "kind": self.kind,
            "site": self.site,
            "level": self.level,
            "concepts": list(self.concepts),
            "activation": self.activation,
            "notes": dict(self.notes),
        }

    @staticmethod
    def read(reader: FolderReader, entry: Mapping[str, Any]) -> ConceptBank:
        """Read what `write` wrote; raises ``StoreError`` if it is damaged."""
        arrays = reader.arrays(entry["file"])
        concepts = tuple(entry["concepts"])
        vectors = torch.from_numpy(arrays["vectors"])
        if vectors.shape != (len(concepts), len(arrays["mean"])) or not bool(torch.isfinite(vectors).all()):
            raise StoreError(f"{reader.folder / entry['file']}: its vectors are not those of its concepts; learn again")
        return ConceptBank(
            kind=entry["kind"],
            site=entry["site"],
            level=entry["level"],
            concepts=concepts,
            vectors=vectors,
            bias=torch.from_numpy(arrays["bias"]),
            scaling=Scaling(torch.from_numpy(arrays["mean"]), float(arrays["scale"][0])),
            activation=entry["activation"],
            estimable=arrays["estimable"].astype(bool),
            notes=entry["notes"],
        )
