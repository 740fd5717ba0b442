"""Runs a server and ends it, with all it started, when whoever started it is gone.

Run as `python -I server_watch.py LOG COMMAND...`, in a session of its own, with a pipe
as standard input that the starter keeps open: its end, by whatever cause, closes the
pipe. Needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

# How long a server may take to end by itself before it is killed.
GRACE_S = 10.0
POLL_S = 0.1
COMMAND_FAILED = 127
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux' <sys/prctl.h>


def main(log: str, command: list[str]) -> int:
    """Run the command until it ends or the pipe does; give its exit status."""
    if sys.platform == "linux":
        # What the server started and left behind stays in this family, to be ended.
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda number, frame: os.close(0))
    with Path(log).open("ab") as output:
        try:
            server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            output.write(f"{command[0]}: {error.strerror}\n".encode())
            return COMMAND_FAILED
    status = _wait(server.pid)
    _end_family(server.pid)
    # subprocess would complain of a child that it did not see ending.
    server.returncode = 0 if status is None else status
    return server.returncode


def _wait(pid: int) -> int | None:
    """Wait for the server's end and give its status; None if the starter is gone."""
    while True:
        status = _reap(pid)
        if status is not None:
            return status
        try:
            if select.select([0], [], [], POLL_S)[0] and not os.read(0, 1):
                return None
        except OSError:  # closed by SIGTERM
            return None


def _reap(pid: int) -> int | None:
    """Take notice of children that ended; give the server's status if it did."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == pid:
                code = os.waitstatus_to_exitcode(ended[1])
                # A signal, as a shell tells it.
                found = code if code >= 0 else 128 - code
    return found


def _end_family(pid: int) -> None:
    """End what is left of the server: first asked to, then killed."""
    end = time.monotonic() + GRACE_S
    _signal(pid, signal.SIGTERM)
    while _alive(pid):
        if time.monotonic() >= end:
            _signal(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
    for each in _descendants():
        with contextlib.suppress(ProcessLookupError):
            os.kill(each, number)


def _alive(pid: int) -> bool:
    _reap(pid)
    try:
        os.killpg(pid, 0)
    except (ProcessLookupError, PermissionError):
        return bool(_descendants())
    return True


def _descendants() -> set[int]:
    """Return all processes below this one, where /proc tells them."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            # The name, in parentheses, may hold blanks and parentheses.
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family - {os.getpid()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
