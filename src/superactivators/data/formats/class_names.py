"""What the ids or colours of masks are called: ``labelmap.txt``, ``classes.json`` or ``classes.txt``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from superactivators.data.dataset import VOID
from superactivators.data.faults import Faults
from superactivators.data.formats.colour_codes import read_labelmap
from superactivators.data.formats.voc import IGNORED, NO_CLASS, colour_codes
from superactivators.data.jsonl import is_name
from superactivators.errors import DataError

FILES: Final = ("labelmap.txt", "classes.json", "classes.txt")
_NUMBERED = re.compile(r"(\d{1,5})\s*[\s:,;]\s*(\S.*)")


@final
@dataclass(frozen=True)
class Naming:
    """Names of the ids of masks.

    Attributes
    ----------
    file : Path
        Where they were read.
    classes : dict of int to tuple of str
        Without 0 (none) and 255 (unlabelled).
    codes : tuple of (int, int) or None
        For masks in colour: number of each colour and its id.
    """

    file: Path
    classes: dict[int, tuple[str, ...]]
    codes: tuple[tuple[int, int], ...] | None = None


def find_naming(folder: Path, given: Path | None) -> Naming:
    """Read the file of names that was given, or the first of the usual ones that is there.

    Raises
    ------
    DataError
        If there is none, or it has faults.
    """
    file = given or next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        raise DataError(
            f"{folder}: holds none of {', '.join(FILES)}; add one that names the ids or colours of the masks"
        )
    faults = Faults()
    if file.suffix == ".json":
        naming = Naming(file, _from_json(file, faults))
    else:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: cannot be read ({error}); save it as UTF-8") from error
        coloured = any(re.search(r":\s*\d+\s*,\s*\d+\s*,\s*\d+", line) for line in lines)
        naming = _from_colours(file, faults) if coloured else Naming(file, _from_lines(file, lines, faults))
    if not naming.classes and not len(faults):
        faults.add(file, None, "names no class")
    faults.raise_if_any(f"data set {folder}")
    return naming


def _from_colours(file: Path, faults: Faults) -> Naming:
    identity, codes = colour_codes(read_labelmap(file, faults))
    return Naming(file, {number: (name,) for name, number in identity.items()}, codes)


def _from_json(file: Path, faults: Faults) -> dict[int, tuple[str, ...]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: is not readable JSON ({error})") from error
    if not isinstance(content, dict):
        faults.add(file, None, 'must be an object that maps mask ids to names, such as {"1": "cat"}')
        return {}
    classes = {}
    for key, value in content.items():
        names = [value] if isinstance(value, str) else value
        if not key.isdecimal() or len(key) > 5 or int(key) > 65535:
            faults.add(file, None, f"mask id {key!r:.20} must be a whole number from 0 to 65535")
        elif not isinstance(names, list) or not names or not all(is_name(name) for name in names):
            faults.add(file, None, f"mask id {key} must map to a name or a list of names; got {json.dumps(value):.60}")
        elif int(key) not in (0, VOID):
            classes[int(key)] = tuple(names)
    return classes


def _from_lines(file: Path, lines: list[str], faults: Faults) -> dict[int, tuple[str, ...]]:
    """Lines ``ID NAME``, or names in the order of their ids."""
    written = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    written = [(number, line) for number, line in written if not line.startswith("#") and line != "__ignore__"]
    numbered = [_NUMBERED.fullmatch(line) for _, line in written]
    classes: dict[int, tuple[str, ...]] = {}
    if written and all(numbered):
        pairs = [(int(match[1]), match[2]) for match in numbered if match]
    elif any(numbered):
        line = next(number for (number, _), match in zip(written, numbered, strict=True) if match is None)
        faults.add(file, line, "has no id, but other lines have; write 'ID NAME' on every line, or names only")
        return {}
    else:
        first = 0 if written and written[0][1].lower() in NO_CLASS else 1
        pairs = [(first + place, line) for place, (_, line) in enumerate(written)]
    for (number, _), (identity, name) in zip(written, pairs, strict=True):
        if identity in classes:
            faults.add(file, number, f"id {identity} comes twice")
        elif identity > 65535:
            faults.add(file, number, f"id {identity} must be a whole number from 0 to 65535")
        elif identity == VOID and not any(numbered):
            faults.add(file, number, "would have the id 255, which means unlabelled; write 'ID NAME' on every line")
        elif identity not in (0, VOID) and name.lower() in IGNORED:
            faults.add(file, number, f"{name!r} stands for unlabelled pixels, whose id is 255; save them so")
        elif identity not in (0, VOID):
            classes[identity] = (name,)
    return classes
