"""Started sessions: waiting for what they do, and what their server was asked."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable

from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a process and return what it printed."""
    output, _ = process.communicate(timeout=120)
    return output


def wait_for(condition: Callable[[], bool], limit_s: float = 60) -> None:
    """Wait until something is so."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)


def most_at_once(server: ServerProcess, latency_s: float) -> int:
    """Return how many prompts were in flight at most, each for `latency_s` or longer.

    The server's own counter has the lists of models too, which each process reads.
    """
    starts = [float(str(request["time"])) for request in server.requests()]
    return max(sum(0 <= s - start < latency_s for s in starts) for start in starts)


def asked(server: ServerProcess) -> Counter[object]:
    """Count the questions that a server was asked."""
    return Counter(request["text"] for request in server.requests())


def answers(project: Project) -> int:
    """Count the answers in the store."""
    with contextlib.suppress(sqlite3.OperationalError):  # It is not made yet.
        return len(project.stored("SELECT 1 FROM answers"))
    return 0
