"""New texts and images: the decisions that the study made for the same samples, whatever they are run together with."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from superactivators.concepts.learning import learn_concepts
from superactivators.data.dataset import ConceptDataset, ImageSample, Span, TextSample
from superactivators.detection import inference
from superactivators.detection.detector import Detector
from superactivators.detection.inference import Detection, detect, load_backbone
from superactivators.detection.superactivators import SuperActivatorDetector
from superactivators.errors import DataError, ModelError, StudyError
from superactivators.models.backbone import Backbone
from superactivators.models.encoding import Encoding
from superactivators.scores.layout import Layout
from superactivators.states.extraction import extract
from superactivators.states.states import States
from superactivators.states.store import StateStore
from tiny_models import SENTENCES, build_checkpoint

ROUNDING = 4e-3
"""Batches change states in their last digit, and half precision makes a thousandth of that."""


@dataclass
class Made:
    """A detector with the backbone, states and inputs that it was made from."""

    detector: Detector
    backbone: Backbone
    states: States
    inputs: list[Any]

    @property
    def encoding(self) -> Encoding:
        assert isinstance(self.states.values, StateStore)
        return self.states.values.encoding

    def expected(self) -> list[np.ndarray]:
        """Activations of the stored states of every input, [tokens, concepts]."""
        rows = {site: torch.cat([block for _, block in self.states.values.blocks(site)]) for site in self.states.sites}
        found = self.detector.activations(rows)
        return np.split(found, self.states.offsets[1:-1])


def make(dataset: ConceptDataset, inputs: list[Any], checkpoint: Path, out: Path) -> Made:
    backbone = Backbone.from_pretrained(checkpoint, device="cpu")
    states = extract(backbone, dataset, [0, -1], out=out, dtype="float16")
    banks = [learn_concepts(states, site, ["mean"])[0] for site in states.sites]
    fitted = SuperActivatorDetector(banks).calibrate(states)
    store = states.values
    assert isinstance(store, StateStore)
    made = Detector.of({bank.site: bank for bank in banks}, fitted.thresholds, model=store.model, dtype=store.dtype)
    return Made(made, backbone, states, inputs)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("texts")
    random, samples = np.random.default_rng(0), []
    words = [word for number in (0, 1, 3, 6) for word in re.findall(r"\w+", SENTENCES[number])]
    for number in range(45):
        text = " ".join(random.choice(words, size=int(random.integers(3, 20))))
        spans = [
            Span(found.start(), found.end(), concept)
            for concept, word in (("animals", r"\b(fox|dog)\b"), ("articles", r"\b(the|a|The|A)\b"))
            for found in re.finditer(word, text)
        ]
        if number < 9 and not any(span.concept == "animals" for span in spans):
            spans.append(Span(len(text) + 1, len(text) + 4, "animals"))
            text = f"{text} dog"
        if number % 3:
            text = f"{text} layer. {random.choice(words)} {random.choice(words)}"
        samples.append(TextSample(f"t{number}", text, tuple(spans), split=("train", "cal", "test")[number % 3]))
    dataset = ConceptDataset("tiny texts", ("animals", "articles"), tuple(samples))
    inputs = [sample.text for sample in samples]
    return make(dataset, inputs, build_checkpoint("bert", folder / "bert"), folder / "states")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("images")
    random, samples = np.random.default_rng(1), []
    for number in range(24):
        height, width = int(random.integers(40, 70)), int(random.integers(50, 90))
        pixels = random.integers(0, 60, size=(height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), dtype=np.uint8)
        if number % 2:
            top, left = height // 3, width // 3
            pixels[top : top + 15, left : left + 15] = (250, 30, 30)
            mask[top : top + 15, left : left + 15] = 1
        split = ("train", "cal", "test")[number // 2 % 3]
        samples.append(ImageSample(f"i{number}", pixels, mask, split=split))
    dataset = ConceptDataset("tiny images", ("red",), tuple(samples), {1: ("red",)})
    inputs = [sample.image for sample in samples]
    return make(dataset, inputs, build_checkpoint("dinov2", folder / "dinov2"), folder / "states")


@pytest.fixture(params=["texts", "images"])
def made(request: pytest.FixtureRequest) -> Made:
    found: Made = request.getfixturevalue(request.param)
    return found


def compare(found: Sequence[Detection], expected: Sequence[np.ndarray], detector: Detector) -> int:
    """Compare with stored activations; return how many decisions were far enough from the threshold to be sure of."""
    sure = 0
    for detection, own in zip(found, expected, strict=True):
        assert [finding.concept for finding in detection.findings] == list(detector.concepts)
        for c, finding in enumerate(detection.findings):
            np.testing.assert_allclose(finding.activations, own[:, c], atol=ROUNDING)
            assert finding.score == float(finding.activations.max())
            threshold = detector.thresholds[c].value
            if abs(float(own[:, c].max()) - threshold) > ROUNDING:
                assert finding.present == bool(own[:, c].max() >= threshold)
                assert (finding.concept in detection.present) == finding.present
                sure += 1
    return sure


def test_it_decides_as_the_study_did_for_the_same_samples(made: Made) -> None:
    found = list(detect(made.detector, made.inputs, made.backbone))
    sure = compare(found, made.expected(), made.detector)
    assert sure > 0.8 * len(made.inputs) * len(made.detector.concepts)
    labels = made.states.labels.samples
    present = np.array([[finding.present for finding in detection.findings] for detection in found])
    assert present.any()
    assert not present.all()
    assert (present == labels).mean() > 0.5
    exact = np.concatenate(
        [
            np.abs(np.stack([finding.activations for finding in detection.findings], axis=1) - own).ravel()
            for detection, own in zip(found, made.expected(), strict=True)
        ]
    )
    assert np.median(exact) < 1e-6, "most states are rounded to the very numbers that were stored"


@pytest.mark.parametrize("batch", [1, 5])
def test_batches_change_nothing(made: Made, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "BATCH", batch)
    compare(list(detect(made.detector, made.inputs[:12], made.backbone)), made.expected()[:12], made.detector)


def asking(made: Made, within: str) -> Detector:
    """The same detector with evidence of two tokens, and thresholds that are often reached."""
    values = np.quantile(np.concatenate(made.expected()), 0.8, axis=0).tolist()
    thresholds = [
        replace(threshold, min_tokens=2, within=within, value=value)
        for threshold, value in zip(made.detector.thresholds, values, strict=True)
    ]
    return replace(made.detector, thresholds=tuple(thresholds))


@pytest.mark.parametrize("within", ["sample", "segment"])
def test_new_inputs_need_evidence_of_as_many_tokens(made: Made, within: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences and patch grids come from the inputs themselves; compared with loops over pairs of tokens."""
    detector, present, sure, shown = asking(made, within), 0, 0, 0
    monkeypatch.setattr(inference, "BATCH", 7)
    for detection in detect(detector, made.inputs, made.backbone):
        places = neighbourhoods(detection, within)
        for c, finding in enumerate(detection.findings):
            own, value = finding.activations.tolist(), detector.thresholds[c].value
            pairs = [(s, t) for s in range(len(own)) for t in range(s) if places(s, t)]
            best = max((min(own[s], own[t]) for s, t in pairs), default=-np.inf)
            assert finding.score == best
            assert finding.present == (best >= value)
            fired = {token for pair in pairs if min(own[pair[0]], own[pair[1]]) >= value for token in pair}
            assert set(finding.fired.tolist()) == fired
            present += finding.present
            sure += sum(activation >= value for activation in own) >= 2 and not finding.present
        for item in detection.as_dict(everything=True)["concepts"]:
            assert (item["min_tokens"], item["within"]) == (2, within)
            assert item["score"] is None or np.isfinite(item["score"])
            assert bool(item["tokens"]) == item["present"]
            shown += 1
    assert shown == len(made.inputs) * len(detector.concepts)
    assert present > 5
    assert bool(sure) == (within == "segment"), "two tokens that are not in one segment"


def neighbourhoods(detection: Detection, within: str) -> Callable[[int, int], bool]:
    """Whether two tokens count together."""
    encoding = detection.encoding
    if within == "sample":
        return lambda s, t: True
    if encoding.chars is not None:
        points = [found.end() for found in re.finditer(r"[.!?]\s", detection.input)]
        numbers = [sum(point <= end - 1 for point in points) for _, end in encoding.chars.tolist()]
        return lambda s, t: numbers[s] == numbers[t]
    assert encoding.cells is not None
    assert encoding.grids is not None
    columns = int(encoding.grids[0, 1])
    at = [divmod(int(cell), columns) for cell in encoding.cells]
    return lambda s, t: max(abs(at[s][0] - at[t][0]), abs(at[s][1] - at[t][1])) == 1


def test_stored_images_know_their_grids(images: Made) -> None:
    banks = images.detector.banks
    fitted = SuperActivatorDetector(banks, min_tokens=(2, 3), within="segment").calibrate(images.states)
    again = SuperActivatorDetector(
        banks, min_tokens=(2, 3), within="segment", layout=Layout.of_images(images.encoding)
    ).calibrate(images.states)
    assert fitted.thresholds == again.thresholds
    assert fitted.evaluate(images.states).equals(
        again.evaluate(images.states, layout=Layout.of_images(images.encoding))
    )


def test_stored_texts_need_the_texts(texts: Made) -> None:
    banks = texts.detector.banks[:1]
    names = {threshold.concept for threshold in texts.detector.thresholds if threshold.site == banks[0].site}
    states = texts.states.with_concepts([name for name in texts.detector.concepts if name in names])
    with pytest.raises(StudyError, match="got no layout"):
        SuperActivatorDetector(banks, min_tokens=2, within="segment").calibrate(states)
    layout = Layout.of_texts(texts.inputs, texts.encoding)
    fitted = SuperActivatorDetector(banks, min_tokens=2, within="segment", layout=layout).calibrate(states)
    assert fitted.needs_layout


def test_results_come_in_the_order_of_the_inputs(made: Made) -> None:
    order = np.random.default_rng(2).permutation(len(made.inputs))
    found = list(detect(made.detector, [made.inputs[i] for i in order], made.backbone))
    expected = made.expected()
    compare(found, [expected[i] for i in order], made.detector)
    if isinstance(made.inputs[0], str):
        assert [detection.input for detection in found] == [made.inputs[i] for i in order]
    else:
        assert [detection.input for detection in found] == [f"image {number}" for number in range(len(order))]


def test_the_detector_brings_its_own_backbone(texts: Made, tmp_path: Path) -> None:
    texts.detector.save_pretrained(tmp_path / "detector")
    again = Detector.from_pretrained(tmp_path / "detector")
    assert load_backbone(again).fingerprint == texts.backbone.fingerprint
    compare(list(detect(again, texts.inputs[:4])), texts.expected()[:4], texts.detector)


def test_texts_say_where(texts: Made) -> None:
    for detection in detect(texts.detector, texts.inputs[:10], texts.backbone):
        content = detection.as_dict(everything=True)
        assert content["input"] == detection.input
        assert {item["concept"] for item in content["concepts"]} == set(texts.detector.concepts)
        assert content["present"] == [item["concept"] for item in content["concepts"] if item["present"]]
        margins = [item["score"] - item["threshold"] for item in content["concepts"]]
        assert margins == sorted(margins, reverse=True)
        for item in content["concepts"]:
            assert bool(item["tokens"]) == item["present"]
            for token in item["tokens"]:
                assert detection.input[token["start"] : token["end"]] == token["text"]
                assert token["text"].strip()
                assert token["activation"] >= item["threshold"]
        assert {item["concept"] for item in detection.as_dict()["concepts"]} == set(detection.present)


def test_images_say_where(images: Made) -> None:
    shown = 0
    for detection, pixels in zip(detect(images.detector, images.inputs, images.backbone), images.inputs, strict=True):
        for item in detection.as_dict()["concepts"]:
            for token in item["tokens"]:
                left, top, right, bottom = token["box"]
                assert 0 <= left < right <= pixels.shape[1] + 0.01
                assert 0 <= top < bottom <= pixels.shape[0] + 0.01
                assert token["row"] * 6 + token["column"] == token["index"]  # 4 rows of 6 patches
                shown += 1
    assert shown


def test_images_come_as_pixels_pictures_or_paths(images: Made, tmp_path: Path) -> None:
    pixels = images.inputs[1]
    Image.fromarray(pixels).save(tmp_path / "one.png")
    given = [pixels, Image.fromarray(pixels), tmp_path / "one.png", str(tmp_path / "one.png")]
    found = list(detect(images.detector, given, images.backbone))
    names = ["image 0", "image 1", str(tmp_path / "one.png"), str(tmp_path / "one.png")]
    assert [detection.input for detection in found] == names
    compare(found, [images.expected()[1]] * 4, images.detector)


def test_no_input_no_result(made: Made) -> None:
    assert list(detect(made.detector, [], made.backbone)) == []


def test_a_lone_text_is_not_taken_for_a_list_of_characters(texts: Made) -> None:
    with pytest.raises(DataError, match="must be a list of texts"):
        list(detect(texts.detector, "the dog", texts.backbone))


@pytest.mark.parametrize("wrong", ["", "   ", Path("dog.txt")])
def test_blank_texts_and_other_things_are_refused(texts: Made, wrong: Any) -> None:
    with pytest.raises(DataError, match="input 1 must be a text that is not blank"):
        list(detect(texts.detector, ["the dog", wrong], texts.backbone))


def test_pixels_of_the_wrong_kind_and_missing_files_are_refused(images: Made, tmp_path: Path) -> None:
    for wrong in (np.zeros((4, 4), dtype=np.uint8), np.zeros((4, 4, 3), dtype=np.float32)):
        with pytest.raises(DataError, match="input 0 must be RGB pixels"):
            list(detect(images.detector, [wrong], images.backbone))
    with pytest.raises(DataError, match="cannot be read as an image"):
        list(detect(images.detector, [tmp_path / "missing.png"], images.backbone))


def test_another_backbone_or_none_is_refused(texts: Made, images: Made) -> None:
    with pytest.raises(ModelError, match="other weights"):
        list(detect(texts.detector, ["the dog"], images.backbone))
    nameless = Detector.of({bank.site: bank for bank in texts.detector.banks}, texts.detector.thresholds)
    with pytest.raises(ModelError, match="made from arrays"):
        list(detect(nameless, ["the dog"]))
