"""How `.ci/run` runs its steps, with stubs in their place."""

from __future__ import annotations

import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

STEPS = Path(__file__).parents[1] / ".ci" / "steps.py"


def start(folder: Path, first: str, lanes: str, ready: str) -> subprocess.Popen[str]:
    """Start CI with other steps; they are Python, made of `Step(NAME, COMMAND)`."""
    script = (
        "import runpy, sys, pathlib\n"
        f"steps = runpy.run_path({str(STEPS)!r})\n"
        "Step = steps['Step']\n"
        f"sys.exit(steps['main']({first}, {lanes}, ready={ready!r}, "
        "logs=pathlib.Path('logs')))"
    )
    return subprocess.Popen(
        [sys.executable, "-u", "-c", script],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(
    folder: Path, first: str = "()", lanes: str = "()", ready: str = "true"
) -> tuple[int, str]:
    """Run CI with other steps; returns its exit status and its output."""
    process = start(folder, first, lanes, ready)
    output, _ = process.communicate(timeout=60)
    return process.returncode, re.sub(r"\b\d+ s\b", "N s", output)


def test_all_steps_are_run_and_summed_up(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        "(Step('set-up', 'echo made > made'),)",
        """[
            (
                Step('slow', 'for i in 1 2 3; do echo slow $i; sleep 0.4; done'),
                Step('red', 'echo "FAILED tests/a.py::test - no"; exit 5'),
            ),
            (
                Step('quick', 'cat made; sleep 0.5; echo quick'),
                Step('Quick 3.13', 'cat; echo last'),
            ),
        ]""",
    )
    assert status == 1
    # Printed whole, though both lanes wrote at the same time.
    assert (
        "== slow: its output\nslow 1\nslow 2\nslow 3\n== slow: exit status 0" in output
    )
    assert "== quick: its output\nmade\nquick\n== quick: exit status 0" in output
    assert (tmp_path / "logs" / "quick-3.13.log").read_text() == "last\n"
    assert output.rpartition("== summary\n")[2] == (
        "set-up          N s  passed\n"
        "slow            N s  passed\n"
        "red             N s  exit status 5\n"
        "quick           N s  passed\n"
        "Quick 3.13      N s  passed\n"
        "red: FAILED tests/a.py::test - no\n"
        "4 of 5 steps passed in N s\n"
    )


def test_lanes_run_side_by_side(tmp_path: Path) -> None:
    """Each waits for what the other makes."""
    wait = "for i in $(seq 100); do test -e {0} && exit; sleep 0.1; done; exit 1"
    status, output = run(
        tmp_path,
        "()",
        f"[(Step('a', 'touch a; {wait.format('b')}'),), "
        f"(Step('b', 'touch b; {wait.format('a')}'),)]",
    )
    assert status == 0
    assert "2 of 2 steps passed" in output


def test_lanes_without_a_set_up_are_not_run(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        "(Step('set-up', 'exit 2'), Step('next', 'touch next'))",
        "[(Step('a', 'touch a'),)]",
        ready="test -e ready",
    )
    assert status == 1
    assert "== what the other steps need is not set up, so they are not run\n" in output
    assert (tmp_path / "next").exists()
    assert not (tmp_path / "a").exists()
    assert "not run\n1 of 3 steps passed" in output


def test_an_interrupt_ends_what_is_running(tmp_path: Path) -> None:
    process = start(
        tmp_path,
        "()",
        """[
            (
                Step('a', 'trap "touch ended; exit 1" INT; : > a; sleep 60 & wait'),
                Step('next', 'touch next'),
            ),
            (Step('b', ': > b; exec sleep 60'),),
        ]""",
        "true",
    )
    while not {tmp_path / "a", tmp_path / "b"} <= set(tmp_path.iterdir()):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert (tmp_path / "ended").exists()
    assert not (tmp_path / "next").exists()
    assert "== interrupted: what is running is ended\n" in output
    assert "0 of 3 steps passed" in output


def test_each_step_has_a_name_and_a_target_of_make() -> None:
    steps: dict[str, Any] = runpy.run_path(str(STEPS))
    all_steps = [each for lane in (steps["FIRST"], *steps["LANES"]) for each in lane]
    # The demo is run twice, and is the same command.
    assert len({each.name for each in all_steps}) == len(all_steps)
    makefile = STEPS.parents[1].joinpath("Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z-]+):", makefile))
    used = set(
        re.findall(r"make ([a-z][a-z-]+)", " ".join(s.command for s in all_steps))
    )
    assert used <= targets
    assert {name for name in targets if name.startswith("test")} <= used
