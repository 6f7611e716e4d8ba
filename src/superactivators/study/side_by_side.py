"""What some studies are and in what they differ: data, model, settings, packages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from superactivators.report.cells import Cell, Column, Table
from superactivators.report.study_results import INTERVALS, StudyTables
from superactivators.report.verdicts import name_of

FACTS = {
    "data": ("name", "modality", "fingerprint", "samples"),
    "model": ("name", "fingerprint", "blocks", "width"),
}
"""Entries of the summary that are compared beside the settings."""
SHOWN = 12
"""Characters of a fingerprint that are shown."""


def studies_table(studies: Mapping[str, StudyTables]) -> Table:
    """Give data, model and best kind of each study, on its own concepts."""
    rows = []
    for name, study in studies.items():
        summary = study.summary
        kind = str(summary["best_kind_on_cal"])
        method = study.focus(kind)
        rows.append(
            (
                Cell(name),
                *(Cell(_short(_inside(summary, part, "name"))) for part in ("data", "model")),
                Cell(len(summary["concepts"])),
                Cell(kind),
                Cell(name_of(method)),
                Cell.of(study.on_cal().get((kind, method))),
                Cell.of(summary["weighted_f1"][kind][method]),
            )
        )
    columns = (
        *(Column(name, text=True) for name in ("study", "data", "model")),
        Column("concepts"),
        Column("best kind on cal", text=True),
        Column("method", text=True),
        Column("weighted F1 on cal"),
        Column("weighted F1 on test", interval=True),
    )
    return Table("studies", "Studies", columns, tuple(rows), ("Each on all its own concepts.", INTERVALS))


def settings_table(studies: Mapping[str, StudyTables]) -> Table:
    """List the settings, data, model and packages that are not the same in all studies."""
    facts = {name: _facts(study.summary) for name, study in studies.items()}
    keys = dict.fromkeys(key for held in facts.values() for key in held)
    differing = [key for key in keys if len({_plain(held.get(key)) for held in facts.values()}) > 1]
    return Table(
        "settings",
        "What differs",
        (Column("entry", text=True), *(Column(name, text=True) for name in studies)),
        tuple((Cell(key), *(Cell(_short(held.get(key))) for held in facts.values())) for key in differing),
        ("Everything else is the same.",) if differing else ("Nothing differs in settings, data, model or packages.",),
    )


def _facts(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten what was run: data, model, settings and packages."""
    found: dict[str, Any] = {}
    for part, entries in FACTS.items():
        for entry in entries:
            found[f"{part}: {entry}"] = _inside(summary, part, entry)
    found["concepts"] = summary["concepts"]
    for section, settings in (summary.get("settings") or {}).items():
        found |= {f"[{section}] {key}": value for key, value in settings.items()}
    found["torch threads"] = summary.get("torch_threads")
    found |= {f"package {name}": version for name, version in (summary.get("packages") or {}).items()}
    return found


def _inside(summary: Mapping[str, Any], part: str, entry: str) -> Any:
    value = (summary.get(part) or {}).get(entry)
    return value[:SHOWN] if entry == "fingerprint" and isinstance(value, str) else value


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _short(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return ", ".join(str(item) for item in value) if isinstance(value, list) else _plain(value)
