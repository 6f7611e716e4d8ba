"""Which absent concepts fire together with which present ones (METHOD section 8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from superactivators.detection.metrics import ratio


def confusion(
    fired: Bool[np.ndarray, "n c"], present: Bool[np.ndarray, "n c"], concepts: Sequence[str]
) -> Mapping[str, Any]:
    """Count how often each absent concept fires where another one is present.

    Parameters
    ----------
    fired, present : bool array of shape (samples, concepts)
        Detected, and there in fact.
    concepts : sequence of str

    Returns
    -------
    mapping
        Columns ``present, absent, n, fired, rate, base``, a row for each ordered pair of concepts with a sample that
        holds the first and lacks the second. ``base`` is the second's rate over all samples without it.
    """
    # whole numbers below 2**53 are exact in double precision, where products are fast
    there, alarms, absent = (part.astype(np.float64) for part in (present, fired & ~present, ~present))
    counts, hits = there.T @ absent, there.T @ alarms
    base = ratio(alarms.sum(axis=0), absent.sum(axis=0))
    first, second = np.nonzero((counts > 0) & ~np.eye(len(concepts), dtype=bool))
    n, together = counts[first, second], hits[first, second]
    names = np.array(concepts, dtype=object)
    return {
        "present": names[first].tolist(),
        "absent": names[second].tolist(),
        "n": n.astype(np.int64),
        "fired": together.astype(np.int64),
        "rate": together / n,
        "base": base[second],
    }
