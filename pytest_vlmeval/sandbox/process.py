"""The project's end of the sandbox: calls into a helper process, with deadlines."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.sandbox.helper import Helper, HelperEnded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Progress = Callable[[int, int], None]
    Questions = Sequence[dict[str, Any]]
    OnAsk = Callable[[Questions], Questions]

DEADLINE_S = 600.0


class Listeners(NamedTuple):
    """What is told of a call under way."""

    on_progress: Progress | None
    on_ask: OnAsk | None


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
        Raises VlmEvalError for what the user can mend, deadlines and dead processes
        included, NeedsJudgeError, SandboxFault for a bug inside.
        """
        limit_s = self._deadline_s if deadline_s is None else deadline_s
        with self._lock:
            served_before = bool(self._helpers)
            helper = self._running()
            try:
                listeners = Listeners(on_progress, on_ask)
                try:
                    return self._converse(helper, method, params, limit_s, listeners)
                except CallNotTaken:
                    # A process that is killed looks alive until its last thread has
                    # ended. What it never took can be sent to another, once.
                    if not served_before or self._closed:
                        raise
                    self._drop()
                    helper = self._running()
                    return self._converse(helper, method, params, limit_s, listeners)
            except TimeoutError:
                self._drop()
                more = f" ({longer} gives it more time)" if longer else ""
                reason = f"took longer than {limit_s:g} s and was stopped{more}"
            except HelperEnded as ended:
                self._drop()
                reason = f"ended with its sandbox process ({ended})"
            except (VlmEvalError, SandboxFault):
                raise
            except BaseException:
                self._drop()  # an interrupted call leaves its answer in the pipe
                raise
        if self._closed:
            reason = "was stopped: the run is ending"
        raise _lost(f"{task} {reason}", helper)

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

    def _reply(self, on_ask: OnAsk, questions: Questions) -> Questions:
        try:
            return on_ask(questions)
        except BaseException:
            self._drop()  # it would wait for replies that never come
            raise

    def _converse(
        self,
        helper: Helper,
        method: str,
        params: Mapping[str, Any],
        limit_s: float,
        listeners: Listeners,
    ) -> dict[str, Any]:
        on_progress, on_ask = listeners
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
                helper.send({"replies": self._reply(on_ask, message["ask"])})
                end += time.monotonic() - asked_at
            elif "needs_judge" in message:
                raise NeedsJudgeError(message["needs_judge"])
            elif "mendable" in message:
                raise VlmEvalError(message["mendable"])
            elif "fault" in message:
                raise SandboxFault(message["fault"])
            elif "result" in message:
                result: dict[str, Any] = message["result"]
                return result


def _lost(what: str, helper: Helper) -> VlmEvalError:
    return VlmEvalError(
        f"{what}. Run the same command to try again, with all answers kept.\n"
        f"Last output: {helper.last_output() or 'none'}"
    )


def _stop(helpers: list[Helper]) -> None:
    # Another thread may take the last one first.
    with suppress(IndexError):
        while True:
            helpers.pop().stop()
