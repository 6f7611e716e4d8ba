"""Faults of a data folder, collected so that all of them are told at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import final

from superactivators.errors import DataError

SHOWN = 50


@final
@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes
    ----------
    path : Path
        File in which it was found.
    line : int or None
        1-based line, where the file has lines.
    message : str
        What was given and what is allowed.
    """

    path: Path
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line is not None else str(self.path)
        return f"{place}: {self.message}"


@final
class Faults:
    """A growing list of faults."""

    def __init__(self) -> None:
        self._found: list[Fault] = []

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._found)

    def add(self, path: Path, line: int | None, message: str) -> None:
        """Note one fault."""
        self._found.append(Fault(path, line, message))

    def raise_if_any(self, what: str) -> None:
        """Raise one ``DataError`` that lists every fault (the first 50 in full) if there is any."""
        if not self._found:
            return
        shown = [str(fault) for fault in self._found[:SHOWN]]
        if len(self._found) > SHOWN:
            shown.append(f"… and {len(self._found) - SHOWN} more")
        count = "1 fault" if len(self._found) == 1 else f"{len(self._found)} faults"
        raise DataError("\n".join([f"{what}: {count}; mend the lines named and try again", *shown]))
