"""The live line while items wait: dataset, answered of total, rate, time left."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.reports.screen import Screen
from pytest_vlmeval.reports.watch import DatasetProgress

REDRAW_S = 0.5
# The line shows once pytest has been silent for as long.
SILENCE_S = 1.0
# Where there is no terminal, a plain line is printed this often.
PLAIN_S = 30.0
# The rate is that of this long a past.
RATE_WINDOW_S = 20.0

Source = Callable[[], Sequence[DatasetProgress]]


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


def format_progress(progress: Sequence[DatasetProgress], rate: float) -> str:
    """Return the line; `rate` is in answers per second over all datasets."""
    settled = sum(each.settled for each in progress)
    total = sum(each.total for each in progress)
    waiting = [each for each in progress if each.settled < each.total]
    if not waiting:
        return f"all {total} samples answered, scoring"
    current = waiting[0]
    line = f"{current.dataset} {current.settled}/{current.total}"
    if len(progress) > 1:
        line += f", in all {settled}/{total}"
    line += f", {rate:.1f}/s"
    if rate > 0:
        left = round((total - settled) / rate)
        line += f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
    return line


class ProgressLine:
    """Shows the line while tests wait, and takes it away before pytest writes."""

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
        """Take the line away for good."""
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
            settled = sum(each.settled for each in progress)
            rate = self._rate.update(settled, time.monotonic())
            if time.monotonic() - self._spoke_at < silence_s or not progress:
                continue
            line = format_progress(progress, rate)
            if self._screen.live:
                self._screen.draw(line)
            else:
                self._screen.announce(line)
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
