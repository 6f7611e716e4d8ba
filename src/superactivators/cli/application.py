"""The application that commands enter, the options that they share, and how their mistakes are told."""

from __future__ import annotations

import json
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

INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__base__
"""Some releases of typer carry a copy of click of their own, so click's class would not be the one that is raised."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would cost (tokens, bytes, memory), and stop.")]
Source = Annotated[str, typer.Argument(help="Path of the data, or the name of a built-in data set.")]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="Format of the path; see 'superactivators data formats'.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Option of the format as key=value (JSON or text); may be repeated.")
]
TowerOption = Annotated[str | None, typer.Option("--tower", help="Images: vision or language (docs/models.md).")]
ModalityOption = Annotated[
    str | None, typer.Option("--modality", help="For checkpoints that read both: text or image.")
]
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


def layers_of(text: str) -> Any:
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


def options_of(given: list[str] | None) -> dict[str, Any]:
    """Read ``key=value``; values that are JSON are taken as such, others as text."""
    options: dict[str, Any] = {}
    for item in given or []:
        key, sign, value = item.partition("=")
        if not sign or not key.isidentifier():
            raise StudyError(f"--set takes key=value, such as top=20; got {item!r}")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options
