"""Scores of all samples against one concept bank: what is kept of them, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float, Float32, Int, Int32

from superactivators.artefacts import FolderReader, Format, writing
from superactivators.ragged import offsets_of, rows_of, segment_ids
from superactivators.states.labels import Labels
from superactivators.states.states import Level

FORMAT = Format("superactivators/scores", 1)
WHOLE = "whole"
"""Name under which the scores of sample states stand beside the pooled scores of tokens."""


@final
@dataclass(frozen=True, eq=False)
class SiteScores:
    """Scores of one bank.

    Attributes
    ----------
    kind, level, site : str
        Of the bank.
    pooled : mapping of str to float32 array of shape (samples, concepts)
        One score per sample, by pooling; ``"whole"`` for a bank of sample states. NaN where a sample was not scored.
    samples : int64 array of shape (k,)
        Samples whose token activations are kept (those of cal and test).
    tokens : float32 array of shape (tokens, concepts)
        Activations of all their tokens, in order; no rows for a bank of sample states.
    variants : mapping of str to float32 array of shape (variants, samples, concepts)
        For kinds whose units are matched to concepts: the same as ``pooled`` for each of the units that fit a concept
        best on cal, the best first. Empty for other kinds.
    units : mapping of str to int32 array of shape (variants, concepts)
        Which units these are, by pooling.
    tail : float32 array of shape (variants, pairs)
        For the units of pooling ``"max"``: activations of the in-concept tokens of cal, in the order of the rows of
        ``labels.carried``; no row for other kinds.
    oracle : mapping of str to array of shape (concepts,)
        For matched kinds: the unit that fits best on *test* (``unit``), its ``delta`` and ``threshold`` chosen on cal
        and its ``f1`` on test. For comparison only.
    """

    kind: str
    level: Level
    site: str
    pooled: Mapping[str, Float[np.ndarray, "n c"]]
    samples: Int[np.ndarray, " k"]
    tokens: Float[np.ndarray, "tokens c"]
    variants: Mapping[str, Float32[np.ndarray, "v n c"]] = field(default_factory=dict)
    units: Mapping[str, Int32[np.ndarray, "v c"]] = field(default_factory=dict)
    tail: Float32[np.ndarray, "v_or_0 pairs"] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    oracle: Mapping[str, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def of_samples(kind: str, level: Level, site: str, pooled: Mapping[str, np.ndarray]) -> SiteScores:
        """Scores of whole samples, without any of tokens."""
        concepts = next(iter(pooled.values())).shape[1]
        nothing = np.empty((0, concepts), dtype=np.float32)
        return SiteScores(kind, level, site, pooled, np.empty(0, dtype=np.int64), nothing)

    def save(self, folder: Path, made_from: str) -> None:
        """Write as a folder of format ``superactivators/scores``."""
        arrays = {f"pooled.{name}": scores for name, scores in self.pooled.items()}
        arrays |= {"samples": self.samples, "tokens": self.tokens}
        arrays |= {f"variants.{name}": scores for name, scores in self.variants.items()}
        arrays |= {f"units.{name}": units for name, units in self.units.items()}
        arrays |= {f"oracle.{name}": values for name, values in self.oracle.items()}
        if len(self.tail):
            arrays["tail"] = self.tail
        parameters = {"kind": self.kind, "level": self.level, "site": self.site}
        with writing(folder, FORMAT, made_from, parameters) as writer:
            writer.arrays("scores.safetensors", arrays)

    @staticmethod
    def load(folder: Path) -> SiteScores:
        """Read what `save` wrote; raises ``StoreError`` if it is damaged or foreign."""
        reader = FolderReader(folder, FORMAT)
        arrays = reader.arrays("scores.safetensors")

        def named(part: str) -> dict[str, np.ndarray]:
            return {name.removeprefix(part): array for name, array in arrays.items() if name.startswith(part)}

        made = reader.manifest.parameters
        return SiteScores(
            made["kind"],
            made["level"],
            made["site"],
            named("pooled."),
            arrays["samples"],
            arrays["tokens"],
            named("variants."),
            named("units."),
            arrays.get("tail", np.empty((0, 0), dtype=np.float32)),
            named("oracle."),
        )

    def candidates(self, pool: str) -> Float[np.ndarray, "v n c"]:
        """Pooled scores of every unit that may stand for a concept; one only where nothing is matched."""
        return self.variants[pool] if pool in self.variants else self.pooled[pool][None]

    def candidate_units(self, pool: str) -> Int[np.ndarray, "v c"]:
        """Numbers of these units; -1 where nothing is matched."""
        if pool in self.units:
            return self.units[pool]
        return np.full((1, self.pooled[pool].shape[1]), -1, dtype=np.int32)

    def of_split(
        self, labels: Labels, split: str
    ) -> tuple[Float[np.ndarray, "tokens c"], Int[np.ndarray, " tokens"], Int[np.ndarray, " n_plus_1"]]:
        """Take the token activations of one split.

        Returns
        -------
        scores : float32 array of shape (tokens, concepts)
        rows : int64 array of shape (tokens,)
            Their numbers among all tokens.
        offsets : int64 array of shape (samples + 1,)
            Tokens of each sample of the split.
        """
        lengths = np.diff(labels.offsets)
        place = np.flatnonzero(labels.splits[self.samples] == split)
        chosen = self.samples[place]
        held = rows_of(offsets_of(lengths[self.samples]), place)
        return self.tokens[held], rows_of(labels.offsets, chosen), offsets_of(lengths[chosen])

    def in_concept(self, labels: Labels) -> tuple[Float[np.ndarray, "v pairs"], InConcept]:
        """Activations of the in-concept tokens of cal, for every unit that may stand for a concept."""
        pairs = InConcept.of(labels)
        if len(self.tail):
            return self.tail, pairs
        activations, rows, _ = self.of_split(labels, "cal")
        place = np.searchsorted(rows, pairs.rows)
        return activations[place, pairs.concepts][None], pairs


@final
@dataclass(frozen=True, eq=False)
class InConcept:
    """Pairs of a cal token and a concept that it carries (METHOD section 1: D_in), by token.

    Attributes
    ----------
    rows : int64 array of shape (pairs,)
        Token numbers among all tokens, going up.
    concepts : int64 array of shape (pairs,)
    owners : int64 array of shape (pairs,)
        Which sample of cal the token is of.
    """

    rows: Int[np.ndarray, " pairs"]
    concepts: Int[np.ndarray, " pairs"]
    owners: Int[np.ndarray, " pairs"]

    @staticmethod
    def of(labels: Labels) -> InConcept:
        """Collect the pairs; where nobody labelled tokens, every token of a positive sample carries its concepts."""
        cal = labels.in_split("cal")
        rows = rows_of(labels.offsets, cal)
        owners = segment_ids(offsets_of(np.diff(labels.offsets)[cal]))
        carried = labels.carried[rows].tocsr()
        carried.sort_indices()
        token = np.repeat(np.arange(len(rows)), np.diff(carried.indptr))
        return InConcept(rows[token], carried.indices.astype(np.int64), owners[token])
