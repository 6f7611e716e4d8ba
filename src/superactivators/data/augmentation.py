"""Paragraphs in which labelled texts stand among neutral ones, in the manner of the paper's augmented text sets."""

from __future__ import annotations

import sys
import unicodedata
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Any, final

import numpy as np

from superactivators.data.dataset import SPLITS, ConceptDataset, Span, TextSample
from superactivators.errors import DataError, allowed

_KEPT_FIRST = {"test": 0, "cal": 1, "train": 2, None: 3}
"""Of near-duplicates in several splits the one in test stays, so that a published test set is changed least."""
_REASONS = ("too_short", "too_long", "near_duplicates", "over_per_concept")


@final
@dataclass(frozen=True, slots=True)
class SourceText:
    """A short text before it is put into a paragraph.

    Attributes
    ----------
    id : str
        Unique among the texts handed over together.
    text : str
    concepts : frozenset of str
        What the whole text carries; empty for a neutral one.
    split : str or None
        Where the source puts it; None if `augment` is to decide.
    group : str or None
        Document or thread it comes from. `augment` does not use it.
    """

    id: str
    text: str
    concepts: frozenset[str] = frozenset()
    split: str | None = None
    group: str | None = None


@final
@dataclass(frozen=True, eq=False)
class Augmented:
    """Paragraphs, and what became of the texts.

    Attributes
    ----------
    dataset : ConceptDataset
    counts : mapping
        JSON types. ``seed``; ``given`` and ``used`` (different texts, ``labelled`` and ``neutral``); ``dropped``, for
        each of these two by reason: ``too_short``, ``too_long``, ``near_duplicates``, ``over_per_concept`` and, for
        neutral texts, ``not_needed``; ``conflicts``, near-duplicates among the dropped that had other concepts than
        the text that stayed; ``filler_places`` (neutral texts in paragraphs, repeats counted); ``splits``, for each
        the ``paragraphs`` and how many of them hold ``one``, ``two`` or ``none``. Given = used + dropped.
    sources : mapping of str to tuple of str
        Ids of the texts of every paragraph, in order, by sample id.
    """

    dataset: ConceptDataset
    counts: Mapping[str, Any]
    sources: Mapping[str, tuple[str, ...]]


def near_duplicate_key(text: str) -> str:
    """Give what near-duplicates share: the text in lower case, without punctuation, words apart by one blank.

    A text of nothing but punctuation is its own key.

    Examples
    --------
    >>> near_duplicate_key("  Thank you, [NAME]!! ")
    'thank you name'
    """
    plain = " ".join(text.casefold().translate(_punctuation()).split())
    return plain or " ".join(text.split())


def augment(
    labelled: Sequence[SourceText],
    neutral: Sequence[SourceText],
    *,
    seed: int = 0,
    name: str = "augmented",
    concepts: Sequence[str] | None = None,
    two: float = 0.35,
    none: float = 0.10,
    min_filler: int = 3,
    max_filler: int = 6,
    min_words: int = 3,
    max_words: int = 40,
    per_concept: int | None = None,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
) -> Augmented:
    """Embed labelled texts in paragraphs of neutral ones (the paper's augmented sets, made anew).

    1. Whitespace is normalised; texts outside the length limits are dropped, and of near-duplicates (equal
       `near_duplicate_key`) all but one: that of test before cal before train, labelled before neutral, then the
       smallest id.
    2. Texts without a split are shuffled and cut into train, cal and test, separately for each set of concepts, so
       that every split has its share of each. Texts with a split keep it. **No text is in two splits.**
    3. Each split by itself: a paragraph is ``min_filler`` to ``max_filler`` neutral texts with one labelled text, two
       that share no concept, or none, in random order, joined by one blank. Every labelled text is used once. Where
       partners for pairs run out, texts stand alone. A neutral text comes back only after all others of its split
       have been used, and never twice in a paragraph.

    The result depends on the texts and the seed, not on the order of the texts.

    Parameters
    ----------
    labelled, neutral : sequence of SourceText
        With and without concepts; ids unique over both.
    seed : int
        Not negative.
    name : str
        Name of the data set; begins the sample ids.
    concepts : sequence of str, optional
        All concepts, in the order wanted. Left out: those of the texts, in alphabetical order.
    two, none : float
        Shares of the paragraphs with two labelled texts and with none; the rest have one.
    min_filler, max_filler : int
        Neutral texts of a paragraph.
    min_words, max_words : int
        Length limits of a text, in words between blanks.
    per_concept : int, optional
        Most labelled texts of each set of concepts, over all splits; drawn at random.
    fractions : three floats
        Shares of train, cal and test where the source has no splits.

    Returns
    -------
    Augmented
        Spans are whole labelled texts. Sample ids are ``NAME-SPLIT-NUMBER``. All paragraphs of a split are one group,
        since they share neutral texts: whoever makes splits anew moves them as a whole.

    Raises
    ------
    DataError
        If an option is out of range, an id comes twice, a labelled text has no concept or a neutral one has, or a
        split is left without a labelled text or with fewer than ``max_filler`` neutral ones.
    """
    _check_options(seed, two, none, (min_filler, max_filler), (min_words, max_words), per_concept, fractions)
    _check_texts(labelled, neutral, concepts)
    dropped = {kind: dict.fromkeys(_REASONS, 0) for kind in ("labelled", "neutral")}
    kept, conflicts = _pool([*labelled, *neutral], min_words, max_words, dropped)
    kept = _cut(kept, fractions, np.random.default_rng([seed, 0]), per_concept, dropped)
    samples: list[TextSample] = []
    sources: dict[str, tuple[str, ...]] = {}
    splits: dict[str, dict[str, int]] = {}
    for part, split in enumerate(SPLITS):
        texts = [text for text in kept if text.split == split and text.concepts]
        feed = _Feed([text for text in kept if text.split == split and not text.concepts], seed, part)
        _check_split(split, len(texts), len(feed), max_filler, name)
        rng = np.random.default_rng([seed, 1, part])
        groups = _groups(texts, two, none, rng)
        splits[split] = {"paragraphs": len(groups)} | {
            kind: sum(len(group) == size for group in groups) for size, kind in enumerate(("none", "one", "two"))
        }
        for number, group in enumerate(groups):
            pieces = [*group, *feed.take(int(rng.integers(min_filler, max_filler + 1)))]
            pieces = [pieces[place] for place in rng.permutation(len(pieces))]
            sample = _paragraph(f"{name}-{split}-{number:05d}", pieces, split, f"{name}-{split}")
            samples.append(sample)
            sources[sample.id] = tuple(piece.id for piece in pieces)
    used = {piece for pieces in sources.values() for piece in pieces}
    embedded = sum(bool(text.concepts) for text in kept)
    dropped["neutral"]["not_needed"] = len(kept) - len(used)
    counts = {
        "seed": seed,
        "given": {"labelled": len(labelled), "neutral": len(neutral)},
        "used": {"labelled": embedded, "neutral": len(used) - embedded},
        "dropped": dropped,
        "conflicts": conflicts,
        "filler_places": sum(map(len, sources.values())) - embedded,
        "splits": splits,
    }
    columns = tuple(concepts) if concepts is not None else tuple(sorted({c for t in kept for c in t.concepts}))
    return Augmented(ConceptDataset(name, columns, tuple(samples)), counts, sources)


def hold_out(texts: Sequence[SourceText], share: float, seed: int) -> list[SourceText]:
    """Move a share of train to cal, for a source that has a test set but no development set.

    Near-duplicates move together; each set of concepts gives its share. The order of the texts stays and does not
    matter.

    Parameters
    ----------
    texts : sequence of SourceText
        Those in another split than train stay where they are.
    share : float
        Between 0 and 1.
    seed : int

    Returns
    -------
    list of SourceText

    Raises
    ------
    DataError
        If the share is out of range.
    """
    if not 0 < share < 1:
        raise DataError(f"cal_share must be above 0 and below 1; got {share}")
    first: dict[str, SourceText] = {}
    for text in sorted(texts, key=lambda text: text.id):
        if text.split == "train":
            first.setdefault(near_duplicate_key(text.text), replace(text, split=None))
    parts = _cut(list(first.values()), (1 - share, share), np.random.default_rng([seed, 3]), None, {})
    home = {near_duplicate_key(text.text): text.split for text in parts}
    return [
        replace(text, split=home[near_duplicate_key(text.text)]) if text.split == "train" else text for text in texts
    ]


@final
class _Feed:
    """Hands out the neutral texts of a split: all of them in random order, then all again."""

    def __init__(self, texts: list[SourceText], seed: int, part: int) -> None:
        self._texts = texts
        self._rng = np.random.default_rng([seed, 2, part])
        self._left: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._texts)

    def take(self, count: int) -> list[SourceText]:
        """Give ``count`` different texts."""
        chosen = [self._left.popleft() for _ in range(min(count, len(self._left)))]
        if len(chosen) < count:
            again = self._rng.permutation(len(self._texts)).tolist()
            more = [row for row in again if row not in chosen][: count - len(chosen)]
            self._left = deque(row for row in again if row not in more)
            chosen += more
        return [self._texts[row] for row in chosen]


@cache
def _punctuation() -> dict[int, None]:
    return {code: None for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "P"}


def _pool(
    texts: list[SourceText], min_words: int, max_words: int, dropped: dict[str, dict[str, int]]
) -> tuple[list[SourceText], int]:
    """Texts that stay, whitespace normalised, in an order that does not depend on the given one; and conflicts."""
    kept: list[SourceText] = []
    first: dict[str, frozenset[str]] = {}
    conflicts = 0
    for text in sorted(texts, key=lambda text: (_KEPT_FIRST[text.split], not text.concepts, text.id)):
        tally, words = dropped["labelled" if text.concepts else "neutral"], text.text.split()
        if len(words) < min_words:
            tally["too_short"] += 1
        elif len(words) > max_words:
            tally["too_long"] += 1
        elif (key := near_duplicate_key(text.text)) in first:
            tally["near_duplicates"] += 1
            conflicts += first[key] != text.concepts
        else:
            first[key] = text.concepts
            kept.append(replace(text, text=" ".join(words)))
    return kept, conflicts


def _cut(
    texts: list[SourceText],
    fractions: Sequence[float],
    rng: np.random.Generator,
    most: int | None,
    dropped: dict[str, dict[str, int]],
) -> list[SourceText]:
    """Give every text a split, each set of concepts by itself, and keep at most so many labelled texts of each."""
    rows: dict[tuple[str, ...], list[int]] = {}
    for row, text in enumerate(texts):
        rows.setdefault(tuple(sorted(text.concepts)), []).append(row)
    edges = np.cumsum(fractions)[:-1]
    cut: list[SourceText] = []
    for concepts in sorted(rows):
        chosen = [texts[rows[concepts][place]] for place in rng.permutation(len(rows[concepts]))]
        if concepts and most is not None:
            dropped["labelled"]["over_per_concept"] += max(0, len(chosen) - most)
            chosen = chosen[:most]
        # The common shift makes the share of a set too small to be cut right on average.
        count = sum(text.split is None for text in chosen)
        places = (np.arange(count) + rng.random()) / max(count, 1)
        parts = iter(np.searchsorted(edges, places, side="right").tolist())
        cut += [text if text.split is not None else replace(text, split=SPLITS[next(parts)]) for text in chosen]
    return cut


def _groups(texts: list[SourceText], two: float, none: float, rng: np.random.Generator) -> list[tuple[SourceText, ...]]:
    """Labelled texts of every paragraph of a split, in random order."""
    texts = [texts[place] for place in rng.permutation(len(texts))]
    wanted = round(len(texts) * two / (1 - none + two))
    waiting: dict[frozenset[str], deque[int]] = {}
    for row, text in enumerate(texts):
        waiting.setdefault(text.concepts, deque()).append(row)
    groups: list[tuple[SourceText, ...]] = []
    taken: set[int] = set()
    for row, text in enumerate(texts):
        if row in taken:
            continue
        waiting[text.concepts].popleft()
        partner: int | None = None
        if len(taken) < wanted:
            heads = (rows[0] for concepts, rows in waiting.items() if rows and not concepts & text.concepts)
            partner = min(heads, default=None)
        if partner is not None:
            waiting[texts[partner].concepts].popleft()
            taken.add(partner)
            groups.append((text, texts[partner]))
        else:
            groups.append((text,))
    groups += [()] * round(len(groups) * none / (1 - none))
    return [groups[place] for place in rng.permutation(len(groups))]


def _paragraph(identity: str, pieces: list[SourceText], split: str, group: str) -> TextSample:
    starts = accumulate((len(piece.text) + 1 for piece in pieces), initial=0)
    spans = tuple(
        Span(start, start + len(piece.text), concept)
        for start, piece in zip(starts, pieces, strict=False)
        for concept in sorted(piece.concepts)
    )
    labels = frozenset(span.concept for span in spans)
    return TextSample(identity, " ".join(piece.text for piece in pieces), spans, labels, split, group)


def _check_options(
    seed: int,
    two: float,
    none: float,
    filler: tuple[int, int],
    words: tuple[int, int],
    per_concept: int | None,
    fractions: tuple[float, float, float],
) -> None:
    if seed < 0:
        raise DataError(f"augmentation: seed must not be negative; got {seed}")
    if not (two >= 0 and 0 <= none < 1 and two + none <= 1):
        raise DataError(
            f"augmentation: shares must be two >= 0, 0 <= none < 1 and two + none <= 1; got two {two} and none {none}"
        )
    for what, (least, most) in (("filler", filler), ("words", words)):
        if not 1 <= least <= most:
            raise DataError(
                f"augmentation: 1 <= min_{what} <= max_{what} must hold; got min_{what} {least} and max_{what} {most}"
            )
    if per_concept is not None and per_concept < 1:
        raise DataError(f"augmentation: per_concept must be at least 1; got {per_concept}")
    if min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise DataError(f"augmentation: fractions must be three positive numbers that sum to 1; got {fractions}")


def _check_texts(labelled: Sequence[SourceText], neutral: Sequence[SourceText], concepts: Sequence[str] | None) -> None:
    seen: set[str] = set()
    for kind, texts in (("labelled", labelled), ("neutral", neutral)):
        for text in texts:
            if text.id in seen:
                raise DataError(f"augmentation: text id {text.id!r} comes twice; ids must be unique")
            seen.add(text.id)
            if bool(text.concepts) != (kind == "labelled"):
                held = ", ".join(sorted(text.concepts)) or "none"
                raise DataError(f"augmentation: text {text.id!r} was given as {kind}, but its concepts are: {held}")
            if text.split is not None and text.split not in SPLITS:
                raise DataError(
                    f"augmentation: text {text.id!r} is in split {text.split!r}; {allowed(text.split, SPLITS)}"
                )
            for concept in text.concepts if concepts is not None else ():
                if concept not in (concepts or ()):
                    raise DataError(
                        f"augmentation: text {text.id!r} carries {concept!r}; {allowed(concept, concepts or ())}"
                    )


def _check_split(split: str, labelled: int, neutral: int, max_filler: int, name: str) -> None:
    if not labelled:
        raise DataError(
            f"data set {name!r}: no labelled text is left for {split}; give more texts, or widen min_words, max_words"
        )
    if neutral < max_filler:
        raise DataError(
            f"data set {name!r}: {neutral} neutral text(s) are left for {split}, but a paragraph may need "
            f"{max_filler}; give a file of them as filler, or lower max_filler and min_filler"
        )
