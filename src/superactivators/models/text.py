"""Texts to model inputs: verified tokens, special ones told apart by the tokenizer itself, long texts in windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Bool, Int, Int32

from superactivators.data.dataset import Modality, Sample, TextSample
from superactivators.errors import DataError, ModelError, StudyError, allowed
from superactivators.models.batching import ForwardBatch, ForwardPass, Layout, plan_batches
from superactivators.models.encoding import Encoding
from superactivators.models.offsets import OffsetChecker
from superactivators.models.quiet import quiet_transformers
from superactivators.models.windows import Windows, windows_of
from superactivators.ragged import offsets_of, rows_of, segment_ids

PaddingSide: TypeAlias = Literal["right", "left"]

LONG_TEXTS = ("window", "truncate", "error")


@final
@dataclass(frozen=True, eq=False)
class _Bodies:
    """Tokens of texts without the special tokens that the tokenizer puts around them.

    Attributes
    ----------
    ids : int32 array of shape (tokens,)
    bounds : int64 array of shape (texts + 1,)
    content : bool array of shape (tokens,)
        False for special tokens that stand in the text itself.
    chars : int64 array of shape (tokens, 2) or None
        As the tokenizer reports them.
    """

    ids: Int32[np.ndarray, " tokens"]
    bounds: Int[np.ndarray, " n_plus_1"]
    content: Bool[np.ndarray, " tokens"]
    chars: Int[np.ndarray, "tokens 2"] | None


@final
class TextReader:
    """Turns texts into tokens and model inputs.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    window : int or None
        Most tokens that the model takes, special ones included; None if there is no limit.
    vocabulary : int
        Number of rows of the model's token embedding.
    long_texts : str
        What becomes of longer texts: overlapping ``"window"`` s, ``"truncate"`` or ``"error"``.
    window_overlap : float
        See `windows_of`.
    position_ids : bool
        Whether padding on the left needs explicit position numbers.
    name : str
        How error messages call the tokenizer.

    Raises
    ------
    StudyError
        If ``long_texts`` or ``window_overlap`` is none of the allowed values.
    ModelError
        If the tokenizer puts its begin-of-text token twice, or the window is too short for any token.
    """

    modality: Modality = "text"

    def __init__(
        self,
        tokenizer: Any,
        *,
        window: int | None,
        vocabulary: int,
        long_texts: str,
        window_overlap: float,
        position_ids: bool,
        name: str,
    ) -> None:
        if long_texts not in LONG_TEXTS:
            raise StudyError(f"unknown long_texts {long_texts!r}; {allowed(long_texts, LONG_TEXTS)}")
        if not 0 <= window_overlap <= 0.9:
            raise StudyError(f"window_overlap is {window_overlap}, but must lie between 0 and 0.9")
        self.tokenizer = tokenizer
        self.window = window
        self.padding_side: PaddingSide = "right"
        self.cls_sees_text = True
        self._vocabulary = vocabulary
        self._long_texts = long_texts
        self._overlap = float(window_overlap)
        self._position_ids = position_ids
        self._name = name
        self._checker = OffsetChecker(tokenizer, name)
        unknown = tokenizer.unk_token_id
        anchors = {getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "cls", "sep", "pad", "mask")}
        special = set(tokenizer.all_special_ids) - ({unknown} - anchors)
        self.special_ids = np.array(sorted(special), dtype=np.int64)
        ids, mask = self._call(["a"], with_chars=False)[:2]
        inner = np.flatnonzero(np.array(mask[0]) == 0)
        first, last = (int(inner[0]), int(inner[-1]) + 1) if len(inner) else (len(ids[0]), len(ids[0]))
        self.prefix = np.array(ids[0][:first], dtype=np.int64)
        self.suffix = np.array(ids[0][last:], dtype=np.int64)
        if len(self.prefix) > 1 and self.prefix[0] == self.prefix[1]:
            raise ModelError(
                f"tokenizer {name}: it begins every text with {self._spell(int(self.prefix[0]))} twice; "
                "set add_bos_token to false in its tokenizer_config.json, or repair its template"
            )
        if window is not None and self.capacity < 1:
            raise ModelError(
                f"tokenizer {name}: a window of {window} tokens leaves no room beside "
                f"{len(self.prefix) + len(self.suffix)} special tokens"
            )

    @property
    def capacity(self) -> int:
        """Most tokens of a text in one forward pass, special ones around it not counted."""
        return (2**31 if self.window is None else self.window) - len(self.prefix) - len(self.suffix)

    @property
    def cls_place(self) -> tuple[str, int] | None:
        """Where the tokenizer puts the CLS token, ``("prefix", i)`` or ``("suffix", i)``; None if it puts none."""
        token = self.tokenizer.cls_token_id
        if token is None or not self.cls_sees_text:
            return None
        for part, ids in (("prefix", self.prefix), ("suffix", self.suffix)):
            if token in ids:
                return part, int(np.flatnonzero(ids == token)[0])
        return None

    def settings(self) -> dict[str, Any]:
        """Everything about it that changes states or tokens, as JSON values."""
        return {
            "long_texts": self._long_texts,
            "window_overlap": self._overlap if self._long_texts == "window" else None,
            "window": self.window,
            "prefix": self.prefix.tolist(),
            "suffix": self.suffix.tolist(),
            "special_ids": self.special_ids.tolist(),
        }

    def _spell(self, token: int) -> str:
        return repr(self.tokenizer.convert_ids_to_tokens(token))

    def _call(
        self, texts: list[str], *, with_chars: bool
    ) -> tuple[list[list[int]], list[list[int]], list[list[tuple[int, int]]] | None]:
        with quiet_transformers():
            given = self.tokenizer(
                texts,
                add_special_tokens=True,
                return_special_tokens_mask=True,
                return_offsets_mapping=with_chars and bool(self.tokenizer.is_fast),
                return_attention_mask=False,
                return_token_type_ids=False,
                padding=False,
                truncation=False,
                verbose=False,
            )
        return given["input_ids"], given["special_tokens_mask"], given.get("offset_mapping")

    def _tokenise(self, samples: Sequence[Sample], *, with_chars: bool) -> _Bodies:
        texts = [_text(sample) for sample in samples]
        try:
            lists, masks, offsets = self._call(texts, with_chars=with_chars)
        except (TypeError, UnicodeEncodeError) as error:
            raise DataError(f"a text cannot be tokenised ({error}); texts must be valid Unicode") from error
        lengths = np.array([len(ids) for ids in lists], dtype=np.int64)
        total = int(lengths.sum())
        everything = offsets_of(lengths)
        ids = np.fromiter(chain.from_iterable(lists), dtype=np.int64, count=total)
        mask = np.fromiter(chain.from_iterable(masks), dtype=np.int64, count=total) != 0
        head, tail = len(self.prefix), len(self.suffix)
        around = [everything[:-1, None] + np.arange(head), everything[1:, None] - tail + np.arange(tail)]
        for rows, expected in zip(around, (self.prefix, self.suffix), strict=True):
            odd = np.flatnonzero((ids[rows] != expected).any(axis=1)) if (lengths >= head + tail).all() else [0]
            if len(odd):
                raise ModelError(
                    f"tokenizer {self._name}: it does not put the same special tokens around every text "
                    f"(sample {samples[int(odd[0])].id!r}); this tokenizer cannot be used"
                )
        keep = np.ones(total, dtype=bool)
        for rows in around:
            keep[rows.ravel()] = False
        body = ids[keep]
        bounds = offsets_of(lengths - head - tail)
        if total and int(ids.max()) >= self._vocabulary:
            raise ModelError(
                f"tokenizer {self._name}: token id {int(ids.max())} is beyond the model's {self._vocabulary} "
                "embeddings; tokenizer and weights do not belong together"
            )
        if head and len(body):
            doubled = (np.diff(bounds) > 0) & (body[np.minimum(bounds[:-1], len(body) - 1)] == self.prefix[-1])
            if doubled.any():
                sample = samples[int(np.flatnonzero(doubled)[0])]
                begin = self._spell(int(self.prefix[-1]))
                raise DataError(
                    f"sample {sample.id!r} begins with {begin}, which the tokenizer puts there anyway, so it would "
                    "come twice; take it out of the text"
                )
        chars = None
        if with_chars:
            chars = np.zeros((len(body), 2), dtype=np.int64)
            if offsets is not None:
                flat = chain.from_iterable(chain.from_iterable(offsets))
                chars = np.fromiter(flat, dtype=np.int64, count=2 * total).reshape(total, 2)[keep]
        content = ~(mask[keep] | np.isin(body, self.special_ids))
        return _Bodies(body.astype(np.int32), bounds, content, chars)

    def encode(self, samples: Sequence[Sample]) -> Encoding:
        """Tokenise texts and verify where their tokens stand.

        Parameters
        ----------
        samples : sequence of TextSample

        Returns
        -------
        Encoding

        Raises
        ------
        DataError
            If a text is blank, begins with the begin-of-text token, or is too long under ``long_texts="error"``.
        ModelError
            If the tokenizer's character offsets are wrong beyond repair.
        """
        bodies = self._tokenise(samples, with_chars=True)
        assert bodies.chars is not None  # noqa: S101
        texts = [_text(sample) for sample in samples]
        chars = self._checker.verify(texts, bodies.ids, bodies.chars, bodies.bounds)
        keep = self._kept(samples, bodies) & bodies.content
        owner = segment_ids(bodies.bounds)
        lengths = np.bincount(owner[keep], minlength=len(samples)).astype(np.int64)
        whole = np.bincount(owner[bodies.content], minlength=len(samples))
        return Encoding(
            modality="text",
            offsets=offsets_of(lengths),
            token_ids=bodies.ids[keep],
            chars=chars[keep],
            grids=None,
            cells=None,
            views=None,
            cut=(whole - lengths).astype(np.int32),
        )

    def _kept(self, samples: Sequence[Sample], bodies: _Bodies) -> Bool[np.ndarray, " tokens"]:
        """Tokens that the model will see under the setting for long texts."""
        lengths = np.diff(bodies.bounds)
        if self._long_texts == "window":
            return np.ones(len(bodies.ids), dtype=bool)
        if self._long_texts == "error" and (lengths > self.capacity).any():
            worst = int(np.argmax(lengths))
            raise DataError(
                f"sample {samples[worst].id!r} has {int(lengths[worst])} tokens, but the model takes {self.capacity}; "
                "shorten it, or set long_texts to 'window' or 'truncate'"
            )
        place = np.arange(len(bodies.ids)) - bodies.bounds[segment_ids(bodies.bounds)]
        return np.asarray(place < self.capacity, dtype=bool)

    def batches(self, samples: Sequence[Sample], encoding: Encoding, max_batch_tokens: int) -> Iterator[ForwardBatch]:
        """Form batches of texts of similar length; every text is in exactly one of them."""
        bodies = self._tokenise(samples, with_chars=False)
        keep = self._kept(samples, bodies)
        if encoding.token_ids is None or not np.array_equal(bodies.ids[keep & bodies.content], encoding.token_ids):
            raise DataError(
                "the encoding does not belong to these samples; pass what encode() made of the same samples"
            )
        lengths = np.bincount(segment_ids(bodies.bounds)[keep], minlength=len(samples))
        around = len(self.prefix) + len(self.suffix)
        windows = [windows_of(int(length), self.capacity, self._overlap) for length in lengths]
        pieces = np.array([len(window.start) for window in windows], dtype=np.int64)
        for rows in plan_batches(np.minimum(lengths, self.capacity) + around, pieces, max_batch_tokens):
            yield ForwardBatch(
                rows=rows,
                offsets=offsets_of(np.diff(encoding.offsets)[rows]),
                passes=self._passes(rows, bodies, windows, max_batch_tokens),
            )

    def _passes(
        self, rows: Int[np.ndarray, " k"], bodies: _Bodies, windows: list[Windows], max_batch_tokens: int
    ) -> list[ForwardPass]:
        """Make the inputs of one batch; only a text of many windows needs more than one pass."""
        chosen = [windows[row] for row in rows]
        counts = np.array([len(window.start) for window in chosen], dtype=np.int64)
        sample = np.repeat(np.arange(len(rows)), counts)
        first = bodies.bounds[rows][sample]
        start = np.concatenate([window.start for window in chosen]) + first
        end = np.concatenate([window.end for window in chosen]) + first
        own_start = np.concatenate([window.own[:-1] for window in chosen]) + first
        own_end = np.concatenate([window.own[1:] for window in chosen]) + first
        width = int((end - start).max()) + len(self.prefix) + len(self.suffix)
        if width == 0:  # no token at all, nothing to run
            return []
        most = max(1, max_batch_tokens // width)

        def numbered() -> Int[np.ndarray, " body"]:
            """Give the number of every content token within the batch, -1 for other tokens and other samples."""
            ends = np.array([window.end[-1] for window in chosen], dtype=np.int64) + bodies.bounds[rows]
            held = rows_of(np.stack([bodies.bounds[rows], ends], axis=1).ravel(), 2 * np.arange(len(rows)))
            held = held[bodies.content[held]]
            number = np.full(len(bodies.ids), -1, dtype=np.int64)
            number[held] = np.arange(len(held))
            return number

        return [
            self._pass(bodies, sample[part], start[part], end[part], own_start[part], own_end[part], numbered)
            for part in (slice(begin, begin + most) for begin in range(0, len(sample), most))
        ]

    def _pass(
        self,
        bodies: _Bodies,
        sample: Int[np.ndarray, " pieces"],
        start: Int[np.ndarray, " pieces"],
        end: Int[np.ndarray, " pieces"],
        own_start: Int[np.ndarray, " pieces"],
        own_end: Int[np.ndarray, " pieces"],
        numbered: Callable[[], Int[np.ndarray, " body"]],
    ) -> ForwardPass:
        head, tail = len(self.prefix), len(self.suffix)
        lengths = end - start + head + tail
        n, width = len(sample), int(lengths.max())
        shift = np.zeros(n, dtype=np.int64) if self.padding_side == "right" else width - lengths
        pad = self.tokenizer.pad_token_id
        ids = np.full((n, width), 0 if pad is None else pad, dtype=np.int64)
        line = np.arange(n)[:, None]
        ids[line, shift[:, None] + np.arange(head)] = self.prefix
        ids[line, (shift + lengths - tail)[:, None] + np.arange(tail)] = self.suffix
        seen = rows_of(np.stack([start, end], axis=1).ravel(), 2 * np.arange(n))
        piece = np.repeat(np.arange(n), end - start)
        ids[piece, shift[piece] + head + seen - start[piece]] = bodies.ids[seen]
        place = np.arange(width)
        mask = (place >= shift[:, None]) & (place < (shift + lengths)[:, None])
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
        if self.padding_side == "left" and self._position_ids:
            inputs["position_ids"] = torch.from_numpy(np.maximum(place - shift[:, None], 0))
        owned = rows_of(np.stack([own_start, own_end], axis=1).ravel(), 2 * np.arange(n))
        owner = np.repeat(np.arange(n), own_end - own_start)
        content = bodies.content[owned]
        owned, owner = owned[content], owner[content]
        cls = None
        if self.cls_place is not None:
            part, number = self.cls_place
            cls = np.arange(n) * width + shift + (number if part == "prefix" else lengths - tail + number)
        layout = Layout(
            rows=owner * width + shift[owner] + head + owned - start[owner],
            counts=np.bincount(owner, minlength=n).astype(np.int64),
            cls=cls,
        )

        def fixed(sequence: int, copies: int = 1) -> Layout:
            if sequence != width:
                raise ModelError(f"{width} tokens went into the model, but states of {sequence} tokens came out")
            return layout.repeated(copies, n * width)

        def shown() -> Int[np.ndarray, "pieces width"]:
            tokens = np.full((n, width), -1, dtype=np.int64)
            tokens[piece, shift[piece] + head + seen - start[piece]] = numbered()[seen]
            return tokens

        return ForwardPass(inputs, fixed, sample, shown)


def _text(sample: Sample) -> str:
    if not isinstance(sample, TextSample):
        raise DataError(f"sample {sample.id!r} is an image, but the model reads texts; choose an image model")
    if not sample.text.strip():
        raise DataError(f"sample {sample.id!r} is blank; leave it out or give it a text")
    return sample.text
