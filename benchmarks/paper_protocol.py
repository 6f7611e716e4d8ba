"""What each convention of the paper's code does to the numbers: one study file, changed in one place at a time.

Prints weighted test F1 of the SuperActivators and of ``max`` with one kind of vectors, and appends it as JSON.

::

    python benchmarks/paper_protocol.py DATA MODEL --layers 8 11 --work FOLDER
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import superactivators as sa
from superactivators.detection.tail import DELTAS, PAPER_DELTAS


def changes(modality: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Give settings that differ from the default protocol, one convention at a time, and all of them together."""
    separate: dict[str, dict[str, dict[str, Any]]] = {
        "default": {},
        "separators as published": {"concepts": {"kinds": ["linear-adam"]}},
        "grid of δ as published": {"detection": {"deltas": list(PAPER_DELTAS)}},
    }
    labels = {"data": {"text_rule": "word"}} if modality == "text" else {"model": {"geometry": "squash"}}
    separate["labels by word" if modality == "text" else "whole image, squashed"] = labels
    together: dict[str, dict[str, Any]] = {}
    for change in separate.values():
        for section, values in change.items():
            together.setdefault(section, {}).update(values)
    return {**separate, "all of these": together}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("--layers", nargs="+", type=int, required=True)
    parser.add_argument("--work", type=Path, required=True, help="folder for the studies")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    modality = sa.load_dataset(options.data).modality
    base: dict[str, dict[str, Any]] = {
        "data": {"path": options.data},
        "model": {"name": options.model, "layers": options.layers},
        "concepts": {"kinds": ["linear"]},
        "detection": {"methods": ["superactivators", "max"], "deltas": list(DELTAS), "resamples": 1000},
    }
    first = options.work / "default"
    for name, change in changes(modality).items():
        folder = options.work / name.replace(" ", "-")
        if folder != first and not folder.exists():
            shutil.copytree(first / "states", folder / "states")  # read again where the convention allows it
        settings = {section: {**values, **change.get(section, {})} for section, values in base.items()}
        summary = sa.run_study(settings, folder).summary
        (by_method,) = summary["weighted_f1"].values()
        (fixed,) = summary["weighted_f1_fixed"].values()
        found = {"data": Path(options.data).name, "layers": options.layers, "convention": name}
        found |= {"nested": by_method, "fixed": fixed}
        print(json.dumps(found), flush=True)
        if options.out:
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
