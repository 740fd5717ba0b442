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

import pytest

pytestmark = pytest.mark.once

STEPS = Path(__file__).parents[1] / ".ci" / "steps.py"


def start(folder: Path, first: str, others: str, ready: str) -> subprocess.Popen[str]:
    """Start CI with other steps; they are Python, made of `Step(NAME, COMMAND)`."""
    script = (
        "import runpy, sys, pathlib\n"
        f"steps = runpy.run_path({str(STEPS)!r})\n"
        "Step = steps['Step']\n"
        f"sys.exit(steps['main']({first}, {others}, processes=2, ready={ready!r}, "
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
    folder: Path, first: str = "()", others: str = "()", ready: str = "true"
) -> tuple[int, str]:
    """Run CI with other steps; returns its exit status and its output."""
    process = start(folder, first, others, ready)
    output, _ = process.communicate(timeout=60)
    return process.returncode, re.sub(r"\b\d+ s\b", "N s", output)


def test_all_steps_are_run_and_summed_up(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        "(Step('set-up', 'echo made > made'),)",
        """[
            Step('slow', 'for i in 1 2 3; do echo slow $i; sleep 0.4; done'),
            Step('quick', 'cat made; sleep 0.5; echo quick'),
            Step('red', 'echo "FAILED tests/a.py::test - no"; exit 5'),
            Step('Quick 3.13', 'cat; echo last'),
        ]""",
    )
    assert status == 1
    # Printed whole, though both wrote at the same time.
    assert (
        "== slow: its output\nslow 1\nslow 2\nslow 3\n== slow: exit status 0" in output
    )
    assert "== quick: its output\nmade\nquick\n== quick: exit status 0" in output
    assert (tmp_path / "logs" / "quick-3.13.log").read_text() == "last\n"
    assert output.rpartition("== summary\n")[2] == (
        "set-up          N s  passed\n"
        "slow            N s  passed\n"
        "quick           N s  passed\n"
        "red             N s  exit status 5\n"
        "Quick 3.13      N s  passed\n"
        "red: FAILED tests/a.py::test - no\n"
        "4 of 5 steps passed in N s\n"
    )


WAIT = "for i in $(seq 100); do test -e {0} && exit; sleep 0.1; done; exit 1"


def test_steps_run_side_by_side(tmp_path: Path) -> None:
    """Each waits for what the other makes."""
    status, output = run(
        tmp_path,
        "()",
        f"[Step('a', 'touch a; {WAIT.format('b')}'), "
        f"Step('b', 'touch b; {WAIT.format('a')}')]",
    )
    assert status == 0
    assert "2 of 2 steps passed" in output


def test_no_more_processes_run_than_there_is_room_for(tmp_path: Path) -> None:
    """What fits goes before what does not, and what never does runs alone."""
    alone = "test ! -e a.runs && test -e b && touch both"
    status, output = run(
        tmp_path,
        "()",
        f"""[
            Step('a', 'touch a.runs; {WAIT.format("b")}'),
            Step('both', '{alone}', processes=2),
            Step('b', 'sleep 0.5; rm a.runs; touch b'),
            Step('three', 'test -e both', processes=3),
        ]""",
    )
    assert status == 0, output
    assert "4 of 4 steps passed" in output


def test_steps_without_a_set_up_are_not_run(tmp_path: Path) -> None:
    status, output = run(
        tmp_path,
        "(Step('set-up', 'exit 2'), Step('next', 'touch next'))",
        "[Step('a', 'touch a')]",
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
            Step('a', 'trap "touch ended; exit 1" INT; : > a; sleep 60 & wait'),
            Step('b', ': > b; exec sleep 60'),
            Step('next', 'touch next'),
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
    all_steps = [*steps["FIRST"], *steps["STEPS"]]
    # The demo is run twice, and is the same command.
    assert len({each.name for each in all_steps}) == len(all_steps)
    makefile = STEPS.parents[1].joinpath("Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z-]+):", makefile))
    used = set(
        re.findall(r"make ([a-z][a-z-]+)", " ".join(s.command for s in all_steps))
    )
    assert used <= targets
    assert {name for name in targets if name.startswith("test")} <= used


@pytest.mark.parametrize("marker", ["swift", "ray", "browser", "packaging"])
def test_what_is_marked_lies_where_its_target_looks(marker: str) -> None:
    """Collecting all tests takes longer than most of these few."""
    root = STEPS.parents[1]
    makefile = root.joinpath("Makefile").read_text(encoding="utf-8")
    (line,) = re.findall(rf"-m {marker} .*", makefile)
    places = [root / word for word in line.split() if word.startswith("tests")]
    marked = [
        path
        for path in root.joinpath("tests").rglob("test_*.py")
        if f"mark.{marker}\n" in path.read_text(encoding="utf-8")
    ]
    assert marked
    assert all(any(path.is_relative_to(p) for p in places) for path in marked)
