"""Commands about data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from superactivators.cli import console
from superactivators.cli.application import FormatOption, Json, Out, SetOption, Source, data_app, options_of


@data_app.command("check")
def data_check(data: Source, format_: FormatOption = None, set_: SetOption = None, json_: Json = False) -> None:
    """Read a data set in full; every fault is listed with file and line."""
    from superactivators.data.sources import load_dataset
    from superactivators.data.summary import summarise

    dataset = load_dataset(data, format=format_, **options_of(set_))
    content = summarise(dataset)

    def show() -> None:
        console.line(f"{dataset!r}: no faults")
        rows = [(name, *counts.values()) for name, counts in content["positives"].items()]
        console.table("Positive samples", ("concept", "train", "cal", "test"), rows)

    console.emit(content, json_, show)


@data_app.command("convert")
def data_convert(
    data: Source, out: Out, format_: FormatOption = None, set_: SetOption = None, json_: Json = False
) -> None:
    """Write a data set of any format in the open format (docs/data.md), with the splits that a study would use."""
    from superactivators.data.sources import load_dataset
    from superactivators.data.writing import write_dataset

    dataset = load_dataset(data, format=format_, **options_of(set_))
    folder = write_dataset(dataset, out)
    content = {"folder": str(folder), "modality": dataset.modality, "samples": len(dataset)}
    console.emit(content, json_, lambda: console.line(f"{dataset!r} is in {folder}"))


@data_app.command("formats")
def data_formats(json_: Json = False) -> None:
    """List the formats that can be read, with their options."""
    from inspect import signature

    from superactivators.data.formats.catalogue import formats

    content = {
        name: {
            "reads": (formats[name].__doc__ or "").strip().splitlines()[0],
            "options": {
                option.name: None if option.default is option.empty else option.default
                for option in list(signature(formats[name]).parameters.values())[1:]
            },
        }
        for name in formats
    }
    rows = [(name, entry["reads"], ", ".join(entry["options"])) for name, entry in content.items()]
    console.emit(content, json_, lambda: console.table("Data formats", ("name", "reads", "options"), rows))


@data_app.command("filler")
def data_filler(
    out: Annotated[Path, typer.Option("--out", "-o", help="Text file to write, one text a line.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Chat model, as the endpoint calls it.")],
    endpoint: Annotated[str, typer.Option(help="Address of an OpenAI-compatible endpoint.")],
    number: Annotated[int, typer.Option(min=1, help="How many texts.")] = 500,
    avoid: Annotated[list[str] | None, typer.Option(help="What they must not show; may be repeated.")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="What they are about; may be repeated.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the key.")] = None,
    json_: Json = False,
) -> None:
    """Have a chat model write neutral texts, among which labelled ones are put (docs/datasets.md); resumable."""
    from superactivators.baselines.filler import AVOID, TOPICS, write_filler

    told = write_filler(
        out,
        number,
        model=model,
        endpoint=endpoint,
        api_key_env=api_key_env,
        topics=topic or TOPICS,
        avoid=avoid or AVOID,
        progress=not json_,
        say=console.say(json_),
    )
    console.emit(told, json_, lambda: console.line(f"{told['texts']} texts are in {out}; where from: {out}.json"))
