"""Labelled texts among neutral ones: no text in two splits, spans that hold, counts that add up."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from superactivators.data.augmentation import Augmented, SourceText, augment, hold_out, near_duplicate_key
from superactivators.data.dataset import SPLITS, TextSample
from superactivators.data.filler import read_augmented, read_filler, single_texts
from superactivators.data.splits import ensure_splits, make_splits
from superactivators.errors import DataError, StoreError


def texts(
    number: int, concepts: tuple[str, ...] = (), kind: str = "l", split: str | None = None, words: int = 4
) -> list[SourceText]:
    """Different texts of one kind."""
    return [
        SourceText(f"{kind}{row:04d}", f"{kind} " * (words - 1) + f"{kind}{row}", frozenset(concepts), split)
        for row in range(number)
    ]


def mixture(joy: int = 40, anger: int = 30, sad: int = 20, neutral: int = 80) -> tuple[list[SourceText], ...]:
    labelled = texts(joy, ("joy",), "j") + texts(anger, ("anger",), "a") + texts(sad, ("sad",), "s")
    return labelled, texts(neutral, (), "n")


def check(made: Augmented, given: list[SourceText], least: int = 3, most: int = 6) -> None:
    """Everything that must hold of any augmented set, by plain loops over its texts."""
    origin = {text.id: text for text in given}
    assert set(made.sources) == set(made.dataset.ids)
    home: dict[str, str] = {}
    keys: dict[str, str] = {}
    labelled: Counter[str] = Counter()
    neutral: Counter[str] = Counter()
    shapes: dict[str, Counter[int]] = {split: Counter() for split in SPLITS}
    for sample in made.dataset.samples:
        assert isinstance(sample, TextSample)
        assert sample.split is not None
        pieces = [origin[identity] for identity in made.sources[sample.id]]
        assert sample.text == " ".join(" ".join(piece.text.split()) for piece in pieces)
        expected, at = [], 0
        for piece in pieces:
            whole = " ".join(piece.text.split())
            at = sample.text.index(whole, at)
            expected += [(at, at + len(whole), concept) for concept in sorted(piece.concepts)]
            at += len(whole) + 1
        assert [(span.start, span.end, span.concept) for span in sample.spans] == expected
        assert sample.labels == {concept for piece in pieces for concept in piece.concepts}
        held = [piece for piece in pieces if piece.concepts]
        if len(held) == 2:
            assert not held[0].concepts & held[1].concepts
        shapes[sample.split][len(held)] += 1
        filler = [piece.id for piece in pieces if not piece.concepts]
        assert least <= len(filler) <= most
        assert len(set(filler)) == len(filler)
        for piece in pieces:
            assert home.setdefault(piece.id, sample.split) == sample.split
            assert piece.split in (None, sample.split)
            key = near_duplicate_key(piece.text)
            assert keys.setdefault(key, piece.id) == piece.id
        labelled.update(piece.id for piece in held)
        neutral.update(filler)
    assert set(labelled.values()) == {1}
    counts = made.counts
    assert json.loads(json.dumps(counts)) == counts
    for kind, used in (("labelled", labelled), ("neutral", neutral)):
        assert counts["used"][kind] == len(used)
        assert counts["given"][kind] == len(used) + sum(counts["dropped"][kind].values())
    assert counts["filler_places"] == sum(neutral.values())
    for split in SPLITS:
        shape = shapes[split]
        assert set(shape) <= {0, 1, 2}
        assert counts["splits"][split] == {
            "paragraphs": sum(shape.values()),
            "none": shape[0],
            "one": shape[1],
            "two": shape[2],
        }
        # Within a split neutral texts come in rounds: none a second time before all others came once.
        times = [neutral[identity] for identity in home if home[identity] == split and identity in neutral]
        assert max(times) - min(times) <= 1
    ensure_splits(made.dataset)


def same(one: Augmented, other: Augmented) -> bool:
    return one.dataset.fingerprint == other.dataset.fingerprint and one.sources == other.sources


WORDS = st.sampled_from(["Tea", "tea!", "cup", "rain", "rain.", "go", "It's", "its", "☀️", "  now", "x\ty", "¿qué?"])
TEXT = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[SourceText], list[SourceText], dict[str, Any]]:
    """Enough plain texts for every split, and arbitrary ones with near-duplicates and splits of their own."""
    labelled, neutral = mixture(9, 9, 6, 40)
    for split in SPLITS:  # each split gets something whatever the cut
        labelled += texts(2, ("joy",), f"own{split}", split)
        neutral += texts(6, (), f"more{split}", split)
    sets = st.sets(st.sampled_from(["joy", "anger", "sad"]), max_size=2)
    given_splits = st.sampled_from([None, None, *SPLITS])
    for row, (text, concepts, split) in enumerate(draw(st.lists(st.tuples(TEXT, sets, given_splits), max_size=25))):
        (labelled if concepts else neutral).append(SourceText(f"x{row:03d}", text, frozenset(concepts), split))
    two, none = draw(st.sampled_from([(0.35, 0.1), (0.0, 0.5), (0.9, 0.1), (0.0, 0.0), (1.0, 0.0), (0.5, 0.25)]))
    return labelled, neutral, {"two": two, "none": none, "per_concept": draw(st.sampled_from([None, None, 8]))}


@settings(deadline=None, max_examples=60)
@given(corpora(), st.integers(0, 3), st.randoms(use_true_random=False))
def test_what_always_holds(corpus: tuple[Any, Any, Any], seed: int, rnd: Any) -> None:
    labelled, neutral, options = corpus
    made = augment(labelled, neutral, seed=seed, **options)
    check(made, [*labelled, *neutral])
    rnd.shuffle(labelled)
    rnd.shuffle(neutral)
    assert same(augment(labelled, neutral, seed=seed, **options), made)
    assert not same(augment(labelled, neutral, seed=seed + 1, **options), made)


def test_shares_of_paragraphs_and_of_filler() -> None:
    labelled, neutral = mixture(400, 300, 300, 900)
    made = augment(labelled, neutral)
    check(made, [*labelled, *neutral])
    for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
        counts = made.counts["splits"][split]
        total = counts["paragraphs"]
        # 0.55 p + 2 * 0.35 p = labelled texts
        assert abs(total - 1000 * share / 1.25) <= 2
        for kind, part in (("one", 0.55), ("two", 0.35), ("none", 0.10)):
            assert abs(counts[kind] - part * total) <= 2
    filler = Counter(sum(piece.startswith("n") for piece in pieces) for pieces in made.sources.values())
    assert set(filler) == {3, 4, 5, 6}
    assert min(filler.values()) > 0.8 * len(made.sources) / 4
    assert made.dataset.name == "augmented"
    assert made.dataset.ids[0] == "augmented-train-00000"
    assert {sample.group for sample in made.dataset.samples} == {f"augmented-{split}" for split in SPLITS}


def test_labelled_texts_stand_anywhere_and_pairs_mix_concepts() -> None:
    labelled, neutral = mixture(400, 300, 300, 900)
    made = augment(labelled, neutral, min_filler=3, max_filler=3, two=0.0, none=0.0)
    places = Counter(
        next(place for place, piece in enumerate(pieces) if not piece.startswith("n"))
        for pieces in made.sources.values()
    )
    assert set(places) == {0, 1, 2, 3}
    assert min(places.values()) > 190  # of 1000, 250 expected
    pairs = Counter(
        tuple(sorted(sample.labels or ())) for sample in augment(labelled, neutral, two=1.0, none=0.0).dataset.samples
    )
    assert set(pairs) >= {("anger", "joy"), ("joy", "sad"), ("anger", "sad")}


def test_every_split_gets_its_share_of_each_concept() -> None:
    labelled, neutral = mixture(100, 11, 7, 200)
    made = augment(labelled, neutral, seed=5)
    for concept, total in (("joy", 100), ("anger", 11), ("sad", 7)):
        for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
            held = sum(
                span.concept == concept
                for sample in made.dataset.samples
                if sample.split == split and isinstance(sample, TextSample)
                for span in sample.spans
            )
            assert abs(held - share * total) <= 1


def test_a_concept_too_rare_to_cut_is_placed_by_chance() -> None:
    labelled, neutral = mixture(30, 30, 1, 60)
    found = Counter(
        next(sample.split for sample in augment(labelled, neutral, seed=seed).dataset.samples if "sad" in sample.labels)
        for seed in range(60)
    )
    assert set(found) == set(SPLITS)
    assert 22 <= found["train"] <= 50


def test_which_near_duplicate_stays() -> None:
    labelled, neutral = mixture()
    more = [
        SourceText("z1", "Good  old\ttimes!", frozenset({"joy"}), "train"),
        SourceText("z2", "good old times", frozenset({"anger"}), "test"),
        SourceText("z3", "Are we there?", frozenset({"sad"})),
        SourceText("z4", "are we THERE", frozenset({"sad"})),
    ]
    plain = [SourceText("z0", "are we there…", frozenset()), SourceText("z9", "Nice old hat", frozenset(), "cal")]
    made = augment([*labelled, *more], [*neutral, *plain])
    used = {piece for pieces in made.sources.values() for piece in pieces}
    assert used & {"z0", "z1", "z2", "z3", "z4", "z9"} == {"z2", "z3", "z9"}
    assert made.counts["conflicts"] == 2  # z1 against z2, z0 against z3
    assert made.counts["dropped"]["labelled"]["near_duplicates"] == 2
    assert made.counts["dropped"]["neutral"]["near_duplicates"] == 1
    split = {piece: sample.split for sample in made.dataset.samples for piece in made.sources[sample.id]}
    assert (split["z2"], split["z9"]) == ("test", "cal")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Thank you, [NAME]!! ", "thank you name"),
        ("It's — well…  OK", "its well ok"),
        ("STRASSE Straße", "strasse strasse"),
        ("lol 😂", "lol 😂"),
        ("?! …", "?! …"),
        ("«¿Qué?»", "qué"),
    ],
)
def test_near_duplicate_keys(text: str, key: str) -> None:
    assert near_duplicate_key(text) == key


def test_lengths_are_counted_in_words_and_limits_are_kept() -> None:
    labelled, neutral = mixture()
    edge = [SourceText(f"e{n}", " ".join(f"w{n}x{i}" for i in range(n)), frozenset({"joy"})) for n in (2, 3, 40, 41)]
    made = augment([*labelled, *edge], neutral)
    used = {piece for pieces in made.sources.values() for piece in pieces}
    assert used & {"e2", "e3", "e40", "e41"} == {"e3", "e40"}
    dropped = made.counts["dropped"]["labelled"]
    assert (dropped["too_short"], dropped["too_long"]) == (1, 1)


def test_a_single_concept_has_no_pairs_and_pairs_end_with_their_partners() -> None:
    made = augment(texts(50, ("joy",), "j"), texts(40, (), "n"), two=0.4, none=0.2)
    assert made.counts["splits"]["train"] == {"paragraphs": 38, "none": 8, "one": 30, "two": 0}
    made = augment(texts(50, ("joy",), "j") + texts(5, ("sad",), "s"), texts(40, (), "n"), two=0.4, none=0.2)
    assert made.counts["splits"]["train"]["two"] == 3
    assert made.counts["splits"]["train"]["one"] == 27


def test_texts_of_several_concepts_have_a_span_of_each() -> None:
    labelled = texts(20, ("joy", "sad"), "b") + texts(20, ("anger",), "a")
    made = augment(labelled, texts(40, (), "n"))
    check(made, [*labelled, *texts(40, (), "n")])
    assert made.dataset.concepts == ("anger", "joy", "sad")


def test_the_most_of_each_concept() -> None:
    labelled, neutral = mixture(40, 30, 20, 80)
    made = augment(labelled, neutral, per_concept=25)
    check(made, [*labelled, *neutral])
    spans = Counter(span.concept for sample in made.dataset.samples for span in sample.spans)  # type: ignore[union-attr]
    assert spans == {"joy": 25, "anger": 25, "sad": 20}
    assert made.counts["dropped"]["labelled"]["over_per_concept"] == 20


def test_concepts_in_the_order_wanted() -> None:
    labelled, neutral = mixture()
    assert augment(labelled, neutral).dataset.concepts == ("anger", "joy", "sad")
    order = ("sad", "joy", "anger", "fear")
    assert augment(labelled, neutral, concepts=order).dataset.concepts == order


def test_new_splits_move_whole_splits() -> None:
    made = augment(*mixture())
    again = make_splits(made.dataset, seed=3)
    pairs = {(old.split, new.split) for old, new in zip(made.dataset.samples, again.samples, strict=True)}
    assert len(pairs) == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": -1}, "seed must not be negative; got -1"),
        ({"two": 0.8, "none": 0.3}, "two \\+ none <= 1; got two 0.8 and none 0.3"),
        ({"two": 0.0, "none": 1.0}, "none < 1"),
        ({"two": -0.1}, "two >= 0"),
        ({"two": float("nan")}, "got two nan"),
        ({"min_filler": 0}, "1 <= min_filler <= max_filler must hold; got min_filler 0 and max_filler 6"),
        ({"min_filler": 7}, "got min_filler 7"),
        ({"min_words": 41}, "1 <= min_words <= max_words"),
        ({"per_concept": 0}, "per_concept must be at least 1; got 0"),
        ({"fractions": (0.5, 0.5, 0.0)}, "three positive numbers that sum to 1"),
        ({"fractions": (0.5, 0.3, 0.3)}, "three positive numbers that sum to 1"),
        ({"concepts": ["joy", "anger"]}, "carries 'sad'; Known: anger, joy"),
        ({"max_filler": 17}, "16 neutral text.s. are left for cal, but a paragraph may need 17; give a file"),
        ({"min_words": 5}, "no labelled text is left for train"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        augment(*mixture(), **options)
    assert "\n" not in str(caught.value)


def test_texts_that_are_refused() -> None:
    labelled, neutral = mixture()
    with pytest.raises(DataError, match="text id 'j0000' comes twice"):
        augment([*labelled, labelled[0]], neutral)
    with pytest.raises(DataError, match="'n0000' was given as labelled, but its concepts are: none"):
        augment([*labelled, neutral[0]], neutral[1:])
    with pytest.raises(DataError, match="'j0000' was given as neutral, but its concepts are: joy"):
        augment(labelled[1:], [*neutral, labelled[0]])
    with pytest.raises(DataError, match=r"in split 'dev'; .*Known: cal, test, train"):
        augment([*labelled, SourceText("d", "a b c d", frozenset({"joy"}), "dev")], neutral)
    with pytest.raises(DataError, match="no labelled text is left for cal"):
        augment(texts(9, ("joy",), "j", "train"), neutral)


# ------------------------------------------------------------------ a part of train held out


def test_a_part_of_train_is_held_out() -> None:
    given = texts(40, ("joy",), "j", "train") + texts(80, (), "n", "train") + texts(12, ("joy",), "t", "test")
    double = [SourceText(f"d{row}", f"Same text, again {row % 3}!", frozenset(), "train") for row in range(9)]
    made = hold_out([*given, *double], 0.25, seed=1)
    assert [text.id for text in made] == [text.id for text in [*given, *double]]
    split = {text.id: text.split for text in made}
    assert sum(split[f"j{row:04d}"] == "cal" for row in range(40)) == 10
    assert 20 <= sum(split[text.id] == "cal" for text in made if not text.concepts and text.split != "test") <= 25
    assert all(split[f"t{row:04d}"] == "test" for row in range(12))
    assert all(split[f"d{row}"] == split[f"d{row % 3}"] for row in range(9))
    shuffled = [([*given, *double])[row] for row in np.random.default_rng(0).permutation(len(made))]
    assert {text.id: text.split for text in hold_out(shuffled, 0.25, seed=1)} == split
    assert {text.id: text.split for text in hold_out(shuffled, 0.25, seed=2)} != split
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(DataError, match="cal_share must be above 0 and below 1"):
            hold_out(given, share, 0)


# ------------------------------------------------------------------ filler from a file, reports, single texts


def test_filler_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    lines = ["\ufeffThe first line is here", "", "One with a\u2028strange sign", "  "] + [
        f"Plain line number {n}" for n in range(40)
    ]
    path.write_bytes("\r\n".join(lines).encode())
    read = read_filler(path)
    assert [text.id for text in read[:3]] == ["line-000001", "line-000003", "line-000005"]
    assert read[0].text.strip() == "The first line is here"
    labelled, neutral = mixture()
    report = tmp_path / "counts.json"
    made = read_augmented(
        [*labelled, *neutral], filler=str(path), report=str(report), left_out={"odd": 4}, seed=3, name="mine"
    )
    expected = augment(labelled, read, seed=3, name="mine")
    assert made.fingerprint == expected.dataset.fingerprint
    assert json.loads(report.read_text()) == {"filler": str(path), "left_out": {"odd": 4}, **expected.counts}
    from_corpus = read_augmented([*labelled, *neutral], filler="", report="", left_out={}, seed=3)
    assert from_corpus.fingerprint == augment(labelled, neutral, seed=3).dataset.fingerprint


@pytest.mark.parametrize(("content", "says"), [(b" \n\n", "holds no text"), (b"caf\xe9\n", ":1: is not UTF-8")])
def test_files_of_filler_that_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "lines.txt").write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_filler(tmp_path / "lines.txt")
    with pytest.raises(DataError, match="cannot be read"):
        read_filler(tmp_path / "none.txt")


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    labelled, neutral = mixture()
    with pytest.raises(StoreError, match="cannot be written"):
        read_augmented([*labelled, *neutral], filler="", report=str(tmp_path / "no" / "x.json"), left_out={})


def test_single_texts_keep_text_labels_split_and_group() -> None:
    given = [SourceText("a", " Two  blanks ", frozenset({"joy", "odd"}), "cal", "thread"), SourceText("b", "plain")]
    made = single_texts(given, "mine", ["joy"])
    assert made.samples == (
        TextSample("a", " Two  blanks ", (), frozenset({"joy"}), "cal", "thread"),
        TextSample("b", "plain", (), frozenset(), None, None),
    )
    assert made.concepts == ("joy",)
    assert not made.has_token_labels
