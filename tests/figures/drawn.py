"""Planted studies to draw, and what was drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from report.planted_analysis import analysed, analysis_of
from report.planted_attribution import result_of
from superactivators.report.inputs import ReportInputs
from superactivators.report.study_results import StudyTables


def study_of(inputs: ReportInputs) -> StudyTables:
    given = analysed(inputs)
    return StudyTables(given.result, given.result.summary, result_of(inputs), given.analysis)


def many(study: StudyTables, count: int, names: list[str] | None = None) -> StudyTables:
    """The study with many concepts of planted analyses, named at length."""
    concepts = names or [f"a rather long name of a concept, number {number}" for number in range(count)]
    sites = ("embed", "block[0]", "block[1]", "block[2]")
    held = analysis_of(("mean", "linear"), sites, concepts, size=2000)
    summary = {**study.summary, "concepts": concepts}
    return replace(study, summary=summary, analysis=held)


def series(axes: Any, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Points of the line or of the dots with intervals of that label."""
    for container in axes.containers:
        if container.get_label() == label:
            x, y = container.lines[0].get_data()
            return np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    line = next(line for line in axes.lines if line.get_label() == label)
    return np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
