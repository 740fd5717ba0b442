"""The shipped benchmarks, each dataset once; what runs without a path; new projects."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_vlmeval import Benchmark
from pytest_vlmeval.datasets.catalog import CORE, load_card, load_catalog
from pytest_vlmeval.datasets.unscored import foresee
from pytest_vlmeval.records import DatasetInfo
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.settings import NO_MODEL
from pytest_vlmeval.settings.option import OTHERS, read_repository
from pytest_vlmeval.suite import MARKERS
from tests.support.failed_sessions import error_of
from tests.support.run_fixtures import Project
from tests.support.upstream_tables import DATASETS as SCORED
from tests.support.upstream_tables import SHIPPED

MODULES = sorted((Path(__file__).parents[2] / "benchmarks").glob("test_*.py"))
DEMO = {"DemoChoice", "DemoYesNo", "DemoOpen"}


def marked_datasets() -> dict[str, set[str]]:
    """Return the markers of every dataset in the benchmarks; each stands there once."""
    found: dict[str, set[str]] = {}
    for path in MODULES:
        module = importlib.import_module(f"benchmarks.{path.stem}")
        for _, cls in inspect.getmembers(module, inspect.isclass):
            if issubclass(cls, Benchmark) and cls is not Benchmark:
                marks = {mark.name for mark in getattr(cls, "pytestmark", ())}
                for name in set(cls.datasets) - {OTHERS}:
                    assert name not in found, name
                    found[name] = marks
    return found


@pytest.fixture(scope="module")
def catalog(
    sandbox_environment: SandboxEnvironment, run_cache: Path
) -> Mapping[str, DatasetInfo]:
    """Give the catalog of the installed ms-vlmeval."""
    return load_catalog(sandbox_environment, run_cache)


def test_every_dataset_of_the_card_is_there() -> None:
    found = {name for name, marks in marked_datasets().items() if "recent" not in marks}
    assert found - DEMO == set(load_card().by_name)
    assert len(load_card().by_name) == 65


def test_shipped_thresholds_are_of_these_datasets_and_name_their_sources(
    catalog: Mapping[str, DatasetInfo],
) -> None:
    SHIPPED.check("qwen-vl-chat", catalog)
    found = {
        name: SHIPPED.of("qwen-vl-chat", name)
        for name in marked_datasets()
        if SHIPPED.of("qwen-vl-chat", name)
    }
    assert len(found) == 9
    for name, thresholds in found.items():
        # Else a benchmark that leaves it out would end the command.
        assert foresee(catalog[name]) is None, name
        for each in thresholds:
            assert re.search(r": https://\S+$", each.source), name
            assert each.rule == "confident-below"
            assert each.published, name
            # A score goes to 100; further metrics are looked at where they are made.
            assert (name in SCORED) if each.metric else (1 < each.minimum < 100)


def test_what_is_newer_than_ms_vlmeval_is_not_in_its_catalog(
    catalog: Mapping[str, DatasetInfo],
) -> None:
    found = {name for name, marks in marked_datasets().items() if "recent" in marks}
    assert len({dataset.partition(":")[2].partition(":")[0] for dataset in found}) == 5
    known = {name.lower() for name in catalog}
    for place in found:
        assert read_repository(place).hub == "huggingface", place
        name = read_repository(place).name.partition("/")[2]
        assert not any(each.startswith(name.lower()) for each in known), name


def test_core_is_the_usual_eight() -> None:
    assert {
        name for name, marks in marked_datasets().items() if "core" in marks
    } == CORE
    assert len(CORE) == 8


def test_markers_say_what_the_catalog_says(
    catalog: Mapping[str, DatasetInfo],
) -> None:
    for name, marks in marked_datasets().items():
        if name in DEMO or "recent" in marks:
            continue
        info = catalog[name]
        assert marks <= set(MARKERS), name
        assert marks & {"image", "video"} == {info.modality}, name
        kinds = {"multiple_choice", "yes_no", "vqa", "caption"}
        assert marks & kinds == {info.kind}, name
        assert ("needs_judge" in marks) == (info.judge == "required"), name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_each_module_says_what_it_measures_and_where_it_comes_from(path: Path) -> None:
    text = inspect.getdoc(importlib.import_module(f"benchmarks.{path.stem}"))
    assert text is not None
    assert "arXiv" in text or path.stem in {
        "test_demo",  # drawn by this project
        "test_named",  # whatever the user names
        "test_ocrvqa",  # ICDAR 2019
        "test_realworldqa",  # published by its makers
    }


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
@pytest.mark.parametrize("option", ["--vlm-data=MMStar", "--vlm-report=x.html"])
def test_options_without_a_model(project: Project, option: str) -> None:
    assert error_of(project.run(option)) == NO_MODEL
    # What it advises.
    demo = ["--vlm-model=demo", "--vlm-data=DemoOpen", "--vlm-limit=2"]
    assert project.run(*demo).ret == 0
    # Nothing of ours is wanted.
    assert project.run().ret == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("path", ["benchmarks/", "benchmarks/test_mmstar.py::TestX"])
@pytest.mark.parametrize("options", [[], ["--vlm-model=demo"]], ids=["none", "demo"])
def test_benchmarks_that_are_not_there(
    project: Project, path: str, options: list[str]
) -> None:
    result = project.run(*options, path)
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
