"""A `Table` as CSV, Markdown or LaTeX text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping

from superactivators.errors import StudyError, allowed
from superactivators.report.cells import MISSING, Cell, Column, Table, one_line

LONG = 45
"""Tables with more rows are broken over pages in LaTeX."""

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~$&])")
_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "{}$&#_%"},
    **{sign: f"{{{sign}}}" for sign in "[]*-`"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "−": "$-$",
    "δ": r"$\delta$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "†": r"\dag{}",
    "·": r"\textperiodcentered{}",
    "…": r"\dots{}",
}


def to_csv(table: Table) -> str:
    """Write comma-separated values with all digits; ends of intervals and marks stand in columns of their own."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.csv_header)
    writer.writerows(["" if value is None else value for value in row] for row in table.csv_rows())
    return stream.getvalue()


def to_markdown(table: Table) -> str:
    """Write a GitHub-flavoured Markdown table under its title, with the notes below it."""

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    def shown(column: Column, cell: Cell) -> str:
        number = markdown(column.number(cell))
        return _joined(cell, f"**{number}**" if cell.best else number, column.ends(cell), markdown(cell.mark))

    lines = [f"**{markdown(table.title)}**", ""]
    lines.append(line([markdown(column.name) for column in table.columns]))
    lines.append(line([":---" if column.text else "---:" for column in table.columns]))
    lines += [line([shown(c, cell) for c, cell in zip(table.columns, row, strict=True)]) for row in table.rows]
    lines += [part for note in table.notes for part in ("", markdown(note))]
    return "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    r"""Write a LaTeX table for ``\usepackage{booktabs}`` (and ``longtable`` for many rows), title and notes as caption.

    Letters beyond ASCII are left as they are: UTF-8 is LaTeX's own encoding since 2018; for scripts and signs that the
    chosen font lacks, LuaLaTeX or XeLaTeX with another font is needed.
    """

    def shown(column: Column, cell: Cell) -> str:
        number, ends = latex(column.number(cell)), column.ends(cell)
        interval = "{\\scriptsize " + ends.replace("−", "$-$") + "}" if ends else ""
        return _joined(cell, rf"\textbf{{{number}}}" if cell.best else number, interval, latex(cell.mark), "--")

    def line(cells: list[str]) -> str:
        return " & ".join(cells) + r" \\"

    long = len(table.rows) > LONG
    alignment = "".join("l" if column.text else "r" for column in table.columns)
    sentences = [table.title.rstrip(".") + ".", *table.notes]
    caption = rf"\caption{{{latex(' '.join(sentences))}}}\label{{tab:{slug(table.name)}}}"
    header = [r"\toprule", line([latex(column.name) for column in table.columns]), r"\midrule"]
    body = [line([shown(c, cell) for c, cell in zip(table.columns, row, strict=True)]) for row in table.rows]
    if long:
        packages, opening = "booktabs and longtable", [rf"\begin{{longtable}}{{{alignment}}}", caption + r" \\"]
        lines = [*opening, *header, r"\endfirsthead", *header, r"\endhead"]
        lines += [r"\bottomrule", r"\endlastfoot", *body, r"\end{longtable}"]
    else:
        packages = "booktabs"
        lines = [r"\begin{table}", r"\centering", caption, rf"\begin{{tabular}}{{{alignment}}}"]
        lines += [*header, *body, r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join([f"% needs the package{'s' if long else ''} {packages}", *lines]) + "\n"


def markdown(text: str) -> str:
    """Escape text for a Markdown table."""
    return _MARKDOWN.sub(r"\\\1", one_line(text))


def latex(text: str) -> str:
    r"""Escape text for LaTeX; brackets and stars too, because after ``\\`` they would be taken for its argument."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def slug(name: str) -> str:
    """Make a name that any file system and LaTeX label takes: letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "table"


def _joined(cell: Cell, number: str, ends: str, mark: str, missing: str = MISSING) -> str:
    if cell.value is None or cell.value == "":
        return mark or missing
    return " ".join(part for part in (number, ends, f"({mark})" if mark else "") if part)


WRITERS: Mapping[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
"""Writers by file ending."""


def check_formats(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse unknown file endings.

    Raises
    ------
    StudyError
        If none is given or one is unknown.
    """
    if not formats:
        raise StudyError(f"no table format given; {allowed('', WRITERS)}")
    for name in formats:
        if name not in WRITERS:
            raise StudyError(f"unknown table format {name!r}; {allowed(name, WRITERS)}")
    return tuple(dict.fromkeys(formats))
