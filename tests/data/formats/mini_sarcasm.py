"""The headlines data set in miniature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FORMAT = "sarcasm-headlines"
OPTIONS: dict[str, Any] = {}

PEOPLE = [
    "mayor",
    "teacher",
    "senator",
    "dentist",
    "plumber",
    "farmer",
    "actor",
    "pilot",
    "baker",
    "nurse",
    "lawyer",
    "singer",
    "driver",
    "editor",
    "judge",
    "painter",
    "miner",
    "sailor",
    "tailor",
    "waiter",
]


def records() -> list[dict[str, Any]]:
    """Half sarcastic; fields in the order of version 1, and one headline twice."""
    made: list[dict[str, Any]] = []
    for number, person in enumerate(PEOPLE):
        made += [
            (f"area {person} heroically finishes entire sandwich", 1),
            (f"{person} speaks about the new budget on monday", 0),
            (f"what a {person} wants you to know about sleep", 0),
        ]
        made[-3:] = [
            {"article_link": f"https://news.example/{number}", "headline": headline, "is_sarcastic": mark}
            for headline, mark in made[-3:]
        ]
    return [*made, made[0]]


def build(folder: Path) -> Path:
    """Write Sarcasm_Headlines_Dataset.json; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) for record in records()]
    (folder / "Sarcasm_Headlines_Dataset.json").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
