"""Planted studies, made once."""

from __future__ import annotations

import pytest

from report.planted import planted
from superactivators.report.inputs import ReportInputs
from superactivators.report.payload import build_payload


@pytest.fixture(scope="session")
def text_study() -> ReportInputs:
    return planted("text")


@pytest.fixture(scope="session")
def image_study() -> ReportInputs:
    return planted("image", concepts=("disc", "ring"))


@pytest.fixture(scope="session")
def text_payload(text_study: ReportInputs) -> dict:
    return build_payload(text_study)


@pytest.fixture(scope="session")
def image_payload(image_study: ReportInputs) -> dict:
    return build_payload(image_study)
