"""Maps as HTML for notebooks: coloured words, or images under a heat map; no script, nothing fetched."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from superactivators.artefacts import write_bytes
from superactivators.data.dataset import ImageSample, Sample, TextSample
from superactivators.errors import StoreError
from superactivators.models.encoding import Encoding

FOR, AGAINST = (230, 97, 1), (94, 60, 153)
"""Orange speaks for the concept, purple against it: a pair that colour-blind readers can tell apart."""

SIDE = 224
"""Longer side of a shown image, in pixels."""


def render_maps(
    sample: Sample,
    encoding: Encoding,
    concepts: Sequence[str],
    objectives: Sequence[str],
    fired: Bool[np.ndarray, "tokens columns"],
    maps: Mapping[str, Float[np.ndarray, "tokens columns"]],
) -> str:
    """Draw every map of one input.

    Parameters
    ----------
    sample : Sample
    encoding : Encoding
        Of this sample alone.
    concepts, objectives : sequence of str
        Of each column.
    fired : bool array of shape (tokens, columns)
        Underlined, or framed.
    maps : mapping of str to float array of shape (tokens, columns)

    Returns
    -------
    str
        HTML without scripts.
    """
    rows = []
    for method, values in maps.items():
        for column, (concept, objective) in enumerate(zip(concepts, objectives, strict=True)):
            shares = values[:, column] / max(float(np.abs(values[:, column]).max()), 1e-30)
            marked = fired[:, column]
            drawn = (
                _text(sample.text, encoding, shares, marked)
                if isinstance(sample, TextSample)
                else _image(sample, encoding, shares, marked)
            )
            title = f"<b>{escape(concept)}</b> · {escape(method)} · {escape(objective)}"
            rows.append(
                f'<div style="margin:.6em 1em .6em 0;display:inline-block;vertical-align:top">{title}{drawn}</div>'
            )
    marks = "underlined" if isinstance(sample, TextSample) else "framed"
    legend = (
        "Orange speaks for the concept, purple against it, each map by its largest value; "
        f"{marks}: SuperActivators, or the highest token where there is none."
    )
    return f'<div style="max-width:72em"><div style="opacity:.7">{legend}</div>{"".join(rows)}</div>'


def check_page(path: Path) -> None:
    """Raise ``StoreError`` if a file cannot be written there."""
    if not path.name or path.is_dir():
        raise StoreError(f"{path}: is a folder; give the name of an HTML file")
    if not path.parent.is_dir():
        raise StoreError(f"{path}: its folder does not exist; make it or give another name")


def write_page(path: Path, parts: Sequence[str]) -> None:
    """Write drawn maps as one HTML file; raises ``StoreError`` if it cannot be written."""
    check_page(path)
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Attribution</title>'
    style = "<style>body{font:16px/1.5 system-ui,sans-serif;margin:1.5em;background:#fff;color:#111}</style>"
    write_bytes(path, f"{head}{style}<h1>Attribution</h1>{''.join(parts)}</html>".encode())


def _colour(share: float) -> tuple[int, int, int]:
    return FOR if share >= 0 else AGAINST


def _text(
    text: str, encoding: Encoding, shares: Float[np.ndarray, " tokens"], marked: Bool[np.ndarray, " tokens"]
) -> str:
    assert encoding.chars is not None  # noqa: S101
    parts, done = [], 0
    for (start, end), share, mark in zip(encoding.chars.tolist(), shares.tolist(), marked.tolist(), strict=True):
        begin = max(start, done)
        parts.append(escape(text[done:begin]))
        colour = ",".join(str(part) for part in _colour(share))
        line = ";border-bottom:2px solid" if mark else ""
        style = f"background:rgba({colour},{abs(share):.2f}){line}"
        parts.append(f'<span style="{style}" title="{share:.2f}">{escape(text[begin:end])}</span>')
        done = max(done, end)
    return f'<div style="white-space:pre-wrap;line-height:1.7">{"".join(parts)}{escape(text[done:])}</div>'


def _image(
    sample: Sample, encoding: Encoding, shares: Float[np.ndarray, " tokens"], marked: Bool[np.ndarray, " tokens"]
) -> str:
    assert isinstance(sample, ImageSample)  # noqa: S101
    image = sample.load_image().convert("RGB")
    image.thumbnail((SIDE, SIDE))
    ratio = image.width / _width(sample)
    pixels = np.asarray(image, dtype=np.float32) * 0.45 + 140  # pale, so that the heat stands out
    for (left, top, right, bottom), share, mark in zip(
        (encoding.boxes() * ratio).round().astype(int).clip(0).tolist(), shares.tolist(), marked.tolist(), strict=True
    ):
        block = pixels[top:bottom, left:right]
        block += (np.array(_colour(share), dtype=np.float32) - block) * abs(share) * 0.85
        if mark and block.size:
            block[[0, -1]] = block[:, [0, -1]] = 0
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "PNG")
    content = base64.b64encode(stream.getvalue()).decode()
    return f'<div><img alt="heat map" src="data:image/png;base64,{content}"></div>'


def _width(sample: ImageSample) -> int:
    return int(sample.load_image().width)
