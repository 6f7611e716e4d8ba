"""Tables of one or several studies, written as CSV, Markdown and LaTeX (METHOD section 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from superactivators.artefacts import reported, write_bytes
from superactivators.detection.results import REFERENCE
from superactivators.errors import StoreError, StudyError
from superactivators.report.cells import Cell, Column, Table
from superactivators.report.study_results import BOLD, INTERVALS, Pair, StudyTables, best_of
from superactivators.report.study_tables import study_tables
from superactivators.report.tables import selected
from superactivators.report.verdicts import name_of
from superactivators.report.writers import WRITERS, check_formats, markdown, slug

AVERAGES = {
    "weighted": "weighted by each concept's positive test samples",
    "macro": "the plain mean over concepts",
    "micro": "from the counts of all concepts together",
}
HEADING = "# Tables"
INDEX = "README.md"
FORMATS = tuple(WRITERS)


def export_tables(
    studies: Mapping[str, StudyTables],
    folder: str | Path,
    formats: Sequence[str] = FORMATS,
    *,
    further: Sequence[Table] = (),
) -> list[Path]:
    """Write all tables of some studies, with an index ``README.md``.

    Tables over studies lie in the folder, those of a single study in a subfolder named after it.

    Parameters
    ----------
    studies : mapping of str to StudyTables
        By the name that heads the study's column.
    folder : str or Path
        Made if need be. Files of the same names are replaced; others are left alone.
    formats : sequence of str
        Any of ``"csv"``, ``"md"`` and ``"tex"``.
    further : sequence of Table
        Written beside the tables over studies.

    Returns
    -------
    list of Path
        The files, the index first.

    Raises
    ------
    StudyError
        If there is no study, a format is unknown, or two names would give one folder.
    StoreError
        If a file cannot be written, or the folder holds a ``README.md`` that is no index of ours.
    """
    if not studies:
        raise StudyError("no study given; name at least one")
    places = _places(studies)
    groups = {"Over all studies": ("", [*cross_tables(studies), *further])}
    groups |= {name: (places[name], study_tables(study)) for name, study in studies.items()}
    return write_tables(groups, folder, formats)


def write_tables(
    groups: Mapping[str, tuple[str, Sequence[Table]]],
    folder: str | Path,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Write groups of tables and an index ``README.md``.

    Parameters
    ----------
    groups : mapping of str to (str, sequence of Table)
        Subfolder (empty for the folder itself) and tables of every heading of the index.
    folder : str or Path
        Made if need be.
    formats : sequence of str
        Any of ``"csv"``, ``"md"`` and ``"tex"``.

    Returns
    -------
    list of Path
        The files, the index first.

    Raises
    ------
    StudyError
        If a format is unknown.
    StoreError
        If a file cannot be written, or the folder holds a ``README.md`` that is no index of ours.
    """
    endings, root = check_formats(tuple(formats)), Path(folder)
    _refuse_other_index(root)
    files: list[Path] = []
    lines = [HEADING, "", f"{INTERVALS} {BOLD}"]
    for heading, (within, tables) in groups.items():
        place = root / within
        with reported(place):
            place.mkdir(parents=True, exist_ok=True)
        lines += ["", f"## {markdown(heading)}", ""]
        for table in tables:
            named = replace(table, name=f"{within}-{table.name}" if within else table.name)
            made = {ending: place / f"{slug(table.name)}.{ending}" for ending in endings}
            for ending, path in made.items():
                write_bytes(path, WRITERS[ending](named).encode())
            files += made.values()
            links = ", ".join(f"[{ending}]({path.relative_to(root).as_posix()})" for ending, path in made.items())
            lines.append(f"- {markdown(table.title)}: {links}")
    write_bytes(root / INDEX, ("\n".join(lines) + "\n").encode())
    return [root / INDEX, *files]


def cross_tables(studies: Mapping[str, StudyTables]) -> list[Table]:
    """Make the tables over studies: methods and kinds by data set; those without content are left out."""
    found = [methods_table(studies, average) for average in AVERAGES]
    found += [kinds_table(studies), kinds_table(studies, best_method=True)]
    return [table for table in found if any(cell.value is not None for row in table.rows for cell in row[1:])]


def methods_table(studies: Mapping[str, StudyTables], average: str = "weighted") -> Table:
    """Average test F1 of every kind and method, one column per study.

    Parameters
    ----------
    studies : mapping of str to StudyTables
    average : str
        ``"weighted"`` (the paper's headline), ``"macro"`` or ``"micro"``.
    """
    pairs = in_order([study.pairs for study in studies.values()])
    found = {name: _averages(study, average) for name, study in studies.items()}
    best = {name: best_of(study.on_cal(average)) for name, study in studies.items()}
    held = [pair for pair in pairs if any(pair in cells for cells in found.values())]
    return Table(
        "methods" if average == "weighted" else f"methods-{average}",
        f"{average.capitalize()} test F1 by kind and method",
        (Column("kind", text=True), Column("method", text=True), *(Column(n, interval=True) for n in studies)),
        tuple(
            (
                Cell(pair[0]),
                Cell(pair[1]),
                *(Cell.of(found[name].get(pair), best=best[name] == pair) for name in studies),
            )
            for pair in held
        ),
        (f"F1 is {AVERAGES[average]}.", INTERVALS, f"{BOLD} One cell per column."),
    )


def kinds_table(studies: Mapping[str, StudyTables], *, best_method: bool = False) -> Table:
    """Weighted test F1 of every kind, one column per study.

    Parameters
    ----------
    studies : mapping of str to StudyTables
    best_method : bool
        Take each kind's best method on cal instead of the SuperActivators (which kinds without vectors lack anyway).
    """
    kinds = list(dict.fromkeys(kind for kind, _ in in_order([study.pairs for study in studies.values()])))
    columns: dict[str, dict[str, Cell]] = {}
    for name, study in studies.items():
        pick = study.best_method if best_method else study.focus
        taken = {kind: (kind, pick(kind)) for kind in study.kinds}
        cal, test = study.on_cal(), _averages(study, "weighted")
        best = best_of({pair: cal[pair] for pair in taken.values() if pair in cal})
        columns[name] = {
            kind: Cell.of(test[pair], pair[1] if best_method or pair[1] != REFERENCE else "", best=pair == best)
            for kind, pair in taken.items()
        }
    what = "each kind's best method on cal" if best_method else f"the {name_of(REFERENCE)}"
    notes = [f"Weighted F1 of {what}; a method in brackets is the one that was best on cal."]
    return Table(
        "kinds-best-method" if best_method else "kinds",
        f"Weighted test F1 by kind, with {what}",
        (Column("kind", text=True), *(Column(name, interval=True) for name in studies)),
        tuple((Cell(kind), *(columns[name].get(kind, Cell(None)) for name in studies)) for kind in kinds),
        (*notes, INTERVALS, f"{BOLD} One cell per column."),
    )


def _averages(study: StudyTables, average: str) -> dict[Pair, object]:
    """Average test F1 with its nested interval, or alone where only the table of aggregates has it."""
    found: dict[Pair, object] = {}
    aggregates, column = study.result.aggregates, f"{average}_f1"
    if column in aggregates.column_names:
        rows = selected(aggregates, split="test", site="chosen").to_pylist()
        found = {(row["kind"], row["method"]): row[column] for row in rows}
    for kind, by_method in study.summary.get(column, {}).items():
        found |= {(kind, method): estimate for method, estimate in by_method.items()}
    return found


def in_order(listed: Sequence[Sequence[Pair]]) -> list[Pair]:
    """Join lists of kinds and methods: kinds in the order of their first coming, each with all its methods."""
    held = dict.fromkeys(pair for pairs in listed for pair in pairs)
    kinds = list(dict.fromkeys(kind for pairs in listed for kind, _ in pairs))
    return sorted(held, key=lambda pair: kinds.index(pair[0]))


def _places(studies: Mapping[str, StudyTables]) -> dict[str, str]:
    places = {name: slug(name) for name in studies}
    taken: dict[str, str] = {}
    for name, place in places.items():
        other = taken.setdefault(place.lower(), name)
        if other != name:
            raise StudyError(f"the studies {other!r} and {name!r} would share the folder {place!r}; give other names")
    return places


def _refuse_other_index(root: Path) -> None:
    path = root / INDEX
    try:
        opening = path.read_text(encoding="utf-8").split("\n", 1)[0]
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, UnicodeDecodeError):
        opening = ""
    if opening != HEADING:
        raise StoreError(f"{path}: is no index of ours and would be replaced; choose another folder")
