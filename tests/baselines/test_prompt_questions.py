"""Options and questions: what is asked, what is refused, what makes a question another one."""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from baselines.asked_data import images, labels_of, texts
from superactivators.baselines.prompt import estimate
from superactivators.baselines.prompt_options import PromptOptions
from superactivators.baselines.prompt_questions import Questionnaire
from superactivators.data.dataset import ConceptDataset, ImageSample
from superactivators.errors import StudyError

HERE = "http://127.0.0.1:1/v1"


def form_of(dataset: ConceptDataset, **options: Any) -> Questionnaire:
    return Questionnaire(dataset, labels_of(dataset), PromptOptions("m", HERE, **options))


def test_one_question_for_each_sample_of_the_splits_and_each_concept() -> None:
    form = form_of(texts())
    asked = [(question.row, question.column, question.sample, question.concept) for question in form.questions("m")]
    assert asked == [(r, c, f"t{r}", name) for r in (1, 3, 4) for c, name in enumerate(("joy", "fear"))]
    assert len(form) == len(asked)
    assert {q.row for q in form_of(texts(), splits=("cal", "train")).questions("m")} == {0, 2}


def test_a_text_is_quoted_as_it_is_and_stands_before_the_concept() -> None:
    form = form_of(texts())
    system, user = form.messages(next(form.questions("m")))
    assert system == {
        "role": "system",
        "content": "You decide whether a concept is present in a given text. Answer with yes or no, and nothing else.",
    }
    assert user["role"] == "user"
    assert user["content"] == (
        'Text:\n"""\ntext number 1 with {braces} über 😀\n"""\n\n'
        'Is the concept "joy" present in this text? Answer with yes or no.'
    )


def test_template_system_and_descriptions_are_used() -> None:
    form = form_of(
        texts(),
        template="{{x}} {concepts}: {concept} = {description}? {text}",
        system="",
        descriptions={"joy": "being {glad}"},
    )
    first, second = list(form.questions("m"))[:2]
    text = "text number 1 with {braces} über 😀"
    assert form.messages(first) == [{"role": "user", "content": f"{{x}} joy, fear: joy = being {{glad}}? {text}"}]
    assert form.messages(second) == [{"role": "user", "content": f"{{x}} joy, fear: fear = fear? {text}"}]
    default = form_of(texts(), descriptions={"fear": "being afraid"})
    joy, fear = (default.user(1, column).splitlines()[-1] for column in (0, 1))
    assert joy == 'Is the concept "joy" present in this text? Answer with yes or no.'
    assert fear == 'Is the concept "fear" (being afraid) present in this text? Answer with yes or no.'


def pixels_of(url: str) -> tuple[str, np.ndarray]:
    head, data = url.split(",", 1)
    return head, np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_an_image_goes_along_with_exactly_its_pixels() -> None:
    dataset = images()
    form = form_of(dataset)
    question = next(form.questions("m"))
    system, user = form.messages(question)
    assert "given image" in system["content"]
    image, text = user["content"]
    assert text == {"type": "text", "text": 'Is the concept "red" present in this image? Answer with yes or no.'}
    head, pixels = pixels_of(image["image_url"]["url"])
    assert image["type"] == "image_url"
    assert head == "data:image/png;base64"
    np.testing.assert_array_equal(pixels, dataset.samples[1].image)


def test_large_images_are_sent_as_jpeg_and_made_smaller_if_wanted() -> None:
    noise = images(2, size=(1000, 700))
    head, pixels = pixels_of(
        form_of(noise).messages(next(form_of(noise).questions("m")))[1]["content"][0]["image_url"]["url"]
    )
    assert (head, pixels.shape) == ("data:image/jpeg;base64", (700, 1000, 3))
    assert np.abs(pixels.astype(int) - noise.samples[1].image).mean() < 10
    form = form_of(noise, image_side=100)
    head, pixels = pixels_of(form.messages(next(form.questions("m")))[1]["content"][0]["image_url"]["url"])
    assert (head, pixels.shape) == ("data:image/png;base64", (70, 100, 3))


def test_the_key_changes_with_whatever_changes_the_answer_and_with_nothing_else(tmp_path: Path) -> None:
    def keys(dataset: ConceptDataset, model: str = "m", **options: Any) -> list[str]:
        return [question.key for question in form_of(dataset, **options).questions(model)]

    plain = keys(texts())
    assert len(set(plain)) == len(plain)
    for changed in (
        {"model": "other"},
        {"max_tokens": 65},
        {"system": "Say yes or no."},
        {"template": "{concept}? {text}"},
        {"extra": {"seed": 1}},
    ):
        assert not set(keys(texts(), **changed)) & set(plain), changed
    same = {
        "concurrency": 2,
        "batch": 3,
        "retries": 1,
        "timeout": 3.0,
        "price_in": 1,
        "price_out": 2,
        "api_key_env": "K",
    }
    assert keys(texts(), **same) == plain
    assert keys(texts(), splits=("test", "cal"))[:2] == plain[:2]
    described = keys(texts(), descriptions={"joy": "being glad"})
    assert [one == other for one, other in zip(plain, described, strict=True)] == [False, True] * 3
    # another concept, or other samples, leave the answers of the rest alone
    assert keys(texts(concepts=("joy",))) == plain[::2]
    moved = texts()
    moved = replace(moved, samples=moved.samples[::-1])
    assert sorted(keys(moved)) == sorted(plain)
    edited = replace(moved, samples=(replace(moved.samples[0], text="new"), *moved.samples[1:]))
    assert len(set(keys(edited)) & set(plain)) == 4

    shown = images()
    plain = keys(shown)
    written = []
    for sample in shown.samples:
        Image.fromarray(sample.image).save(tmp_path / f"{sample.id}.png")
        written.append(replace(sample, image=tmp_path / f"{sample.id}.png"))
    assert keys(replace(shown, samples=tuple(written))) == plain  # a file with the same pixels
    other = shown.samples[1].image.copy()
    other[0, 0, 0] ^= 1
    assert (
        len(set(keys(replace(shown, samples=(shown.samples[0], replace(shown.samples[1], image=other))))) & set(plain))
        == 0
    )


def test_what_does_not_fit_the_data_is_one_line() -> None:
    for message, dataset, options in [
        ("no {concept}", texts(), {"template": "{text}?"}),
        ("no {text}", texts(), {"template": "{concept}?"}),
        ("the samples are images", images(), {"template": "{text} {concept}?"}),
        ("a description is of 'jo'; did you mean 'joy'", texts(), {"descriptions": {"jo": "x"}}),
        ("no sample of cal", texts(2), {"splits": ("cal",)}),
    ]:
        with pytest.raises(StudyError, match=message.replace("{", r"\{")) as caught:
            form_of(dataset, **options)
        assert "\n" not in str(caught.value)
    with pytest.raises(StudyError, match=r"2 labelled samples are not in the data set \(first: 't3'\)"):
        Questionnaire(texts(3), labels_of(texts()), PromptOptions("m", HERE))


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model must be a text that is not empty"),
    ({"endpoint": "localhost:8000"}, "endpoint must be a URL such as"),
    ({"endpoint": "ftp://x/v1"}, "endpoint must be a URL such as"),
    ({"endpoint": "http://host:99999/v1"}, "endpoint must be a URL such as"),
    ({"endpoint": "https://me:secret-thing@host/v1"}, "without user, password"),
    ({"endpoint": "https://host/v1?key=secret-thing"}, "without user, password"),
    ({"endpoint": "https://host/v1/chat/completions"}, "leave out /chat/completions"),
    ({"api_key_env": "sk-secret-thing"}, "name of an environment variable in capitals"),
    ({"api_key_env": "secretthing1234"}, "name of an environment variable in capitals"),
    ({"endpoint": None, "api_key_env": "KEY"}, "api_key_env is for an endpoint"),
    ({"device": "cpu"}, "device is for a local model"),
    ({"endpoint": None, "dtype": "int8"}, "unknown dtype 'int8'"),
    ({"splits": "test"}, "splits must be a list"),
    ({"splits": []}, "name at least one split"),
    ({"splits": ["tst"]}, "unknown split 'tst'; did you mean 'test'"),
    ({"max_tokens": 0}, "max_tokens must be a whole number, at least 1; got 0"),
    ({"max_tokens": True}, "max_tokens must be a whole number"),
    ({"batch": 0}, "batch must be a whole number"),
    ({"retries": -1}, "retries must be a whole number, at least 0"),
    ({"timeout": 0}, "timeout must be a number above 0"),
    ({"timeout": float("nan")}, "timeout must be a number above 0"),
    ({"price_in": -1, "price_out": 1}, "price_in must be a number of at least 0"),
    ({"price_in": 1}, "give both price_in and price_out"),
    ({"image_side": 3}, "image_side must be a whole number, at least 16"),
    ({"template": "{concpt}"}, "unknown field {concpt}; did you mean 'concept'"),
    ({"template": "{concept!r}"}, "may have no format"),
    ({"template": "{concept:>9}"}, "may have no format"),
    ({"template": "{concept.__class__}"}, "unknown field"),
    ({"template": "{}"}, "unknown field {}"),
    ({"template": "{concept"}, "the template has a fault"),
    ({"template": "{concept} {text}", "descriptions": {"joy": "x"}}, "has no {description}"),
    ({"descriptions": {"joy": ""}}, "descriptions must map concept names to texts"),
    ({"extra": {"model": "x"}}, "extra may not set 'model'"),
    ({"extra": {"x": {1}}}, "extra holds what is not JSON"),
    ({"extra": {"x": float("nan")}}, "extra holds what is not JSON"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=str)
def test_bad_options_are_one_line_that_shows_no_secret(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=re.escape(message)) as caught:
        PromptOptions(**{"model": "m", "endpoint": HERE} | options)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_wrong_types_are_one_line_too() -> None:
    # in a process of its own, because tests check annotations before any of our code runs
    wrong = [{"model": 3}, {"api_key_env": 5}, {"concurrency": 1.5}, {"descriptions": ["joy"]}, {"extra": [1]}]
    wrong += [{"splits": 3}, {"splits": [1]}, {"timeout": "3"}, {"price_in": "a", "price_out": 1}, {"template": 1}]
    code = f"""
from superactivators.baselines.prompt_options import PromptOptions
from superactivators.errors import StudyError
for wrong in {wrong!r}:
    try:
        PromptOptions(**{{"model": "m", "endpoint": "{HERE}"}} | wrong)
        print("accepted", wrong)
    except StudyError as error:
        print(str(error) if list(wrong)[0] in str(error) else f"speaks of something else: {{error}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(wrong)
    assert all(line.startswith("prompt: ") for line in lines), lines


def test_options_are_json_and_come_back() -> None:
    options = PromptOptions(
        "m", HERE, splits=["test", "cal", "test"], descriptions={"joy": "x"}, extra={"a": [1, None]}
    )
    assert options.splits == ("test", "cal")
    assert PromptOptions(**json.loads(json.dumps(options.to_json()))) == options


def test_estimate_counts_questions_tokens_and_cost() -> None:
    dataset = texts()
    options = PromptOptions("m", HERE, max_tokens=10, price_in=2.0, price_out=8.0)
    said = estimate(dataset, labels_of(dataset), options)
    form = form_of(dataset)
    letters = sum(
        len(form.system()) + 20 + len(form.user(question.row, question.column)) for question in form.questions("m")
    )
    assert said["questions"] == 6
    assert said["from_log"] == 0
    assert said["tokens_in"] == round(letters / 4)
    assert said["tokens_out"] == 60
    assert said["cost"] == pytest.approx((said["tokens_in"] * 2 + 60 * 8) / 1e6)
    assert estimate(dataset, labels_of(dataset), PromptOptions("m", HERE))["cost"] is None
    large = ConceptDataset(
        "large",
        ("red",),
        (ImageSample("a", np.zeros((600, 1000, 3), dtype=np.uint8), labels=frozenset(), split="test"),),
    )
    whole = estimate(large, labels_of(large), PromptOptions("m", HERE))["tokens_in"]
    half = estimate(large, labels_of(large), PromptOptions("m", HERE, image_side=500))["tokens_in"]
    assert whole - half == pytest.approx(600_000 / 750 * 3 / 4, abs=1)
