"""What nobody expects: one line for who reads the item, the traceback in the log."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pytest_vlmeval.errors import LARGEST_LOG, LOG_NAME, log_error
from pytest_vlmeval.settings.option import ApiKey
from tests.support.option_calls import Load
from tests.support.option_calls import load as load
from tests.support.run_fixtures import Project, math_rows, write_table
from tests.support.server_fixtures import ServerProcess

if TYPE_CHECKING:
    from pytest_vlmeval.settings import Settings

# The user's project breaks one function of the plugin, for one dataset where it can be.
BREAKING = """
import pytest_vlmeval.{module} as module

before = module.{name}

def broken(*args, **keywords):
    if {when}:
        {{}}["secret-of-a-key"]
    return before(*args, **keywords)

module.{name} = broken
"""
TWO = """
from pytest_vlmeval import Benchmark

class TestBoth(Benchmark):
    datasets = ["own.tsv", "MathVision_MINI"]
"""


def break_(project: Project, module: str, name: str, when: str = "True") -> None:
    """Let a function of the plugin raise a KeyError in the sessions of a project."""
    text = BREAKING.format(module=module, name=name, when=when)
    if "." in name:
        owner, _, method = name.partition(".")
        text = text.replace("as module", f"as whole\nmodule = whole.{owner}")
        text = text.replace(f"module.{name}", f"module.{method}")
    project.pytester.makeconftest(text)


def write_two(project: Project) -> None:
    """Put two datasets in place, one of which is the user's own."""
    project.write_math(4)
    (project.pytester.path / "test_math.py").unlink()
    rows = [{"index": "1", "question": "Own <1>?", "answer": "yes"}]
    write_table(
        project.pytester.path / "own.tsv",
        [{**row, "image": math_rows(1)[0]["image"]} for row in rows],
    )
    project.pytester.makepyfile(test_both=TWO)


def log_of(project: Project) -> str:
    """Return the log of errors, "" if there is none."""
    file = project.pytester.path / ".vlmeval" / LOG_NAME
    return file.read_text(encoding="utf-8") if file.is_file() else ""


ITEM = "KeyError: 'secret-of-a-key'. The traceback is in */.vlmeval/errors.log."
PLACES = {
    "preparing": (
        ("datasets.library", "Library._prepare", "'own' in args[1]"),
        "*Preparing own failed unexpectedly: ",
        ["--vlm-mode=all"],
        {"passed": 3, "xfailed": 2, "failed": 1},
    ),
    "asking": (
        ("run.engine", "write_request", "'own' in args[2]"),
        "*own-1 has no usable answer: Asking own-1 failed unexpectedly: ",
        [],
        {"passed": 3, "xfailed": 2, "failed": 2},
    ),
    "sending": (
        ("models.endpoint", "EndpointClient.ask", "'Own' in str(args[1].turns)"),
        "*own-1 has no usable answer: Asking own-1 failed unexpectedly: ",
        [],
        {"passed": 3, "xfailed": 2, "failed": 2},
    ),
    "scoring": (
        ("run.scoring", "score_in_sandbox", "args[1].info.name == 'own'"),
        "*Scoring own failed unexpectedly: ",
        [],
        {"passed": 3, "xfailed": 2, "failed": 2},
    ),
}


@pytest.mark.parametrize("processes", ["0", pytest.param("2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("place", PLACES)
def test_what_breaks_for_one_dataset_fails_its_items_with_a_line(
    project: Project, server: ServerProcess, place: str, processes: str
) -> None:
    """The others go on, and no item shows a traceback."""
    broken, line, options, outcomes = PLACES[place]
    write_two(project)
    server.control(default="B")
    break_(project, *broken)
    result = project.ask(server.url, *options, "-n", processes)
    result.assert_outcomes(**outcomes)
    result.stdout.fnmatch_lines([f"{line}{ITEM}"])
    shown = result.stdout.str() + result.stderr.str()
    assert "Traceback" not in shown
    assert "broken(" not in shown
    found = log_of(project)
    assert re.search(r"^20\d\d-\d\d-\d\dT\S+ \w.*: dataset own, sample ", found)
    assert "in broken\n" in found


ONE = {
    # What is broken, the line that says so, and how the session ends.
    "beginning": (
        ("run", "Run._entry"),
        "*Beginning the run failed unexpectedly: ",
        4,
    ),
    "beginning to ask": (
        ("run.execution", "find_needs"),
        "*Beginning the run failed unexpectedly: ",
        4,
    ),
    "the engine": (
        ("run.engine", "Engine._ask_all"),
        "Asking failed unexpectedly: ",
        1,
    ),
    "collecting": (
        ("suite.selection", "may_select"),
        "*Collecting test_math.py::TestMath::test_sample failed unexpectedly: ",
        2,
    ),
    "a view": (
        ("suite.views", "describe_verdict", "args[0].index == '1'"),
        "*The teardown of the test of MathVision_MINI-1 failed unexpectedly: ",
        1,
    ),
    "completeness": (
        ("run.gating", "check_completeness"),
        "The completeness gate of MathVision_MINI failed unexpectedly: ",
        1,
    ),
    "a threshold": (
        ("run.gating", "Gatekeeper._held_against"),
        "The threshold gate of MathVision_MINI failed unexpectedly: ",
        1,
    ),
    "judging": (
        ("run.judge", "Judge.ask"),
        "*Scoring MathVision_MINI failed unexpectedly: ",
        1,
    ),
    "asking the judge": (
        ("models.endpoint", "EndpointClient._deliver", "args[0]._role == 'judge'"),
        "*Asking the judge tiny-vlm about MathVision_MINI failed unexpectedly: ",
        1,
    ),
    "the summary": (
        ("reports.terminal", "format_table"),
        "The summary failed unexpectedly: ",
        4,
    ),
    "the page": (
        ("reports.html", "write_html"),
        "vlmeval: Writing */page.html failed unexpectedly: ",
        4,
    ),
    "the results": (
        ("reports.export", "write_export"),
        "vlmeval: Writing */results failed unexpectedly: ",
        4,
    ),
    "the report's record": (
        ("reports.record", "load_session"),
        "vlmeval: Writing the reports failed unexpectedly: ",
        4,
    ),
    "the end": (
        ("run.execution", "Execution.close"),
        "*vlmeval: Ending the run failed unexpectedly: ",
        0,
    ),
}


@pytest.mark.parametrize("place", ONE)
def test_what_breaks_a_session_is_a_line(
    project: Project, server: ServerProcess, place: str
) -> None:
    broken, line, code = ONE[place]
    project.write_math(2)
    server.control(default="B")
    break_(project, *broken)
    reports = ["--vlm-report=page.html", "--vlm-export=results"]
    judge = ["--vlm-judge=tiny-vlm", f"--vlm-judge-api-base={server.url}"]
    options = [*reports, "--vlm-media-check=warn", *(judge if "judg" in place else ())]
    result = project.ask(server.url, *options)
    output = result.stdout.str() + result.stderr.str()
    assert result.ret == code, output
    lines = result.stderr if code == 4 and "beginning" in place else result.stdout
    lines.fnmatch_lines([f"{line}{ITEM}*"])
    for word in ("Traceback", "INTERNALERROR", "broken("):
        assert word not in output
    assert "in broken\n" in log_of(project)
    if place == "the summary":
        result.stdout.fnmatch_lines(["gates: *", "asked: *"])
    written = {each.name for each in project.pytester.path.glob("[pr]*")}
    if place in ("the page", "the results"):
        # The other one is written.
        assert len(written & {"page.html", "results"}) == 1


def test_what_breaks_a_command_is_a_line(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(2)
    server.control(default="B")
    project.ask(server.url)
    break_(project, "reports.comparison", "list_runs")
    result = project.run("--vlm-runs")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: --vlm-runs failed unexpectedly: {ITEM}*"])
    assert "in broken\n" in log_of(project)


@pytest.mark.slow
def test_what_breaks_the_end_of_workers_is_a_line(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(2)
    server.control(default="B")
    break_(project, "run.execution", "Execution.close")
    result = project.ask(server.url, "-n", "2")
    result.assert_outcomes(passed=2, xfailed=1)
    output = result.stdout.str() + result.stderr.str()
    result.stdout.fnmatch_lines(
        [f"*vlmeval: Ending the run failed unexpectedly: {ITEM}"]
    )
    for word in ("Traceback", "INTERNALERROR", "broken("):
        assert word not in output


def test_a_users_own_exception_keeps_its_traceback(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(1)
    server.control(default="B")
    project.pytester.makepyfile(
        test_own="""
        import pytest

        @pytest.mark.vlm("MathVision_MINI")
        def test_it(vlm_sample):
            {}[vlm_sample.index]
        """
    )
    result = project.ask(server.url, "test_own.py")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([">*{}[[]vlm_sample.index[]]", "E*KeyError: '1'"])
    assert log_of(project) == ""


# What the log holds


def test_the_log_has_no_key_and_the_line_has_none(load: Load, tmp_path: Path) -> None:
    key, header, password = "canary-'key\"-1", "canary-header-2", "canary%2Fword-3"
    headers = tmp_path / "headers"
    headers.write_text(f"X-Key: {header}\n")
    settings = load(
        "--vlm-model=m",
        f"--vlm-store=postgresql://me:{password}@host/it",
        f"--vlm-work-dir={tmp_path}",
        environ={
            "VLM_API_KEY": key,
            "VLM_API_HEADER_FILE": str(headers),
        },
    )
    assert settings.api_key == key
    said = f"{key} {key!r} {header} {password} canary/word-3 hf_canaryTOKEN4"
    try:
        raise ValueError(said)
    except ValueError as error:
        line = log_error(settings, error, "Scoring", "D", "3")
    log = (tmp_path / LOG_NAME).read_text()
    assert "canary" not in line + log
    assert line == (
        "Scoring D-3 failed unexpectedly: ValueError: *** '***' *** *** *** ***. "
        f"The traceback is in {tmp_path / LOG_NAME}."
    )


def named(folder: Path) -> Settings:
    """Give settings with no more than a work dir, and a key."""
    return cast("Settings", SimpleNamespace(work_dir=folder, api_key=ApiKey("key")))


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = named(tmp_path / "file" / "work")
    assert log_error(settings, ZeroDivisionError("by 0"), "Scoring", "D") == (
        "Scoring D failed unexpectedly: ZeroDivisionError: by 0. The traceback cannot "
        f"be written to {tmp_path}/file/work/errors.log: Not a directory."
    )


def test_a_large_log_grows_by_lines_alone(tmp_path: Path) -> None:
    file = tmp_path / LOG_NAME
    file.write_text("x" * (LARGEST_LOG - 1) + "\n")
    log_error(named(tmp_path), ZeroDivisionError("by 0"), "Scoring", "D")
    new = file.read_text()[LARGEST_LOG:].splitlines()
    assert new[0].endswith(" Scoring D: dataset D, sample -")
    assert new[1:] == ["ZeroDivisionError: by 0", ""]


def test_a_traceback_of_the_sandbox_is_shown_by_its_last_line(tmp_path: Path) -> None:
    fault = RuntimeError(
        'Traceback (most recent call last):\n  File "x"\nKeyError: 1\n'
    )
    line = log_error(named(tmp_path), fault, "Scoring", "D")
    assert line.startswith("Scoring D failed unexpectedly: KeyError: 1. The traceback")
    assert "KeyError: 1" in (tmp_path / LOG_NAME).read_text()
