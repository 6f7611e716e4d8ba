"""Scores of all samples against one concept bank: what is kept of them, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from jaxtyping import Float, Int

from superactivators.artefacts import FolderReader, Format, writing
from superactivators.ragged import offsets_of, rows_of
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
        One score per sample, by pooling; ``"whole"`` for a bank of sample states.
    samples : int64 array of shape (k,)
        Samples whose token activations are kept (those of cal and test).
    tokens : float32 array of shape (tokens, concepts)
        Activations of all their tokens, in order; no rows for a bank of sample states.
    """

    kind: str
    level: Level
    site: str
    pooled: Mapping[str, Float[np.ndarray, "n c"]]
    samples: Int[np.ndarray, " k"]
    tokens: Float[np.ndarray, "tokens c"]

    def save(self, folder: Path, made_from: str) -> None:
        """Write as a folder of format ``superactivators/scores``."""
        arrays = {f"pooled.{name}": scores for name, scores in self.pooled.items()}
        arrays |= {"samples": self.samples, "tokens": self.tokens}
        parameters = {"kind": self.kind, "level": self.level, "site": self.site}
        with writing(folder, FORMAT, made_from, parameters) as writer:
            writer.arrays("scores.safetensors", arrays)

    @staticmethod
    def load(folder: Path) -> SiteScores:
        """Read what `save` wrote; raises ``StoreError`` if it is damaged or foreign."""
        reader = FolderReader(folder, FORMAT)
        arrays = reader.arrays("scores.safetensors")
        pooled = {name.removeprefix("pooled."): array for name, array in arrays.items() if name.startswith("pooled.")}
        made = reader.manifest.parameters
        return SiteScores(made["kind"], made["level"], made["site"], pooled, arrays["samples"], arrays["tokens"])

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
