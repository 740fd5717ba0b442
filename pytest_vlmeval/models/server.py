"""A server that the run starts: its process, its log, its address, its end.

Any command that serves an OpenAI-compatible API: `swift deploy`, `vllm serve`,
`lmdeploy serve api_server`, `python -m sglang.launch_server`, `transformers serve`.
"""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Event

    from pytest_vlmeval.models.api_base import Role

WATCHDOG = Path(__file__).with_name("server_watch.py")
POLL_S = 0.2
PROBE_LIMIT_S = 5.0
# Longer than the watchdog leaves to a server.
STOP_LIMIT_S = 20.0
TAIL_BYTES = 16_000
TAIL_LINES = 15
PORT = "{port}"
LONGEST_START = 1_000_000  # bytes of a log, in which the address has to stand
# uvicorn's line, which all of these servers print, its form for a given socket, and
# vLLM's own line.
_ADDRESS = re.compile(
    r"(?:running|listening|server(?: \d+)?) on "
    r"(?:(?P<scheme>https?)://(?P<host>\[[0-9a-f:]+\]|[\w.-]+):(?P<port>\d+)"
    r"|socket \('(?P<bare>[^']+)', (?P<number>\d+))"
)
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "::": "[::1]"}
# Servers without a health page say one of these.
_NO_PAGE = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}


def free_port() -> int:
    """Give a port that nobody listens on at this moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def find_address(log: str) -> str | None:
    """Give the base URL that a server's log says it listens at, None before it does.

    A server may take another port than it was given: swift takes the next one where
    that is busy.
    """
    found = _ADDRESS.search(_COLOURS.sub("", log))
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
            address = find_address(self._read(LONGEST_START))
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
        """Say that it ended, with the last lines of its log."""
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

    def _read(self, most: int, *, tail: bool = False) -> str:
        """Read the first bytes of the log, or the last."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            if tail:
                file.seek(max(0, file.seek(0, 2) - most))
            return file.read(most).decode("utf-8", errors="replace")

    def _last_lines(self) -> str:
        tail = _COLOURS.sub("", self._read(TAIL_BYTES, tail=True))
        lines = tail.replace("\r", "\n").splitlines()
        shown = [line for line in lines if line.strip()][-TAIL_LINES:]
        if not shown:
            return f"Its log is empty: {self.log}"
        text = "".join(f"\n    {line}" for line in shown)
        return f"The last lines of its log, {self.log}:{text}"


def _probe(address: str) -> str:
    """Say why a server cannot be asked yet, "" if it can.

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
    """Give the status of a page, or why there is none."""
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
