"""Temporary stand-in by the lead so that imports work; the checks helper overwrites this file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class CheckInputs:
    dataset: Any
    states: Any
    result: Any
    scores: Any
    encoding: Any
    bank: Any
    notes: Any


def run_checks(inputs, silence=()):
    return []


def check_codes(silence):
    return None
