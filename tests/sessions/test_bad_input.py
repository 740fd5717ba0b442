"""What a user can get wrong, and the sentence each mistake is answered with."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_vlmeval import evaluate
from tests.support.certificates import Certificate
from tests.support.certificates import certificate as certificate
from tests.support.failed_sessions import error_of, message_of
from tests.support.failed_sessions import small_disk as small_disk
from tests.support.run_fixtures import Project, endpoint, math_rows, write_table
from tests.support.server.http_server import Server
from tests.support.server.records import Recorder
from tests.support.server.script import Script
from tests.support.server_fixtures import ServerProcess


def write_other(project: Project, datasets: list[str]) -> None:
    """Write a second benchmark, of these datasets."""
    project.pytester.makepyfile(
        test_other=f"""
        from pytest_vlmeval import Benchmark

        class TestOther(Benchmark):
            datasets = {datasets}
        """
    )


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
@pytest.mark.parametrize("is_there", [True, False])
def test_no_model(project: Project, workers: list[str], is_there: bool) -> None:
    """Nothing is downloaded first."""
    project.write_math(2)
    if not is_there:
        (project.data_root / "MathVision_MINI.tsv").unlink()
    result = project.run("--vlm-allow-modified-data", *workers)
    assert error_of(result) == (
        "No model was named. Give --vlm-model=NAME, the name an OpenAI-compatible "
        "endpoint serves it under (see --vlm-api-base), or --vlm-model=demo for the "
        "tiny model that ships with the plugin."
    )
    assert "download" not in result.stdout.str()


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
def test_a_bad_value_is_one_line_without_a_model_too(
    project: Project, workers: list[str]
) -> None:
    """Settings are then read only when a test over datasets is collected."""
    project.write_math(2)
    result = project.run("--vlm-level=1", *workers)
    assert error_of(result) == (
        "--vlm-level=1 is not accepted: --vlm-level takes a confidence: a number from "
        "0.5 to below 1."
    )
    assert "ERROR collecting" not in result.stdout.str()


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
def test_no_server_at_the_url(project: Project, workers: list[str]) -> None:
    project.write_math(2)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        result = project.ask(url, *workers)
    text = error_of(result)
    assert url in text
    assert "swift deploy --model" in text
    assert "--served_model_name tiny-vlm" in text
    assert "--vlm-model=demo" in text


@pytest.mark.slow
def test_a_server_that_never_answers_is_given_up_within_seconds(
    project: Project,
) -> None:
    project.write_math(2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        project.run("--vlm-allow-modified-data", "--collect-only")  # prepares
        started = time.monotonic()
        text = error_of(project.ask(url))
        took_s = time.monotonic() - started
    assert "within 5 s" in text
    assert took_s < 100  # a request may take 300


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
def test_a_model_that_is_not_served(
    project: Project, server: ServerProcess, workers: list[str]
) -> None:
    project.write_math(2)
    server.control(models=["qwen-vl-chat", "qwen2-vl"])
    result = project.ask(server.url, *workers)
    text = error_of(result)
    assert "'tiny-vlm'" in text
    assert "qwen-vl-chat, qwen2-vl" in text
    assert "samples  answered" not in result.stdout.str()
    # A list is no proof: each process asks for the name once before it gives up.
    asked = server.requests()
    assert 1 <= len(asked) <= (2 if workers else 1)
    sent = [each["params"] for each in asked]
    assert all(each == {"max_tokens": 16, "temperature": 0} for each in sent)


def test_a_key_that_is_refused(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write_math(2)
    server.control(
        api_key="right",
        rules=[{"path": "/models", "status": 401, "message": "bad key"}],
    )
    monkeypatch.setenv("VLM_API_KEY", "canary-key-0815")
    result = project.ask(server.url)
    text = error_of(result)
    assert "401" in text
    assert "VLM_API_KEY" in text
    everything = result.stdout.str() + result.stderr.str()
    assert "canary-key-0815" not in everything
    for file in project.pytester.path.rglob("*"):
        assert not file.is_file() or b"canary-key-0815" not in file.read_bytes()


def test_a_name_in_vlm_data_that_no_benchmark_has(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(2)
    result = project.ask(server.url, "--vlm-data=MathVision_MIN")
    assert error_of(result) == (
        "--vlm-data=MathVision_MIN: no selected benchmark has this dataset. Did you "
        "mean MathVision_MINI? The selected benchmarks have: MathVision_MINI. A "
        "benchmark with datasets = ['*'], as benchmarks/test_named.py, takes any."
    )
    write_table(project.data_root / "MathVision.tsv", math_rows(2))
    write_other(project, ["*"])
    result = project.ask(server.url, "--vlm-data=MathVision_MINI,MathVision")
    result.assert_outcomes(passed=4, xfailed=2, deselected=2)
    assert len(server.requests()) == 4


def test_an_unknown_dataset_is_one_failed_item(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(2)
    write_other(project, ["MMStarr"])
    result = project.ask(server.url)
    result.assert_outcomes(passed=2, xfailed=1, failed=1, deselected=3)
    assert "Did you mean MMStar or" in message_of(result, "Unknown dataset: 'MMStarr'.")


def test_a_dataset_that_cannot_be_downloaded(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(2)
    write_other(project, ["MMStar"])
    result = project.ask(server.url, "--vlm-offline")
    result.assert_outcomes(passed=2, xfailed=1, failed=1, deselected=3)
    text = message_of(result, "MMStar: its file is missing and cannot be downloaded")
    assert "--vlm-offline is set" in text
    assert f"Put the file at {project.data_root / 'MMStar.tsv'}" in text


def test_a_dataset_nobody_selected_is_not_looked_for(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(2)
    write_other(project, ["MMStar", "MMBench"])
    for arguments in (
        ["-k", "TestMath and not test_no_regression"],
        ["--vlm-data=MathVision_MINI"],
    ):
        result = project.ask(server.url, "--vlm-offline", *arguments)
        result.assert_outcomes(
            passed=2, xfailed=1, deselected=result.parseoutcomes()["deselected"]
        )


def test_another_checksum_is_refused_unless_allowed(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(2)
    table = project.data_root / "MathVision_MINI.tsv"
    checksum = hashlib.md5(table.read_bytes(), usedforsecurity=False).hexdigest()
    arguments = [each for each in endpoint(server.url) if "modified" not in each]
    result = project.run(*arguments)
    result.assert_outcomes(failed=1, deselected=2)
    text = message_of(result, "MathVision_MINI: ")
    assert text == (
        f"MathVision_MINI: {table} is not the published file: its MD5 is {checksum}, "
        "the published one 060fe4fa5d868987ce179307bd5f8a33. Remove it to have it "
        "downloaded again, or evaluate it as it is with --vlm-allow-modified-data; its "
        "score is then marked as modified."
    )
    assert project.ask(server.url).ret == 0


def test_an_unreadable_image_fails_its_sample_alone(
    project: Project, server: ServerProcess
) -> None:
    rows = math_rows(4)
    rows[1]["image"] = "not base64!" * 10
    rows[2]["image"] = rows[2]["image"][: len(rows[2]["image"]) // 2 // 4 * 4]
    project.write_math(4, rows)
    server.control(default="B")
    result = project.ask(server.url)
    result.assert_outcomes(passed=1, xfailed=1, failed=3)
    for index in (2, 3):
        start = f"MathVision_MINI-{index} has no usable answer: "
        assert "image" in message_of(result, start)
    assert {request["text"] for request in server.requests()} == {
        "Question <1>?",
        "Question <4>?",
    }


def test_a_bad_keyword_is_left_to_pytest(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(2)
    result = project.ask(server.url, "-k", "((")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_full_disk_stops_the_run_and_keeps_the_answers(
    project: Project, server: ServerProcess, small_disk: Path
) -> None:
    project.write_math(12)
    # 100 kB an answer, nearly all of it blank: the disk is full after a few.
    server.control(default="B" + " " * 100_000)
    arguments = ["--vlm-concurrency=1", f"--vlm-work-dir={small_disk}"]
    result = project.ask(server.url, *arguments)
    assert result.ret == 1
    text = message_of(result, f"The run store in {small_disk} cannot be used: ")
    assert re.search(r"full\. Free some space, or choose another folder", text)
    assert "answers that were recorded are kept" in text
    asked = len(server.requests())
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert "During handling" not in result.stdout.str()
    project.ask(server.url, *arguments).assert_outcomes(passed=7, xfailed=6)
    assert asked < len(server.requests()) < asked + 12


def test_a_work_dir_that_cannot_be_written(
    project: Project, server: ServerProcess, small_disk: Path
) -> None:
    project.write_math(2)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    folder = small_disk / "runs"
    result = project.ask(server.url, f"--vlm-work-dir={folder}")
    assert error_of(result) == (
        f"The run store in {folder} cannot be used: [Errno 30] Read-only file system: "
        f"'{folder}'. Make it writable, or choose another folder with --vlm-work-dir, "
        "then run the same command again: answers that were recorded are kept."
    )


def test_a_stored_run_in_a_folder_that_became_read_only(
    project: Project, server: ServerProcess, small_disk: Path
) -> None:
    project.write_math(2)
    work_dir = f"--vlm-work-dir={small_disk}"
    project.ask(server.url, work_dir)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    text = error_of(project.ask(server.url, work_dir))
    assert text.startswith(f"The run store in {small_disk} cannot be used: ")
    assert "Make it writable, or choose another folder" in text


@pytest.mark.slow
def test_a_server_that_dies_fails_the_rest_and_the_next_run_goes_on(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(6)
    server.control(default="B", rules=[{"after": 2, "fault": "reset"}])
    result = project.ask(server.url, "--vlm-concurrency=1", "--vlm-retries=0")
    result.assert_outcomes(passed=1, xfailed=1, failed=5)
    assert "connection" in message_of(
        result, "MathVision_MINI-3 has no usable answer: "
    )
    server.control(default="B")
    project.ask(server.url).assert_outcomes(passed=4, xfailed=3)
    assert len(server.requests()) == 4


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


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--vlm-apibase=URL", "--vlm-api-base"),
        ("--vlm-api_base=URL", "--vlm-api-base"),
        ("--vlm-modle=m", "--vlm-mode or --vlm-model"),
        ("--vlm-docter", "--vlm-doctor"),
        ("--vlm-zzz", ""),
    ],
)
def test_an_option_that_is_misspelt(project: Project, given: str, meant: str) -> None:
    flag = given.partition("=")[0]
    question = f" Did you mean {meant}?" if meant else ""
    result = project.run("--vlm-model=tiny-vlm", given)
    assert error_of(result) == (
        f"There is no option {flag}.{question} `pytest --help` lists those that begin "
        "with --vlm-."
    )
    if meant:
        shown = project.run("--help").stdout.str()
        assert set(meant.split(" or ")) <= set(re.findall(r"--vlm-[a-z-]+", shown))


def test_an_option_of_ones_own_conftest_is_none_of_ours(project: Project) -> None:
    project.pytester.makeconftest(
        "def pytest_addoption(parser):\n"
        "    parser.addoption('--vlm-own', action='store_true')\n"
    )
    project.pytester.makepyfile("def test_it(pytestconfig):\n    assert True\n")
    project.run("--vlm-own").assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one", "xdist"])
@pytest.mark.parametrize(
    ("expression", "meant"),
    [
        ("MathVison_MINI", "MathVision_MINI"),
        ("'test_score and MathVision_MINI-99'", ""),
    ],
)
def test_a_keyword_that_matches_nothing(
    project: Project,
    server: ServerProcess,
    workers: Sequence[str],
    expression: str,
    meant: str,
) -> None:
    project.write_math(4)
    server.control(default="B")
    result = project.ask(server.url, "-k", expression.strip("'"), *workers)
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    meant = meant or "MathVision_MINI"
    line = (
        f"vlmeval: -k {expression} matches no test. Did you mean {meant}? It selects "
        "by the names of datasets, which `pytest --vlm-list` lists, and of tests: "
        "test_sample, test_score and test_no_regression."
    )
    assert result.outlines.count(line) == 1
    assert not server.requests()
    # What it says.
    assert meant in project.run("--vlm-list").stdout.str().split()
    project.ask(server.url, "-k", meant, *workers).assert_outcomes(passed=4, xfailed=2)


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one", "xdist"])
def test_options_that_together_select_nothing(
    project: Project, server: ServerProcess, workers: Sequence[str]
) -> None:
    project.write_math(4)
    server.control(default="B")
    data = "--vlm-data=MathVision_MINI"
    for options, line in (
        (
            ["-k", "MMStar", data],
            f"-k MMStar selects no test of {data}. A test runs only if each of these "
            "options selects it: leave one out.",
        ),
        (
            ["-k", "MathVision_MINI", "-m", "core", data],
            f"-k MathVision_MINI and -m core select no test of {data}. A test runs "
            "only if each of these options selects it: leave one out.",
        ),
        (
            ["-k", "", "-m", "core"],
            "-m core selects no test. `pytest --markers` lists what -m selects by.",
        ),
    ):
        result = project.ask(server.url, *options, *workers)
        assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
        assert result.outlines.count(f"vlmeval: {line}") == 1
    assert not server.requests()
    # What it says.
    assert "@pytest.mark.core" in project.run("--markers").stdout.str()
    project.ask(server.url, data, *workers).assert_outcomes(passed=3, xfailed=2)


def test_a_variable_that_is_misspelt(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is like none of ours is another tool's."""
    project.write_math(4)
    server.control(default="B")
    monkeypatch.setenv("VLM_LIMTI", "2")
    monkeypatch.setenv("VLM_COLOUR", "red")
    monkeypatch.setenv("VLM_JUDGE_API_KEY", "sk-1")
    line = "the variable VLM_LIMTI has no effect. Did you mean VLM_LIMIT?"
    for workers in ((), ("-n", "2")):
        result = project.ask(server.url, "-k", "test_score", *workers)
        assert result.outlines.count(f"vlmeval: {line}") == 1
        assert "COLOUR" not in result.stdout.str()
    doctor = project.run("--vlm-doctor", "--vlm-model=demo")
    assert line in doctor.stdout.str()
    told: list[str] = []
    evaluate("demo", "DemoOpen", limit=1, progress=told.append)
    assert told.count(line) == 1
    # As it says.
    monkeypatch.setenv("VLM_LIMIT", "2")
    monkeypatch.delenv("VLM_LIMTI")
    result = project.ask(server.url, "-k", "test_sample")
    result.assert_outcomes(passed=1, xfailed=1, deselected=2)
    assert "has no effect" not in result.stdout.str()


def test_the_model_s_variable_may_be_the_misspelt_one(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write_math(4)
    monkeypatch.setenv("VLM_MODLE", "tiny-vlm")
    result = project.run()
    assert error_of(result).startswith("No model was named.")
    result.stdout.fnmatch_lines(
        [
            "vlmeval: the variable VLM_MODLE has no effect. Did you mean VLM_MODE or "
            "VLM_MODEL?"
        ]
    )


SECOND_WITHOUT_A_SERVER = """
import os

def pytest_configure(config):
    if getattr(config, "workerinput", {}).get("workerid") == "gw1":
        os.environ["VLM_API_BASE"] = "http://127.0.0.1:9/v1"
"""


def test_nothing_is_asked_after_an_error_of_the_collection(
    project: Project, server: ServerProcess
) -> None:
    """No test would run, so no sample is called one without a usable answer."""
    project.write_math(2)
    project.pytester.makepyfile(test_broken="import no_such_module")
    result = project.ask(server.url)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        [
            "vlmeval: nothing is asked, as no test runs after an error of the "
            "collection; --continue-on-collection-errors runs those that were "
            "collected",
            "*Interrupted: 1 error during collection*",
        ]
    )
    assert "without a usable answer" not in result.stdout.str()
    assert not server.requests()
    # What the line advises.
    server.control(default="B")
    result = project.ask(server.url, "--continue-on-collection-errors")
    result.assert_outcomes(passed=2, xfailed=1, errors=1)


def test_a_worker_that_finds_no_server_ends_the_session_by_its_words(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another has begun, so that xdist finds that they collected different tests."""
    project.write_math(2)
    project.pytester.makeconftest(SECOND_WITHOUT_A_SERVER)
    monkeypatch.setenv("VLM_API_BASE", server.url)
    given = [each for each in endpoint(server.url) if "api-base" not in each]
    result = project.run(*given, "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    shown = result.stdout.str() + result.stderr.str()
    assert "Different tests were collected" not in shown
    result.stdout.fnmatch_lines(
        ["*ERROR collecting gw*", "No server answers at *:9/v1*"]
    )
    result.stderr.fnmatch_lines(["ERROR: No server answers at http://127.0.0.1:9/v1*"])
