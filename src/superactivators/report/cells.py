"""Small printable tables: cells that know value, interval and mark, whatever they are written as."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from superactivators.errors import StudyError
from superactivators.report.verdicts import short

MISSING = "–"
"""Shown where there is no value."""
BEST = "best on cal"
"""How a best cell is marked where there is no bold."""
_NOT_IN_A_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@final
@dataclass(frozen=True)
class Cell:
    """One entry of a table; line breaks and control characters in its words become blanks.

    Attributes
    ----------
    value : float, int, str or None
        None where there is nothing to tell.
    low, high : float or None
        Ends of the 95 % interval.
    mark : str
        A remark on this entry, such as ``"not estimable"``.
    best : bool
        The best of its column, or of the group that the table's notes name, on **cal**; never by test.
    """

    value: float | int | str | None
    low: float | None = None
    high: float | None = None
    mark: str = ""
    best: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "mark", one_line(self.mark))
        if isinstance(self.value, str):
            object.__setattr__(self, "value", one_line(self.value))

    @staticmethod
    def of(value: Any, mark: str = "", *, best: bool = False) -> Cell:
        """Take a value or an estimate ``{value, low, high}``; numbers that are not finite count as missing."""
        if isinstance(value, Mapping):
            ends = (_finite(value.get("low")), _finite(value.get("high")))
            return Cell(_finite(value.get("value")), *ends, mark=mark, best=best)
        return Cell(_finite(value), mark=mark, best=best)


@final
@dataclass(frozen=True)
class Column:
    """How the entries of a column are shown.

    Attributes
    ----------
    name : str
    text : bool
        Words, aligned left; otherwise numbers, aligned right.
    interval : bool
        Its entries are estimates: files for machines give both ends in columns of their own.
    places : int or None
        Digits after the point of numbers that are not whole; None for three significant digits.
    signed : bool
        Show a plus sign.
    """

    name: str
    text: bool = False
    interval: bool = False
    places: int | None = 3
    signed: bool = False

    def number(self, cell: Cell) -> str:
        """Write the value alone, for people."""
        value = cell.value
        if value is None:
            return ""
        if not isinstance(value, float):
            return str(value)
        if self.places is not None:
            return short(value, self.places, signed=self.signed)
        digits = f"{value:+.3g}" if self.signed else f"{value:.3g}"
        return digits.replace("-", "−") if "e" not in digits else digits

    def ends(self, cell: Cell) -> str:
        """Write the interval alone, for people; empty without one."""
        if cell.low is None or cell.high is None:
            return ""
        low, high = (self.number(Cell(float(end))) for end in (cell.low, cell.high))
        return f"[{low}, {high}]"

    def plain(self, cell: Cell) -> str:
        """Value, interval and mark as plain text; a star for the best on cal."""
        number, ends = self.number(cell), self.ends(cell)
        if not number:
            return cell.mark or MISSING
        star = "*" if cell.best else ""
        return " ".join(part for part in (number + star, ends, f"({cell.mark})" if cell.mark else "") if part)


@final
@dataclass(frozen=True)
class Table:
    """A table to print.

    Attributes
    ----------
    name : str
        Of its files.
    title : str
    columns : tuple of Column
    rows : tuple of tuples of Cell
    notes : tuple of str
        What a reader must know; goes under the table or into its caption.

    Raises
    ------
    StudyError
        If a row has too many or too few entries, or two columns share a name.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise StudyError(
                    f"table {self.name!r}: row {number} has {len(row)} entries for {len(self.columns)} columns"
                )
        names = self.csv_header
        for name in names:
            if names.count(name) > 1:
                raise StudyError(f"table {self.name!r}: two columns would be named {name!r}; give other names")

    @property
    def headers(self) -> tuple[str, ...]:
        """Column names, for people."""
        return tuple(one_line(column.name) for column in self.columns)

    @property
    def csv_header(self) -> list[str]:
        """Column names, for machines: estimates also have ``low`` and ``high``, and columns with marks ``mark``."""
        return [
            name for column, marked in zip(self.columns, self._marked(), strict=True) for name in _parts(column, marked)
        ]

    def csv_rows(self) -> list[list[float | int | str | None]]:
        """Entries under `csv_header`, with all their digits."""
        marked = self._marked()
        content: list[list[float | int | str | None]] = []
        for row in self.rows:
            line: list[float | int | str | None] = []
            for column, cell, has_mark in zip(self.columns, row, marked, strict=True):
                line.append(cell.value)
                line += [cell.low, cell.high] if column.interval else []
                line += ["; ".join(part for part in (BEST * cell.best, cell.mark) if part)] if has_mark else []
            content.append(line)
        return content

    def text_rows(self) -> list[tuple[str, ...]]:
        """Entries as plain text, for a terminal."""
        return [tuple(column.plain(cell) for column, cell in zip(self.columns, row, strict=True)) for row in self.rows]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON types: ``name``, ``title``, ``notes`` and ``rows`` by the names of `csv_header`."""
        header = self.csv_header
        return {
            "name": self.name,
            "title": self.title,
            "notes": list(self.notes),
            "rows": [dict(zip(header, row, strict=True)) for row in self.csv_rows()],
        }

    def _marked(self) -> list[bool]:
        return [any(row[place].mark or row[place].best for row in self.rows) for place in range(len(self.columns))]


def one_line(text: str) -> str:
    """Turn line breaks, runs of blanks, control characters and lone surrogates into single blanks."""
    return " ".join(_NOT_IN_A_LINE.sub(" ", text).split())


def _parts(column: Column, marked: bool) -> list[str]:
    name = one_line(column.name)
    ends = [f"{name} low", f"{name} high"] if column.interval else []
    return [name, *ends, *([f"{name} mark"] if marked else [])]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
