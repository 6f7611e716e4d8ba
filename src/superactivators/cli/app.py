"""All commands: importing it enters them. Heavy imports stay inside the commands, so that ``--help`` is quick."""

from __future__ import annotations

from superactivators.cli import data, detectors, mechanism, models, paper, studies
from superactivators.cli.application import app, run

__all__ = ["app", "data", "detectors", "mechanism", "models", "paper", "run", "studies"]
