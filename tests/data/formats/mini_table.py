"""A small CSV file as a spreadsheet on Windows writes it, and the same samples in other types of table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FORMAT = "table"
OPTIONS: dict[str, Any] = {"separator": "|"}
LABELS = ("joy", "anger", "joy|calm", "", "calm", "anger|calm")
SPLITS = ("train", "train", "dev", "test")


def samples() -> list[tuple[str, str, str, str]]:
    """Id, text, labels and split of each row."""
    return [
        (f"r{n}", f'Row {n}; he said "{label or "nothing"}",\r\nthen left 🙂.', label, split)
        for n in range(24)
        for label, split in [(LABELS[n % 6], SPLITS[n // 6])]
    ]


def build(folder: Path) -> Path:
    """Write the file and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["id;Text;Labels;split;notes"]
    lines += [
        ";".join([name, '"' + text.replace('"', '""') + '"', labels, split, "ignored"])
        for name, text, labels, split in samples()
    ]
    lines += [";;;;"]
    path = folder / "export.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode())
    return path
