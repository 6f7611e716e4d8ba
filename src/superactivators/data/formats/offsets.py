"""Offsets of other programs as Python string indices.

Python counts code points. JavaScript counts UTF-16 code units, so that an emoji counts two; some tools count what a
reader sees as one character (grapheme clusters). A browser may also have seen the two characters of a Windows line end
as one.
"""

from __future__ import annotations

import re
from functools import lru_cache

from superactivators.data.dataset import Span
from superactivators.data.jsonl import is_name
from superactivators.errors import DataError, allowed

UNITS = ("code-points", "utf-16", "graphemes")
_ONE_EACH = re.compile("(?s)\r\n|.")
_UNLIKE = re.compile("[\U00010000-\U0010ffff]|\r\n")


def check_unit(unit: str, more: tuple[str, ...] = ()) -> None:
    """Raise ``DataError`` for a unit that nobody counts in."""
    if unit not in (*UNITS, *more):
        raise DataError(f"option offsets {unit!r} is unknown; {allowed(unit, (*UNITS, *more))}")


def to_code_points(text: str, start: int, end: int, unit: str, *, one_newline: bool = False) -> tuple[int, int] | None:
    """Give the Python indices of a range in another unit; None if it leaves the text or cuts a character.

    With ``one_newline``, each Windows line end counts one.
    """
    table = _places(text, unit, one_newline)
    if not 0 <= start < end < len(table):
        return None
    first, last = table[start], table[end]
    return None if first < 0 or last < 0 else (first, last)


def place_span(
    text: str, start: object, end: object, label: object, unit: str = "code-points", *, one_newline: bool = False
) -> Span | str:
    """Make a span of offsets and a label as a file has them, or say what is wrong with them."""
    if not is_name(label):
        return f"span [{start}, {end}) needs a label that is a non-empty string; got {label!r}"
    if type(start) is not int or type(end) is not int:
        return f"span of {label!r} needs whole numbers as start and end; got {start!r} and {end!r}"
    found = to_code_points(text, start, end, unit, one_newline=one_newline)
    if found is None:
        size = len(_places(text, unit, one_newline)) - 1
        if 0 <= start < end <= size:
            return f"span of {label!r} [{start}, {end}) cuts a character in two; its offsets are not {unit}"
        return f"span of {label!r} is [{start}, {end}), but 0 <= start < end <= {size} (the text's length) must hold"
    if not text[found[0] : found[1]].strip():
        return f"span of {label!r} [{start}, {end}) holds only blanks"
    return Span(*found, label)


def units_agree(text: str) -> bool:
    """Whether code points and UTF-16 units, with line ends of one or two, are the same offsets in a text."""
    return not _UNLIKE.search(text)


@lru_cache(maxsize=8)
def _places(text: str, unit: str, one_newline: bool) -> tuple[int, ...] | range:
    """Python index of every offset of a unit, the text's end included; -1 within a surrogate pair."""
    if unit == "graphemes":
        import regex  # type: ignore[import-untyped]

        # A Windows line end is one cluster.
        return (*(match.start() for match in regex.finditer(r"\X", text)), len(text))
    if units_agree(text) or (unit == "code-points" and not one_newline):
        return range(len(text) + 1)
    found: list[int] = []
    for match in _ONE_EACH.finditer(text):
        sign, index = match[0], match.start()
        if sign == "\r\n":
            found += [index] if one_newline else [index, index + 1]
        else:
            found += [index, -1] if unit == "utf-16" and ord(sign) > 0xFFFF else [index]
    return (*found, len(text))
