"""Addresses at which no API answers: the path, the scheme, the host, the key."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.certificates import Certificate
from tests.support.certificates import certificate as certificate
from tests.support.failed_sessions import error_of
from tests.support.run_fixtures import Project
from tests.support.server.http_server import Server
from tests.support.server.records import Recorder
from tests.support.server.script import Script
from tests.support.server_fixtures import ServerProcess

# None of them waits for a server that is not there.
LIMIT_S = 20
SELECT = ("-k", "test_score")


@contextmanager
def secured(certificate: Certificate) -> Iterator[int]:
    """Serve with TLS alone; give the port."""
    server = Server(0, Script(default="B"), Recorder(None), with_demo_model=False)
    server.socket = certificate.context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def refused(project: Project, url: str, *arguments: str) -> str:
    """Return the usage error at an address, which comes soon."""
    started = time.monotonic()
    text = error_of(project.ask(url, *SELECT, *arguments))
    assert time.monotonic() - started < LIMIT_S
    return text


def advised(text: str) -> str:
    """Return the address that a message gives."""
    (url,) = re.findall(r"--vlm-(?:judge-)?api-base=(\S+)$", text)
    return str(url)


@pytest.mark.parametrize("path", ["api", "v1/models", "v2", "openai.com/x/v1/chat"])
def test_a_wrong_path_under_the_right_host(
    project: Project, server: ServerProcess, path: str
) -> None:
    project.write_math(4)
    server.control(default="B")
    host = server.url.removesuffix("/v1")
    text = refused(project, f"{host}/{path}")
    assert text == (
        f"No API is at {host}/{path}: {host}/{path}/models answered 404 (body: Not "
        f"Found). There is one at {server.url}: give --vlm-api-base={server.url}"
    )
    project.ask(advised(text), *SELECT).assert_outcomes(passed=1)


def test_an_address_that_lists_models_and_answers_nothing(
    project: Project, server: ServerProcess
) -> None:
    """A proxy may know one path and not the other: a few requests tell."""
    project.write_math(40)
    rule = {"status": 404, "shape": "detail", "message": "Not Found"}
    server.control(default="B", rules=[rule])
    result = project.ask(server.url, *SELECT)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    said = (
        f"{server.url}/chat/completions answered 404: body: Not Found. No request was "
        "answered otherwise. Stopping. Give the base URL of the API with "
        "--vlm-api-base; it mostly ends in /v1."
    )
    assert said in result.stdout.str()
    assert len(server.requests()) < 20
    server.control(default="B")
    project.ask(server.url, *SELECT).assert_outcomes(passed=1)


def test_https_where_the_server_speaks_http(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(4)
    server.control(default="B")
    given = server.url.replace("http:", "https:")
    text = refused(project, given)
    assert text == (
        f"The server at {given} speaks http, without TLS. Give "
        f"--vlm-api-base={server.url}"
    )
    project.ask(advised(text), *SELECT).assert_outcomes(passed=1)


def test_http_where_the_server_speaks_https(
    project: Project, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write_math(4)
    with secured(certificate) as port:
        given = f"http://127.0.0.1:{port}/v1"
        text = refused(project, given)
        right = given.replace("http:", "https:")
        assert text == (
            f"The server at {given} speaks https. Give --vlm-api-base={right}"
        )
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate.file))
        project.ask(advised(text), *SELECT).assert_outcomes(passed=1)


def test_a_judge_is_told_of_by_its_own_options(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(4)
    server.control(models=["tiny-vlm", "judge"], default="B")
    wrong = server.url.replace("/v1", "/api")
    judge = ("--vlm-judge=judge", f"--vlm-judge-api-base={wrong}")
    text = refused(project, server.url, *judge)
    assert text.endswith(f"give --vlm-judge-api-base={server.url}")
    judge = ("--vlm-judge=judge", f"--vlm-judge-api-base={advised(text)}")
    assert project.ask(server.url, *SELECT, *judge).ret == 0


def test_a_public_api_that_is_out_of_reach(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(4)
    server.control(default="B")
    text = refused(project, "https://api.example.invalid/v1")
    reached = re.sub(r"\(.*?\)", "(WHY)", text, count=1)
    assert reached == (
        "No server answers at https://api.example.invalid/v1 (WHY). Check the address, "
        "and this machine's access to the internet: `curl "
        "https://api.example.invalid/v1/models` has to answer, and HTTPS_PROXY names a "
        "proxy if one is needed. Or give the URL of another with --vlm-api-base, or "
        "run without a server with --vlm-model=demo."
    )
    project.ask(server.url, *SELECT).assert_outcomes(passed=1)
    if shutil.which("curl"):
        command = shlex.split(text.partition("`")[2].partition("`")[0])
        assert subprocess.run(command, capture_output=True).returncode
        command[-1] = f"{server.url}/models"
        subprocess.run(command, capture_output=True, check=True)


def test_a_key_that_is_missing(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write_math(4)
    server.control(default="B", api_key="sk-one")
    assert refused(project, server.url) == (
        f"The server at {server.url} requires an API key: it answered 400 (API key "
        "error). Set VLM_API_KEY, or give a file that holds the key with "
        "--vlm-api-key-file."
    )
    monkeypatch.setenv("VLM_API_KEY", "sk-two")
    assert refused(project, server.url).startswith(
        f"The server at {server.url} refuses the API key: it answered 400"
    )
    monkeypatch.setenv("VLM_API_KEY", "sk-one")
    project.ask(server.url, *SELECT).assert_outcomes(passed=1)
    monkeypatch.delenv("VLM_API_KEY")
    (project.pytester.path / "key").write_text("sk-one\n")
    given = ("--vlm-api-key-file=key", "--vlm-fresh")
    project.ask(server.url, *SELECT, *given).assert_outcomes(passed=1)
