"""The real terminal, whatever pytest captures at the moment."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest

from pytest_vlmeval.errors import printable


class Screen:
    """Lines beside pytest's own output, and live lines below it.

    pytest captures its standard output while a module is collected and a test runs,
    which is just when there is something to say; so this writes to a copy of the
    descriptor, taken while nothing is captured. Thread-safe.
    """

    def __init__(self, terminal: pytest.TerminalReporter | None) -> None:
        self._terminal = terminal
        self._stream = sys.stderr if terminal is None else terminal._tw._file
        self.live = terminal is not None and terminal.isatty
        self._file = os.fdopen(os.dup(self._stream.fileno()), "w", encoding="utf-8")
        self._drawn = 0
        self._lock = threading.RLock()

    def announce(self, line: str) -> None:
        """Print a line of its own, wherever pytest is."""
        with self._lock:
            # What a worker sends while the session ends.
            if self._file.closed:
                return
            self.erase()
            start = "\n" if self._column() else ""
            self._write(f"{start}vlmeval: {printable(line)}\n")

    @property
    def size(self) -> tuple[int, int]:
        """The terminal's columns and rows, one column less than there are."""
        columns, rows = shutil.get_terminal_size()
        if self._terminal is not None:
            columns = self._terminal._tw.fullwidth
        return columns - 1, rows

    def draw(self, lines: Sequence[str]) -> None:
        """Show, or replace, live lines below where pytest stopped to write."""
        with self._lock:
            text = self._erasure() + "\n" + "\n".join(lines)
            self._drawn = len(lines)
            # In one piece, so that nothing flickers.
            self._write(text)

    def erase(self) -> None:
        """Remove the live lines and go back to where pytest stopped to write."""
        with self._lock:
            if self._drawn:
                self._write(self._erasure())
                self._drawn = 0

    def _erasure(self) -> str:
        """Return what clears the live lines, from the last to the first."""
        if not self._drawn:
            return ""
        up = "\x1b[1A\x1b[2K" * (self._drawn - 1)
        return f"\r\x1b[2K{up}\x1b[1A\x1b[{self._column() + 1}G"

    def close(self) -> None:
        """Close the descriptor."""
        with self._lock:
            self.erase()
            self._file.close()

    def _column(self) -> int:
        if self._terminal is None:
            return 0
        return int(self._terminal._tw.width_of_current_line)

    def _write(self, text: str) -> None:
        # What pytest has printed into a pipe or a file comes first; while it captures,
        # its descriptor is another file, and it has nothing left to flush.
        if os.path.sameopenfile(self._stream.fileno(), self._file.fileno()):
            self._stream.flush()
        self._file.write(text)
        self._file.flush()


class Relay:
    """What a worker of xdist has for a screen: its lines go to its controller's."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send = send

    def announce(self, line: str) -> None:
        """Send a line, if the controller still lives."""
        with suppress(OSError):
            self._send(line)

    def close(self) -> None:
        """Do nothing: the connection is xdist's."""
