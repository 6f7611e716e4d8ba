"""What a vocabulary entry stands for in a text, and when a stretch of text may be called that entry."""

from __future__ import annotations

import json
import re
import unicodedata
from functools import lru_cache
from typing import Any, final

BLANK_PIECE = "\u2581"  # the sign with which SentencePiece writes a blank
FOLD_LEVELS = 4


@final
class TokenSurfaces:
    """The text behind the entries of one tokenizer's vocabulary.

    Parameters
    ----------
    tokenizer : transformers tokenizer

    Attributes
    ----------
    unknown : int or None
        Id of the token for whatever is not in the vocabulary; None if there is no such token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        decoder = _component_types(getattr(backend, "decoder", None))
        self._byte_level = "ByteLevel" in decoder
        self._word_piece = "WordPiece" in decoder or hasattr(tokenizer, "wordpiece_tokenizer")
        self._normalizer = getattr(backend, "normalizer", None)
        self._added = set(tokenizer.get_added_vocab().values())
        # GPT-2 and its kin call their end-of-text token unknown, but bytes are never unknown to them
        self.unknown: int | None = None if self._byte_level else tokenizer.unk_token_id

    def pieces(self, tokens: list[int]) -> list[str]:
        """Vocabulary entries as they are written in the vocabulary."""
        return list(self._tokenizer.convert_ids_to_tokens(tokens))

    def surfaces(self, tokens: list[int]) -> list[bytes]:
        """Bytes of text that each token stands for; a blank before a word is kept."""
        return [self._surface(token, piece) for token, piece in zip(tokens, self.pieces(tokens), strict=True)]

    def _surface(self, token: int, piece: str) -> bytes:
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
        return piece.removesuffix("</w>").replace(BLANK_PIECE, " ").encode("utf-8", "surrogatepass")

    def matches(self, token: int, surface: bytes, cut: str, wider: str) -> bool:
        """Whether a stretch of text shows a token, up to what tokenizers legitimately change.

        Parameters
        ----------
        token : int
        surface : bytes
            What the token stands for.
        cut : str
            The stretch of text.
        wider : str
            The same with the combining marks that belong to its first and last character.

        Returns
        -------
        bool
        """
        if is_blank(surface):
            return not _strip(cut)
        if not _strip(cut):
            return False
        if token == self.unknown:
            return True
        forms = list(dict.fromkeys((cut, wider)))
        if self._normalizer is not None:
            forms += [self._normalizer.normalize_str(form) for form in forms]
        if any(_same_or_part(surface, _strip(form)) for form in forms):
            return True
        try:
            word = surface.decode()
        except UnicodeDecodeError:
            return False
        return any(_same_folded(word, form, level) for level in range(1, FOLD_LEVELS) for form in forms)

    def droppable(self, char: str) -> bool:
        """Whether a tokenizer may leave a character out: blanks, marks, control signs and what it normalises away."""
        if not fold_char(char, 3) or unicodedata.category(char) in ("Cn", "Co", "Cs") or char == "\ufffd":
            return True
        return self._normalizer is not None and not _strip(self._normalizer.normalize_str(char))


def fold(text: str, level: int) -> str:
    """Fold a text character by character; see `fold_char`."""
    return "".join(fold_char(char, level) for char in text)


@lru_cache(maxsize=65536)
def fold_char(char: str, level: int) -> str:
    """Fold one character.

    No blanks (level 0); letters and their marks apart (1); no case, compatibility forms and control signs (2); no
    accents (3).
    """
    if char.isspace() or char == BLANK_PIECE:
        return ""
    if level == 0:
        return char
    if level == 1:
        return unicodedata.normalize("NFD", char)
    dropped = ("Cc", "Cf") if level == 2 else ("Cc", "Cf", "Mn", "Me")
    # marks go first: folding the case of one of them (U+0345) makes a letter of it
    bare = "".join(part for part in unicodedata.normalize("NFKD", char) if unicodedata.category(part) not in dropped)
    forms = unicodedata.normalize("NFKD", bare.casefold())
    return "".join(part for part in forms if not part.isspace() and unicodedata.category(part) not in dropped)


def _same_folded(word: str, cut: str, level: int) -> bool:
    folded, whole = fold(word, level), fold(cut, level)
    # one character may become several tokens (a fraction sign, a ligature)
    return bool(folded) and (folded == whole or (_one_letter(_strip(cut)) and folded in whole))


def _component_types(component: Any) -> set[str]:
    """Type names in a component of a fast tokenizer, nested ones included."""
    if component is None:
        return set()
    state = component.__getstate__()
    return set(re.findall(r'"type":\s*"(\w+)"', state.decode() if isinstance(state, bytes) else json.dumps(state)))


@lru_cache(maxsize=1)
def _byte_of_char() -> dict[str, int]:
    """Which byte each letter of a byte-level vocabulary stands for.

    Printable Latin-1 letters stand for themselves, the other bytes are written with the letters from U+0100 on.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = sorted(set(range(256)) - set(plain))
    return {chr(byte): byte for byte in plain} | {chr(256 + number): byte for number, byte in enumerate(rest)}


def _strip(text: str) -> str:
    return text.strip().strip(BLANK_PIECE).strip()


def _one_letter(cut: str) -> bool:
    """Whether the text is one character, possibly with combining marks."""
    return len(cut) > 0 and all(is_mark(char) for char in cut[1:])


@lru_cache(maxsize=65536)
def is_mark(char: str) -> bool:
    """Whether a character combines with the one before it."""
    return unicodedata.category(char) in ("Mn", "Me")


def is_blank(surface: bytes) -> bool:
    """Whether a token stands for blanks only, or for nothing."""
    try:
        return not _strip(surface.decode())
    except UnicodeDecodeError:
        return False


def _same_or_part(surface: bytes, cut: str) -> bool:
    """Whether the token is the cut, or holds only some of the bytes of the characters at the cut's two ends."""
    whole = cut.encode("utf-8", "surrogatepass")
    part = surface.strip()
    if part == whole:
        return True
    at = whole.find(part) if part and cut else -1
    if at < 0 or _one_letter(cut):
        return at >= 0
    head, tail = len(cut[0].encode("utf-8", "surrogatepass")), len(cut[-1].encode("utf-8", "surrogatepass"))
    return at < head and len(whole) - at - len(part) < tail
