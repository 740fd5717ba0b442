"""The main job on real input: the demo, MathVision_MINI, and the memory it takes."""

from __future__ import annotations

import json
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from tests.support.run_fixtures import Project, endpoint, properties
from tests.support.sandbox_tables import shared_file
from tests.support.server_fixtures import ServerProcess

ROOT = Path(__file__).parents[2]
UPSTREAM = ROOT / "tests" / "support" / "upstream_scoring.py"


def run_benchmark(
    project: Project, name: str, *arguments: str
) -> tuple[pytest.RunResult, dict[str, ET.Element]]:
    """Run a benchmark of this repository, its store in the test's own folder."""
    return project.junit(
        *arguments,
        str(ROOT / "benchmarks" / name),
        f"--vlm-work-dir={project.store.parent}",
        "--override-ini=cache_dir=" + str(project.pytester.path / "pytest_cache"),
    )


def test_the_demo_answers_well(project: Project) -> None:
    result, cases = run_benchmark(project, "test_demo.py", "--vlm-model=demo")
    assert result.ret == 0
    scores = {
        name: float(properties(cases[f"test_score[{name}]"])["score"])
        for name in ("DemoChoice", "DemoYesNo", "DemoOpen")
    }
    assert scores["DemoChoice"] >= 80
    assert scores["DemoYesNo"] >= 90
    assert scores["DemoOpen"] >= 90
    samples = [name for name in cases if name.startswith("test_sample")]
    assert len(samples) == 120


@pytest.mark.slow
def test_the_demo_under_xdist_gives_the_same(project: Project) -> None:
    alone, _ = run_benchmark(project, "test_demo.py", "--vlm-model=demo")
    project.store.unlink()
    both, _ = run_benchmark(project, "test_demo.py", "--vlm-model=demo", "-n2")
    assert both.ret == alone.ret == 0
    # xdist does not tell what was deselected.
    outcomes = alone.parseoutcomes()
    outcomes.pop("deselected", None)
    assert both.parseoutcomes() == outcomes


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point LMUData at the real MathVision_MINI, 304 questions; give its file."""
    table = shared_file("LMUData", "MathVision_MINI.tsv")
    monkeypatch.setenv("LMUData", str(table.parent))
    return table


MATHVISION = ("--vlm-data=MathVision_MINI", "--vlm-allow-modified-data")


def upstream_accuracy(
    project: Project, python: Path, table: Path
) -> tuple[float, dict[str, float]]:
    """Score the stored answers with ms-vlmeval as it is: accuracy and verdicts."""
    answers = project.stored(
        "SELECT sample_index, CASE state WHEN 'answered' THEN text ELSE '' END "
        "FROM answers"
    )
    job = project.pytester.path / "job.json"
    found = project.pytester.path / "found.json"
    job.write_text(
        json.dumps(
            {
                "name": "MathVision_MINI",
                "module": "image_vqa",
                "class_name": "MathVision",
                "tsv": str(table),
                "answers": answers,
            }
        )
    )
    subprocess.run(
        [python, "-I", UPSTREAM, job, found], check=True, capture_output=True
    )
    result = json.loads(found.read_text())
    columns = result["result"]["columns"]
    overall = next(
        dict(zip(columns, row, strict=True))
        for row in result["result"]["data"]
        if "Overall" in row
    )
    return overall["acc"], result["verdicts"]


@pytest.mark.slow
def test_mathvision_with_the_demo_model_scores_as_ms_vlmeval_does(
    project: Project, sandbox_environment: SandboxEnvironment, real_data: Path
) -> None:
    _, cases = run_benchmark(
        project, "test_mathvision.py", "--vlm-model=demo", *MATHVISION
    )
    assert len(cases) == 305
    score = properties(cases["test_score[MathVision_MINI]"])
    assert score["samples"] == "304"
    assert int(score["answered"]) >= 300
    accuracy, verdicts = upstream_accuracy(
        project, sandbox_environment.python, real_data
    )
    assert float(score["score"]) == pytest.approx(accuracy, abs=1e-9)
    for index, value in verdicts.items():
        shown = properties(cases[f"test_sample[MathVision_MINI-{index}]"])
        if shown["state"] == "answered":
            assert shown["verdict"] == ("correct" if value else "wrong"), index


@pytest.mark.slow
def test_mathvision_against_a_server(
    project: Project, vlm_server: Callable[..., ServerProcess], real_data: Path
) -> None:
    server = vlm_server(model="demo")
    arguments = [*endpoint(server.url), *MATHVISION, "-n2"]
    result, cases = run_benchmark(project, "test_mathvision.py", *arguments)
    assert len(server.requests()) == 304
    served = properties(cases["test_score[MathVision_MINI]"])
    project.store.unlink()
    _, cases = run_benchmark(
        project, "test_mathvision.py", "--vlm-model=demo", *MATHVISION
    )
    # The same model answers the same, whether asked over HTTP or in the process.
    told = properties(cases["test_score[MathVision_MINI]"])
    assert told == {
        # Only the gate's message names the model.
        name: text.replace("tiny-vlm", "demo")
        for name, text in served.items()
    }
    main_metric = "Overall/acc (exact matching)"
    result.stdout.fnmatch_lines(
        [f"MathVision_MINI * 304 * {main_metric} *modified data"]
    )


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
