"""The composed demo set: spans against an independent reading of the templates, splits, balance, determinism."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from superactivators.data.dataset import SPLITS, ConceptDataset
from superactivators.data.passages import CONCEPTS, passages, templates
from superactivators.data.phrases import EMOTIONAL, NEUTRAL, SLOTS
from superactivators.errors import DataError


@pytest.fixture(scope="module")
def many() -> ConceptDataset:
    return passages(600, seed=0)


def pattern(template: str) -> str:
    """Regular expression of all sentences that a template stands for."""
    slots = SLOTS | {"other": SLOTS["person"]}
    out, rest = "", template
    while rest:
        if rest[0] in "[{":
            close = rest.index("]" if rest[0] == "[" else "}")
            inner = rest[1:close]
            options = map(pattern, inner.split("|")) if rest[0] == "[" else map(re.escape, slots[inner])
            out, rest = f"{out}(?:{'|'.join(options)})", rest[close + 1 :]
        else:
            out, rest = out + re.escape(rest[0]), rest[1:]
    return out


def any_of(bank: tuple[str, ...] | list[str]) -> re.Pattern[str]:
    """Pattern of one sentence from any template of a bank; the first letter of a sentence may be a capital."""
    return re.compile("|".join(f"(?:{pattern(text)})" for text in bank), re.IGNORECASE)


def sentences(text: str) -> list[str]:
    return re.split(r'(?<=[.!?]) (?=["A-Z])', text)


ALL_NEUTRAL = [text for bank in NEUTRAL.values() for text in bank]


def variants(template: str) -> int:
    """How many sentences a template stands for, slots not counted."""
    return int(np.prod([len(choice.split("|")) for choice in re.findall(r"\[([^]]*)\]", template)]))


def test_the_bank_is_large_and_well_formed() -> None:
    assert len(CONCEPTS) == 8
    assert len(ALL_NEUTRAL) >= 80
    every = ALL_NEUTRAL + [text for bank in EMOTIONAL.values() for text in bank]
    assert len(set(every)) == len(every)
    for text in every:
        assert text[-1] in ".!?"
        assert sentences(text) == [text], "one sentence each"
        assert not re.search(r"[ ]{2}|\[\||\|\]|\|\|| [.,;!?]|\t|\n", text), text
        assert text.count("[") == text.count("]")
        assert set(re.findall(r"\{(\w+)\}", text)) <= {*SLOTS, "other"}
        assert "[" not in text or variants(text) > 1
        if "{other}" in text:
            assert "{person}" in text or text.count("{other}") == 1
    for emotion, bank in EMOTIONAL.items():
        assert len(bank) >= 56, emotion
        assert sum(map(variants, bank)) >= 150, emotion


def test_fillers_keep_articles_right_and_double_no_word(many: ConceptDataset) -> None:
    for text in [sample.text for sample in (*many.samples, *passages(600, seed=3).samples)]:
        assert not re.search(r"\ba (?!one|uni|use)[aeiou]", text, re.IGNORECASE), text
        assert not re.search(r"\ban (?!hour)[^aeiou8]", text, re.IGNORECASE), text
        assert not re.search(r"\b(\w+) \1\b", text), text


def test_every_split_names_its_emotions_about_as_often() -> None:
    stems = {
        "joy": "joy|overjoy|happ|cheer|delight|merr|glad|thrill|hooray",
        "sadness": "sad|griev|grief|sorrow|miser|heartbr|lonel|unhapp|cried|cry|mourn",
        "anger": "anger|angry|furious|rage|livid|outrage|fed up|mad ",
        "fear": "fear|afraid|terrif|dread|panic|scare|fright",
        "gratitude": "grat|thank|appreciat",
        "surprise": "surpris|astonish|disbelief|unexpected|expect|shock|amaz|did not see",
        "disgust": "disgust|revol|revul|foul|gross|vile|nauseat|sicken",
        "love": "love|loving|adore|darling|sweetheart",
    }
    for emotion in EMOTIONAL:
        for split in SPLITS:
            bank = templates(emotion, split)
            naming = [bool(re.search(rf"\b(?:{stems[emotion]})", text, re.IGNORECASE)) for text in bank]
            assert 0.25 <= np.mean(naming) <= 0.55, (emotion, split)
    neutral = " ".join(ALL_NEUTRAL).lower()
    assert sum(bool(re.search(rf"\b(?:{words})", neutral)) for words in stems.values()) >= 6


def test_spans_are_exactly_the_emotional_sentences(many: ConceptDataset) -> None:
    neutral = any_of(ALL_NEUTRAL)
    by_emotion = {emotion: any_of(bank) for emotion, bank in EMOTIONAL.items()}
    for sample in many.samples:
        covered = np.zeros(len(sample.text), dtype=int)
        for span in sample.spans:
            run = sample.text[span.start : span.end]
            covered[span.start : span.end] += 1
            assert run == run.strip()
            assert span.start == 0 or sample.text[span.start - 2 : span.start] in (". ", "! ", "? ")
            assert span.end == len(sample.text) or sample.text[span.end] == " "
            assert 1 <= len(sentences(run)) <= 2
            assert all(by_emotion[span.concept].fullmatch(sentence) for sentence in sentences(run)), run
        assert covered.max() <= 1
        start = 0
        for sentence in sentences(sample.text):
            inside = covered[start : start + len(sentence)]
            assert inside.min() == inside.max(), "no span ends within a sentence"
            if not inside.any():
                assert neutral.fullmatch(sentence), sentence
            start += len(sentence) + 1
        assert 4 <= len(sentences(sample.text)) <= 8
        assert len({span.concept for span in sample.spans}) == len(sample.spans) <= 2
        assert sample.labels == {span.concept for span in sample.spans}
        assert sum(not covered[i] for i in range(len(covered))) > 40, "some neutral text is left"
        assert len(set(sentences(sample.text))) == len(sentences(sample.text))


def test_the_emotional_templates_of_the_splits_are_disjoint(many: ConceptDataset) -> None:
    for emotion, bank in EMOTIONAL.items():
        parts = [templates(emotion, split) for split in SPLITS]
        assert sorted(text for part in parts for text in part) == sorted(bank)
        assert [len(part) for part in parts] == [28, 14, 14]
    own = {(emotion, split): any_of(templates(emotion, split)) for emotion in CONCEPTS for split in SPLITS}
    used: Counter[tuple[str, str]] = Counter()
    for sample in many.samples:
        for span in sample.spans:
            for sentence in sentences(sample.text[span.start : span.end]):
                matches = [key for key, known in own.items() if known.fullmatch(sentence)]
                assert matches == [(span.concept, sample.split)], sentence
                used[matches[0]] += 1
    assert min(used[key] for key in own) >= 10


def test_names_places_and_things_do_not_give_emotions_away() -> None:
    for text in [text for bank in EMOTIONAL.values() for text in bank]:
        assert not set(re.findall(r"\w+", text)) & set(SLOTS["person"]), "people come from the shared slot"
    for slot in ("person", "place", "time"):
        assert any(f"{{{slot}}}" in text for text in ALL_NEUTRAL)


def test_emotions_are_balanced(many: ConceptDataset) -> None:
    labels, known = many.given_labels()
    assert known.all()
    assert 0.10 < (~labels.any(axis=1)).mean() < 0.20
    assert 0.08 < labels.mean(axis=0).min() <= labels.mean(axis=0).max() < 0.22
    for split in ("cal", "test"):
        assert labels[many.splits == split].sum(axis=0).min() >= 10
    places = [span.start / len(sample.text) for sample in many.samples for span in sample.spans]
    assert 0.3 < np.mean(places) < 0.5, "runs stand anywhere in the text"
    assert min(places) == 0


def test_passages_are_the_same_every_time_and_smaller_sets_begin_larger_ones(many: ConceptDataset) -> None:
    again, few, other = passages(600, seed=0), passages(7, seed=0), passages(600, seed=1)
    assert many.fingerprint == again.fingerprint != other.fingerprint
    assert many.subset(range(7)).fingerprint == few.fingerprint
    assert len({sample.text for sample in many.samples}) == 600
    assert many.ids[:2] == ["passage-00000", "passage-00001"]
    for index, sample in enumerate(many.samples):
        assert sample.split == ("train", "cal", "train", "test")[index % 4]


@pytest.mark.parametrize(("arguments", "named"), [((0,), "size"), ((-1,), "size"), ((1, -1), "seed")])
def test_numbers_out_of_range_are_refused(arguments: tuple[int, ...], named: str) -> None:
    with pytest.raises(DataError, match=rf"{named} is -?\d+, but must be at least"):
        passages(*arguments)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(DataError, match="did you mean 'anger'"):
        templates("angr", "train")
    with pytest.raises(DataError, match="Known: cal, test, train"):
        templates("anger", "dev")
