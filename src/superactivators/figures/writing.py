"""All figures of a study as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from superactivators.artefacts import reported, write_bytes
from superactivators.figures.attribution import attribution
from superactivators.figures.concepts import concept_f1, confusion, errors
from superactivators.figures.distributions import MOST, distributions, drawn_concepts, separation
from superactivators.figures.levels import best_deltas, best_layers, deltas, layer_deltas
from superactivators.figures.methods import layer_methods, methods
from superactivators.figures.style import FORMATS, Figure, NothingToDraw, check_formats, file_bytes
from superactivators.figures.tokens import lengths, sparsity, token_pairs
from superactivators.report.study_results import StudyTables
from superactivators.report.writers import slug

WHOLE: dict[str, Callable[[StudyTables], Figure]] = {
    "methods": methods,
    "deltas": deltas,
    "layer-methods": layer_methods,
    "layer-deltas": layer_deltas,
    "attribution": attribution,
    "separation": separation,
    "best-deltas": best_deltas,
    "best-layers": best_layers,
    "sparsity": sparsity,
    "lengths": lengths,
    "token-pairs": token_pairs,
}
"""Figures of a whole study."""

BY_KIND: dict[str, Callable[[StudyTables, str], Figure]] = {
    "concepts": concept_f1,
    "errors": errors,
    "confusion": confusion,
}
"""Figures of one kind of vectors; `distributions`, of which a kind may need several, come on top."""


def write_figures(study: StudyTables, folder: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write every figure that a study has something to show in.

    Parameters
    ----------
    study : StudyTables
        As `superactivators.study.finished.open_studies` reads it.
    folder : str or Path
        Made if need be. Files of the same names are replaced; others are left alone.
    formats : sequence of str
        Any of ``"pdf"`` and ``"png"``.

    Returns
    -------
    list of Path
        The files. The same study gives the same bytes with the same release of matplotlib.

    Raises
    ------
    StudyError
        If a format is unknown, or matplotlib is missing.
    StoreError
        If a file cannot be written.
    """
    endings, root = check_formats(tuple(formats)), Path(folder)
    files = []
    for name, figure in study_figures(study):
        with reported(root):
            root.mkdir(parents=True, exist_ok=True)
        for ending in endings:
            path = root / f"{name}.{ending}"
            write_bytes(path, file_bytes(figure, ending))
            files.append(path)
    return files


def study_figures(study: StudyTables) -> Iterator[tuple[str, Figure]]:
    """Draw every figure that a study has something to show in, one after the other, with its name.

    Parameters
    ----------
    study : StudyTables
    """
    for name, whole in WHOLE.items():
        try:
            yield name, whole(study)
        except NothingToDraw:
            continue
    for kind in study.kinds:
        for name, of_kind in BY_KIND.items():
            if not _has(study, name, kind):
                continue
            yield f"{name}-{slug(kind)}", of_kind(study, kind)
        concepts = drawn_concepts(study, kind) if study.analysis is not None else []
        pages = [concepts[start : start + MOST] for start in range(0, len(concepts), MOST)]
        for number, page in enumerate(pages, start=1):
            ending = f"-{number}" if len(pages) > 1 else ""
            yield f"distributions-{slug(kind)}{ending}", distributions(study, kind, page)


def _has(study: StudyTables, name: str, kind: str) -> bool:
    if name == "concepts":
        return (kind, "superactivators") in study.pairs
    table = None if study.analysis is None else getattr(study.analysis, name)
    return table is not None and kind in table["kind"].to_pylist()
