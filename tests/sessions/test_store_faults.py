"""What befalls a store: after each the same command finishes, with equal results."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store import database as location
from tests.support.failed_sessions import small_disk
from tests.support.run_fixtures import Project, endpoint
from tests.support.running import answers, asked, finish, wait_for
from tests.support.server_fixtures import ServerProcess

__all__ = ["small_disk"]

pytestmark = pytest.mark.slow

SAMPLES = 24
# All free questions but one are answered wrong, all choices right.
SCRIPT: dict[str, object] = {"answers": {"<3>": "30"}, "default": "B"}
SUMMARY = "14 passed, 1 deselected, 11 xfailed"
RESULTS = """
    SELECT sample_index, text, state, repeat, attempts FROM answers
    ORDER BY CAST(sample_index AS INTEGER)
"""
VERDICTS = """
    SELECT sample_index, value, extracted, reason FROM verdicts
    ORDER BY CAST(sample_index AS INTEGER)
"""


def results(project: Project) -> list[object]:
    """Return the answers, verdicts and scores of the store, which hold no times."""
    scores = project.stored("SELECT score FROM scores WHERE state = 'done'")
    return [project.stored(RESULTS), project.stored(VERDICTS), scores]


@pytest.fixture
def undisturbed(
    project: Project, server: ServerProcess
) -> Callable[[Project], list[object]]:
    """Write the data; give what compares a store with that of an undisturbed run."""
    project.write_math(SAMPLES)
    server.control(**SCRIPT)
    project.ask(server.url).assert_outcomes(passed=14, xfailed=11)
    expected = results(project)
    shutil.rmtree(project.store.parent)
    server.control(**SCRIPT, latency_s=0.3)

    def check(project: Project) -> list[object]:
        assert results(project) == expected
        return expected

    return check


Check = Callable[[Project], list[object]]


def test_killed_again_and_again_at_any_moment(
    project: Project,
    server: ServerProcess,
    undisturbed: Check,
    figure: Callable[[str], None],
) -> None:
    arguments = [*endpoint(server.url), "--vlm-concurrency=4", "-n2"]
    for count in (0, 5, 15, SAMPLES):
        process = project.start(*arguments)
        while answers(project) < count or not server.requests():
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        finish(process)
    assert project.run(*arguments).ret == 0
    undisturbed(project)
    again = len(server.requests()) - SAMPLES
    figure(f"4 kills of a command with 2 workers: {again} of {SAMPLES} asked again")
    # Asked again was only what was under way when it was killed.
    assert len(server.requests()) <= SAMPLES + 4 * 4


@pytest.mark.parametrize("count", [1, 12, SAMPLES - 1])
def test_a_killed_worker_is_survived_by_the_others(
    project: Project, server: ServerProcess, undisturbed: Check, count: int
) -> None:
    process = project.start(*endpoint(server.url), "-n2", "--vlm-concurrency=4")
    wait_for(lambda: answers(project) >= count)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    finish(process)
    assert project.ask(server.url, "-n2").ret == 0
    undisturbed(project)
    assert len(server.requests()) <= SAMPLES + 4


def test_a_full_disk(
    project: Project,
    server: ServerProcess,
    small_disk: Path,
    figure: Callable[[str], None],
) -> None:
    project.write_math(12)
    server.control(default="B" + " " * 100_000)
    project.ask(server.url)
    expected = results(project)
    project.store = small_disk / "store.sqlite"
    arguments = ["--vlm-concurrency=1", f"--vlm-work-dir={small_disk}"]
    assert project.ask(server.url, *arguments).ret == 1
    kept = answers(project)
    before = len(server.requests())
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert project.ask(server.url, *arguments).ret == 0
    assert results(project) == expected
    figure(
        f"full disk: {kept} of 12 answers kept; with more room "
        f"{len(server.requests()) - before} asked again"
    )
    assert len(server.requests()) - before <= 12 - kept


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
connection.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.readline()
connection.rollback()
"""


@pytest.fixture
def hold(project: Project) -> Iterator[Callable[[], Callable[[], None]]]:
    """Lock the store in another process; what comes back releases it."""
    holders: list[subprocess.Popen[str]] = []

    def release() -> None:
        for holder in holders:
            holder.communicate("\n")
        holders.clear()

    def lock() -> Callable[[], None]:
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(project.store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        holders.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        return release

    yield lock
    release()


def test_a_store_that_is_locked_for_a_while_is_waited_for(
    project: Project,
    server: ServerProcess,
    undisturbed: Check,
    hold: Callable[[], Callable[[], None]],
) -> None:
    process = project.start(*endpoint(server.url), "--vlm-concurrency=4")
    wait_for(lambda: answers(project) >= 4)
    release = hold()
    kept = answers(project)
    # Requests go on until the slots are full of answers that wait to be kept.
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(5)
    assert answers(project) == kept
    release()
    assert SUMMARY in finish(process)
    assert set(asked(server).values()) == {1}
    undisturbed(project)


def test_a_store_that_stays_locked_ends_the_run_and_the_next_goes_on(
    project: Project,
    server: ServerProcess,
    undisturbed: Check,
    hold: Callable[[], Callable[[], None]],
) -> None:
    project.pytester.makeconftest(
        "from pytest_vlmeval.run.store import database\ndatabase.BUSY_TIMEOUT_S = 2"
    )
    arguments = [*endpoint(server.url), "--vlm-concurrency=2"]
    process = project.start(*arguments)
    wait_for(lambda: answers(project) >= 4)
    release = hold()
    output = finish(process)
    assert process.returncode == 1
    assert "Another process held the store for more than 2 s: end it" in output
    assert "During handling" not in output
    release()
    assert project.run(*arguments).ret == 0
    undisturbed(project)


def test_after_one_wait_in_vain_nothing_waits_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(location, "BUSY_TIMEOUT_S", 1)
    store = Store(tmp_path)
    other = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waited = []
    for _ in range(3):
        started = time.monotonic()
        with pytest.raises(VlmEvalError, match="held the store for more than 1 s"):
            store.leave("nobody")
        waited.append(time.monotonic() - started)
    assert waited[0] > 0.9
    assert max(waited[1:]) < 0.5
    other.rollback()
    other.close()
    store.leave("nobody")
    store.close()


DAY_S = 86_400
# What sets the clock of a machine is seen by every process on it, so the test sets that
# of one process instead: all that reads the time there gets it from here.
CLOCK = """
import time
from pathlib import Path

file, real = Path(__file__).with_name("offset"), time.time
time.time = lambda: real() + float(file.read_text())
"""


@pytest.mark.parametrize("jump_s", [2 * DAY_S, -2 * DAY_S])
def test_a_clock_that_jumps(
    project: Project, server: ServerProcess, undisturbed: Check, jump_s: int
) -> None:
    offset = project.pytester.path / "offset"
    offset.write_text("0")
    project.pytester.makepyfile(jumping_clock=CLOCK)
    server.control(**SCRIPT, latency_s=0.5)
    arguments = [*endpoint(server.url), "--vlm-concurrency=2"]
    steady = project.start(*arguments)
    jumping = project.start(*arguments, "-p", "jumping_clock")
    both = "SELECT count(DISTINCT session_id) FROM answers"
    wait_for(lambda: answers(project) > 0 and project.stored(both) == [(2,)])
    new = offset.with_suffix(".new")
    new.write_text(str(jump_s))
    new.replace(offset)
    for process in (steady, jumping):
        assert SUMMARY in finish(process)
    assert set(asked(server).values()) == {1}
    undisturbed(project)
    times = project.stored("SELECT max(answered_at) - min(answered_at) FROM answers")
    [(span_s,)] = times
    assert isinstance(span_s, float)
    assert span_s > DAY_S  # It did jump.
