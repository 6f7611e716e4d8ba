"""Commands about data sets."""

from __future__ import annotations

from typing import Annotated

import typer

from superactivators.cli import console
from superactivators.cli.application import Json, data_app


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
