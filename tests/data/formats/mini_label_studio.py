"""A small Label Studio export of an image project with regions of all shapes, and Label Studio's brush packing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from small_data import picture, write_image

FORMAT = "label-studio"
OPTIONS: dict[str, Any] = {"images": "media", "split": "part", "group": "scene"}
WIDTH, HEIGHT = 64, 48


def pack(values: list[int], word: int = 8, sizes: tuple[int, int, int, int] = (3, 4, 8, 16)) -> list[int]:
    """Pack values as Label Studio does, bit by bit: repeated values as runs, others as they are."""
    bits = format(len(values), "032b") + format(word - 1, "05b") + "".join(format(size - 1, "04b") for size in sizes)

    def count(n: int) -> str:
        which = next(k for k, size in enumerate(sizes) if n <= 1 << size)
        return format(which, "02b") + format(n - 1, f"0{sizes[which]}b")

    largest = 1 << max(sizes)
    at = 0
    while at < len(values):
        end = at
        while end < len(values) and values[end] == values[at] and end - at < largest:
            end += 1
        if end - at > 1:
            bits += "1" + count(end - at) + format(values[at], f"0{word}b")
        else:
            while (
                end < len(values) and end - at < largest and (end + 1 >= len(values) or values[end] != values[end + 1])
            ):
                end += 1
            bits += "0" + count(end - at) + "".join(format(value, f"0{word}b") for value in values[at:end])
        at = end
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


def rgba(mask: np.ndarray) -> list[int]:
    """Values of a brush stroke: colour and opacity of each pixel."""
    return [int(value) for pixel in mask.ravel() for value in ((200, 30, 5, 255) if pixel else (0, 0, 0, 0))]


def region(kind: str, label: str, number: int, **value: Any) -> dict[str, Any]:
    """One result of an image."""
    return {
        "id": f"r{number}",
        "type": kind,
        "from_name": "shape",
        "to_name": "img",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": {**value, kind: [label]},
    }


def shapes(n: int) -> list[dict[str, Any]]:
    """Regions of one image: which of the four shapes are there is the number in binary."""
    stroke = np.zeros((HEIGHT, WIDTH), bool)
    stroke[30:40, 40:60] = True
    every = [
        region("rectanglelabels", "box", 0, x=5, y=10, width=25, height=30, rotation=0),
        region("ellipselabels", "disc", 1, x=70, y=25, radiusX=12.5, radiusY=15, rotation=30),
        region("polygonlabels", "wedge", 2, points=[[10, 55], [45, 60], [20, 95]], closed=True),
        region("brushlabels", "scrawl", 3, format="rle", rle=pack(rgba(stroke))),
    ]
    return [one for k, one in enumerate(every) if n >> k & 1]


def tasks() -> list[dict[str, Any]]:
    """All tasks."""
    return [
        {
            "id": 500 + n,
            "data": {"image": address(n), "part": ("train", "train", "val", "test")[n // 4 % 4], "scene": f"s{n}"},
            "annotations": [
                {"id": n, "was_cancelled": True, "result": []},
                {"id": 100 + n, "was_cancelled": False, "completed_by": 1, "result": shapes(n % 16 or 15)},
            ],
            "predictions": [{"result": [region("rectanglelabels", "guess", 0, x=0, y=0, width=9, height=9)]}],
        }
        for n in range(32)
    ]


def address(n: int) -> str:
    """Where the image of a task is: an upload, a local file, cloud storage, or the web."""
    name = f"pic%20{n}.png"
    return (
        f"/data/upload/3/0a1b2c3d-{name}",
        f"/data/local-files/?d=inner/{name}",
        f"s3://bucket/some/key/{name}",
        f"https://example.org/{name}?size=full",
    )[n % 4]


def build(folder: Path) -> Path:
    """Write export and images, and return the path of the export."""
    for n in range(32):
        place = folder / "media" / ("inner" if n % 4 == 1 else "")
        write_image(place / f"pic {n}.png", picture(WIDTH, HEIGHT, n))
    path = folder / "project-3.json"
    path.write_text(json.dumps(tasks()))
    return path
