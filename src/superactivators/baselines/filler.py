"""Neutral everyday sentences, written by a chat model: filler for `superactivators.data.augmentation`."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from superactivators.artefacts import write_bytes
from superactivators.baselines.prompt_endpoint import Endpoint
from superactivators.baselines.prompt_log import AnswerLog
from superactivators.baselines.prompt_options import PromptOptions
from superactivators.baselines.prompt_questions import Question, Questionnaire, Reply
from superactivators.data.augmentation import near_duplicate_key
from superactivators.data.dataset import ConceptDataset, TextSample
from superactivators.errors import ModelError, StoreError, StudyError
from superactivators.states.labels import Labels

TOPICS: Final = (
    *("the weather", "a bus timetable", "groceries", "a recipe", "a football fixture", "a phone setting", "gardening"),
    *("a library", "a road and its traffic", "a computer update", "a pet's routine", "a television programme"),
    *(
        "school hours",
        "a parcel",
        "household repairs",
        "a video game's rules",
        "a holiday route",
        "office work",
        "music",
    ),
    *("a local shop", "exercise", "a bicycle", "public offices", "a photograph"),
)
AVOID: Final = ("strong feelings", "opinions", "jokes", "irony or sarcasm")
SYSTEM: Final = "You write short plain texts. You answer with the texts alone."
_TEMPLATE = (
    "Write COUNT different sentences such as people write in everyday messages and comments, about {text}.\n"
    "Each stands by itself, is matter-of-fact, and has from SHORTEST to LONGEST words. "
    "None may show or mention any of: {concept}.\n"
    "Vary their form and what they are about. Write one sentence a line, without numbers, quotes or anything else."
)
_MARK = re.compile(r"\A(?:[-*•–—]|\(?\d{1,3}[.):])\s+")
_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»"}
_MOST_PER_REQUEST = 100
_PATIENCE = 4
"""How many times the fewest possible requests are sent before the model is given up."""


def write_filler(
    path: Path,
    count: int,
    *,
    model: str,
    endpoint: str,
    api_key_env: str | None = None,
    topics: Sequence[str] = TOPICS,
    avoid: Sequence[str] = AVOID,
    template: str | None = None,
    system: str = SYSTEM,
    per_request: int = 20,
    min_words: int = 3,
    max_words: int = 25,
    temperature: float | None = 1.0,
    max_tokens: int = 2048,
    concurrency: int = 8,
    retries: int = 6,
    timeout: float = 120.0,
    extra: Mapping[str, Any] | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Have a chat model write neutral sentences, one a line, and write down where they come from.

    Topics take turns. Answers are kept in ``PATH.answers.jsonl``, so that a run that was cut off, or one that wants
    more sentences, goes on where the last one was and pays for no answer twice. ``PATH.json`` holds the provenance.
    Of each answer the lines are taken, without list marks and quotes; lines that end with a colon, are outside the
    length limits or are near-duplicates of an earlier one, and the last line of an answer that was cut off, are
    dropped. That the sentences are neutral is what the model was asked for; nobody has checked it.

    Parameters
    ----------
    path : Path
        The lines file, in UTF-8; a file there that an earlier run did not write is refused.
    count : int
        Sentences wanted.
    model, endpoint, api_key_env, max_tokens, concurrency, retries, timeout, extra
        As for `superactivators.baselines.prompt_options.PromptOptions`.
    topics : sequence of str
        Each completes "about …".
    avoid : sequence of str
        What the sentences must not show, such as the concepts of the labelled texts.
    template : str, optional
        The request, with ``{text}`` for the topic and ``{concept}`` for what to avoid. None: a built-in one.
    system : str
        System message; ``""`` for none.
    per_request : int
        Sentences of one request in the built-in template; says how many requests are sent.
    min_words, max_words : int
        Length limits of a sentence.
    temperature : float or None
        None leaves it to the server. ``extra`` goes first.
    progress : bool
        Show a progress bar.
    say : callable
        Takes lines about the run.

    Returns
    -------
    dict
        The provenance, JSON types: ``texts``, ``sha256`` of the lines file, ``model``, ``served`` (names that the
        server gave the model), ``endpoint``, ``system``, ``prompt``, ``topics``, ``avoid``, ``request`` (fields sent
        along), ``requests``, ``tokens_in``, ``tokens_out`` (None if the server does not say), ``began``, ``ended``
        (first and last answer) and ``dropped`` (lines, by reason).

    Raises
    ------
    StudyError
        If an option is out of range, or the variable with the key is not set.
    ModelError
        If the server cannot be reached or refuses, or the model does not write enough different sentences. Answers
        so far are kept.
    StoreError
        If a file cannot be written, or something else is in its place.
    """
    from tqdm import tqdm

    _check(count, per_request, (min_words, max_words), topics, avoid)
    options = PromptOptions(
        model=model,
        endpoint=endpoint,
        api_key_env=api_key_env,
        max_tokens=max_tokens,
        concurrency=concurrency,
        retries=retries,
        timeout=timeout,
        template=_built_in(per_request, min_words, max_words) if template is None else template,
        system=system,
        extra={"temperature": temperature} | dict(extra or {}),
    )
    beside = path.with_name(path.name + ".json")
    if path.exists() and not beside.exists():
        raise StoreError(f"{path}: is there already and was not written by this command; choose another file")
    fewest = math.ceil(count / per_request)
    asked, texts, dropped = fewest, list[str](), Counter[str]()
    records: list[Mapping[str, Any]] = []
    with (
        AnswerLog(path.with_name(path.name + ".answers.jsonl")) as answers,
        tqdm(desc="filler", unit="request", disable=not progress) as bar,
    ):

        def record(question: Question, reply: Reply) -> None:
            answers.add(question, reply, None, endpoint)
            bar.update()

        while True:
            form = _form(asked, topics, avoid, options)
            questions = list(form.questions(f"endpoint:{model}"))
            missing = [question for question in questions if question.key not in answers.answers]
            say(f"filler: {len(questions)} requests, {len(missing)} of them to be sent")
            if missing:
                Endpoint(form, options).ask(missing, record)
            records = [answers.answers[question.key] for question in questions]
            texts, dropped = _sentences(records, min_words, max_words)
            if len(texts) >= count:
                break
            if asked >= _PATIENCE * fewest + len(topics):
                raise ModelError(
                    f"filler: {asked} answers of {model} hold only {len(texts)} different sentences of {min_words} to "
                    f"{max_words} words; ask for fewer than {count}, or give more topics"
                )
            useful = max(len(texts) / asked, per_request / _PATIENCE)
            asked = min(asked + math.ceil((count - len(texts)) / useful), _PATIENCE * fewest + len(topics))
    dropped["not_needed"] = len(texts) - count
    content = ("\n".join(texts[:count]) + "\n").encode()
    provenance = _provenance(records, options, topics, avoid) | {"texts": count, "dropped": dict(dropped)}
    _write(path, beside, content, provenance)
    return provenance


def _built_in(per_request: int, min_words: int, max_words: int) -> str:
    return (
        _TEMPLATE.replace("COUNT", str(per_request))
        .replace("SHORTEST", str(min_words))
        .replace("LONGEST", str(max_words))
    )


def _form(requests: int, topics: Sequence[str], avoid: Sequence[str], options: PromptOptions) -> Questionnaire:
    """Put requests as questions of the prompt baseline: a topic is a text, what to avoid is the one concept."""
    samples = []
    for number in range(requests):
        topic, turn = topics[number % len(topics)], number // len(topics)
        again = f" (set {turn + 1}: other sentences than in the sets before)" if turn else ""
        samples.append(TextSample(f"request-{number:05d}", topic + again, split="test"))
    concept = ", ".join(avoid)
    labels = Labels(
        ids=[sample.id for sample in samples],
        offsets=np.zeros(requests + 1, dtype=np.int64),
        splits=np.array(["test"] * requests),
        concepts=(concept,),
        samples=np.zeros((requests, 1), dtype=bool),
        tokens=None,
        known=np.zeros(0, dtype=bool),
        lost_by_crop={},
    )
    return Questionnaire(ConceptDataset("filler", (concept,), tuple(samples)), labels, options)


def _sentences(records: Sequence[Mapping[str, Any]], least: int, most: int) -> tuple[list[str], Counter[str]]:
    """Different sentences of all answers, in the order of the requests, and why other lines were dropped."""
    found: dict[str, str] = {}
    dropped = Counter(cut_off=0, no_sentence=0, too_short=0, too_long=0, near_duplicates=0)
    for record in records:
        lines = [line for line in _THOUGHT.sub("", record["raw"]).split("\n") if line.strip()]
        if record["finish"] == "length" and lines:
            lines.pop()
            dropped["cut_off"] += 1
        for line in lines:
            text = _plain(line)
            words = len(text.split())
            if not words or text.endswith(":") or text.startswith("```"):
                dropped["no_sentence"] += 1
            elif words < least:
                dropped["too_short"] += 1
            elif words > most:
                dropped["too_long"] += 1
            elif (key := near_duplicate_key(text)) in found:
                dropped["near_duplicates"] += 1
            else:
                found[key] = text
    return list(found.values()), dropped


def _plain(line: str) -> str:
    """Take list marks and quotes around it off a line, and normalise whitespace."""
    text = _MARK.sub("", " ".join(line.split()), count=1)
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]:
        text = text[1:-1].strip()
    # A lone surrogate, which a server may send, can be in no file.
    return text.encode("utf-8", "replace").decode()


def _provenance(
    records: Sequence[Mapping[str, Any]], options: PromptOptions, topics: Sequence[str], avoid: Sequence[str]
) -> dict[str, Any]:
    times = sorted(record["time"] for record in records)
    tokens = {name: [record[name] for record in records] for name in ("tokens_in", "tokens_out")}
    return {
        "format": "superactivators/filler",
        "version": 1,
        "model": options.model,
        "served": sorted({record["served"] for record in records if record["served"] is not None}),
        "endpoint": options.endpoint,
        "system": options.system,
        "prompt": options.template,
        "topics": list(topics),
        "avoid": list(avoid),
        "request": {"temperature": 0, "max_tokens": options.max_tokens, **options.extra},
        "requests": len(records),
        **{name: None if None in counts else sum(counts) for name, counts in tokens.items()},
        "began": times[0],
        "ended": times[-1],
    }


def _write(path: Path, beside: Path, content: bytes, provenance: dict[str, Any]) -> None:
    """Write both files; the provenance goes first, since it says that the lines are ours."""
    provenance["sha256"] = hashlib.sha256(content).hexdigest()
    write_bytes(beside, (json.dumps(provenance, indent=2, ensure_ascii=False) + "\n").encode())
    write_bytes(path, content)


def _check(count: int, per_request: int, words: tuple[int, int], topics: Sequence[str], avoid: Sequence[str]) -> None:
    if count < 1:
        raise StudyError(f"filler: count must be at least 1; got {count}")
    if not 1 <= per_request <= _MOST_PER_REQUEST:
        raise StudyError(f"filler: per_request must be from 1 to {_MOST_PER_REQUEST}; got {per_request}")
    if not 1 <= words[0] <= words[1]:
        raise StudyError(f"filler: 1 <= min_words <= max_words must hold; got {words[0]} and {words[1]}")
    for name, given in (("topics", topics), ("avoid", avoid)):
        if isinstance(given, str) or not given or not all(text.strip() for text in given):
            raise StudyError(f"filler: {name} must be a list of texts that are not empty; got {given!r}")
