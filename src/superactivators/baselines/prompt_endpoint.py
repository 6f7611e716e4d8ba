"""Questions to an OpenAI-compatible server: several in flight, sent again after passing faults."""

from __future__ import annotations

import email.utils
import importlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, final

from superactivators.baselines.prompt_options import PromptOptions
from superactivators.baselines.prompt_questions import Question, Questionnaire, Reply
from superactivators.errors import ModelError, StudyError

AGAIN = (408, 409, 425, 429)
"""Statuses, beside 500 and above, after which a question is sent again."""
LONGEST_BACKOFF = 60.0
LONGEST_RETRY_AFTER = 600.0
_FIRST_BACKOFF = 0.5
_FILTERS = ("content_filter", "content_policy_violation")
_HINTS = {
    401: "the key was not accepted; put a valid one into the environment variable and name it in api_key_env",
    403: "the key may not use this model; check the account, the model's name and the region",
    404: "no such model or address; check the model's name and the base URL, which often ends in /v1",
}
_SHORTEST_SECRET = 8


@final
class Passing(Exception):  # noqa: N818 (a fault that may pass, not an error of the user's)
    """A fault after which the same question may be asked again."""

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


@final
class Endpoint:
    """Asks a server.

    Parameters
    ----------
    questionnaire : Questionnaire
    options : PromptOptions
        With an endpoint.

    Raises
    ------
    StudyError
        If the environment variable with the key is not set.

    Attributes
    ----------
    retries : int
        How often a question was sent again so far.
    """

    def __init__(self, questionnaire: Questionnaire, options: PromptOptions) -> None:
        self._questionnaire, self._options = questionnaire, options
        self._url = f"{(options.endpoint or '').rstrip('/')}/chat/completions"
        self._key = ""
        if options.api_key_env is not None:
            self._key = os.environ.get(options.api_key_env, "").strip()
            if not self._key:
                raise StudyError(
                    f"prompt: the environment variable {options.api_key_env} (api_key_env) is not set; "
                    "set it to the key"
                )
            if not (self._key.isascii() and self._key.isprintable()):
                raise StudyError(f"prompt: the key in {options.api_key_env} has signs that no key has; set it anew")
        self.retries = 0
        self._counting = threading.Lock()
        self._stop = threading.Event()
        self._not_before = 0.0

    def ask(self, questions: Iterable[Question], record: Callable[[Question, Reply], None]) -> None:
        """Ask all questions, at most ``options.concurrency`` at once, and hand each answer on as soon as it is there.

        After a fault that ends the run, answers to what is in flight are still waited for and handed on.

        Parameters
        ----------
        questions : iterable of Question
        record : callable
            Called from several threads.

        Raises
        ------
        ModelError
            If the server refuses a question, or it fails more often than ``options.retries``.
        """
        client = _http()
        options, waiting = self._options, _Shared(questions)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = client.Limits(max_connections=options.concurrency, max_keepalive_connections=options.concurrency)
        faults: list[BaseException] = []

        def work() -> None:
            try:
                while not self._stop.is_set() and (question := waiting.next()) is not None:
                    reply = self._answer(session, question)
                    if reply is None:
                        return
                    record(question, reply)
            except BaseException as fault:
                faults.append(fault)
                self._stop.set()

        with (
            client.Client(timeout=options.timeout, limits=limits, headers=headers, follow_redirects=False) as session,
            ThreadPoolExecutor(options.concurrency, thread_name_prefix="prompt") as pool,
        ):
            try:
                workers = [pool.submit(work) for _ in range(options.concurrency)]
                for worker in workers:
                    worker.result()
            finally:
                self._stop.set()  # also after Ctrl-C: nothing new is sent, what is in flight is kept
        if faults:
            raise faults[0]

    def _answer(self, session: Any, question: Question) -> Reply | None:
        """Ask one question, again if need be; None if the run was stopped meanwhile."""
        body = self._body(question)
        tries = self._options.retries + 1
        for attempt in range(tries):
            self._stop.wait(max(0.0, self._not_before - time.monotonic()))
            if self._stop.is_set():
                return None
            if attempt:
                with self._counting:
                    self.retries += 1
            try:
                return self._send(session, body, question)
            except Passing as fault:
                what, wait = str(fault), fault.wait
            if wait:
                if wait > LONGEST_RETRY_AFTER:
                    raise self._failed(question, f"{what}; it asks to wait {wait:.0f} s, so go on after that")
                self._not_before = max(self._not_before, time.monotonic() + wait)  # for all that are in flight
            elif attempt + 1 < tries:
                backoff = min(LONGEST_BACKOFF, _FIRST_BACKOFF * 2**attempt)
                self._stop.wait(backoff * random.uniform(0.75, 1.25))  # noqa: S311 (spreads requests, no secret)
        raise self._failed(question, f"{what}; sent {tries} times")

    def _body(self, question: Question) -> bytes:
        options = self._options
        body = {
            "model": options.model,
            "messages": self._questionnaire.messages(question),
            "temperature": 0,
            "max_tokens": options.max_tokens,
            **options.extra,
        }
        return json.dumps({name: value for name, value in body.items() if value is not None}).encode()

    def _send(self, session: Any, body: bytes, question: Question) -> Reply:
        client, began = _http(), time.perf_counter()
        try:
            answer = session.post(self._url, content=body, headers={"Content-Type": "application/json"})
        except client.TimeoutException:
            raise Passing(f"no answer within {self._options.timeout:g} s") from None
        except (client.TransportError, client.DecodingError) as error:
            raise Passing(f"no connection ({_line(str(error)) or type(error).__name__})") from None
        seconds = time.perf_counter() - began
        status = int(answer.status_code)
        if status == 200:
            return self._read(answer.content, seconds)
        what = f"HTTP {status}{self._said(answer.content)}"
        if status in AGAIN or status >= 500:
            raise Passing(what, _retry_after(answer.headers.get("Retry-After")))
        if status == 400 and _filtered(answer.content):
            return Reply("", "content_filter", None, None, seconds)
        moved = "the server is elsewhere; give its address as the endpoint" if 300 <= status < 400 else None
        raise self._failed(question, f"{what}; {moved or _HINTS.get(status, 'mend what it says')}")

    def _read(self, content: bytes, seconds: float) -> Reply:
        try:
            answer = json.loads(content)
            choice = answer["choices"][0]
            message, usage = choice["message"], answer.get("usage") or {}
            raw = message.get("content")
            if isinstance(raw, list):  # some servers answer in parts
                raw = "".join(part.get("text") or "" for part in raw)
            if raw is not None and not isinstance(raw, str):
                raise TypeError("its content is no text")
            tokens = [_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise Passing(
                f"an answer that is no chat completion ({_line(content.decode('utf-8', 'replace'))!r})"
            ) from None
        finish, served = choice.get("finish_reason"), answer.get("model")
        return Reply(
            raw=self._clean(raw or ""),
            finish=self._clean(finish) if isinstance(finish, str) else None,
            tokens_in=tokens[0],
            tokens_out=tokens[1],
            seconds=seconds,
            served=self._clean(served) if isinstance(served, str) else None,
        )

    def _said(self, content: bytes) -> str:
        """Say in one line what the server writes about a fault."""
        text = content.decode("utf-8", "replace")
        try:
            said = json.loads(text)
            said = said.get("error", said) if isinstance(said, dict) else said
            said = said.get("message", said) if isinstance(said, dict) else said
            text = said if isinstance(said, str) else json.dumps(said)
        except (ValueError, RecursionError):
            pass
        line = _line(self._clean(text))
        return f": {line}" if line else ""

    def _clean(self, text: str) -> str:
        """Take the key out of what a server sends back."""
        return text.replace(self._key, "[key]") if len(self._key) >= _SHORTEST_SECRET else text

    def _failed(self, question: Question, what: str) -> ModelError:
        return ModelError(
            f"prompt: {self._url}: asking about sample {question.sample!r} and concept {question.concept!r} failed "
            f"({self._clean(what)}); answers so far are kept: run again to go on"
        )


@final
class _Shared:
    """Hands out the items of an iterator to several threads."""

    def __init__(self, items: Iterable[Question]) -> None:
        self._items: Iterator[Question] = iter(items)
        self._taking = threading.Lock()

    def next(self) -> Question | None:
        with self._taking:
            return next(self._items, None)


def _http() -> ModuleType:
    """Import the HTTP client that huggingface_hub brings: httpx2, or httpx before its version 2."""
    try:
        return importlib.import_module("httpx2")
    except ModuleNotFoundError:
        return importlib.import_module("httpx")


def _filtered(content: bytes) -> bool:
    """Whether a refusal speaks of this sample's content, not of the request."""
    try:
        return json.loads(content)["error"]["code"] in _FILTERS
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _retry_after(given: str | None) -> float | None:
    """Seconds to wait, from a number of seconds or a date."""
    if given is None:
        return None
    try:
        wait = float(given)
    except ValueError:
        try:
            wait = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return max(0.0, wait) if wait < float("inf") else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
