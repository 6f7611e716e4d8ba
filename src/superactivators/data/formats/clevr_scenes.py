"""Scene files of CLEVR's generator: what is in each picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from superactivators.data.faults import Faults
from superactivators.data.formats.text_files import read_json
from superactivators.data.jsonl import is_name
from superactivators.errors import DataError

WHAT: Final = (
    "a folder with images/ and scenes/ as CLEVR's generator writes them (scenes/CLEVR_new_000000.json or "
    "scenes/CLEVR_val_scenes.json), or the paper's with metadata.csv"
)
_KNOWN: Final = ("color", "shape", "material", "size")


@final
@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes
    ----------
    values : tuple of str
        Its color, shape, material and size; ``""`` for one that the file does not give.
    centre : (float, float) or None
        Column and row of its centre in the picture. (The file's ``pixel_coords`` have the depth as a third number;
        its ``3d_coords`` are in the units of the scene and place nothing in the picture.)
    """

    values: tuple[str, ...]
    centre: tuple[float, float] | None

    def concepts(self, attributes: Sequence[str]) -> tuple[str, ...]:
        """Concepts of the object, such as ``color::red``, in the order of the attributes."""
        given = dict(zip(_KNOWN, self.values, strict=True))
        return tuple(f"{name}::{given[name]}" for name in attributes if given[name])


@final
@dataclass(frozen=True)
class Scene:
    """One picture: its file, its original split (``""`` if none is given), its objects, and the file that says so."""

    image: Path
    split: str
    objects: tuple[SceneObject, ...]
    source: Path


def read_scenes(folder: Path, attributes: Sequence[str], splits: Sequence[str], faults: Faults) -> list[Scene]:
    """Read all scenes of a folder, in the order of files.

    Parameters
    ----------
    folder : Path
        Holds ``images/`` and scenes.
    attributes : sequence of str
        What every object must have: any of color, shape, material and size.
    splits : sequence of str
        Only scenes of these splits; empty: all.
    faults : Faults
        Gets what is wrong with single scenes.

    Raises
    ------
    DataError
        If there are no scene files, or none of the splits.
    """
    if not os.path.isdir(folder):
        raise DataError(f"{folder!s:.200}: is no folder; give {WHAT}")
    inner = folder / "scenes"
    files = sorted(inner.glob("*.json")) if inner.is_dir() else sorted(folder.glob("*scenes.json"))
    if not files:
        raise DataError(f"{folder}: holds no scene files; give {WHAT}")
    found: list[Scene] = []
    seen: dict[Path, Path] = {}
    present: set[str] = set()
    for path in files:
        if splits and (named := _split_in_name(path)) is not None and named not in splits:
            present.add(named)
            continue  # a merged file of another split may be large
        for number, content in _scenes_of(path, faults):
            scene = _scene(folder, path, number, content, attributes, splits, present, faults)
            if scene is None:
                continue
            if scene.image in seen:
                faults.add(path, None, f"picture {scene.image.name!r} is already in {seen[scene.image].name}")
            seen.setdefault(scene.image, path)
            found.append(scene)
    if not found and not len(faults):
        raise DataError(
            f"{folder}: has no scenes of the splits {', '.join(splits)}; it has {', '.join(sorted(present)) or 'none'}"
            if splits
            else f"{folder}: its scene files hold no scenes; give {WHAT}"
        )
    return found


def _split_in_name(path: Path) -> str | None:
    """Split that the name of a merged file of the published set tells."""
    parts = path.stem.split("_")
    return parts[1] if len(parts) == 3 and parts[0] == "CLEVR" and parts[2] == "scenes" else None


def _scenes_of(path: Path, faults: Faults) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """Yield the scenes of a file with their place in it; None in a file of one."""
    try:
        content = read_json(path)
    except DataError as error:
        faults.add(path, None, str(error).removeprefix(f"{path}").lstrip(": "))
        return
    if isinstance(content, dict) and isinstance(content.get("scenes"), list):
        for number, scene in enumerate(content["scenes"]):
            if isinstance(scene, dict):
                yield number, scene
            else:
                faults.add(path, None, f"scene {number} must be an object")
    elif isinstance(content, dict) and "objects" in content:
        yield None, content
    elif isinstance(content, dict) and "questions" in content:
        faults.add(path, None, "holds questions; the scene files of the same set are needed")
    else:
        faults.add(path, None, "is no CLEVR scene file: it has neither 'scenes' nor 'objects'")


def _scene(
    folder: Path,
    path: Path,
    number: int | None,
    content: dict[str, Any],
    attributes: Sequence[str],
    splits: Sequence[str],
    present: set[str],
    faults: Faults,
) -> Scene | None:
    place = "" if number is None else f"scene {number}: "
    split = content.get("split")
    split = split if isinstance(split, str) else ""
    present.add(split or "(none)")
    if splits and split not in splits:
        return None
    name, objects = content.get("image_filename"), content.get("objects")
    if not is_name(name):
        faults.add(path, None, f"{place}needs an image_filename")
        return None
    if not isinstance(objects, list):
        faults.add(path, None, f"{place}needs a list of objects")
        return None
    image = _image(folder, name, split)
    if image is None:
        faults.add(path, None, f"{place}picture {name!r:.80} is neither in images/ nor in images/{split or 'SPLIT'}/")
        return None
    read = tuple(one for item in objects if (one := _object(item, attributes, path, place, faults)) is not None)
    return Scene(image, split, read, path)


def _image(folder: Path, name: str, split: str) -> Path | None:
    places = [folder / "images" / split / name] if split else []
    places += [folder / "images" / name, folder / name]
    return next((path for path in places if os.path.isfile(path)), None)


def _object(item: object, attributes: Sequence[str], path: Path, place: str, faults: Faults) -> SceneObject | None:
    if not isinstance(item, dict) or not all(is_name(item.get(name)) for name in attributes):
        needs = " and ".join(attributes)
        faults.add(path, None, f"{place}an object needs {needs}, as in CLEVR; got {str(item)[:80]}")
        return None
    values = tuple(item[name] if is_name(item.get(name)) else "" for name in _KNOWN)
    given = item.get("pixel_coords")
    numbers = given if isinstance(given, list) and len(given) in (2, 3) else []
    usable = all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
    return SceneObject(values, (float(numbers[0]), float(numbers[1])) if numbers and usable else None)
