"""Commands from states to detectors, and what detectors say of new inputs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from superactivators.cli import console
from superactivators.cli.application import (
    DryRun,
    FormatOption,
    Json,
    LayersOption,
    Out,
    SetOption,
    Source,
    TowerOption,
    app,
    layers_of,
    options_of,
)
from superactivators.errors import StudyError


def _numbers(text: str) -> list[int]:
    """Read whole numbers separated by commas."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise StudyError(f"--min-tokens takes whole numbers separated by commas, such as 1,2,3; got {text!r}") from None


@app.command()
def extract(
    data: Source,
    model: Annotated[str, typer.Option("--model", "-m", help="Folder, hub id, bundled:minilm, bundled:dinov2-small.")],
    out: Out,
    layers: LayersOption = "all",
    dtype: Annotated[str, typer.Option(help="float16, bfloat16 or float32.")] = "float16",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, …; default: the GPU if there is one.")] = None,
    tower: TowerOption = None,
    format_: FormatOption = None,
    set_: SetOption = None,
    dry_run: DryRun = False,
    json_: Json = False,
) -> None:
    """Run a model over a data set once and store the states of all wanted layers; resumable."""
    from superactivators.data.sources import load_dataset
    from superactivators.models.backbone import Backbone
    from superactivators.states.extraction import extract as extract_states
    from superactivators.states.extraction import plan_extraction

    dataset = load_dataset(data, format=format_, **options_of(set_))
    load = Backbone.sketch if dry_run else Backbone.from_pretrained
    backbone = load(model, device=device, modality=dataset.modality, tower=tower)
    plan = plan_extraction(backbone, dataset, layers_of(layers), dtype=dtype)
    if dry_run:
        console.emit(plan.as_dict(), json_, lambda: console.plan(plan.as_dict()))
        return
    extract_states(backbone, dataset, layers_of(layers), out=out, dtype=dtype, progress=not json_)
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
