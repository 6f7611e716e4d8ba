"""Run the studies that presets need, each once, and write their tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from superactivators.artefacts import write_bytes
from superactivators.errors import StudyError, SuperActivatorsError, allowed
from superactivators.paper.catalogue import DATASETS, MODELS
from superactivators.paper.finished import Finished
from superactivators.paper.presets import CELLS, Cell, Preset, needed_sections, separators
from superactivators.paper.sources import Sources
from superactivators.report.cells import Table
from superactivators.report.exports import write_tables
from superactivators.study.run import plan_study, run_study
from superactivators.study.settings import StudySettings

PROTOCOLS = ("paper", "default")
RESULTS = "paper.json"
STAND_INS = "Stand-ins: built-in data and small models in place of the paper's, to see that everything runs."


@final
@dataclass(frozen=True, eq=False)
class PaperPlan:
    """What is to be run.

    Attributes
    ----------
    presets : sequence of Preset
    studies : mapping of (data, model) to StudySettings
        Those whose data are at hand.
    absent : mapping of (data, model) to str
        Why the others cannot be run.
    protocol : str
    stand_ins : bool
    """

    presets: Sequence[Preset]
    studies: Mapping[Cell, StudySettings]
    absent: Mapping[Cell, str]
    protocol: str
    stand_ins: bool


@final
@dataclass(frozen=True, eq=False)
class PaperResult:
    """What came out.

    Attributes
    ----------
    index : Path
        ``README.md`` over all tables.
    tables : mapping of str to sequence of Table
        By preset.
    finished : mapping of (data, model) to Path
        Study folders.
    failed : mapping of (data, model) to str
        What went wrong, in a line.
    """

    index: Path | None
    tables: Mapping[str, Sequence[Table]]
    finished: Mapping[Cell, Path]
    failed: Mapping[Cell, str]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON types."""
        return {
            "index": None if self.index is None else str(self.index),
            "tables": {name: [table.as_dict() for table in tables] for name, tables in self.tables.items()},
            "finished": {"/".join(cell): str(folder) for cell, folder in self.finished.items()},
            "failed": {"/".join(cell): reason for cell, reason in self.failed.items()},
        }


def plan_paper(
    presets: Sequence[Preset], sources: Sources, only: Sequence[str] = (), protocol: str = "paper"
) -> PaperPlan:
    """Find the studies that presets need.

    Parameters
    ----------
    presets : sequence of Preset
    sources : Sources
    only : sequence of str
        Data sets, models, or ``"data/model"``; none for all.
    protocol : str
        ``"paper"`` or ``"default"``: whose rules apply.

    Raises
    ------
    StudyError
        If a name is unknown, or settings have faults.
    """
    if protocol not in PROTOCOLS:
        raise StudyError(f"unknown protocol {protocol!r}; {allowed(protocol, PROTOCOLS)}")
    wanted = {cell for preset in presets for cell in preset.cells}
    studies: dict[Cell, StudySettings] = {}
    absent: dict[Cell, str] = {}
    for cell in _chosen(only, [cell for cell in CELLS if cell in wanted]):
        needed = needed_sections(presets, cell, protocol, prompted="prompt" in sources.common)
        settings = sources.study(*cell, needed)
        if settings is None:
            absent[cell] = f"nobody said where its files are: give [data.{cell[0]}] path in --sources (docs/paper.md)"
        else:
            studies[cell] = settings
    return PaperPlan(presets, studies, absent, protocol, sources.stand_ins)


def _chosen(only: Sequence[str], cells: Sequence[Cell]) -> list[Cell]:
    if not only:
        return list(cells)
    names = [*DATASETS, *MODELS, *("/".join(cell) for cell in CELLS)]
    for name in only:
        if name not in names:
            raise StudyError(f"--only: unknown {name!r}; {allowed(name, names)}")
    return [cell for cell in cells if {*cell, "/".join(cell)} & set(only)]


def cost_of(plan: PaperPlan) -> dict[str, dict[str, Any]]:
    """Say for every study what its extraction would cost, or why that cannot be told; no weights are read.

    Returns
    -------
    dict of str to dict
        By ``"data/model"``: what `ExtractionPlan.as_dict` gives, or ``problem``.
    """
    costs: dict[str, dict[str, Any]] = {"/".join(cell): {"problem": reason} for cell, reason in plan.absent.items()}
    for cell, settings in plan.studies.items():
        try:
            costs["/".join(cell)] = plan_study(settings).as_dict()
        except SuperActivatorsError as error:
            costs["/".join(cell)] = {"problem": str(error).splitlines()[0]}
    return costs


def run_paper(
    plan: PaperPlan,
    out: str | Path,
    *,
    progress: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> PaperResult:
    """Run the studies of a plan, skipping what is finished, and write the tables after each of them.

    A study that fails (a model that is not at hand, say) is noted, and the others go on.

    Parameters
    ----------
    plan : PaperPlan
    out : str or Path
        Studies lie in its folder ``studies``, tables beside it.
    progress : bool
        Show progress bars.
    say : callable
        Told in short lines what begins.
    """
    folder = Path(out)
    finished: dict[Cell, Path] = {}
    failed: dict[Cell, str] = {}
    for number, (cell, settings) in enumerate(plan.studies.items(), start=1):
        name = "/".join(cell)
        say(f"study {number} of {len(plan.studies)}: {name}")
        target = folder / "studies" / "-".join(cell)
        try:
            run_study(settings, target, progress=progress, say=say)
        except SuperActivatorsError as error:
            failed[cell] = str(error).splitlines()[0]
            say(f"{name} failed: {failed[cell]}")
            continue
        finished[cell] = target
        if number < len(plan.studies):
            _written(plan, folder, finished, failed)
    return _written(plan, folder, finished, failed)


def _written(plan: PaperPlan, folder: Path, finished: Mapping[Cell, Path], failed: Mapping[Cell, str]) -> PaperResult:
    held = {cell: Finished(path) for cell, path in finished.items()}
    found: dict[str, Sequence[Table]] = {}
    for preset in plan.presets:
        studies = {cell: held[cell] for cell in preset.cells if cell in held}
        tables = preset.tables(studies, separators(plan.protocol)) if studies else []
        found[preset.name] = [_noted(table, plan.stand_ins) for table in tables if table.rows]
    groups = {preset.shows: (preset.name, found[preset.name]) for preset in plan.presets if found[preset.name]}
    index = write_tables(groups, folder / "tables")[0] if groups else None
    result = PaperResult(index, found, dict(finished), dict(failed))
    content = json.dumps({"protocol": plan.protocol, "stand_ins": plan.stand_ins, **result.as_dict()}, indent=1)
    write_bytes(folder / RESULTS, (content + "\n").encode())
    return result


def _noted(table: Table, stand_ins: bool) -> Table:
    notes = (*table.notes, STAND_INS) if stand_ins else table.notes
    return Table(table.name, table.title, table.columns, table.rows, notes)
