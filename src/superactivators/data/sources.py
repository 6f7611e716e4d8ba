"""One entry for every data set: a folder in an open format, or the name of a registered one."""

from __future__ import annotations

import os
from collections.abc import Callable
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


def load_dataset(source: str | Path, *, split_seed: int = 0, **options: Any) -> ConceptDataset:
    """Load labelled texts or images.

    Parameters
    ----------
    source : str or Path
        A folder in the open text format (it holds ``data.jsonl``) or image format (``samples.jsonl``), or a
        registered name; ``"scenes"`` and ``"passages"`` are built in.
    split_seed : int
        Seed of the splits, used only if the data set comes without any.
    **options
        For a registered name: passed to its function (``size``, ``seed``).

    Returns
    -------
    ConceptDataset
        Every sample has a split.

    Raises
    ------
    DataError
        If there is no such folder or name, or the data set has faults (all of them are listed).
    """
    if str(source) in datasets:
        try:
            return ensure_splits(datasets[str(source)](**options), split_seed)
        except TypeError as error:
            raise DataError(f"data set {str(source)!r} does not take these options ({error})") from None
    if options:
        raise DataError(f"options {', '.join(sorted(options))} are for registered data sets; {source} is a path")
    folder = Path(source)
    # os.path, unlike Path, answers also for names that no file system allows, such as a text given in place of a path
    if os.path.isfile(folder / text_folder.FILE):
        return ensure_splits(text_folder.read_text_folder(folder), split_seed)
    if os.path.isfile(folder / image_folder.FILE):
        return ensure_splits(image_folder.read_image_folder(folder), split_seed)
    if os.path.isdir(folder):
        raise DataError(
            f"{folder}: holds neither {text_folder.FILE} (texts) nor {image_folder.FILE} (images); see docs/data.md"
        )
    if os.path.exists(folder):
        raise DataError(f"{folder}: is a file; give the folder that holds it")
    raise DataError(f"{source!s:.200}: no such folder and no data set of this name; {allowed(str(source), datasets)}")
