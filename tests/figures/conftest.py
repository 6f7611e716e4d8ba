"""Planted studies with everything a figure may show, and with next to nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from figures.drawn import study_of
from report.planted import planted
from superactivators.report.study_results import StudyTables

pytest.importorskip("matplotlib")


@pytest.fixture(scope="session")
def study() -> StudyTables:
    return study_of(planted("text"))


@pytest.fixture(scope="session")
def small() -> StudyTables:
    """One layer, one kind, one concept, no intervals; and nothing but detection."""
    inputs = planted("text", concepts=("joy",), methods=("superactivators",), resamples=0)
    return StudyTables(inputs.result, inputs.result.summary)


@pytest.fixture
def no_warnings(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    """The suite turns warnings into errors; this also sees those that matplotlib only logs."""
    records: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record.getMessage())

    handler = Kept(logging.WARNING)
    logging.getLogger("matplotlib").addHandler(handler)
    yield
    logging.getLogger("matplotlib").removeHandler(handler)
    assert not records
    assert not recwarn.list
