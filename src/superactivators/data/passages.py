"""A built-in demo set of texts: everyday paragraphs in which some sentences carry an emotion."""

from __future__ import annotations

import re
from itertools import accumulate

import numpy as np

from superactivators.data.dataset import SPLITS, ConceptDataset, Span, TextSample
from superactivators.data.phrases import EMOTIONAL, NEUTRAL, SLOTS
from superactivators.errors import DataError, allowed

CONCEPTS = tuple(EMOTIONAL)
_ORDER = (SPLITS[0], SPLITS[1], SPLITS[0], SPLITS[2])
_SHORTEST, _LONGEST = 4, 8


def passages(size: int = 600, seed: int = 0) -> ConceptDataset:
    """Make paragraphs of everyday sentences, some of which carry an emotion.

    A paragraph has four to eight sentences. Most of them are neutral and come from one or two topics; at random
    places among them stand up to two runs, of one or two sentences each, of different emotions. About 15 % of the
    paragraphs carry none. About two in five emotional sentences use plain words for their emotion, the others show it;
    some neutral ones name an emotion that nobody feels.

    The emotional sentences of the three splits come from disjoint templates (see `templates`), so that a detector
    which has learned sentences by heart gains nothing from it on cal or test. Neutral templates and the names, places
    and things in them are shared by all splits. Passage ``i`` depends on ``seed`` and ``i`` only, so that a smaller set
    begins a larger one. Of every four passages two are train, one is cal and one is test.

    Parameters
    ----------
    size : int
        Number of paragraphs.
    seed : int
        Not negative.

    Returns
    -------
    ConceptDataset
        Each run is one span, from its first letter to the mark that ends it; labels are the concepts of the spans.

    Raises
    ------
    DataError
        If ``size`` is not positive or ``seed`` is negative.
    """
    for name, value, least in (("size", size, 1), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"passages: {name} is {value}, but must be at least {least}; give a larger number")
    return ConceptDataset("passages", CONCEPTS, tuple(_passage(seed, index) for index in range(size)))


def templates(emotion: str, split: str) -> tuple[str, ...]:
    """Give the templates from which a split's sentences of one emotion are made.

    Of an emotion's templates every second one belongs to train, the others in turn to cal and to test, whatever the
    seed. ``[a|b]`` stands for one of its alternatives and ``{name}`` for an entry of ``phrases.SLOTS``.

    Raises
    ------
    DataError
        If the emotion or the split is unknown.
    """
    if emotion not in EMOTIONAL:
        raise DataError(f"unknown emotion {emotion!r}; {allowed(emotion, EMOTIONAL)}")
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; {allowed(split, SPLITS)}")
    return tuple(text for number, text in enumerate(EMOTIONAL[emotion]) if _ORDER[number % len(_ORDER)] == split)


def _passage(seed: int, index: int) -> TextSample:
    rng = np.random.default_rng([seed, index])
    split = _ORDER[index % len(_ORDER)]
    cast = tuple(SLOTS["person"][number] for number in rng.permutation(len(SLOTS["person"]))[:2])
    runs: list[tuple[str, list[str]]] = []
    count = int(np.searchsorted((0.15, 0.65), rng.random(), side="right"))
    for number in rng.permutation(len(CONCEPTS))[:count]:
        bank = templates(CONCEPTS[number], split)
        runs.append((CONCEPTS[number], _some(rng, bank, 1 + int(rng.integers(2)))))
    emotional = sum(len(run) for _, run in runs)
    neutral = max(int(rng.integers(_SHORTEST, _LONGEST + 1)) - emotional, 2)
    topics = _some(rng, tuple(NEUTRAL), 1 + int(rng.integers(2)))
    bank = tuple(text for topic in topics for text in NEUTRAL[topic])
    runs += [("", [text]) for text in _some(rng, bank, neutral)]
    runs = [runs[number] for number in rng.permutation(len(runs))]
    pieces = [" ".join(_filled(rng, text, cast) for text in run) for _, run in runs]
    starts = accumulate((len(piece) + 1 for piece in pieces), initial=0)
    spans = tuple(
        Span(start, start + len(piece), concept)
        for start, piece, (concept, _) in zip(starts, pieces, runs, strict=False)
        if concept
    )
    labels = frozenset(span.concept for span in spans)
    return TextSample(f"passage-{index:05d}", " ".join(pieces), spans, labels, split)


def _some(rng: np.random.Generator, bank: tuple[str, ...], count: int) -> list[str]:
    return [bank[number] for number in rng.permutation(len(bank))[:count]]


def _filled(rng: np.random.Generator, template: str, cast: tuple[str, ...]) -> str:
    """Choose among the alternatives of a template and fill its slots; people are the passage's cast of two."""

    def one(options: tuple[str, ...] | list[str]) -> str:
        return options[rng.integers(len(options))]

    text = re.sub(r"\[([^]]*)\]", lambda found: one(found[1].split("|")), template)
    first = int(rng.integers(2))
    people = {"person": cast[first], "other": cast[1 - first]}
    text = re.sub(r"\{(\w+)\}", lambda found: people.get(found[1]) or one(SLOTS[found[1]]), text)
    return text[0].upper() + text[1:]
