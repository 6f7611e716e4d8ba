"""Tables as CSV, Markdown and LaTeX, read back by other means than they were written with."""

from __future__ import annotations

import csv
import io
import math
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from superactivators.errors import StudyError
from superactivators.report.cells import BEST, Cell, Column, Table, one_line
from superactivators.report.writers import LONG, check_formats, slug, to_csv, to_latex, to_markdown

NASTY = "\\{}$&#_%[]*-`'~^<>|\"−δ×≥≤†·…é漢😀 a0.\n\t"
words = st.text(st.one_of(st.sampled_from(NASTY), st.characters(codec="utf-8")), max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=64)
ends = st.tuples(numbers, numbers) | st.just((None, None))
estimates = st.tuples(st.none() | numbers | st.integers(-(10**6), 10**6), ends, words, st.booleans())
contents = st.tuples(words, st.lists(words, max_size=2), st.lists(st.tuples(words, estimates, numbers), max_size=5))
"""Plain values: type checking draws random numbers, which strategies may not."""


def table_of(content: tuple) -> Table:
    """A text column, an estimate and a number, with any content."""
    title, notes, entries = content
    rows = tuple(
        (Cell(text), Cell(value, low, high, mark, best), Cell(number))
        for text, (value, (low, high), mark, best), number in entries
    )
    columns = (Column("a|b_c", text=True), Column("F1", interval=True), Column("δ & more", places=None, signed=True))
    return Table("any", title, columns, rows, tuple(notes))


def markdown_tables(text: str) -> list[list[list[tuple[str, bool]]]]:
    """Rows of cells as a real Markdown parser sees them: text, and whether some of it is bold."""
    found: list[list[list[tuple[str, bool]]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level >= 4:
            parts = token.children or []
            assert {part.type for part in parts} <= {"text", "text_special", "strong_open", "strong_close"}, (
                token.content
            )
            held = "".join(part.content for part in parts)
            found[-1][-1].append((held, any(part.type == "strong_open" for part in parts)))
    return found


SIGNS = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textperiodcentered{}": "·",
    r"\dots{}": "…",
    r"\dag{}": "†",
    r"$\delta$": "δ",
    r"$\times$": "×",
    r"$\geq$": "≥",
    r"$\leq$": "≤",
    "$-$": "−",
    "{''}": '"',
    **{f"{{{sign}}}": sign for sign in "[]*-`"},
    **{f"\\{sign}": sign for sign in "{}$&#_%"},
    r"\textbf{": "",
    r"{\scriptsize ": "",
}
"""What LaTeX prints for each sequence (Lamport 1994; the LaTeX2e reference manual)."""


def latex_rows(text: str) -> list[list[str]]:
    """Cells between the rules of a table, as LaTeX would print them."""
    body = text[text.index(r"\toprule") :]
    body = body[: body.index(r"\end{")]
    rows: list[list[str]] = [[""]]
    at = 0
    sequences = sorted(SIGNS, key=len, reverse=True)
    while at < len(body):
        rule = re.compile(r"\\(toprule|midrule|bottomrule|endfirsthead|endhead|endlastfoot)\n").match(body, at)
        if rule:
            at = rule.end()
        elif body.startswith("\\\\\n", at):
            rows.append([""])
            at += 3
        elif body[at] == "&":
            rows[-1].append("")
            at += 1
        elif body[at] == "}":  # closes \textbf or \scriptsize
            at += 1
        else:
            sequence = next((item for item in sequences if body.startswith(item, at)), body[at])
            assert sequence not in ("\\", "{", "$", "#", "_", "%", "^", "~", "<", ">", "|"), body[at - 20 : at + 20]
            rows[-1][-1] += SIGNS.get(sequence, sequence)
            at += len(sequence)
    return [[cell.strip() for cell in row] for row in rows if row != [""]]


def is_balanced(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"\\[{}\\]|[{}]", text):
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return depth == 0


def plain(table: Table, missing: str = "–") -> list[list[str]]:
    """What a person should read, without the star that stands for bold in a terminal."""
    rows = [
        [
            "" if cell.value == "" else column.plain(Cell(cell.value, cell.low, cell.high, cell.mark))
            for column, cell in zip(table.columns, row, strict=True)
        ]
        for row in table.rows
    ]
    return [[one_line(cell) or missing for cell in row] for row in rows]


@given(contents)
def test_csv_keeps_every_digit_interval_and_mark(content: tuple) -> None:
    table = table_of(content)
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    assert len(rows) == len(table.rows)
    for row, (name, f1, delta) in zip(rows, table.rows, strict=True):
        assert None not in row
        assert row["a|b_c"] == one_line(str(name.value))
        for key, value in (("F1", f1.value), ("F1 low", f1.low), ("F1 high", f1.high), ("δ & more", delta.value)):
            assert (float(row[key]) if row[key] else None) == value
        expected = [BEST] * f1.best + [one_line(f1.mark)] * bool(one_line(f1.mark))
        assert row.get("F1 mark", "") == "; ".join(expected)


@given(contents)
def test_markdown_reads_back_as_a_table_with_the_same_words(content: tuple) -> None:
    table = table_of(content)
    text = to_markdown(table)
    (rows,) = markdown_tables(text)
    assert [cell for cell, _ in rows[0]] == ["a|b_c", "F1", "δ & more"]
    assert [[one_line(cell) for cell, _ in row] for row in rows[1:]] == plain(table)
    for row, cells_ in zip(rows[1:], table.rows, strict=True):
        assert row[1][1] == (cells_[1].best and cells_[1].value is not None)


@given(contents)
def test_latex_reads_back_as_a_table_with_the_same_words(content: tuple) -> None:
    table = table_of(content)
    text = to_latex(table)
    assert is_balanced(text)
    rows = latex_rows(text)
    assert rows[0] == ["a|b_c", "F1", "δ & more"]
    assert rows[1:] == [[re.sub(r"^–$", "--", cell) for cell in row] for row in plain(table)]
    assert text.count(r"\textbf{") == sum(row[1].best and row[1].value is not None for row in table.rows)


def small(n: int = 3, name: str = "x_y") -> Table:
    columns = (Column("concept", text=True), Column("F1", interval=True))
    rows = tuple((Cell(f"a_{k} [50 %]"), Cell(k / n, 0.0, 1.0, best=k == 1)) for k in range(n))
    return Table(name, "A title", columns, rows, ("Bold marks the best on cal.",))


def test_cells_are_written_as_in_a_printed_table() -> None:
    text = to_latex(small())
    assert r"a\_1 {[}50 \%{]} & \textbf{.333} {\scriptsize [.000, 1.000]} \\" in text
    assert r"\caption{A title. Bold marks the best on cal.}\label{tab:x-y}" in text
    assert text.startswith("% needs the package booktabs\n")
    assert r"\pm" not in text
    assert "| a\\_1 \\[50 %\\] | **.333** [.000, 1.000] |" in to_markdown(small())
    assert small().text_rows()[1] == ("a_1 [50 %]", ".333* [.000, 1.000]")


def test_tables_of_many_rows_break_over_pages() -> None:
    short, long = to_latex(small(LONG)), to_latex(small(LONG + 1))
    assert "longtable" not in short
    assert long.count(r"\begin{longtable}") == long.count(r"\end{longtable}") == 1
    assert len(latex_rows(long)) == LONG + 1 + 2, "the header comes twice: on the first page and on all others"


@pytest.mark.parametrize(
    ("cell", "column", "expected"),
    [
        (Cell(None), Column("x"), "–"),
        (Cell(None, mark="not estimable"), Column("x"), "not estimable"),
        (Cell(-0.25, -0.5, 0.0), Column("x", signed=True), "−.250 [−.500, .000]"),
        (Cell(0.25, 0.125, 0.5), Column("x", signed=True), "+.250 [+.125, +.500]"),
        (Cell(0.005), Column("δ", places=None), "0.005"),
        (Cell(0.000999), Column("p", places=None), "0.000999"),
        (Cell(1e-9), Column("p", places=None), "1e-09"),
        (Cell(-0.5), Column("d", places=None), "−0.5"),
        (Cell(12), Column("n"), "12"),
        (Cell(0.5, mark="max", best=True), Column("x"), ".500* (max)"),
    ],
)
def test_plain_text_of_a_cell(cell: Cell, column: Column, expected: str) -> None:
    assert column.plain(cell).replace("+.000", ".000") == expected


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_missing(value: float) -> None:
    assert Cell.of(value).value is None
    assert Cell.of({"value": value, "low": value, "high": value}) == Cell(None)


def test_json_holds_the_same_as_csv() -> None:
    table = small()
    assert table.as_dict()["rows"][1] == {
        "concept": "a_1 [50 %]",
        "F1": 1 / 3,
        "F1 low": 0.0,
        "F1 high": 1.0,
        "F1 mark": BEST,
    }


def test_faulty_tables_and_formats_are_refused() -> None:
    with pytest.raises(StudyError, match="row 0 has 1 entries for 2 columns"):
        Table("x", "", (Column("a"), Column("b")), ((Cell(1),),))
    with pytest.raises(StudyError, match="two columns would be named 'a low'; give other names"):
        Table("x", "", (Column("a", interval=True), Column("a low")), ())
    with pytest.raises(StudyError, match="unknown table format 'text'"):
        check_formats(("csv", "text"))
    with pytest.raises(StudyError, match="no table format given"):
        check_formats(())


@given(words)
def test_slugs_are_safe_file_names(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9.-]*[A-Za-z0-9]", slug(name))


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(tmp_path: Path) -> None:
    printable = "".join(sign for sign in NASTY if sign.isascii() or sign in "−δ×≥≤†·…é")
    table = Table("x", printable, (Column(printable, text=True), Column("F1")), ((Cell(printable), Cell(0.5)),))
    packages = r"\usepackage{booktabs}\usepackage{longtable}"
    body = to_latex(table) + to_latex(small(LONG + 1, "long"))
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "x.tex").write_text(document.replace("% needs", "\n% needs"), encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
