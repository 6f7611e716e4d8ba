"""Small data folders in the open formats, written by tests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_lines(path: Path, records: Iterable[Mapping[str, Any] | str | bytes]) -> Path:
    """Write a JSON Lines file; strings and bytes are written as they are. Returns its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        record
        if isinstance(record, bytes)
        else record.encode()
        if isinstance(record, str)
        else json.dumps(record).encode()
        for record in records
    ]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path.parent


def write_texts(folder: Path, records: Iterable[Mapping[str, Any] | str | bytes]) -> Path:
    """Write a folder in the text format."""
    return write_lines(folder / "data.jsonl", records)


WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "tokens",
    "have",
    "states",
    "in",
    "every",
    "layer",
    "of",
    "language",
]


def planted_texts(n: int = 36, seed: int = 0) -> list[dict[str, Any]]:
    """Texts with the concepts ``animal`` (fox, dog), ``colour`` (brown) and ``rare`` (one text), with splits."""
    rng = np.random.default_rng(seed)
    plain = [word for word in WORDS if word not in ("fox", "dog", "brown")]
    records = []
    for number in range(n):
        words = rng.choice(plain, rng.integers(4, 12)).tolist()
        if number % 2 == 0:
            words.insert(int(rng.integers(0, len(words))), "fox" if number % 4 else "dog")
        if number % 3 == 0:
            words.insert(int(rng.integers(0, len(words))), "brown")
        text, spans, at = " ".join(words), [], 0
        for word in words:
            concept = {"fox": "animal", "dog": "animal", "brown": "colour"}.get(word)
            if concept:
                spans.append({"start": at, "end": at + len(word), "label": concept})
            at += len(word) + 1
        if number == 5:
            spans.append({"start": 0, "end": len(words[0]), "label": "rare"})
        split = (
            ("train", "train", "cal", "test")[(number // 6) % 4] if n >= 24 else ("train", "cal", "test")[number % 3]
        )
        records.append({"id": f"t{number:03d}", "text": text, "spans": spans, "split": split})
    return records


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Random RGB pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, pixels: np.ndarray) -> str:
    """Write pixels or a mask as PNG and return the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path.name


def planted_images(folder: Path, n: int = 18, size: tuple[int, int] = (40, 32)) -> Path:
    """Write a folder of images with the concepts ``red`` and ``round`` of mask ids 1 and 2, with splits."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    width, height = size
    for number in range(n):
        pixels, mask = picture(width, height, number) // 3, np.zeros((height, width), dtype=np.uint8)
        if number % 2 == 0:
            pixels[4:14, 6:20], mask[4:14, 6:20] = (250, 10, 10), 1
        if number % 3 == 0:
            pixels[16:28, 22:36], mask[16:28, 22:36] = (200, 240, 240), 2
        records.append(
            {
                "id": f"i{number:03d}",
                "image": write_image(folder / f"i{number:03d}.png", pixels),
                "mask": write_image(folder / f"m{number:03d}.png", mask),
                "split": ("train", "cal", "test")[(number // 2) % 3],
            }
        )
    (folder / "classes.json").write_text(json.dumps({"1": "red", "2": ["round", "shape"]}))
    return write_lines(folder / "samples.jsonl", records)
