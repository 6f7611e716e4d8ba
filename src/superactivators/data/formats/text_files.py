"""Text files of other programs: what they hold as text or JSON, every fault noted with its line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from superactivators.data.faults import Faults
from superactivators.errors import DataError

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_bytes(path: Path) -> bytes:
    """Read a file; raises ``DataError`` if that cannot be done."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path!s:.200}: cannot be read ({reason}); check the path") from None


def decode(content: bytes, path: Path, encoding: str = "utf-8") -> str:
    """Turn bytes into text; a byte order mark is taken off, line ends stay as they are.

    Raises
    ------
    DataError
        If the bytes are not of this encoding: the message names the line, and what Windows programs often write.
    """
    if encoding.lower().replace("-", "").startswith("utf8"):
        if content.startswith(_UTF16):
            raise DataError(f"{path}: is UTF-16, not UTF-8; save it as UTF-8, or set encoding = 'utf-16'")
        encoding = "utf-8-sig"
    try:
        return content.decode(encoding)
    except LookupError:
        raise DataError(f"{path}: encoding {encoding!r} is unknown; give one such as 'utf-8' or 'cp1252'") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        named = "UTF-8" if encoding == "utf-8-sig" else encoding
        raise DataError(
            f"{path}:{line}: is not {named} (byte 0x{content[error.start]:02x}); save the file as UTF-8, or set the "
            "option 'encoding': spreadsheets on Windows often write 'cp1252'"
        ) from None


def read_json(path: Path) -> Any:
    """Read a JSON file; raises ``DataError`` with the line of what is no JSON."""
    return parse_json(decode(read_bytes(path), path), path)


def parse_json(text: str, path: Path) -> Any:
    """Parse the text of a JSON file; raises ``DataError`` with the line of what is no JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: is not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not JSON ({error})") from None


def json_lines(text: str, path: Path, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and object of every line that is a JSON object; others are noted, blank ones left out."""
    # Not splitlines(): texts may hold U+2028 and other characters that Python also takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            faults.add(path, number, f"is not JSON ({error}); each line must hold one JSON object")
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            faults.add(path, number, f"must be a JSON object; got {shown(value)}")


def shown(value: object) -> str:
    """Write a value of a file for a message, cut to 60 characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
