"""Long texts in overlapping windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Int


@final
@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of one text.

    Attributes
    ----------
    start, end : int64 arrays of shape (windows,)
        Window ``w`` sees the tokens ``start[w]:end[w]``.
    own : int64 array of shape (windows + 1,)
        And gives the states of the tokens ``own[w]:own[w + 1]``.
    """

    start: Int[np.ndarray, " windows"]
    end: Int[np.ndarray, " windows"]
    own: Int[np.ndarray, " windows_plus_1"]


def windows_of(n_tokens: int, capacity: int, overlap: float) -> Windows:
    """Cut a text into windows; each token belongs to the window in which it is farthest from a cut edge.

    Parameters
    ----------
    n_tokens : int
        Length of the text.
    capacity : int
        Most tokens in a window.
    overlap : float
        Share of a window that the next one repeats, in [0, 0.9]. The last window ends with the text, so it may
        repeat more.

    Returns
    -------
    Windows
        The text's own begin and end are not cut edges; equal distances go to the earlier window.
    """
    if n_tokens <= capacity:
        start = np.zeros(1, dtype=np.int64)
    else:
        step = max(1, capacity - round(overlap * capacity))
        start = np.append(np.arange(0, n_tokens - capacity, step), n_tokens - capacity).astype(np.int64)
    end = np.minimum(start + capacity, n_tokens)
    # in the overlap of two windows, tokens up to the middle belong to the earlier one
    turns = (start[1:] + end[:-1] - 1) // 2 + 1
    return Windows(start, end, np.concatenate([[0], turns, [n_tokens]]).astype(np.int64))
