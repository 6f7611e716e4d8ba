"""A real HTTP server on this machine that speaks OpenAI's chat completions, and misbehaves on request."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Act:
    """What the server does with one request."""

    status: int = 200
    body: bytes | None = None
    """None: a chat completion with ``content``."""
    content: Any = "Yes."
    finish: str | None = "stop"
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    hang_up: bool = False
    usage: dict[str, Any] | None = field(default_factory=lambda: {"prompt_tokens": 11, "completion_tokens": 2})


@dataclass
class Seen:
    """One request as the server saw it."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    time: float

    @property
    def asked(self) -> str:
        """Text of the user message."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else content[-1]["text"]


class ChatServer:
    """Counts requests and how many were in flight at once; ``script(number, seen)`` says what to do with each."""

    def __init__(self, script: Callable[[int, Seen], Act]) -> None:
        self.script, self.seen, self.most, self._now = script, [], 0, 0
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen = Seen(self.path, {name.lower(): text for name, text in self.headers.items()}, body, time.time())
                with outer._lock:
                    number = len(outer.seen)
                    outer.seen.append(seen)
                    outer._now += 1
                    outer.most = max(outer.most, outer._now)
                try:
                    act = outer.script(number, seen)
                    time.sleep(act.wait)
                finally:
                    with outer._lock:
                        outer._now -= 1
                if act.hang_up:
                    # a reset, not an orderly end
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    self.connection.close()
                    return
                content = act.body if act.body is not None else completion(act)
                try:
                    self.send_response(act.status)
                    for name, text in {"Content-Type": "application/json", **act.headers}.items():
                        self.send_header(name, text)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    self.close_connection = True  # the client gave up waiting

            def finish(self) -> None:
                with suppress(OSError, ValueError):
                    super().finish()

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def completion(act: Act) -> bytes:
    """Body of a chat completion."""
    choice = {"index": 0, "finish_reason": act.finish, "message": {"role": "assistant", "content": act.content}}
    content: dict[str, Any] = {"id": "c", "object": "chat.completion", "model": "served-1", "choices": [choice]}
    return json.dumps(content | ({} if act.usage is None else {"usage": act.usage})).encode()


@contextmanager
def serving(script: Callable[[int, Seen], Act] = lambda number, seen: Act()) -> Iterator[ChatServer]:
    """Run a server inside a ``with`` block."""
    with ChatServer(script) as server:
        yield server
