"""Runs that are repeated, interrupted, shared, started over, or distributed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from tests.support.run_fixtures import Project, endpoint, properties
from tests.support.running import answers, asked, finish, most_at_once, wait_for
from tests.support.server_fixtures import ServerProcess

SAMPLES = 24


def test_the_same_command_asks_nothing_again(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(6)
    first = project.ask(server.url)
    second = project.ask(server.url)
    assert len(server.requests()) == 6
    assert first.parseoutcomes() == second.parseoutcomes()


def test_stored_answers_need_no_server(
    project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    project.write_math(6)
    server = vlm_server()
    first = project.ask(server.url)
    server.kill()
    assert project.ask(server.url).parseoutcomes() == first.parseoutcomes()


def test_fresh_asks_everything_again(project: Project, server: ServerProcess) -> None:
    project.write_math(6)
    server.control(default="1")
    project.ask(server.url)
    server.control(default="B")
    project.ask(server.url, "--vlm-fresh").assert_outcomes(passed=4, xfailed=3)
    assert len(server.requests()) == 6
    project.ask(server.url).assert_outcomes(passed=4, xfailed=3)
    assert len(server.requests()) == 6
    texts = project.stored("SELECT text, count(*) FROM answers GROUP BY text")
    assert texts == [("1", 6), ("B", 6)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one", "xdist"])
def test_after_kill_9_only_what_is_missing_is_asked(
    project: Project, server: ServerProcess, workers: Sequence[str]
) -> None:
    project.write_math(SAMPLES)
    server.control(default="B", latency_s=0.5)
    arguments = [*endpoint(server.url), *workers, "--vlm-concurrency=4"]
    process = project.start(*arguments)
    wait_for(lambda: answers(project) >= 4)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    kept = answers(project)
    assert 4 <= kept < SAMPLES
    server.control(default="B")
    result = project.run(*arguments)
    result.assert_outcomes(passed=SAMPLES // 2 + 1, xfailed=SAMPLES // 2)
    assert len(server.requests()) == SAMPLES - kept
    assert answers(project) == SAMPLES


def test_interrupted_by_ctrl_c_what_came_is_kept(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(SAMPLES)
    server.control(default="B", latency_s=0.5)
    process = project.start(*endpoint(server.url), "--vlm-concurrency=4")
    wait_for(lambda: answers(project) >= 4)
    os.kill(process.pid, signal.SIGINT)
    output = finish(process)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in output
    assert "INTERNALERROR" not in output
    kept = answers(project)
    server.control(default="B")
    project.ask(server.url).assert_outcomes(passed=13, xfailed=12)
    assert len(server.requests()) == SAMPLES - kept


def test_two_commands_at_once_share_the_work(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(SAMPLES)
    server.control(default="B", latency_s=0.3)
    arguments = [*endpoint(server.url), "--vlm-concurrency=2"]
    processes = [project.start(*arguments) for _ in range(2)]
    for output in map(finish, processes):
        assert "13 passed, 1 deselected, 12 xfailed" in output
    assert [process.returncode for process in processes] == [0, 0]
    assert set(asked(server).values()) == {1}
    assert len(project.stored("SELECT 1 FROM scores")) == 1


def test_other_settings_do_not_disturb(project: Project, server: ServerProcess) -> None:
    project.write_math(4)
    processes = [
        project.start(*endpoint(server.url), f"--vlm-max-tokens={tokens}")
        for tokens in (8, 16)
    ]
    for output in map(finish, processes):
        assert "3 passed, 1 deselected, 2 xfailed" in output
    assert set(asked(server).values()) == {2}
    assert len(project.stored("SELECT 1 FROM runs")) == 2


@pytest.mark.slow
def test_xdist_gives_the_results_of_one_process(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(SAMPLES)
    server.control(
        default="B",
        latency_s=0.05,
        rules=[{"contains": "<3>", "status": 400, "message": "no"}],
    )
    arguments = [*endpoint(server.url), "--vlm-concurrency=4"]
    result, alone = project.junit(*arguments)
    project.store.unlink()
    server.control(
        default="B",
        latency_s=0.05,
        rules=[{"contains": "<3>", "status": 400, "message": "no"}],
    )
    distributed_result, distributed = project.junit(*arguments, "-n", "3")
    once = Counter({f"Question <{n}>?": 1 for n in range(1, 25)})
    # A 400 is confirmed alone, unless it was alone already.
    assert asked(server) in (once, once + Counter(["Question <3>?"]))
    assert most_at_once(server, 0.05) <= 4
    assert distributed_result.ret == result.ret == 1
    # xdist does not tell what was deselected.
    outcomes = result.parseoutcomes()
    outcomes.pop("deselected", None)
    assert distributed_result.parseoutcomes() == outcomes
    for name, case in alone.items():
        other = properties(distributed[name])
        assert properties(case) | {"latency_ms": ""} == other | {"latency_ms": ""}
        assert [each.tag for each in case] == [each.tag for each in distributed[name]]
    distributed_result.stdout.fnmatch_lines(
        [
            "MathVision_MINI * 24 * 23 * 12 * 50.00 of 100  1 without a usable answer "
            "(1 failed), *"
        ]
    )


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(project: Project, server: ServerProcess) -> None:
    project.write_math(SAMPLES)
    server.control(default="B", latency_s=0.5)
    process = project.start(*endpoint(server.url), "-n2", "--vlm-concurrency=4")
    wait_for(lambda: answers(project) >= 4)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    )
    os.kill(int(children.stdout.split()[0]), signal.SIGKILL)
    output = finish(process)
    assert "crashed" in output
    assert answers(project) == SAMPLES
    once = Counter(project.stored("SELECT sample_index FROM answers"))
    assert set(once.values()) == {1}
