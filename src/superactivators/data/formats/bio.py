"""Tags of tokens, such as ``B-PER``, as spans of the text that the tokens make."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PREFIXED = re.compile(r"([BIESLUM])-(.+)", re.DOTALL)
OUTSIDE = ("O", "")


def spans_of_tags(tokens: Sequence[str], tags: Sequence[str]) -> tuple[list[tuple[int, int, str]], str]:
    """Find the tagged runs of tokens that are joined by single blanks.

    Tags are BIO, IOB, IOBES or BILOU, or plain names, which make one span of each run of equal ones. ``O`` and the
    empty tag are outside. Inside tags without a start, as in IOB, start a run where the tag before is another.

    Parameters
    ----------
    tokens : sequence of str
    tags : sequence of str
        One for each token.

    Returns
    -------
    spans : list of (start, end, name)
        Python indices into the joined text; runs of tokens without a visible character are left out.
    problem : str
        What is wrong with the tags; empty if nothing.
    """
    named = [tag for tag in tags if tag not in OUTSIDE]
    prefixed = [bool(_PREFIXED.fullmatch(tag)) for tag in named]
    if any(prefixed) and not all(prefixed):
        odd = named[prefixed.index(False)]
        return [], f"tag {odd!r} has no prefix such as B- or I-, but others have"
    spans: list[tuple[int, int, str]] = []
    at, before, open_run = 0, "", False
    for token, tag in zip(tokens, tags, strict=True):
        end = at + len(token)
        if tag in OUTSIDE:
            before, open_run = "", False
        else:
            match = _PREFIXED.fullmatch(tag)
            mark, name = (match[1], match[2]) if match else ("I", tag)
            if open_run and mark in "IELM" and name == before:
                spans[-1] = (spans[-1][0], end, name)
            else:
                spans.append((at, end, name))
            before, open_run = name, mark not in "ELSU"
        at = end + 1
    text = " ".join(tokens)
    return [span for span in spans if text[span[0] : span[1]].strip()], ""
