"""What runs without a path: the suite that is installed; and a starter project."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.failed_sessions import error_of
from tests.support.run_fixtures import Project

OWN = """
def test_own():
    pass
"""


def test_the_demo_runs_where_there_are_no_tests(
    project: Project, installed: Path
) -> None:
    folder = project.pytester.path
    # What pytest does not look at either.
    for name in ("node_modules", ".hidden", "env"):
        (folder / name).mkdir()
        (folder / name / "test_other.py").write_text("assert False")
    (folder / "env" / "pyvenv.cfg").touch()
    result = project.run("--vlm-model=demo", "--vlm-limit=2")
    result.stdout.fnmatch_lines(
        [
            "vlmeval: no path is given and no tests are here, so those that are "
            f"installed run: {installed}/benchmarks/test_demo.py"
        ]
    )
    assert result.ret == 0
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] + outcomes.get("xfailed", 0) == 9


def test_a_named_dataset_runs_where_there_are_no_tests(
    project: Project, installed: Path
) -> None:
    result = project.run("--vlm-model=demo", "--vlm-data=DemoOpen", "--vlm-limit=2")
    result.stdout.fnmatch_lines([f"*installed run: {installed}/benchmarks"])
    assert result.ret == 0
    assert "DemoChoice" not in result.stdout.str()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("place", [".", "below/it"])
def test_tests_of_ones_own_run_alone(project: Project, place: str) -> None:
    folder = project.pytester.path / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test_own.py").write_text(OWN)
    result = project.run("--vlm-model=demo")
    result.assert_outcomes(passed=1)
    assert "no path is given" not in result.stdout.str()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("path", ["benchmarks/", "benchmarks/test_mmstar.py::TestX"])
def test_benchmarks_that_are_not_there(project: Project, path: str) -> None:
    result = project.run("--vlm-model=demo", path)
    assert error_of(result) == (
        f"{path.partition('::')[0]} is not in {project.pytester.path}. Leave the path "
        "out to run the benchmarks that are installed, or write a folder of your own "
        "with `pytest --vlm-init`."
    )


def test_a_starter_project(project: Project) -> None:
    folder = project.pytester.path
    (folder / ".gitignore").write_text("mine\n")
    written = project.run("--vlm-init")
    assert written.ret == 0
    assert len(written.outlines) <= 10
    written.stdout.fnmatch_lines(
        [
            "benchmarks/test_benchmarks.py * the datasets to evaluate",
            "benchmarks/thresholds.toml * the scores to reach",
            ".github/workflows/evaluation.yml * evaluates on GitHub at night",
            ".gitignore * is there already, and kept as it is",
            "The first lines of the workflow describe the variables that it needs, *",
        ]
    )
    assert (folder / ".gitignore").read_text() == "mine\n"
    # What it advises.
    (command,) = (line for line in written.outlines if "DemoChoice" in line)
    _, *arguments = command.split("  ")[0].split()
    whole = (*arguments, "--vlm-limit=2", "-k", "DemoChoice")
    tried = project.run(*whole, "--snapshot-update")
    assert tried.ret == 0
    assert (folder / "benchmarks/__baselines__/demo/DemoChoice.json").is_file()
    compared = project.run(*whole)
    assert compared.ret == 0
    compared.stdout.fnmatch_lines(["*1 snapshot passed*"])
    again = project.run("--vlm-init")
    assert again.stdout.str().count("is there already, and kept as it is") == 4


def test_a_starter_project_that_cannot_be_written(project: Project) -> None:
    (project.pytester.path / "benchmarks").write_text("no folder")
    result = project.run("--vlm-init")
    assert error_of(result) == (
        f"{project.pytester.path}/benchmarks/test_benchmarks.py cannot be written "
        "(File exists). Run pytest --vlm-init in a folder that you may write to."
    )
