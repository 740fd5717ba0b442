"""What a session keeps of each sample until its end: little."""

from __future__ import annotations

import json

import pytest

from tests.support.run_fixtures import Project, endpoint
from tests.support.server_fixtures import ServerProcess

SAMPLES = 40
# Looks about once all samples are answered and scored.
CONFTEST = """
import gc, json, sys
from collections import Counter

found = {"wrong": []}

def pytest_runtest_logstart(nodeid):
    if "test_score" in nodeid:
        gc.collect()
        live = Counter(type(each).__name__ for each in gc.get_objects())
        names = "SampleView", "SubRequest", "Prompts"
        found["live"] = {name: live[name] for name in names}
        found["pandas"] = "pandas" in sys.modules

def pytest_runtest_logreport(report):
    if hasattr(report, "wasxfail"):
        found["wrong"].append([report.longrepr, report.longreprtext])

def pytest_unconfigure():
    with open("found.json", "w") as file:
        json.dump(found, file, default=repr)
"""


def test_what_lives_on_after_a_sample(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process of its own: sessions that are forked have imported pandas.
    monkeypatch.setenv("PYTHON_NOT_FORKED", "1")
    server.control(default="B")
    project.write_math(SAMPLES)
    project.pytester.makeconftest(CONFTEST)
    result = project.run(*endpoint(server.url), f"--vlm-cache-dir={project.data_root}")
    wrong = SAMPLES // 2
    result.assert_outcomes(passed=SAMPLES - wrong + 1, xfailed=wrong)
    found = json.loads((project.pytester.path / "found.json").read_text())
    # Neither fixtures, nor their finalizers, nor prompts, once all is asked; and what
    # prepares a dataset does without pandas.
    assert found["live"]["SampleView"] == found["live"]["Prompts"] == 0
    assert found["live"]["SubRequest"] < 5
    assert not found["pandas"]
    # Of a wrong answer the words, not the place in the plugin.
    assert len(found["wrong"]) == wrong
    assert ["answered B, reference 10"] * 2 in [
        [text, whole.strip()] for text, whole in found["wrong"]
    ]


@pytest.mark.parametrize("arguments", [(), ("-n", "2")])
def test_a_wrong_answer_in_the_terminal(
    project: Project, server: ServerProcess, arguments: tuple[str, ...]
) -> None:
    server.control(default="B")
    project.write_math(2)
    result = project.ask(server.url, "-rx", "--xfail-tb", *arguments)
    result.assert_outcomes(passed=2, xfailed=1)
    result.stdout.fnmatch_lines(
        ["*TestMath.test_sample*MathVision_MINI-1*", "answered B, reference 10"]
    )
    result.stdout.no_fnmatch_line("*views.py*")


def test_a_failure_of_ones_own_keeps_its_traceback(
    project: Project, server: ServerProcess
) -> None:
    server.control(default="B")
    project.write_math(2)
    project.pytester.makepyfile(
        test_own="""
        import pytest

        @pytest.mark.xfail(reason="not yet")
        @pytest.mark.vlm("MathVision_MINI")
        def test_answers_are_long(vlm_sample):
            assert len(vlm_sample.answer.text) > 3
        """
    )
    result = project.ask(server.url, "-rx", "--xfail-tb", "test_own.py")
    result.assert_outcomes(xfailed=2)
    result.stdout.fnmatch_lines(["E *assert 1 > 3", "test_own.py:*: AssertionError"])
