"""The endpoint, against a real HTTP server that also misbehaves."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from baselines.asked_data import images, labels_of, texts
from baselines.chat_server import Act, ChatServer, Seen, serving
from superactivators.baselines import prompt_endpoint
from superactivators.baselines.prompt import PromptAnswers, ask_prompts, estimate
from superactivators.baselines.prompt_log import read_answers
from superactivators.baselines.prompt_options import PromptOptions
from superactivators.data.dataset import ConceptDataset
from superactivators.errors import ModelError, StudyError

KEY = "sk-a-very-secret-key-123"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, and an environment that must not leak into requests."""
    monkeypatch.setattr(prompt_endpoint, "_FIRST_BACKOFF", 0.01)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")


def ask(server: ChatServer | str, log: Path, dataset: ConceptDataset | None = None, **options: Any) -> PromptAnswers:
    dataset = texts() if dataset is None else dataset
    url = server if isinstance(server, str) else server.url
    return ask_prompts(dataset, labels_of(dataset), PromptOptions("m", url, **options), log)


def truth(asked: str) -> bool:
    """What the server of most tests believes, from the question alone."""
    return ("number 1" in asked) == ('"joy"' in asked)


def knowing(number: int, seen: Seen) -> Act:
    return Act(content="**Yes**" if truth(seen.asked) else "No.")


EXPECTED = np.array([[np.nan, np.nan], [1, 0], [np.nan, np.nan], [0, 1], [0, 1]], dtype=np.float32)


def test_answers_scores_and_counts(tmp_path: Path) -> None:
    with serving(knowing) as server:
        answers = ask(server, tmp_path / "log.jsonl", price_in=1e6, price_out=2e6)
        assert server.seen[0].path == "/v1/chat/completions"
    np.testing.assert_array_equal(answers.answers, EXPECTED)
    scores = answers.scores()
    assert (scores.kind, scores.level, scores.site, list(scores.pooled)) == ("prompt", "sample", "prompt", ["prompt"])
    np.testing.assert_array_equal(scores.pooled["prompt"], EXPECTED)
    assert scores.pooled["prompt"].dtype == np.float32
    assert scores.tokens.shape == (0, 2)
    assert len(scores.samples) == 0
    scores.save(tmp_path / "scores", "made from")
    np.testing.assert_array_equal(type(scores).load(tmp_path / "scores").pooled["prompt"], EXPECTED)
    assert json.loads(json.dumps(answers.counts)) == answers.counts
    assert answers.counts == {
        "questions": 6,
        "yes": 3,
        "no": 3,
        "unparsable": 0,
        "truncated": 0,
        "filtered": 0,
        "tokens_in": 66,
        "tokens_out": 12,
        "without_tokens": 0,
        "cost": 66.0 + 24.0,
        "places": [server.url],
        "served": ["served-1"],
        "asked": 6,
        "from_log": 0,
        "retries": 0,
        "asked_cost": 90.0,
    }


def test_a_request_holds_what_the_options_say(tmp_path: Path) -> None:
    with serving() as server:
        ask(server, tmp_path / "a.jsonl", max_tokens=7, concurrency=1)
        assert server.seen[0].body == {
            "model": "m",
            "messages": server.seen[0].body["messages"],
            "temperature": 0,
            "max_tokens": 7,
        }
        assert [message["role"] for message in server.seen[0].body["messages"]] == ["system", "user"]
        assert 'text number 1 with {braces} über 😀\n"""' in server.seen[0].asked
        extra = {"max_tokens": None, "temperature": None, "max_completion_tokens": 9, "reasoning_effort": "low"}
        ask(server, tmp_path / "b.jsonl", extra=extra)
        assert set(server.seen[-1].body) == {"model", "messages", "max_completion_tokens", "reasoning_effort"}


def test_the_server_sees_the_very_image(tmp_path: Path) -> None:
    dataset = images()
    red = {sample.id: int(sample.image[..., 0].sum()) for sample in dataset.samples}
    middle = float(np.median(list(red.values())))

    def looking(number: int, seen: Seen) -> Act:
        url = seen.body["messages"][-1]["content"][0]["image_url"]["url"]
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))))
        return Act(content="yes" if pixels[..., 0].sum() >= middle else "no")

    with serving(looking) as server:
        answers = ask(server, tmp_path / "log.jsonl", dataset, splits=("train", "cal", "test"))
    expected = [[float(red[sample.id] >= middle)] * 2 for sample in dataset.samples]
    np.testing.assert_array_equal(answers.answers, np.array(expected, dtype=np.float32))


# ------------------------------------------------------------------ faults that pass

PASSING = {
    "too many": Act(429, body=b'{"error": {"message": "slow down"}}'),
    "timeout there": Act(408, body=b""),
    "conflict": Act(409, body=b""),
    "broken": Act(500, body=b"<html>oops</html>"),
    "overloaded": Act(503, body=b"[1]"),
    "garbage": Act(body=b'{"choices": [{"mess'),
    "not utf-8": Act(body=b"\xff\xfe\x00"),
    "html": Act(body=b"<html>hello</html>", headers={"Content-Type": "text/html"}),
    "no choices": Act(body=b'{"choices": []}'),
    "choices null": Act(body=b'{"choices": null}'),
    "a number": Act(body=b"3"),
    "no message": Act(body=b'{"choices": [{"index": 0}]}'),
    "odd content": Act(content=3),
    "hung up": Act(hang_up=True),
    "half a body": Act(body=b"{}", headers={"Content-Encoding": "gzip"}),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_faults_that_pass_are_asked_again(tmp_path: Path, fault: Act) -> None:
    def script(number: int, seen: Seen) -> Act:
        return fault if number in (0, 1, 4) else knowing(number, seen)

    with serving(script) as server:
        answers = ask(server, tmp_path / "log.jsonl", concurrency=2, retries=3)
        assert len(server.seen) == 9
    np.testing.assert_array_equal(answers.answers, EXPECTED)
    assert answers.counts["retries"] == 3
    assert answers.counts["asked"] == 6
    assert len(read_answers(tmp_path / "log.jsonl")) == 6


def test_a_slow_answer_is_asked_again(tmp_path: Path) -> None:
    def script(number: int, seen: Seen) -> Act:
        act = knowing(number, seen)
        act.wait = 1.5 if number == 0 else 0.0
        return act

    with serving(script) as server:
        answers = ask(server, tmp_path / "log.jsonl", concurrency=1, timeout=0.5)
    np.testing.assert_array_equal(answers.answers, EXPECTED)
    assert answers.counts["retries"] == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_waited_for_by_all(tmp_path: Path, form: str) -> None:
    def script(number: int, seen: Seen) -> Act:
        if number:
            return knowing(number, seen)
        # a date has whole seconds only
        text = "1.2" if form == "seconds" else formatdate(time.time() + 2.2, usegmt=True)
        return Act(429, body=b"{}", headers={"Retry-After": text})

    with serving(script) as server:
        answers = ask(server, tmp_path / "log.jsonl", concurrency=1)
        times = [seen.time for seen in server.seen]
    assert times[1] - times[0] >= (1.15 if form == "seconds" else 1.0)
    np.testing.assert_array_equal(answers.answers, EXPECTED)

    waited = threading.Event()

    def together(number: int, seen: Seen) -> Act:
        if number == 0:
            return Act(429, body=b"{}", headers={"Retry-After": "2"})
        waited.wait(0.8)  # so that the first refusal is there before the next question
        return knowing(number, seen)

    with serving(together) as server:
        ask(server, tmp_path / "other.jsonl", concurrency=2)
        late = [seen.time - server.seen[0].time for seen in server.seen]
    assert sum(delay < 1.9 for delay in late) <= 2  # what was already in flight, and the refused one


def test_a_long_retry_after_ends_the_run(tmp_path: Path) -> None:
    with (
        serving(lambda number, seen: Act(429, body=b"{}", headers={"Retry-After": "86400"})) as server,
        pytest.raises(
            ModelError, match=r"HTTP 429.*asks to wait 86400 s, so go on after that\); answers so far are kept"
        ),
    ):
        ask(server, tmp_path / "log.jsonl", concurrency=1)
    assert len(server.seen) == 1


@pytest.mark.parametrize("given", ["", "soon", "nan", "inf", "-5", "Wed, 99 Foo"])
def test_a_retry_after_that_says_nothing_is_not_waited_for(tmp_path: Path, given: str) -> None:
    def script(number: int, seen: Seen) -> Act:
        return knowing(number, seen) if number else Act(503, body=b"", headers={"Retry-After": given})

    with serving(script) as server:
        assert ask(server, tmp_path / "log.jsonl").counts["retries"] == 1


def test_after_the_last_retry_there_is_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"

    def script(number: int, seen: Seen) -> Act:
        return knowing(number, seen) if number < 4 else Act(500, body=b'{"error": {"message": "out of\\nmemory"}}')

    with serving(script) as server:
        with pytest.raises(ModelError) as caught:
            ask(server, log, concurrency=1, retries=2)
        assert len(server.seen) == 4 + 3
        line = str(caught.value)
        assert "sample 't4' and concept 'joy' failed (HTTP 500: out of memory; sent 3 times)" in line
        assert "answers so far are kept: run again to go on" in line
        assert "\n" not in line
        assert len(read_answers(log)) == 4
        server.script = knowing
        answers = ask(server, log, concurrency=1, retries=2)
        assert len(server.seen) == 7 + 2
    np.testing.assert_array_equal(answers.answers, EXPECTED)
    assert (answers.counts["asked"], answers.counts["from_log"]) == (2, 4)


def test_no_server_at_all_is_one_line(tmp_path: Path) -> None:
    with serving() as server:
        url = server.url
    with pytest.raises(ModelError, match=r"no connection \(.+\); sent 2 times\); answers so far are kept"):
        ask(url, tmp_path / "log.jsonl", retries=1)


# ------------------------------------------------------------------ faults that stay


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (400, "mend what it says"),
        (401, "the key was not accepted"),
        (403, "the key may not use this model"),
        (404, "no such model or address"),
        (307, "the server is elsewhere"),
        (422, "mend what it says"),
    ],
)
def test_refusals_end_the_run_at_once_with_one_line(tmp_path: Path, status: int, hint: str) -> None:
    body = json.dumps({"error": {"message": "refused, because\nof reasons", "code": "x"}}).encode()
    headers = {"Location": "http://127.0.0.1:1/elsewhere"} if status == 307 else {}
    with serving(lambda number, seen: Act(status, body=body, headers=headers)) as server:
        with pytest.raises(ModelError) as caught:
            ask(server, tmp_path / "log.jsonl", concurrency=1)
        assert len(server.seen) == 1
    assert f"HTTP {status}: refused, because of reasons; {hint}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_in_flight_when_a_refusal_comes_is_kept(tmp_path: Path) -> None:
    def script(number: int, seen: Seen) -> Act:
        while len(server.seen) < 3:
            time.sleep(0.01)
        return Act(401, body=b"{}") if number == 0 else Act(content="no", wait=0.7)

    with serving(script) as server:
        with pytest.raises(ModelError, match="HTTP 401"):
            ask(server, tmp_path / "log.jsonl", concurrency=3)
        assert len(server.seen) == 3
    assert len(read_answers(tmp_path / "log.jsonl")) == 2


def test_a_content_filter_counts_as_unparsable_and_does_not_end_the_run(tmp_path: Path) -> None:
    def script(number: int, seen: Seen) -> Act:
        if "number 3" in seen.asked:
            return Act(400, body=b'{"error": {"message": "bad words", "code": "content_filter"}}')
        return Act(content="yes")

    with serving(script) as server:
        answers = ask(server, tmp_path / "log.jsonl")
    np.testing.assert_array_equal(answers.answers[[1, 3, 4]], [[1, 1], [0, 0], [1, 1]])
    assert (answers.counts["filtered"], answers.counts["unparsable"], answers.counts["without_tokens"]) == (2, 2, 2)


def test_unparsable_and_truncated_answers_are_counted_as_no_and_kept(tmp_path: Path) -> None:
    replies = {
        '1.*"joy"': Act(content="Perhaps."),
        '1.*"fear"': Act(content=None, finish="length"),
        '3.*"joy"': Act(content="Let me think: yes", finish="length"),
        '3.*"fear"': Act(content="<think>It is</think>Yes", usage=None),
        '4.*"joy"': Act(content=[{"type": "text", "text": "FINAL "}, {"type": "text", "text": "ANSWER: yes"}]),
        '4.*"fear"': Act(content="no", usage={"prompt_tokens": -1, "completion_tokens": "x"}),
    }

    def script(number: int, seen: Seen) -> Act:
        return next(
            act for name, act in replies.items() if all(f"{p}" in seen.asked for p in (f"number {name[0]}", name[3:]))
        )

    lines: list[str] = []
    dataset = texts()
    with serving(script) as server:
        options = PromptOptions("m", server.url)
        answers = ask_prompts(dataset, labels_of(dataset), options, tmp_path / "log.jsonl", say=lines.append)
    np.testing.assert_array_equal(answers.answers[[1, 3, 4]], [[0, 0], [0, 1], [1, 0]])
    counts = answers.counts
    assert (counts["yes"], counts["no"], counts["unparsable"], counts["truncated"]) == (2, 1, 3, 2)
    assert (counts["without_tokens"], counts["tokens_in"], counts["cost"]) == (2, 44, None)
    assert lines[-1] == (
        "prompt: 3 of 6 answers are neither yes nor no and count as no; 2 were cut off: raise max_tokens"
    )
    records = read_answers(tmp_path / "log.jsonl")
    raws = {(record["sample"], record["concept"]): record["raw"] for record in records}
    written = {(record["sample"], record["concept"]): record["answer"] for record in records}
    assert [written[f"t{row}", name] for row in (1, 3, 4) for name in ("joy", "fear")] == [
        *(None, None),
        *(None, "yes"),
        *("yes", "no"),
    ]
    assert raws["t3", "fear"] == "<think>It is</think>Yes"
    assert raws["t4", "joy"] == "FINAL ANSWER: yes"


# ------------------------------------------------------------------ concurrency, resuming, killing


def test_requests_in_flight_are_as_many_as_wanted_and_no_more(tmp_path: Path) -> None:
    dataset = texts(25)
    for concurrency in (1, 4):
        with serving(lambda number, seen: Act(content="no", wait=0.05)) as server:
            ask(server, tmp_path / f"{concurrency}.jsonl", dataset, concurrency=concurrency)
            assert server.most == concurrency
            assert len({seen.asked for seen in server.seen}) == len(server.seen) == 30


def test_answers_do_not_depend_on_concurrency(tmp_path: Path) -> None:
    dataset = texts(25, concepts=("joy", "fear", "a {strange} one"))
    with serving(knowing) as server:
        one, many = (ask(server, tmp_path / f"{n}.jsonl", dataset, concurrency=n) for n in (1, 16))
    np.testing.assert_array_equal(one.answers, many.answers)


def test_a_second_run_asks_only_what_is_missing(tmp_path: Path) -> None:
    log, dataset = tmp_path / "log.jsonl", texts()
    with serving(knowing) as server:
        ask(server, log)
        again = ask(server, log)
        assert len(server.seen) == 6
        assert (again.counts["asked"], again.counts["from_log"], again.counts["tokens_in"]) == (0, 6, 66)
        np.testing.assert_array_equal(again.answers, EXPECTED)
        ask(server, log, splits=("cal", "test"))
        assert len(server.seen) == 8
        assert {"number 2" in seen.asked for seen in server.seen[6:]} == {True}
        more = texts(concepts=("joy", "fear", "hope"))
        assert ask(server, log, more).counts["asked"] == 3
        options = PromptOptions("m", server.url, splits=("test", "train"))
        assert estimate(dataset, labels_of(dataset), options, log)["from_log"] == 6
        assert estimate(dataset, labels_of(dataset), options, log)["tokens_out"] == 2 * 64
        torn = log.read_bytes()[:-9]
        log.write_bytes(torn)
        assert ask(server, log, more).counts["asked"] == 1
    url = server.url
    assert ask(url, log, more).counts["asked"] == 0  # no server is needed for a whole log


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_loses_only_what_was_in_flight(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    code = """
import sys
from pathlib import Path
from baselines.asked_data import labels_of, texts
from superactivators.baselines.prompt import ask_prompts
from superactivators.baselines.prompt_options import PromptOptions
dataset = texts(50)
ask_prompts(dataset, labels_of(dataset), PromptOptions("m", sys.argv[1], concurrency=3), Path(sys.argv[2]))
"""
    reached = threading.Event()

    def script(number: int, seen: Seen) -> Act:
        if number >= 23:
            reached.set()
            return Act(wait=60)
        return knowing(number, seen)

    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with serving(script) as server:
        process = subprocess.Popen([sys.executable, "-c", code, server.url, str(log)], env=env)
        try:
            assert reached.wait(120)
            while len(server.seen) < 26:
                time.sleep(0.01)
            time.sleep(0.2)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert len(read_answers(log)) == 23
        server.script = knowing
        answers = ask(server, log, texts(50), concurrency=3)
        assert (answers.counts["from_log"], answers.counts["asked"]) == (23, 60 - 23)
        assert len(server.seen) == 26 + 37
    expected = [[float(truth(f'number {k} "{name}"')) for name in ("joy", "fear")] for k in range(50)]
    asked = np.isin(texts(50).splits, ["test"])
    np.testing.assert_array_equal(answers.answers[asked], np.array(expected, dtype=np.float32)[asked])
    assert np.isnan(answers.answers[~asked]).all()


# ------------------------------------------------------------------ the key


def test_the_key_is_sent_and_never_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    log, lines = tmp_path / "log.jsonl", []

    def leaking(number: int, seen: Seen) -> Act:
        return Act(content=f"Yes. You sent {seen.headers['authorization']}", finish=KEY)

    dataset = texts()
    with serving(leaking) as server:
        options = PromptOptions("m", server.url, api_key_env="MY_KEY")
        answers = ask_prompts(dataset, labels_of(dataset), options, log, say=lines.append)
        assert {seen.headers["authorization"] for seen in server.seen} == {f"Bearer {KEY}"}
        server.script = lambda number, seen: Act(401, body=f'{{"error": "Incorrect key: {KEY}"}}'.encode())
        with pytest.raises(ModelError, match=r"HTTP 401: Incorrect key: \[key\]; the key was not accepted") as caught:
            ask(server, log, api_key_env="MY_KEY", splits=("cal",))
    assert answers.counts["yes"] == 6
    assert "You sent Bearer [key]" in read_answers(log)[0]["raw"]
    out = capfd.readouterr()
    written = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    for text in [*written, *lines, str(caught.value), repr(options), repr(answers), out.out, out.err]:
        assert KEY not in text


def test_without_a_name_no_key_of_anybody_is_sent(tmp_path: Path) -> None:
    with serving() as server:
        ask(server, tmp_path / "log.jsonl")
        for seen in server.seen:
            assert "authorization" not in seen.headers
            assert "somebody" not in json.dumps([seen.headers, seen.body])


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_key_that_is_not_set_is_one_line_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("NO_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("NO_KEY", value)
    with serving() as server:
        with pytest.raises(StudyError, match=r"the environment variable NO_KEY \(api_key_env\) is not set"):
            ask(server, tmp_path / "log.jsonl", api_key_env="NO_KEY")
        assert not server.seen


def test_a_key_with_a_line_break_is_refused_without_showing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret\nHost: elsewhere")
    with pytest.raises(StudyError, match="has signs that no key has") as caught:
        ask("http://127.0.0.1:1/v1", tmp_path / "log.jsonl", api_key_env="MY_KEY")
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGUSR1")
def test_ctrl_c_keeps_what_is_in_flight(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"

    class Interrupted(KeyboardInterrupt):
        pass

    def interrupt(signum: int, frame: Any) -> None:
        raise Interrupted

    def script(number: int, seen: Seen) -> Act:
        if number == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        return Act(wait=0.7)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with serving(script) as server:
            with pytest.raises(Interrupted):
                ask(server, log, concurrency=2)
            assert len(server.seen) == 2
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(read_answers(log)) == 2
