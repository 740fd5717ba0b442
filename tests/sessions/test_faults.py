"""Bad servers and interruptions: the same command finishes, with the same answers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from tests.support.run_fixtures import Project, endpoint
from tests.support.running import answers, finish, wait_for
from tests.support.server_fixtures import ServerProcess

pytestmark = pytest.mark.slow

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
