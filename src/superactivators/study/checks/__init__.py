"""Checks with stable codes: what in the data, the states or the choices may mislead a reader (docs/checks.md)."""

from superactivators.study.checks import baselines, errors, samples, states, thresholds
from superactivators.study.checks.check import Check, Finding, Warned, check_codes, checks, run_checks
from superactivators.study.checks.inputs import CheckInputs

__all__ = [
    "Check",
    "CheckInputs",
    "Finding",
    "Warned",
    "baselines",
    "check_codes",
    "checks",
    "errors",
    "run_checks",
    "samples",
    "states",
    "thresholds",
]
