"""The project's end of the sandbox: calls into a helper process, with deadlines."""

from __future__ import annotations

import itertools
import json
import os
import queue
import signal
import subprocess
import threading
import time
import weakref
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.sandbox.environment import HeldFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
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
        """Send the process a message; reading shows whether it is gone."""
        assert self._process.stdin is not None
        line = json.dumps(message).encode() + b"\n"
        # ValueError: the thread that reads has seen the end, and closed the pipe.
        with suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """Wait for a message; raises TimeoutError, or HelperEnded with the reason."""
        try:
            line = self._lines.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            raise TimeoutError from None
        if line is None:
            self._reader.join()
            code = self._process.wait()
            killed = f"signal {signal.Signals(-code).name}" if code < 0 else ""
            raise HelperEnded(killed or f"exit code {code}")
        message: dict[str, Any] = json.loads(line)
        return message

    def last_output(self) -> str:
        """Return the end of what the process wrote beside its messages."""
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


if TYPE_CHECKING:
    Progress = Callable[[int, int], None]
    Questions = Sequence[dict[str, Any]]
    OnAsk = Callable[[Questions], Questions]

DEADLINE_S = 600.0


class SandboxFault(Exception):
    """A bug met inside the sandbox; the text ends with the traceback from there."""


class CallNotTaken(HelperEnded):
    """The process ended before it took the call, of which so nothing was done."""


class Sandbox:
    """Runs functions of `sandbox/inside/` in a helper process, one at a time.

    The process starts with the first call, or earlier with `start()`, and serves all
    further ones. One that misses its deadline or dies is ended with all it started;
    the next call gets a fresh one, and so does a call that the process died without
    taking. Usable from several threads.
    """

    def __init__(self, python: Path, *, deadline_s: float = DEADLINE_S) -> None:
        """Take the interpreter of the sandbox's environment; nothing is started."""
        self._python = python
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._calls = itertools.count(1)
        self._closed = False
        # A list of at most one, which the finalizer can hold without holding self.
        self._helpers: list[Helper] = []
        self._finalizer = weakref.finalize(self, _stop, self._helpers)

    @property
    def python(self) -> Path:
        """The interpreter, which runs other programs outside of the containment."""
        return self._python

    def start(self) -> None:
        """Start the process if none runs, without waiting until it is ready."""
        with self._lock:
            self._running()

    def call(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        task: str,
        deadline_s: float | None = None,
        longer: str = "",
        on_progress: Progress | None = None,
        on_ask: OnAsk | None = None,
    ) -> dict[str, Any]:
        """Run one method and give its result; both are plain JSON.

        `task` names the work in error messages ("Scoring MMStar"), `longer` the option
        that gives it more time. `on_progress` gets what is done and the total, and
        `on_ask` the questions that come up, to reply to each; its time does not count.
        Raises VlmEvalError for what the user can fix, deadlines and dead processes
        included, NeedsJudgeError, SandboxFault for a bug inside.
        """
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        with self._lock:
            served_before = bool(self._helpers)
            helper = self._running()
            converse = partial(
                self._converse, method, params, limit_s, on_progress, on_ask
            )
            try:
                try:
                    message = converse(helper)
                except CallNotTaken:
                    # A process that is killed looks alive until its last thread has
                    # ended. What it never took can be sent to another, once.
                    if not served_before or self._closed:
                        raise
                    self._drop()
                    helper = self._running()
                    message = converse(helper)
            except TimeoutError:
                more = f" ({longer} gives it more time)" if longer else ""
                reason = f"took longer than {limit_s:g} s and was stopped{more}"
                self._drop()
            except HelperEnded as ended:
                reason = f"ended with its sandbox process ({ended})"
                self._drop()
            except BaseException:
                self._drop()  # an interrupted call leaves its answer in the pipe
                raise
            else:
                if "needs_judge" in message:
                    raise NeedsJudgeError(message["needs_judge"])
                if "fixable" in message:
                    raise VlmEvalError(message["fixable"])
                if "fault" in message:
                    raise SandboxFault(message["fault"])
                result: dict[str, Any] = message["result"]
                return result
        if self._closed:
            reason = "was stopped: the run is ending"
        raise VlmEvalError(
            f"{task} {reason}. Run the same command to try again, with all answers "
            f"kept.\nLast output: {helper.last_output() or 'none'}"
        )

    def close(self) -> None:
        """End the process and remove its folder; a call under way fails."""
        self._closed = True
        self._finalizer()

    def _running(self) -> Helper:
        if self._closed:
            raise VlmEvalError("The sandbox is closed: the run is ending.")
        if self._helpers and not self._helpers[0].alive:
            self._drop()
        if not self._helpers:
            self._helpers.append(Helper(self._python))
        helper = self._helpers[0]
        if self._closed:
            # Closed by another thread while the process was being started.
            self._drop()
        return helper

    def _drop(self) -> None:
        _stop(self._helpers)

    def _converse(
        self,
        method: str,
        params: Mapping[str, Any],
        limit_s: float,
        on_progress: Progress | None,
        on_ask: OnAsk | None,
        helper: Helper,
    ) -> dict[str, Any]:
        """Send a call and return how it ended; reply to what comes up before."""
        end = time.monotonic() + limit_s
        number = next(self._calls)
        helper.send({"call": number, "method": method, "params": dict(params)})
        try:
            taken = helper.receive(end - time.monotonic())
        except HelperEnded as ended:
            raise CallNotTaken(*ended.args) from None
        assert taken == {"taken": number}, taken
        while True:
            message = helper.receive(end - time.monotonic())
            if "progress" in message and on_progress is not None:
                on_progress(*message["progress"])
            elif "ask" in message and on_ask is not None:
                asked_at = time.monotonic()
                helper.send({"replies": on_ask(message["ask"])})
                end += time.monotonic() - asked_at
            elif not message.keys() & {"progress", "ask"}:
                return message


@contextmanager
def opened_sandbox(python: Path) -> Iterator[Sandbox]:
    """Give a sandbox that is closed afterwards; a bug inside it is a VlmEvalError."""
    sandbox = Sandbox(python)
    try:
        yield sandbox
    except SandboxFault as fault:
        raise VlmEvalError(str(fault)) from fault
    finally:
        sandbox.close()


def _stop(helpers: list[Helper]) -> None:
    # Another thread may take the last one first.
    with suppress(IndexError):
        while True:
            helpers.pop().stop()
