"""The main job on real input: the demo benchmark, and the real MathVision_MINI."""

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
