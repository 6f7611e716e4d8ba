"""A finished study of the paper's set: its results, and the activations that analyses read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int

from superactivators.paper.catalogue import DATASETS, MODELS
from superactivators.ragged import segment_ids
from superactivators.report.study_results import StudyTables
from superactivators.scores.site_scores import SiteScores
from superactivators.states.labels import Labels
from superactivators.study.finished import open_studies


@final
@dataclass(frozen=True, eq=False)
class Tokens:
    """Test tokens of one study at one layer.

    Attributes
    ----------
    activations : float32 array of shape (tokens, concepts)
    inside, outside : bool array of shape (tokens, concepts)
        In-concept tokens, and tokens of samples without the concept.
    offsets : int64 array of shape (samples + 1,)
    """

    activations: Float[np.ndarray, "tokens c"]
    inside: Bool[np.ndarray, "tokens c"]
    outside: Bool[np.ndarray, "tokens c"]
    offsets: Int[np.ndarray, " n_plus_1"]


@final
@dataclass(frozen=True)
class Finished:
    """A study folder.

    Attributes
    ----------
    folder : Path
    """

    folder: Path

    @cached_property
    def tables(self) -> StudyTables:
        """Results and summary."""
        return open_studies([self.folder])[self.folder.resolve().name]

    @cached_property
    def _labels(self) -> Labels:
        return Labels.load(self.folder / "states" / "labels").with_concepts(list(self.tables.summary["concepts"]))

    @property
    def run_on(self) -> str:
        """Data set and model that were used."""
        about = self.tables.summary
        return f"{about['data']['name']}, {PurePath(about['model']['name']).name}"

    def as_published(self, cell: tuple[str, str]) -> bool:
        """Whether the model has the name of the paper's, and the data were read in the paper's format."""
        settings = self.tables.summary["settings"]
        own, papers = (PurePath(name).name for name in (settings["model"]["name"], MODELS[cell[1]].settings["name"]))
        return own.lower() == papers.lower() and settings["data"].get("format") == DATASETS[cell[0]].format

    @property
    def sites(self) -> list[str]:
        """Layers, from shallow to deep."""
        return list(self.tables.summary["model"]["sites"])

    def tokens(self, kind: str, site: str) -> Tokens | None:
        """Activations of a kind at a layer; None where tokens are not labelled or the kind is not there."""
        folder, labels = self.folder / "scores" / f"{kind}-token" / site, self._labels
        if labels.tokens is None or not folder.is_dir():
            return None
        activations, rows, offsets = SiteScores.load(folder).of_split(labels, "test")
        inside = labels.tokens[rows].toarray() & labels.known[rows][:, None]
        absent = ~labels.samples[labels.in_split("test")]
        return Tokens(activations, inside, absent[segment_ids(offsets)], offsets)

    def layers(self, kind: str) -> Iterator[tuple[str, Tokens]]:
        """Every layer with activations of a kind, one at a time."""
        for site in self.sites:
            tokens = self.tokens(kind, site)
            if tokens is not None:
                yield site, tokens
