"""Find the tokens of a text anew from what the tokens say, for tokenizers whose character ranges are no use."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int

from superactivators.models.surfaces import FOLD_LEVELS, fold, fold_char, is_blank
from superactivators.ragged import offsets_of


def realign(
    text: str, surfaces: list[bytes], unknown: Bool[np.ndarray, " tokens"]
) -> Int[np.ndarray, "tokens 2"] | None:
    """Find the character ranges of the tokens of one text.

    The tokens' bytes are joined to a string; this string and the text are compared character by character after
    folding (`fold_char`), strictly at first, then ever more freely. Unknown tokens say nothing about their characters:
    the known stretches between them are found one after the other, and the unknown tokens take the gaps.

    Parameters
    ----------
    text : str
    surfaces : list of bytes
        What each token stands for.
    unknown : bool array of shape (tokens,)

    Returns
    -------
    int64 array of shape (tokens, 2), or None
        None if the text cannot be made of these tokens.
    """
    known = [b"" if mystery else surface for surface, mystery in zip(surfaces, unknown.tolist(), strict=True)]
    try:
        joined = b"".join(known).decode()
    except UnicodeDecodeError:
        return None
    low, high = _characters(joined, known)
    for level in range(FOLD_LEVELS):
        edges = offsets_of(np.array([len(fold_char(char, level)) for char in joined], dtype=np.int64))
        begin, stop = edges[low], edges[high]
        target = fold(text, level)
        where = _find_stretches(fold(joined, level), target, np.unique(begin[unknown]))
        if where is None:
            continue
        sizes = np.array([len(fold_char(char, level)) for char in text], dtype=np.int64)
        owner = np.repeat(np.arange(len(text)), sizes)[where]  # folded character of the tokens -> character of the text
        before = np.concatenate([[0], owner + 1])  # end of what came before
        first = np.append(owner, len(text))[begin]
        full = stop > begin
        chars = np.stack([np.where(full, first, before[begin]), before[stop]], axis=1)
        # marks and signs that this fold leaves out take what stands between the letters beside them
        solid = np.array([not is_blank(piece) for piece in known], dtype=bool)
        chars[~full & solid, 1] = first[~full & solid]
        chars[:, 1] = np.maximum.accumulate(chars[:, 1])
        chars[~full & ~solid, 0] = chars[~full & ~solid, 1]
        _fill_unknown(text, chars, unknown)
        return chars
    return None


def _characters(joined: str, known: list[bytes]) -> tuple[Int[np.ndarray, " tokens"], Int[np.ndarray, " tokens"]]:
    """Characters ``joined[low:high]`` of which each token holds at least one byte."""
    ends = offsets_of(np.array([len(piece) for piece in known], dtype=np.int64))
    width = np.array([len(char.encode()) for char in joined], dtype=np.int64)
    of_byte = np.append(np.repeat(np.arange(len(joined)), width), len(joined))
    low = of_byte[ends[:-1]]
    high = np.where(np.diff(ends) > 0, of_byte[np.maximum(ends[1:] - 1, 0)] + 1, low)
    return low, high


def _find_stretches(joined: str, text: str, cuts: Int[np.ndarray, " cuts"]) -> Int[np.ndarray, " folded"] | None:
    """Place in ``text`` of each character of ``joined``; None if it is not there.

    ``joined`` may be torn apart at ``cuts``, where at least one character of the text comes between; without cuts both
    must be equal.
    """
    if len(cuts) == 0:
        return np.arange(len(joined)) if joined == text else None
    where = np.empty(len(joined), dtype=np.int64)
    borders = [0, *cuts.tolist(), len(joined)]
    cursor = 0
    for number, (low, high) in enumerate(pairwise(borders)):
        stretch = joined[low:high]
        if number == 0:
            found = 0 if text.startswith(stretch) else -1
        elif number == len(borders) - 2:
            found = len(text) - len(stretch) if text.endswith(stretch) else -1
        else:
            found = text.find(stretch, cursor + 1)
        if found < cursor + (number > 0):
            return None
        where[low:high] = np.arange(found, found + len(stretch))
        cursor = found + len(stretch)
    return where


def _fill_unknown(text: str, chars: Int[np.ndarray, "tokens 2"], unknown: Bool[np.ndarray, " tokens"]) -> None:
    """Give runs of unknown tokens the characters between their known neighbours: a word each, if the number fits."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], unknown, [False]]).astype(np.int8)))
    for low, high in edges.reshape(-1, 2).tolist():
        left = int(chars[low - 1, 1]) if low else 0
        right = int(chars[high, 0]) if high < len(chars) else len(text)
        words = [(left + match.start(), left + match.end()) for match in re.finditer(r"\S+", text[left:right])]
        if len(words) == high - low:
            chars[low:high] = words
        elif words:
            chars[low:high] = (words[0][0], words[-1][1])
        else:
            chars[low:high] = (left, left)
