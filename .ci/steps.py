"""The steps of CI: what sets up a clean clone, then all others side by side.

Many tests wait more than they compute, so two more processes of tests run than there
are processors. Each step's output is kept in build/ci, and printed whole when it ends.
Every step is run, whatever failed before it; the summary names each, and the tests that
failed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# How long a step may take to end by itself once it was interrupted.
GRACE_S = 30


@dataclass(frozen=True)
class Step:
    """A command of the shell; any exit status but 0 fails, pytest's 5 (no test) too.

    `processes` is how many of tests it runs at once.
    """

    name: str
    command: str
    processes: int = 1


@dataclass(frozen=True)
class Result:
    """How a step ended: its exit status, None if it was not run, and its output."""

    status: int | None = None
    seconds: float = 0
    output: str = ""

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        return "not run" if self.status is None else f"exit status {self.status}"


# `make` takes one Python; others are tested with where they are found.
_OTHER_PYTHON = """
for python in python{0} "${{PYENV_ROOT:-$HOME/.pyenv}}"/versions/{0}.*/bin/python; do
    if "$python" -c '' 2>/dev/null; then
        exec make test-units PYTHON="$python" UNITS=.cache/units-{0}
    fi
done
echo "no Python {0} on this machine: not tested with it"
"""
# They install what their tests start, where there is none; that needs apt and root.
_POSTGRES = """
if ! command -v initdb && ! compgen -G '/usr/lib/postgresql/*/bin/initdb'; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q && apt-get install -qy --no-install-recommends postgresql
fi &&
CI=true make test-postgres
"""
# What the reports look like stays for a person to see.
_BROWSER = """
command -v chromium || { apt-get update -q && apt-get install -qy chromium; } &&
make test-browser PYTEST_ARGS="--screenshots=${SCREENSHOTS:-build/screenshots}"
"""

# They set up what all others run in, one after the other.
FIRST = (
    Step("demo", "make demo"),
    Step("set-up is kept", "make --question .venv/.ready"),
    Step("second demo", "make demo"),
)
# In any order, but those that take longest come first, so that nothing waits for one
# in the end. What one sets up no other uses, but the environment of model servers,
# which is locked while it is built.
STEPS = (
    Step("tests", "make test", processes=2),
    Step("long tests", "make test-slow", processes=2),
    Step("tests of the add-ons", "make test-addons", processes=2),
    Step("tests of the wheel", "make test-packaging"),
    Step("tests with real model servers", "make test-swift"),
    Step("tests with Ray", "make test-ray"),
    Step("tests with PostgreSQL", _POSTGRES),
    Step("units with the lowest versions", "make test-lowest"),
    Step("units with Python 3.13", _OTHER_PYTHON.format("3.13")),
    Step("units with Python 3.14", _OTHER_PYTHON.format("3.14")),
    Step("tests in a browser", _BROWSER),
    Step("typecheck", "make typecheck"),
    Step("documentation", "make docs"),
    Step("lint", "make lint"),
)
PROCESSES = (os.cpu_count() or 1) + 2
READY = "make --question .venv/.ready"


class Runner:
    """Runs steps; `logs` is the folder of their output."""

    def __init__(self, logs: Path) -> None:
        self.results: dict[Step, Result] = {}
        self._logs = logs
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run_all(self, steps: Sequence[Step], processes: int) -> None:
        """Run steps to the last, in their order where so many processes leave room.

        An interrupt stops them, and is passed on.
        """
        waiting, running = list(steps), dict[Future[None], Step]()
        with ThreadPoolExecutor(max(1, processes)) as pool:
            try:
                while waiting or running:
                    for step in list(waiting):
                        taken = sum(each.processes for each in running.values())
                        if not running or taken + step.processes <= processes:
                            waiting.remove(step)
                            running[pool.submit(self._run, step)] = step
                    for ended in wait(running, return_when=FIRST_COMPLETED).done:
                        del running[ended]
                        ended.result()
            except KeyboardInterrupt:
                self.stop()
                raise

    def stop(self) -> None:
        """Interrupt what is running, and kill what has not ended soon."""
        print("== interrupted: what is running is ended", flush=True)
        with self._lock:
            self._stopped = True
            running = set(self._running)
        _signal_all(running, signal.SIGINT)
        deadline = time.monotonic() + GRACE_S
        with suppress(KeyboardInterrupt):  # a second one waits no longer
            while any(each.poll() is None for each in running):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.1)
        # What a step started may outlive it.
        _signal_all(running, signal.SIGKILL)

    def _run(self, step: Step) -> None:
        start = time.monotonic()
        self._logs.mkdir(parents=True, exist_ok=True)
        path = self._logs / f"{re.sub('[^a-z0-9.]+', '-', step.name.lower())}.log"
        with path.open("wb") as log:
            with self._lock:
                if self._stopped:
                    return
                print(f"== {step.name}: started", flush=True)
                process = subprocess.Popen(
                    ["bash", "-c", step.command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    # A group of its own, to be ended with all that it started.
                    start_new_session=True,
                )
                self._running.add(process)
            status = process.wait()
        output = path.read_text(encoding="utf-8", errors="replace").rstrip()
        result = Result(status, time.monotonic() - start, output)
        with self._lock:
            self._running.discard(process)
            self.results[step] = result
            print(f"== {step.name}: its output\n{output}")
            print(f"== {step.name}: {result.ending} after {result.seconds:.0f} s")
            sys.stdout.flush()


def _signal_all(processes: Iterable[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


def summarize(results: Mapping[str, Result], seconds: float) -> list[str]:
    """Return the lines that end the output: each step, and the tests that failed."""
    width = max(map(len, results))
    lines = ["== summary"]
    lines += [
        f"{name:{width}}  {each.seconds:5.0f} s  "
        f"{'passed' if each.status == 0 else each.ending}"
        for name, each in results.items()
    ]
    for name, each in results.items():
        failed = re.findall(r"(?m)^(?:FAILED|ERROR) .+", each.output)
        lines += [f"{name}: {line}" for line in dict.fromkeys(failed)]
    bad = sum(each.status != 0 for each in results.values())
    total = f"{len(results) - bad} of {len(results)} steps passed in {seconds:.0f} s"
    return [*lines, total]


def main(
    first: Sequence[Step] = FIRST,
    steps: Sequence[Step] = STEPS,
    *,
    processes: int = PROCESSES,
    ready: str = READY,
    logs: Path = Path("build/ci"),
) -> int:
    """Run `first` one by one, then the others side by side; returns the exit status.

    The others are not run where the command `ready` fails: each would set up the same.
    """
    start = time.monotonic()
    runner = Runner(logs)
    # Also where a shell started this in the background, with Ctrl-C ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    interrupted = False
    try:
        runner.run_all(first, 1)
        if subprocess.run(["bash", "-c", ready], stdin=subprocess.DEVNULL).returncode:
            print("== what the other steps need is not set up, so they are not run")
        else:
            runner.run_all(steps, processes)
    except KeyboardInterrupt:
        interrupted = True
    results = {
        step.name: runner.results.get(step, Result()) for step in (*first, *steps)
    }
    print("\n".join(summarize(results, time.monotonic() - start)), flush=True)
    if interrupted:
        return 128 + signal.SIGINT
    return int(any(result.status != 0 for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
