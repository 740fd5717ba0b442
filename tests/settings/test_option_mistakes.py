"""What a bad value of an option is answered with, wherever it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings import load_from
from pytest_vlmeval.settings.sources import call_sources, pytest_sources
from tests.support.option_calls import Load
from tests.support.option_calls import load as load


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (
            ["--vlm-limit=0"],
            {},
            "--vlm-limit=0 is not accepted: --vlm-limit takes a whole number of at "
            "least 1 (samples).",
        ),
        (
            [],
            {"VLM_TIMEOUT": "soon"},
            "VLM_TIMEOUT=soon is not accepted: --vlm-timeout takes a number above 0 "
            "(seconds).",
        ),
        (
            ["--vlm-mode=both"],
            {},
            "--vlm-mode=both is not accepted: --vlm-mode takes all, infer, score or "
            "report.",
        ),
        (
            ["--vlm-sample=0"],
            {},
            "--vlm-sample=0 is not accepted: --vlm-sample takes a whole number of at "
            "least 1 (samples).",
        ),
        (
            ["--vlm-level=0.05"],
            {},
            "--vlm-level=0.05 is not accepted: --vlm-level takes a confidence: a "
            "number from 0.5 to below 1.",
        ),
        (
            ["--vlm-seed=-1"],
            {},
            "--vlm-seed=-1 is not accepted: --vlm-seed takes a whole number of at "
            "least 0.",
        ),
        (
            ["--vlm-scoring=fixed"],
            {},
            "--vlm-scoring=fixed is not accepted: --vlm-scoring takes published, "
            "vlmevalkit or corrected.",
        ),
        (
            ["--vlm-data-mirror=/no/such/folder"],
            {},
            "--vlm-data-mirror=/no/such/folder is not accepted: --vlm-data-mirror "
            "takes an http or https URL without a password, or a folder that exists.",
        ),
        (
            ["--vlm-download-max-gb=-1"],
            {},
            "--vlm-download-max-gb=-1 is not accepted: --vlm-download-max-gb takes a "
            "number of at least 0 (GB).",
        ),
        (
            ["--vlm-temperature=nan"],
            {},
            "--vlm-temperature=nan is not accepted: --vlm-temperature takes a number "
            "of at least 0, or none.",
        ),
        (
            [],
            {"VLM_FRESH": "maybe"},
            "VLM_FRESH=maybe is not accepted: --vlm-fresh takes 1, true, yes, on, 0, "
            "false, no or off.",
        ),
    ],
)
def test_bad_values(
    load: Load, arguments: list[str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(VlmEvalError) as error:
        load(*arguments, environ=environ)
    assert str(error.value) == message


def test_bad_value_in_the_ini_file(load: Load) -> None:
    with pytest.raises(VlmEvalError) as error:
        load(ini='vlm_retries = "-1"')
    assert str(error.value) == (
        "vlm_retries = -1 in the ini file is not accepted: --vlm-retries takes a whole "
        "number of at least 0."
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "vlm_retries = -1",
            "vlm_retries = -1 in the ini file is not accepted: --vlm-retries takes a "
            "whole number of at least 0.",
        ),
        (
            "vlm_limit = true",
            "vlm_limit = true in the ini file is not accepted: --vlm-limit takes a "
            "whole number of at least 1 (samples).",
        ),
        (
            "vlm_concurrency = 2.5",
            "vlm_concurrency = 2.5 in the ini file is not accepted: --vlm-concurrency "
            "takes a whole number of at least 1 (requests), or auto.",
        ),
        (
            "vlm_stop_early = 7",
            "vlm_stop_early = 7 in the ini file is not accepted: --vlm-stop-early "
            "takes 1, true, yes, on, 0, false, no or off.",
        ),
        (
            "vlm_model = 3.10",
            "vlm_model = 3.1 in the ini file is not accepted: --vlm-model takes a "
            "model's served name, or demo.",
        ),
        (
            'vlm_model = ["a", "b"]',
            "vlm_model = a,b in the ini file is not accepted: --vlm-model takes a "
            "model's served name, or demo.",
        ),
        (
            "vlm_judge = [1]",
            "vlm_judge = 1 in the ini file is not accepted: --vlm-judge takes names "
            "of judges, separated by commas, or exact_matching.",
        ),
        (
            "vlm_config = 1",
            "vlm_config = 1 in the ini file is not accepted: --vlm-config takes a "
            ".yaml, .yml or .json file.",
        ),
        (
            "vlm_api_query = 2026",
            "vlm_api_query = *** in the ini file is not accepted: --vlm-api-query "
            "takes NAME=VALUE pairs, joined by &.",
        ),
    ],
)
def test_bad_values_of_a_toml_file(
    pytester: pytest.Pytester, given: str, message: str
) -> None:
    pytester.makefile(".toml", pytest=f"[pytest]\n{given}\n")
    for sources in (
        pytest_sources(pytester.parseconfig(), {}),
        call_sources({}, {}, pytester.path),
    ):
        with pytest.raises(VlmEvalError) as error:
            load_from(sources)
        expected = message
        if sources.keywords:
            name = message.partition(" takes ")[0].rpartition(" ")[2]
            keyword = name.removeprefix("--vlm-").replace("-", "_")
            expected = message.replace(f" {name} takes ", f" {keyword} takes ")
        assert str(error.value) == expected


def test_there_is_no_key_option(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--vlm-api-key=secret")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_key_files_that_cannot_be_used(load: Load, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(VlmEvalError) as error:
        load(f"--vlm-api-key-file={missing}")
    assert str(error.value) == (
        f"--vlm-api-key-file={missing} cannot be read (No such file or directory). "
        "Give a readable text file that holds only the key, or set VLM_API_KEY."
    )
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(VlmEvalError) as error:
        load(f"--vlm-api-key-file={empty}")
    assert str(error.value) == (
        f"--vlm-api-key-file={empty} is empty. Give a file that holds the key, or set "
        "VLM_API_KEY."
    )


def test_data_root_must_exist_when_named(load: Load, tmp_path: Path) -> None:
    assert load(environ={"LMUData": str(tmp_path)}).data_root == tmp_path
    with pytest.raises(VlmEvalError) as error:
        load(environ={"LMUData": "/no/such/folder"})
    assert str(error.value) == (
        "LMUData=/no/such/folder is not a folder. Make it, or point LMUData at the "
        "folder that holds the dataset files (unset, it is ~/LMUData)."
    )


def test_a_bad_value_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_subprocess("--vlm-model=demo", "--vlm-limit=none")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: --vlm-limit=none is not accepted: --vlm-limit takes a whole number "
            "of at least 1 (samples)."
        ]
    )
