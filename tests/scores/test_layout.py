"""Sentences and grids of tokens: the stated rule by example, and layouts against loops."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from superactivators.data.dataset import ImageSample, TextSample
from superactivators.errors import StudyError
from superactivators.models.backbone import Backbone
from superactivators.models.encoding import Encoding
from superactivators.scores.layout import ABBREVIATIONS, Layout, sentence_starts
from tiny_models import build_checkpoint


def split(text: str) -> list[str]:
    starts = [*sentence_starts(text).tolist(), len(text)]
    return [text[begin:end] for begin, end in itertools.pairwise(starts)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two! Three? Four… Five", ["One. ", "Two! ", "Three? ", "Four… ", "Five"]),
        ("What?! No... Really!!! ok", ["What?! ", "No... ", "Really!!! ", "ok"]),
        ("He said “Stop.” She left.", ["He said “Stop.” ", "She left."]),
        ('"Stop!" (Now.) [Go.] Yes', ['"Stop!" ', "(Now.) ", "[Go.] ", "Yes"]),
        ("line one\nline two\r\nthree", ["line one\n", "line two\r", "\n", "three"]),
        ("Well.\n\nNext", ["Well.", "\n", "\n", "Next"]),
        ("It cost 3.14, or 1.000.000. Cheap", ["It cost 3.14, or 1.000.000. ", "Cheap"]),
        (
            "See e.g. Mr. Smith, i.e. J. R. Smith of the U.S. Army.",
            ["See e.g. Mr. Smith, i.e. J. R. Smith of the U.S. Army."],
        ),
        ("Ask DR. Li vs. Fig. 2. Then go", ["Ask DR. Li vs. Fig. 2. ", "Then go"]),
        ("So do I. You too.", ["So do I. ", "You too."]),
        ("thanks. i love it", ["thanks. ", "i love it"]),
        ("Visit example.org/a?b=c!d now", ["Visit example.org/a?b=c!d now"]),
        ("A drama. Then", ["A drama. ", "Then"]),  # ends in "ma", begins with no abbreviation
        ("你好。再见！「走？」好", ["你好。", "再见！", "「走？」", "好"]),
        ("no end", ["no end"]),
        ("end.", ["end."]),
        ("end. ", ["end. "]),
        ("...", ["..."]),
    ],
)
def test_sentences_by_example(text: str, parts: list[str]) -> None:
    assert split(text) == parts


@pytest.mark.parametrize("word", ABBREVIATIONS)
def test_abbreviations_end_no_sentence_but_longer_words_do(word: str) -> None:
    assert split(f"so {word}. Next") == [f"so {word}. Next"]
    assert split(f"so {word.upper()}. Next") == [f"so {word.upper()}. Next"]
    assert split(f"so xx{word}. Next") == [f"so xx{word}. ", "Next"]
    assert split(f"so {word}! Next") == [f"so {word}! ", "Next"]


texts = st.lists(st.text(alphabet="aI. !?\n…”’)3M r", min_size=1, max_size=24), min_size=1, max_size=6)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(texts, st.integers(0, 10**6))
@example([" a", "a.", "  a"], 0)
@example(["a.\n", "\n a. b"], 1)
def test_tokens_belong_to_the_sentence_of_their_last_character(lines: list[str], seed: int) -> None:
    """Against each text on its own, with random tokens that cover it in order."""
    random = np.random.default_rng(seed)
    chars, lengths, expected = [], [], []
    for line in lines:
        cuts = np.unique(np.concatenate([[0, len(line)], random.integers(0, len(line) + 1, size=5)])).tolist()
        pairs = list(itertools.pairwise(cuts))
        chars += pairs
        lengths.append(len(pairs))
        starts = sentence_starts(line).tolist()
        expected += [sum(start <= end - 1 for start in starts) - 1 for _, end in pairs]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    found = Layout.of_texts(lines, encoding_of(chars, offsets))
    assert found.sentences is not None
    assert found.sentences.tolist() == expected
    assert found.sentences.dtype == np.int32


def encoding_of(chars: list[tuple[int, int]], offsets: np.ndarray) -> Encoding:
    n = len(offsets) - 1
    held = np.array(chars, dtype=np.int32).reshape(-1, 2)
    return Encoding("text", offsets, np.zeros(len(held), np.int32), held, None, None, None, np.zeros(n, np.int32))


def images_of(grids: list[tuple[int, int]], cells: list[list[int]]) -> Encoding:
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in cells])]).astype(np.int64)
    flat = np.array([cell for own in cells for cell in own], dtype=np.int32)
    views = np.zeros((len(grids), 4))
    return Encoding(
        "image", offsets, None, None, np.array(grids, np.int32), flat, views, np.zeros(len(grids), np.int32)
    )


def test_sentences_never_go_down_where_tokens_step_back() -> None:
    encoding = encoding_of([(0, 3), (4, 6), (0, 3), (4, 5)], np.array([0, 4]))
    assert Layout.of_texts(["so. bc"], encoding).sentences.tolist() == [0, 1, 1, 1]  # type: ignore[union-attr]


def test_tokens_of_one_sentence_are_one_run() -> None:
    layout = Layout(np.array([0, 3, 3, 5, 6]), sentences=np.array([0, 0, 1, 1, 1, 0], dtype=np.int32))
    assert layout.sentence_offsets().tolist() == [0, 2, 3, 5, 6]


def test_blocks_and_subsets() -> None:
    text = Layout(np.array([0, 3, 5, 6]), sentences=np.array([0, 0, 1, 0, 2, 0], dtype=np.int32))
    part = text.block(1, 3)
    assert part.offsets.tolist() == [0, 2, 3]
    assert part.sentences is not None
    assert part.sentences.tolist() == [0, 2, 0]
    turned = text.subset(np.array([2, 0]))
    assert turned.offsets.tolist() == [0, 1, 4]
    assert turned.sentences is not None
    assert turned.sentences.tolist() == [0, 0, 0, 1]
    image = Layout.of_images(images_of([(2, 2), (1, 3), (3, 1)], [[0, 1, 3], [2], [0, 1, 2]]))
    part = image.block(1, 3)
    assert part.grids is not None
    assert part.cells is not None
    assert part.grids.tolist() == [[1, 3], [3, 1]]
    assert part.cells.tolist() == [2, 0, 1, 2]
    turned = image.subset(np.array([1]))
    assert (turned.grids.tolist(), turned.cells.tolist()) == ([[1, 3]], [2])  # type: ignore[union-attr]
    with pytest.raises(StudyError, match="no sentences"):
        image.sentence_offsets()


def test_layouts_of_what_a_backbone_encodes(tmp_path: Path) -> None:
    backbone = Backbone.from_pretrained(build_checkpoint("bert", tmp_path / "bert"), device="cpu")
    samples = (TextSample("a", "The quick fox. A lazy dog!"), TextSample("b", "tokens have states"))
    encoding = backbone.encode(samples)
    layout = Layout.of(samples, encoding)
    assert encoding.chars is not None
    assert layout.sentences is not None
    for row, (start, _) in enumerate(encoding.chars.tolist()):
        first = row < encoding.offsets[1]
        assert layout.sentences[row] == int(first and start >= 15)
    assert set(layout.sentences.tolist()) == {0, 1}
    vision = Backbone.from_pretrained(build_checkpoint("dinov2", tmp_path / "dinov2"), device="cpu")
    pictures = (ImageSample("i", np.zeros((40, 60, 3), dtype=np.uint8)),)
    seen = vision.encode(pictures)
    grids = Layout.of(pictures, seen)
    assert grids.sentences is None
    np.testing.assert_array_equal(grids.cells, seen.cells)
    np.testing.assert_array_equal(grids.grids, seen.grids)


def test_layouts_of_something_else_are_refused() -> None:
    encoding = encoding_of([(0, 2), (3, 5)], np.array([0, 2]))
    one, two = TextSample("a", "a. bc"), TextSample("b", "b")
    with pytest.raises(StudyError, match="1 encoded samples needs these, but got 2"):
        Layout.of([one, two], encoding)
    with pytest.raises(StudyError, match="1 encoded texts, but got 2 texts"):
        Layout.of_texts(["a", "b"], encoding)
    with pytest.raises(StudyError, match="text 0 is shorter"):
        Layout.of_texts(["a"], encoding)
    with pytest.raises(StudyError, match="need an encoding of images"):
        Layout.of_images(encoding)
    with pytest.raises(StudyError, match="an encoding of images"):
        Layout.of_texts(["a"], images_of([(1, 1)], [[0]]))
