"""A small doccano export: spans with emoji and Windows line ends, in a zip with a file for each annotator."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

FORMAT = "doccano"
OPTIONS: dict[str, Any] = {"annotator": "admin", "offsets": "utf-16", "newlines": "two", "group": "book"}
WORDS = {"joy": "delighted", "anger": "furious", "place": "Tübingen"}


def units(text: str) -> int:
    """Length as JavaScript counts it."""
    return len(text.encode("utf-16-le")) // 2


def documents() -> list[tuple[int, str, list[tuple[str, str]]]]:
    """Id, text, and label and word of each span."""
    found = []
    for n in range(24):
        names = [name for k, name in enumerate(WORDS) if n >> k & 1]
        words = [WORDS[name] for name in names]
        text = f"🎉 Chapter {n}.\r\nThey were {' and '.join(words) or 'there'} 👩‍🚒 again.\r\n"
        found.append((100 + n, text, list(zip(names, words, strict=True))))
    return found


def records() -> list[dict[str, Any]]:
    """Lines of the annotator's file."""
    lines = []
    for identity, text, spans in documents():
        label = [
            [units(text[: text.index(word)]), units(text[: text.index(word)]) + units(word), name]
            for name, word in spans
        ]
        lines.append({"id": identity, "text": text, "book": f"b{identity % 8}", "label": label, "Comments": []})
    return lines


def build(folder: Path) -> Path:
    """Write the zip and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "export.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("admin.jsonl", "\n".join(json.dumps(line, ensure_ascii=False) for line in records()) + "\n")
        archive.writestr("eve.jsonl", json.dumps({"id": 100, "text": "other", "label": [[0, 5, "joy"]]}) + "\n")
        archive.writestr("unknown.jsonl", json.dumps({"id": 900, "text": "nobody saw this", "label": []}) + "\n")
    return path
