"""Pictures and masks as data URIs, small enough for one file."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

SIDE = 288
"""Longest side in pixels."""
QUALITY = 76
HALF = 127


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    held = io.BytesIO()
    image.save(held, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(held.getvalue()).decode('ascii')}"


def shown_size(width: int, height: int) -> tuple[int, int]:
    """Width and height at which a picture is embedded: no side above `SIDE`, never enlarged."""
    share = min(1.0, SIDE / max(width, height))
    return max(1, round(width * share)), max(1, round(height * share))


def picture(
    image: Image.Image, view: Float[np.ndarray, " 4"], grid: Int[np.ndarray, " 2"], cells: Int[np.ndarray, " tokens"]
) -> dict[str, Any]:
    """Embed a picture with its patch grid.

    Parameters
    ----------
    image : PIL Image
        Of the original size.
    view : float array of shape (4,)
        Box (left, top, right, bottom) that the grid covers, in pixels of the original.
    grid : int array of shape (2,)
        Rows and columns.
    cells : int array of shape (tokens,)
        Grid cell of every token.

    Returns
    -------
    dict
        ``src`` (a JPEG data URI), ``width``, ``height``, ``view`` (in pixels of the embedded picture), ``grid`` and
        ``cells`` (None if they are all cells in order).
    """
    width, height = shown_size(*image.size)
    # Enlarging tiny pictures is left to the browser, which can do it without blurring.
    small = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)
    scale = np.array([width / image.width, height / image.height] * 2)
    return {
        "src": _uri(small, "JPEG", quality=QUALITY, optimize=True),
        "width": width,
        "height": height,
        "view": np.round(view * scale, 2),
        "grid": grid,
        "cells": None if np.array_equal(cells, np.arange(int(grid[0]) * int(grid[1]))) else cells,
    }


def mask_uri(mask: Bool[np.ndarray, "h w"]) -> str:
    """Embed where a concept is as a one-bit PNG of the embedded picture's size."""
    whole = Image.fromarray(mask.astype(np.uint8) * 255)
    small = np.asarray(whole.resize(shown_size(*whole.size), Image.Resampling.BOX))
    # A thing too thin for any pixel to be half covered would vanish.
    bits = small > (HALF if (small > HALF).any() else 0)
    return _uri(Image.fromarray(bits.astype(np.uint8) * 255).convert("1"), "PNG", optimize=True)
