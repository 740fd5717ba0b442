"""What a user can get wrong, and the sentence each mistake is answered with."""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.failed_sessions import error_of, message_of
from tests.support.failed_sessions import small_disk as small_disk
from tests.support.run_fixtures import Project, endpoint, math_rows, write_table
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
