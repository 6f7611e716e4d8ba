"""The command ``superactivators``: every command calls public functions and holds no logic of its own."""

from __future__ import annotations


def main() -> None:
    """Run the command line; see `superactivators.cli.app`."""
    from superactivators.cli.app import run

    run()
