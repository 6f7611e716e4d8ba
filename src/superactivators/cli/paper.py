"""The command that runs the experiments of the paper."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from superactivators.cli import console
from superactivators.cli.application import DryRun, Json, Out, app


@app.command()
def paper(
    preset: Annotated[
        list[str] | None, typer.Option(help="Which table or figure; may be repeated. all, smoke.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List presets, data sets and models, and stop.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Data set, model or data/model; may be repeated.")] = None,
    sources: Annotated[
        Path | None, typer.Option(help="TOML file: where data and models are; see docs/paper.md.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="Whose rules: paper or default.")] = "paper",
    out: Out = Path("paper-results"),
    dry_run: DryRun = False,
    json_: Json = False,
) -> None:
    """Run the paper's experiments and write its tables beside the published figures; resumable.

    --preset smoke runs everything on built-in data with small packaged models, in minutes.
    """
    from superactivators.paper.presets import PRESETS, SMOKE, chosen_presets
    from superactivators.paper.run import cost_of, plan_paper, run_paper
    from superactivators.paper.sources import Sources, stand_ins

    if list_:
        _list(json_)
        return
    names = preset or []
    presets = chosen_presets(names)
    smoke = SMOKE in names
    if smoke and sources is not None:
        raise typer.BadParameter("smoke uses built-in data and models; leave --sources out")
    where = stand_ins() if smoke else Sources() if sources is None else Sources.load(sources)
    plan = plan_paper(presets, where, only or [], protocol)
    if dry_run:
        costs = cost_of(plan)
        console.emit({"studies": costs}, json_, lambda: _costs(costs))
        return
    if not plan.studies:
        reasons = sorted(set(plan.absent.values()))
        raise typer.BadParameter("; ".join(reasons) or "no study is left; see --list")
    result = run_paper(plan, out, progress=not json_, say=console.say(json_))

    def show() -> None:
        for name, tables in result.tables.items():
            console.line(f"{PRESETS[name].shows}")
            console.tables((), tables)
        for cell, reason in {**plan.absent, **result.failed}.items():
            console.line(f"{'/'.join(cell)}: {reason}")
        console.line(f"Tables: {result.index}")

    console.emit(result.as_dict(), json_, show)
    if result.failed:
        raise typer.Exit(1)


def _list(json_: bool) -> None:
    from superactivators.paper.catalogue import DATASETS, MODELS
    from superactivators.paper.presets import PRESETS

    content: dict[str, Any] = {
        "presets": {
            preset.name: {"shows": preset.shows, "studies": ["/".join(cell) for cell in preset.cells]}
            for preset in PRESETS.values()
        },
        "data": {name: {"title": data.title, "format": data.format} for name, data in DATASETS.items()},
        "models": {
            name: {"title": model.title, "name": model.settings["name"], "layers": model.settings["layers"]}
            for name, model in MODELS.items()
        },
    }

    def show() -> None:
        rows = [(name, entry["shows"], len(entry["studies"])) for name, entry in content["presets"].items()]
        console.table("Presets", ("name", "shows", "studies"), rows)
        console.table(
            "Data sets", ("name", "what", "format"), [(n, d["title"], d["format"]) for n, d in content["data"].items()]
        )
        console.table(
            "Models", ("name", "what", "checkpoint"), [(n, m["title"], m["name"]) for n, m in content["models"].items()]
        )

    console.emit(content, json_, show)


def _costs(costs: dict[str, dict[str, Any]]) -> None:
    for name, cost in costs.items():
        if "problem" in cost:
            console.line(f"{name}: {cost['problem']}")
        else:
            console.line(name)
            console.plan(cost)
