"""A reply is read up to a bound: real servers send endless and compressed bodies."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.bounded import ERROR_BYTES
from tests.support.endpoint_calls import ask, ask_error, check, facts, text_request

MB = 1_000_000
ANSWER = json.dumps({"choices": [{"message": {"content": "A" * 50}}]}).encode()
MODELS = json.dumps({"data": [{"id": "tiny-vlm"}]}).encode()
# What a body begins with where it never ends, plain and compressed.
OPENING = b'{"choices": [{"message": {"content": "'
Body = Callable[[], Iterator[bytes]]


def endless(opening: bytes = OPENING) -> Iterator[bytes]:
    yield opening
    while True:
        yield b"A" * MB


def bomb() -> Iterator[bytes]:
    """Give a gzip body that unpacks to a thousand times its size, without an end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield packer.compress(OPENING)
    while True:
        yield packer.compress(b"A" * MB)


def empty_blocks() -> Iterator[bytes]:
    """Give a gzip body that unpacks to nothing, without an end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield packer.compress(b"")
    while True:
        yield packer.flush(zlib.Z_FULL_FLUSH) or b"\0\0\0\xff\xff" * 10_000


class Bodies(ThreadingHTTPServer):
    """Answers each request with a body, as chunks until the client has enough."""

    daemon_threads = True
    status = 200
    encoding = ""
    answers: Body
    models: Body = staticmethod(lambda: iter([MODELS]))
    sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Bodies

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._send(self.server.models)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(self.server.answers)

    def _send(self, body: Body) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        if self.server.encoding:
            self.send_header("Content-Encoding", self.server.encoding)
        self.end_headers()
        self.server.sent = 0
        try:
            for part in body():
                if part:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                    self.server.sent += len(part)
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            self.close_connection = True


@pytest.fixture
def bodies() -> Iterator[Bodies]:
    server = Bodies(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("answers", "encoding"), [(endless, ""), (bomb, "gzip"), (empty_blocks, "gzip")]
)
def test_a_reply_without_an_end(bodies: Bodies, answers: Body, encoding: str) -> None:
    bodies.answers, bodies.encoding = answers, encoding
    error = ask_error(bodies.url, max_reply_mb=2)
    assert facts(error) == ("protocol", None, False)
    assert str(error) == (
        f"{bodies.url} sent a reply of more than 2 MB, which is not read any further "
        "(--vlm-max-reply-mb)"
    )
    # What was on its way in buffers may be as much again.
    assert bodies.sent < 30 * MB


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_an_error_without_an_end_is_cut(bodies: Bodies, encoding: str) -> None:
    bodies.answers, bodies.status = (bomb if encoding else endless), 503
    bodies.encoding = encoding
    error = ask_error(bodies.url)
    assert facts(error) == ("status", 503, True)
    assert str(error).startswith(f'{bodies.url} answered 503: {{"choices": [')
    assert len(str(error)) < 700
    assert bodies.sent < 30 * ERROR_BYTES


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_list_of_models_without_an_end(bodies: Bodies, encoding: str) -> None:
    bodies.models, bodies.encoding = (bomb if encoding else endless), encoding
    bodies.answers = endless
    with pytest.raises(VlmEvalError) as caught:
        check(bodies.url, max_reply_mb=1)
    assert len(str(caught.value)) < 3_000
    assert bodies.sent < 30 * MB


def test_a_reply_of_just_the_bound(bodies: Bodies) -> None:
    bodies.answers = lambda: iter([ANSWER])
    size = len(ANSWER) / MB
    assert ask(bodies.url, text_request("?"), max_reply_mb=size).text == "A" * 50
    error = ask_error(bodies.url, max_reply_mb=size - 1 / MB)
    assert "more than" in str(error)


MEMBERS = gzip.compress(ANSWER[:20]) + gzip.compress(ANSWER[20:])
CASES: list[tuple[str, bytes]] = [
    ("gzip", gzip.compress(ANSWER)),
    ("GZIP", gzip.compress(ANSWER)),
    ("gzip", MEMBERS),
    ("deflate", zlib.compress(ANSWER)),
    ("identity", ANSWER),
]


# The bodies hold the time at which they were packed, which is no name of a test.
@pytest.mark.parametrize(("encoding", "body"), CASES, ids=range(len(CASES)))
def test_a_compressed_reply(bodies: Bodies, encoding: str, body: bytes) -> None:
    bodies.encoding = encoding
    bodies.answers = lambda: iter([body[:15], body[15:]])
    assert ask(bodies.url, text_request("?")).text == "A" * 50


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", b"\x1f\x8b no gzip", "its compressed body is damaged"),
        (
            "br",
            ANSWER,
            "its body is compressed by 'br', though only gzip, deflate were asked for",
        ),
    ],
)
def test_a_compressed_reply_that_cannot_be_read(
    bodies: Bodies, encoding: str, body: bytes, words: str
) -> None:
    bodies.encoding = encoding
    bodies.answers = lambda: iter([body])
    error = ask_error(bodies.url)
    assert facts(error) == ("connection", None, True)
    assert str(error) == f"the connection to {bodies.url} failed: {words}"


ASK = r"""
import pathlib, re, sys
from tests.support.endpoint_calls import ask_error

def most_kb():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1])

before = most_kb()
for _ in range(3):
    print(ask_error(sys.argv[1]))
print((most_kb() - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("answers", "encoding"), [(endless, ""), (bomb, "gzip")])
def test_memory_of_replies_without_an_end(
    bodies: Bodies,
    answers: Body,
    encoding: str,
    figure: Callable[[str], None],
) -> None:
    bodies.answers, bodies.encoding = answers, encoding
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ASK, bodies.url],
        check=True,
        capture_output=True,
        text=True,
    )
    *errors, grown_mb = done.stdout.splitlines()
    took_s = time.monotonic() - started
    figure(f"3 endless replies: {grown_mb} MB more, {took_s:.1f} s")
    assert len(errors) == 3
    assert "more than 32 MB" in errors[0]
    assert int(grown_mb) < 150
