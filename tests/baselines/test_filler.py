"""Sentences from a chat model, against a real HTTP server that also misbehaves."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from baselines.chat_server import Act, Seen, serving
from superactivators.baselines import prompt_endpoint
from superactivators.baselines.filler import AVOID, TOPICS, write_filler
from superactivators.baselines.prompt_log import read_answers
from superactivators.data.filler import read_filler
from superactivators.errors import ModelError, StoreError, StudyError

KEY = "sk-a-very-secret-key-123"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, and an environment that must not leak into requests."""
    monkeypatch.setattr(prompt_endpoint, "_FIRST_BACKOFF", 0.01)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")


def sentences(seen: Seen, count: int = 5) -> list[str]:
    """What the server of most tests writes, from the request alone."""
    about = re.search(r"about (.*)\.\n", seen.asked)
    assert about is not None
    return [f"Sentence {n} says something plain of {about[1]}" for n in range(count)]


def willing(number: int, seen: Seen) -> Act:
    return Act(content="\n".join(sentences(seen)))


def write(path: Path, count: int, url: str, **options: Any) -> dict[str, Any]:
    return write_filler(
        path, count, model="m", endpoint=url, **{"per_request": 5, "topics": ["tea", "rain"], **options}
    )


def test_lines_and_provenance(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    with serving(willing) as server:
        made = write(path, 17, server.url, avoid=["joy", "anger"], say=lambda line: None)
        bodies = [seen.body for seen in server.seen]
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines[-1] == ""
    again = " (set 2: other sentences than in the sets before)"
    assert (
        lines[:-1]
        == [
            f"Sentence {n} says something plain of {topic}"
            for topic in ("tea", "rain", "tea" + again, "rain" + again)
            for n in range(5)
        ][:17]
    )
    assert [text.text for text in read_filler(path)] == lines[:-1]
    assert json.loads((tmp_path / "lines.txt.json").read_text(encoding="utf-8")) == made
    times = (made.pop("began"), made.pop("ended"))
    assert times[0] <= times[1]
    assert made == {
        "format": "superactivators/filler",
        "version": 1,
        "texts": 17,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "model": "m",
        "served": ["served-1"],
        "endpoint": server.url,
        "system": "You write short plain texts. You answer with the texts alone.",
        "prompt": made["prompt"],
        "topics": ["tea", "rain"],
        "avoid": ["joy", "anger"],
        "request": {"temperature": 1.0, "max_tokens": 2048},
        "requests": 4,
        "tokens_in": 44,
        "tokens_out": 8,
        "dropped": {
            "cut_off": 0,
            "no_sentence": 0,
            "too_short": 0,
            "too_long": 0,
            "near_duplicates": 0,
            "not_needed": 3,
        },
    }
    assert {body["temperature"] for body in bodies} == {1.0}
    asked = [body["messages"][1]["content"] for body in bodies]
    assert all("Write 5 different sentences" in text and "from 3 to 25 words" in text for text in asked)
    assert all("any of: joy, anger.\n" in text for text in asked)
    assert sorted(asked) == sorted(
        made["prompt"].format(text=text, concept="joy, anger")
        for text in ("tea", "rain", "tea" + again, "rain" + again)
    )


def test_only_plain_different_lines_are_taken(tmp_path: Path) -> None:
    written = (
        "<think>Some sentences\nabout tea then.</think>\nHere are five sentences:\n\n"
        "1. The kettle is on the stove.\n2) “The cup is made of glass.”\n- \tThe tea  is green today\n"
        "* the KETTLE is on the stove!\n(4) 'The shop's tea is cheap'\n```\nNo.\n" + "word " * 26 + "\n"
        'He said "no" to the tea\n"One" and "two" are cups\nÜber den Tee 😀 sagt er nichts \ud83d\nCut off here and'
    )
    with serving(lambda number, seen: Act(content=written, finish="length")) as server:
        made = write(tmp_path / "a.txt", 7, server.url, topics=["tea"], per_request=7)
    assert (tmp_path / "a.txt").read_text(encoding="utf-8").split("\n") == [
        "The kettle is on the stove.",
        "The cup is made of glass.",
        "The tea is green today",
        "'The shop's tea is cheap'",
        'He said "no" to the tea',
        '"One" and "two" are cups',
        "Über den Tee 😀 sagt er nichts ?",
        "",
    ]
    assert made["dropped"] == {
        "cut_off": 1,
        "no_sentence": 2,
        "too_short": 1,
        "too_long": 1,
        "near_duplicates": 1,
        "not_needed": 0,
    }


def test_more_is_asked_while_there_is_not_enough(tmp_path: Path) -> None:
    def lazy(number: int, seen: Seen) -> Act:
        return Act(content="\n".join(sentences(seen, 2)))

    with serving(lazy) as server:
        made = write(tmp_path / "a.txt", 10, server.url, concurrency=1)
        assert made["requests"] == len(server.seen) == 5
    with serving(willing) as server:
        made = write(tmp_path / "b.txt", 10, server.url)
        assert made["requests"] == len(server.seen) == 2


def test_a_model_that_repeats_itself_is_given_up(tmp_path: Path) -> None:
    with serving(lambda number, seen: Act(content="Always the same sentence\nand a second one")) as server:
        with pytest.raises(ModelError, match=r"10 answers of m hold only 2 different sentences .* fewer than 10, or"):
            write(tmp_path / "a.txt", 10, server.url)
        assert len(server.seen) == 10
    assert not (tmp_path / "a.txt").exists()
    assert len(read_answers(tmp_path / "a.txt.answers.jsonl")) == 10
    with serving(lambda number, seen: Act(content="Always the same sentence\nand a second one")) as server:
        assert write(tmp_path / "a.txt", 2, server.url)["texts"] == 2


FAULTS = {
    "too many": Act(429, body=b"{}"),
    "broken": Act(500, body=b"<html>oops</html>"),
    "garbage": Act(body=b'{"choices": [{"mess'),
    "hung up": Act(hang_up=True),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_faults_that_pass_change_nothing(tmp_path: Path, fault: Act) -> None:
    with serving(willing) as server:
        write(tmp_path / "good.txt", 20, server.url)
    with serving(lambda number, seen: fault if number in (0, 2) else willing(number, seen)) as server:
        write(tmp_path / "again.txt", 20, server.url, concurrency=2)
        assert len(server.seen) == 6
    assert (tmp_path / "again.txt").read_bytes() == (tmp_path / "good.txt").read_bytes()


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    with serving(willing) as server:
        write(tmp_path / "whole.txt", 40, server.url)
    path = tmp_path / "part.txt"
    with serving(lambda number, seen: Act(401, body=b"{}") if number == 3 else willing(number, seen)) as server:
        with pytest.raises(ModelError, match="answers so far are kept: run again to go on"):
            write(path, 40, server.url, concurrency=1)
        assert len(server.seen) == 4
    assert not path.exists()
    with serving(willing) as server:
        write(path, 40, server.url)
        assert len(server.seen) == 5
        assert path.read_bytes() == (tmp_path / "whole.txt").read_bytes()
        write(path, 40, server.url)
        assert len(server.seen) == 5
        made = write(path, 50, server.url)
        assert (len(server.seen), made["texts"]) == (7, 50)
    assert path.read_bytes().startswith((tmp_path / "whole.txt").read_bytes())


def test_a_filtered_answer_has_no_sentence(tmp_path: Path) -> None:
    refusal = Act(400, body=b'{"error": {"code": "content_filter", "message": "no"}}', usage=None)
    with serving(lambda number, seen: refusal if number == 0 else willing(number, seen)) as server:
        made = write(tmp_path / "a.txt", 10, server.url, concurrency=1)
    assert (made["requests"], made["tokens_in"]) == (4, None)


def test_the_key_is_sent_and_kept_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serving(willing) as server:
        write(tmp_path / "a.txt", 5, server.url, api_key_env="MY_KEY", temperature=None, extra={"seed": 3})
        seen = server.seen[0]
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert "temperature" not in seen.body
    assert seen.body["seed"] == 3
    for file in tmp_path.iterdir():
        assert KEY.encode() not in file.read_bytes()


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    with serving(lambda number, seen: Act(content=f"I saw this: {seen.asked}")) as server:
        write(tmp_path / "a.txt", 1, server.url, template="Write of {text} without {concept}", avoid=["joy"], system="")
        assert [message["role"] for message in server.seen[0].body["messages"]] == ["user"]
    assert (tmp_path / "a.txt").read_text() == "I saw this: Write of tea without joy\n"


def test_what_is_in_the_way_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("mine\n")
    with serving(willing) as server:
        with pytest.raises(StoreError, match="is there already and was not written by this command"):
            write(path, 5, server.url)
        assert not server.seen
    assert path.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"count": 0}, "count must be at least 1; got 0"),
        ({"per_request": 0}, "per_request must be from 1 to 100; got 0"),
        ({"min_words": 9, "max_words": 8}, "1 <= min_words <= max_words must hold; got 9 and 8"),
        ({"topics": []}, "topics must be a list of texts that are not empty"),
        ({"topics": "tea"}, "topics must be a list of texts that are not empty; got 'tea'"),
        ({"avoid": ["joy", " "]}, "avoid must be a list of texts"),
        ({"template": "no fields"}, "the template has no {concept}"),
        ({"endpoint": "ftp://x"}, "endpoint must be a URL"),
        ({"api_key_env": "NOT_SET_AT_ALL"}, "variable NOT_SET_AT_ALL .* is not set"),
    ],
)
def test_options_that_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    given = {"count": 5, "model": "m", "endpoint": "http://localhost:1/v1", **options}
    with pytest.raises(StudyError, match=says):
        write_filler(tmp_path / "a.txt", **given)
    assert not (tmp_path / "a.txt").exists()


def test_built_in_topics() -> None:
    assert len(set(TOPICS)) == len(TOPICS) >= 20
    assert AVOID
