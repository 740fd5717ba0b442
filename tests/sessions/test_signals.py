"""Signals in the middle of a run: what is in flight is kept, nothing new is asked."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.support.run_fixtures import Project, endpoint
from tests.support.running import answers, finish, wait_for
from tests.support.server_fixtures import ServerProcess

SAMPLES = 120
CONCURRENCY = 4
LATENCY_S = 1.0
WARNINGS = "[pytest]\nfilterwarnings = error\n"


def asked_after(server: ServerProcess, moment: float) -> list[float]:
    """Return how long after a moment requests were begun, in seconds."""
    times = [float(str(each["time"])) - moment for each in server.requests()]
    return [each for each in times if each > 0]


def interrupt(
    project: Project, process: subprocess.Popen[str], signal_: int, *, group: bool
) -> float:
    """Send a signal in the middle of a run, to the main process or to all."""
    wait_for(lambda: answers(project) >= 2 * CONCURRENCY, 120)
    moment = time.time()
    (os.killpg if group else os.kill)(process.pid, signal_)
    return moment


@pytest.mark.parametrize(
    ("workers", "group"),
    [
        ([], True),
        pytest.param(["-n2"], True, marks=pytest.mark.slow),
        pytest.param(["-n2"], False, marks=pytest.mark.slow),
    ],
    ids=["one", "xdist", "controller"],
)
def test_ctrl_c_keeps_what_is_in_flight_and_asks_nothing_new(
    project: Project,
    server: ServerProcess,
    workers: list[str],
    group: bool,
    figure: Callable[[str], None],
) -> None:
    project.write_math(SAMPLES)
    project.pytester.makeini(WARNINGS)
    server.control(default="B", latency_s=LATENCY_S)
    arguments = [*endpoint(server.url), f"--vlm-concurrency={CONCURRENCY}"]
    process = project.start(*arguments, *workers)
    moment = interrupt(project, process, signal.SIGINT, group=group)
    output = finish(process)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert "INTERNALERROR" not in output
    late = asked_after(server, moment)
    figure(f"Ctrl-C with {CONCURRENCY} in flight: {len(late)} requests after it")
    assert len(late) <= CONCURRENCY
    assert len(server.requests()) < SAMPLES
    assert answers(project) == len(server.requests())


def test_ctrl_c_again_drops_what_is_in_flight(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(SAMPLES)
    server.control(default="B", rules=[{"after": 9, "latency_s": 60}])
    arguments = [*endpoint(server.url), f"--vlm-concurrency={CONCURRENCY}"]
    process = project.start(*arguments)
    wait_for(lambda: len(server.requests()) >= 9 + CONCURRENCY, 120)
    wait_for(lambda: answers(project) >= 9)
    os.kill(process.pid, signal.SIGINT)
    assert process.stdout is not None
    line = "vlmeval: interrupted: waits for 4 answers in flight. Ctrl-C again drops "
    while line not in process.stdout.readline():
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    finish(process)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert answers(project) == 9


@pytest.mark.slow
@pytest.mark.parametrize(
    "signal_",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, marks=pytest.mark.slow),
    ],
    ids=lambda each: signal.Signals(each).name,
)
def test_workers_ask_nothing_more_once_the_main_process_is_gone(
    project: Project,
    server: ServerProcess,
    signal_: int,
    figure: Callable[[str], None],
) -> None:
    project.write_math(SAMPLES)
    server.control(default="B", latency_s=LATENCY_S)
    arguments = [*endpoint(server.url), f"--vlm-concurrency={CONCURRENCY}", "-n2"]
    process = project.start(*arguments)
    moment = interrupt(project, process, signal_, group=False)
    assert process.wait(60) == -signal_
    # Long enough to see what a worker would still ask.
    time.sleep(6)
    late = asked_after(server, moment)
    figure(
        f"{signal.Signals(signal_).name} of the main process: {len(late)} requests "
        f"after it, the last after {max(late, default=0):.1f} s"
    )
    assert len(late) <= CONCURRENCY
    assert max(late, default=0) < 2
    assert len(server.requests()) < SAMPLES
    # What was in flight is kept here, too.
    assert answers(project) == len(server.requests())
