"""What a check is, which there are, and how they are run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

from superactivators.errors import StudyError, allowed
from superactivators.registry import Registry
from superactivators.study.checks.inputs import CheckInputs


@final
@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    message : str
        One or two sentences: what was found, with the numbers, and what to do.
    value : float
        The figure that was measured, of the worst concept where there are several.
    limit : float
        Beyond which figure the check speaks.
    concepts : tuple of str
        Concerned ones; none where the finding is about the data or the model as a whole.
    """

    message: str
    value: float
    limit: float
    concepts: tuple[str, ...] = ()


Measure: TypeAlias = Callable[[CheckInputs], Finding | None]
"""Gives None where there is nothing to say, or the check does not apply."""


@final
@dataclass(frozen=True)
class Check:
    """A check.

    Attributes
    ----------
    code : str
        Stable, such as ``"SA004"``; never given to another check.
    title : str
        A few words.
    measure : callable
    """

    code: str
    title: str
    measure: Measure


@final
@dataclass(frozen=True)
class Warned:
    """A warning: what a check found, with its code and title. Attributes as in `Check` and `Finding`."""

    code: str
    title: str
    message: str
    concepts: tuple[str, ...]
    value: float
    limit: float

    def as_dict(self) -> dict[str, Any]:
        """Fields as JSON types; numbers that are not finite become None."""
        return {
            "code": self.code,
            "title": self.title,
            "message": self.message,
            "concepts": list(self.concepts),
            "value": self.value if math.isfinite(self.value) else None,
            "limit": self.limit if math.isfinite(self.limit) else None,
        }


checks: Registry[Check] = Registry("check", "superactivators.checks")


def check(code: str, title: str) -> Callable[[Measure], Measure]:
    """Give a decorator that registers a function as the check of a code."""

    def enter(measure: Measure) -> Measure:
        checks.register(code)(Check(code, title, measure))
        return measure

    return enter


def run_checks(inputs: CheckInputs, silence: Iterable[str] = ()) -> list[Warned]:
    """Run all checks that are not silenced.

    Parameters
    ----------
    inputs : CheckInputs
    silence : iterable of str
        Codes of checks that are not run.

    Returns
    -------
    list of Warned
        In the order of their codes.

    Raises
    ------
    StudyError
        If a code is unknown.
    """
    silenced = tuple(silence)
    check_codes(silenced)
    found = []
    for code in checks:
        finding = None if code in silenced else checks[code].measure(inputs)
        if finding is not None:
            title, value, limit = checks[code].title, float(finding.value), float(finding.limit)
            found.append(Warned(code, title, finding.message, tuple(finding.concepts), value, limit))
    return found


def check_codes(codes: Iterable[str]) -> None:
    """Raise ``StudyError`` if one of the codes is that of no check."""
    for code in codes:
        if code not in checks:
            raise StudyError(f"unknown check {code!r} in silence; {allowed(code, checks)}")


def named(concepts: Sequence[str], most: int = 3) -> str:
    """Write concepts as prose: ``joy, fear, love and 4 more``."""
    shown, rest = list(concepts[:most]), len(concepts) - most
    if rest > 0:
        return f"{', '.join(shown)} and {rest} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def percent(share: float) -> str:
    """Write a share as percent, with a decimal where it is small."""
    return f"{100 * share:.1f} %" if 0 < share < 0.1 else f"{100 * share:.0f} %"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Write a number with its noun."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
