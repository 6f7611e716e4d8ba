"""Lines of JSON objects with typed fields, every fault noted with its line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeGuard, final

from superactivators.data.dataset import SPLITS
from superactivators.data.faults import Faults
from superactivators.errors import DataError, allowed

CONCEPTS: Final = "concepts.json"
MISSING: Final = object()
_SURROGATE = re.compile("[\ud800-\udfff]")


def is_name(value: object) -> TypeGuard[str]:
    """Whether a JSON value is a string that is not blank and can be written as UTF-8."""
    return isinstance(value, str) and bool(value.strip()) and not _SURROGATE.search(value)


@final
class Record:
    """One JSON object of a file; a field of the wrong type is noted as a fault and reads as None."""

    def __init__(self, path: Path, line: int, content: dict[str, Any], faults: Faults) -> None:
        self.path = path
        self.line = line
        self._content = content
        self._faults = faults

    def fault(self, message: str) -> None:
        """Note a fault of this line."""
        self._faults.add(self.path, self.line, message)

    def text(self, name: str, *, required: bool) -> str | None:
        """Read a non-blank string."""
        value = self._content.get(name, MISSING)
        if value is MISSING or (value is None and not required):
            if required:
                self.fault(f"field {name!r} is missing; it must be a string")
            return None
        if not isinstance(value, str):
            self.fault(f"field {name!r} must be a string; got {_shown(value)}")
            return None
        if not value.strip():
            self.fault(f"field {name!r} is empty")
            return None
        if _SURROGATE.search(value):
            self.fault(f"field {name!r} holds half of a surrogate pair, which is no character; write the text as UTF-8")
            return None
        return value

    def text_or_texts(self, name: str) -> list[str]:
        """Read a non-blank string, or a list of them; empty where the field is absent."""
        if isinstance(self._content.get(name), list):
            return self.strings(name) or []
        one = self.text(name, required=False)
        return [] if one is None else [one]

    def strings(self, name: str) -> list[str] | None:
        """Read a list of strings; None where the field is absent."""
        value = self._content.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(is_name(item) for item in value):
            self.fault(f"field {name!r} must be a list of non-empty strings; got {_shown(value)}")
            return None
        return value

    def objects(self, name: str) -> list[dict[str, Any]]:
        """Read a list of objects; empty where the field is absent."""
        value = self._content.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.fault(f"field {name!r} must be a list of objects; got {_shown(value)}")
            return []
        return value

    def split(self) -> str | None:
        """Read the field ``split``."""
        value = self.text("split", required=False)
        if value is not None and value not in SPLITS:
            self.fault(f"split {value!r} is unknown; {allowed(value, SPLITS)}")
            return None
        return value


def read_records(path: Path, faults: Faults) -> Iterator[Record]:
    """Yield every line of a JSON Lines file that is a JSON object; other lines are noted as faults.

    Raises
    ------
    DataError
        If the file cannot be read at all.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    # Not splitlines(): texts may hold U+2028 and other characters that Python also takes for line ends.
    for number, raw in enumerate(content.split(b"\n"), start=1):
        if not raw.strip():
            continue
        try:
            value = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            faults.add(path, number, f"is not UTF-8 ({error.reason} at byte {error.start}); save the file as UTF-8")
            continue
        except (ValueError, RecursionError) as error:
            faults.add(path, number, f"is not JSON ({error})")
            continue
        if not isinstance(value, dict):
            faults.add(path, number, f"must be a JSON object; got {_shown(value)}")
            continue
        yield Record(path, number, value, faults)


def listed_concepts(folder: Path, faults: Faults) -> list[str]:
    """Read ``concepts.json``, a list of all concepts in their order; empty where there is no such file."""
    path = folder / CONCEPTS
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        faults.add(path, None, f"is not readable JSON ({error})")
        return []
    if not isinstance(content, list) or not all(is_name(name) for name in content):
        faults.add(path, None, 'must be a list of concept names, such as ["cat", "dog"]')
        return []
    return list(dict.fromkeys(content))


def note_repeated_ids(records: Sequence[tuple[Record, str]]) -> None:
    """Note a fault for every id that an earlier line already has."""
    first: dict[str, int] = {}
    for record, name in records:
        if name in first:
            record.fault(f"id {name!r} is a duplicate of line {first[name]}; ids must be unique")
        first.setdefault(name, record.line)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
