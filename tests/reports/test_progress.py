"""The line shown while items wait, on a terminal and elsewhere."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence

import pytest

from pytest_vlmeval.reports.progress import (
    DatasetProgress,
    Progress,
    Rate,
    describe_progress,
    draw_progress,
    looks_right,
)
from pytest_vlmeval.reports.summary import find_share
from tests.support.run_fixtures import Project, endpoint
from tests.support.server_fixtures import ServerProcess


def progress(*states: tuple[str, int, int]) -> Progress:
    datasets = [
        DatasetProgress(dataset=dataset, settled=settled, total=total)
        for dataset, settled, total in states
    ]
    return Progress(datasets=tuple(datasets))


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
    assert describe_progress(progress(*states), rate) == line


def plain(lines: Sequence[str]) -> list[str]:
    return [re.sub("\x1b\\[[0-9;]*m", "", line).rstrip() for line in lines]


def test_bars_of_all_datasets_and_a_line_for_all() -> None:
    first = DatasetProgress(dataset="A", settled=5, total=10, right=find_share(3, 4))
    second = DatasetProgress(dataset="Second", settled=4, total=4)
    shown = Progress(datasets=(first, second), in_flight=5, retries=2, tokens=1234)
    assert plain(draw_progress(shown, 2.0, 100, 24)) == [
        "A      ━━━━━━━━━━━━╸━━━━━━━━━━━━ 5/10 about 75 % right [36, 94]",
        "Second ━━━━━━━━━━━━━━━━━━━━━━━━━  4/4",
        "A 5/10, in all 9/14, 2.0/s, 0:00:02 left, 5 in flight, 2 retries, "
        "1,234 tokens",
    ]


def test_bars_leave_room_to_pytest() -> None:
    states = [(f"Set{number}", 3 * (number < 4), 3) for number in range(30)]
    lines = plain(draw_progress(progress(*states), 1.0, 60, 12))
    # What goes on is shown before what is done.
    assert [line.split()[0] for line in lines[:-1]] == [
        "Set4", "Set5", "Set6", "Set7", "Set8", "Set9",
    ]  # fmt: skip
    assert lines[-1].startswith("Set4 0/3, in all 12/90, 1.0/s, 0:01:18 left, 24 more")
    assert all(len(line) <= 60 for line in lines)


@pytest.mark.parametrize(
    ("reference", "text", "right"),
    [
        ("B", "B", True),
        ("B", "The answer is (B).", True),
        ("B", "Because A is wrong", False),
        ("B", "none", False),
        ("Yes", "yes, it is", True),
        ("No", "Yes.", False),
        ("42", "42", None),
    ],
)
def test_a_glance_at_an_answer(reference: str, text: str, right: bool | None) -> None:
    assert looks_right(reference, text) is right


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


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
def test_live_line_on_a_terminal(
    project: Project, server: ServerProcess, workers: list[str]
) -> None:
    project.write_math(10)
    server.control(default="B", rules=[{"latency_s": 1.0}])
    arguments = [*endpoint(server.url), "--vlm-concurrency=2", *workers]
    output = run_on_terminal(project, *arguments)
    # Each time the bars are left, the cursor goes back to where pytest had stopped.
    drawn = output.split("\x1b[1A\x1b[")
    assert len(drawn) >= 4
    text = re.sub("\x1b\\[[0-9;]*[mKAG]", "", output)
    assert re.search("MathVision_MINI ━.* [2468]/10 about 100 % right", text), text
    assert re.search(r"MathVision_MINI [2468]/10, .*, [12] in flight, \d+ tokens", text)
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
