"""One sample as explainers see it: objectives of variants with hidden tokens, and gradients, for all columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from superactivators.attribution.hiding import HiddenInputs, check_hiding
from superactivators.attribution.objectives import OBJECTIVES, Objectives
from superactivators.data.dataset import Sample
from superactivators.detection.detector import Detector
from superactivators.errors import StudyError
from superactivators.models.backbone import MAX_BATCH_TOKENS, Backbone
from superactivators.models.batching import ForwardPass
from superactivators.models.collect import to_device
from superactivators.models.encoding import Encoding
from superactivators.models.quiet import quiet_transformers

WHOLE_SAMPLE = 2**40
"""More tokens than any sample has: a batch of one sample comes in one forward pass."""


@final
@dataclass(frozen=True, eq=False)
class Recorded:
    """A differentiable forward pass over variants.

    Attributes
    ----------
    values : float32 tensor of shape (m, columns)
        Objective of every variant, with its graph.
    states : mapping of str to tensor of shape (m * pieces, sequence, width)
        Raw outputs at the sites asked for, (1, m * sequence, width) where the model packs its inputs; see
        `Scene.token_rows`.
    """

    values: Float[Tensor, "m columns"]
    states: Mapping[str, Tensor]


@final
@dataclass(eq=False)
class Scene:
    """A sample, a model and the columns to explain.

    Everything random is drawn from `generator`, which depends on the seed, the sample's id and a purpose only.

    Attributes
    ----------
    backbone : Backbone
    sample : Sample
    encoding : Encoding
        Of this sample alone.
    forward : ForwardPass
        Of this sample alone.
    hidden : HiddenInputs
        For variants (`values`).
    substitute : HiddenInputs
        For gradients, which cannot take attention away: the same, but with a substitute token where hiding is
        ``"remove"``.
    objectives : Objectives
    states : mapping of str to float tensor of shape (tokens, width)
        Raw states of the unchanged sample, at all of the detector's sites.
    seed : int
    max_batch_tokens : int
        Most places of the input in one forward pass; what bounds the memory.
    forwards : int
        Variants that were run, with and without gradients.
    """

    backbone: Backbone
    sample: Sample
    encoding: Encoding
    forward: ForwardPass
    hidden: HiddenInputs
    substitute: HiddenInputs
    objectives: Objectives
    states: Mapping[str, Float[Tensor, "tokens d"]]
    seed: int
    max_batch_tokens: int
    forwards: int = 0
    _cache: dict[bytes, Float[np.ndarray, "m columns"]] = field(default_factory=dict)

    @staticmethod
    def of(
        backbone: Backbone,
        detector: Detector,
        sample: Sample,
        concepts: Sequence[str] | None = None,
        objectives: Sequence[str] = OBJECTIVES,
        *,
        hiding: str | None = None,
        seed: int = 0,
        max_batch_tokens: int = MAX_BATCH_TOKENS,
    ) -> Scene:
        """Prepare a sample.

        Parameters
        ----------
        backbone : Backbone
        detector : Detector
            Made from this backbone.
        sample : Sample
        concepts : sequence of str, optional
            Default: all of the detector's.
        objectives : sequence of str
            See `superactivators.attribution.objectives`.
        hiding : str, optional
            How hidden tokens look; see `superactivators.attribution.hiding.HIDINGS`.
        seed : int
        max_batch_tokens : int
            Most places of the input in one forward pass; a single variant may be longer.

        Raises
        ------
        DataError
            If the sample is of the wrong modality, blank or unreadable.
        StudyError
            If a concept, an objective or the hiding is unknown, or the sample has no token.
        ModelError
            If the tokenizer has no token to hide others with, or it is not known where the pixels are in the input.
        """
        way = check_hiding(hiding, backbone.modality)
        encoding = backbone.encode([sample])
        (batch,) = backbone.batches([sample], encoding, max_batch_tokens=WHOLE_SAMPLE)
        if not encoding.n_tokens:
            raise StudyError(f"sample {sample.id!r} has no token, so there is nothing to attribute to")
        (forward,) = batch.passes
        inputs = to_device(forward.inputs, backbone.device, backbone.dtype)
        noise = _seed(seed, sample.id, "noise")
        hidden = HiddenInputs.of(backbone, forward, sample, inputs, way, noise)
        substitute = hidden if way != "remove" else HiddenInputs.of(backbone, forward, sample, inputs, "mask", noise)
        states = _states(backbone, forward, inputs, detector.sites)
        chosen = Objectives.of(detector, states, concepts, objectives)
        return Scene(backbone, sample, encoding, forward, hidden, substitute, chosen, states, seed, max_batch_tokens)

    @property
    def n_tokens(self) -> int:
        """Number of tokens of the sample."""
        return self.encoding.n_tokens

    @property
    def n_columns(self) -> int:
        """Number of maps: concepts times objectives."""
        return self.objectives.n_columns

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the patch grid; None for texts."""
        if self.encoding.grids is None:
            return None
        rows, columns = self.encoding.grids[0]
        return int(rows), int(columns)

    @property
    def cells(self) -> Int[np.ndarray, " tokens"]:
        """Grid cell (row-major) of every token; for texts the token's own number."""
        if self.encoding.cells is None:
            return np.arange(self.n_tokens)
        return self.encoding.cells.astype(np.int64)

    def generator(self, purpose: str) -> np.random.Generator:
        """Give random numbers that depend on seed, sample and purpose, and on nothing else."""
        return np.random.default_rng(_seed(self.seed, self.sample.id, purpose))

    def agreement(self) -> Float[np.ndarray, "tokens columns"]:
        """Agreement of every token of the unchanged sample with every column."""
        with torch.no_grad():
            return self.objectives.agreement(self.states).numpy()

    def values(self, keep: Bool[np.ndarray, "m tokens"]) -> Float[np.ndarray, "m columns"]:
        """Objectives of variants with hidden tokens; one forward pass of a variant serves all columns.

        Parameters
        ----------
        keep : bool array of shape (m, tokens)
            False where a token is hidden. Explainers that ask for the same array share the forward passes.

        Returns
        -------
        float32 array of shape (m, columns)
        """
        key = hashlib.blake2b(np.packbits(keep).tobytes() + str(keep.shape).encode(), digest_size=16).digest()
        if key not in self._cache:
            step = self._step(self.hidden)
            parts = [self._values(keep[begin : begin + step]) for begin in range(0, len(keep), step)]
            self._cache[key] = np.concatenate([np.zeros((0, self.n_columns), dtype=np.float32), *parts])
        return self._cache[key].copy()

    def leaf(self) -> Tensor:
        """Give what gradients are taken of.

        Returns
        -------
        tensor of shape (pieces, sequence, width), or of the shape of the pixels
            Token embeddings, or the pixels as the model gets them, such as (1, channels, height, width).
        """
        return self._leaf(self.substitute.inputs)

    def hidden_leaf(self) -> Tensor:
        """Give the same where every token is hidden."""
        return self._leaf({**self.substitute.inputs, self.substitute.field: self.substitute.filled})

    def record(self, leaves: Float[Tensor, "m ..."], sites: Sequence[str] = ()) -> Recorded:
        """Run a differentiable forward pass.

        Parameters
        ----------
        leaves : tensor of shape (m, *leaf)
            Variants of `leaf`; set ``requires_grad`` on it before.
        sites : sequence of str
            Whose raw states to give as well.

        Returns
        -------
        Recorded
        """
        self.forwards += len(leaves)
        held: dict[str, Tensor] = {}
        inputs = self.substitute.copies(len(leaves))
        flat = leaves.flatten(0, 1)
        if self.grid is not None:
            inputs[self.substitute.field] = flat
        with self._embedded(flat) if self.grid is None else nullcontext():
            self._run(inputs, [*self.objectives.readouts, *sites], lambda site, raw: held.update({site: raw}), True)
        rows = {site: self.token_rows(held[site], len(leaves)) for site in self.objectives.readouts}
        return Recorded(self.objectives.agreement(rows).mean(dim=1), {site: held[site] for site in sites})

    def gradient_steps(self, number: int) -> list[int]:
        """Cut so many variants of a recorded pass into runs that fit into memory: their bounds."""
        step = self._step(self.substitute)
        return [*range(0, number, step), number]

    def token_rows(
        self, raw: Float[Tensor, "batch sequence width"], variants: int = 1
    ) -> Float[Tensor, "variants tokens width"]:
        """Take the rows of the sample's tokens, in their order, out of states of its variants; on the CPU."""
        rows = torch.from_numpy(self.forward.layout(raw.shape[1], variants).rows).to(raw.device)
        return raw.flatten(0, 1).index_select(0, rows).reshape(variants, self.n_tokens, raw.shape[2]).cpu()

    def per_token(self, leaves: Float[Tensor, "m ..."]) -> Float[Tensor, "m tokens"]:
        """Sum entries of leaves over what belongs to each token; on the CPU."""
        shows = self.substitute.shows
        pixels = self.substitute.pixels
        if pixels is None:
            places = leaves.sum(dim=-1).flatten(1)
        else:
            high, wide = pixels.scheme.cell
            whole = pixels.picture(leaves).sum(dim=2)[..., : shows.shape[1] * high, : shows.shape[2] * wide]
            blocks = whole.reshape(len(leaves), shows.shape[1], high, shows.shape[2], wide)
            places = blocks.sum(dim=(2, 4)).flatten(1)
        sums = torch.zeros(len(leaves), self.n_tokens + 1, dtype=leaves.dtype, device=leaves.device)
        owner = torch.where(shows < 0, self.n_tokens, shows).flatten()
        return sums.index_add(1, owner, places)[:, :-1].cpu()

    def _step(self, inputs: HiddenInputs) -> int:
        return max(1, self.max_batch_tokens // inputs.n_places)

    def _values(self, keep: Bool[np.ndarray, "m tokens"]) -> Float[np.ndarray, "m columns"]:
        self.forwards += len(keep)
        rows: dict[str, Tensor] = {}
        self._run(
            self.hidden.variants(keep),
            list(self.objectives.readouts),
            lambda site, raw: rows.update({site: self.token_rows(raw, len(keep))}),
            False,
        )
        with torch.inference_mode():
            return self.objectives.agreement(rows).mean(dim=1).numpy().copy()

    def _run(
        self, inputs: Mapping[str, Any], sites: Sequence[str], receive: Callable[[str, Tensor], None], gradients: bool
    ) -> None:
        with quiet_transformers():
            self.backbone.runner.run(inputs, list(dict.fromkeys(sites)), receive, gradients=gradients)

    def _leaf(self, inputs: Mapping[str, Any]) -> Tensor:
        if self.grid is not None:
            pixels: Tensor = inputs[self.substitute.field]
            return pixels.clone()
        with torch.no_grad():
            embedded: Tensor = self.backbone.model.get_input_embeddings()(inputs["input_ids"])
        return embedded.clone()

    @contextmanager
    def _embedded(self, embeddings: Tensor) -> Iterator[None]:
        """Let the model's token embedding give these, whatever the ids."""
        handle = self.backbone.model.get_input_embeddings().register_forward_hook(lambda *_: embeddings)
        try:
            yield
        finally:
            handle.remove()


def _states(
    backbone: Backbone, forward: ForwardPass, inputs: Mapping[str, Any], sites: Sequence[str]
) -> dict[str, Tensor]:
    states: dict[str, Tensor] = {}

    def receive(site: str, raw: Tensor) -> None:
        rows = torch.from_numpy(forward.layout(raw.shape[1]).rows).to(raw.device)
        states[site] = raw.flatten(0, 1).index_select(0, rows).cpu().clone()

    with quiet_transformers():
        backbone.runner.run(inputs, sites, receive)
    return states


def _seed(seed: int, name: str, purpose: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}:{purpose}:{name}".encode(), digest_size=8).digest(), "little")
