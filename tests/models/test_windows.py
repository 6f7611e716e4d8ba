"""Windows over long texts, against a slow search for the best window of each token."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from superactivators.models.windows import windows_of


@given(st.integers(0, 200), st.integers(1, 40), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9]))
def test_each_token_comes_from_the_window_where_it_is_farthest_from_a_cut(n_tokens, capacity, overlap):
    windows = windows_of(n_tokens, capacity, overlap)
    count = len(windows.start)
    assert windows.own[0] == 0
    assert windows.own[-1] == n_tokens
    assert (np.diff(windows.own) >= 0).all()
    assert (windows.end - windows.start <= capacity).all()
    for token in range(n_tokens):
        distances = []
        for start, end in zip(windows.start, windows.end, strict=True):
            if not start <= token < end:
                distances.append(-1)
                continue
            left = np.inf if start == 0 else token - start
            right = np.inf if end == n_tokens else end - 1 - token
            distances.append(min(left, right))
        chosen = int(np.searchsorted(windows.own, token, side="right")) - 1
        assert chosen < count
        assert distances[chosen] == max(distances)
