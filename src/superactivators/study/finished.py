"""Finished studies, read from their folders, and their tables as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from superactivators.attribution.store import load_attribution
from superactivators.detection.store import load_detection
from superactivators.errors import StoreError, StudyError
from superactivators.report.exports import FORMATS, export_tables
from superactivators.report.study_results import StudyTables
from superactivators.study.analysis import read_analysis
from superactivators.study.attribution import RESULT
from superactivators.study.fit import SUMMARY


def open_studies(folders: Sequence[str | Path], *, names: Sequence[str] | None = None) -> dict[str, StudyTables]:
    """Read finished studies.

    Parameters
    ----------
    folders : sequence of str or Path
    names : sequence of str, optional
        What to call them; by default as their folders.

    Raises
    ------
    StoreError
        If a folder holds no finished study.
    StudyError
        If no folder is given, names are missing or one comes twice.
    """
    paths = [Path(folder) for folder in folders]
    return {name: _open(path) for name, path in zip(_names(paths, names), paths, strict=True)}


def export_studies(
    folders: Sequence[str | Path],
    out: str | Path,
    formats: Sequence[str] = FORMATS,
    *,
    names: Sequence[str] | None = None,
) -> list[Path]:
    """Write the tables of finished studies as CSV, Markdown and LaTeX, with an index.

    Parameters
    ----------
    folders : sequence of str or Path
    out : str or Path
        Folder to write.
    formats : sequence of str
        Any of ``"csv"``, ``"md"`` and ``"tex"``.
    names : sequence of str, optional
        What to call the studies; by default as their folders.

    Returns
    -------
    list of Path
        The files, the index first.

    Raises
    ------
    StoreError, StudyError
        As `open_studies` and `superactivators.report.exports.export_tables`.
    """
    return export_tables(open_studies(folders, names=names), out, formats)


def _open(path: Path) -> StudyTables:
    try:
        summary = json.loads((path / SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = None
    if not isinstance(summary, dict):
        raise StoreError(f"{path}: no finished study here ({SUMMARY} is missing); run 'superactivators run' first")
    missing = [name for name in ("concepts", "weighted_f1", "best_kind_on_cal") if name not in summary]
    if missing:
        raise StoreError(f"{path / SUMMARY}: lacks {missing[0]!r}; run the study again")
    result = load_detection(path / "detection")
    if any(summary[name] != result.summary.get(name) for name in ("concepts", "weighted_f1")):
        raise StoreError(f"{path}: its summary is of an earlier run than its results; run the study again")
    found = load_attribution(path / RESULT) if summary.get("attribution") else None
    return StudyTables(result, summary, found, read_analysis(path))


def _names(paths: Sequence[Path], names: Sequence[str] | None) -> list[str]:
    if not paths:
        raise StudyError("no study given; name at least one study folder")
    if names is None:
        whole = [path.resolve() for path in paths]
        names = [path.name for path in whole]
        if len(set(names)) < len(names):
            names = [f"{path.parent.name}/{path.name}" for path in whole]
    if len(names) != len(paths):
        raise StudyError(f"{len(paths)} studies but {len(names)} names; give one name for each study, or none")
    for name in names:
        if list(names).count(name) > 1:
            raise StudyError(f"two studies would be called {name!r}; give each a name of its own")
    return list(names)
