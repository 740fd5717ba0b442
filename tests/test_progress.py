"""The line shown while items wait, on a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from pytest_vlmeval.reports.progress import Rate, format_progress
from pytest_vlmeval.reports.watch import DatasetProgress
from tests.run_fixtures import Project, endpoint
from tests.server_fixtures import ServerProcess


def progress(dataset: str, settled: int, total: int) -> DatasetProgress:
    return DatasetProgress(dataset=dataset, settled=settled, total=total)


def test_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()
    assert rate.update(0, 0.0) == 0
    assert rate.update(10, 5.0) == 2
    assert rate.update(110, 15.0) == pytest.approx(110 / 15)
    assert rate.update(110, 30.0) == 0


@pytest.mark.parametrize(
    ("states", "rate", "line"),
    [
        ([("A", 3, 10)], 2.0, "A 3/10, 2.0/s, 0:00:04 left"),
        ([("A", 3, 10)], 0.0, "A 3/10, 0.0/s"),
        (
            [("A", 10, 10), ("B", 0, 8_000)],
            0.5,
            "B 0/8000, in all 10/8010, 0.5/s, 4:26:40 left",
        ),
        ([("A", 2, 2), ("B", 1, 1)], 3.0, "all 3 samples answered, scoring"),
    ],
)
def test_line(states: list[tuple[str, int, int]], rate: float, line: str) -> None:
    assert format_progress([progress(*state) for state in states], rate) == line


def run_on_terminal(project: Project, *arguments: str) -> str:
    """Run pytest on a pseudo terminal and return every byte it wrote there."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=project.pytester.path,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(terminal)
    output = b""
    while True:
        try:
            chunk = os.read(controller, 4096)
        except OSError:  # The other end is closed.
            break
        if not chunk:
            break
        output += chunk
    os.close(controller)
    assert process.wait() == 0
    return output.decode()


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
def test_live_line_on_a_terminal(
    project: Project, server: ServerProcess, workers: list[str]
) -> None:
    project.write_math(10)
    server.control(default="B", rules=[{"latency_s": 1.0}])
    arguments = [*endpoint(server.url), "--vlm-concurrency=2", *workers]
    output = run_on_terminal(project, *arguments)
    drawn = [part for part in output.split("\r\x1b[2K") if part.startswith("vlmeval: ")]
    assert len(drawn) >= 3
    assert any(re.search("MathVision_MINI [2468]/10, ", line) for line in drawn), drawn
    # Each time the line is left, the cursor goes back to where pytest had stopped.
    last = drawn[-1]
    assert "\r\x1b[2K\x1b[1A\x1b[" in output.partition(last)[2]
    assert "6 passed" in output


def test_quiet_means_no_line(project: Project, server: ServerProcess) -> None:
    project.write_math(4)
    server.control(default="B", rules=[{"latency_s": 1.0}])
    output = run_on_terminal(project, *endpoint(server.url), "-q")
    assert "\x1b[2K" not in output


@pytest.mark.slow
def test_plain_line_every_30_seconds_without_a_terminal(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(1)
    server.control(default="B", rules=[{"latency_s": 34.0}])
    result = project.ask(server.url)
    lines = [line for line in result.outlines if line.startswith("vlmeval: Math")]
    assert len(lines) == 1
    assert lines[0].startswith("vlmeval: MathVision_MINI 0/1, ")
    assert "\x1b" not in result.stdout.str()
