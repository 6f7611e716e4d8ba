"""Sparse autoencoders as concept units: latents of raw states, block by block, and which latents are worth scoring.

The autoencoder is trained elsewhere; here it only encodes. Rules: ReLU (Bricken et al., 2023), JumpReLU (Rajamanoharan
et al., 2024b), top-k (Gao et al., 2024) and gated (Rajamanoharan et al., 2024a). Batch top-k (Bussmann et al., 2024)
encodes single rows with the threshold that it stored, which is a JumpReLU.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from superactivators.artefacts import array_fingerprint, fingerprint
from superactivators.concepts.latents import are_within, block_rows, column_index, gather
from superactivators.concepts.sae_object import WrappedEncoder
from superactivators.errors import ModelError, StudyError, allowed
from superactivators.states.scaling import Rows

RULES = ("relu", "jumprelu", "topk", "gated")
NORMALISATIONS = ("none", "layer_norm", "constant_norm")

LAYER_NORM_EPS = 1e-5
"""Added to the deviation, as SAELens does (repository decoderesearch/SAELens, sae_lens/saes/sae.py)."""

LEAST_FIRED = 5
"""A latent that fires on fewer cal rows is dead: the number of positive samples below which a concept is left out."""

MOST_SHARE = 0.5
"""A latent that fires on a larger share of cal rows is ubiquitous."""

MOST_UNITS = 4096
"""Latents kept at most."""


@final
@dataclass(frozen=True, eq=False)
class SparseEncoder:
    """The encoder of a sparse autoencoder.

    With x the raw state, after the normalisation that the autoencoder was trained with, the pre-activations are
    ``weight @ (x * input_scale - centre) + bias``. Latents are never negative.

    Attributes
    ----------
    weight : float32 tensor of shape (pre-activations, width)
    bias : float32 tensor of shape (pre-activations,)
        For the rule gated, that of the gate.
    centre : float32 tensor of shape (width,)
        Subtracted from every state; zero where the autoencoder subtracts nothing.
    rule : str
        ``"relu"``; ``"jumprelu"``: kept above ``threshold``; ``"topk"``: the k largest of each row, then ReLU, and
        those that tie with the k-th are kept too, so that a row's latents depend on nothing but the row; ``"gated"``:
        where the pre-activation is above zero, the ReLU of ``gain`` times the product plus ``magnitude_bias``.
    threshold : float32 tensor of shape (pre-activations,), or None
        For the rule jumprelu; negative ones count as zero.
    k : int or None
        For the rule topk.
    gain, magnitude_bias : float32 tensor of shape (pre-activations,), or None
        For the rule gated.
    input_scale : float
    normalisation : str
        Of each state: ``"none"``; ``"layer_norm"``: less its mean, divided by its deviation; ``"constant_norm"``: to a
        norm of the root of the width.
    centred : bool
        Whether the mean of each state is taken off first: the autoencoder was trained on a model whose weights write
        states of mean zero.
    chosen : int64 tensor of shape (latents,), or None
        For the rule topk: which latents are given back, since all pre-activations are needed to rank them. None: all.
    decoder : float32 tensor of shape (latents, width), or None
        Direction that each latent writes, in units of the autoencoder's input.
    notes : mapping
        Where it came from, as JSON types: layout, rule, latents, width, and hook, layer, site and model where known.

    Raises
    ------
    ModelError
        If shapes do not fit, a number is not finite, or the rule lacks what it needs.
    """

    # Shapes and names are checked in every run, since they come from files.
    weight: Tensor
    bias: Tensor
    centre: Tensor
    rule: str
    threshold: Tensor | None = None
    k: int | None = None
    gain: Tensor | None = None
    magnitude_bias: Tensor | None = None
    input_scale: float = 1.0
    normalisation: str = "none"
    centred: bool = False
    chosen: Tensor | None = None
    decoder: Tensor | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, options in (("rule", RULES), ("normalisation", NORMALISATIONS)):
            if getattr(self, name) not in options:
                given = getattr(self, name)
                raise ModelError(f"sparse autoencoder with {name} {given!r}; {allowed(given, options)}")
        if self.weight.ndim != 2 or not self.weight.shape[1]:
            raise ModelError(f"sparse autoencoder with weights of shape {tuple(self.weight.shape)}; a matrix is needed")
        rows, width = self.weight.shape
        shapes: dict[str, tuple[int, ...] | None] = {
            "bias": (rows,),
            "centre": (width,),
            "threshold": (rows,) if self.rule == "jumprelu" else None,
            "gain": (rows,) if self.rule == "gated" else None,
            "magnitude_bias": (rows,) if self.rule == "gated" else None,
            "decoder": None if self.decoder is None else (self.n_latents, width),
        }
        for name, shape in shapes.items():
            found = None if getattr(self, name) is None else tuple(getattr(self, name).shape)
            if found != shape:
                raise ModelError(
                    f"sparse autoencoder of rule {self.rule} with {name} of shape {found}, but {rows} latents of "
                    f"width {width} need {shape}; check the weights"
                )
        for name in ("weight", *(name for name, shape in shapes.items() if shape)):
            if not bool(torch.isfinite(getattr(self, name)).all()):
                raise ModelError(f"sparse autoencoder with values in {name} that are not finite; get its weights again")
        if (self.k is None) == (self.rule == "topk") or (self.k is not None and not 1 <= self.k <= rows):
            raise ModelError(f"sparse autoencoder of rule {self.rule} with k = {self.k}; topk needs k from 1 to {rows}")
        if not 0 < self.input_scale < float("inf"):
            raise ModelError(
                f"sparse autoencoder with input scale {self.input_scale}; it must be finite and above zero"
            )
        if self.chosen is not None and (self.rule != "topk" or not are_within(self.chosen, rows)):
            raise ModelError(f"sparse autoencoder of rule {self.rule} with chosen latents beyond its {rows}")

    def __repr__(self) -> str:
        return f"SparseEncoder({self.rule!r}, {self.n_latents} latents of width {self.width})"

    @property
    def n_latents(self) -> int:
        """Number of latents that `encode` gives for each row."""
        return len(self.weight if self.chosen is None else self.chosen)

    @property
    def width(self) -> int:
        """Number of columns of the states."""
        return int(self.weight.shape[1])

    def encode(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows c"]:
        """Latents of raw states.

        Parameters
        ----------
        states : float tensor of shape (rows, width)

        Returns
        -------
        float32 tensor of shape (rows, latents)

        Raises
        ------
        StudyError
            If the states are of another width.
        """
        return gather(self.blocks(states), len(states), self.n_latents)

    def blocks(self, states: Float[Tensor, "rows d"]) -> Iterator[tuple[int, Float[Tensor, "some c"]]]:
        """Yield the first row number and the latents of consecutive rows, so that they are never all in memory."""
        if states.shape[1] != self.width:
            raise StudyError(
                f"the sparse autoencoder reads states of width {self.width}, but these have {states.shape[1]}; "
                "give the autoencoder of this model and layer"
            )
        step = block_rows(len(self.weight))
        for start in range(0, len(states), step):
            yield start, self._encoded(states[start : start + step])

    def _encoded(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows c"]:
        inputs = self._inputs(states)
        if self.gain is not None and self.magnitude_bias is not None:
            product = inputs @ self.weight.T
            is_shut = product + self.bias <= 0
            return product.mul_(self.gain).add_(self.magnitude_bias).masked_fill_(is_shut, 0.0).clamp_min_(0.0)
        before = torch.addmm(self.bias, inputs, self.weight.T)
        if self.threshold is not None:
            return before.masked_fill_(before <= self.threshold.clamp_min(0.0), 0.0)
        if self.k is not None:
            lowest = before.topk(self.k, dim=1).values[:, -1:]
            kept = before if self.chosen is None else before[:, self.chosen]
            return kept.masked_fill_(kept < lowest, 0.0).clamp_min_(0.0)
        return before.clamp_min_(0.0)

    def _inputs(self, states: Float[Tensor, "rows d"]) -> Float[Tensor, "rows d"]:
        x = states.float()
        if self.centred or self.normalisation == "layer_norm":
            x = x - x.mean(dim=1, keepdim=True)
        if self.normalisation == "layer_norm":
            x = x / (x.std(dim=1, keepdim=True) + LAYER_NORM_EPS)
        elif self.normalisation == "constant_norm":
            lengths = torch.linalg.vector_norm(x, dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
            x = x * (self.width**0.5 / lengths)
        return x * self.input_scale - self.centre

    def select(self, columns: Int[np.ndarray, " k"]) -> SparseEncoder:
        """Keep some of the latents, in the order given; only what they need is kept and computed.

        Parameters
        ----------
        columns : int array of shape (k,)
            Numbers among the latents that `encode` gives; may repeat.
        """
        index = column_index(columns, self.n_latents)
        decoder = _rows(self.decoder, index)
        if self.rule == "topk":
            return replace(self, chosen=index if self.chosen is None else self.chosen[index], decoder=decoder)
        return replace(
            self,
            weight=self.weight[index],
            bias=self.bias[index],
            threshold=_rows(self.threshold, index),
            gain=_rows(self.gain, index),
            magnitude_bias=_rows(self.magnitude_bias, index),
            decoder=decoder,
        )

    def directions(self, scale: float) -> Float[Tensor, "c d"]:
        """One direction for each latent: what it writes, or, where the decoder is not known, what it reads.

        Parameters
        ----------
        scale : float
            Of the scaling of states, whose units the directions have.

        Returns
        -------
        float32 tensor of shape (latents, width)
        """
        if self.decoder is not None:
            return self.decoder / (scale * self.input_scale)
        rows = self.weight if self.chosen is None else self.weight[self.chosen]
        return rows * (scale * self.input_scale)

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays but the decoder, by attribute name."""
        held = ("weight", "bias", "centre", "threshold", "gain", "magnitude_bias", "chosen")
        return {name: getattr(self, name).numpy() for name in held if getattr(self, name) is not None}

    def settings(self) -> dict[str, Any]:
        """Everything else, as JSON types."""
        names = ("rule", "k", "input_scale", "normalisation", "centred")
        return {**{name: getattr(self, name) for name in names}, "notes": dict(self.notes)}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights and settings."""
        return fingerprint([{name: array_fingerprint(array) for name, array in self.arrays().items()}, self.settings()])

    @staticmethod
    def of(arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]) -> SparseEncoder:
        """Put together what `arrays` and `settings` gave; raises ``ModelError`` if they do not fit."""
        held: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return SparseEncoder(**held, **settings)


Encoder: TypeAlias = SparseEncoder | WrappedEncoder


def prune_latents(
    encoder: Encoder,
    cal: Rows,
    *,
    least: int = LEAST_FIRED,
    share: float = MOST_SHARE,
    most: int = MOST_UNITS,
) -> tuple[Int64[np.ndarray, " k"], dict[str, Any]]:
    """Choose the latents that are worth scoring, from raw cal rows and without labels.

    A latent fires on a row where it is above zero. Latents that fire on fewer than ``least`` rows are dead, those that
    fire on more than ``share`` of the rows are ubiquitous; both are dropped. If more than ``most`` are left, those that
    fire on most rows are kept, and of equal ones those that come first. Counts do not depend on the scale of a latent
    and are whole numbers, so that the choice does not depend on the blocks.

    Parameters
    ----------
    encoder : SparseEncoder or WrappedEncoder
    cal : Rows
        Raw states of the cal split, not scaled; read once.
    least : int
    share : float
        From 0 to 1.
    most : int

    Returns
    -------
    units : int64 array of shape (k,)
        Latent numbers, going up.
    notes : dict
        Rows, the three settings, and how many latents are dead, ubiquitous, beyond ``most``, and kept.

    Raises
    ------
    StudyError
        If a setting is impossible, or no latent is left.
    """
    if least < 1 or most < 1 or not 0 < share <= 1:
        raise StudyError(
            f"least = {least}, share = {share}, most = {most}: least and most must be at least 1, share in (0, 1]"
        )
    fired = np.zeros(encoder.n_latents, dtype=np.int64)
    for _, block in cal.blocks():
        for _, latents in encoder.blocks(block):
            fired += np.count_nonzero(latents.numpy() > 0, axis=0)
    dead, ubiquitous = fired < least, fired > share * cal.n_rows
    left = np.flatnonzero(~dead & ~ubiquitous)
    if not len(left):
        raise StudyError(
            f"none of {len(fired)} latents fires on at least {least} and at most {share:.0%} of {cal.n_rows} cal rows "
            f"({int(dead.sum())} fire on fewer, {int(ubiquitous.sum())} on more); check that the autoencoder belongs "
            "to this model and layer, or choose other bounds"
        )
    units = np.sort(left[np.argsort(-fired[left], kind="stable")[:most]])
    notes = {
        "rows": cal.n_rows,
        "least": least,
        "share": share,
        "most": most,
        "dead": int(dead.sum()),
        "ubiquitous": int((ubiquitous & ~dead).sum()),
        "beyond_most": len(left) - len(units),
        "kept": len(units),
    }
    return units, notes


def _rows(matrix: Tensor | None, index: Int64[Tensor, " k"]) -> Tensor | None:
    return None if matrix is None else matrix[index]
