"""A real model server for tests: a process of its own, started on a free port."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SERVER = Path(__file__).parent / "server"
STOP_LIMIT_S = 10


class ServerProcess:
    """The test server as a process; `url` is its base URL, with /v1.

    `kill` ends it at once, and `start` starts it again on the same port.
    """

    def __init__(
        self, folder: Path, *, model: str | None = None, **script: object
    ) -> None:
        self._folder = folder
        self._model = model
        self._script = script
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """The base URL, as a user gives it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        """Start the process and wait until it listens."""
        script = self._folder / "script.json"
        script.write_text(json.dumps(self._script))
        command = [sys.executable, str(SERVER), "--port", str(self.port)]
        command += ["--script", str(script), "--requests", str(self._records)]
        if self._model is not None:
            command += ["--model", self._model]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        # The line comes when the socket listens; "" if the process ends before.
        line = self._process.stdout.readline().strip()
        assert line.startswith("http://"), f"the test server did not start: {line!r}"
        self.port = int(line.removesuffix("/v1").rpartition(":")[2])

    def kill(self) -> None:
        """End the process at once, as a crash does; harmless if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_LIMIT_S)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def control(self, **script: object) -> dict[str, object]:
        """Replace the script and forget all requests so far."""
        self._script = script
        return self._post({"script": script})

    def counters(self) -> dict[str, object]:
        """Give requests by path, connections, and how many were in flight at most."""
        return self._post({})

    def requests(
        self, path: str | None = "/chat/completions"
    ) -> list[dict[str, object]]:
        """Give the records of the requests to `path` (None: to all) in their order."""
        lines = self._records.read_text(encoding="utf-8").splitlines()
        records: list[dict[str, object]] = [json.loads(line) for line in lines]
        return [record for record in records if path in (None, record["path"])]

    @property
    def _records(self) -> Path:
        return self._folder / "requests.jsonl"

    def _post(self, body: dict[str, object]) -> dict[str, object]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/control", json.dumps(body).encode()
        )
        # Proxies of the environment do not reach this machine's loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=STOP_LIMIT_S) as response:
            counters: dict[str, object] = json.load(response)
            return counters


@pytest.fixture
def vlm_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., ServerProcess]]:
    """Start a server: `vlm_server(model="demo", **script)`; all end with the test."""
    servers: list[ServerProcess] = []

    def start(*, model: str | None = None, **script: object) -> ServerProcess:
        folder = tmp_path_factory.mktemp("server")
        server = ServerProcess(folder, model=model, **script)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def _vlm_server_process(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def server(_vlm_server_process: ServerProcess) -> ServerProcess:
    """Give a server that has no script and no requests yet; do not kill this one."""
    _vlm_server_process.control()
    return _vlm_server_process
