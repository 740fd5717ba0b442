"""The live progress while items wait, and when it gives way to pytest."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.reports.bars import describe_progress, draw_progress
from pytest_vlmeval.reports.screen import Screen
from pytest_vlmeval.reports.watch import Progress

REDRAW_S = 0.5
# The bars show once pytest has been silent for as long.
SILENCE_S = 1.0
# Where there is no terminal, a plain line is printed this often.
PLAIN_S = 30.0
# The rate is that of this long a past.
RATE_WINDOW_S = 20.0

Source = Callable[[], Progress]


class Rate:
    """Answers per second over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, settled: int, now: float) -> float:
        """Take in the count at `now` (seconds) and return the rate."""
        self._seen.append((now, settled))
        while now - self._seen[0][0] > RATE_WINDOW_S:
            self._seen.popleft()
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - start) if end > start else 0.0


class LiveProgress:
    """Shows bars while tests wait, and takes them away before pytest writes."""

    def __init__(self, screen: Screen, source: Source) -> None:
        self._screen = screen
        self._source = source
        self._rate = Rate()
        # Nothing is shown before the first test: pytest still reports the collection.
        self._spoke_at = math.inf
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="vlmeval-progress", daemon=True
        )

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Take the bars away for good."""
        self._stopped.set()
        self._thread.join()
        self._screen.erase()

    def _watch(self) -> None:
        silence_s = SILENCE_S if self._screen.live else PLAIN_S
        while not self._stopped.wait(REDRAW_S):
            try:
                progress = self._source()
            except VlmEvalError:
                continue  # The items that wait say what is wrong with the store.
            rate = self._rate.update(progress.settled, time.monotonic())
            silent_s = time.monotonic() - self._spoke_at
            if silent_s < silence_s or not progress.datasets:
                continue
            if self._screen.live:
                self._screen.draw(draw_progress(progress, rate, *self._screen.size))
            else:
                self._screen.announce(describe_progress(progress, rate))
                self._spoke_at = time.monotonic()

    def _give_way(self) -> None:
        self._spoke_at = time.monotonic()
        self._screen.erase()

    # pytest is about to write.

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        """Give way to the name of a test."""
        self._give_way()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self) -> None:
        """Give way to the outcome of a test."""
        self._give_way()

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Give way to the message of an interruption."""
        self._give_way()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Give way to the summary."""
        self.stop()
