"""Label Studio's exports: offsets of both ages, regions against slow painting, brush strokes, several annotators."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.formats import mini_label_studio as mini
from small_data import picture, write_image
from superactivators.data.dataset import ConceptDataset, ImageSample, Span, TextSample
from superactivators.data.formats.label_studio import read_label_studio
from superactivators.data.formats.label_studio_masks import (
    Region,
    RegionMask,
    decode_brush,
    inside_ellipse,
    inside_polygon,
    rectangle,
)
from superactivators.errors import DataError

quick = settings(derandomize=True, deadline=None, max_examples=60)


def carried(dataset: ConceptDataset, sample: Any) -> dict[str, np.ndarray]:
    """Pixels of every concept."""
    mask = sample.load_mask()
    assert mask is not None
    return {
        name: np.isin(mask, [k for k, names in dataset.classes.items() if name in names]).any(axis=0)
        for name in dataset.concepts
    }


def slow_winding(points: list[tuple[float, float]], x: float, y: float) -> bool:
    """Whether a closed polygon turns around a point: the sum of the angles under which its sides are seen."""
    total = 0.0
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        a, b = math.atan2(ay - y, ax - x), math.atan2(by - y, bx - x)
        total += (b - a + math.pi) % (2 * math.pi) - math.pi
    return abs(total) > math.pi


def slow_shape(one: dict[str, Any]) -> np.ndarray:
    """Paint a region of the miniature pixel by pixel."""
    value = one["value"]
    found = np.zeros((mini.HEIGHT, mini.WIDTH), bool)
    for row in range(mini.HEIGHT):
        for column in range(mini.WIDTH):
            x, y = column + 0.5, row + 0.5
            if one["type"] == "rectanglelabels":
                left, top = value["x"] * 0.64, value["y"] * 0.48
                hit = left <= x < left + value["width"] * 0.64 and top <= y < top + value["height"] * 0.48
            elif one["type"] == "ellipselabels":
                turn = math.radians(-value["rotation"])
                dx, dy = x - value["x"] * 0.64, y - value["y"] * 0.48
                u, v = dx * math.cos(turn) - dy * math.sin(turn), dx * math.sin(turn) + dy * math.cos(turn)
                hit = (u / (value["radiusX"] * 0.64)) ** 2 + (v / (value["radiusY"] * 0.48)) ** 2 <= 1
            elif one["type"] == "polygonlabels":
                hit = slow_winding([(px * 0.64, py * 0.48) for px, py in value["points"]], x, y)
            else:
                hit = 30 <= row < 40 and 40 <= column < 60
            found[row, column] = hit
    return found


def test_all_shapes_of_an_image_project(tmp_path: Path) -> None:
    dataset = read_label_studio(mini.build(tmp_path), **mini.OPTIONS)
    assert dataset.concepts == ("box", "disc", "scrawl", "wedge"), "predictions and cancelled annotations do not count"
    assert len(dataset) == 32
    assert [s.split for s in dataset.samples[:16:4]] == ["train", "train", "cal", "test"]
    for n in (1, 7, 12, 15, 30):
        sample = dataset.samples[n]
        assert isinstance(sample, ImageSample)
        assert (sample.id, sample.group, sample.labels) == (str(500 + n), f"s{n}", None)
        np.testing.assert_array_equal(np.asarray(sample.load_image()), picture(mini.WIDTH, mini.HEIGHT, n))
        found = carried(dataset, sample)
        expected = {one["value"][one["type"]][0]: slow_shape(one) for one in mini.shapes(n % 16)}
        for name in dataset.concepts:
            np.testing.assert_array_equal(found[name], expected.get(name, np.zeros_like(found[name])), err_msg=name)
    assert dataset.fingerprint == read_label_studio(tmp_path / "project-3.json", **mini.OPTIONS).fingerprint


@quick
@given(
    st.lists(st.tuples(st.floats(-4, 24, width=32), st.floats(-4, 20, width=32)), min_size=3, max_size=9),
)
def test_polygons_against_the_sum_of_angles(points: list[tuple[float, float]]) -> None:
    found = inside_polygon(np.array(points, dtype=np.float64), 20, 16)
    for row in range(16):
        for column in range(20):
            x, y = column + 0.5, row + 0.5
            near = min(distance(a, b, (x, y)) for a, b in zip(points, points[1:] + points[:1], strict=True))
            if near > 1e-4:
                assert found[row, column] == slow_winding(points, x, y), (row, column)


def distance(a: tuple[float, float], b: tuple[float, float], p: tuple[float, float]) -> float:
    length = (b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2
    t = 0.0 if length == 0 else ((p[0] - a[0]) * (b[0] - a[0]) + (p[1] - a[1]) * (b[1] - a[1])) / length
    t = min(1.0, max(0.0, t))
    return math.hypot(a[0] + t * (b[0] - a[0]) - p[0], a[1] + t * (b[1] - a[1]) - p[1])


@pytest.mark.parametrize("turn", [0, 20, 90, 200, -45])
def test_turned_rectangles(turn: int) -> None:
    corners = rectangle(20.2, 15.3, 14.0, 8.0, turn)
    found = inside_polygon(np.array(corners).reshape(-1, 2), 48, 40)
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    for row in range(40):
        for column in range(48):
            dx, dy = column + 0.5 - 20.2, row + 0.5 - 15.3
            u, v = dx * cos + dy * sin, dy * cos - dx * sin
            assert found[row, column] == (0 <= u < 14 and 0 <= v < 8), "turned clockwise about its first corner"
    assert found.sum() == pytest.approx(14 * 8, abs=8)


def test_shapes_without_area_or_outside() -> None:
    assert not inside_ellipse((5, 5, 0, 3, 0), 10, 10).any()
    assert inside_ellipse((5, 5, 100, 100, 0), 10, 10).all()
    assert not inside_polygon(np.array([[1.0, 1], [8, 8], [1, 1]]), 10, 10).any()
    assert inside_polygon(np.array([[-5.0, -5], [50, -5], [50, 50], [-5, 50]]), 10, 10).all()


def slow_unpack(code: list[int]) -> list[int]:
    """Unpack run lengths from a string of bits."""
    bits = "".join(format(byte, "08b") for byte in code)
    at = 0

    def read(size: int) -> int:
        nonlocal at
        at += size
        return int(bits[at - size : at], 2)

    n, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < n:
        repeated = read(1)
        count = read(sizes[read(2)]) + 1
        values += [read(word)] * count if repeated else [read(word) for _ in range(count)]
    return values


@quick
@given(st.integers(1, 9), st.integers(1, 7), st.data())
def test_brush_strokes_are_unpacked(width: int, height: int, data: st.DataObject) -> None:
    alphabet = st.sampled_from([0, 0, 0, 1, 128, 255])
    values = data.draw(st.lists(alphabet, min_size=4 * width * height, max_size=4 * width * height))
    sizes = data.draw(st.sampled_from([(3, 4, 8, 16), (1, 2, 3, 4), (8, 8, 8, 8)]))
    code = mini.pack(values, sizes=sizes)
    assert slow_unpack(code) == values
    expected = [[values[4 * (r * width + c) + 3] > 0 for c in range(width)] for r in range(height)]
    np.testing.assert_array_equal(decode_brush(bytes(code), width, height), expected)


def test_damaged_brush_strokes() -> None:
    code = bytes(mini.pack([0] * 20 + [255] * 20))
    with pytest.raises(DataError, match="holds 40 values instead of 80"):
        decode_brush(code, 5, 4)
    for end in range(4, len(code)):
        with pytest.raises(DataError, match="end too early"):
            decode_brush(code[:end], 5, 2)
    long = (40).to_bytes(4, "big") + bytes(mini.pack([0] * 100))[4:]
    with pytest.raises(DataError, match="hold more than 40 values"):
        decode_brush(long, 5, 2)


def test_masks_of_overlapping_regions_and_many_classes() -> None:
    square = rectangle(0, 0, 4, 4, 0)
    regions = (Region(1, "polygon", square), Region(300, "polygon", rectangle(2, 2, 4, 4, 0)))
    mask = RegionMask(8, 6, (regions,)).load()
    assert mask.dtype == np.uint16
    assert mask.shape == (2, 6, 8)
    assert sorted(mask[:, 3, 3].tolist()) == [1, 300]
    assert RegionMask(8, 6, (regions,)).content() != RegionMask(8, 6, (regions[:1],)).content()
    assert RegionMask(8, 6, ((),)).load().shape == (1, 6, 8)


def text_task(text: str, *annotations: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "id": more.pop("id", 1),
        "data": {"text": text, **more},
        "annotations": [{"result": results, "was_cancelled": False} for results in annotations],
    }


def mark(start: Any, end: Any, *labels: str, text: str | None = None) -> dict[str, Any]:
    value = {"start": start, "end": end, "labels": list(labels)} | ({} if text is None else {"text": text})
    return {"type": "labels", "from_name": "ner", "to_name": "text", "value": value}


def choose(*choices: str, name: str = "mood") -> dict[str, Any]:
    return {"type": "choices", "from_name": name, "to_name": "text", "value": {"choices": list(choices)}}


def write(path: Path, *tasks: Any) -> Path:
    path.write_text(json.dumps(list(tasks)))
    return path


TEXT = "👨🏻\u200d🚒 firemen\r\ndrive firetrucks 🙂"


@pytest.mark.parametrize("unit", ["utf-16", "code-points", "utf-16, one", "code-points, one"])
def test_offsets_are_those_that_give_the_exported_text(tmp_path: Path, unit: str) -> None:
    word = "firetrucks 🙂"
    at = TEXT.index(word)
    before, whole = TEXT[:at], TEXT[: at + len(word)]
    if unit.endswith("one"):
        before, whole = before.replace("\r\n", "\n"), whole.replace("\r\n", "\n")
    start, end = (len(t.encode("utf-16-le")) // 2 if unit.startswith("utf") else len(t) for t in (before, whole))
    (sample,) = read_label_studio(
        write(tmp_path / "a.json", text_task(TEXT, [mark(start, end, "thing", text=word)]))
    ).samples
    assert isinstance(sample, TextSample)
    assert sample.spans == (Span(at, at + len(word), "thing"),)
    assert sample.labels is None


def test_offsets_without_the_exported_text_are_utf_16(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", text_task("🙂 yes", [mark(3, 6, "x")]))
    (sample,) = read_label_studio(path).samples
    assert isinstance(sample, TextSample)
    assert sample.spans == (Span(2, 5, "x"),)
    path = write(tmp_path / "a.json", text_task("🙂 yes", [mark(2, 5, "x")]))
    (sample,) = read_label_studio(path, offsets="code-points").samples
    assert isinstance(sample, TextSample)
    assert sample.spans == (Span(2, 5, "x"),)


def test_the_exported_text_may_write_line_ends_as_signs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", text_task("a b\nc", [mark(2, 5, "x", text="b\\nc")]))
    (sample,) = read_label_studio(path).samples
    assert isinstance(sample, TextSample)
    assert sample.spans == (Span(2, 5, "x"),)


def test_choices_are_labels_of_the_sample(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.json",
        text_task("good day", [mark(0, 4, "praise"), choose("calm", "warm")], part="dev"),
        text_task("day", [choose("calm")], id=2, part="train"),
        text_task("night", [], id=3, part="test"),
    )
    dataset = read_label_studio(path, split="part")
    assert dataset.concepts == ("calm", "praise", "warm")
    assert [s.labels for s in dataset.samples] == [{"calm", "warm", "praise"}, {"calm"}, frozenset()]
    assert [s.split for s in dataset.samples] == ["cal", "train", "test"]
    assert read_label_studio(path, controls=["ner"]).concepts == ("praise",)
    assert read_label_studio(path, controls=["ner"]).samples[0].labels is None


def test_choices_for_a_region_label_the_region(tmp_path: Path) -> None:
    own = {"type": "choices", "from_name": "c", "value": {"start": 0, "end": 4, "choices": ["ironic"]}}
    path = write(tmp_path / "a.json", text_task("good day", [mark(0, 4, "praise"), own]))
    (sample,) = read_label_studio(path).samples
    assert isinstance(sample, TextSample)
    assert sample.spans == (Span(0, 4, "praise"), Span(0, 4, "ironic"))
    assert sample.labels is None


def test_what_carries_no_concept_is_ignored(tmp_path: Path) -> None:
    others = [
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right"},
        {"type": "textarea", "from_name": "n", "value": {"text": ["a note"]}},
        {"type": "rating", "from_name": "r", "value": {"rating": 4}},
    ]
    path = write(tmp_path / "a.json", text_task("good day", [mark(0, 4, "praise"), *others]))
    assert read_label_studio(path).samples == (TextSample("1", "good day", (Span(0, 4, "praise"),)),)


@pytest.mark.parametrize(
    ("annotator", "spans", "labels"),
    [
        ("first", [(0, 7, "x"), (8, 11, "y")], {"a", "b", "x", "y"}),
        ("union", [(0, 7, "x"), (8, 11, "y"), (4, 11, "x")], {"a", "b", "c", "x", "y"}),
        ("all-agree", [(4, 7, "x")], {"b", "x"}),
    ],
)
def test_several_annotators_of_a_text(tmp_path: Path, annotator: str, spans: list[Any], labels: set[str]) -> None:
    one = [mark(0, 7, "x"), mark(8, 11, "y"), choose("a", "b")]
    two = [mark(4, 11, "x"), choose("b", "c")]
    task = text_task("one two six", one, two)
    task["annotations"].insert(0, {"result": [mark(0, 3, "z")], "was_cancelled": True})
    (sample,) = read_label_studio(write(tmp_path / "a.json", task), annotator=annotator).samples
    assert isinstance(sample, TextSample)
    assert [(s.start, s.end, s.concept) for s in sample.spans] == spans
    assert sample.labels == labels


def test_agreed_runs_have_no_blank_ends(tmp_path: Path) -> None:
    task = text_task("ab cd ef", [mark(0, 6, "x")], [mark(2, 8, "x")])
    (sample,) = read_label_studio(write(tmp_path / "a.json", task), annotator="all-agree").samples
    assert isinstance(sample, TextSample)
    assert sample.spans == (Span(3, 5, "x"),)


@pytest.mark.parametrize("annotator", ["first", "union", "all-agree"])
def test_several_annotators_of_an_image(tmp_path: Path, annotator: str) -> None:
    path = mini.build(tmp_path)
    tasks = json.loads(path.read_text())[:2]
    for task, number in zip(tasks, (7, 14), strict=True):
        task["annotations"] += [{"result": mini.shapes(number)}]
    path.write_text(json.dumps(tasks))
    dataset = read_label_studio(path, annotator=annotator, images="media")
    for sample, (one, two) in zip(dataset.samples, [(15, 7), (1, 14)], strict=True):
        found = carried(dataset, sample)
        for k, shape in enumerate(mini.shapes(15)):
            said = (bool(one >> k & 1), bool(two >> k & 1))
            there = {"first": said[0], "union": any(said), "all-agree": all(said)}[annotator]
            name = shape["value"][shape["type"]][0]
            if name in found:
                np.testing.assert_array_equal(found[name], slow_shape(shape) & there, err_msg=name)
            else:
                assert not there


def test_the_short_form(tmp_path: Path) -> None:
    rows = [
        {
            "id": 1,
            "text": "🙂 good day",
            "topic": "weather",
            "ner": [{"start": 3, "end": 7, "text": "good", "labels": ["praise"]}],
            "mood": {"choices": ["calm", "warm"]},
            "annotator": 1,
            "annotation_id": 5,
            "created_at": "2024-01-01",
        },
        {"id": 2, "text": "bad day", "topic": "mood", "mood": "sad", "annotator": 1, "annotation_id": 6},
        {"id": 2, "text": "bad day", "topic": "mood", "mood": "angry", "annotator": 2, "annotation_id": 7},
    ]
    path = write(tmp_path / "min.json", *rows)
    dataset = read_label_studio(path, choices=["mood"], group="topic")
    assert dataset.samples == (
        TextSample("1", "🙂 good day", (Span(2, 6, "praise"),), frozenset({"praise", "calm", "warm"}), None, "weather"),
        TextSample("2", "bad day", (), frozenset({"sad"}), None, "mood"),
    )
    assert read_label_studio(path, choices=["mood"], annotator="union").samples[1].labels == {"sad", "angry"}
    with pytest.raises(DataError, match=r"no task has the field 'mod' \(option choices\); did you mean 'mood'"):
        read_label_studio(path, choices=["mod"])


def test_the_short_form_of_images(tmp_path: Path) -> None:
    full = mini.build(tmp_path)
    rows = []
    for task in json.loads(full.read_text()):
        regions = [
            {**one["value"], "original_width": one["original_width"], "original_height": one["original_height"]}
            for one in task["annotations"][1]["result"]
        ]
        rows.append({**task["data"], "id": task["id"], "shape": regions, "annotator": 1, "annotation_id": 3})
    short = write(tmp_path / "short.json", *rows)
    a, b = (read_label_studio(path, **mini.OPTIONS) for path in (full, short))
    assert a.fingerprint == b.fingerprint


def test_tasks_without_annotation(tmp_path: Path) -> None:
    skipped = text_task("c", id=3)
    skipped["annotations"] = [{"result": [mark(0, 1, "x")], "was_cancelled": True}]
    path = write(tmp_path / "a.json", text_task("a", [mark(0, 1, "x")]), text_task("b", id=2), skipped)
    with pytest.raises(DataError, match="2 faults") as caught:
        read_label_studio(path)
    assert "task 2: has no annotation; annotate it, or set skip_unlabelled = true" in str(caught.value)
    assert read_label_studio(path, skip_unlabelled=True).ids == ["1"]


IMAGE_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"value": {"x": 1, "y": 2, "width": 3, "keypointlabels": ["p"]}, "type": "keypointlabels"}, "covers no area"),
    ({"value": {"points": [[0, 0], [1, 1]], "polygonlabels": ["p"]}, "type": "polygonlabels"}, "needs three points"),
    ({"value": {"points": [[0, "a"], [1, 1], [2, 0]], "polygonlabels": ["p"]}}, "needs three points"),
    ({"value": {"x": "a", "y": 2, "width": 3, "height": 3, "rectanglelabels": ["p"]}}, "covers no area"),
    ({"value": {"rle": [0, 0, 0, 4, 1], "brushlabels": ["p"]}}, "must hold 4 x 64 x 48 values"),
    ({"value": {"rle": [999], "brushlabels": ["p"]}}, "must hold 4 x 64 x 48 values"),
    ({"value": {"rle": "abc", "brushlabels": ["p"]}}, "must hold 4 x 64 x 48 values"),
    ({"original_width": 640}, "was drawn on an image of 640 x 48 pixels, but its file is 64 x 48"),
    ({"image_rotation": 90}, "turned by 90 degrees"),
    ({"value": {"x": 1, "y": 2, "width": 3, "height": 3, "rectanglelabels": []}}, "holds no labels"),
    ({"value": None}, "needs type and value"),
    ({"type": "taxonomy", "value": {"taxonomy": [["a", "b"]]}}, "holds no labels that can be read"),
    ({"type": "videolabels", "value": {"sequence": [], "videolabels": ["x"]}}, "cannot be read for an image"),
]


@pytest.mark.parametrize(("change", "says"), IMAGE_FAULTS, ids=[str(n) for n in range(len(IMAGE_FAULTS))])
def test_faults_of_regions(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = mini.build(tmp_path)
    tasks = json.loads(path.read_text())[1:3]
    bad = copy.deepcopy(tasks[0]["annotations"][1]["result"][0]) | {"from_name": "odd"} | change
    tasks[0]["annotations"][1]["result"].append(bad)
    path.write_text(json.dumps(tasks))
    with pytest.raises(DataError) as caught:
        read_label_studio(path, images="media")
    lines = str(caught.value).splitlines()
    assert len(lines) == 2, lines
    assert lines[1].startswith(f"{path}: task 501: ")
    assert says in lines[1]
    assert len(read_label_studio(path, images="media", controls=["shape"])) == 2


def test_images_that_are_not_found(tmp_path: Path) -> None:
    task = mini.tasks()[1]
    write_image(tmp_path / "a" / "twice.png", picture(4, 4))
    write_image(tmp_path / "b" / "twice.png", picture(4, 4))
    (tmp_path / "bad.png").write_text("no image")
    for address, says in [
        ("https://example.org/x.png", "image https://example.org/x.png is not fetched; download it"),
        ("/data/upload/1/x.png", "image 'x.png' does not exist in"),
        ("s3://b/twice.png", "image 'twice.png' is in several folders"),
        ("data:image/png;base64,AAAA.png", "the image is written into the export"),
        ("bad.png", "cannot be read as an image"),
        ("../../secret.png", "image 'secret.png' does not exist"),
    ]:
        task["data"]["image"] = address
        with pytest.raises(DataError) as caught:
            read_label_studio(write(tmp_path / "a.json", task))
        assert says in str(caught.value)


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (text_task("ab", [mark("/div[1]", "/div[1]", "x")]), "points into HTML"),
        (text_task("ab", [mark(0, 9, "x")]), r"span of 'x' is \[0, 9\), but 0 <= start < end <= 2"),
        (text_task("ab cd", [mark(0, 2, "x", text="cd")]), r"\[0, 2\) should read 'cd', but the text does not"),
        (text_task("🙂 a", [mark(1, 4, "x")]), "cuts a character in two; its offsets are not utf-16"),
        (text_task("ab", [mark(0, 1)]), "holds no labels"),
        (text_task("ab", ["x"]), "results of an annotation must be objects"),  # type: ignore[list-item]
        ({"id": 1, "data": {"text": "a"}, "annotations": [7]}, "must be an object with a list result"),
        ({"id": 1, "data": "a", "annotations": []}, "needs the objects data and annotations"),
        (text_task("", [mark(0, 1, "x")]), "which field of data holds the text or image"),
        (
            {"id": 1, "data": {"a": "x", "b": "y"}, "annotations": [{"result": []}]},
            "Set the option text or image; a, b",
        ),
    ],
)
def test_faults_of_texts(tmp_path: Path, task: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_label_studio(write(tmp_path / "a.json", task))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", r"a\.json:1: is not JSON"),
        ('{"a": 1}', "must hold a list of tasks"),
        ("[]", "must hold a list of tasks"),
        ("[1]", "must hold a list of tasks"),
        (
            '[{"id": 1, "text": "a", "mood": "sad"}]',
            "holds no labels of a JSON or JSON-MIN export; its fields are id, mood",
        ),
    ],
)
def test_files_that_are_no_export(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=says):
        read_label_studio(tmp_path / "a.json")


def test_options_that_are_wrong(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", text_task("a b", [mark(0, 1, "x")]))
    with pytest.raises(DataError, match="option annotator 'frist' is unknown; did you mean 'first'"):
        read_label_studio(path, annotator="frist")
    with pytest.raises(DataError, match="task 1: field 'txt' must hold a text"):
        read_label_studio(path, text="txt")
    with pytest.raises(DataError, match="task 1: data has no text in the field 'doc'"):
        read_label_studio(path, group="doc")
    with pytest.raises(DataError, match="is a folder; give the JSON file"):
        read_label_studio(tmp_path)
