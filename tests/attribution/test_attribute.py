"""Maps of new inputs: the same in any company, places that fit the input, and markup that stays text."""

from __future__ import annotations

import base64
import html as html_module
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from superactivators.attribution.attribute import Attribution, attribute
from superactivators.attribution.display import write_page
from superactivators.attribution.explainer import explainers
from superactivators.data.dataset import ImageSample, TextSample
from superactivators.detection.detector import Detector
from superactivators.errors import DataError, ModelError, StoreError, StudyError
from superactivators.models.backbone import Backbone

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "A model reads tokens, and each token has a state.",
    "Zürich & São Paulo: café!",
]
METHODS = ("rise", "lime", "kernel-shap", "input-gradient", "activation")
Backbones = Callable[[str], Backbone]
Detectors = Callable[[str], Detector]


def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(5)
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((50, 70), (40, 40), (64, 48))]


def explain(model: Backbone, detector: Detector, inputs: Any, **more: Any) -> list[Attribution]:
    given: dict[str, Any] = {"methods": METHODS, "budget": 64, **more}
    return list(attribute(detector, inputs, model, **given))


def same(one: Attribution, other: Attribution) -> None:
    assert list(one.maps) == list(other.maps)
    for name, values in one.maps.items():
        size = float(np.abs(values).max())
        np.testing.assert_allclose(other.maps[name], values, atol=2e-4 * size + 1e-6, err_msg=name)


@pytest.fixture(scope="module")
def found(backbones: Backbones, detector_of: Detectors) -> list[Attribution]:
    return explain(backbones("bert"), detector_of("bert"), TEXTS)


@pytest.fixture(scope="module")
def seen(backbones: Backbones, detector_of: Detectors) -> list[Attribution]:
    return explain(backbones("vit"), detector_of("vit"), pictures())


# ------------------------------------------------------------------ the same in any company


@pytest.mark.parametrize(
    "inputs",
    [TEXTS[2:], TEXTS[::-1], ["something else", TEXTS[2]], [TEXTS[2], TEXTS[2]]],
    ids=["alone", "reversed", "behind another", "twice"],
)
def test_a_text_has_the_same_maps_whatever_else_is_in_the_list(
    inputs: list[str], found: list[Attribution], backbones: Backbones, detector_of: Detectors
) -> None:
    again = explain(backbones("bert"), detector_of("bert"), inputs)
    assert [item.input for item in again] == inputs
    for item in again:
        if item.input == TEXTS[2]:
            same(found[2], item)


def test_an_image_has_the_same_maps_whatever_else_is_in_the_list_and_however_it_is_given(
    seen: list[Attribution], backbones: Backbones, detector_of: Detectors, tmp_path: Path
) -> None:
    Image.fromarray(pictures()[1]).save(tmp_path / "a picture.png")
    inputs = [
        Image.fromarray(pictures()[1]),
        pictures()[2],
        tmp_path / "a picture.png",
        str(tmp_path / "a picture.png"),
    ]
    again = explain(backbones("vit"), detector_of("vit"), inputs)
    assert [item.input for item in again] == ["image 0", "image 1", *[str(tmp_path / "a picture.png")] * 2]
    for place, item in zip((1, 2, 1, 1), again, strict=True):
        same(seen[place], item)


@pytest.mark.parametrize("most", [1, 40, 150])
def test_maps_do_not_depend_on_how_passes_are_batched(
    most: int, found: list[Attribution], seen: list[Attribution], backbones: Backbones, detector_of: Detectors
) -> None:
    for family, before, inputs in (("bert", found[0], TEXTS[:1]), ("vit", seen[0], pictures()[:1])):
        (item,) = explain(backbones(family), detector_of(family), inputs, max_batch_tokens=most)
        same(before, item)


def test_another_seed_gives_other_masks(found: list[Attribution], backbones: Backbones, detector_of: Detectors) -> None:
    (item,) = explain(backbones("bert"), detector_of("bert"), TEXTS[:1], seed=1)
    assert np.abs(item.maps["rise"] - found[0].maps["rise"]).max() > 1e-3
    np.testing.assert_array_equal(item.maps["activation"], found[0].maps["activation"])


def test_texts_of_equal_length_have_masks_of_their_own(
    backbones: Backbones, detector_of: Detectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of two texts must not go the same way: their random numbers are not the same."""
    kept: list[np.ndarray] = []

    class Watch:
        def maps(self, scene: Any) -> np.ndarray:
            kept.append(scene.generator("any").random(8))
            return scene.agreement()

    monkeypatch.setitem(explainers._known, "watch-of-a-test", Watch)
    explain(backbones("bert"), detector_of("bert"), ["a fox", "a dog", "a fox"], methods=["watch-of-a-test"])
    assert (kept[0] == kept[2]).all()
    assert (kept[0] != kept[1]).any()


def test_concepts_and_objectives_are_those_asked_for(
    found: list[Attribution], backbones: Backbones, detector_of: Detectors
) -> None:
    (item,) = explain(
        backbones("bert"), detector_of("bert"), TEXTS[:1], concepts=["warm", "red"], objectives=["superactivators"]
    )
    assert item.concepts == ("warm", "red")
    assert item.objectives == ("superactivators",) * 2
    assert item.sites == ("block[2]",) * 2
    for method in METHODS:
        for concept in ("warm", "red"):
            np.testing.assert_allclose(item.map(method, concept), found[0].map(method, concept), rtol=2e-4, atol=1e-4)


# ------------------------------------------------------------------ single maps


def test_map_takes_the_column_of_its_names(found: list[Attribution]) -> None:
    item = found[0]
    assert item.concepts == ("red", "red", "loud", "loud", "warm", "warm")
    np.testing.assert_array_equal(item.map("rise", "loud"), item.maps["rise"][:, 3])
    np.testing.assert_array_equal(item.map("lime", "loud", "concept"), item.maps["lime"][:, 2])


def test_the_concept_may_be_left_out_if_there_is_one(backbones: Backbones, detector_of: Detectors) -> None:
    (item,) = explain(backbones("bert"), detector_of("bert"), TEXTS[:1], methods="activation", concepts=["loud"])
    np.testing.assert_array_equal(item.map("activation"), item.maps["activation"][:, 1])


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (("rice", "red", "concept"), "no map of 'red' by 'rice'"),
        (("rise", "blue", "concept"), "no map of 'blue' by 'rise'"),
        (("rise", "red", "both"), "for the objective 'both'"),
        (("rise", None, "concept"), "no map of None"),
    ],
)
def test_wrong_names_of_maps_give_one_line(names: Any, part: str, found: list[Attribution]) -> None:
    with pytest.raises(StudyError) as caught:
        found[0].map(*names)
    message = str(caught.value)
    assert part in message
    assert "'loud', 'red', 'warm'" in message and "'activation', 'input-gradient'" in message  # noqa: PT018
    assert "\n" not in message


# ------------------------------------------------------------------ JSON


def test_as_dict_of_a_text_slices_the_text(found: list[Attribution]) -> None:
    for item, text in zip(found, TEXTS, strict=True):
        content = json.loads(json.dumps(item.as_dict(), allow_nan=False))
        assert content["input"] == text
        covered = set()
        for token in content["tokens"]:
            assert text[token["start"] : token["end"]] == token["text"]
            covered |= set(range(token["start"], token["end"]))
        assert {number for number, letter in enumerate(text) if not letter.isspace()} <= covered
        assert len(content["maps"]) == len(METHODS) * 6
        for entry in content["maps"]:
            expected = item.map(entry["method"], entry["concept"], entry["objective"])
            np.testing.assert_array_equal(np.array(entry["values"], dtype=np.float32), expected)
            assert entry["site"] == {"red": "block[2]", "loud": "block[1]", "warm": "block[2]"}[entry["concept"]]
        assert content["superactivators"]["loud"] == {"tokens": list(range(len(content["tokens"]))), "fallback": False}
        assert content["superactivators"]["warm"]["fallback"] is True
        (highest,) = content["superactivators"]["warm"]["tokens"]
        assert highest == int(item.map("activation", "warm", "concept").argmax())


def test_as_dict_of_an_image_places_the_patches(seen: list[Attribution]) -> None:
    for item, pixels in zip(seen, pictures(), strict=True):
        content = json.loads(json.dumps(item.as_dict(), allow_nan=False))
        high, wide = pixels.shape[0] / 4, pixels.shape[1] / 4  # the whole image becomes 4 x 4 patches
        assert [(token["row"], token["column"]) for token in content["tokens"]] == [divmod(n, 4) for n in range(16)]
        for token in content["tokens"]:
            row, column = token["row"], token["column"]
            expected = [column * wide, row * high, (column + 1) * wide, (row + 1) * high]
            np.testing.assert_allclose(token["box"], expected, atol=0.01)


# ------------------------------------------------------------------ HTML


class Parsed(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def harmless(page: str) -> Parsed:
    parsed = Parsed(page)
    for tag, attributes in parsed.tags:
        assert tag in {"div", "span", "b", "img", "html", "meta", "title", "style", "h1"}, tag
        for name, value in attributes.items():
            assert name in {"style", "title", "alt", "src", "lang", "charset"}, name
            assert "url(" not in str(value)
            if name == "src":
                assert str(value).startswith("data:image/png;base64,")
    return parsed


HOSTILE = "<script>alert(1)</script> &amp; <b onclick='x'>\"fox\" 😀 日本語</b>"


@pytest.mark.parametrize("family", ["bert", "gpt2", "gemma2"])
def test_markup_in_a_text_is_shown_as_text(family: str, backbones: Backbones, detector_of: Detectors) -> None:
    """Byte-level tokenizers give one sign several tokens; each sign is shown once all the same."""
    (item,) = explain(backbones(family), detector_of(family), [HOSTILE], methods=["activation"], concepts=["red"])
    page = item._repr_html_()
    harmless(page)
    blocks = re.findall(r'<div style="white-space:pre-wrap[^>]*>(.*?)</div>', page, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert html_module.unescape(re.sub(r"<[^>]*>", "", block)) == HOSTILE


def test_markup_in_a_concept_is_shown_as_text(backbones: Backbones, detector_of: Detectors) -> None:
    detector, name = detector_of("bert"), "<img src=x onerror=alert(1)>"
    renamed = replace(
        detector,
        banks=tuple(
            replace(bank, concepts=tuple(name if c == "red" else c for c in bank.concepts)) for bank in detector.banks
        ),
        thresholds=tuple(replace(t, concept=name) if t.concept == "red" else t for t in detector.thresholds),
    )
    (item,) = explain(backbones("bert"), renamed, TEXTS[:1], methods=["activation"])
    parsed = harmless(item._repr_html_())
    assert parsed.texts.count(name) == 2
    assert "img" not in {tag for tag, _ in parsed.tags}


def test_every_map_of_a_text_is_coloured_by_its_values(found: list[Attribution]) -> None:
    item = found[0]
    blocks = re.findall(r'<div style="white-space:pre-wrap[^>]*>(.*?)</div>', item._repr_html_(), re.DOTALL)
    columns = [(name, column) for name in METHODS for column in range(6)]
    assert len(blocks) == len(columns)
    for block, (name, column) in zip(blocks, columns, strict=True):
        values = item.maps[name][:, column]
        shown = [float(value) for value in re.findall(r'<span style="[^"]*" title="([^"]*)">', block)]
        np.testing.assert_allclose(shown, values / max(float(np.abs(values).max()), 1e-30), atol=0.0051)
        marked = ["border-bottom" in style for style in re.findall(r'<span style="([^"]*)"', block)]
        assert marked == item.fired[:, column].tolist()


def test_images_are_embedded_as_png_with_the_heat_where_it_belongs(
    seen: list[Attribution], backbones: Backbones, detector_of: Detectors
) -> None:
    parsed = harmless(seen[0]._repr_html_())
    sources = [str(attributes["src"]) for tag, attributes in parsed.tags if tag == "img"]
    assert len(sources) == len(METHODS) * 6
    for source in sources[:3]:
        with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as opened:
            assert (opened.format, opened.size) == ("PNG", (70, 50))
    grey = np.full((80, 80, 3), 100, dtype=np.uint8)
    (item,) = explain(backbones("vit"), detector_of("vit"), [grey], methods=["activation"], concepts=["red"])
    heat = np.zeros((16, 2), dtype=np.float32)
    heat[6] = 2.0  # row 1, column 2
    heat[9] = -1.0  # row 2, column 1
    drawn = harmless(replace(item, maps={"drawn": heat}, fired=np.zeros((16, 2), bool))._repr_html_())
    (source, _) = [str(attributes["src"]) for tag, attributes in drawn.tags if tag == "img"]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))).astype(int)
    plain = pixels[5, 5]
    assert (pixels[25:35, 45:55] != plain).any(axis=-1).all(), "the patch that speaks for it"
    assert (pixels[30, 50] - plain)[0] > 0 > (pixels[30, 50] - plain)[2], "orange"
    assert (pixels[50, 30] - plain)[1] < (pixels[50, 30] - plain)[2], "purple"
    patches = pixels.reshape(4, 20, 4, 20, 3).transpose(0, 2, 1, 3, 4).reshape(16, -1, 3)
    assert [n for n, patch in enumerate(patches) if (patch != plain).any()] == [6, 9]


def test_large_and_tiny_images_are_shown(backbones: Backbones, detector_of: Detectors) -> None:
    sizes = [(600, 900), (3, 300), (2, 2)]
    inputs = [np.full((*size, 3), 90, dtype=np.uint8) for size in sizes]
    shown = explain(backbones("vit"), detector_of("vit"), inputs, methods=["activation"], concepts=["loud"])
    for item, (_, wide) in zip(shown, sizes, strict=True):
        (source, _) = [str(a["src"]) for tag, a in harmless(item._repr_html_()).tags if tag == "img"]
        with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as opened:
            assert opened.width == min(wide, 224)


def test_a_page_holds_all_maps_and_nothing_that_runs(found: list[Attribution], tmp_path: Path) -> None:
    write_page(tmp_path / "maps.html", [item._repr_html_() for item in found])
    page = (tmp_path / "maps.html").read_text("utf-8")
    parsed = harmless(page)
    assert "<script" not in page
    assert len([tag for tag, _ in parsed.tags if tag == "b"]) == 3 * len(METHODS) * 6
    for text in TEXTS:
        assert text in "".join(parsed.texts)


@pytest.mark.parametrize("name", [".", "", "a folder", "nowhere/maps.html"])
def test_a_page_that_cannot_be_written_gives_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a folder").mkdir()
    with pytest.raises(StoreError) as caught:
        write_page(Path(name), ["x"])
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a folder"]


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("inputs", "more", "kind", "part"),
    [
        ("one text", {}, DataError, "wrap it in []"),
        (["fine", "  "], {}, DataError, "input 1 must be a text that is not blank"),
        (["fine", Path("a.png")], {}, DataError, "input 1 must be a text"),
        (["fine"], {"methods": ["rice"]}, StudyError, "did you mean 'rise'?"),
        (["fine"], {"concepts": ["reed"]}, StudyError, "unknown concept 'reed'; did you mean 'red'?"),
        (["fine"], {"concepts": []}, StudyError, "name at least one"),
        (["fine"], {"objectives": ["concepts"]}, StudyError, "unknown objective 'concepts'; did you mean 'concept'?"),
        (["fine"], {"objectives": []}, StudyError, "name at least one"),
        (["fine"], {"hiding": "blur"}, StudyError, "unknown way 'blur' to hide tokens of a model of texts"),
        (["fine"], {"budget": 1}, StudyError, "budget"),
        (["fine"], {"options": {"rise": {"budgets": 3}}}, StudyError, "no option 'budgets'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_mistakes_are_refused_in_one_line(
    inputs: Any, more: dict[str, Any], kind: type[Exception], part: str, backbones: Backbones, detector_of: Detectors
) -> None:
    with pytest.raises(kind) as caught:
        explain(backbones("bert"), detector_of("bert"), inputs, **{"methods": ["rise"], "budget": 4, **more})
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_backbone_of_other_weights_is_refused(backbones: Backbones, detector_of: Detectors) -> None:
    detector = replace(detector_of("bert"), model={"name": "elsewhere", "fingerprint": "0" * 64})
    with pytest.raises(ModelError, match="other weights or settings"):
        explain(backbones("bert"), detector, TEXTS[:1])


def test_no_inputs_give_no_maps(backbones: Backbones, detector_of: Detectors) -> None:
    assert explain(backbones("bert"), detector_of("bert"), []) == []


def test_names_of_samples_do_not_show(found: list[Attribution], seen: list[Attribution]) -> None:
    assert isinstance(found[0].sample, TextSample)
    assert isinstance(seen[0].sample, ImageSample)
    assert [item.input for item in seen] == ["image 0", "image 1", "image 2"]
    assert repr(found[0]) == f"Attribution({TEXTS[0][:40]!r}: red, loud, warm by {', '.join(METHODS)})"
