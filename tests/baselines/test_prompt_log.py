"""The answer log: nothing is lost, nothing foreign is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from superactivators.baselines.prompt_log import AnswerLog, read_answers
from superactivators.baselines.prompt_questions import Question, Reply
from superactivators.errors import StoreError


def question(number: int) -> Question:
    return Question(number, 0, f"s{number}", "joy", "content", f"key{number}")


def reply(raw: str = "Yes.") -> Reply:
    return Reply(raw, "stop", 11, 2, 0.25, "served-1")


def filled(path: Path, n: int = 3) -> Path:
    with AnswerLog(path) as log:
        for number in range(n):
            log.add(question(number), reply(f"Yes {number} ü 😀 \ud800\nnew line"), True, "local")
    return path


def test_answers_come_back_as_they_were_given(tmp_path: Path) -> None:
    path = filled(tmp_path / "deep" / "log.jsonl")
    records = read_answers(path)
    assert [record["key"] for record in records] == ["key0", "key1", "key2"]
    assert records[2]["raw"] == "Yes 2 ü 😀 \ud800\nnew line"
    assert {name: records[0][name] for name in ("answer", "finish", "tokens_in", "tokens_out", "served", "place")} == {
        "answer": "yes",
        "finish": "stop",
        "tokens_in": 11,
        "tokens_out": 2,
        "served": "served-1",
        "place": "local",
    }
    with AnswerLog(path) as log:
        assert list(log.answers.values()) == records
        log.add(question(3), reply(), None, "local")
    assert read_answers(path)[:3] == records
    assert read_answers(path)[3]["answer"] is None


def test_every_line_is_json(tmp_path: Path) -> None:
    lines = filled(tmp_path / "log.jsonl").read_text(encoding="ascii").splitlines()
    assert json.loads(lines[0]) == {"format": "superactivators/answers", "version": 1}
    assert [json.loads(line)["sample"] for line in lines[1:]] == ["s0", "s1", "s2"]


def test_a_log_cut_off_anywhere_keeps_its_whole_lines(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole.jsonl").read_bytes()
    ends = [place for place, sign in enumerate(whole) if sign == ord("\n")]
    near_ends = {end + step for end in ends for step in (-1, 0, 1, 2)}
    for cut in sorted({*range(0, len(whole), 23), *range(3), *near_ends} & {*range(len(whole) + 1)}):
        path = tmp_path / "cut.jsonl"
        path.write_bytes(whole[:cut])
        kept = max(0, sum(end < cut for end in ends) - 1)
        with AnswerLog(path) as log:
            assert len(log.answers) == kept
            log.add(question(99), reply(), True, "local")
        assert [record["key"] for record in read_answers(path)] == [f"key{n}" for n in range(kept)] + ["key99"]


def test_a_damaged_line_is_refused_wherever_a_sign_is_changed(tmp_path: Path) -> None:
    path = filled(tmp_path / "log.jsonl")
    whole = path.read_bytes()
    first, second = whole.index(b"\n") + 1, whole.index(b"\n", whole.index(b"\n") + 1)
    for place in range(first, second):
        changed = bytearray(whole)
        changed[place] ^= 1
        if changed[place] == ord("\n") or changed[place : place + 1].isspace():
            continue
        path.write_bytes(changed)
        with pytest.raises(StoreError, match=r"line 2 is damaged; delete that line"):
            AnswerLog(path)
        assert path.read_bytes() == changed


@pytest.mark.parametrize(
    "content",
    [
        b"hello",
        b"hello\n",
        b'{"a": 1}\n',
        b"[1]\n",
        b'"superactivators/answers"\n',
        b"\x00\xff\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_foreign_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is no answer log of the prompt baseline; choose another file"):
        AnswerLog(path)
    with pytest.raises(StoreError, match="is no answer log"):
        read_answers(path)
    assert path.read_bytes() == content


def test_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"format": "superactivators/answers", "version": 2}\n')
    with pytest.raises(StoreError, match="version 2, but this release reads version 1"):
        AnswerLog(path)


def test_a_folder_or_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        AnswerLog(tmp_path)
    with pytest.raises(StoreError, match="cannot be read"):
        read_answers(tmp_path / "nothing.jsonl")


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks of this sort")
def test_two_runs_do_not_write_one_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with AnswerLog(path) as log:
        log.add(question(0), reply(), True, "local")
        with pytest.raises(StoreError, match="is being written by another run"):
            AnswerLog(path)
        assert len(read_answers(path)) == 1  # reading is always allowed
    with AnswerLog(path) as log:
        assert len(log.answers) == 1


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with AnswerLog(path) as log:

        def write(start: int) -> None:
            for number in range(start, 400, 8):
                log.add(question(number), reply("x" * number), False, "local")

        threads = [threading.Thread(target=write, args=(start,)) for start in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(len(record["raw"]) for record in read_answers(path)) == list(range(400))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of files are set otherwise")
def test_a_full_disk_is_one_line_and_leaves_a_readable_log(tmp_path: Path) -> None:
    code = """
import resource, signal, sys
from pathlib import Path
from superactivators.baselines.prompt_log import AnswerLog
from superactivators.baselines.prompt_questions import Question, Reply
from superactivators.errors import StoreError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
log = AnswerLog(Path(sys.argv[1]))
try:
    for n in range(100):
        log.add(Question(n, 0, f"s{n}", "joy", "c", f"key{n}"), Reply("Yes", "stop", 1, 1, 0.5), True, "local")
except StoreError as error:
    print(n, error)
"""
    path = tmp_path / "log.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, env={**os.environ}
    )
    written, line = done.stdout.strip().split(" ", 1)
    assert 2 < int(written) < 20
    assert "cannot be written (File too large)" in line
    assert path.read_bytes().endswith(b"\n")
    assert len(read_answers(path)) == int(written)
