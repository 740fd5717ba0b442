"""Sessions in which nothing is asked: the collection failed, or a worker refused."""

from __future__ import annotations

import pytest

from tests.support.run_fixtures import Project, endpoint
from tests.support.server_fixtures import ServerProcess

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
