"""The servers of a run: started once, by the process with the terminal, when wanted.

A process that finds an answer missing leaves a note in the session's folder below the
work dir, and waits for the file that says where the server is. So xdist's workers, and
a session of one process, go the same way.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import OutageError, RequestError
from pytest_vlmeval.models.devices import choose_devices
from pytest_vlmeval.models.learned import Learned
from pytest_vlmeval.models.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_vlmeval.models.api_base import Role
    from pytest_vlmeval.models.client import ModelClient, Reply, Request
    from pytest_vlmeval.options import Settings

ROLES: tuple[Role, ...] = ("model", "judge")
POLL_S = 0.2
AGAIN = (
    "Run the same command again: it starts the server anew, and asks only what has no "
    "answer yet."
)


def servers_folder(settings: Settings, session_id: str) -> Path:
    """Where the logs of a session's servers lie, and what its processes tell."""
    return settings.work_dir / "servers" / session_id[:12]


class ServerKeeper:
    """Starts, watches and ends the servers of one session, in a thread of its own."""

    def __init__(
        self, settings: Settings, session_id: str, announce: Callable[[str], None]
    ) -> None:
        self._serving = settings.serving
        self._folder = servers_folder(settings, session_id)
        self._announce = announce
        self._servers: list[Server] = []
        self._done: set[Role] = set()
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="vlmeval-servers", daemon=True
        )

    def start(self) -> None:
        """Begin to look for what is wanted."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def close(self) -> None:
        """End all servers."""
        self._closing.set()
        self._thread.join()
        for server in self._servers:
            server.stop()
        self._servers.clear()

    def _run(self) -> None:
        while not self._closing.wait(POLL_S):
            for role in ROLES:
                if role not in self._done and _note(self._folder, role).exists():
                    self._done.add(role)
                    self._serve(role)
            self._report_ended()

    def _serve(self, role: Role) -> None:
        """Start what serves a role and write down where it is, or why not."""
        try:
            told: dict[str, object] = {"addresses": self._start_all(role)}
        except VlmEvalError as error:
            told = {"error": str(error)}
        except OSError as error:
            told = {"error": f"The {role}'s server could not be started: {error}"}
        _write(_result(self._folder, role), json.dumps(told))

    def _start_all(self, role: Role) -> list[str]:
        command = self._serving.model if role == "model" else self._serving.judge
        replicas = self._serving.replicas if role == "model" else 1
        devices = choose_devices(replicas, self._serving.visible_devices)
        started = time.monotonic()
        servers = [
            self._start(role, command, number, device)
            for number, device in enumerate(devices)
        ]
        self._announce(f"Starting {servers[0].shown} (log: {servers[0].log})")
        try:
            addresses = [
                server.wait_ready(self._serving.timeout_s, self._closing)
                for server in servers
            ]
        except VlmEvalError:
            for server in servers:
                self._servers.remove(server)
                server.stop()
            raise
        seconds = time.monotonic() - started
        self._announce(f"Serving at {', '.join(addresses)} after {seconds:.0f} s")
        return addresses

    def _start(
        self, role: Role, command: Sequence[str], number: int, device: str | None
    ) -> Server:
        log = self._folder / f"{role}-{number}.log"
        server = Server(command, log, role=role, device=device)
        self._servers.append(server)
        return server

    def _report_ended(self) -> None:
        """Say which servers have ended by themselves; once each."""
        for server in [each for each in self._servers if each.status is not None]:
            self._servers.remove(server)
            ended = server.explain_end()
            server.stop()
            self._announce(ended)
            if not any(each.role == server.role for each in self._servers):
                _write(_end(self._folder, server.role), f"{ended}\n{AGAIN}")


class Servers:
    """The way of one process to the servers of its session.

    `learned` is what was found out of them, and of those that are not the run's own.
    """

    def __init__(
        self,
        settings: Settings,
        session_id: str,
        announce: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.learned = Learned(servers_folder(settings, session_id), announce)
        self._serving = settings.serving
        self._folder = servers_folder(settings, session_id)

    def settle(self, settings: Settings) -> Settings:
        """Give the settings with the address of the model's server, if there is one.

        Waits until it is up, which starts it if nothing has; `VlmEvalError` if it
        cannot be had.
        """
        if not settings.serving.model:
            return settings
        return replace(settings, api_bases=self._addresses("model"))

    def judge_addresses(self, api_bases: tuple[str, ...]) -> tuple[str, ...]:
        """Give the address of the judge's server, `api_bases` if it is not ours."""
        return self._addresses("judge") if self._serving.judge else api_bases

    def watched(self, client: ModelClient, role: Role) -> ModelClient:
        """Give a client that stops to ask once the server of that role has ended."""
        served = self._serving.model if role == "model" else self._serving.judge
        return ServedClient(client, _end(self._folder, role)) if served else client

    def _addresses(self, role: Role) -> tuple[str, ...]:
        result = _result(self._folder, role)
        self._folder.mkdir(parents=True, exist_ok=True)
        _note(self._folder, role).touch()
        while not result.exists():
            time.sleep(POLL_S)
        told = json.loads(result.read_text(encoding="utf-8"))
        if "error" in told:
            raise VlmEvalError(str(told["error"]))
        return tuple(told["addresses"])


class ServedClient:
    """Asks a server of the run; where that has ended, the run's asking ends too.

    Each sample would else be asked in vain, again and again, and be recorded as failed.
    """

    def __init__(self, client: ModelClient, ended: Path) -> None:
        self._client = client
        self._ended = ended

    async def check(self) -> None:
        """Check the server as any other; `OutageError` if it has ended."""
        if self._ended.exists():
            raise OutageError(self._ended.read_text(encoding="utf-8"))
        await self._client.check()

    async def describe(self) -> Mapping[str, str]:
        """Return what the server says of its model."""
        return await self._client.describe()

    async def ask(self, request: Request) -> Reply:
        """Answer one prompt; `OutageError` if the server has ended."""
        try:
            return await self._client.ask(request)
        except RequestError as error:
            if error.kind == "connection" and self._ended.exists():
                raise OutageError(self._ended.read_text(encoding="utf-8")) from None
            raise

    async def close(self) -> None:
        """Free the connections; the server goes on."""
        await self._client.close()


def _note(folder: Path, role: Role) -> Path:
    return folder / f"{role}.wanted"


def _result(folder: Path, role: Role) -> Path:
    return folder / f"{role}.json"


def _end(folder: Path, role: Role) -> Path:
    return folder / f"{role}.ended"


def _write(path: Path, text: str) -> None:
    """Write a file that others wait for: it is there as a whole, or not at all."""
    writing = path.with_suffix(".writing")
    writing.write_text(text, encoding="utf-8")
    writing.rename(path)
