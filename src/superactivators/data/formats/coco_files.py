"""Instance files in COCO's JSON: which there are, whether one is of the right kind, and where its images lie."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, final

from superactivators.data.faults import Faults
from superactivators.data.formats.image_files import folders_in
from superactivators.errors import DataError

ROBOFLOW = "_annotations.coco.json"
SPLIT_OF = {"train": "train", "valid": "cal", "val": "cal", "test": "test"}
"""Which split of ours the folders of an export stand for."""
_PROBED = 20


@final
@dataclass(frozen=True, slots=True)
class Listed:
    """One image that an instance file lists.

    Attributes
    ----------
    key : int or str
        Its id in the file.
    name : str
        Its ``file_name``, with forward slashes.
    size : (int, int) or None
        Width and height as the file says.
    path : Path or None
        Where it lies; None where it was not found.
    """

    key: int | str
    name: str
    size: tuple[int, int] | None
    path: Path | None


def export_files(folder: Path) -> dict[str, Path]:
    """Instance files of a folder by what their names call them, such as ``{"train2017": ...}``; empty where none is."""
    parts = {part.name: part / ROBOFLOW for part in folders_in(folder) if (part / ROBOFLOW).is_file()}
    if parts:
        return parts
    for place in (folder / "annotations", folder):
        found = {path.stem.removeprefix("instances_"): path for path in sorted(place.glob("instances_*.json"))}
        if found:
            return found
    if (folder / ROBOFLOW).is_file():
        return {"": folder / ROBOFLOW}
    loose = sorted(folder.glob("*.json"))
    return {"": loose[0]} if len(loose) == 1 else {}


def read_instances(path: Path) -> dict[str, Any]:
    """Read an instance file.

    Raises
    ------
    DataError
        If it is no JSON, or a JSON of another kind (captions, keypoints, panoptic, results, image lists).
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a COCO instances JSON") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error}); give a COCO instances JSON") from error
    wanted = "give the instances file, such as instances_val2017.json"
    if isinstance(content, list):
        raise DataError(f"{path}: is a list, as files of detection results are; {wanted}")
    if not isinstance(content, dict):
        raise DataError(f"{path}: must be a JSON object with images, annotations and categories; {wanted}")
    annotations, categories = content.get("annotations"), content.get("categories")
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    kinds = first if isinstance(first, dict) else {}
    if "caption" in kinds:
        raise DataError(f"{path}: is a captions file; {wanted}")
    if "segments_info" in kinds:
        raise DataError(f"{path}: is a panoptic file; {wanted}")
    if "images" in content and annotations is None:
        raise DataError(f"{path}: lists images without annotations, as image_info files do; {wanted}")
    points = [isinstance(item, dict) and bool(item.get("keypoints")) for item in categories or ()]
    if points and all(points):
        raise DataError(f"{path}: is a keypoints file; {wanted}")
    for name in ("images", "annotations", "categories"):
        value = content.get(name)
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise DataError(f"{path}: needs a list of objects {name!r}; {wanted}")
    return content


def listed_images(
    path: Path, records: Sequence[dict[str, Any]], folders: Sequence[Path], faults: Faults
) -> list[Listed]:
    """Look up every image that an instance file lists.

    Parameters
    ----------
    path : Path
        The instance file.
    records : sequence of dict
        Its ``images``.
    folders : sequence of Path
        Where images may lie; empty: the usual places beside the file are tried, and the first that holds one of the
        first twenty images is taken.
    """
    names: list[tuple[dict[str, Any], str]] = []
    known: set[int | str] = set()
    for number, record in enumerate(records):
        key, name = record.get("id"), record.get("file_name")
        if type(key) is not int and not isinstance(key, str):
            faults.add(
                path, None, f"images[{number}] needs an 'id' that is a whole number or a string; got {key!r:.40}"
            )
        elif not isinstance(name, str) or not name.strip():
            faults.add(path, None, f"image {key!r} needs a 'file_name' that is a non-empty string; got {name!r:.40}")
        elif key in known:
            faults.add(path, None, f"image id {key!r} comes twice; ids must be unique")
        else:
            known.add(key)
            names.append((record, name.replace("\\", "/")))
    last = Counter(PurePosixPath(name).name for _, name in names)
    tried = folders or _usual_folders(path, [name for _, name in names[:_PROBED]])
    listed = []
    for record, name in names:
        bare = PurePosixPath(name).name
        found = _find(name, tried) or (_find(bare, tried) if last[bare] == 1 else None)
        listed.append(Listed(record["id"], name, _size(path, record, faults), found))
    return listed


def _size(path: Path, record: dict[str, Any], faults: Faults) -> tuple[int, int] | None:
    width, height = record.get("width"), record.get("height")
    if width is None and height is None:
        return None
    if type(width) is not int or type(height) is not int or min(width, height) < 1:
        faults.add(
            path, None, f"image {record['id']!r}: width and height must be whole numbers; got {width!r} and {height!r}"
        )
        return None
    return width, height


def _usual_folders(path: Path, names: Sequence[str]) -> list[Path]:
    beside, above = path.parent, path.parent.parent
    part = path.stem.removeprefix("instances_")
    usual = [
        *(above / part, above / "images" / part, beside / part, beside / "images" / part),
        *(beside, beside / "images", above / "images", above),
    ]
    for folder in usual:
        if any(_find(name, [folder]) or _find(PurePosixPath(name).name, [folder]) for name in names):
            return [folder]
    return []


def _find(name: str, folders: Sequence[Path]) -> Path | None:
    """Find the file in the first folder that has it; names that lead out of the folder are not followed."""
    if name.startswith("/") or ":" in name.split("/")[0] or ".." in name.split("/"):
        return None
    return next((path for folder in folders if os.path.isfile(path := folder / name)), None)
