"""Keys and passwords: a run with canaries, and a search of every byte it wrote."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_vlmeval.settings.sources import pytest_sources
from tests.support.canaries import CANARIES, Watched, forms, leaks
from tests.support.canaries import watched as watched
from tests.support.file_server import FileServer
from tests.support.run_fixtures import Project, endpoint
from tests.support.server_fixtures import ServerProcess
from tests.support.task_files import swift_task, write_task

# All that pytest, xdist, openai and asyncio can be told to say.
VERBOSE = [
    *("-vv", "-rA", "-l", "--tb=long", "--debug", "-o", "log_cli=true"),
    *("--log-cli-level=DEBUG", "--log-level=DEBUG", "--log-file=run.log"),
    *("--log-file-level=DEBUG", "--durations=0", "--setup-show", "--junitxml=run.xml"),
    *("-o", "junit_logging=all"),
]
LOUD = {
    "OPENAI_LOG": "debug",
    "EXECNET_DEBUG": "1",
    "PYTHONASYNCIODEBUG": "1",
    "HF_DEBUG": "1",
}
FAILING = """
import asyncio
import logging

import pytest
from pytest_vlmeval import Benchmark
from pytest_vlmeval.models.open import create_judge_pool, create_pool
from pytest_vlmeval.models.pool import Concurrency
from pytest_vlmeval.settings import load_from
from pytest_vlmeval.settings.sources import pytest_sources

logging.getLogger().setLevel(logging.DEBUG)
ONE = Concurrency(1, adaptive=False)


def client_of(settings):
    return create_pool(settings, ONE).endpoints[0].client


class TestMath(Benchmark):
    datasets = ["MathVision_MINI"]


@pytest.mark.vlm("MathVision_MINI")
def test_a_failure_with_all_in_sight(vlm_sample, vlm_judge, request):
    settings = vlm_judge, vlm_sample, request.config.stash, vars(vlm_judge)
    known = list(request.config.stash._storage.values())
    parts = [vars(each) for each in known if hasattr(each, "__dict__")]
    assert vlm_sample.answer.text == settings, parts


@pytest.mark.vlm("MathVision_MINI")
def test_a_bug_in_a_call(vlm_judge):
    vlm_judge.score("Q?", "A", scale=object(), rubric="r")


@pytest.mark.vlm("MathVision_MINI")
def test_a_bug_in_the_client(request):
    settings = load_from(pytest_sources(request.config))
    client = client_of(settings)
    judge = create_judge_pool(settings, settings.judges[0], ONE).endpoints[0].client
    clients = [vars(client), vars(judge), vars(client._reader), client._headers]
    asyncio.run(client.ask(clients))


@pytest.mark.vlm("MathVision_MINI")
def test_a_bug_below_the_client(request, vlm_sample):
    from pathlib import Path

    from pytest_vlmeval.models.client import Request

    client = client_of(load_from(pytest_sources(request.config)))
    client._headers["Content-Type"] = object()
    asyncio.run(client.ask(Request(turns=((),), media_folder=Path())))
"""


def test_the_search_finds_a_leak_in_any_form() -> None:
    for name, secret in CANARIES.items():
        for form in forms(secret):
            assert leaks({"a file": b"x" * 99 + form + b"y"})[0].startswith(
                f"a file: {name}: b'xxx"
            ) or leaks({"a file": form})
    assert leaks({"a file": b"canary"}) == []


def test_what_a_session_was_given_shows_no_variable(pytester: pytest.Pytester) -> None:
    given = pytest_sources(pytester.parseconfig(), {"VLM_API_KEY": CANARIES["key"]})
    assert given.variables["VLM_API_KEY"] == CANARIES["key"]
    assert CANARIES["key"] not in repr(given)


def echoing(secret: str) -> list[dict[str, object]]:
    """Give rules by which a server fails now and then and repeats the key."""
    said = f"Incorrect API key provided: {secret}. Authorization: Bearer {secret}"
    return [
        {"contains": f"<{number}>", "status": 400, "shape": shape, "message": said}
        for number, shape in enumerate(("swift", "openai", "detail", "plain"), start=1)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["0", "2"])
def test_no_byte_of_a_run_holds_a_key(
    project: Project,
    watched: Watched,
    vlm_server: Callable[..., ServerProcess],
    processes: str,
) -> None:
    key, judge_key = CANARIES["key"], CANARIES["judge"]
    server = vlm_server(api_key=key, default="I do not know", rules=echoing(key))
    judge = vlm_server(
        api_key=judge_key, models=["judge"], judge="good", rules=echoing(judge_key)
    )
    project.write_math(10)
    project.pytester.makepyfile(test_math=FAILING)
    output, leaked = watched.run(
        *endpoint(server.url),
        *VERBOSE,
        *("-n", processes),
        f"--vlm-judge-api-key-file={watched.key_file('judge')}",
        *("--vlm-judge=judge", f"--vlm-judge-api-base={judge.url}"),
        environ={
            **LOUD,
            "VLM_API_KEY": key,
            "OPENAI_API_KEY": CANARIES["openai"],
            "HF_TOKEN": CANARIES["hub"],
        },
    )
    # It was a run with answers, refusals, and each of the failures.
    assert server.requests()
    assert judge.requests()
    assert "Incorrect API key provided: ***" in output
    for name in (
        "failure_with_all_in_sight",
        "bug_in_a_call",
        "bug_in_the_client",
        "bug_below_the_client",
    ):
        assert f"FAILED test_math.py::test_a_{name}" in output
    assert "ImportError" not in output
    assert "NameError" not in output
    assert not leaked, leaked


@pytest.mark.slow
def test_no_byte_of_a_run_of_a_task_file_holds_its_keys(
    project: Project, watched: Watched, vlm_server: Callable[..., ServerProcess]
) -> None:
    key, judge_key = CANARIES["key"], CANARIES["judge"]
    server = vlm_server(api_key=key, default="I do not know", rules=echoing(key))
    judge = vlm_server(api_key=judge_key, models=["judge"], judge="good")
    project.write_math(10)
    project.pytester.makepyfile(test_math=FAILING)
    task = swift_task(
        model={"type": "tiny-vlm", "api_base": server.url, "key": key, "retry": 1},
        limit=None,
        judge="judge",
        judge_base_url=judge.url,
        judge_key=judge_key,
    )
    # Beside what is searched, as it holds the keys.
    path = write_task(watched.keys / "task.yaml", task)
    output, leaked = watched.run(
        f"--vlm-config={path}",
        "--vlm-allow-modified-data",
        *VERBOSE,
        *("-n", "2", "test_math.py"),
        environ={**LOUD, "VLM_API_KEY": CANARIES["openai"]},
    )
    assert server.requests()
    assert judge.requests()
    assert "task.yaml counts, not VLM_API_KEY" in output
    assert "FAILED test_math.py::test_a_failure_with_all_in_sight" in output
    assert not leaked, leaked


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_refused_key_is_not_shown(
    project: Project,
    watched: Watched,
    vlm_server: Callable[..., ServerProcess],
    processes: str,
) -> None:
    said = f"Incorrect API key provided: {CANARIES['key']}"
    rule = {"path": "/models", "status": 401, "shape": "openai", "message": said}
    server = vlm_server(rules=[rule])
    project.write_math(2)
    output, leaked = watched.run(
        *endpoint(server.url),
        *VERBOSE,
        *("-n", processes, f"--vlm-api-key-file={watched.key_file('key')}"),
        environ=LOUD,
    )
    assert "Incorrect API key provided: ***" in output
    assert not leaked, leaked


def with_password(url: str, name: str = "password") -> str:
    """Put a user and a password into a URL."""
    return url.replace("://", f"://user:{CANARIES[name]}@")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--vlm-api-base", "carries a user, a query or a fragment"),
        ("--vlm-judge-api-base", "carries a user, a query or a fragment"),
    ],
)
def test_the_password_of_a_server_s_url_is_not_shown(
    project: Project, watched: Watched, server: ServerProcess, option: str, words: str
) -> None:
    project.write_math(2)
    bases = {
        "--vlm-api-base": server.url,
        "--vlm-judge-api-base": server.url,
        option: with_password(server.url),
    }
    output, leaked = watched.run(
        *("--vlm-model=tiny-vlm", "--vlm-judge=tiny-vlm", "--vlm-allow-modified-data"),
        *VERBOSE,
        environ={name[2:].replace("-", "_").upper(): it for name, it in bases.items()},
    )
    assert words in output
    assert not leaked, leaked


def test_a_mirror_with_a_password_is_refused_without_showing_it(
    project: Project, watched: Watched, server: ServerProcess, file_server: FileServer
) -> None:
    project.write_math(2)
    output, leaked = watched.run(
        *endpoint(server.url),
        *VERBOSE,
        environ={**LOUD, "VLM_DATA_MIRROR": with_password(file_server.url)},
    )
    assert (
        f"VLM_DATA_MIRROR={file_server.url.replace('://', '://user:***@')} is not "
        "accepted: --vlm-data-mirror takes an http or https URL without a password, or "
        "a folder that exists."
    ) in output
    assert not file_server.requests
    assert not leaked, leaked


def test_the_password_of_a_hub_s_mirror_is_not_shown(
    project: Project, watched: Watched, server: ServerProcess, file_server: FileServer
) -> None:
    project.pytester.makepyfile(
        test_video=FAILING.replace("MathVision_MINI", "Video-MME_8frame")
    )
    output, leaked = watched.run(
        *endpoint(server.url),
        *VERBOSE,
        environ={
            **LOUD,
            "HF_TOKEN": CANARIES["hub"],
            "HF_ENDPOINT": with_password(file_server.url),
            "VLMEVALKIT_USE_MODELSCOPE": "0",
        },
    )
    assert "Video-MME_8frame" in output
    assert not leaked, leaked


@pytest.mark.slow
def test_the_password_of_a_database_is_not_shown(
    project: Project, watched: Watched, server: ServerProcess
) -> None:
    project.write_math(2)
    output, leaked = watched.run(
        *endpoint(server.url),
        *VERBOSE,
        environ={"VLM_STORE": with_password("postgresql://127.0.0.1:9/vlmeval")},
    )
    assert "postgresql://user:***@127.0.0.1:9/vlmeval" in output
    assert not leaked, leaked


def test_the_password_of_a_proxy_is_not_shown(
    project: Project, watched: Watched, file_server: FileServer
) -> None:
    project.write_math(2)
    proxy = with_password(file_server.url, "proxy").removesuffix("/")
    output, leaked = watched.run(
        *endpoint("http://model.invalid/v1"),
        *VERBOSE,
        environ={**LOUD, "http_proxy": proxy, "https_proxy": proxy, "no_proxy": ""},
    )
    assert "No server" in output or "model.invalid" in output
    assert not leaked, leaked
