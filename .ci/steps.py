"""The steps of CI: both commands of the README on a clean clone, then two lanes.

Many tests wait more than they compute, so independent steps run side by side. Each
one's output is kept in build/ci, and printed whole when it ends. Every step is run,
whatever failed before it; the summary names each, and the tests that failed.
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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# How long a step may take to end by itself once it was interrupted.
GRACE_S = 30


@dataclass(frozen=True)
class Step:
    """A command of the shell; any exit status but 0 fails, pytest's 5 (no test) too."""

    name: str
    command: str


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
# Installs what the tests start, where there is none; needs apt and root.
_POSTGRESQL = """
if ! command -v initdb && ! compgen -G '/usr/lib/postgresql/*/bin/initdb'; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q && apt-get install -qy --no-install-recommends postgresql
fi
"""
# What the reports look like stays for a person to see.
_BROWSER = """
command -v chromium || { apt-get update -q && apt-get install -qy chromium; } &&
make test-browser PYTEST_ARGS="--screenshots=${SCREENSHOTS:-build/screenshots}"
"""

# They set up what all others run in.
FIRST = (
    Step("demo", "make demo"),
    Step("set-up is kept", "make --question .venv/.ready"),
    Step("second demo", "make demo"),
    Step("lint", "make lint"),
)
# What steps of a lane set up, no step of another one uses.
LANES = (
    (Step("tests", "make test"), Step("long tests", "make test-slow")),
    (
        Step("tests of the add-ons", "make test-addons"),
        Step("environment of the model servers", "make model-environment"),
        Step("tests with real model servers", "make test-swift"),
        Step("tests with Ray", "make test-ray"),
        Step("tests of the wheel", "make test-packaging"),
        Step("units with Python 3.13", _OTHER_PYTHON.format("3.13")),
        Step("units with Python 3.14", _OTHER_PYTHON.format("3.14")),
        Step("units with the lowest versions", "make test-lowest"),
        Step("typecheck", "make typecheck"),
        Step("documentation", "make docs"),
        Step("PostgreSQL", _POSTGRESQL),
        Step("tests with PostgreSQL", "CI=true make test-postgres"),
        Step("tests in a browser", _BROWSER),
    ),
)
READY = "make --question .venv/.ready"


class Runner:
    """Runs steps, any number of lanes at once; `logs` is the folder of their output."""

    def __init__(self, logs: Path) -> None:
        self.results: dict[Step, Result] = {}
        self._logs = logs
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run_all(self, steps: Sequence[Step]) -> None:
        """Run steps one after the other, to the last, unless they are stopped."""
        for step in steps:
            self._run(step)

    def stop(self) -> None:
        """Interrupt what is running, and kill what has not ended soon."""
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
    lanes: Sequence[Sequence[Step]] = LANES,
    *,
    ready: str = READY,
    logs: Path = Path("build/ci"),
) -> int:
    """Run `first`, then the lanes side by side; returns the exit status.

    The lanes are not run where the command `ready` fails: each would set up the same.
    """
    start = time.monotonic()
    runner = Runner(logs)
    # Also where a shell started this in the background, with Ctrl-C ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    interrupted = False
    with ThreadPoolExecutor(1 + len(lanes)) as pool:
        try:
            pool.submit(runner.run_all, first).result()
            if subprocess.run(
                ["bash", "-c", ready], stdin=subprocess.DEVNULL
            ).returncode:
                print("== what the other steps need is not set up, so they are not run")
            else:
                for each in [pool.submit(runner.run_all, lane) for lane in lanes]:
                    each.result()
        except KeyboardInterrupt:
            interrupted = True
            print("== interrupted: what is running is ended", flush=True)
            runner.stop()
    steps = [step for lane in (first, *lanes) for step in lane]
    results = {step.name: runner.results.get(step, Result()) for step in steps}
    print("\n".join(summarize(results, time.monotonic() - start)), flush=True)
    if interrupted:
        return 128 + signal.SIGINT
    return int(any(result.status != 0 for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
