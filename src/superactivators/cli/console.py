"""What every command shares: output for people or for machines, and one line for what went wrong."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console()
err = Console(stderr=True)


def emit(content: Mapping[str, Any], as_json: bool, show: Callable[[], None]) -> None:
    """Print JSON on standard output, or show the same to a person."""
    if as_json:
        print(json.dumps(finite(content), ensure_ascii=False, allow_nan=False))
    else:
        show()


def line(text: str) -> None:
    """Show a line to a person, as it is: brackets in it are no markup."""
    out.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)


def finite(value: Any) -> Any:
    """Replace numbers that are not finite by None, all the way down."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def say(quiet: bool) -> Callable[[str], None]:
    """Give a function that tells a person, on standard error, what begins; it does nothing if ``quiet``."""
    if quiet:
        return lambda message: None
    return lambda message: err.print(
        f"· {message}", style="dim", highlight=False, markup=False, emoji=False, soft_wrap=True
    )


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Show a table to a person."""
    shown = Table(title=Text(title), title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        shown.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        shown.add_row(*(Text(str(cell)) for cell in row))
    out.print(shown)


def attributions(items: Sequence[Mapping[str, Any]], page: object) -> None:
    """Show the highest tokens of every map to a person, SuperActivators marked."""
    for item in items:
        out.print(item["input"][:100], style="bold", highlight=False, markup=False, emoji=False)
        names = [
            repr(place["text"]) if "text" in place else f"({place['row']}, {place['column']})"
            for place in item["tokens"]
        ]
        for found in item["maps"]:
            values = found["values"]
            fired = item["superactivators"][found["concept"]]["tokens"]
            highest = sorted(range(len(values)), key=lambda token: -values[token])[:6]
            shown = ", ".join(f"{'●' if token in fired else ''}{names[token]} {values[token]:.3g}" for token in highest)
            line(f"  {found['concept']} · {found['method']} · {found['objective']}: {shown}")
        alone = [name for name, own in item["superactivators"].items() if own["fallback"]]
        if alone:
            line(f"  no SuperActivator, so the highest token stands in: {', '.join(alone)}")
    line("● a SuperActivator of the concept; tokens from the highest attribution down")
    if page is not None:
        line(f"Maps: {page}")


def estimate(values: Mapping[str, float | None]) -> str:
    """Write a value with its interval."""
    if values["low"] is None or values["high"] is None:
        return f"{values['value']:.3f}"
    return f"{values['value']:.3f} [{values['low']:.3f}, {values['high']:.3f}]"


def number(value: float | None) -> str:
    """Write a score or threshold; nothing reaches one that is not finite."""
    return "none" if value is None else f"{value:.3f}"


def tables(sentences: Iterable[str], found: Iterable[Any]) -> None:
    """Show printable tables (`superactivators.report.cells.Table`) below some sentences."""
    for held in found:
        table(held.title, held.headers, held.text_rows())
    for sentence in sentences:
        line(sentence)


def plan(content: Mapping[str, Any]) -> None:
    """Show a person what an extraction would cost."""
    out.print(f"{content['samples']:,} samples, {content['tokens']:,} tokens ({content['tokens_cut']:,} cut off)")
    out.print(f"{len(content['sites'])} sites x {content['width']}: {', '.join(content['sites'])}", markup=False)
    out.print(
        f"{content['bytes'] / 2**20:,.0f} MiB on disk as {content['dtype']} in {content['shards']} shards; "
        f"about {content['total_bytes'] / 2**20:,.0f} MiB of memory: weights {content['weights_bytes'] / 2**20:,.0f}, "
        f"the rest {content['memory_bytes'] / 2**20:,.0f}; Python and its libraries come on top"
    )


def fail(message: str, code: int) -> None:
    """Print what is wrong on standard error and leave."""
    sys.stderr.write(f"superactivators: {message}\n")
    sys.exit(code)
