"""The suite of benchmarks that is installed, and a project that begins with one."""

from __future__ import annotations

import os
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings import NO_MODEL
from pytest_vlmeval.suite.session import (
    get_settings,
    get_sources,
    is_given,
    names_paths,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = Path(__file__).parents[1]
# Part of the wheel. A checkout has it beside the package, and takes its path: pytest
# reads the conftest.py there only where that is the root of the session.
SUITE = PACKAGE / "benchmarks"
CHECKOUT = PACKAGE.parent / SUITE.name
DEMO = "test_demo.py"
# By what --vlm-init takes: the suite's file, its place in a project, its meaning.
WORKFLOWS = {
    "github": (
        "github-workflow.yml",
        ".github/workflows/evaluation.yml",
        "evaluates on GitHub at night",
    ),
    "gitlab": ("gitlab-ci.yml", ".gitlab-ci.yml", "evaluates on GitLab by schedules"),
}

BENCHMARKS = '''\
"""The datasets that this project evaluates: pytest --vlm-model=NAME benchmarks/"""

from pytest_vlmeval import Benchmark


class TestEveryDay(Benchmark):
    """Small and well known; pytest --vlm-list lists all others."""

    datasets = ["MMStar", "RealWorldQA"]


class TestNamed(Benchmark):
    """What --vlm-data names: a dataset of the list, or a table of your own."""

    datasets = ["*"]
'''
THRESHOLDS = """\
# The scores that a model has to reach, from 0 to 100. MODEL and DATASET are patterns:
# [MODEL.DATASET]
# min = 60

# Models without a table of their own have no threshold.
["*"]
"""
IGNORED = """\
# Answers, scores and reports: the run store.
.vlmeval/
report.html
report.xml
"""
NEXT = """\
pytest --vlm-model=demo --vlm-data=DemoChoice benchmarks/    tries it, without a server
pytest --vlm-model=NAME --vlm-api-base=URL benchmarks/       evaluates your model
Add --snapshot-update to make today's scores the baseline, and commit its folder: from
then on a run fails if the model is significantly worse.
The first lines of the workflow describe the variables that it needs, and how it makes
its first baselines."""


def take_suite(config: pytest.Config, write: Callable[[str], None]) -> None:
    """Run the suite where no path is given and there are no tests to run.

    A task file runs in the suite, as its datasets are there, even beside tests of the
    user's own, which is said. Raises `pytest.UsageError` for a path into a folder
    `benchmarks` that is not there, and for options without a model.
    """
    if not SUITE.is_dir():
        if (
            CHECKOUT.is_dir()
            and config.args_source is pytest.Config.ArgsSource.INVOCATION_DIR
            and is_given("model", config)
            and not has_tests(config)
        ):
            write(
                "vlmeval: no path is given and no tests are here. The benchmarks of "
                f"this checkout run if their path is given: {CHECKOUT}"
            )
        return
    if names_paths(config):
        _check_paths(config)
        return
    if config.args_source is not pytest.Config.ArgsSource.INVOCATION_DIR:
        return
    given = {name: is_given(name, config) for name in ("config", "data", "model")}
    if not given["model"]:
        asks = get_sources(config).command and not config.option.collectonly
        if asks and not has_tests(config):
            raise pytest.UsageError(NO_MODEL)
    elif given["config"] and given["data"]:
        config.args = [str(SUITE)]
        write(
            f"vlmeval: no path is given, so the datasets of the task run in {SUITE}; "
            "name a path for tests of your own"
        )
    elif not has_tests(config):
        # Other datasets would first be downloaded, and mean nothing to the demo model.
        demo = get_settings(config).backend == "demo" and not given["data"]
        config.args = [str(SUITE / DEMO if demo else SUITE)]
        write(
            "vlmeval: no path is given and no tests are here, so those that are "
            f"installed run: {config.args[0]}"
        )


def _check_paths(config: pytest.Config) -> None:
    for argument in config.args:
        path = argument.partition("::")[0]
        if (
            Path(path).parts[:1] != ("benchmarks",)
            or config.option.pyargs
            or (config.invocation_params.dir / path).exists()
        ):
            continue
        raise pytest.UsageError(
            f"{path} is not in {config.invocation_params.dir}. Leave the path out to "
            "run the benchmarks that are installed, or write a folder of your own with "
            "`pytest --vlm-init`."
        )


def has_tests(config: pytest.Config) -> bool:
    """Return whether pytest would find files of tests below the current folder."""
    names, skipped = config.getini("python_files"), config.getini("norecursedirs")
    for place, folders, files in os.walk(config.invocation_params.dir):
        here = Path(place)
        if any(fnmatch(file, name) for file in files for name in names):
            return True
        folders[:] = [
            each
            for each in folders
            if not any(fnmatch(each, name) for name in skipped)
            # An environment, as pytest knows them.
            and not (here / each / "pyvenv.cfg").is_file()
            and not (here / each / "conda-meta" / "history").is_file()
        ]
    return False


def run_init(config: pytest.Config, write: Callable[[str], None]) -> int:
    """Write a starter project here; the `--vlm-init` command.

    A file that is there is kept as it is, and named.
    """
    folder = config.invocation_params.dir
    for name, (text, meaning) in _starter(config.getoption("--vlm-init")).items():
        path = folder / name
        if path.exists():
            write(f"{name:34} is there already, and kept as it is")
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise VlmEvalError(
                f"{path} cannot be written ({error.strerror}). Run pytest --vlm-init "
                "in a folder that you may write to."
            ) from None
        write(f"{name:34} {meaning}")
    write(NEXT)
    return int(pytest.ExitCode.OK)


def _starter(place: str) -> Mapping[str, tuple[str, str]]:
    """Return the text and the meaning of each file of a project for a CI."""
    beside = SUITE if SUITE.is_dir() else CHECKOUT
    file, path, meaning = WORKFLOWS[place]
    workflow = (beside / file).read_text(encoding="utf-8")
    return {
        "benchmarks/test_benchmarks.py": (BENCHMARKS, "the datasets to evaluate"),
        "benchmarks/thresholds.toml": (THRESHOLDS, "the scores to reach"),
        path: (workflow, meaning),
        ".gitignore": (IGNORED, "keeps the run store out of git"),
    }
