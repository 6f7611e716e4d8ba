"""Tables in CSV files, row by row with their lines; what a spreadsheet or pandas adds is taken in stride."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, final

from superactivators.data.faults import Faults
from superactivators.errors import DataError

FLAGS: Final = {"0": False, "1": True, "0.0": False, "1.0": True, "False": False, "True": True}


@final
class Table:
    """A CSV file with a header; iterating gives (line, cells) of every row that has as many cells as the header.

    UTF-8 with or without a byte order mark, any line ends, quoted cells with commas, quotes and line breaks. Columns
    without a name, or with the one that pandas gives an index, are not in ``columns``.
    """

    def __init__(self, path: Path, faults: Faults, required: Sequence[str], what: str) -> None:
        """Read the header; raises ``DataError`` if the file cannot be read or is another kind of table."""
        self.path = path
        self._faults = faults
        try:
            content = path.read_bytes()
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}); give {what}") from error
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise DataError(f"{path}:{line}: is not UTF-8 ({error.reason}); save the file as UTF-8") from error
        self._reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            header = next(self._reader, [])
        except csv.Error as error:
            raise DataError(f"{path}: is not a CSV table ({error}); give {what}") from error
        self._width = len(header)
        named = [(name.strip(), number) for number, name in enumerate(header)]
        named = [(name, number) for name, number in named if name and not name.startswith("Unnamed:")]
        self.column = dict(named)
        self.columns = tuple(self.column)
        if len(self.columns) != len(named):
            twice = next(name for name in self.columns if [other for other, _ in named].count(name) > 1)
            raise DataError(f"{path}: column {twice!r} comes twice; give {what}")
        for name in required:
            if name not in self.column:
                has = ", ".join(self.columns[:12]) or "none"
                raise DataError(f"{path}: has no column {name!r} (its columns: {has}); give {what}")

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        line = self._reader.line_num + 1
        while True:
            try:
                cells = next(self._reader, None)
            except csv.Error as error:
                self._faults.add(self.path, line, f"is not CSV ({error}); the rest of the file was not read")
                return
            if cells is None:
                return
            if len(cells) == self._width:
                yield line, cells
            elif cells:
                self._faults.add(self.path, line, f"has {len(cells)} cells, but the header has {self._width}")
            line = self._reader.line_num + 1

    def fault(self, line: int | None, message: str) -> None:
        """Note a fault of a line."""
        self._faults.add(self.path, line, message)


@final
class Flags:
    """Reads the columns of a table that hold 0 or 1; a column that holds anything else is noted once."""

    def __init__(self, table: Table, names: Sequence[str]) -> None:
        self._table = table
        self._places = [(name, table.column[name]) for name in names]
        self._bad: set[str] = set()

    def __call__(self, line: int, cells: list[str]) -> list[str]:
        """Names of the columns that hold 1."""
        found = []
        for name, place in self._places:
            value = FLAGS.get(cells[place].strip())
            if value:
                found.append(name)
            elif value is None and name not in self._bad:
                self._bad.add(name)
                self._table.fault(
                    line,
                    f"column {name!r} holds {cells[place]!r:.40}, but a concept's column holds 0 or 1 in every row",
                )
        return found


def find_file(given: str, folder: Path, what: str) -> Path:
    """Find a file named by an option, as it is or within the data folder; raises ``DataError`` if there is none."""
    for path in (Path(given), folder / given):
        if os.path.isfile(path):
            return path
    raise DataError(f"{what} {given!r}: no such file, here or within {folder}; check the path")
