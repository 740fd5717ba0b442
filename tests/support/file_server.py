"""A real HTTP server of files on loopback that misbehaves when it is told to."""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How one request is answered.

    `cut_at` ends the connection after those bytes of the file, `length` is announced
    instead of the real one.
    """

    status: int = 200
    content: bytes | None = None
    cut_at: int | None = None
    length: int | None = None
    ranges: bool = True
    versioned: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    wait_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class FileServer:
    """The files of a running server, and what it was asked for."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    head_wait_s: float = 0.0
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    def asked(self, method: str = "GET") -> list[str]:
        """Give the paths of the requests of a method."""
        return [path for verb, path, _ in self.requests if verb == method]

    def ranges(self) -> list[str]:
        """Give the Range header of each GET, empty where it had none."""
        return [given for verb, _, given in self.requests if verb == "GET"]


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, files: FileServer, *arguments: Any) -> None:
        self._files = files
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        """Tell a size; steps are for GET alone."""
        self._answer(Step(wait_s=self._files.head_wait_s))

    def do_GET(self) -> None:
        """Answer with the next step, or as a well-behaved server."""
        self._answer(self._files.steps.pop(0) if self._files.steps else Step())

    def _answer(self, step: Step) -> None:
        given = self.headers.get("Range", "")
        self._files.requests.append((self.command, self.path, given))
        content = step.content or self._files.files.get(self.path.lstrip("/"))
        time.sleep(step.wait_s)
        if step.status != 200 or content is None:
            self.send_response(404 if content is None else step.status)
            for name, value in step.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        tag = f'"{hashlib.sha256(content).hexdigest()[:8]}"'
        same = self.headers.get("If-Range", tag) == tag
        start = int(given[6:-1]) if given and step.ranges and same else 0
        self._head(step, content, start, tag)
        if self.command == "GET":
            self.wfile.write(content[start : step.cut_at])
            self.close_connection = step.cut_at is not None

    def _head(self, step: Step, content: bytes, start: int, tag: str) -> None:
        self.send_response(206 if start else 200)
        if start:
            end, total = len(content) - 1, len(content)
            self.send_header("Content-Range", f"bytes {start}-{end}/{total}")
        self.send_header("Content-Length", str(step.length or len(content) - start))
        if step.versioned:
            self.send_header("ETag", tag)
        for name, value in step.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal clean."""


@contextmanager
def serving(
    handler: Callable[..., BaseHTTPRequestHandler], context: ssl.SSLContext | None
) -> Iterator[str]:
    """Run a server in a thread, with `context` over TLS; give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        # Failed handshakes are what a test of TLS wants.
        running.handle_error = lambda *_: None  # type: ignore[method-assign]
        if context is not None:
            running.socket = context.wrap_socket(running.socket, server_side=True)
        scheme = "http" if context is None else "https"
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"{scheme}://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


@contextmanager
def run_file_server(context: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    """Run a server without files; with `context` over TLS."""
    server = FileServer()
    with serving(partial(_Handler, server), context) as server.url:
        yield server


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Give a running server without files."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with run_file_server() as server:
        yield server
