"""What the results say in words: who wins, who loses, and where the data do not tell (METHOD section 6)."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from superactivators.detection.results import REFERENCE

Verdict: TypeAlias = Literal["better", "worse", "unclear", "unknown"]
"""Of the SuperActivators against a baseline; ``"unknown"`` where no interval was computed."""

PLAIN_NAME = "SuperActivators"


def name_of(method: str) -> str:
    """Name of a method in prose."""
    return PLAIN_NAME if method == REFERENCE else method


def short(value: float | None, places: int = 2, *, signed: bool = False) -> str:
    """Write a number as in a printed table: no zero before the point, a true minus sign."""
    if value is None:
        return "?"
    digits = f"{abs(value):.{places}f}"
    digits = digits[1:] if digits.startswith("0.") else digits
    negative = value < 0 and float(f"{value:.{places}f}") != 0
    return ("−" if negative else "+" if signed else "") + digits


def percent(share: float) -> str:
    """Write a share as a percentage with two significant digits."""
    value = 100 * share
    text = f"{value:.0f}" if value >= 10 else f"{value:.2g}"
    return (text[1:] if text.startswith("0.") else text) + " %"


def with_interval(estimate: dict[str, float | None], places: int = 2, *, signed: bool = False) -> str:
    """Write ``.61 [.59, .63]``, or the value alone where there is no interval."""
    value, low, high = (short(estimate[part], places, signed=signed) for part in ("value", "low", "high"))
    return value if estimate["low"] is None else f"{value} [{low}, {high}]"


def advantage(difference: dict[str, float | None]) -> dict[str, float | None]:
    """Turn "baseline minus SuperActivators" into "SuperActivators minus baseline"."""

    def negated(value: float | None) -> float | None:
        return None if value is None else 0.0 - value

    return {
        "value": negated(difference["value"]),
        "low": negated(difference["high"]),
        "high": negated(difference["low"]),
    }


def verdict(gain: dict[str, float | None]) -> Verdict:
    """Judge a paired difference: its 95 % interval must exclude 0."""
    low, high = gain["low"], gain["high"]
    if low is None or high is None:
        return "unknown"
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def listed(names: list[str]) -> str:
    """Join names as prose: ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def finding(summary: dict[str, Any], kind: str, average: str) -> dict[str, Any]:
    """Compare the SuperActivators of one kind with every baseline.

    Parameters
    ----------
    summary : dict
        Of a `superactivators.detection.results.DetectionResult`.
    kind : str
        Concept kind.
    average : str
        ``"weighted"`` or ``"macro"``.

    Returns
    -------
    dict
        ``headline`` (one sentence) and ``verdicts`` (``method``, ``verdict``, ``gain``, ``sentence`` per baseline).
    """
    reached = summary[f"{average}_f1"][kind]
    if REFERENCE not in reached:
        best = max(reached, key=lambda method: reached[method]["value"])
        headline = (
            f"{name_of(best)} reaches the highest {average} test F1, {with_interval(reached[best])}, with {kind} "
            "vectors; SuperActivators were not evaluated."
        )
        return {"headline": headline, "verdicts": []}
    gains = {
        method: advantage(difference)
        for method, difference in summary[f"{average}_f1_minus_{REFERENCE}"].get(kind, {}).items()
    }
    judged = {method: verdict(gain) for method, gain in gains.items()}
    opening = f"SuperActivators reach a {average} test F1 of {with_interval(reached[REFERENCE])} with {kind} vectors"
    return {
        "headline": "; ".join([opening, *_clauses(judged, gains)]) + ".",
        "verdicts": [
            {"method": method, "verdict": judged[method], "gain": gain, "sentence": _sentence(method, gain)}
            for method, gain in gains.items()
        ],
    }


def _clauses(judged: dict[str, Verdict], gains: dict[str, dict[str, float | None]]) -> list[str]:
    def those(wanted: Verdict) -> list[str]:
        return [method for method, found in judged.items() if found == wanted]

    def amounts(methods: list[str]) -> list[str]:
        return [f"{method} (lead {with_interval(gains[method], 3, signed=True)})" for method in methods]

    clauses = []
    if better := those("better"):
        clauses.append(f"they beat {listed(better)}")
    if worse := those("worse"):
        clauses.append(f"they lose to {listed(amounts(worse))}")
    if unclear := those("unclear"):
        clauses.append(f"there is no clear difference to {listed(amounts(unclear))}")
    if unknown := those("unknown"):
        clauses.append(f"without intervals nothing can be said about {listed(amounts(unknown))}")
    return clauses


def _sentence(method: str, gain: dict[str, float | None]) -> str:
    size = with_interval(gain, 3, signed=True)
    return {
        "better": f"SuperActivators are better than {method}: {size}.",
        "worse": f"SuperActivators are worse than {method}: {size}.",
        "unclear": f"No clear difference to {method}: {size}; the interval includes 0.",
        "unknown": f"Difference to {method}: {size}, without an interval.",
    }[verdict(gain)]
