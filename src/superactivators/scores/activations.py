"""Scores of all samples against the concept banks of one site, in one pass over its states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int

from superactivators.artefacts import FolderReader, Format, writing
from superactivators.concepts.bank import ConceptBank
from superactivators.errors import StudyError
from superactivators.ragged import offsets_of, rows_of
from superactivators.scores.pooling import pools
from superactivators.states.labels import Labels
from superactivators.states.scaling import Scaling
from superactivators.states.states import Level, States

FORMAT = Format("superactivators/scores", 1)
POOLS = ("max", "mean", "last", "random")
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


def score_tokens(
    states: States, banks: Sequence[ConceptBank], *, poolings: Sequence[str] = POOLS, seed: int = 0
) -> list[SiteScores]:
    """Score all tokens of one site against several banks, one block of states at a time.

    Parameters
    ----------
    states : States
    banks : sequence of ConceptBank
        Token banks of one site with the same scaling.
    poolings : sequence of str
        Names in `superactivators.scores.pooling.pools`.
    seed : int
        For poolings that draw at random.

    Returns
    -------
    list of SiteScores
        One for each bank. Activations of single tokens are kept for the samples of cal and test only.

    Raises
    ------
    StudyError
        If the banks are of several sites or scalings, or of sample states.
    """
    sites = {bank.site for bank in banks}
    if len(sites) != 1 or any(bank.level != "token" for bank in banks):
        raise StudyError("score_tokens needs token banks of one site")
    scaling = banks[0].scaling
    if any(not _same(bank.scaling, scaling) for bank in banks):
        raise StudyError("score_tokens needs banks with the same scaling; score the others on their own")
    site, n = sites.pop(), len(states.labels.ids)
    kept = states.labels.splits != "train"
    pooled = [{name: np.empty((n, len(bank.concepts)), dtype=np.float32) for name in poolings} for bank in banks]
    parts: list[list[np.ndarray]] = [[np.empty((0, len(bank.concepts)), dtype=np.float32)] for bank in banks]
    for first, block in states.values.blocks(site):
        begin = int(np.searchsorted(states.offsets, first))
        end = int(np.searchsorted(states.offsets, first + len(block)))
        offsets = states.offsets[begin : end + 1] - first
        ids = states.labels.ids[begin:end]
        keep = rows_of(offsets, np.flatnonzero(kept[begin:end]))
        scaled = scaling.apply(block)
        for bank, into, part in zip(banks, pooled, parts, strict=True):
            activations = bank.score(scaled).numpy()
            for name in poolings:
                into[name][begin:end] = pools[name](activations, offsets, ids, seed)
            part.append(activations[keep])
    samples = np.flatnonzero(kept)
    return [
        SiteScores(bank.kind, "token", site, into, samples, np.concatenate(part))
        for bank, into, part in zip(banks, pooled, parts, strict=True)
    ]


def _same(one: Scaling, other: Scaling) -> bool:
    return one is other or (one.scale == other.scale and torch.equal(one.mean, other.mean))


def score_samples(states: States, bank: ConceptBank) -> SiteScores:
    """Score all sample states of one site against a bank of sample states."""
    if bank.level != "sample":
        raise StudyError("score_samples needs a bank of sample states")
    scores = bank.activations(states.values.samples(bank.site)).numpy()
    nothing = np.empty((0, len(bank.concepts)), dtype=np.float32)
    return SiteScores(bank.kind, "sample", bank.site, {WHOLE: scores}, np.empty(0, dtype=np.int64), nothing)
