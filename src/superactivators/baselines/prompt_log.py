"""The answer log: JSON Lines, only ever appended to, so that no answer is paid for twice."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, final

from superactivators.artefacts import Format, reported
from superactivators.baselines.prompt_questions import Question, Reply
from superactivators.errors import StoreError

if sys.platform != "win32":
    import fcntl

FORMAT = Format("superactivators/answers", 1)
_HEADER = (json.dumps({"format": FORMAT.name, "version": FORMAT.version}) + "\n").encode()
_NEEDED = {"key": str, "sample": str, "concept": str, "raw": str, "seconds": float}


@final
class AnswerLog:
    """An open log. The first line names the format; every other line is one answer with a checksum.

    A last line without an end was being written when the process died; it is dropped, and its question asked again.
    Every answer is handed to the operating system at once, so that a killed process loses none.

    Parameters
    ----------
    path : Path
        Made if it does not exist, with its folder.

    Raises
    ------
    StoreError
        If the file is something else, is damaged, cannot be written, or is being written by another run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.Lock()
        with reported(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._lock()
            with reported(path):
                content = path.read_bytes()
            self.answers, whole = _read(path, content)
            with reported(path):
                if whole < len(content):
                    os.ftruncate(self._file, whole)
                if not whole:
                    self._append(_HEADER)
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> None:
        if sys.platform != "win32":
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StoreError(f"{self.path}: is being written by another run; wait for it to end") from None

    def add(self, question: Question, reply: Reply, answer: bool | None, place: str) -> None:
        """Append one answer; may be called from several threads.

        Parameters
        ----------
        question : Question
        reply : Reply
        answer : bool or None
            As it was parsed; None for an answer that is neither yes nor no.
        place : str
            Where it was asked: the endpoint, or ``"local"``.
        """
        record: dict[str, Any] = {
            "key": question.key,
            "sample": question.sample,
            "concept": question.concept,
            "content": question.content,
            "raw": reply.raw,
            "answer": None if answer is None else "yes" if answer else "no",
            "finish": reply.finish,
            "tokens_in": reply.tokens_in,
            "tokens_out": reply.tokens_out,
            "seconds": round(float(reply.seconds), 4),
            "served": reply.served,
            "place": place,
            "time": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }
        line = json.dumps(record | {"check": _check(record)}) + "\n"
        with self._writing, reported(self.path):
            self._append(line.encode())
            self.answers[question.key] = record

    def _append(self, content: bytes) -> None:
        before = os.fstat(self._file).st_size
        try:
            while content:
                content = content[os.write(self._file, content) :]
        except OSError:
            os.ftruncate(self._file, before)  # a full disk may have taken a part of the line
            raise

    def close(self) -> None:
        """Write through to the disk and close."""
        with reported(self.path):
            os.fsync(self._file)
        os.close(self._file)

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_answers(path: Path) -> list[Mapping[str, Any]]:
    """Read the answers of a log without changing it.

    Returns
    -------
    list of mapping
        In the order of writing, with ``key``, ``sample``, ``concept``, ``content``, ``raw``, ``answer`` (``"yes"``,
        ``"no"`` or None), ``finish``, ``tokens_in``, ``tokens_out``, ``seconds``, ``served``, ``place``, ``time``.

    Raises
    ------
    StoreError
        If there is no such file, or it is something else or damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    return list(_read(path, content)[0].values())


def _check(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read(path: Path, content: bytes) -> tuple[dict[str, Mapping[str, Any]], int]:
    """Answers by key, and how many bytes of the file are whole lines."""
    whole = content.rfind(b"\n") + 1
    if not whole and _HEADER.startswith(content):
        return {}, 0  # nothing, or a first line that was being written
    lines = content[:whole].split(b"\n")[:-1]
    try:
        header = json.loads(lines[0] if lines else content)
        name, version = header["format"], header["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        name, version = None, None
    if name != FORMAT.name:
        raise StoreError(f"{path}: is no answer log of the prompt baseline; choose another file")
    if version != FORMAT.version:
        raise StoreError(
            f"{path}: is {FORMAT.name} version {version!r}, but this release reads version {FORMAT.version}; "
            "use the release that wrote it, or choose another file"
        )
    answers: dict[str, Mapping[str, Any]] = {}
    for number, line in enumerate(lines[1:], start=2):
        try:
            record = json.loads(line)
            check = record.pop("check")
            good = check == _check(record) and all(isinstance(record[name], kind) for name, kind in _NEEDED.items())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            good = False
        if not good:
            raise StoreError(
                f"{path}: line {number} is damaged; delete that line to have its question asked again, "
                "or move the file away to ask all"
            )
        answers.setdefault(record["key"], record)
    return answers, whole
