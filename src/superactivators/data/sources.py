"""One entry for every data set: a folder in an open format, or the name of a registered one."""

from __future__ import annotations

import os
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from superactivators.data import image_folder, text_folder
from superactivators.data.dataset import ConceptDataset
from superactivators.data.formats.catalogue import formats
from superactivators.data.formats.csv_table import find_file
from superactivators.data.formats.paper_metadata import apply_paper_metadata
from superactivators.data.passages import passages
from superactivators.data.scenes import scenes
from superactivators.data.splits import ensure_splits
from superactivators.errors import DataError, allowed
from superactivators.registry import Registry

datasets: Registry[Callable[..., ConceptDataset]] = Registry("data set", "superactivators.datasets")
datasets.register("scenes")(scenes)
datasets.register("passages")(passages)


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
        For a registered name or format: passed to its function. Every format also takes ``metadata``, a
        ``metadata.csv`` in the paper's layout whose samples, splits and labels count instead (``evaluated=False``
        keeps concepts that the paper does not evaluate).

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
        return ensure_splits(_read(formats[format], format, Path(source), options), split_seed)
    if str(source) in datasets:
        maker = datasets[str(source)]
        checked = _checked(f"data set {str(source)!r}", maker, options, given=0)
        return ensure_splits(maker(**checked), split_seed)
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


def _read(reader: Callable[..., ConceptDataset], name: str, path: Path, options: dict[str, Any]) -> ConceptDataset:
    """Read a path; metadata are applied here unless the reader does it itself."""
    own = dict(options)
    metadata = None
    if "metadata" in own and "metadata" not in signature(reader).parameters:
        metadata, evaluated = own.pop("metadata"), bool(own.pop("evaluated", True))
        if not isinstance(metadata, str):
            raise DataError(f"option 'metadata' must be the path of a CSV file; got {metadata!r}")
    found = reader(path, **_checked(f"data format {name!r}", reader, own, given=1))
    if metadata is None:
        return found
    return apply_paper_metadata(found, find_file(metadata, path, "metadata"), evaluated=evaluated)


def _checked(
    what: str, function: Callable[..., ConceptDataset], options: dict[str, Any], *, given: int
) -> dict[str, Any]:
    """Refuse options that a reader does not know, lacks, or that are of another type; numbers may come as text."""
    parameters = list(signature(function).parameters.values())[given:]
    known = [parameter.name for parameter in parameters]
    for name in options:
        if name not in known:
            raise DataError(f"{what} has no option {name!r}; {allowed(name, known)}")
    missing = [p.name for p in parameters if p.default is p.empty and p.name not in options]
    if missing:
        raise DataError(f"{what} needs the option {missing[0]!r}; its options are {', '.join(known)}")
    hints = get_type_hints(function)
    checked = {}
    for name, value in options.items():
        try:
            checked[name] = TypeAdapter(hints.get(name, Any)).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise DataError(f"{what}: option {name!r} is {value!r}, which does not fit ({reason})") from None
    return checked
