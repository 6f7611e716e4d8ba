"""Hugging Face data sets, saved and as files: names of class labels, tags as spans, images decoded when asked."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data.formats import mini_hub
from small_data import picture
from superactivators.data.dataset import ImageSample, Span, TextSample
from superactivators.data.formats.bio import spans_of_tags
from superactivators.data.formats.hub import RowPixels, read_hub
from superactivators.errors import DataError

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def made(columns: dict[str, list[Any]], **features: Any) -> Any:
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features) if features else None)


def test_tags_of_tokens(tmp_path: Path) -> None:
    dataset = read_hub(mini_hub.build(tmp_path))
    assert dataset.concepts == ("FOOD", "LOC", "PER")
    assert [int((dataset.splits == name).sum()) for name in ("train", "cal", "test")] == [20, 10, 10]
    said = {"PER": {"Ann Lee", "Ann"}, "LOC": {"New York", "New"}, "FOOD": {"🍜"}}
    for n, sample in enumerate(dataset.samples):
        assert isinstance(sample, TextSample)
        tokens, tags = (mini_hub.rows(n, 1)[key][0] for key in ("tokens", "ner_tags"))
        assert (sample.id, sample.text, sample.labels) == (f"s{n}", " ".join(tokens), None)
        assert len(sample.spans) == sum(tag.startswith("B") for tag in tags)
        for span in sample.spans:
            assert sample.text[span.start : span.end] in said[span.concept]


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-X I-X O B-X", ["X:a bb", "X:d"]),
        ("I-X I-X O I-X", ["X:a bb", "X:d"]),
        ("B-X B-X I-Y I-Y", ["X:a", "X:bb", "Y:ccc d"]),
        ("B-X E-X S-X O", ["X:a bb", "X:ccc"]),
        ("B-X L-X U-X U-X", ["X:a bb", "X:ccc", "X:d"]),
        ("X X O Y", ["X:a bb", "Y:d"]),
        ("O O O O", []),
        ("B-X-1 I-X-1 I-X-2 O", ["X-1:a bb", "X-2:ccc"]),
    ],
)
def test_schemes_of_tags(tags: str, spans: list[str]) -> None:
    tokens = ["a", "bb", "ccc", "d"]
    found, problem = spans_of_tags(tokens, tags.split())
    assert not problem
    assert [f"{name}:{' '.join(tokens)[start:end]}" for start, end, name in found] == spans


def test_mixed_schemes_are_refused() -> None:
    assert spans_of_tags(["a", "b"], ["B-X", "Y"]) == ([], "tag 'Y' has no prefix such as B- or I-, but others have")


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.sampled_from(["a", "🙂", "", "x y"]), st.sampled_from(["O", "B-X", "I-X", "I-Y"]))))
def test_every_tagged_character_is_in_a_span_of_its_tag(pairs: list[tuple[str, str]]) -> None:
    tokens, tags = [token for token, _ in pairs], [tag for _, tag in pairs]
    spans, _ = spans_of_tags(tokens, tags)
    at = 0
    for token, tag in pairs:
        holders = {name for start, end, name in spans if start <= at and at + len(token) <= end}
        if token:
            assert holders == (set() if tag == "O" else {tag[2:]})
        at += len(token) + 1
    assert sum(tag.startswith("B") and bool(token.strip()) for token, tag in pairs) <= len(spans)


@pytest.mark.parametrize("kind", ["saved", "parquet", "folder", "jsonl"])
def test_class_labels_have_their_names(tmp_path: Path, kind: str) -> None:
    rows = made(
        {"text": ["one", "two", "three"], "label": [2, 0, 2]},
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["sad", "unused", "glad"]),
    )
    path = tmp_path / "set"
    if kind == "saved":
        rows.save_to_disk(str(path))
    elif kind == "parquet":
        path = tmp_path / "set.parquet"
        rows.to_parquet(str(path))
    elif kind == "folder":
        for name in ("train", "validation", "test"):
            (path / "data").mkdir(parents=True, exist_ok=True)
            rows.to_parquet(str(path / "data" / f"{name}-00000-of-00001.parquet"))
    else:
        path = tmp_path / "set.jsonl"
        path.write_text('{"text": "one", "label": "glad"}\n{"text": "two", "label": "sad"}\n')
    dataset = read_hub(path)
    assert dataset.concepts == (("glad", "sad") if kind == "jsonl" else ("sad", "glad")), "in the order of the names"
    assert [s.labels for s in dataset.samples][:2] == [{"glad"}, {"sad"}]
    if kind == "folder":
        assert dataset.splits.tolist() == ["train"] * 3 + ["cal"] * 3 + ["test"] * 3
        assert dataset.ids[3] == "validation-0"
        assert (read_hub(path, split="-").splits == "").all()
    else:
        assert (dataset.splits == "").all(), "a sole split says nothing"


def test_lists_of_class_labels_and_labelled_spans(tmp_path: Path) -> None:
    names = datasets.ClassLabel(names=["sad", "glad", "calm"])
    span = {"start": datasets.Value("int32"), "end": datasets.Value("int32"), "label": names}
    rows = made(
        {
            "sentence": ["one two", "three"],
            "labels": [[2, 0], []],
            "marks": [[{"start": 0, "end": 3, "label": 2}], []],
            "author": [7, 8],
        },
        sentence=datasets.Value("string"),
        labels=datasets.List(names),
        marks=datasets.List(span),
        author=datasets.Value("int32"),
    )
    rows.save_to_disk(str(tmp_path / "set"))
    assert read_hub(tmp_path / "set", spans="marks", group="author").samples == (
        TextSample("set-0", "one two", (Span(0, 3, "calm"),), frozenset({"sad", "calm"}), None, "7"),
        TextSample("set-1", "three", (), frozenset(), None, "8"),
    )


def test_columns_of_flags_and_splits_by_option(tmp_path: Path) -> None:
    rows = made({"body": ["a", "b"], "joy": [1, 0], "fear": [True, True]})
    datasets.DatasetDict({"fit": rows, "tune": rows, "unseen": rows, "final": rows}).save_to_disk(str(tmp_path / "set"))
    options: dict[str, Any] = {"text": "body", "concepts": ["joy", "fear"]}
    dataset = read_hub(tmp_path / "set", **options, splits={"final": "test", "tune": "cal", "fit": "train"})
    assert dataset.ids == ["final-0", "final-1", "tune-0", "tune-1", "fit-0", "fit-1"], "unseen is not read"
    assert dataset.splits.tolist() == ["test", "test", "cal", "cal", "train", "train"]
    assert [sorted(s.labels or ()) for s in dataset.samples[:2]] == [["fear", "joy"], ["fear"]]
    with pytest.raises(DataError, match="split 'fit' is unknown"):
        read_hub(tmp_path / "set", **options)
    with pytest.raises(DataError, match=r"has no split 'tuna' \(option splits\); did you mean 'tune'"):
        read_hub(tmp_path / "set", **options, splits={"tuna": "cal"})


def image_rows(masks: bool = True) -> tuple[Any, list[np.ndarray], list[np.ndarray]]:
    pixels = [picture(9, 7, n) for n in range(3)]
    ids = [np.random.default_rng(n).choice([0, 1, 5, 255], (7, 9)).astype(np.uint8) for n in range(3)]
    columns: dict[str, list[Any]] = {"image": [Image.fromarray(each) for each in pixels]}
    features: dict[str, Any] = {"image": datasets.Image()}
    if masks:
        columns["annotation"] = [*(Image.fromarray(each) for each in ids[:2]), None]
        features["annotation"] = datasets.Image()
    return made(columns, **features), pixels, ids


@pytest.mark.parametrize("kind", ["saved", "parquet"])
def test_images_and_masks_are_decoded_when_asked(tmp_path: Path, kind: str) -> None:
    rows, pixels, ids = image_rows()
    path = tmp_path / ("set" if kind == "saved" else "set.parquet")
    rows.save_to_disk(str(path)) if kind == "saved" else rows.to_parquet(str(path))
    dataset = read_hub(path, mask="annotation", classes={"1": "cat", "5": ["dog", "pet"]})
    assert dataset.concepts == ("cat", "dog", "pet")
    assert dataset.classes == {1: ("cat",), 5: ("dog", "pet")}
    for n, sample in enumerate(dataset.samples):
        assert isinstance(sample, ImageSample)
        np.testing.assert_array_equal(np.asarray(sample.load_image()), pixels[n])
        mask = sample.load_mask()
        if n < 2:
            assert mask is not None
            np.testing.assert_array_equal(mask[0], ids[n])
        else:
            assert mask is None
    again = read_hub(path, mask="annotation", classes={"1": "cat", "5": ["dog", "pet"]})
    assert again.fingerprint == dataset.fingerprint
    contents = {s.image.content() for s in dataset.samples if isinstance(s.image, RowPixels)}  # type: ignore[union-attr]
    assert len(contents) == 3


def test_turned_images_and_faults_of_images(tmp_path: Path) -> None:
    sink = io.BytesIO()
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(picture(9, 7)).save(sink, format="PNG", exif=exif)
    values = [{"bytes": sink.getvalue(), "path": None}, {"bytes": b"no image", "path": None}]
    rows = made({"image": values, "label": ["x"] * 2}, image=datasets.Image(), label=datasets.Value("string"))
    rows.save_to_disk(str(tmp_path / "set"))
    with pytest.raises(DataError, match="1 fault") as caught:
        read_hub(tmp_path / "set")
    assert "row 1: " in str(caught.value)
    assert "cannot be read as an image" in str(caught.value)
    for path, says in (
        ("https://example.org/a.png", "holds neither the bytes"),
        (str(tmp_path / "none.png"), "No such"),
    ):
        with pytest.raises(DataError, match=f"row 0: .*{says}"):
            RowPixels([{"image": {"bytes": None, "path": path}}], "image", 0, False, "row 0").load()
    first = read_hub(tmp_path / "set", check_images=False).samples[0]
    assert isinstance(first, ImageSample)
    expected = np.rot90(picture(9, 7), k=-1)
    np.testing.assert_array_equal(np.asarray(first.load_image()), expected)
    assert first.size() == (7, 9)


def test_faults_of_masks(tmp_path: Path) -> None:
    rows, _, _ = image_rows()
    rows.save_to_disk(str(tmp_path / "set"))
    with pytest.raises(DataError, match="masks need the option classes"):
        read_hub(tmp_path / "set", mask="annotation")
    with pytest.raises(DataError, match=r"row 0: mask has ids that the option classes does not name: \[5\]"):
        read_hub(tmp_path / "set", mask="annotation", classes={"1": "cat"})
    with pytest.raises(DataError, match="mask id 'x' of classes must be a whole number"):
        read_hub(tmp_path / "set", mask="annotation", classes={"x": "cat"})
    with pytest.raises(DataError, match="must have one channel of class ids; its mode is 'RGB'"):
        read_hub(tmp_path / "set", mask="image", classes={"1": "cat"})


@pytest.mark.parametrize(
    ("columns", "options", "says"),
    [
        ({"text": ["a", None], "label": ["x", "x"]}, {}, "row 1: column 'text' is empty"),
        ({"text": ["a"], "topic": ["x"]}, {}, "which column holds the labels"),
        ({"body": ["a"], "label": ["x"]}, {}, "which column holds the text"),
        ({"text": ["a"], "image": ["x"], "label": ["x"]}, {"text": "-"}, "column 'image' holds no images but"),
        ({"tokens": [["a"]], "tags": [["O", "B-X"]]}, {}, "row 0: has 1 tokens, but its tags are"),
        ({"tokens": [["a"]], "tags": [[1]]}, {}, r"row 0: tags are numbers \(\[1\]\); name them with the option names"),
        ({"tokens": [["a", "b"]], "tags": [["B-X", "Y"]]}, {}, "row 0: tag 'Y' has no prefix"),
        ({"tokens": [["a"]], "tags": [["B-X"]]}, {"tokens": "tokens", "tags": "tag"}, "did you mean 'tags'"),
        ({"tokens": ["a b"], "tags": [["B-X"]]}, {}, "row 0: tokens must be a list of strings"),
        ({"text": ["a"], "label": ["x"], "id": ["x"]}, {"offsets": "bytes"}, "option offsets 'bytes' is unknown"),
        ({"text": ["a", "b"], "label": ["x", "y"], "id": [1, 1]}, {}, "id '1' is a duplicate of"),
    ],
)
def test_rows_and_columns_that_are_wrong(
    tmp_path: Path, columns: dict[str, list[Any]], options: dict[str, Any], says: str
) -> None:
    made(columns).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(DataError, match=says):
        read_hub(tmp_path / "set", **options)


def test_numbers_of_tags_are_named_by_option(tmp_path: Path) -> None:
    made({"tokens": [["a", "b", "c"]], "tags": [[0, 1, 2]]}).save_to_disk(str(tmp_path / "set"))
    (sample,) = read_hub(tmp_path / "set", names={"0": "O", "1": "B-X", "2": "I-X"}).samples
    assert isinstance(sample, TextSample)
    assert sample.spans == (Span(2, 5, "X"),)


def test_labels_of_unlabelled_splits_are_faults(tmp_path: Path) -> None:
    made(
        {"text": ["a", "b"], "label": [0, -1]},
        text=datasets.Value("string"),
        label=datasets.ClassLabel(names=["x", "y"]),
    ).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(DataError, match="row 1: column 'label' holds -1, which is no class"):
        read_hub(tmp_path / "set")


def test_names_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"org/name: cannot be loaded from the hub, and is no file or folder here \("):
        read_hub(Path("org/name"))
    for wrong in (tmp_path / "none", Path("a/b/c"), Path("../up"), Path(".")):
        with pytest.raises(DataError, match=r"no such file or folder, and no name|cannot be loaded as"):
            read_hub(wrong)
    asked: list[Any] = []

    def load(path: str, **options: Any) -> Any:
        asked.append((path, options))
        return datasets.DatasetDict({"train": made({"text": ["a"], "label": ["x"]})})

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read_hub(Path("org/name"), config="en", revision="v1").ids == ["train-0"]
    assert asked == [("org/name", {"name": "en", "revision": "v1"})], "no code of the data set is trusted"


def test_other_files_and_a_missing_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(DataError, match="is no file that can be read; give one of"):
        read_hub(tmp_path / "a.xlsx")
    (tmp_path / "a.parquet").write_text("x")
    with pytest.raises(DataError, match="cannot be loaded as a data set of files") as caught:
        read_hub(tmp_path / "a.parquet")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'superactivators\[data\]'"):
        read_hub(tmp_path / "a.parquet")
