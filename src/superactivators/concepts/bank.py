"""Concept vectors of one kind at one layer: the frozen result of learning, and how it scores states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, final, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from superactivators.artefacts import FolderReader, FolderWriter, array_fingerprint, fingerprint
from superactivators.concepts.sae import Encoder, SparseEncoder
from superactivators.concepts.sae_object import WrappedEncoder
from superactivators.errors import ModelError, StoreError, StudyError
from superactivators.states.scaling import Scaling
from superactivators.states.states import Level

Activation: TypeAlias = Literal["cosine", "logit", "latent"]

ENCODER = "encoder."
"""Arrays of the encoder stand under this prefix beside those of the bank."""


@final
@dataclass(frozen=True, eq=False)
class ConceptBank:
    """One vector for each concept, learned at one site, or one latent of a sparse autoencoder.

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
        In units of scaled states. Of latents: the direction that each of them writes, or, where the decoder is not
        known, the one that it reads; they are scored by the encoder, not by this direction.
    bias : float32 tensor of shape (concepts,)
        Added to logits; zero for cosines and latents.
    scaling : Scaling
        Of the train states (METHOD section 3).
    activation : str
        ``"cosine"``, ``"logit"`` or ``"latent"`` (METHOD section 4).
    estimable : bool array of shape (concepts,)
        False where the train split has no example, or nothing but examples; such a vector is zero.
    notes : mapping
        What the learner reports, as JSON types (strength, gradient norm, iterations).
    encoder : SparseEncoder or WrappedEncoder, or None
        Of latents: gives one latent for each concept, from raw states.
    units : int64 array of shape (concepts,), or None
        Of latents: their numbers in the whole autoencoder.
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
    encoder: Encoder | None = None
    units: Int64[np.ndarray, " c"] | None = None

    def __post_init__(self) -> None:
        n = len(self.concepts)
        whole = self.encoder is not None and self.units is not None
        fits = self.encoder is None or (self.encoder.n_latents == n and self.encoder.width in (None, self.width))
        if whole != (self.activation == "latent") or not fits:
            raise StudyError(
                f"a bank of {n} concepts with activation {self.activation!r} and encoder {self.encoder!r}: latents, "
                "and nothing else, need an encoder of one latent for each concept, and their numbers; use sae_bank"
            )

    def __repr__(self) -> str:
        return f"ConceptBank({self.kind!r}, {self.site}, {self.level}, {len(self.concepts)} concepts)"

    @property
    def width(self) -> int:
        """Number of columns of the states."""
        return len(self.scaling.mean)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that the bank holds.

        Raises
        ------
        StudyError
            If it scores with a Python object.
        """
        arrays = {name: array_fingerprint(array) for name, array in self._arrays().items()}
        return fingerprint([arrays, self.entry("")])

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
        if self.encoder is not None:
            return self.encoder.encode(torch.add(self.scaling.mean, scaled, alpha=self.scaling.scale))
        if self.activation == "logit":
            return torch.addmm(self.bias, scaled, self.vectors.T)
        lengths = torch.linalg.vector_norm(scaled, dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        directions: Tensor = torch.nn.functional.normalize(self.vectors, dim=1)
        return torch.div(scaled @ directions.T, lengths)

    def subset(self, columns: Sequence[int] | Int[np.ndarray, " k"], names: Sequence[str] | None = None) -> ConceptBank:
        """Keep some of the concepts.

        Parameters
        ----------
        columns : int sequence of length k
            Their numbers, in the order wanted. A number may repeat if ``names`` tells the copies apart: several
            concepts can be matched to one unit.
        names : sequence of str, optional
            What they are called from here on.

        Returns
        -------
        ConceptBank
            With the same notes.

        Raises
        ------
        StudyError
            If a number is not that of a concept, or the names are too few, too many or not unique.
        """
        index = np.array(columns, dtype=np.int64).reshape(-1)
        if len(index) and not 0 <= index.min() <= index.max() < len(self.concepts):
            raise StudyError(
                f"columns {index.min()} to {index.max()} asked of a bank of {len(self.concepts)} concepts; "
                f"give 0 to {len(self.concepts) - 1}"
            )
        kept = tuple(self.concepts[column] for column in index) if names is None else tuple(names)
        if len(kept) != len(index) or len(set(kept)) != len(kept):
            raise StudyError(f"{len(index)} columns with names {', '.join(kept)}; give each its own name")
        return replace(
            self,
            concepts=kept,
            vectors=self.vectors[index],
            bias=self.bias[index],
            estimable=self.estimable[index],
            encoder=None if self.encoder is None else self.encoder.select(index),
            units=None if self.units is None else self.units[index],
        )

    def write(self, writer: FolderWriter, file: str) -> None:
        """Write the arrays into a folder; `read` needs the `entry` of the same file beside them.

        Raises
        ------
        StudyError
            If the bank scores with a Python object, which cannot be written.
        """
        writer.arrays(file, self._arrays())

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {
            "vectors": self.vectors.numpy(),
            "bias": self.bias.numpy(),
            "mean": self.scaling.mean.numpy(),
            "scale": np.array([self.scaling.scale]),
            "estimable": self.estimable.astype(np.uint8),
        }
        encoder = self._written_encoder()
        if encoder is not None and self.units is not None:
            arrays["units"] = self.units
            arrays |= {ENCODER + name: array for name, array in encoder.arrays().items()}
        return arrays

    def _written_encoder(self) -> SparseEncoder | None:
        if isinstance(self.encoder, WrappedEncoder):
            raise StudyError(
                f"{self.encoder!r} is a Python object and cannot be written; keep the study in memory, or export the "
                "autoencoder in a layout that read_sae reads"
            )
        return self.encoder

    def entry(self, file: str) -> dict[str, Any]:
        """Everything but the arrays, as JSON types."""
        entry = {
            "file": file,
            "kind": self.kind,
            "site": self.site,
            "level": self.level,
            "concepts": list(self.concepts),
            "activation": self.activation,
            "notes": dict(self.notes),
        }
        encoder = self._written_encoder()
        return entry if encoder is None else {**entry, "encoder": encoder.settings()}

    @staticmethod
    def read(reader: FolderReader, entry: Mapping[str, Any]) -> ConceptBank:
        """Read what `write` wrote, by this release or an earlier one; raises ``StoreError`` if it is damaged."""
        try:
            path = reader.folder / entry["file"]
            arrays = reader.arrays(entry["file"])
            concepts = tuple(entry["concepts"])
            vectors = torch.from_numpy(arrays["vectors"])
            if vectors.shape != (len(concepts), len(arrays["mean"])) or not bool(torch.isfinite(vectors).all()):
                raise StoreError(f"{path}: its vectors are not those of its concepts; learn again")
            if entry["activation"] not in get_args(Activation):
                raise StoreError(
                    f"{path}: activation {entry['activation']!r} is unknown here; use the release that wrote it"
                )
            encoder = None
            if "encoder" in entry:
                held = {name.removeprefix(ENCODER): array for name, array in arrays.items() if name.startswith(ENCODER)}
                encoder = SparseEncoder.of(held, entry["encoder"])
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
                encoder=encoder,
                units=arrays.get("units"),
            )
        except (KeyError, TypeError, IndexError, AttributeError, ModelError, StudyError) as error:
            raise StoreError(f"{reader.folder}: a bank does not fit the format ({error}); learn again") from None


def sae_bank(
    encoder: Encoder,
    units: Int[np.ndarray, " c"],
    scaling: Scaling,
    site: str,
    level: Level,
    kind: str = "sae",
    notes: Mapping[str, Any] | None = None,
) -> ConceptBank:
    """Make a bank of latents of a sparse autoencoder; its concepts are named by their numbers.

    Parameters
    ----------
    encoder : SparseEncoder or WrappedEncoder
        The whole autoencoder.
    units : int array of shape (concepts,)
        Numbers of the latents, all different; see `superactivators.concepts.sae.prune_latents`.
    scaling : Scaling
        Of the states of ``site`` and ``level``.
    site, level : str
    kind : str
    notes : mapping, optional
        JSON types; added to the encoder's own.

    Returns
    -------
    ConceptBank
        For ReLU, JumpReLU and gated encoders only the rows of these latents are kept. Top-k ranks all latents, so that
        the whole encoder goes along. Where no direction is known (an object without decoder), vectors are zero.

    Raises
    ------
    StudyError
        If the encoder reads states of another width, or a number is not that of a latent.
    """
    numbers = np.array(units, dtype=np.int64)
    width = len(scaling.mean)
    if encoder.width not in (None, width):
        raise StudyError(
            f"the sparse autoencoder reads states of width {encoder.width}, but {site} has {width}; "
            "give the autoencoder of this model and layer"
        )
    if not len(numbers) or len(set(numbers.tolist())) != len(numbers):
        raise StudyError(f"{len(numbers)} latents of {site}, not all different or none; give each number once")
    chosen = encoder.select(numbers)
    vectors = chosen.directions(scaling.scale)
    return ConceptBank(
        kind=kind,
        site=site,
        level=level,
        concepts=tuple(str(number) for number in numbers),
        vectors=torch.zeros(len(numbers), width) if vectors is None else vectors,
        bias=torch.zeros(len(numbers)),
        scaling=scaling,
        activation="latent",
        estimable=np.ones(len(numbers), dtype=bool),
        notes={**encoder.notes, **(notes or {})},
        encoder=replace(chosen, decoder=None, notes={}),
        units=numbers,
    )
