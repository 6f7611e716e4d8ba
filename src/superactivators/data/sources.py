"""One entry for every data set: a folder in an open format, or the name of a registered one."""

from __future__ import annotations

import os
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from superactivators.data import image_folder, text_folder
from superactivators.data.dataset import ConceptDataset
from superactivators.data.passages import passages
from superactivators.data.scenes import scenes
from superactivators.data.splits import ensure_splits
from superactivators.errors import DataError, allowed
from superactivators.registry import Registry

datasets: Registry[Callable[..., ConceptDataset]] = Registry("data set", "superactivators.datasets")
datasets.register("scenes")(scenes)
datasets.register("passages")(passages)


formats: Registry[Callable[..., ConceptDataset]] = Registry("data format", "superactivators.formats")
"""Readers of other people's formats: functions of a path and keyword options. Splits may be left out."""


def load_dataset(
    source: str | Path, *, format: str | None = None, split_seed: int = 0, **options: Any
) -> ConceptDataset:
    """Load labelled texts or images.

    Parameters
    ----------
    source : str or Path
        A folder in the open text format (it holds ``data.jsonl``) or image format (``samples.jsonl``), or a
        registered name; ``"scenes"`` and ``"passages"`` are built in.
    format : str, optional
        Name of the format of the path (docs/data.md), such as ``"coco"`` or ``"csv"``. Left out, the path is a
        folder in one of the two open formats.
    split_seed : int
        Seed of the splits, used only if the data set comes without any.
    **options
        For a registered name or format: passed to its function.

    Returns
    -------
    ConceptDataset
        Every sample has a split.

    Raises
    ------
    DataError
        If there is no such folder or name, or the data set has faults (all of them are listed).
    """
    if format is not None:
        reader = formats[format]
        _check_options(f"data format {format!r}", reader, options, given=1)
        return ensure_splits(reader(Path(source), **options), split_seed)
    if str(source) in datasets:
        maker = datasets[str(source)]
        _check_options(f"data set {str(source)!r}", maker, options, given=0)
        return ensure_splits(maker(**options), split_seed)
    if options:
        raise DataError(
            f"options {', '.join(sorted(options))} are for registered data sets and formats; {source} is a path"
        )
    folder = Path(source)
    # os.path, unlike Path, answers also for names that no file system allows, such as a text given in place of a path
    if os.path.isfile(folder / text_folder.FILE):
        return ensure_splits(text_folder.read_text_folder(folder), split_seed)
    if os.path.isfile(folder / image_folder.FILE):
        return ensure_splits(image_folder.read_image_folder(folder), split_seed)
    if os.path.isdir(folder):
        raise DataError(
            f"{folder}: holds neither {text_folder.FILE} (texts) nor {image_folder.FILE} (images); see docs/data.md, "
            f"or name its format: {', '.join(formats)}"
        )
    if os.path.exists(folder):
        raise DataError(f"{folder}: is a file; give the folder that holds it, or name its format: {', '.join(formats)}")
    raise DataError(f"{source!s:.200}: no such folder and no data set of this name; {allowed(str(source), datasets)}")


def _check_options(what: str, function: Callable[..., ConceptDataset], options: dict[str, Any], *, given: int) -> None:
    """Refuse options that a reader does not know, and say which it lacks."""
    parameters = list(signature(function).parameters.values())[given:]
    known = [parameter.name for parameter in parameters]
    for name in options:
        if name not in known:
            raise DataError(f"{what} has no option {name!r}; {allowed(name, known)}")
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in options]
    if missing:
        raise DataError(f"{what} needs the option {missing[0]!r}; its options are {', '.join(known)}")
