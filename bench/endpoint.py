"""A fast OpenAI-compatible endpoint: one answer to everything, after a fixed time.

`python bench/endpoint.py --port 0 --latency 0.1` prints its base URL and serves until
it is killed. It does nothing with a request but read it, so that the client is what a
benchmark measures; GET /stats gives the requests, the connections and the span between
the first request and the last answer, in seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time

MODEL = "tiny-vlm"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Counts:
    """What was asked so far."""

    requests = 0
    connections = 0
    in_flight = 0
    most_in_flight = 0
    first_at = 0.0
    last_at = 0.0


class Connection(asyncio.Protocol):
    """One kept-alive connection; requests on it come one after the other."""

    def __init__(self, counts: Counts, answer: bytes, latency_s: float) -> None:
        self._counts = counts
        self._answer = answer
        self._latency_s = latency_s
        self._pieces: list[bytes] = []
        self._missing = -1  # bytes of the body to come; -1 until the head is whole
        self._path = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._counts.connections += 1

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._pieces.append(data)
            head, mark, rest = b"".join(self._pieces).partition(b"\r\n\r\n")
            if not mark:
                return
            self._pieces.clear()
            self._path = head.split(b" ", 2)[1]
            length = _LENGTH.search(head)
            self._missing = int(length.group(1)) if length else 0
            data = rest
        self._missing -= len(data)
        if self._missing <= 0:
            self._missing = -1
            self._serve()

    def _serve(self) -> None:
        if not self._path.endswith(b"/chat/completions"):
            self._send(self._about())
            return
        counts = self._counts
        counts.first_at = counts.first_at or time.perf_counter()
        counts.requests += 1
        counts.in_flight += 1
        counts.most_in_flight = max(counts.most_in_flight, counts.in_flight)
        asyncio.get_running_loop().call_later(self._latency_s, self._reply)

    def _reply(self) -> None:
        self._counts.in_flight -= 1
        self._counts.last_at = time.perf_counter()
        self._send(self._answer)

    def _about(self) -> bytes:
        if self._path.endswith(b"/models"):
            return encode({"object": "list", "data": [{"id": MODEL}]})
        span = self._counts.last_at - self._counts.first_at
        numbers = {
            name: value
            for name, value in vars(self._counts).items()
            if isinstance(value, int)
        }
        if self._path.endswith(b"/stats?clear"):
            vars(self._counts).clear()
        return encode({**numbers, "span_s": span})

    def _send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(data)


def encode(body: object) -> bytes:
    """Give a whole HTTP answer in one piece."""
    data = json.dumps(body).encode()
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def completion(text: str) -> bytes:
    """Give the answer to every prompt."""
    message = {"role": "assistant", "content": text}
    return encode(
        {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {
                "prompt_tokens": 200,
                "completion_tokens": 1,
                "total_tokens": 201,
            },
        }
    )


async def serve(port: int, latency_s: float, text: str) -> None:
    """Print the base URL, then serve until killed."""
    counts, answer = Counts(), completion(text)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(counts, answer, latency_s), "127.0.0.1", port, backlog=1024
    )
    sys.stdout.write(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1\n")
    sys.stdout.flush()
    await server.serve_forever()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds")
    parser.add_argument("--answer", default="B")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.latency, arguments.answer))


if __name__ == "__main__":
    main()
