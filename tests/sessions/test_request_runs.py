"""Endpoints that want something of their own, in sessions as users start them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support.canaries import CANARIES, Watched
from tests.support.canaries import watched as watched
from tests.support.documentation import ROOT, block, read, run_shell
from tests.support.refusing import ONLY_1, RENAME, refuse
from tests.support.run_fixtures import Project, endpoint
from tests.support.server_fixtures import ServerProcess

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
