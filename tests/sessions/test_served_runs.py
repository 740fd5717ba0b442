"""Servers that a run starts: when, where, and that none is left, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.run_fixtures import Project
from tests.support.running import answers, finish, wait_for
from tests.support.server_fixtures import SERVER


class Served:
    """A command that serves, what it writes down, and runs that are given it."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project = project
        self.folder = folder

    def command(self, name: str = "model", **script: object) -> str:
        """Return a command; it is a shell's child, so a process group to be ended."""
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(script))
        # The number of the shell tells which starts there were, and what still lives.
        words = [sys.executable, str(SERVER), "--log", "--script", str(file)]
        # Each of several has a port, and so a file, of its own.
        requests = f"{self.folder}/{name}-requests-$0.jsonl"
        command = f"{shlex.join(words)} --port $0 --requests {requests}"
        line = f"echo $$ >> {self.folder}/{name}-pids; {command}; :"
        return shlex.join(["sh", "-c", line, "{port}"])

    def arguments(self, command: str, *more: str) -> list[str]:
        """Return the arguments of a run with this server."""
        return [
            "--vlm-model=tiny-vlm",
            f"--vlm-serve={command}",
            "--vlm-allow-modified-data",
            "--vlm-retries=2",
            *more,
        ]

    def pids(self, name: str = "model") -> list[int]:
        """Return the shells that were started so far."""
        file = self.folder / f"{name}-pids"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def alive(self) -> list[str]:
        """Return the processes of these servers that still run."""
        listed = subprocess.run(
            ["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True
        )
        return [line for line in listed.stdout.splitlines() if str(self.folder) in line]

    def asked(self, name: str = "model") -> int:
        """Count the questions that all servers of that name were asked."""
        return sum(self.asked_of_each(name))

    def asked_of_each(self, name: str = "model") -> list[int]:
        """Count the questions that each of several servers was asked."""
        return [
            file.read_text().count('"path": "/chat/completions"')
            for file in self.folder.glob(f"{name}-requests-*.jsonl")
        ]


@pytest.fixture
def served(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """Give what serves; whatever a failed test leaves is ended."""
    served = Served(project, tmp_path_factory.mktemp("served"))
    yield served
    for line in served.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGKILL)


def test_it_is_started_once_and_ended_with_the_run(served: Served) -> None:
    served.project.write_math(6)
    command = served.command(default="B")
    result = served.project.run(*served.arguments(command))
    result.stdout.fnmatch_lines(
        [
            "vlmeval: model tiny-vlm on a server of this run, *",
            "vlmeval: Starting sh -c *model-0.log)",
            "vlmeval: Serving at http://127.0.0.1:* after * s",
        ]
    )
    assert served.asked() == 6
    assert len(served.pids()) == 1
    assert not served.alive()
    again = served.project.run(*served.arguments(command))
    assert again.parseoutcomes() == result.parseoutcomes()
    again.stdout.no_fnmatch_line("*Starting*")
    assert len(served.pids()) == 1


def test_it_is_started_to_check_stored_answers(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though none is missing: what it serves may be another checkpoint."""
    monkeypatch.delenv("VLM_REUSE")
    served.project.write_math(8)
    command = served.command(default="B")
    arguments = served.arguments(command, "--vlm-mode=infer")
    assert served.project.run(*arguments).ret == 0
    assert served.asked() == 8
    served.command(default="C")
    result = served.project.run(*arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*of 8 samples that were asked again 8 got another*"])
    assert not served.alive()


def test_workers_share_the_controllers_server(served: Served) -> None:
    served.project.write_math(24)
    result = served.project.run(
        *served.arguments(served.command(default="B"), "-n", "3")
    )
    assert result.parseoutcomes()["passed"] > 12
    result.stdout.fnmatch_lines(["vlmeval: Serving at *"])
    assert len(served.pids()) == 1
    assert served.asked() == 24
    assert not served.alive()


def test_the_judge_has_a_server_of_its_own(served: Served) -> None:
    served.project.write_math(6)
    model = served.command(default="no idea")
    judge = served.command("judge", models=["judge"], default="B")
    result = served.project.run(
        *served.arguments(model, f"--vlm-judge-serve={judge}", "--vlm-judge=judge")
    )
    result.stdout.fnmatch_lines(["*, judge judge on a server of this run, *"])
    assert served.asked("judge") > 0
    assert len(served.pids("judge")) == 1
    assert not served.alive()


def test_collecting_starts_nothing(served: Served) -> None:
    served.project.write_math(2)
    served.project.run(*served.arguments(served.command()), "--collect-only")
    assert not served.pids()


def test_a_command_that_fails_shows_its_log(served: Served) -> None:
    served.project.write_math(2)
    command = "sh -c 'echo no such checkpoint: {port}; exit 3'"
    result = served.project.run(*served.arguments(command))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*The model's server ended with exit status 3. It was started by",
            "    sh -c 'echo no such checkpoint: *; exit 3'",
            "The last lines of its log, */model-0.log:",
            "    no such checkpoint: *",
        ]
    )


def test_a_command_that_does_not_exist(served: Served) -> None:
    served.project.write_math(2)
    result = served.project.run(*served.arguments("swoft deploy --port {port}"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["*ended with exit status 127.*", "    swoft: No such file or directory"]
    )


def test_one_that_never_answers_is_given_up(served: Served) -> None:
    served.project.write_math(2)
    command = f"sh -c 'echo loading; sleep 600 # {served.folder}' {{port}}"
    result = served.project.run(
        *served.arguments(command, "--vlm-serve-timeout=1.5", "-n", "2")
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*could not be asked within 1.5 s (--vlm-serve-timeout gives it more): no "
            "address stands in its log. It was started by",
            "    loading",
        ]
    )
    assert not served.alive()


def kill_server(served: Served) -> None:
    """Kill the server alone, as if it had run out of memory."""
    for line in served.alive():
        if "--port" in line and "sh -c" not in line and "server_watch" not in line:
            os.kill(int(line.split()[0]), signal.SIGKILL)


@pytest.mark.slow
def test_a_killed_server_ends_the_asking_and_the_next_run_goes_on(
    served: Served,
) -> None:
    served.project.write_math(24)
    command = served.command(default="B", latency_s=0.3)
    arguments = served.arguments(command, "--vlm-concurrency=2")
    process = served.project.start(*arguments)
    wait_for(lambda: answers(served.project) >= 4)
    kill_server(served)
    output = finish(process)
    assert process.returncode == pytest.ExitCode.INTERRUPTED
    assert "The model's server ended with exit status 0" in output
    assert "Run the same command again: it starts the server anew" in output
    stored = answers(served.project)
    assert 4 <= stored < 24
    states = served.project.stored("SELECT DISTINCT state FROM answers")
    assert states == [("answered",)]
    served.project.run(*served.arguments(served.command(default="B")))
    assert answers(served.project) == 24
    assert len(served.pids()) == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_no_server_outlives_its_run(
    served: Served, number: signal.Signals, workers: str
) -> None:
    served.project.write_math(24)
    command = served.command(default="B", latency_s=0.5)
    process = served.project.start(
        *served.arguments(command, "--vlm-concurrency=1", "-n", workers)
    )
    wait_for(lambda: answers(served.project) >= 1)
    assert served.alive()
    process.send_signal(number)
    finish(process)
    wait_for(lambda: not served.alive())


@pytest.mark.slow
def test_none_is_left_that_started_others_in_sessions_of_their_own(
    served: Served,
) -> None:
    served.project.write_math(2)
    stray = shlex.join([sys.executable, "-c", STRAY, str(served.folder)])
    inner = served.command(default="B").replace("'{port}'", '"$0"')
    command = shlex.join(["sh", "-c", f"{stray} & {inner}", "{port}"])
    served.project.run(*served.arguments(command))
    assert (served.folder / "stray").exists()
    assert not served.alive()


# Leaves the group and ignores what asks it to end.
STRAY = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.setsid()
pathlib.Path(sys.argv[1], "stray").touch()
time.sleep(600)
"""


def test_several_servers_share_the_questions(served: Served) -> None:
    served.project.write_math(24)
    command = served.command(default="B", latency_s=0.1)
    result = served.project.run(
        *served.arguments(command, "--vlm-serve-replicas=2", "--vlm-concurrency=4")
    )
    result.stdout.fnmatch_lines(
        ["vlmeval: Serving at http://127.0.0.1:*, http://127.0.0.1:* after * s"]
    )
    assert len(served.pids()) == 2
    # Each has two slots, and takes the next question when one is free.
    assert sum(served.asked_of_each()) == 24
    assert min(served.asked_of_each()) >= 8
    assert not served.alive()
