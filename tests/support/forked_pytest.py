"""Sessions of pytest as forks of a process that has imported what most of them need.

Importing openai, SQLAlchemy and the like takes longer than all else that most sessions
of the tests do. A fork has an environment, a folder and output of its own, as what is
started from anew.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

# No plugins: pytest rewrites the assertions of those as it imports them.
PRELOADED = (
    *("aiohttp", "anyio", "filelock", "httpcore2", "jinja2", "numpy", "openai"),
    *("openai.resources.chat", "pandas", "PIL.Image", "pyarrow.parquet", "pydantic"),
    *("pytest", "rich.live", "scipy.stats", "sqlalchemy.dialects.postgresql"),
    *("sqlalchemy.dialects.sqlite", "sqlite3", "truststore", "yaml"),
    "pytest_vlmeval.models.endpoint",
)
PRELOADED_PACKAGES = ("datasets", "gates", "reports", "run", "settings")
# Read when an interpreter starts, or by what is imported.
AT_START = ("PYTHON", "LANG", "LC_", "TZ", "LD_", "OPENBLAS_", "OMP_", "ARROW_")
LARGEST_REQUEST = 2**20


class Forked:
    """A session that was forked, as `Pytester.run` handles what it has started."""

    stdin = None

    def __init__(self, reports: socket.socket, arguments: Sequence[str]) -> None:
        self._reports = reports
        self._arguments = arguments
        self.pid = self._read()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit status, negative for a signal."""
        self._reports.settimeout(timeout)
        try:
            status = self._read()
        except TimeoutError:
            raise subprocess.TimeoutExpired(self._arguments, timeout or 0) from None
        self._reports.close()
        return status

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def _read(self) -> int:
        data = self._reports.recv(16)
        assert data, "the process that forks sessions is gone"
        return int(data)


class Forks:
    """The process that forks sessions; it starts with the first and ends with this."""

    def __init__(self) -> None:
        self._environ = dict(os.environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None

    def popen(
        self,
        original: Callable[..., object],
        command: Sequence[str],
        *,
        stdout: TextIO,
        stderr: TextIO,
        **settings: object,
    ) -> object:
        """Fork a session, or start what is none as `Pytester.popen` does."""
        ours, theirs = (
            {k: v for k, v in each.items() if k.startswith(AT_START)}
            for each in (self._environ, os.environ)
        )
        session = list(command[:2]) == [sys.executable, "-mpytest"]
        if not session or ours != theirs or sys.platform != "linux":
            return original(command, stdout=stdout, stderr=stderr, **settings)
        if self._requests is None:
            self._start()
        assert self._requests is not None
        environ = dict(os.environ)
        path = [str(Path.cwd()), environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        request = {"arguments": command[2:], "folder": path[0], "environ": environ}
        reports, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other_end:
            files = [stdout.fileno(), stderr.fileno(), other_end.fileno()]
            socket.send_fds(self._requests, [json.dumps(request).encode()], files)
        return Forked(reports, command)

    def close(self) -> None:
        """End the process."""
        if self._requests is not None and self._process is not None:
            self._requests.close()
            self._process.wait()

    def _start(self) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(its.fileno())],
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                # Not a terminal: what a session prints is buffered as in a file.
                stdout=subprocess.DEVNULL,
                env=self._environ,
            )
        self._requests = ours


def own_modules() -> Iterator[str]:
    """Give the names of our modules that most sessions import."""
    for name in PRELOADED_PACKAGES:
        package = importlib.import_module(f"pytest_vlmeval.{name}")
        found = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        yield from (each.name for each in found)


def serve(requests: socket.socket) -> None:
    """Fork a session for each request until there are no more; returns in the fork."""
    while True:
        data, files, _, _ = socket.recv_fds(requests, LARGEST_REQUEST, 3)
        if not data:
            os._exit(0)
        if os.fork() == 0:
            requests.close()
            report(files.pop(), json.loads(data), files)
            return
        for each in files:
            os.close(each)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def report(number: int, request: dict[str, object], files: list[int]) -> None:
    """Fork the session, and report its process and its exit status; returns in it."""
    pid = os.fork()
    if pid:
        reports = socket.socket(fileno=number)
        reports.send(str(pid).encode())
        for each in files:
            os.close(each)
        _, status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):
            reports.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    os.close(number)
    for place, each in enumerate(files, start=1):
        os.dup2(each, place)
        os.close(each)
    os.environ.clear()
    os.environ.update(request["environ"])  # type: ignore[call-overload]
    folder = str(request["folder"])
    os.chdir(folder)
    # As `python -m` does.
    sys.path[0] = folder
    sys.path[1:1] = os.environ["PYTHONPATH"].split(os.pathsep)
    sys.argv[1:] = request["arguments"]  # type: ignore[call-overload]
    tempfile.tempdir = None


if __name__ == "__main__":
    for name in (*PRELOADED, *own_modules()):
        importlib.import_module(name)
    # Sessions collect garbage five times when they end; of this there is none.
    gc.collect()
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_module("pytest", run_name="__main__", alter_sys=True)
