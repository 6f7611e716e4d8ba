"""Local chat models: prompts, padding, greedy answers, images, and models that cannot be asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from baselines.asked_data import images, labels_of
from baselines.tiny_chat import (
    FORGETS_SYSTEM_TEMPLATE,
    IMAGE_TEMPLATE,
    NO_SYSTEM_TEMPLATE,
    TEXT_TEMPLATE,
    build_chat_model,
    build_vision_chat_model,
)
from superactivators.baselines import prompt_local
from superactivators.baselines.prompt import PromptAnswers, ask_prompts
from superactivators.baselines.prompt_local import LocalChat, checkpoint_identity
from superactivators.baselines.prompt_log import read_answers
from superactivators.baselines.prompt_options import PromptOptions
from superactivators.baselines.prompt_questions import Questionnaire
from superactivators.data.dataset import ConceptDataset, TextSample
from superactivators.errors import ModelError
from superactivators.models.quiet import quiet_transformers
from tiny_models import SENTENCES, build_checkpoint

SYSTEM = "You decide whether a concept is present in a given {}. Answer with yes or no, and nothing else."


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_chat_model(tmp_path_factory.mktemp("chat") / "tiny")


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_vision_chat_model(tmp_path_factory.mktemp("vision") / "tiny")


def uneven_texts(n: int = 4) -> ConceptDataset:
    """Texts of very different lengths, all of test."""
    written = [SENTENCES[0], "Hm.", f"{SENTENCES[3]} {SENTENCES[4]}", SENTENCES[5][:6], *SENTENCES]
    samples = tuple(TextSample(f"t{k}", text, labels=frozenset(), split="test") for k, text in enumerate(written[:n]))
    return ConceptDataset("uneven", ("joy", "being afraid of foxes"), samples)


def ask(dataset: ConceptDataset, model: Path, log: Path, **options: Any) -> tuple[PromptAnswers, list[dict[str, Any]]]:
    options = {"max_tokens": 12, "device": "cpu"} | options
    answers = ask_prompts(dataset, labels_of(dataset), PromptOptions(str(model), **options), log)
    return answers, [dict(record) for record in read_answers(log)]


def local(dataset: ConceptDataset, model: Path, **options: Any) -> tuple[LocalChat, list[Any]]:
    made = PromptOptions(str(model), **{"max_tokens": 12, "device": "cpu"} | options)
    form = Questionnaire(dataset, labels_of(dataset), made)
    return LocalChat(form, made, model), list(form.questions("m"))


def slow_greedy(model: Any, inputs: dict[str, torch.Tensor], steps: int, end: int) -> list[int]:
    """Write token after token from the whole sequence, without a cache, a batch or padding."""
    ids = inputs["input_ids"]
    rest = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
    start = ids.shape[1]
    with torch.no_grad():
        for _ in range(steps):
            token = model(input_ids=ids, **rest).logits[0, -1].argmax()
            ids = torch.cat([ids, token.view(1, 1)], dim=1)
            if int(token) == end:
                break
    return ids[0, start:].tolist()


def chat_prompt(dataset: ConceptDataset, record: dict[str, Any]) -> str:
    text = next(sample.text for sample in dataset.samples if sample.id == record["sample"])
    return (
        f"<s><|system|>{SYSTEM.format('text')}<|end|><|user|>"
        f'Text:\n"""\n{text}\n"""\n\nIs the concept "{record["concept"]}" present in this text? Answer with yes or no.'
        "<|end|><|assistant|>"
    )


@pytest.mark.parametrize("pad", [True, False], ids=["pad token", "no pad token"])
def test_answers_are_those_of_a_slow_loop_for_every_batch_size(tmp_path: Path, pad: bool) -> None:
    model = build_chat_model(tmp_path / "model", pad=pad)
    dataset = uneven_texts()
    with quiet_transformers():
        slow = transformers.AutoModelForCausalLM.from_pretrained(model)
        tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    by_batch = {}
    for batch in (1, 3, 8):
        answers, records = ask(dataset, model, tmp_path / f"{batch}.jsonl", batch=batch)
        by_batch[batch] = [(record["sample"], record["concept"], record["raw"]) for record in records]
        assert (answers.counts["asked"], answers.counts["places"]) == (8, ["local"])
        for record in records:
            ids = tokenizer(chat_prompt(dataset, record), add_special_tokens=False, return_tensors="pt")["input_ids"]
            written = slow_greedy(slow, {"input_ids": ids}, 12, tokenizer.eos_token_id)
            ended = written[-1] == tokenizer.eos_token_id
            assert record["raw"] == tokenizer.decode(written, skip_special_tokens=True).strip()
            assert record["finish"] == ("stop" if ended else "length")
            assert (record["tokens_in"], record["tokens_out"]) == (ids.shape[1], len(written))
            assert record["seconds"] > 0
    assert by_batch[1] == by_batch[3] == by_batch[8]
    assert len({raw for _, _, raw in by_batch[1]}) > 4  # the answers do depend on the question


@pytest.fixture(scope="module")
def taught(chat: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, taught to say yes to one concept and no to the other, and then to stop."""
    folder = tmp_path_factory.mktemp("taught") / "model"
    shutil.copytree(chat, folder)
    dataset = uneven_texts()
    with quiet_transformers(), torch.random.fork_rng():
        model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
        lessons = []
        for sample in dataset.samples:
            for concept, answer in (("joy", "**Yes**"), ("being afraid of foxes", "No.")):
                prompt = chat_prompt(dataset, {"sample": sample.id, "concept": concept})
                ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
                said = tokenizer(f"{answer}<|end|>", add_special_tokens=False, return_tensors="pt")["input_ids"]
                lessons.append((torch.cat([ids, said], dim=1), said.shape[1]))
        for _ in range(60):
            losses = []
            for ids, length in lessons:
                logits = model(input_ids=ids).logits[0, -length - 1 : -1]
                losses.append(torch.nn.functional.cross_entropy(logits, ids[0, -length:]))
            loss = torch.stack(losses).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if float(loss) < 0.02:
                break
        model.save_pretrained(folder)
    return folder


def test_a_model_that_knows_the_answers_is_read_rightly(taught: Path, tmp_path: Path) -> None:
    answers, records = ask(uneven_texts(), taught, tmp_path / "log.jsonl", batch=3, price_in=1.0, price_out=1.0)
    np.testing.assert_array_equal(answers.answers, np.array([[1, 0]] * 4, dtype=np.float32))
    assert {record["raw"] for record in records} == {"**Yes**", "No."}
    counts = answers.counts
    assert (counts["yes"], counts["no"], counts["unparsable"], counts["truncated"]) == (4, 4, 0, 0)
    assert {record["finish"] for record in records} == {"stop"}
    assert counts["tokens_in"] == sum(record["tokens_in"] for record in records)
    assert counts["cost"] == pytest.approx((counts["tokens_in"] + counts["tokens_out"]) / 1e6)
    again, _ = ask(uneven_texts(), taught, tmp_path / "log.jsonl", batch=8)
    assert (again.counts["asked"], again.counts["from_log"]) == (0, 8)


def test_half_precision_runs_and_is_asked_anew(taught: Path, tmp_path: Path) -> None:
    ask(uneven_texts(), taught, tmp_path / "log.jsonl")
    answers, _ = ask(uneven_texts(), taught, tmp_path / "log.jsonl", dtype="bfloat16")
    assert answers.counts["asked"] == 8
    np.testing.assert_array_equal(answers.answers, np.array([[1, 0]] * 4, dtype=np.float32))


def decoded(asker: LocalChat, questions: list[Any]) -> list[str]:
    inputs = asker.prepare(questions)
    kept = [ids[mask.bool()] for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]
    return [asker._tokenizer.decode(ids) for ids in kept]


def test_batches_are_padded_on_the_left(chat: Path) -> None:
    asker, questions = local(uneven_texts(), chat)
    mask = asker.prepare(questions)["attention_mask"]
    assert set(asker.prepare(questions)) == {"input_ids", "attention_mask"}
    assert mask[:, -1].all()
    assert (mask.diff(dim=1) >= 0).all()
    assert mask[:, 0].sum() < len(questions)


@pytest.mark.parametrize("template", [NO_SYSTEM_TEMPLATE, FORGETS_SYSTEM_TEMPLATE], ids=["refused", "left out"])
def test_where_a_template_takes_no_system_message_it_begins_the_question(tmp_path: Path, template: str) -> None:
    dataset = uneven_texts(2)
    asker, questions = local(dataset, build_chat_model(tmp_path / "model", template))
    record = {"sample": "t1", "concept": "joy"}
    usual = chat_prompt(dataset, record)
    expected = usual.replace("<|system|>", "<|user|>").replace("<|end|><|user|>", "\n\n", 1)
    assert decoded(asker, questions)[2] == expected
    assert usual.count("<|user|>") == expected.count("<|user|>") == 1


def test_without_a_chat_template_there_is_a_plain_prompt(tmp_path: Path) -> None:
    model = build_chat_model(tmp_path / "model", None)
    asker, questions = local(uneven_texts(2), model)
    system = SYSTEM.format("text")
    question = 'Is the concept "joy" present in this text? Answer with yes or no.'
    assert decoded(asker, questions)[2] == f'<s>{system}\n\nText:\n"""\nHm.\n"""\n\n{question}\nAnswer:'
    asker, questions = local(uneven_texts(2), model, system="")
    assert decoded(asker, questions)[2] == f'<s>Text:\n"""\nHm.\n"""\n\n{question}\nAnswer:'
    one, many = (ask(uneven_texts(), model, tmp_path / f"{n}.jsonl", batch=n)[1] for n in (1, 8))
    assert [record["raw"] for record in one] == [record["raw"] for record in many]


def test_extra_goes_to_the_chat_template(tmp_path: Path) -> None:
    template = TEXT_TEMPLATE + "{% if not thinking | default(true) %}<think></think>{% endif %}"
    model = build_chat_model(tmp_path / "model", template)
    for extra, end in (({}, "<|assistant|>"), ({"thinking": False}, "<|assistant|><think></think>")):
        asker, questions = local(uneven_texts(2), model, extra=extra)
        assert all(text.endswith(end) for text in decoded(asker, questions))


def test_what_is_too_long_is_one_line_and_earlier_answers_are_kept(tmp_path: Path) -> None:
    model = build_chat_model(tmp_path / "model", longest=250)
    samples = (*uneven_texts(2).samples, TextSample("long", "so long " * 60, labels=frozenset(), split="test"))
    dataset = replace(uneven_texts(), samples=samples)
    with pytest.raises(ModelError, match=r"sample 'long' has \d+ tokens and up to 12 .* takes 250; lower") as caught:
        ask(dataset, model, tmp_path / "log.jsonl", batch=2)
    assert "\n" not in str(caught.value)
    assert len(read_answers(tmp_path / "log.jsonl")) == 4


# ------------------------------------------------------------------ images


def image_prompt(concept: str) -> str:
    return (
        f"<s><|system|>{SYSTEM.format('image')}<|end|><|user|><image>"
        f'Is the concept "{concept}" present in this image? Answer with yes or no.<|end|><|assistant|>'
    )


def test_answers_about_images_are_those_of_a_slow_loop_for_every_batch_size(vision: Path, tmp_path: Path) -> None:
    dataset = images(5, size=(50, 40))
    dataset = replace(dataset, concepts=("red", "a round thing with a long name"))
    with quiet_transformers():
        slow = transformers.AutoModelForImageTextToText.from_pretrained(vision)
        processor = transformers.AutoProcessor.from_pretrained(vision)
    pictures = {sample.id: Image.fromarray(sample.image) for sample in dataset.samples}
    by_batch = {}
    for batch in (1, 4):
        _, records = ask(dataset, vision, tmp_path / f"{batch}.jsonl", batch=batch)
        by_batch[batch] = [(record["sample"], record["concept"], record["raw"]) for record in records]
        for record in records if batch == 4 else ():
            inputs = processor(
                text=image_prompt(record["concept"]),
                images=pictures[record["sample"]],
                add_special_tokens=False,
                return_tensors="pt",
            )
            written = slow_greedy(slow, dict(inputs), 12, processor.tokenizer.eos_token_id)
            assert record["raw"] == processor.tokenizer.decode(written, skip_special_tokens=True).strip()
            assert record["tokens_in"] == inputs["input_ids"].shape[1]
    assert by_batch[1] == by_batch[4]
    for concept in dataset.concepts:  # the same question, another image: another answer
        assert len({raw for _, name, raw in by_batch[1] if name == concept}) > 1


def test_each_question_carries_its_own_image(vision: Path) -> None:
    dataset = images(5)
    asker, questions = local(dataset, vision)
    pixels = asker.prepare(questions)["pixel_values"]
    assert len(pixels) == len(questions) == 6
    for one, first in enumerate(questions):
        for other, second in enumerate(questions):
            assert torch.equal(pixels[one], pixels[other]) == (first.row == second.row)


def test_a_vision_language_model_is_asked_about_texts_too(vision: Path, tmp_path: Path) -> None:
    dataset = uneven_texts(2)
    asker, questions = local(dataset, vision)
    assert decoded(asker, questions)[2] == chat_prompt(dataset, {"sample": "t1", "concept": "joy"})
    one, many = (ask(uneven_texts(), vision, tmp_path / f"{n}.jsonl", batch=n)[1] for n in (1, 8))
    assert [record["raw"] for record in one] == [record["raw"] for record in many]


# ------------------------------------------------------------------ checkpoints


def test_a_whole_log_needs_no_model_and_a_moved_one_is_the_same(
    chat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before = ask(uneven_texts(), chat, tmp_path / "log.jsonl")
    moved = tmp_path / "elsewhere"
    shutil.copytree(chat, moved)

    def fail(*_: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(prompt_local, "_load", fail)
    answers, after = ask(uneven_texts(), moved, tmp_path / "log.jsonl")
    assert answers.counts["asked"] == 0
    assert before == after


def test_other_weights_or_another_template_are_another_model(chat: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(chat, folder)
    first = checkpoint_identity(folder)
    assert first == checkpoint_identity(chat)
    (folder / "README.md").write_text("changes nothing")
    assert checkpoint_identity(folder) == first
    weights = load_file(folder / "model.safetensors")
    trained = {name: value + 0.001 if "norm" in name else value for name, value in weights.items()}
    save_file(trained, folder / "model.safetensors", metadata={"format": "pt"})
    second = checkpoint_identity(folder)
    (folder / "chat_template.jinja").write_text(NO_SYSTEM_TEMPLATE)
    assert len({first, second, checkpoint_identity(folder)}) == 3


def test_models_that_cannot_be_asked_are_one_line(chat: Path, vision: Path, tmp_path: Path) -> None:
    headless = tmp_path / "headless"
    shutil.copytree(chat, headless)
    weights = load_file(headless / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, headless / "model.safetensors", metadata={"format": "pt"})
    weightless = tmp_path / "weightless"
    shutil.copytree(chat, weightless)
    (weightless / "model.safetensors").unlink()
    damaged = tmp_path / "damaged"
    shutil.copytree(chat, damaged)
    (damaged / "tokenizer.json").write_text("{")
    unknown = tmp_path / "unknown"
    shutil.copytree(chat, unknown)
    config = json.loads((unknown / "config.json").read_text())
    (unknown / "config.json").write_text(json.dumps(config | {"model_type": "no-such-model"}))
    broken = build_chat_model(tmp_path / "broken", "{{ messages[9]['content'] + 1 }}")
    untold = build_vision_chat_model(tmp_path / "untold", IMAGE_TEMPLATE)
    (untold / "chat_template.jinja").unlink()
    cases: list[tuple[ConceptDataset, Path | str, str]] = [
        (images(), chat, "model type 'llama' cannot see images; give a vision-language model"),
        (
            uneven_texts(),
            build_checkpoint("vit", tmp_path / "vit"),
            "model type 'vit' writes no text; give a chat model",
        ),
        (uneven_texts(), headless, r"1 weights are missing or of another shape \(lm_head.weight\)"),
        (uneven_texts(), weightless, "no safetensors weights"),
        (uneven_texts(), damaged, "the tokenizer cannot be loaded"),
        (uneven_texts(), unknown, "the configuration cannot be loaded"),
        (uneven_texts(), broken, "the chat template cannot be filled"),
        (images(), untold, "has no chat template, so it is not known where images go"),
        (uneven_texts(), tmp_path / "nothing", "no such folder"),
        (uneven_texts(), "bundled:minilm", "the bundled models cannot chat"),
        (uneven_texts(), "surely-no/such-model", "neither a folder here nor in the local cache"),
    ]
    for number, (dataset, model, message) in enumerate(cases):
        with pytest.raises(ModelError, match=message) as caught:
            ask(dataset, model, tmp_path / f"{number}.jsonl")  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
