"""Splits of data sets whose authors made two only, or none: train stays, the held-out part becomes cal and test."""

from __future__ import annotations

import hashlib

KNOWN = ("train", "val", "test")


def split_in_three(original: str, key: str) -> str | None:
    """Map an original split to ours.

    ``train`` and ``test`` stay. Half of ``val`` becomes cal, the other half test, by a hash of the sample's name: a
    sample is in the same split whichever others are read with it. Any other name gives None.

    Parameters
    ----------
    original : str
        Split as the files have it.
    key : str
        Name of the sample, the same on every machine.

    Returns
    -------
    str or None
    """
    if original == "val":
        return "cal" if hashlib.sha256(key.encode()).digest()[0] % 2 == 0 else "test"
    return original if original in KNOWN else None
