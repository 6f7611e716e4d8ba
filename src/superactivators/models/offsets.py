"""Character ranges of tokens: checked by cutting them out of the text again, repaired where they are wrong.

Some tokenizers report empty or shifted ranges. Nobody notices, because the states are right; only the labels land
on the wrong tokens. Here each range must show the token's own characters, up to what tokenizers legitimately change
(case, accents, compatibility forms, blanks, control characters, the bytes of one character over several tokens), the
ranges must never go back, and together they must cover the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt32, UInt64

from superactivators.errors import ModelError
from superactivators.models.realign import realign
from superactivators.models.surfaces import TokenSurfaces, is_mark
from superactivators.ragged import offsets_of, rows_of, segment_ids


@final
class OffsetChecker:
    """Checks and repairs the character ranges that one tokenizer reports.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    name : str
        How error messages call it.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        self._name = name
        self._surfaces = TokenSurfaces(tokenizer)

    def verify(
        self,
        texts: Sequence[str],
        ids: Int[np.ndarray, " tokens"],
        chars: Int[np.ndarray, "tokens 2"],
        bounds: Int[np.ndarray, " n_plus_1"],
    ) -> Int32[np.ndarray, "tokens 2"]:
        """Return ranges ``text[start:end]`` that are right for every token.

        Parameters
        ----------
        texts : sequence of str
        ids : int array of shape (tokens,)
            Vocabulary ids of all texts, end to end.
        chars : int array of shape (tokens, 2)
            Ranges as the tokenizer reports them; zeros where it reports none.
        bounds : int64 array of shape (texts + 1,)
            Tokens of text ``i`` are ``bounds[i]:bounds[i + 1]``.

        Returns
        -------
        int32 array of shape (tokens, 2)
            Blanks that belong to a token may lie inside its range. Only tokens that are nothing but blanks may be
            empty ranges.

        Raises
        ------
        ModelError
            If the ranges of a text are wrong and cannot be repaired.
        """
        chars = np.array(chars, dtype=np.int64).reshape(-1, 2)
        wrong = self._wrong(texts, ids, chars, bounds)
        for repair in (self._close_gaps, self._align):
            broken = np.flatnonzero(wrong >= 0)
            if len(broken) == 0:
                break
            rows = rows_of(bounds, broken)
            some = [texts[number] for number in broken.tolist()]
            inner = offsets_of(np.diff(bounds)[broken])
            mended = repair(some, ids[rows], chars[rows], inner)
            verdict = self._wrong(some, ids[rows], mended, inner)
            good = rows_of(inner, np.flatnonzero(verdict < 0))
            chars[rows[good]] = mended[good]
            wrong[broken] = verdict
        broken = np.flatnonzero(wrong >= 0)
        if len(broken):
            raise self._failure(texts[int(broken[0])], ids, chars, int(bounds[broken[0]]), int(wrong[broken[0]]))
        return chars.astype(np.int32)

    def _failure(
        self, text: str, ids: Int[np.ndarray, " tokens"], chars: Int[np.ndarray, "tokens 2"], first: int, which: int
    ) -> ModelError:
        start = f"text beginning {text[:40]!r}"
        if first + which >= len(ids):
            return ModelError(
                f"tokenizer {self._name}: no tokens cover the {start}; its character offsets cannot be used, "
                "try another tokenizer file or a newer 'tokenizers' package"
            )
        row = first + which
        token = self._surfaces.pieces([int(ids[row])])[0]
        left, right = (int(value) for value in chars[row])
        return ModelError(
            f"tokenizer {self._name}: the characters of token {token!r} (number {which} of the {start}) are given as "
            f"{left}:{right} = {text[max(left, 0) : max(right, 0)]!r} and cannot be found; its character offsets "
            "cannot be used, try another tokenizer file or a newer 'tokenizers' package"
        )

    # ------------------------------------------------------------------ checking

    def _wrong(
        self,
        texts: Sequence[str],
        ids: Int[np.ndarray, " tokens"],
        chars: Int[np.ndarray, "tokens 2"],
        bounds: Int[np.ndarray, " n_plus_1"],
    ) -> Int[np.ndarray, " n"]:
        """First token of each text whose range is wrong, or -1 for a text whose ranges are all right.

        Parameters
        ----------
        texts, ids, chars, bounds
            As for `verify`.

        Returns
        -------
        int64 array of shape (texts,)
        """
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        base = offsets_of(lengths)
        owner = segment_ids(bounds)
        start, end = chars[:, 0], chars[:, 1]
        bad = (start < 0) | (end > lengths[owner]) | (start > end)
        same_text = owner[1:] == owner[:-1]
        bad[1:] |= same_text & ((np.diff(start) < 0) | (np.diff(end) < 0))
        points = _code_points(texts)
        usable = np.flatnonzero(~bad)
        at = base[:-1][owner[usable]]
        left, right = at + start[usable], at + end[usable]
        bad[usable] = ~self._fit(points, ids[usable], left, right)
        wrong = np.full(len(texts), -1, dtype=np.int64)
        rows = np.flatnonzero(bad)[::-1]  # backwards, so that the first of a text is written last
        wrong[owner[rows]] = rows - bounds[owner[rows]]
        bare = self._uncovered(points, left, right)
        for place in bare[::-1]:
            number = int(np.searchsorted(base, place, side="right")) - 1
            if wrong[number] < 0:
                inside = chars[bounds[number] : bounds[number + 1], 0]
                wrong[number] = min(np.searchsorted(inside, place - base[number]), max(len(inside) - 1, 0))
        return wrong

    def _fit(
        self,
        points: UInt32[np.ndarray, " chars"],
        ids: Int[np.ndarray, " tokens"],
        left: Int[np.ndarray, " tokens"],
        right: Int[np.ndarray, " tokens"],
    ) -> Bool[np.ndarray, " tokens"]:
        """Whether each token's characters are in its range; every distinct (token, characters) is judged once."""
        low, high = _widened(points, left, right)
        keys = _slice_keys(points, left, right) ^ _mix(ids.astype(np.uint64) + np.uint64(1))
        keys ^= _mix(_slice_keys(points, low, high) + np.uint64(1))
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        tokens = ids[first].tolist()
        cuts, wider = _cut(points, left[first], right[first]), _cut(points, low[first], high[first])
        verdicts = np.array(
            [
                self._surfaces.matches(*judged)
                for judged in zip(tokens, self._surfaces.surfaces(tokens), cuts, wider, strict=True)
            ],
            dtype=bool,
        )
        return np.asarray(verdicts[inverse], dtype=bool)

    def _uncovered(
        self, points: UInt32[np.ndarray, " chars"], left: Int[np.ndarray, " tokens"], right: Int[np.ndarray, " tokens"]
    ) -> Int[np.ndarray, " bare"]:
        """Places of characters that no token covers although a tokenizer must not drop them."""
        steps = np.bincount(left, minlength=len(points) + 1) - np.bincount(right, minlength=len(points) + 1)
        bare = np.flatnonzero(np.cumsum(steps)[: len(points)] <= 0)
        kinds, inverse = np.unique(points[bare], return_inverse=True)
        matters = np.array([not self._surfaces.droppable(chr(code)) for code in kinds.tolist()], dtype=bool)
        return np.asarray(bare[matters[inverse]], dtype=np.int64)

    # ------------------------------------------------------------------ repairing

    def _close_gaps(
        self,
        texts: Sequence[str],
        ids: Int[np.ndarray, " tokens"],
        chars: Int[np.ndarray, "tokens 2"],
        bounds: Int[np.ndarray, " n_plus_1"],
    ) -> Int[np.ndarray, "tokens 2"]:
        """Let empty ranges end where the next one begins (as seen with Llama 3: start right, end equal to it).

        Parameters
        ----------
        texts, ids, chars, bounds
            As for `verify`.

        Returns
        -------
        int64 array of shape (tokens, 2)
        """
        mended = chars.copy()
        if len(ids) == 0:
            return mended
        owner = segment_ids(bounds)
        following = np.append(chars[1:, 0], 0)
        last = np.append(owner[1:] != owner[:-1], True)
        following[last] = np.array([len(text) for text in texts], dtype=np.int64)[owner[last]]
        empty = chars[:, 0] == chars[:, 1]
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        stop = np.clip(np.maximum(following, chars[:, 0]), 0, lengths[owner])
        base = offsets_of(lengths)[:-1][owner]
        solid = _last_solid(_code_points(texts))
        # the blanks before the next token are not this one's, unless it is nothing else
        trimmed = np.maximum(solid[base + stop] - base, np.minimum(chars[:, 0], stop))
        mended[empty, 1] = np.where(trimmed > chars[:, 0], trimmed, stop)[empty]
        return mended

    def _align(
        self,
        texts: Sequence[str],
        ids: Int[np.ndarray, " tokens"],
        chars: Int[np.ndarray, "tokens 2"],
        bounds: Int[np.ndarray, " n_plus_1"],
    ) -> Int[np.ndarray, "tokens 2"]:
        """Find the tokens in the texts anew, from what the tokens themselves say.

        Parameters
        ----------
        texts, ids, chars, bounds
            As for `verify`; the reported ranges are kept where nothing better is found.

        Returns
        -------
        int64 array of shape (tokens, 2)
        """
        mended = chars.copy()
        distinct, inverse = np.unique(ids, return_inverse=True)
        table = self._surfaces.surfaces(distinct.tolist())
        unknown = np.array([token == self._surfaces.unknown for token in distinct.tolist()], dtype=bool)
        for number, text in enumerate(texts):
            rows = slice(int(bounds[number]), int(bounds[number + 1]))
            found = realign(text, [table[kind] for kind in inverse[rows].tolist()], unknown[inverse[rows]])
            if found is not None:
                mended[rows] = found
        return mended


def _code_points(texts: Sequence[str]) -> UInt32[np.ndarray, " chars"]:
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _cut(
    points: UInt32[np.ndarray, " chars"], left: Int[np.ndarray, " slices"], right: Int[np.ndarray, " slices"]
) -> list[str]:
    codes = points.tobytes()
    return [
        codes[4 * low : 4 * high].decode("utf-32-le", "surrogatepass")
        for low, high in zip(left.tolist(), right.tolist(), strict=True)
    ]


def _last_solid(points: UInt32[np.ndarray, " chars"]) -> Int[np.ndarray, " chars_plus_1"]:
    """End of the last character before each place that is not blank; 0 if there is none."""
    kinds, inverse = np.unique(points, return_inverse=True)
    blank = np.array([chr(code).isspace() for code in kinds.tolist()], dtype=bool)[inverse]
    ends = np.where(blank, 0, np.arange(1, len(points) + 1))
    return np.concatenate([[0], np.maximum.accumulate(ends)]).astype(np.int64)


def _widened(
    points: UInt32[np.ndarray, " chars"], left: Int[np.ndarray, " slices"], right: Int[np.ndarray, " slices"]
) -> tuple[Int[np.ndarray, " slices"], Int[np.ndarray, " slices"]]:
    """Widen slices to the combining marks that belong to them; empty slices stay empty."""
    kinds, inverse = np.unique(points, return_inverse=True)
    mark = np.append(np.array([is_mark(chr(code)) for code in kinds.tolist()], dtype=bool)[inverse], False)
    if not mark.any():
        return left, right
    place = np.arange(len(mark))
    before = np.maximum.accumulate(np.where(mark, 0, place))  # nearest place at or before this one that is no mark
    after = np.minimum.accumulate(np.where(mark, len(points), place)[::-1])[::-1]  # and at or after it
    filled = right > left
    return np.where(filled, before[left], left), np.where(filled, after[right], right)


def _mix(values: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Scramble whole numbers so that near ones end up far apart (the finaliser of splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)), dtype=np.uint64)


def _slice_keys(
    points: UInt32[np.ndarray, " chars"], left: Int[np.ndarray, " slices"], right: Int[np.ndarray, " slices"]
) -> UInt64[np.ndarray, " slices"]:
    """64-bit key of every slice ``points[left:right]``; equal slices have equal keys wherever they stand."""
    base = np.uint64(0x5851F42D4C957F2D)
    inverse = np.uint64(pow(int(base), -1, 2**64))
    with np.errstate(over="ignore"):
        powers = np.cumprod(np.concatenate([[np.uint64(1)], np.full(len(points), base)]), dtype=np.uint64)
        undo = np.cumprod(np.concatenate([[np.uint64(1)], np.full(len(points), inverse)]), dtype=np.uint64)
        sums = np.concatenate(
            [[np.uint64(0)], np.cumsum(_mix(points.astype(np.uint64)) * powers[:-1], dtype=np.uint64)]
        )
        return np.asarray(
            _mix((sums[right] - sums[left]) * undo[left]) ^ _mix((right - left).astype(np.uint64)), dtype=np.uint64
        )
