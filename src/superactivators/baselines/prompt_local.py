"""Questions to a chat model or vision-language model of ``transformers`` that runs here."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

from superactivators.artefacts import fingerprint
from superactivators.baselines.prompt_options import PromptOptions
from superactivators.baselines.prompt_questions import Question, Questionnaire, Reply
from superactivators.data.dataset import Modality
from superactivators.errors import ModelError

if TYPE_CHECKING:
    import torch

Conversation: TypeAlias = list[dict[str, Any]]

_SAMPLED_BLOCKS, _BLOCK = 64, 4096
_PREPARING = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json")
_DECIDING = ("config.json", "generation_config.json", "processor_config.json", "preprocessor_config.json")


def find_chat_model(options: PromptOptions) -> Path:
    """Find the folder of the local model, fetching it if need be; raises ``ModelError`` if there is none."""
    from superactivators.models.bundled import PREFIX
    from superactivators.models.folders import find_folder

    if options.model.startswith(PREFIX):
        raise ModelError(
            f"{options.model}: the bundled models cannot chat; give the folder or hub id of a chat model, "
            "or an endpoint"
        )
    return find_folder(options.model, revision=options.revision)


def checkpoint_identity(folder: Path) -> str:
    """SHA-256 of a checkpoint from its settings and samples of its weights, wherever the folder lies.

    Of every weights file the size, the header and 64 blocks of 4 KiB are read, so that it takes no time for a large
    model and any retraining changes it.
    """
    parts: list[object] = []
    for name in (*_DECIDING, *_PREPARING):
        file = folder / name
        parts.append(hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None)
    for file in sorted(folder.glob("*.safetensors")):
        digest, size = hashlib.sha256(), file.stat().st_size
        with file.open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
            digest.update(stream.read(min(header, size)))
            step = max(_BLOCK, (size - stream.tell()) // _SAMPLED_BLOCKS)
            for at in range(stream.tell(), size, step):
                stream.seek(at)
                digest.update(stream.read(_BLOCK))
        parts.append([file.name, size, digest.hexdigest()])
    return fingerprint(parts)


@final
class LocalChat:
    """A loaded model that answers questions greedily, in batches padded on the left.

    Parameters
    ----------
    questionnaire : Questionnaire
    options : PromptOptions
        Without an endpoint.
    folder : Path
        As `find_chat_model` returns it. Only safetensors weights are read, and no code of a checkpoint is run.

    Raises
    ------
    ModelError
        If the checkpoint cannot be loaded, is incomplete, is no chat model, or cannot see images that are asked about.
    """

    def __init__(self, questionnaire: Questionnaire, options: PromptOptions, folder: Path) -> None:
        from superactivators.models.loading import torch_dtype
        from superactivators.models.placement import torch_device

        self._questionnaire, self._options, self._folder = questionnaire, options, folder
        self._device = torch_device(options.device)
        loaded = _load(folder, torch_dtype(options.dtype), questionnaire.modality)
        self._model, self._preparer, self._sees = loaded
        self._model.eval().to(self._device)
        self._tokenizer = self._preparer.tokenizer if self._sees else self._preparer
        self._tokenizer.padding_side = "left"
        self._ends = _plain_greedy(self._model, self._tokenizer, options.max_tokens)
        self._longest: int | None = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self._has_template = self._preparer.chat_template is not None
        if self._sees and not self._has_template:
            raise ModelError(f"{folder}: the processor has no chat template, so it is not known where images go")
        self._system_apart = self._keeps_system()

    def ask(self, questions: Iterable[Question], record: Callable[[Question, Reply], None]) -> None:
        """Ask all questions, ``options.batch`` at a time, and hand on the answers after each batch.

        Parameters
        ----------
        questions : iterable of Question
        record : callable

        Raises
        ------
        ModelError
            If a question is longer than the model can read.
        """
        from superactivators.models.quiet import quiet_transformers

        for some in _batches(questions, self._options.batch):
            began = time.perf_counter()
            with quiet_transformers():
                answers = self._answer(some)
            seconds = (time.perf_counter() - began) / len(some)
            for question, (raw, finish, read, written) in zip(some, answers, strict=True):
                record(question, Reply(raw, finish, read, written, seconds))

    def _answer(self, questions: list[Question]) -> list[tuple[str, str, int, int]]:
        """Raw answer, why it ended, tokens read and written, of each question."""
        import torch

        inputs = self.prepare(questions)
        read = inputs["attention_mask"].sum(dim=1).tolist()
        for question, length in zip(questions, read, strict=True):
            if self._longest is not None and length + self._options.max_tokens > self._longest:
                raise ModelError(
                    f"prompt: {self._options.model}: the question about sample {question.sample!r} has {length} tokens "
                    f"and up to {self._options.max_tokens} for the answer, but the model takes {self._longest}; "
                    "lower max_tokens, leave that sample out, or use another model"
                )
        with torch.inference_mode():
            whole = self._model.generate(**inputs)
        answers = []
        for row, length in zip(whole[:, inputs["input_ids"].shape[1] :].tolist(), read, strict=True):
            end = next((place for place, token in enumerate(row) if token in self._ends), None)
            raw = self._tokenizer.decode(row[:end], skip_special_tokens=True).strip()
            written = len(row) if end is None else end + 1
            answers.append((raw, "length" if end is None else "stop", length, written))
        return answers

    def prepare(self, questions: list[Question]) -> dict[str, torch.Tensor]:
        """Make the inputs of one batch, padded on the left, on the model's device."""
        users = [self._questionnaire.user(question.row, question.column) for question in questions]
        if self._sees:
            pictures = [self._questionnaire.picture(question.row) for question in questions]
            made = self._render(
                [self._conversation(user, picture) for user, picture in zip(users, pictures, strict=True)],
                tokenize=True,
                return_dict=True,
                processor_kwargs={"padding": True, "return_tensors": "pt"},
            )
            kept = dict(made)
        else:
            if self._has_template:
                texts = self._render([self._conversation(user, None) for user in users], tokenize=False)
            else:
                system = self._questionnaire.system()
                texts = [f"{system}\n\n{user}\nAnswer:".lstrip() for user in users]
            made = self._tokenizer(
                texts, add_special_tokens=not self._has_template, padding=True, truncation=False, return_tensors="pt"
            )
            kept = {name: made[name] for name in ("input_ids", "attention_mask")}
        numbers = self._model.dtype
        return {
            name: value.to(self._device, numbers) if value.is_floating_point() else value.to(self._device)
            for name, value in kept.items()
        }

    def _conversation(self, user: str, picture: Any) -> Conversation:
        system = self._questionnaire.system()
        if system and not self._system_apart:
            user = f"{system}\n\n{user}"
        first = [self._message("system", system)] if system and self._system_apart else []
        return [*first, self._message("user", user, picture)]

    def _message(self, role: str, text: str, picture: Any = None) -> dict[str, Any]:
        if not self._sees:
            return {"role": role, "content": text}
        shown = [] if picture is None else [{"type": "image", "image": picture}]
        return {"role": role, "content": [*shown, {"type": "text", "text": text}]}

    def _render(self, conversations: list[Conversation], **how: Any) -> Any:
        extra = dict(self._options.extra)
        try:
            return self._preparer.apply_chat_template(conversations, add_generation_prompt=True, **how, **extra)
        except Exception as error:  # templates and processors raise many kinds
            raise ModelError(
                f"{self._folder}: the chat template cannot be filled ({_line(error)}); save the model again, "
                "or give another model"
            ) from None

    def _keeps_system(self) -> bool:
        """Whether the chat template takes a system message; some refuse it, some leave it out without a word."""
        if not self._has_template:
            return False
        mark = "Answer only what is asked."
        trial = [[self._message("system", mark), self._message("user", "Is it?")]]
        try:
            return mark in self._render(trial, tokenize=False)[0]
        except ModelError:
            return False


def _batches(questions: Iterable[Question], size: int) -> Iterator[list[Question]]:
    waiting = iter(questions)
    while some := list(islice(waiting, size)):
        yield some


def _plain_greedy(model: Any, tokenizer: Any, max_tokens: int) -> set[int]:
    """Set the model to plain greedy decoding and return the tokens that end an answer.

    What else its generation settings hold is dropped: a repetition penalty, for one, would count padding, and make
    answers depend on the batch.
    """
    from transformers import GenerationConfig

    given = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = {int(token) for token in (given if isinstance(given, list) else [given]) if token is not None}
    if tokenizer.eos_token_id is not None:
        ends.add(int(tokenizer.eos_token_id))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(min(ends) if ends else 0)
    model.generation_config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=tokenizer.pad_token_id,
    )
    return ends


def _load(folder: Path, dtype: torch.dtype | None, modality: Modality) -> tuple[Any, Any, bool]:
    """Model, tokenizer or processor, and whether it is a vision-language model."""
    import transformers

    from superactivators.models.quiet import quiet_transformers

    what = "configuration"
    try:
        with quiet_transformers():
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            sees = type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
            if not sees and modality == "image":
                raise ModelError(
                    f"{folder}: model type {config.model_type!r} cannot see images; give a vision-language model"
                )
            if not sees and type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
                raise ModelError(
                    f"{folder}: model type {config.model_type!r} writes no text; give a chat model, such as a Llama or "
                    "Qwen instruct model"
                )
            what = "processor" if sees else "tokenizer"
            prepare = transformers.AutoProcessor if sees else transformers.AutoTokenizer
            preparer = prepare.from_pretrained(folder, trust_remote_code=False)
            what = "weights"
            if not any(folder.glob("*.safetensors")):
                raise ModelError(f"{folder}: no safetensors weights; other formats are not read")
            kind = transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM
            model, report = kind.from_pretrained(
                folder,
                config=config,
                dtype="auto" if dtype is None else dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except ModelError:
        raise
    except Exception as error:  # transformers, tokenizers, safetensors and json raise many kinds
        raise ModelError(f"{folder}: the {what} cannot be loaded ({_line(error)}); save the model again") from None
    faults = sorted(str(key) for name in ("missing_keys", "mismatched_keys") for key in report.get(name, ()))
    if faults:
        raise ModelError(
            f"{folder}: {len(faults)} weights are missing or of another shape ({', '.join(faults[:3])}); they would be "
            "random numbers, so the model is not used; give a checkpoint with its language head"
        )
    return model, preparer, sees


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
