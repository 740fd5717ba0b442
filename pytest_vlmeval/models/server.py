"""The servers that a run starts: a process, a log and an end for each.

Any command that serves an OpenAI-compatible API: `swift deploy`, `vllm serve`,
`lmdeploy serve api_server`, `python -m sglang.launch_server`, `transformers serve`.

A process that finds an answer missing leaves a note in the session's folder below the
work dir, and waits for the file that says where the server is. So xdist's workers, and
a session of one process, go the same way.
"""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.local import COLOURS, choose_devices, last_lines
from pytest_vlmeval.models.pool import Learned, end_note
from pytest_vlmeval.sandbox.environment import write_held

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Event

    from pytest_vlmeval.models.client import Role
    from pytest_vlmeval.settings import Settings

WATCHDOG = Path(__file__).with_name("server_watch.py")
POLL_S = 0.2
PROBE_LIMIT_S = 5.0
# Longer than the watchdog leaves to a server.
STOP_LIMIT_S = 20.0
PORT = "{port}"
LONGEST_START = 1_000_000  # bytes of a log, in which the address has to stand
# uvicorn's line, which all of these servers print, its form for a given socket, and
# vLLM's own line.
_ADDRESS = re.compile(
    r"(?:running|listening|server(?: \d+)?) on "
    r"(?:(?P<scheme>https?)://(?P<host>\[[0-9a-f:]+\]|[\w.-]+):(?P<port>\d+)"
    r"|socket \('(?P<bare>[^']+)', (?P<number>\d+))"
)
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "::": "[::1]"}
# Servers without a health page say one of these.
_NO_PAGE = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}


def free_port() -> int:
    """Return a port that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def find_address(log: str) -> str | None:
    """Return the base URL that a server's log says it listens at, None before it does.

    A server may take another port than it was given: swift takes the next one where
    that is busy.
    """
    found = _ADDRESS.search(COLOURS.sub("", log))
    if found is None:
        return None
    if found["bare"]:
        host = found["bare"]
        host = _ANY_HOST.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{host}:{found['number']}/v1"
    host = _ANY_HOST.get(found["host"], found["host"])
    return f"{found['scheme']}://{host}:{found['port']}/v1"


class Server:
    """One running server; `log` is the file that has its output.

    `command` holds the words of the command, `{port}` among them. `device` is what
    CUDA_VISIBLE_DEVICES says to it, None for what it finds. `role` is what its model
    is there for. The process is started at once.
    """

    def __init__(
        self, command: Sequence[str], log: Path, *, role: Role, device: str | None
    ) -> None:
        self.role = role
        self.log = log
        self._started = time.monotonic()
        port = str(free_port())
        self._command = [word.replace(PORT, port) for word in command]
        chosen = [] if device is None else ["env", f"CUDA_VISIBLE_DEVICES={device}"]
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()
        # Its standard input is how the watchdog learns that this process is gone.
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", str(WATCHDOG), str(log), *chosen, *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def shown(self) -> str:
        """The command, as one types it."""
        return shlex.join(self._command)

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._watchdog.poll()

    def wait_ready(self, timeout_s: float, closing: Event) -> str:
        """Wait until it can be asked and give its base URL.

        Raises `VlmEvalError` with the last lines of the log if it ends before, or is
        not ready `timeout_s` after its start, or when `closing` is set.
        """
        reason = "no address stands in its log"
        while time.monotonic() < self._started + timeout_s:
            if self.status is not None:
                raise VlmEvalError(self.explain_end())
            with self.log.open("rb") as log:
                begun = log.read(LONGEST_START).decode("utf-8", errors="replace")
            address = find_address(begun)
            if address is not None:
                reason = _probe(address)
                if not reason:
                    return address
            if closing.wait(POLL_S):
                raise VlmEvalError(
                    f"The {self.role}'s server was not awaited: the run ended."
                )
        raise VlmEvalError(
            f"The {self.role}'s server could not be asked within {timeout_s:g} s "
            f"(--vlm-serve-timeout gives it more): {reason}. It was started by\n"
            f"    {self.shown}\n{self._last_lines()}"
        )

    def explain_end(self) -> str:
        """Explain that it ended, with the last lines of its log."""
        return (
            f"The {self.role}'s server ended with exit status {self.status}. It was "
            f"started by\n    {self.shown}\n{self._last_lines()}"
        )

    def stop(self) -> None:
        """End it with all it started; harmless if it has ended."""
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        try:
            self._watchdog.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:  # its process cannot be killed by anyone
            self._watchdog.kill()
            self._watchdog.wait()

    def _last_lines(self) -> str:
        lines = last_lines(self.log)
        if not lines:
            return f"Its log is empty: {self.log}"
        return f"The last lines of its log, {self.log}:{lines}"


def _probe(address: str) -> str:
    """Explain why a server cannot be asked yet, "" if it can.

    Its health page and its list of models are asked. Where it has no health page, the
    list must be there; else it may be missing, as `transformers serve` has none of a
    checkpoint in a folder.
    """
    health = _status(address.removesuffix("/v1") + "/health")
    if health not in {HTTPStatus.OK, *_NO_PAGE}:
        return f"{address} gives no sign of health ({health})"
    models = _status(f"{address}/models")
    if models == HTTPStatus.OK or (health == HTTPStatus.OK and isinstance(models, int)):
        return ""
    return f"{address}/models does not answer ({models})"


def _status(url: str) -> int | str:
    """Return the status of a page, or why there is none."""
    # A proxy of the environment does not reach this machine's loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=PROBE_LIMIT_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


ROLES: tuple[Role, ...] = ("model", "judge")
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
                if (
                    role not in self._done
                    and _file(self._folder, role, "wanted").exists()
                ):
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
        write_held(_file(self._folder, role, "json"), json.dumps(told).encode())

    def _start_all(self, role: Role) -> list[str]:
        command = self._serving.model if role == "model" else self._serving.judge
        replicas = self._serving.replicas if role == "model" else 1
        given = f"--vlm-serve-replicas={replicas}"
        devices = choose_devices(replicas, self._serving.visible_devices, given)
        started = time.monotonic()
        servers = []
        for number, device in enumerate(devices):
            log = self._folder / f"{role}-{number}.log"
            servers.append(Server(command, log, role=role, device=device))
            self._servers.append(servers[-1])
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

    def _report_ended(self) -> None:
        """Describe which servers have ended by themselves; once each."""
        for server in [each for each in self._servers if each.status is not None]:
            self._servers.remove(server)
            ended = server.explain_end()
            server.stop()
            self._announce(ended)
            if not any(each.role == server.role for each in self._servers):
                why = f"{ended}\n{AGAIN}"
                write_held(end_note(self._folder, server.role), why.encode())


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
        """Return the settings with the address of the model's server, if there is one.

        Waits until it is up, which starts it if nothing has; `VlmEvalError` if it
        cannot be had.
        """
        if not settings.serving.model:
            return settings
        return replace(settings, api_bases=self._addresses("model"))

    def judge_addresses(self, api_bases: tuple[str, ...]) -> tuple[str, ...]:
        """Return the address of the judge's server, `api_bases` if it is not ours."""
        return self._addresses("judge") if self._serving.judge else api_bases

    def _addresses(self, role: Role) -> tuple[str, ...]:
        result = _file(self._folder, role, "json")
        self._folder.mkdir(parents=True, exist_ok=True)
        _file(self._folder, role, "wanted").touch()
        while not result.exists():
            time.sleep(POLL_S)
        told = json.loads(result.read_text(encoding="utf-8"))
        if "error" in told:
            raise VlmEvalError(str(told["error"]))
        return tuple(told["addresses"])


def _file(folder: Path, role: Role, kind: Literal["wanted", "json"]) -> Path:
    return folder / f"{role}.{kind}"
