"""The prompt baseline: a chat model is asked yes or no about every sample and concept (METHOD section 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from jaxtyping import Float

from superactivators.baselines.prompt_log import AnswerLog, read_answers
from superactivators.baselines.prompt_options import PromptOptions
from superactivators.baselines.prompt_parsing import parse_answer
from superactivators.baselines.prompt_questions import Question, Questionnaire, Reply
from superactivators.data.dataset import ConceptDataset
from superactivators.scores.site_scores import SiteScores
from superactivators.states.labels import Labels

SITE = KIND = METHOD = "prompt"


@final
@dataclass(frozen=True, eq=False)
class PromptAnswers:
    """All answers of a run.

    Attributes
    ----------
    answers : float32 array of shape (samples, concepts)
        1 for yes; 0 for no and for answers that are neither; NaN where nothing was asked.
    counts : mapping
        JSON types. Of all answers: ``questions``, ``yes``, ``no``, ``unparsable``, ``truncated`` (cut off by
        ``max_tokens``), ``filtered`` (refused by the server's content filter; also unparsable), ``tokens_in``,
        ``tokens_out``, ``without_tokens`` (answers whose tokens the server did not say), ``cost`` (None without
        prices), ``places`` (endpoints, or ``"local"``) and ``served`` (names that the servers gave the model). Of
        this run alone: ``asked``, ``from_log``, ``retries``, ``asked_cost``.
    """

    answers: Float[np.ndarray, "n c"]
    counts: Mapping[str, Any]

    def scores(self) -> SiteScores:
        """Answers as scores of one site, kind and method ``"prompt"``; a yes is at or above any threshold in (0, 1]."""
        return SiteScores(
            kind=KIND,
            level="sample",
            site=SITE,
            pooled={METHOD: self.answers},
            samples=np.empty(0, dtype=np.int64),
            tokens=np.empty((0, self.answers.shape[1]), dtype=np.float32),
        )


def ask_prompts(
    dataset: ConceptDataset,
    labels: Labels,
    options: PromptOptions,
    log: Path,
    *,
    progress: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> PromptAnswers:
    """Ask a chat model whether each concept is present in each sample of ``options.splits``.

    Questions whose answer is in the log are not asked again. Answers are at temperature 0, and what is neither yes nor
    no counts as no.

    Parameters
    ----------
    dataset : ConceptDataset
        Texts or images.
    labels : Labels
        Its samples, splits and concepts are asked about; what it says of them is not used.
    options : PromptOptions
    log : Path
        Answer log, a JSON Lines file; made if need be. Every answer is in it before the next is waited for.
    progress : bool
        Show a progress bar.
    say : callable
        Takes lines about the run.

    Returns
    -------
    PromptAnswers

    Raises
    ------
    StudyError
        If options do not fit the data, or the variable with the key is not set.
    ModelError
        If the model cannot be loaded or reached, or refuses a question. Answers so far are in the log.
    StoreError
        If the log is another file, is damaged or cannot be written.
    """
    from tqdm import tqdm

    form = Questionnaire(dataset, labels, options)
    identity, folder = _identity(options)
    questions = list(form.questions(identity))
    with AnswerLog(log) as answers:
        missing = [question for question in questions if question.key not in answers.answers]
        say(f"prompt: {len(questions)} questions, {len(questions) - len(missing)} of them answered in {log}")
        place = options.endpoint or "local"
        asker = _asker(form, options, folder) if missing else None
        with tqdm(total=len(missing), desc="prompt", unit="question", disable=not progress) as bar:

            def record(question: Question, reply: Reply) -> None:
                answers.add(question, reply, parse_answer(reply.raw, truncated=reply.finish == "length"), place)
                bar.update()

            if asker is not None:
                asker.ask(missing, record)
        records = [answers.answers[question.key] for question in questions]
    matrix = np.full((len(labels.ids), len(labels.concepts)), np.nan, dtype=np.float32)
    # Parsed anew, so that a log of an older release is read by today's rules.
    parsed = [parse_answer(record["raw"], truncated=record["finish"] == "length") for record in records]
    rows, columns = [question.row for question in questions], [question.column for question in questions]
    matrix[rows, columns] = [bool(answer) for answer in parsed]
    asked = [answers.answers[question.key] for question in missing]
    counts = {
        "questions": len(questions),
        "yes": parsed.count(True),
        "no": parsed.count(False),
        "unparsable": parsed.count(None),
        "truncated": sum(record["finish"] == "length" for record in records),
        "filtered": sum(record["finish"] == "content_filter" for record in records),
        **_tokens(records),
        "cost": _cost(records, options),
        "places": sorted({record["place"] for record in records}),
        "served": sorted({record["served"] for record in records if record["served"] is not None}),
        "asked": len(missing),
        "from_log": len(questions) - len(missing),
        "retries": getattr(asker, "retries", 0),
        "asked_cost": _cost(asked, options),
    }
    if counts["unparsable"]:
        say(
            f"prompt: {counts['unparsable']} of {len(questions)} answers are neither yes nor no and count as no"
            + (f"; {counts['truncated']} were cut off: raise max_tokens" if counts["truncated"] else "")
        )
    return PromptAnswers(matrix, counts)


def estimate(
    dataset: ConceptDataset, labels: Labels, options: PromptOptions, log: Path | None = None
) -> dict[str, int | float | None]:
    """Say how much there is to ask, without asking.

    Parameters
    ----------
    dataset : ConceptDataset
    labels : Labels
    options : PromptOptions
    log : Path or None
        Answers in it are taken off.

    Returns
    -------
    dict
        ``questions``, ``from_log``, ``tokens_in`` (about; a token is four characters or 750 pixels), ``tokens_out``
        (at most) and ``cost`` (at most, with the rough ``tokens_in``; None without prices); tokens and cost are of
        what is not in the log.

    Raises
    ------
    StudyError, ModelError, StoreError
        As `ask_prompts`, without asking.
    """
    form = Questionnaire(dataset, labels, options)
    held = 0
    if log is not None and log.exists():
        known = {record["key"] for record in read_answers(log)}
        held = sum(question.key in known for question in form.questions(_identity(options)[0]))
    share = 1 - held / len(form)
    tokens_in, tokens_out = round(form.rough_tokens() * share), (len(form) - held) * options.max_tokens
    return {
        "questions": len(form),
        "from_log": held,
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "cost": _price(tokens_in, tokens_out, options),
    }


def _identity(options: PromptOptions) -> tuple[str, Path | None]:
    """Name the model for the keys of the log, and find the folder of a local one."""
    if options.endpoint is not None:
        return f"endpoint:{options.model}", None
    from superactivators.baselines.prompt_local import checkpoint_identity, find_chat_model

    folder = find_chat_model(options)
    return f"local:{checkpoint_identity(folder)}", folder


def _asker(form: Questionnaire, options: PromptOptions, folder: Path | None) -> Any:
    if folder is None:
        from superactivators.baselines.prompt_endpoint import Endpoint

        return Endpoint(form, options)
    from superactivators.baselines.prompt_local import LocalChat

    return LocalChat(form, options, folder)


def _tokens(records: list[Mapping[str, Any]]) -> dict[str, int]:
    return {
        "tokens_in": sum(record["tokens_in"] or 0 for record in records),
        "tokens_out": sum(record["tokens_out"] or 0 for record in records),
        "without_tokens": sum(record["tokens_in"] is None or record["tokens_out"] is None for record in records),
    }


def _cost(records: list[Mapping[str, Any]], options: PromptOptions) -> float | None:
    tokens = _tokens(records)
    return _price(tokens["tokens_in"], tokens["tokens_out"], options)


def _price(tokens_in: int, tokens_out: int, options: PromptOptions) -> float | None:
    if options.price_in is None or options.price_out is None:
        return None
    return (tokens_in * options.price_in + tokens_out * options.price_out) / 1e6
