"""A real HTTP server on loopback that speaks what both hubs' clients ask."""

from __future__ import annotations

import hashlib
import json
import ssl
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.support.file_server import serving

COMMIT = hashlib.sha1(b"commit", usedforsecurity=False).hexdigest()


@dataclass(slots=True, kw_only=True)
class HubServer:
    """The repositories of a running hub, by name and path, and what it was asked.

    `status` is what every request is answered with unless it is 200.
    """

    url: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    status: int = 200
    requests: list[tuple[str, str]] = field(default_factory=list)

    def downloads(self) -> list[str]:
        """Give the paths of the files that were sent."""
        return [
            path.rpartition(f"{COMMIT}/")[2]
            for verb, path in self.requests
            if verb == "GET" and "/resolve/" in path
        ]

    def answer(self, target: str) -> bytes | object | None:
        """Give a file's bytes, or what is sent as JSON; None for what is not there."""
        url = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(url.query))
        path = urllib.parse.unquote(url.path)
        for name, files in self.repositories.items():
            if f"datasets/{name}" in path:
                rest = path.partition(f"datasets/{name}")[2]
                if path.startswith("/api/v1/"):
                    return _answer_modelscope(rest, query, files)
                return _answer_huggingface(rest, name, files)
        return None


def _answer_huggingface(
    rest: str, name: str, files: dict[str, bytes]
) -> bytes | object | None:
    if rest.startswith("/resolve/"):
        return files.get(rest.split("/", 3)[3])
    if rest.startswith("/tree/"):
        return [
            {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
            for path, data in files.items()
        ]
    siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
    return {"id": name, "sha": COMMIT, "siblings": siblings}


def _answer_modelscope(
    rest: str, query: dict[str, str], files: dict[str, bytes]
) -> bytes | object | None:
    if rest == "/repo":
        return files.get(query["FilePath"])
    listed = [
        {
            "Path": path,
            "Name": path.rpartition("/")[2],
            "Type": "blob",
            "Size": len(data),
            "Sha256": hashlib.sha256(data).hexdigest(),
        }
        for path, data in files.items()
    ]
    return {"Code": 200, "Success": True, "Data": {"Files": listed}}


def _oid(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, hub: HubServer, *arguments: Any) -> None:
        self._hub = hub
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        """Tell a file's size and version."""
        self._answer()

    def do_GET(self) -> None:
        """Send a file or JSON."""
        self._answer()

    def _answer(self) -> None:
        hub = self._hub
        hub.requests.append((self.command, self.path))
        found = hub.answer(self.path) if hub.status == 200 else None
        is_file = isinstance(found, bytes)
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        missing = 404 if hub.status == 200 else hub.status
        self.send_response(missing if found is None else 200)
        if found is None:
            body = b'{"error": "nothing here"}'
        if is_file:
            self.send_header("ETag", f'"{_oid(body)}"')
            self.send_header("X-Repo-Commit", COMMIT)
        else:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the terminal clean."""


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Give a running hub without repositories."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with run_hub_server() as hub:
        yield hub


@contextmanager
def run_hub_server(context: ssl.SSLContext | None = None) -> Iterator[HubServer]:
    """Run a hub without repositories; with `context` over TLS."""
    hub = HubServer()
    with serving(partial(_Handler, hub), context) as hub.url:
        yield hub
