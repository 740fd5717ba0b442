"""The real terminal, whatever pytest captures at the moment."""

from __future__ import annotations

import os
import sys
import threading

import pytest


class Screen:
    """Lines beside pytest's own output, and one live line below it.

    pytest captures its standard output while a module is collected and a test runs,
    which is just when there is something to say; so this writes to a copy of the
    descriptor, taken while nothing is captured. Workers of xdist have no terminal
    and say it on their standard error. Thread-safe.
    """

    def __init__(self, terminal: pytest.TerminalReporter | None) -> None:
        self._terminal = terminal
        stream = sys.stderr if terminal is None else terminal._tw._file
        self.live = terminal is not None and terminal.isatty
        self._file = os.fdopen(os.dup(stream.fileno()), "w", encoding="utf-8")
        self._drawn = False
        self._lock = threading.RLock()

    def announce(self, line: str) -> None:
        """Print a line of its own, wherever pytest is."""
        with self._lock:
            self.erase()
            start = "\n" if self._column() else ""
            self._write(f"{start}vlmeval: {line}\n")

    def draw(self, line: str) -> None:
        """Show, or replace, the live line."""
        assert self._terminal is not None
        with self._lock:
            start = "" if self._drawn else "\n"
            width = self._terminal._tw.fullwidth - 1
            self._write(f"{start}\r\x1b[2K{f'vlmeval: {line}'[:width]}")
            self._drawn = True

    def erase(self) -> None:
        """Remove the live line and go back to where pytest stopped to write."""
        with self._lock:
            if self._drawn:
                self._write(f"\r\x1b[2K\x1b[1A\x1b[{self._column() + 1}G")
                self._drawn = False

    def close(self) -> None:
        """Give the descriptor back."""
        with self._lock:
            self.erase()
            self._file.close()

    def _column(self) -> int:
        if self._terminal is None:
            return 0
        return int(self._terminal._tw.width_of_current_line)

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()
