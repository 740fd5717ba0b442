"""Names that are misspelt: of options, of variables, of what `-k` selects."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from pytest_vlmeval import evaluate
from tests.support.failed_sessions import error_of
from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess


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
