"""Runs of the plugin as a user starts it: pytest in a process of its own."""

from __future__ import annotations

import base64
import contextlib
import csv
import functools
import io
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from PIL import Image

import pytest_vlmeval
from pytest_vlmeval.sandbox.environment import (
    LIGHT,
    SandboxEnvironment,
    ensure_environment,
)
from pytest_vlmeval.settings.groups import OPENAI_VARIABLES
from tests.support.forked_pytest import Forks

# Looked up here, because pytester gives each test a home of its own.
CACHE_DIR = (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pytest-vlmeval"
)
COLUMNS = ("index", "question", "image", "answer", "category", "choices", "level")
BENCHMARK = """
from pytest_vlmeval import Benchmark

class TestMath(Benchmark):
    datasets = ["MathVision_MINI"]
"""


@pytest.fixture(scope="session")
def sandbox_environment() -> SandboxEnvironment:
    """Give the sandbox environment, built in the user's cache if it is not there."""
    return environment_with(LIGHT)


def environment_with(addons: frozenset[str]) -> SandboxEnvironment:
    """Give the environment that has these add-ons, in the same way."""
    given = os.environ.get("VLM_SANDBOX_PYTHON")
    return ensure_environment(
        CACHE_DIR,
        python=Path(given) if given else None,
        offline=False,
        announce=lambda line: None,
        addons=addons,
    )


@pytest.fixture(scope="session")
def run_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder for the catalog and the prepared datasets, named by content."""
    return tmp_path_factory.mktemp("cache")


def image_bytes(seed: int, kind: str = "PNG") -> bytes:
    """Draw a small image of coloured squares; the same for the same seed."""
    colours = random.Random(seed)
    image = Image.new("RGB", (4, 3))
    for x in range(4):
        for y in range(3):
            image.putpixel((x, y), tuple(colours.randbytes(3)))
    out = io.BytesIO()
    image.resize((64, 48), Image.Resampling.NEAREST).save(out, kind)
    return out.getvalue()


def math_rows(count: int) -> list[dict[str, str]]:
    """Make rows in MathVision's layout: odd indexes free answers, even ones options."""
    rows = []
    for index in range(1, count + 1):
        free = index % 2
        rows.append(
            {
                "index": str(index),
                "question": f"Question <{index}>?",
                "image": base64.b64encode(
                    image_bytes(index, "PNG" if free else "JPEG")
                ).decode(),
                "answer": str(10 * index) if free else "B",
                "category": "counting" if index <= count // 2 else "algebra",
                "choices": "[]" if free else "['A', 'B', 'C']",
                "level": "1",
            }
        )
    return rows


def choice_rows(dataset: str, count: int) -> Iterator[dict[str, str]]:
    """Make rows in the layout of MMStar and RealWorldQA; B is always right."""
    for row in math_rows(count):
        letters = {"A": "red", "B": "blue", "C": "green", "D": "grey"}
        kept = {name: row[name] for name in ("index", "question", "image", "category")}
        kept["question"] += f" Of {dataset}."
        yield {**kept, **letters, "answer": "B", "l2_category": "colour"}


def write_table(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write rows as ms-vlmeval's TSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


class Project:
    """A user's folder with a benchmark, a data root and pytest run as a process."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.data_root = pytester.path / "LMUData"
        self.data_root.mkdir()
        self.store = pytester.path / ".vlmeval" / "store.sqlite"
        self._started: list[subprocess.Popen[str]] = []

    def write_math(self, count: int, rows: Sequence[dict[str, str]] = ()) -> None:
        """Put a MathVision_MINI of invented rows and its benchmark in place."""
        write_table(
            self.data_root / "MathVision_MINI.tsv", list(rows) or math_rows(count)
        )
        self.pytester.makepyfile(test_math=BENCHMARK)

    def run(self, *arguments: str, timeout_s: float = 120) -> pytest.RunResult:
        """Run pytest here and wait for its end."""
        return self.pytester.runpytest_subprocess(*arguments, timeout=timeout_s)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start pytest in a process group of its own and do not wait for it."""
        process = subprocess.Popen(
            # Unbuffered, as tests wait for its lines.
            [
                sys.executable,
                "-u",
                "-m",
                "pytest",
                "-p",
                "no:cacheprovider",
                *arguments,
            ],
            cwd=self.pytester.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Under nohup it would be ignored, as by all that this process starts.
            preexec_fn=functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),
        )
        self._started.append(process)
        return process

    def kill_started(self) -> None:
        """End what `start` started, with all of its children."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def ask(self, url: str, *arguments: str) -> pytest.RunResult:
        """Evaluate the model of a test server."""
        return self.run(*endpoint(url), *arguments)

    def stored(self, query: str) -> list[tuple[object, ...]]:
        """Read from the run store."""
        connection = sqlite3.connect(self.store)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def junit(self, *arguments: str) -> tuple[pytest.RunResult, dict[str, ET.Element]]:
        """Run with a JUnit report and return its cases by name."""
        report = self.pytester.path / "junit.xml"
        result = self.run(*arguments, f"--junitxml={report}")
        cases = ET.parse(report).getroot().iter("testcase")
        return result, {case.attrib["name"]: case for case in cases}


def endpoint(url: str) -> list[str]:
    """Return the arguments that evaluate the model of a test server."""
    return [
        "--vlm-model=tiny-vlm",
        f"--vlm-api-base={url}",
        "--vlm-allow-modified-data",
        "--vlm-retries=1",
    ]


def properties(case: ET.Element) -> dict[str, str]:
    """Return the properties of a JUnit test case."""
    return {each.attrib["name"]: each.attrib["value"] for each in case.iter("property")}


@pytest.fixture
def installed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Put the package in front as the wheel has it: with the suite inside."""
    package = Path(pytest_vlmeval.__file__).parent
    place = tmp_path_factory.mktemp("site") / "pytest_vlmeval"
    shutil.copytree(package, place)
    shutil.copytree(package.parent / "benchmarks", place / "benchmarks")
    monkeypatch.setenv("PYTHONPATH", str(place.parent))
    return place


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Give what forks sessions, ended after the last test."""
    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def project(
    pytester: pytest.Pytester,
    sandbox_environment: SandboxEnvironment,
    run_cache: Path,
    forks: Forks,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Project]:
    """Give an empty project that shares its caches with other tests."""
    for name in list(os.environ):
        # By the variables of xdist, syrupy would take what a test starts for a worker.
        if name.startswith(("VLM_", "PYTEST_XDIST_")) or name in OPENAI_VARIABLES:
            monkeypatch.delenv(name)
    # Other plugins that are installed here cost a third of a second of each session.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_vlmeval.plugin,xdist.plugin,syrupy")
    forking = functools.partial(forks.popen, pytester.popen)
    monkeypatch.setattr(pytester, "popen", forking)
    project = Project(pytester)
    monkeypatch.setenv("LMUData", str(project.data_root))
    # Most runs are about something else and have no baseline; -k of a test counts.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k 'not test_no_regression'")
    monkeypatch.setenv("VLM_ALLOW_MISSING_BASELINE", "yes")
    # Most look at what is wrong by its outcome.
    monkeypatch.setenv("VLM_WRONG", "xfail")
    # Most count what a server was asked, or have it refuse all.
    monkeypatch.setenv("VLM_MEDIA_CHECK", "off")
    # So too with stored answers, of models that a test changes on purpose.
    monkeypatch.setenv("VLM_REUSE", "always")
    monkeypatch.setenv("VLM_CACHE_DIR", str(run_cache))
    monkeypatch.setenv("VLM_SANDBOX_PYTHON", str(sandbox_environment.python))
    yield project
    project.kill_started()
