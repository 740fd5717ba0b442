"""Limits on comparisons: time by an alarm, memory by the process's limit.

Stands in for the package `timeout_decorator`, with which ms-vlmeval starts a process
for each comparison of two formulas.
"""

from __future__ import annotations

import functools
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Real answers take hundredths of a second; ms-vlmeval itself allows 30.
MAX_SECONDS = 5.0
AGAIN_S = 1.0
MAX_BYTES = 2**30
# No formula is as long, and an alarm cannot interrupt a search in a text.
MAX_LENGTH = 100_000
# What the comparisons of one scoring may take beyond QUICK_S each, all together; none
# gets more than that afterwards. So hostile answers cannot use up its deadline.
SLOW_SECONDS = 30.0
QUICK_S = 0.25


class _AlarmError(BaseException):
    """Passes by `except Exception`."""


@contextmanager
def bounded(seconds: float, size: int = MAX_BYTES) -> Iterator[None]:
    """Raise TimeoutError after `seconds`, MemoryError beyond `size` more bytes.

    For the main thread. Code that swallows the alarm gets it again every second.
    """

    def alarm(_number: int, _frame: object) -> NoReturn:
        raise _AlarmError

    previous = signal.signal(signal.SIGALRM, alarm)
    try:
        with _bounded_memory(size):
            signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    except _AlarmError:
        raise TimeoutError(f"took longer than {seconds:g} s") from None
    finally:
        signal.signal(signal.SIGALRM, previous)


class Allowance:
    """The time that slow comparisons have left, all together."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew, with the next scoring."""
        self.left_s = SLOW_SECONDS

    @contextmanager
    def bounded(self, limit_s: float) -> Iterator[None]:
        """Bound one comparison, by its own limit or what is left."""
        start = time.monotonic()
        try:
            with bounded(max(min(limit_s, self.left_s), QUICK_S)):
                yield
        finally:
            self.left_s -= max(time.monotonic() - start - QUICK_S, 0)


ALLOWANCE = Allowance()


def timeout_decorator() -> ModuleType:
    """Give a module with `timeout(seconds)` as in the package of this name."""

    def timeout(seconds: float | None = None, **_options: object) -> Callable[..., Any]:
        limit_s = min(seconds or MAX_SECONDS, MAX_SECONDS)

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                if any(isinstance(it, str) and len(it) > MAX_LENGTH for it in args):
                    raise TimeoutError(f"a text of more than {MAX_LENGTH:,} characters")
                with ALLOWANCE.bounded(limit_s):
                    return function(*args, **kwargs)

            return call

        return decorate

    module = ModuleType("timeout_decorator")
    vars(module).update(
        timeout=timeout, TimeoutError=TimeoutError, timeout_decorator=module
    )
    return module


@contextmanager
def _bounded_memory(size: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    import resource

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * resource.getpagesize() + size
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
