"""Endpoints of a run: several, started ones, those that want something of their own."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_vlmeval.suite.session import Controller
from tests.support.canaries import CANARIES, Watched
from tests.support.canaries import watched as watched
from tests.support.documentation import ROOT, block, read, run_shell
from tests.support.judged_sessions import benchmark, judged_by, write_choices
from tests.support.refusing import ONLY_1, RENAME, refuse
from tests.support.run_fixtures import Project, endpoint
from tests.support.running import answers, finish, wait_for
from tests.support.server_fixtures import SERVER, ServerProcess

HEADERS = {"headers": "canary-header-31b8ee", "query": "canary-query-9904aa"}


class Azure(ThreadingHTTPServer):
    """Answers as a deployment of Azure OpenAI does, and as nothing else."""

    daemon_threads = True
    key = HEADERS["headers"]
    query = "api-version=2024-10-21"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Azure)
        self.bodies: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """The address that stands for RESOURCE.openai.azure.com."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Azure(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Azure

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._error(404, "Resource not found")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        place = f"/openai/deployments/DEPLOYMENT/chat/completions?{self.server.query}"
        if self.path != place:
            self._error(404, f"Resource not found: {self.path}")
        elif self.headers["api-key"] != self.server.key:
            said = f"Access denied due to invalid key {self.headers['api-key']}."
            self._error(401, said)
        elif "max_tokens" in body:
            self._error(400, RENAME)
        else:
            self.server.bodies.append(body)
            message = {"role": "assistant", "content": "B"}
            self._send(
                200, {"choices": [{"message": message, "finish_reason": "stop"}]}
            )

    def _error(self, status: int, message: str) -> None:
        self._send(status, {"error": {"code": str(status), "message": message}})

    def _send(self, status: int, body: Mapping[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def azure() -> Iterator[Azure]:
    """Give a running deployment."""
    server = Azure()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_example_of_azure(
    project: Project, azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of the page, as they stand there but for the address."""
    project.write_math(2)
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", azure.key)
    page = read(ROOT / "docs/endpoints.md")
    command = block(page, "Azure OpenAI").replace(
        "https://RESOURCE.openai.azure.com", azure.url
    )
    command = command.replace(
        "benchmarks/test_mmstar.py", "test_math.py -p no:cacheprovider"
    )
    command = f"{command.rstrip()} --vlm-allow-modified-data"
    done = run_shell(command, project.pytester.path)
    assert done.returncode == 0, done.stdout
    where = f"{azure.url}/openai/deployments/DEPLOYMENT"
    said = " ".join(done.stdout.split())
    assert (
        f"{where}/models answered 404 (Resource not found). A request for 'gpt-4o' was "
        "answered, so that the run goes on."
    ) in said
    assert (
        f"{where} requires max_completion_tokens instead of max_tokens. Using" in said
    )
    assert len(azure.bodies) == 3
    assert {each["model"] for each in azure.bodies} == {"gpt-4o"}
    # A wrong key, and what a server says of it.
    azure.key = "another"
    done = run_shell(f"{command} --vlm-fresh", project.pytester.path)
    assert done.returncode == 4, done.stdout
    assert "answered 401 (Access denied due to invalid key ***.)" in done.stdout
    assert HEADERS["headers"] not in done.stdout


def test_the_example_of_azure_as_a_judge(
    project: Project, azure: Azure, server: ServerProcess
) -> None:
    """The judge's command of the page; it is asked what the model left open."""
    server.control(models=["qwen2-vl"], default="I do not know")
    project.write_math(2)
    (project.pytester.path / "azure.headers").write_text(f"api-key: {azure.key}\n")
    page = read(ROOT / "docs/endpoints.md")
    command = block(page, "Azure OpenAI", number=1).replace(
        "https://RESOURCE.openai.azure.com", azure.url
    )
    command = command.replace("benchmarks/test_mmvet.py", "test_math.py")
    options = f"--vlm-api-base={server.url} --vlm-allow-modified-data"
    done = run_shell(f"{command.rstrip()} {options}", project.pytester.path)
    assert done.returncode == 0, done.stdout
    assert azure.bodies[0]["messages"][-1]["content"] == "Hi"
    assert len(azure.bodies) > 1
    assert "--vlm-judge-max-tokens-name=max_completion_tokens" in done.stdout


def refusing() -> list[dict[str, object]]:
    """Give the rules of a server with OpenAI's reasoning model behind it."""
    return [refuse("max_tokens", RENAME), refuse("temperature", ONLY_1)]


@pytest.mark.parametrize("media_check", ["stop", "off"])
def test_a_model_that_takes_no_temperature(
    project: Project, server: ServerProcess, media_check: str
) -> None:
    """It is refused with the option that asks it, and asked with that option."""
    server.control(default="B", rules=refusing())
    project.write_math(4)
    ask = [*endpoint(server.url), f"--vlm-media-check={media_check}"]
    result = project.run(*ask)
    # Not one request for each sample, and nothing is recorded as failed.
    assert result.ret != 0
    said = " ".join(result.stdout.str().split() + result.stderr.str().split())
    assert f"{server.url} refuses temperature=0: {ONLY_1}" in said
    assert "Set --vlm-temperature=none to leave it out" in said
    assert project.stored("SELECT 1 FROM answers WHERE state != 'claimed'") == []
    asked = len(server.requests())
    if media_check == "stop":
        assert (asked, int(result.ret)) == (2, 4)

    result = project.run(
        *ask, "--vlm-temperature=none", "-n", "2", "--vlm-export=out", timeout_s=200
    )
    result.assert_outcomes(passed=3, xfailed=2)
    new = server.requests()[asked:]
    renamed = [dict(each["params"]) for each in new if "Q" in str(each["text"])]  # type: ignore[call-overload]
    assert {"max_completion_tokens": 2048} in renamed
    if media_check == "stop":
        # One process found it out for both.
        assert renamed == [{"max_completion_tokens": 2048}] * 4
    path = project.pytester.path / "out" / "results.json"
    settings = json.loads(path.read_text())["run"]["settings"]
    assert settings["temperature"] is None
    assert settings["max_tokens"] == 2048


def test_a_judge_that_takes_no_temperature(
    project: Project, server: ServerProcess, vlm_server: Any
) -> None:
    server.control(default="I do not know")
    judge = vlm_server(models=["gpt-5"], judge="good", rules=refusing())
    project.write_math(2)
    options = ["--vlm-judge=gpt-5", f"--vlm-judge-api-base={judge.url}"]
    result = project.ask(server.url, *options)
    assert result.ret != 0
    said = " ".join(result.stdout.str().split())
    assert "Set --vlm-judge-temperature=none to leave it out" in said
    assert len(judge.requests()) <= 8

    before = len(judge.requests())
    result = project.ask(server.url, *options, "--vlm-judge-temperature=none")
    assert "judge gpt-5 (temperature=none)" in result.stdout.str()
    assert "refuses temperature" not in result.stdout.str()
    sent = [dict(each["params"]) for each in judge.requests()[before:]]
    assert sent
    assert all("temperature" not in each for each in sent)
    assert "max_completion_tokens" in sent[-1]
    named = project.stored(
        "SELECT DISTINCT judge FROM exchanges WHERE text IS NOT NULL"
    )
    assert named == [("gpt-5 (temperature=none)",)]


def test_a_list_that_says_nothing_stops_no_run(
    project: Project, server: ServerProcess
) -> None:
    """The line comes once, however many processes look."""
    rule = {"path": "/models", "body": {"object": "list", "data": None}}
    server.control(default="B", rules=[rule])
    project.write_math(4)
    result = project.ask(server.url, "-n", "2")
    result.assert_outcomes(passed=3, xfailed=2)
    assert result.stdout.str().count("was answered, so that the run goes on.") == 1


def test_no_byte_of_a_run_holds_a_header_or_a_query(
    project: Project,
    watched: Watched,
    server: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All is said, logged and written that can be, and the server repeats them."""
    monkeypatch.setitem(CANARIES, "header", HEADERS["headers"])
    monkeypatch.setitem(CANARIES, "query", HEADERS["query"])
    said = f"no {HEADERS['headers']} nor {HEADERS['query']}"
    rules = [
        {"contains": "<1>", "status": 400, "shape": "openai", "message": said},
        {"contains": "<2>", "fault": "reset"},
        {"contains": "<3>", "status": 307, "location": f"http://x.invalid/?{said}"},
    ]
    server.control(default="B", rules=rules)
    project.write_math(4)
    file = watched.keys / "headers.key"
    file.write_text(f"api-key: {HEADERS['headers']}\n")
    output, leaked = watched.run(
        *endpoint(server.url),
        *("-vv", "-rA", "-l", "--debug", "--log-level=DEBUG", "--log-file=run.log"),
        *("-o", "log_cli=true", "--log-cli-level=DEBUG", "--vlm-judge=tiny-vlm"),
        *(f"--vlm-judge-api-base={server.url}", "--vlm-export=out", "-n", "0"),
        f"--vlm-api-header-file={file}",
        f"--vlm-judge-api-header-file={file}",
        environ={
            "OPENAI_LOG": "debug",
            "VLM_API_QUERY": f"k={HEADERS['query']}",
            "VLM_JUDGE_API_QUERY": f"k={HEADERS['query']}",
        },
    )
    assert "answered 400: no *** nor ***" in output
    assert "redirects to http://x.invalid" in output
    assert server.requests()[-1]["query"] == f"k={HEADERS['query']}"
    assert not leaked, leaked


StartServer = Callable[..., ServerProcess]

USAGE = "[0-9]* tokens in and [0-9]* out, p50/p95/p99 [0-9]*/[0-9]*/[0-9]* ms"


@pytest.mark.slow
def test_a_judge_with_several_endpoints(
    project: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    write_choices(project)
    server.control(default="pick number 1")
    # Each question takes so long that the other endpoint is the less loaded one.
    judges = [vlm_server(judge="good", models=["judge"], latency_s=2) for _ in "12"]
    bases = [f"--vlm-judge-api-base={judge.url}" for judge in judges]
    result = project.ask(server.url, "--vlm-judge=judge", *bases)
    result.assert_outcomes(passed=5)
    asked = [str(each["text"]) for judge in judges for each in judge.requests()]
    assert len(set(asked)) == len(asked) == 4
    assert all(judge.requests() for judge in judges)
    # The same judge at other addresses: nothing is asked again.
    result = project.ask(server.url, "--vlm-judge=judge", bases[1])
    result.assert_outcomes(passed=5)
    assert sum(len(judge.requests()) for judge in judges) == 4


def test_a_judge_goes_on_without_one_of_its_endpoints(
    project: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    write_choices(project)
    server.control(default="pick number 1")
    good, bad = (vlm_server(judge="good", models=["judge"]) for _ in "12")
    bad.kill()
    arguments = ["--vlm-judge=judge", f"--vlm-judge-api-base={bad.url},{good.url}"]
    result = project.ask(server.url, *arguments)
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines([f"vlmeval: goes on without an endpoint. *{bad.url}*"])
    assert len(good.requests()) == 4


@pytest.mark.parametrize(
    "workers",
    [[], pytest.param(["-n", "2"], marks=pytest.mark.slow)],
    ids=["one", "xdist"],
)
def test_a_model_goes_on_without_one_of_its_endpoints(
    project: Project,
    server: ServerProcess,
    vlm_server: StartServer,
    workers: list[str],
) -> None:
    project.write_math(4)
    server.control(default="B")
    bad = vlm_server()
    bad.kill()
    result = project.ask(server.url, f"--vlm-api-base={bad.url}", *workers)
    result.assert_outcomes(passed=3, xfailed=2)
    # Said once, though each process finds it out.
    said = [line for line in result.outlines if "goes on without an endpoint" in line]
    assert len(said) == 1
    assert said[0].startswith("vlmeval: ")
    assert bad.url in said[0]
    assert len(server.requests()) == 4


def test_the_summary_tells_the_totals_and_the_report_each_dataset(
    project: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    for name in ("MMStar", "AI2D_TEST"):
        write_choices(project, name)
    # Other questions than the first has: the same is not asked of a judge twice.
    table = project.data_root / "AI2D_TEST.tsv"
    table.write_text(table.read_text().replace("Which", "What"))
    project.pytester.makepyfile(test_choices=benchmark('MMStar", "AI2D_TEST'))
    server.control(default="pick number 1")
    judge = vlm_server(judge="good", models=["judge"])
    report = project.pytester.path / "report.html"
    result = project.ask(server.url, *judged_by(judge), f"--vlm-report={report}")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [f"asked: 8 requests, {USAGE}", f"judge judge: 8 requests, {USAGE}"]
    )
    result.stdout.no_fnmatch_line(f"*4 requests, {USAGE}")
    page = report.read_text(encoding="utf-8")
    for name in ("MMStar", "AI2D_TEST"):
        for asked in ("", " (judge)"):
            assert f"<b>{name}</b>{asked}: 4 requests, " in page


class SlowLine(str):
    """A line that takes so long to be looked up that threads meet."""

    __slots__ = ()

    def __hash__(self) -> int:
        time.sleep(0.05)
        return super().__hash__()


def test_what_all_workers_find_out_at_once_is_said_once() -> None:
    said: list[str] = []
    listening: list[Callable[[str], None]] = []

    def set_callback(hear: Callable[[str], None], endmarker: None) -> None:
        listening.append(hear)

    channel = SimpleNamespace(setcallback=set_callback)
    controller = Controller("session", said.append)
    for _ in range(4):
        gateway = SimpleNamespace(newchannel=lambda: channel)
        node = SimpleNamespace(workerinput={}, gateway=gateway)
        controller.pytest_configure_node(node)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda say: say(SlowLine("gone")), listening))
    assert said == ["gone"]


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
