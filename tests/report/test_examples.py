"""Examples are test samples, chosen by rule, and show each token's own activation."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from superactivators.report.examples import per_concept, pick
from superactivators.report.inputs import ReportInputs
from superactivators.report.pictures import SIDE, mask_uri, picture


def test_examples_are_of_the_test_split_and_of_the_right_case(text_study: ReportInputs, text_payload: dict) -> None:
    labels, kind = text_study.labels, text_payload["examples"]["kind"]
    assert kind == text_study.result.summary["best_kind_on_cal"]
    seen = set()
    for number, name in enumerate(text_payload["concepts"]):
        chosen = text_study.result.summary["chosen"][kind]["superactivators"][name]
        pooled = text_study.scores(kind, "token", chosen["site"]).pooled["max"]
        for example in text_payload["examples"]["concepts"][number]:
            sample = labels.ids.index(example["sample"])
            assert labels.splits[sample] == "test"
            fires = float(pooled[sample, number]) >= chosen["threshold"]
            case = {(True, True): "hit", (True, False): "false alarm", (False, True): "miss"}
            assert case[bool(fires), bool(labels.samples[sample, number])] == example["case"]
            assert bool(example["fires"]) == fires
            seen.add(example["case"])
    assert seen == {"hit", "false alarm", "miss"}


def test_text_tokens_carry_their_own_characters_and_labels(text_study: ReportInputs, text_payload: dict) -> None:
    samples = {sample.id: sample for sample in text_study.dataset.samples}
    for number, name in enumerate(text_payload["concepts"]):
        for example in text_payload["examples"]["concepts"][number]:
            sample = samples[example["sample"]]
            assert example["text"] == sample.text
            words = [example["text"][start:end] for start, end in example["chars"]]
            assert words == sample.text.split()
            marked = {
                token
                for token, (start, end) in enumerate(example["chars"])
                for span in sample.spans
                if span.concept == name and start < span.end and span.start < end
            }
            assert set(example["inside"]) == marked
            assert len(example["scores"]) == len(words)
            assert max(example["scores"]) == example["score"]


def test_long_texts_are_cut_around_their_highest_token(
    text_study: ReportInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superactivators.report.examples.WINDOW", 5)
    from superactivators.report.examples import examples

    samples = {sample.id: sample for sample in text_study.dataset.samples}
    for entries in examples(text_study)["concepts"]:
        for example in entries:
            words = samples[example["sample"]].text.split()
            first, last, total = example["window"]
            assert (last - first, total) == (5, len(words))
            shown = [example["text"][start:end] for start, end in np.asarray(example["chars"]).tolist()]
            assert shown == words[first:last]
            assert np.max(example["scores"]) == example["score"]
            assert all(0 <= token < 5 for token in np.asarray(example["inside"]).tolist())


def test_pictures_are_embedded_once_with_their_view(image_study: ReportInputs, image_payload: dict) -> None:
    pictures = image_payload["examples"]["pictures"]
    used = {example["sample"] for entries in image_payload["examples"]["concepts"] for example in entries}
    assert used == set(pictures)
    for entry in pictures.values():
        with Image.open(io.BytesIO(base64.b64decode(entry["src"].split(",")[1]))) as image:
            assert (image.size, image.format) == ((entry["width"], entry["height"]), "JPEG")
        assert entry["view"] == [25, 0, 115, 90]
        assert entry["grid"] == [8, 8]
    masks = [
        e["mask"] for entries in image_payload["examples"]["concepts"] for e in entries if e["case"] != "false alarm"
    ]
    assert all(mask.startswith("data:image/png;base64,") for mask in masks)


def test_large_pictures_shrink_with_their_view() -> None:
    entry = picture(Image.new("RGB", (1152, 576)), np.array([288.0, 0.0, 864.0, 576.0]), np.array([2, 2]), np.arange(4))
    assert (entry["width"], entry["height"]) == (SIDE, SIDE // 2)
    assert entry["view"].tolist() == [72, 0, 216, 144]


@pytest.mark.parametrize("box", [(slice(100, 300), slice(50, 90)), (slice(7, 8), slice(9, 10))])
def test_masks_keep_their_place(box: tuple[slice, slice]) -> None:
    mask = np.zeros((400, 800), dtype=bool)
    mask[box] = True
    with Image.open(io.BytesIO(base64.b64decode(mask_uri(mask).split(",")[1]))) as image:
        assert image.mode == "1"
        small = np.asarray(image)
    assert small.shape == (144, 288)
    rows, columns = np.nonzero(small)
    centre = np.array([rows.mean() + 0.5, columns.mean() + 0.5]) / 0.36
    wanted = np.array([(box[0].start + box[0].stop) / 2, (box[1].start + box[1].stop) / 2])
    assert np.abs(centre - wanted).max() < 3


def test_rule_of_choice() -> None:
    scores = np.array([9, 8, 7, 6, 5, 1, 2, 9.5, 0], dtype=np.float32)
    truth = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0], dtype=bool)
    found = pick(scores, truth, 4.5, {"hit": 2, "false alarm": 2, "miss": 1})
    assert found == [("hit", 0, 1, 5), ("hit", 2, 3, 5), ("false alarm", 7, 1, 1), ("miss", 5, 1, 2)]


def test_many_concepts_get_fewer_examples_each() -> None:
    few, many = per_concept(5, "image"), per_concept(500, "image")
    assert few == {"hit": 4, "false alarm": 3, "miss": 3}
    assert set(many.values()) == {1}
