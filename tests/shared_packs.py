"""Find the real data and model packs that some tests use, or skip those tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_path(inside: str) -> Path:
    """Path of a file or folder of the packs; skips the test if it is not there.

    The packs are looked for in the folder that the environment variable SUPERACTIVATORS_SHARED names, else in a folder
    ``shared`` beside the checkout.
    """
    named = os.environ.get("SUPERACTIVATORS_SHARED")
    root = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    path = root / inside
    if not path.exists():
        pytest.skip(f"needs {inside} (set SUPERACTIVATORS_SHARED)")
    return path
