"""One running sandbox process: its start, its pipes, its last output, its end."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.leftovers import HeldFolder

if TYPE_CHECKING:
    from typing import IO

BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
TAIL_BYTES = 4_000


class HelperEnded(Exception):
    """The process is gone; nothing more will come from it."""


class Helper:
    """A sandbox process in a session and a temporary folder of its own.

    Speaks one JSON object per line. The thread that reads the process also starts
    it, because Linux ends a child with the *thread* that started it, not with the
    process.
    """

    def __init__(self, python: Path) -> None:
        """Start the process; raises VlmEvalError when that is not possible."""
        self._python = python
        self._held = HeldFolder("vlmeval-sandbox-")
        self._folder = self._held.path
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._tail = bytearray()
        started: Future[subprocess.Popen[bytes]] = Future()
        self._reader = threading.Thread(
            target=self._run, args=(started,), name="vlmeval-sandbox", daemon=True
        )
        self._reader.start()
        try:
            self._process = started.result()
        except OSError as error:
            self._held.close()
            raise VlmEvalError(
                f"The sandbox's Python cannot be started: {python} ({error.strerror}). "
                "--vlm-setup builds the sandbox anew, --vlm-sandbox-python takes "
                "another interpreter."
            ) from error

    @property
    def alive(self) -> bool:
        """Whether the process still runs.

        `poll` does not see the end that another thread waits for.
        """
        try:
            ended = os.waitid(
                os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
            )
        except ChildProcessError:
            return False
        return ended is None

    def send(self, message: dict[str, Any]) -> None:
        """Give the process one message; that it is gone shows when it is read."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """Wait for a message; raises TimeoutError, or HelperEnded with the reason."""
        try:
            line = self._lines.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            self._reader.join()
            raise HelperEnded(_describe_end(self._process.wait()))
        message: dict[str, Any] = json.loads(line)
        return message

    def last_output(self) -> str:
        """Give the end of what the process wrote beside its messages."""
        return bytes(self._tail).decode(errors="replace").strip()

    def stop(self) -> None:
        """End the process and all it started, and remove its folder."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join()
        self._held.close()

    def _run(self, started: Future[subprocess.Popen[bytes]]) -> None:
        try:
            process = self._open()
        except OSError as error:
            started.set_exception(error)
            return
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        started.set_result(process)
        drain = threading.Thread(target=self._drain, args=(process.stderr,))
        drain.start()
        with process.stdout:
            for line in process.stdout:
                self._lines.put(line)
        process.wait()
        drain.join()
        # Closing flushes, which a process that is gone does not take.
        with suppress(BrokenPipeError):
            process.stdin.close()
        self._lines.put(None)

    def _open(self) -> subprocess.Popen[bytes]:
        folder = str(self._folder)
        return subprocess.Popen(
            [self._python, "-I", "-X", "utf8", BOOTSTRAP, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            # Nothing of the user's: no keys, no proxies, no home folder.
            env={
                "PATH": os.defpath,
                "HOME": folder,
                "TMPDIR": folder,
                "LANG": "C.UTF-8",
                "OPENBLAS_NUM_THREADS": "1",
            },
            start_new_session=True,
        )

    def _drain(self, stream: IO[bytes]) -> None:
        with stream:
            while chunk := os.read(stream.fileno(), 65_536):
                self._tail += chunk
                del self._tail[:-TAIL_BYTES]


def _describe_end(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"
