"""A finished study of the paper's set: its results, and whether it is as published."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import final

from superactivators.paper.catalogue import DATASETS, MODELS
from superactivators.report.study_results import StudyTables
from superactivators.study.finished import open_studies


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
