"""The command that follows a study's concepts through the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from superactivators.cli import console
from superactivators.cli.application import Json, app
from superactivators.errors import StudyError

SHOWN = 10


@app.command()
def mechanism(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    concept: Annotated[list[str] | None, typer.Option(help="Which concept; may be repeated. Default: all.")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Test samples that are drawn; 0 for all.")] = 32,
    ablate: Annotated[str, typer.Option(help="How many heads are taken out one at a time, or all.")] = "16",
    kind: Annotated[str | None, typer.Option(help="Which kind's detector; default: the best on cal.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the tables.")] = None,
    json_: Json = False,
) -> None:
    """Show how concept activations grow from block to block, and which attention heads stretch them."""
    from superactivators.study.mechanism import study_mechanism

    if ablate != "all" and not ablate.isdecimal():
        raise StudyError(f"--ablate takes a number of 0 or more, or 'all'; got {ablate!r}")
    found = study_mechanism(
        study,
        kind=kind,
        concepts=concept,
        samples=samples,
        ablate=ablate if ablate == "all" else int(ablate),
        seed=seed,
        say=console.say(json_),
    )
    if out is not None:
        found.save(out)
    content = found.as_dict()
    console.emit(content, json_, lambda: _show(content, out))


def _show(content: dict[str, Any], out: Path | None) -> None:
    fixed = [row for row in content["growth"] if row["vector"] == "fixed"]
    _table("Along each concept's fixed vector", fixed, ("gap", "gap_across", "growth", "skewness_in", "tail_mass"))
    heads = [row for row in content["heads"] if row["vector"] == "fixed"]
    heads.sort(key=lambda row: -abs(row["amplification"]))
    shown = ("ov_gain", "qk_gain", "amplification", "attention", "share")
    _table("Heads that stretch or shrink gaps most (block.head)", heads[:SHOWN], shown)
    removed = sorted(content["ablations"], key=lambda row: -abs(row["max_activation_change"]))
    changes = ("auroc_change", "tail_mass_change", "max_activation_change", "recall_change")
    _table("Without one head, at the concept's site", removed[:SHOWN], changes)
    for note in content["summary"]["notes"]:
        console.line(note)
    if out is not None:
        console.line(f"Tables: {out}")


def _table(title: str, rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    where = [row["site"] if "growth" in row else f"{row['block']}.{row['head']}" for row in rows]
    shown = [
        (place, row["concept"], *(f"{row[name]:.3g}" for name in names)) for place, row in zip(where, rows, strict=True)
    ]
    console.table(title, ("where", "concept", *names), shown)
