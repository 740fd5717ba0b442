"""Bad servers, stores and interruptions: the same command finishes, as if whole."""

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

SAMPLES = 16
REPLIES = {f"<{number}>": str(number) for number in range(1, SAMPLES + 1)}
UNDISTURBED = [(str(number), str(number)) for number in range(1, SAMPLES + 1)]


def stored(project: Project) -> list[tuple[object, ...]]:
    """Return what an undisturbed run would have stored: one answer per sample."""
    return project.stored(
        "SELECT sample_index, text FROM answers WHERE state = 'answered' "
        "ORDER BY CAST(sample_index AS INTEGER)"
    )


def kinds(project: Project) -> set[object]:
    """Return the kinds of the requests that failed."""
    return {kind for (kind,) in project.stored("SELECT kind FROM failed_attempts")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 500, "message": "oops", "rate": 0.1, "seed": 1}, "500"),
        ({"status": 429, "message": "wait", "retry_after": "1", "times": 3}, "429"),
        ({"fault": "hang", "times": 2}, "timeout"),
        ({"fault": "hang_body", "times": 2}, "timeout"),
        ({"fault": "truncated_json", "times": 3}, "protocol"),
        ({"fault": "error_body", "message": "lost", "times": 3}, "protocol"),
        ({"fault": "reset", "times": 3}, "connection"),
        ({"fault": "broken_body", "times": 3}, "connection"),
    ],
    ids=lambda value: (
        str(value.get("fault", value.get("status"))) if isinstance(value, dict) else ""
    ),
)
def test_a_bad_server_costs_no_answer(
    project: Project,
    server: ServerProcess,
    fault: dict[str, object],
    kind: str,
    figure: Callable[[str], None],
) -> None:
    project.write_math(SAMPLES)
    server.control(answers=REPLIES, rules=[fault])
    arguments = ["--vlm-retries=5", "--vlm-timeout=5", "--vlm-concurrency=4"]
    result = project.ask(server.url, *arguments)
    assert result.ret == 0
    figure(f"{len(server.requests())} requests for {SAMPLES} answers")
    assert stored(project) == UNDISTURBED
    assert kinds(project) == {kind}
    result.stdout.fnmatch_lines([f"asked: * of them again, *errors: {kind} *x"])


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again(
    project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    project.write_math(SAMPLES)
    server = vlm_server(answers=REPLIES, latency_s=0.5)
    process = project.start(*endpoint(server.url), "--vlm-concurrency=2")
    wait_for(lambda: answers(project) >= 4)
    server.kill()
    time.sleep(2)
    server.start()
    output = finish(process)
    assert process.returncode == 0, output
    assert stored(project) == UNDISTURBED
    assert "connection" in kinds(project)


@pytest.mark.slow
def test_a_server_that_stays_away_stops_the_run_and_keeps_what_it_gave(
    project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    project.write_math(SAMPLES)
    server = vlm_server(answers=REPLIES, latency_s=0.5)
    arguments = [*endpoint(server.url), "--vlm-concurrency=2", "--vlm-retries=9"]
    process = project.start(*arguments, "--vlm-outage=3")
    wait_for(lambda: answers(project) >= 4)
    server.kill()
    output = finish(process)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "No endpoint has answered for " in output
    assert "Connection refused" in output
    assert output.count("FAILED test_math.py") == 1
    kept = answers(project)
    assert 4 <= kept < SAMPLES
    server.start()
    assert project.run(*arguments).ret == 0
    assert stored(project) == UNDISTURBED


@pytest.mark.slow
def test_a_server_that_stays_away_stops_all_workers(
    project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    # Of four workers two ask nothing at all, and learn it from the others.
    project.write_math(SAMPLES)
    server = vlm_server(answers=REPLIES, latency_s=2)
    arguments = [*endpoint(server.url), "--vlm-concurrency=2", "--vlm-retries=9"]
    process = project.start(*arguments, "--vlm-outage=2", "-n4")
    # One that finds no server when it begins would be refused, and stops nothing.
    assert process.stdout is not None
    assert any("4 workers [" in line for line in process.stdout)
    wait_for(lambda: answers(project) >= 4)
    server.kill()
    output = finish(process)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, output
    assert output.count("Interrupted: No endpoint has answered for ") == 1
    # The item that each of them was at.
    assert 1 <= output.count("FAILED test_math.py") <= 4
    kept = answers(project)
    server.start()
    server.control(answers=REPLIES)
    assert project.run(*arguments).ret == 0
    assert len(server.requests()) >= SAMPLES - kept
    assert stored(project) == UNDISTURBED


@pytest.mark.slow
def test_ctrl_c_twice_loses_nothing(project: Project, server: ServerProcess) -> None:
    project.write_math(SAMPLES)
    server.control(answers=REPLIES, latency_s=0.5)
    arguments = [*endpoint(server.url), "--vlm-concurrency=2"]
    process = project.start(*arguments)
    wait_for(lambda: answers(project) >= 4)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGINT)
    finish(process)
    assert process.returncode != 0
    kept = answers(project)
    assert 4 <= kept < SAMPLES
    server.control(answers=REPLIES)
    assert project.run(*arguments).ret == 0
    assert len(server.requests()) == SAMPLES - kept
    assert stored(project) == UNDISTURBED


@pytest.mark.slow
def test_a_thinking_model_is_scored_by_its_answer_alone(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(3)
    server.control(
        rules=[
            {"contains": "<1>", "answer": "<think>20? No.</think>10"},
            {"contains": "<2>", "answer": "B", "reasoning": "It is B."},
            {"contains": "<3>", "answer": "<think>30, or"},
        ]
    )
    result = project.ask(server.url)
    result.stdout.fnmatch_lines(
        [
            "MathVision_MINI-3 has no usable answer: it ended after * tokens in the "
            "middle of its thoughts, though the server says that it is whole. * It "
            "thought: 30, or"
        ]
    )
    assert project.stored(
        "SELECT sample_index, state, text, reasoning FROM answers ORDER BY 1"
    ) == [
        ("1", "answered", "10", "20? No."),
        ("2", "answered", "B", "It is B."),
        ("3", "empty", "", "30, or"),
    ]


STORED = 24
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
    project.write_math(STORED)
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


@pytest.mark.slow
def test_killed_again_and_again_at_any_moment(
    project: Project,
    server: ServerProcess,
    undisturbed: Check,
    figure: Callable[[str], None],
) -> None:
    arguments = [*endpoint(server.url), "--vlm-concurrency=4", "-n2"]
    for count in (0, 5, 15, STORED):
        process = project.start(*arguments)
        while answers(project) < count or not server.requests():
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        finish(process)
    assert project.run(*arguments).ret == 0
    undisturbed(project)
    again = len(server.requests()) - STORED
    figure(f"4 kills of a command with 2 workers: {again} of {STORED} asked again")
    # Asked again was only what was under way when it was killed.
    assert len(server.requests()) <= STORED + 4 * 4


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 12, STORED - 1])
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
    assert len(server.requests()) <= STORED + 4


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


ASKED = 120
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
    project.write_math(ASKED)
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
    assert len(server.requests()) < ASKED
    assert answers(project) == len(server.requests())


def test_ctrl_c_again_drops_what_is_in_flight(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(ASKED)
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
    project.write_math(ASKED)
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
    assert len(server.requests()) < ASKED
    # What was in flight is kept here, too.
    assert answers(project) == len(server.requests())
