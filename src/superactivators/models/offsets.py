"""Character ranges of tokens: checked by cutting them out of the text again, repaired where they are wrong.

Some tokenizers report empty or shifted ranges. Nobody notices, because the states are right; only the labels land
on the wrong tokens. Here each range must show the token's own characters, up to what tokenizers legitimately change
(case, accents, compatibility forms, blanks, control characters, the bytes of one character over several tokens), the
ranges must never go back, and together they must cover the text.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, final

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt32, UInt64

from superactivators.errors import ModelError
from superactivators.ragged import offsets_of, rows_of, segment_ids

_BLANK_PIECE = "\u2581"  # the sign with which SentencePiece writes a blank
_FOLDS = 3


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
        self._tokenizer = tokenizer
        self._name = name
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = _component_types(getattr(backend, "decoder", None))
        self._byte_level = "ByteLevel" in decoder
        self._word_piece = "WordPiece" in decoder or hasattr(tokenizer, "wordpiece_tokenizer")
        self._normalizer = getattr(backend, "normalizer", None)
        self._added = set(tokenizer.get_added_vocab().values())
        self._unknown = tokenizer.unk_token_id

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
            some = [texts[number] for number in broken]
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
        token = self._tokenizer.convert_ids_to_tokens(int(ids[row]))
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
        keys = _slice_keys(points, left, right) ^ _mix(ids.astype(np.uint64) + np.uint64(1))
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        pieces = self._tokenizer.convert_ids_to_tokens(ids[first].tolist())
        codes = points.tobytes()
        verdicts = np.array(
            [
                self._matches(token, piece, codes[4 * low : 4 * high].decode("utf-32-le", "surrogatepass"))
                for token, piece, low, high in zip(
                    ids[first].tolist(), pieces, left[first].tolist(), right[first].tolist(), strict=True
                )
            ],
            dtype=bool,
        )
        return np.asarray(verdicts[inverse], dtype=bool)

    def _matches(self, token: int, piece: str, cut: str) -> bool:
        surface = self._surface(token, piece)
        if _is_blank(surface):
            return _is_blank(cut.encode())
        if _is_blank(cut.encode("utf-8", "surrogatepass")):
            return False
        if token == self._unknown and token not in (self._tokenizer.bos_token_id, self._tokenizer.eos_token_id):
            return True
        forms = [cut] if self._normalizer is None else [cut, self._normalizer.normalize_str(cut)]
        if any(_same_or_part(surface, _strip(form)) for form in forms):
            return True
        try:
            word = surface.decode()
        except UnicodeDecodeError:
            return False
        for level in range(_FOLDS):
            folded = _fold(word, level)
            for form in forms:
                whole = _fold(form, level)
                # one character may become several tokens (a fraction sign, a ligature)
                if folded and (folded == whole or (len(_strip(form)) == 1 and folded in whole)):
                    return True
        return False

    def _uncovered(
        self, points: UInt32[np.ndarray, " chars"], left: Int[np.ndarray, " tokens"], right: Int[np.ndarray, " tokens"]
    ) -> Int[np.ndarray, " bare"]:
        """Places of characters that no token covers although a tokenizer must not drop them."""
        steps = np.bincount(left, minlength=len(points) + 1) - np.bincount(right, minlength=len(points) + 1)
        bare = np.flatnonzero(np.cumsum(steps)[: len(points)] <= 0)
        kinds, inverse = np.unique(points[bare], return_inverse=True)
        matters = np.array([not self._droppable(chr(code)) for code in kinds.tolist()], dtype=bool)
        return bare[matters[inverse]]

    def _droppable(self, char: str) -> bool:
        if not _fold(char, 2) or unicodedata.category(char) in ("Cn", "Co", "Cs") or char == "\ufffd":
            return True
        return self._normalizer is not None and not _strip(self._normalizer.normalize_str(char))

    def _surface(self, token: int, piece: str) -> bytes:
        """Bytes of text that a vocabulary entry stands for; a blank before the word is kept."""
        if token in self._added:
            return piece.encode()
        if self._byte_level:
            table = _byte_of_char()
            if all(char in table for char in piece):
                return bytes(table[char] for char in piece)
        if match := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece):
            return bytes([int(match[1], 16)])
        if self._word_piece and len(piece) > 2:
            piece = piece.removeprefix("##")
        return piece.removesuffix("</w>").replace(_BLANK_PIECE, " ").encode("utf-8", "surrogatepass")

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
        mended[empty, 1] = np.maximum(following, chars[:, 0])[empty]
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
        pieces = self._tokenizer.convert_ids_to_tokens(distinct.tolist())
        table = [self._surface(token, piece) for token, piece in zip(distinct.tolist(), pieces, strict=True)]
        unknown = np.array([token == self._unknown and not self._byte_level for token in distinct.tolist()], dtype=bool)
        for number, text in enumerate(texts):
            rows = slice(int(bounds[number]), int(bounds[number + 1]))
            found = _align_text(text, [table[kind] for kind in inverse[rows].tolist()], unknown[inverse[rows]])
            if found is not None:
                mended[rows] = found
        return mended


def _align_text(
    text: str, surfaces: list[bytes], unknown: Bool[np.ndarray, " tokens"]
) -> Int[np.ndarray, "tokens 2"] | None:
    """Ranges of the tokens of one text, or None if the text cannot be made of them.

    The tokens' bytes are joined to a string; joined string and text are compared character by character after folding
    (`_fold`), first strictly, then ever more freely. Unknown tokens say nothing about their characters: the text is cut
    at them, the known stretches are found one after the other, and the unknown tokens take the gaps.
    """
    known = [b"" if mystery else surface for surface, mystery in zip(surfaces, unknown.tolist(), strict=True)]
    edges = offsets_of(np.array([len(piece) for piece in known], dtype=np.int64))
    try:
        joined = b"".join(known).decode()
    except UnicodeDecodeError:
        return None
    of_byte = np.repeat(np.arange(len(joined)), [len(char.encode()) for char in joined])  # byte -> character
    low = np.append(of_byte, len(joined))[edges[:-1]]
    high = np.where(np.diff(edges) > 0, of_byte[np.maximum(edges[1:] - 1, 0)] + 1 if len(joined) else 0, low)
    for level in range(_FOLDS):
        place, width = _folded(joined, level)
        home, _ = _folded(text, level)
        cuts = np.unique(place[low[unknown]])
        where = _find_stretches(_fold(joined, level), _fold(text, level), cuts)
        if where is None:
            continue
        # folded character k of the joined string is folded character where[k] of the text, which is character
        # owner[where[k]] of the text
        owner = np.append(np.repeat(np.arange(len(text)), np.diff(np.append(home, len(_fold(text, level))))), len(text))
        begin, stop = place[low], place[high]
        size = stop - begin
        bottom = np.append(where, len(owner) - 1)
        first = owner[bottom[begin]]
        final_char = owner[bottom[np.maximum(stop - 1, 0)]] + 1
        result = np.stack([first, np.where(size > 0, final_char, first)], axis=1)
        _fill_unknown(text, result, unknown)
        del width
        return result
    return None


def _find_stretches(joined: str, text: str, cuts: Int[np.ndarray, " cuts"]) -> Int[np.ndarray, " folded"] | None:
    """Place in ``text`` of each character of ``joined``, which may be torn apart at ``cuts``; None if it is not there."""
    if len(cuts) == 0:
        return np.arange(len(joined)) if joined == text else None
    where = np.empty(len(joined), dtype=np.int64)
    borders = [0, *cuts.tolist(), len(joined)]
    cursor = 0
    for number, (low, high) in enumerate(zip(borders[:-1], borders[1:], strict=True)):
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


# ---------------------------------------------------------------------- folding and hashing


def _component_types(component: Any) -> set[str]:
    """Type names in a component of a fast tokenizer, nested ones included."""
    if component is None:
        return set()
    state = component.__getstate__()
    return set(re.findall(r'"type":\s*"(\w+)"', state.decode() if isinstance(state, bytes) else json.dumps(state)))


@lru_cache(maxsize=1)
def _byte_of_char() -> dict[str, int]:
    """Which byte each letter of a byte-level vocabulary stands for: printable Latin-1 for itself, the rest from U+0100 on."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(256 + number): byte for number, byte in enumerate(rest)}


@lru_cache(maxsize=65536)
def _fold_char(char: str, level: int) -> str:
    if char.isspace() or char == _BLANK_PIECE:
        return ""
    if level == 0:
        return char
    dropped = ("Cc", "Cf") if level == 1 else ("Cc", "Cf", "Mn", "Me")
    forms = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(part for part in forms if not part.isspace() and unicodedata.category(part) not in dropped)


def _fold(text: str, level: int) -> str:
    """Text without blanks (level 0), without case, compatibility forms and control signs too (1), without accents too (2)."""
    return "".join(_fold_char(char, level) for char in text)


def _folded(text: str, level: int) -> tuple[Int[np.ndarray, " chars_plus_1"], int]:
    """Where each character's share of the folded text begins, and the length of the folded text."""
    edges = offsets_of(np.array([len(_fold_char(char, level)) for char in text], dtype=np.int64))
    return edges, int(edges[-1])


def _strip(text: str) -> str:
    return text.strip().strip(_BLANK_PIECE).strip()


def _is_blank(piece: bytes) -> bool:
    try:
        return not _strip(piece.decode())
    except UnicodeDecodeError:
        return False


def _same_or_part(surface: bytes, cut: str) -> bool:
    """Whether the token is the cut, or holds some of the bytes of the characters at the cut's two ends."""
    whole = cut.encode("utf-8", "surrogatepass")
    part = surface.strip()
    if part == whole:
        return True
    at = whole.find(part) if part and cut else -1
    if at < 0:
        return False
    head, tail = len(cut[0].encode("utf-8", "surrogatepass")), len(cut[-1].encode("utf-8", "surrogatepass"))
    return at < head and len(whole) - at - len(part) < tail


def _code_points(texts: Sequence[str]) -> UInt32[np.ndarray, " chars"]:
    return np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")


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
