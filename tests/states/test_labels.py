"""Labels of tokens against slow oracles that look at every character and every pixel."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from small_data import picture, write_image
from superactivators.artefacts import MANIFEST
from superactivators.data.dataset import VOID, ConceptDataset, ImageSample, Span, TextSample
from superactivators.errors import DataError, StoreError, StudyError
from superactivators.models.encoding import Encoding
from superactivators.states.labels import Labels, label, labels_fingerprint

quick = settings(derandomize=True, deadline=None, max_examples=60)
CONCEPTS = ("c0", "c1", "c2")

# ------------------------------------------------------------------ texts


def encode_text(chars: list[list[tuple[int, int]]]) -> Encoding:
    """Encoding of texts whose tokens have the given characters."""
    n = [len(part) for part in chars]
    flat = [pair for part in chars for pair in part]
    return Encoding(
        modality="text",
        offsets=np.cumsum([0, *n]).astype(np.int64),
        token_ids=np.zeros(len(flat), dtype=np.int32),
        chars=np.array(flat, dtype=np.int32).reshape(-1, 2),
        grids=None,
        cells=None,
        views=None,
        cut=np.zeros(len(n), dtype=np.int32),
    )


def carries(text: str, token: tuple[int, int], span: Span, rule: str) -> bool:
    """Decide character by character."""
    wanted = set(range(span.start, span.end))
    if rule == "word":
        for place in [place for place in wanted if not text[place].isspace()]:
            for step in (-1, 1):
                at = place
                while 0 <= at < len(text) and not text[at].isspace():
                    wanted.add(at)
                    at += step
    return any(place in wanted and not text[place].isspace() for place in range(*token))


LabelledText = tuple[str, list[tuple[int, int]], list[tuple[int, int, str]], frozenset[str] | None]
alphabet = st.sampled_from(list("abcXYZ.,!éß日本🎉  \t\n\u00a0\u2003\u3000\u200b"))


@st.composite
def labelled_texts(draw: st.DrawFn) -> list[LabelledText]:
    """Text, its tokens, its spans and its labels: plain values, because type checks draw random numbers."""
    made: list[LabelledText] = []
    for _ in range(draw(st.integers(1, 4))):
        text = draw(st.text(alphabet, min_size=1, max_size=24).filter(str.strip))
        edges = sorted(draw(st.lists(st.integers(0, len(text)), max_size=10)))
        tokens = list(itertools.pairwise(edges))  # gaps, blanks, zero width
        if draw(st.booleans()):
            tokens = [token for token in tokens for _ in range(draw(st.integers(1, 2)))]  # bytes of one character
        spans = []
        for _ in range(draw(st.integers(0, 4))):
            start = draw(st.integers(0, len(text) - 1))
            end = draw(st.integers(start + 1, len(text)))
            if text[start:end].strip():
                spans.append((start, end, draw(st.sampled_from([*CONCEPTS, "other"]))))
        made.append((text, tokens, spans, draw(st.none() | st.frozensets(st.sampled_from(CONCEPTS)))))
    return made


@quick
@given(labelled_texts(), st.sampled_from(["overlap", "word"]))
def test_texts_equal_the_oracle(made: list[LabelledText], rule: str) -> None:
    samples = tuple(
        TextSample(f"s{number}", text, tuple(Span(*span) for span in spans), given, "train")
        for number, (text, _, spans, given) in enumerate(made)
    )
    dataset, encoding = ConceptDataset("made", CONCEPTS, samples), encode_text([tokens for _, tokens, _, _ in made])
    assume(dataset.has_token_labels)
    found = label(dataset, encoding, text_rule=rule)  # type: ignore[arg-type]
    assert encoding.chars is not None
    assert found.tokens is not None
    tokens, row = found.tokens.toarray(), 0
    for number, sample in enumerate(dataset.samples):
        assert isinstance(sample, TextSample)
        own = np.zeros((int(np.diff(encoding.offsets)[number]), len(CONCEPTS)), dtype=bool)
        for token in range(len(own)):
            start, end = (int(edge) for edge in encoding.chars[row + token])
            for c, concept in enumerate(CONCEPTS):
                own[token, c] = any(
                    carries(sample.text, (start, end), span, rule) for span in sample.spans if span.concept == concept
                )
        np.testing.assert_array_equal(tokens[row : row + len(own)], own, err_msg=repr(sample))
        expected = own.any(axis=0) if sample.labels is None else [name in sample.labels for name in CONCEPTS]
        np.testing.assert_array_equal(found.samples[number], expected)
        placed = {span.concept for span in sample.spans}
        known = all(name in placed for name in sample.labels or ())
        assert (found.known[row : row + len(own)] == known).all()
        row += len(own)
    assert found.tokens.has_canonical_format
    assert found.tokens.data.all()
    assert found.lost_by_crop == {}


def test_rules_by_example() -> None:
    text = "a  snowy\tday, 東京 はさむ"
    tokens = [(0, 1), (1, 3), (3, 6), (6, 8), (8, 9), (9, 12), (12, 13), (13, 14), (14, 16), (17, 20)]
    dataset = ConceptDataset("made", ("x",), (TextSample("s", text, (Span(5, 9, "x"), Span(15, 17, "x"))),))
    overlap = label(dataset, encode_text([tokens])).tokens
    word = label(dataset, encode_text([tokens]), text_rule="word").tokens
    assert overlap is not None
    assert word is not None
    assert np.flatnonzero(overlap.toarray()[:, 0]).tolist() == [2, 3, 8], "the blank at the end touches no token"
    assert np.flatnonzero(word.toarray()[:, 0]).tolist() == [2, 3, 8], "the tab and the blank end the words"
    longer = replace(dataset, samples=(TextSample("s", text, (Span(9, 11, "x"),)),))
    wide = label(longer, encode_text([tokens]), text_rule="word").tokens
    assert wide is not None
    assert np.flatnonzero(wide.toarray()[:, 0]).tolist() == [5, 6], "the comma belongs to the word"


def test_nothing_is_known_of_tokens_that_nobody_labelled() -> None:
    texts = (TextSample("a", "a fox", labels=frozenset({"c0"})), TextSample("b", "a dog", labels=frozenset()))
    found = label(ConceptDataset("made", CONCEPTS, texts), encode_text([[(0, 1)], [(0, 1), (2, 5)]]))
    assert found.tokens is None
    assert not found.known.any()
    assert found.samples.tolist() == [[True, False, False], [False, False, False]]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"patch_rule": 0.0}, "patch_rule must be 'any' or a share"),
        ({"patch_rule": 1.5}, "patch_rule"),
        ({"patch_rule": float("nan")}, "patch_rule"),
    ],
)
def test_unknown_rules(rules: dict[str, object], says: str) -> None:
    dataset = ConceptDataset("made", ("x",), (TextSample("s", "abc", (Span(0, 1, "x"),)),))
    with pytest.raises(StudyError, match=says):
        label(dataset, encode_text([[(0, 3)]]), **rules)  # type: ignore[arg-type]


# ------------------------------------------------------------------ images

CLASSES = {1: ("c0",), 2: ("c1", "c2"), 3: ("other",), 300: ("c2",)}


def encode_images(views: list[tuple[float, ...]], grids: list[tuple[int, int]], cells: list[list[int]]) -> Encoding:
    """Encoding of images."""
    return Encoding(
        modality="image",
        offsets=np.cumsum([0, *map(len, cells)]).astype(np.int64),
        token_ids=None,
        chars=None,
        grids=np.array(grids, dtype=np.int32),
        cells=np.array([cell for part in cells for cell in part], dtype=np.int32),
        views=np.array(views, dtype=np.float64),
        cut=np.zeros(len(views), dtype=np.int32),
    )


def counts_of_cells(
    mask: np.ndarray, view: tuple[float, ...], grid: tuple[int, int]
) -> tuple[dict[int, dict[str, int]], dict[int, int]]:
    """Count pixel by pixel, in fractions, each cell's pixels of every concept and its labelled pixels."""
    left, top, right, bottom = (Fraction(edge) for edge in view)
    fine = max(1, ceil(2 * max(grid[0] / float(bottom - top), grid[1] / float(right - left))))
    concepts: dict[int, dict[str, int]] = {cell: dict.fromkeys(CONCEPTS, 0) for cell in range(grid[0] * grid[1])}
    labelled = dict.fromkeys(concepts, 0)
    for y in range(mask.shape[0] * fine):
        for x in range(mask.shape[1] * fine):
            row = ((y + Fraction(1, 2)) / fine - top) / (bottom - top) * grid[0]
            column = ((x + Fraction(1, 2)) / fine - left) / (right - left) * grid[1]
            if not (0 <= row < grid[0] and 0 <= column < grid[1]):
                continue
            cell, identity = int(row) * grid[1] + int(column), int(mask[y // fine, x // fine])
            labelled[cell] += identity != VOID
            for name in CLASSES.get(identity, ()):
                if name in CONCEPTS:
                    concepts[cell][name] += 1
    return concepts, labelled


@st.composite
def masks_and_views(draw: st.DrawFn) -> tuple[np.ndarray, tuple[float, ...], tuple[int, int], list[int]]:
    height, width = draw(st.integers(1, 11)), draw(st.integers(1, 11))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    ids = rng.choice([0, 1, 2, 3, VOID, 300], size=(height, width), p=[0.5, 0.15, 0.1, 0.05, 0.15, 0.05])
    # eighths are exact in floating point, so that the oracle's fractions meet the same edges
    eighth = st.integers(-24, 24).map(lambda number: number / 8)
    left, top = draw(eighth), draw(eighth)
    view = (left, top, left + draw(st.integers(4, 120)) / 8, top + draw(st.integers(4, 120)) / 8)
    grid = (draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from([1, 2, 4])))
    cells = [cell for cell in range(grid[0] * grid[1]) if draw(st.integers(0, 4))]  # some are padding
    return ids.astype(np.uint16), view, grid, cells or [0]


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.lists(masks_and_views(), min_size=1, max_size=2), st.sampled_from(["any", 0.25, 0.5, 1.0]))
def test_patches_equal_the_oracle(
    made: list[tuple[np.ndarray, tuple[float, ...], tuple[int, int], list[int]]], rule: str | float
) -> None:
    samples = tuple(
        ImageSample(f"s{number}", picture(mask.shape[1], mask.shape[0]), mask, split="cal")
        for number, (mask, *_) in enumerate(made)
    )
    encoding = encode_images([view for _, view, _, _ in made], [grid for _, _, grid, _ in made], [m[3] for m in made])
    found = label(ConceptDataset("made", CONCEPTS, samples, CLASSES), encoding, patch_rule=rule)  # type: ignore[arg-type]
    assert found.tokens is not None
    tokens, row, lost = found.tokens.toarray(), 0, dict.fromkeys(CONCEPTS, 0)
    for number, (mask, view, grid, cells) in enumerate(made):
        concepts, labelled = counts_of_cells(mask, view, grid)
        for place, cell in enumerate(cells):
            share = 0.0 if rule == "any" else float(rule)
            expected = [0 < concepts[cell][name] >= share * labelled[cell] for name in CONCEPTS]
            assert tokens[row + place].tolist() == expected, (number, cell)
            assert found.known[row + place] == (labelled[cell] > 0)
        own = tokens[row : row + len(cells)]
        np.testing.assert_array_equal(found.samples[number], own.any(axis=0))
        for name in CONCEPTS:
            there = any(name in CLASSES.get(int(identity), ()) for identity in np.unique(mask))
            lost[name] += there and not any(concepts[cell][name] for cell in cells)
        row += len(cells)
    assert found.lost_by_crop == {name: count for name, count in lost.items() if count}


def test_one_pixel_is_enough_on_a_large_image_and_its_neighbours_stay_free() -> None:
    mask = np.zeros((140, 140), dtype=np.uint8)
    mask[69, 70] = 1
    sample = ImageSample("s", picture(140, 140), mask)
    encoding = encode_images([(0.0, 0.0, 140.0, 140.0)], [(10, 10)], [list(range(100))])
    found = label(ConceptDataset("made", CONCEPTS, (sample,), CLASSES), encoding)
    assert found.tokens is not None
    assert np.flatnonzero(found.tokens.toarray()[:, 0]).tolist() == [45]


def test_a_crop_loses_what_it_cuts_off_and_a_share_does_not() -> None:
    mask = np.zeros((8, 16), dtype=np.uint8)
    mask[:, :3], mask[0, 4] = 1, 2
    samples = (ImageSample("s", picture(16, 8), mask), ImageSample("t", picture(16, 8)))
    encoding = encode_images([(4.0, 0.0, 12.0, 8.0)] * 2, [(2, 2)] * 2, [[0, 1, 2, 3]] * 2)
    dataset = ConceptDataset("made", CONCEPTS, samples, CLASSES)
    found = label(dataset, encoding)
    assert found.lost_by_crop == {"c0": 1}
    assert found.samples.tolist() == [[False, True, True], [False, False, False]]
    assert found.known.tolist() == [True] * 4 + [False] * 4, "the second image has no mask"
    strict = label(dataset, encoding, patch_rule=0.5)
    assert strict.lost_by_crop == {"c0": 1}, "too small a share is not lost by the crop"
    assert not strict.samples.any()
    given = replace(dataset, samples=(replace(samples[0], labels=frozenset({"c0"})), samples[1]))
    assert label(given, encoding).samples.tolist() == [[True, False, False], [False, False, False]]


@pytest.mark.parametrize(("identity", "dtype"), [(301, np.uint16), (-1, np.int32), (70_000, np.int32)])
def test_a_mask_id_that_no_class_has(identity: int, dtype: type) -> None:
    sample = ImageSample("s", picture(2, 2), np.full((2, 2), identity, dtype=dtype))
    encoding = encode_images([(0.0, 0.0, 2.0, 2.0)], [(1, 1)], [[0]])
    with pytest.raises(DataError, match=f"sample 's': mask id {identity} is not among the classes"):
        label(ConceptDataset("made", CONCEPTS, (sample,), CLASSES), encoding)


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(6, 4))
    sample = ImageSample("s", tmp_path / "a.png", np.ones((6, 4), dtype=np.uint8))
    encoding = encode_images([(0.0, 0.0, 6.0, 4.0)], [(1, 1)], [[0]])
    with pytest.raises(DataError, match="sample 's': its mask is 4 x 6 pixels, but its image is 6 x 4"):
        label(ConceptDataset("made", CONCEPTS, (sample,), CLASSES), encoding)


# ------------------------------------------------------------------ keeping them


@pytest.fixture
def labels() -> Labels:
    spans = (Span(0, 3, "c0"), Span(4, 7, "c2"))
    texts = (
        TextSample("ä", "one two", spans, None, "train"),
        TextSample("b", "one", labels=frozenset({"c1"}), split="cal"),
        TextSample("c", "one", split="test"),
    )
    found = label(ConceptDataset("made", CONCEPTS, texts), encode_text([[(0, 3), (4, 7)], [(0, 3)], [(0, 3)]]))
    return replace(found, lost_by_crop={"c1": 4})


def equal(first: Labels, second: Labels) -> None:
    assert first.ids == second.ids
    assert first.concepts == second.concepts
    assert first.splits.tolist() == second.splits.tolist()
    assert first.lost_by_crop == second.lost_by_crop
    for name in ("offsets", "samples", "known"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert getattr(first, name).dtype == getattr(second, name).dtype
    assert (first.tokens is None) == (second.tokens is None)
    if first.tokens is not None and second.tokens is not None:
        assert first.tokens.dtype == second.tokens.dtype == bool
        np.testing.assert_array_equal(first.tokens.toarray(), second.tokens.toarray())


def test_round_trip(labels: Labels, tmp_path: Path) -> None:
    labels.save(tmp_path / "labels", "x")
    equal(labels, Labels.load(tmp_path / "labels"))
    bare = replace(labels, tokens=None)
    bare.save(tmp_path / "bare", "x")
    equal(bare, Labels.load(tmp_path / "bare"))


def test_fewer_concepts_in_another_order(labels: Labels) -> None:
    chosen = labels.with_concepts(["c2", "c0"])
    assert labels.tokens is not None
    assert chosen.tokens is not None
    np.testing.assert_array_equal(chosen.tokens.toarray(), labels.tokens.toarray()[:, [2, 0]])
    np.testing.assert_array_equal(chosen.samples, labels.samples[:, [2, 0]])
    assert chosen.concepts == ("c2", "c0")
    assert chosen.lost_by_crop == {}
    assert labels.with_concepts(["c1"]).lost_by_crop == {"c1": 4}


def test_splits(labels: Labels) -> None:
    assert [labels.in_split(split).tolist() for split in ("train", "cal", "test")] == [[0], [1], [2]]


@pytest.mark.parametrize("parameters", [{}, {"concepts": None}, {"concepts": ["c0"]}])
def test_a_manifest_that_was_edited(labels: Labels, tmp_path: Path, parameters: dict[str, object]) -> None:
    labels.save(tmp_path / "labels", "x")
    path = tmp_path / "labels" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"parameters": parameters}))
    with pytest.raises(StoreError, match="labels: its content does not fit the format"):
        Labels.load(tmp_path / "labels")


def test_the_fingerprint_knows_data_encoding_and_rules(labels: Labels) -> None:
    dataset = ConceptDataset("made", CONCEPTS, (TextSample("s", "abc", (Span(0, 1, "c0"),)),))
    marks = {
        labels_fingerprint(dataset, "e", "overlap", "any"),
        labels_fingerprint(dataset, "f", "overlap", "any"),
        labels_fingerprint(dataset, "e", "word", "any"),
        labels_fingerprint(dataset, "e", "overlap", 0.5),
        labels_fingerprint(dataset.with_concepts(["c0"]), "e", "overlap", "any"),
    }
    assert len(marks) == 5
