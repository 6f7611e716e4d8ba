"""Character ranges of tokens: sound tokenizers pass, broken ones are repaired to the truth or refused."""

from __future__ import annotations

import time
import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tiny_models
from superactivators.errors import ModelError
from superactivators.models.offsets import OffsetChecker
from superactivators.ragged import offsets_of

TOKENIZERS = {
    "word pieces": tiny_models.word_piece_tokenizer(),
    "bytes, trimmed": tiny_models.roberta_tokenizer(),
    "bytes": tiny_models.llama_tokenizer(),
    "bytes, composed": tiny_models.qwen_tokenizer(),
    "sentence pieces": tiny_models.gemma_tokenizer(),
}
BYTES = ("bytes, trimmed", "bytes", "bytes, composed")
TRICKY = [
    "  Leading blanks,\ttabs\t\tand   runs of blanks \n\n at the end  ",
    "Emoji 😀🎉👨‍👩‍👧 next to letters😀x and flags 🇩🇪",
    "Café naïveté Zürich; e\u0301 combining e\u0301\u0323; ﬁne ligatures, ½ €5 ™",
    "日本語の文章 한국어 हिन्दी العربية",
    "soft\u00adhyphen zero\u200bwidth \ufeffmark",
    "I can't 'quote' [it]... <b>3.14</b> http://a.b/c?d=e&f=%20",
    "a",
    "the the the the",
]


def tokenise(name, texts):
    tokenizer = TOKENIZERS[name]
    given = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    ids = np.concatenate([np.array(row, dtype=np.int64) for row in given["input_ids"]])
    chars = np.concatenate([np.array(row, dtype=np.int64).reshape(-1, 2) for row in given["offset_mapping"]])
    return ids, chars, offsets_of(np.array([len(row) for row in given["input_ids"]]))


def words_of(name, texts, chars, bounds, ids):
    """What labels can fall on: letters, numbers, punctuation and symbols of every token."""
    found = []
    for number, text in enumerate(texts):
        for row in range(bounds[number], bounds[number + 1]):
            start, end = chars[row].tolist()
            found.append({place for place in range(start, end) if unicodedata.category(text[place])[0] in "LNPS"})
    return found


@pytest.mark.parametrize("name", TOKENIZERS)
def test_sound_offsets_are_left_as_they_are(name):
    ids, chars, bounds = tokenise(name, TRICKY)
    verified = OffsetChecker(TOKENIZERS[name], name).verify(TRICKY, ids, chars, bounds)
    assert np.array_equal(verified, chars)


BREAKS = {
    "llama 3 (start right, end equal to it)": lambda chars: np.stack([chars[:, 0], chars[:, 0]], axis=1),
    "none at all": lambda chars: np.zeros_like(chars),
    "off by one": lambda chars: np.maximum(chars - 1, 0),
    "beyond the text": lambda chars: chars + 10_000,
    "backwards": lambda chars: chars[::-1].copy(),
    "all negative": lambda chars: chars - 10_000,
}


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_broken_offsets_are_repaired_to_the_sound_ones(name, how):
    texts = [text for text in TRICKY if name in BYTES or "👨" not in text]
    if name == "word pieces":  # its unknown tokens are tested below: their own length is not to be known
        texts = [text for text in texts if 1 not in tokenise(name, [text])[0]]
        assert len(texts) >= 3
    ids, chars, bounds = tokenise(name, texts)
    mended = OffsetChecker(TOKENIZERS[name], name).verify(texts, ids, BREAKS[how](chars), bounds)
    assert words_of(name, texts, mended, bounds, ids) == words_of(name, texts, chars, bounds, ids)


def test_repaired_ranges_end_with_the_token_and_not_with_the_blanks_after_it():
    text = "the  lazy\tdog , and"
    ids, chars, bounds = tokenise("word pieces", [text])
    broken = BREAKS["llama 3 (start right, end equal to it)"](chars)
    mended = OffsetChecker(TOKENIZERS["word pieces"], "word pieces").verify([text], ids, broken, bounds)
    assert np.array_equal(mended, chars)


def test_stacked_marks_are_dropped_even_if_their_case_folds_to_a_letter():
    text = "the d\u0345\u035d\u0322og a\u0345 fox"
    ids, chars, bounds = tokenise("word pieces", [text])
    mended = OffsetChecker(TOKENIZERS["word pieces"], "word pieces").verify([text], ids, np.zeros_like(chars), bounds)
    assert words_of("word pieces", [text], mended, bounds, ids) == words_of("word pieces", [text], chars, bounds, ids)


def test_unknown_tokens_take_the_gaps_between_known_ones():
    text = "the 😀 dog 日本 fox 🎉🎉"
    ids, chars, bounds = tokenise("word pieces", [text])
    assert (ids == 1).sum() >= 3
    checker = OffsetChecker(TOKENIZERS["word pieces"], "word pieces")
    mended = checker.verify([text], ids, np.zeros_like(chars), bounds)
    known = ids != 1
    assert np.array_equal(mended[known], chars[known])
    for start, end in mended[~known].tolist():
        assert not set("thedogfox ") & set(text[start:end].replace(" ", ""))
        assert text[start:end].strip()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_of_another_text_are_refused(name):
    ids, chars, bounds = tokenise(name, ["the quick brown fox"])
    with pytest.raises(ModelError, match=f"tokenizer {name}: .*token") as caught:
        OffsetChecker(TOKENIZERS[name], name).verify(["a lazy dog or so, xx"], ids, np.zeros_like(chars), bounds)
    assert "\n" not in str(caught.value)


def test_a_word_that_no_token_covers_is_noticed():
    ids, chars, bounds = tokenise("bytes", ["the quick brown fox"])
    with pytest.raises(ModelError):
        OffsetChecker(TOKENIZERS["bytes"], "bytes").verify(
            ["the quick brown fox"], ids[:-1], chars[:-1], np.array([0, bounds[1] - 1])
        )
    with pytest.raises(ModelError, match="no tokens cover"):
        OffsetChecker(TOKENIZERS["bytes"], "bytes").verify(["fox"], ids[:0], chars[:0], np.array([0, 0]))


def test_one_broken_text_among_sound_ones_does_not_touch_the_others():
    ids, chars, bounds = tokenise("bytes", TRICKY)
    broken = chars.copy()
    rows = slice(bounds[2], bounds[3])
    broken[rows] = 0
    mended = OffsetChecker(TOKENIZERS["bytes"], "bytes").verify(TRICKY, ids, broken, bounds)
    outside = np.r_[0 : bounds[2], bounds[3] : len(ids)]
    assert np.array_equal(mended[outside], chars[outside])
    assert words_of("bytes", TRICKY, mended, bounds, ids) == words_of("bytes", TRICKY, chars, bounds, ids)


ALPHABET = st.sampled_from([*"aeT. ,'\t\n", "é", "e\u0301", "ß", "😀", "日", "½", "\u200b", "क्", "the ", " dog"])


@settings(max_examples=60, deadline=None)
@example("e\u0301\u200b\u200b", "bytes, composed")
@given(st.lists(ALPHABET, min_size=1, max_size=20).map("".join), st.sampled_from(BYTES))
def test_any_text_survives_the_loss_of_its_offsets(text, name):
    if not text.strip():
        return
    ids, chars, bounds = tokenise(name, [text])
    checker = OffsetChecker(TOKENIZERS[name], name)
    sound = checker.verify([text], ids, chars, bounds)
    mended = checker.verify([text], ids, np.zeros_like(chars), bounds)
    assert words_of(name, [text], sound, bounds, ids) == words_of(name, [text], mended, bounds, ids)
    tokenizer = TOKENIZERS[name]
    for (start, end), token in zip(sound.tolist(), ids.tolist(), strict=True):
        decoded = tokenizer.decode([token])
        composed = name == "bytes, composed" and not unicodedata.is_normalized("NFC", text)
        if "\ufffd" not in decoded and decoded.strip() and not composed:
            assert text[start:end].strip() == decoded.strip()


def test_half_a_million_tokens_are_verified_quickly():
    texts = [" ".join(tiny_models.SENTENCES[:4]) + f" {number}" for number in range(4000)]
    ids, chars, bounds = tokenise("bytes", texts)
    assert len(ids) > 500_000
    checker = OffsetChecker(TOKENIZERS["bytes"], "bytes")
    started = time.process_time()
    assert np.array_equal(checker.verify(texts, ids, chars, bounds), chars)
    assert time.process_time() - started < 6  # about 0.6 s on an idle core
