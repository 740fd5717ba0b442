"""Which datasets a command line needs, known before any of them is prepared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_vlmeval.suite.selection import may_select

SOURCE = """
import pytest

@pytest.mark.slow
class TestMMBench:
    def test_sample(self): ...
    def test_score(self): ...
"""


@pytest.fixture
def module(pytester: pytest.Pytester) -> Path:
    """Write a module of two tests, with another one beside it."""
    pytester.makepyfile(test_other="def test_sample(): ...")
    return pytester.makepyfile(test_bench=SOURCE)


class Recorder:
    """A plugin that asks about each test just when pytest parametrizes it."""

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset
        self.selected: dict[str, bool] = {}

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if metafunc.cls is not None:
            name = metafunc.definition.name
            self.selected[name] = may_select(metafunc.definition, self._dataset)


def select(
    pytester: pytest.Pytester, test: str, *arguments: str, dataset: str = "MMStar"
) -> bool:
    """Ask whether `TestMMBench.test[dataset...]` can be selected."""
    recorder = Recorder(dataset)
    pytester.inline_run("--collect-only", *arguments, plugins=[recorder])
    # Under --lf pytest leaves out whole files by itself.
    return recorder.selected.get(test, False)


@pytest.mark.parametrize(
    ("keyword", "expected"),
    [
        ("MMStar", True),
        ("mmstar", True),
        ("MMBench", True),  # the class
        ("POPE", False),
        ("not MMStar", False),
        ("POPE or MMStar", True),
        ("MMStar and not test_sample", False),
        ("17", True),  # perhaps an index
        ("MMStar-17", True),
        ("Star-1", True),
        ("POPE-17", False),
        ("not 17", True),
        ("MMStar and not 17", True),
        ("17 and not MMStar", False),
        ("test_bench", True),
        ("slow", True),
        ("test_score", False),
        ("-", True),
        ("((", True),  # pytest itself complains
        ("1 or 2 or 3 or 4 or 5 or 6 or 7 or 8 or 9 or 10", True),
    ],
)
def test_keywords(
    pytester: pytest.Pytester, module: Path, keyword: str, expected: bool
) -> None:
    assert select(pytester, "test_sample", "-k", keyword, str(module)) is expected


@pytest.mark.parametrize(
    ("markers", "expected"),
    [("slow", True), ("not slow", False), ("core", False), ("slow or core", True)],
)
def test_markers(
    pytester: pytest.Pytester, module: Path, markers: str, expected: bool
) -> None:
    assert select(pytester, "test_sample", "-m", markers, str(module)) is expected


@pytest.mark.parametrize(
    ("argument", "sample", "score"),
    [
        ("", True, True),
        ("test_bench.py", True, True),
        ("test_bench.py::TestMMBench", True, True),
        ("test_bench.py::TestMMBench::test_sample", True, False),
        ("test_bench.py::TestMMBench::test_sample[MMStar-17]", True, False),
        ("test_bench.py::TestMMBench::test_sample[POPE-17]", False, False),
        ("test_bench.py::TestMMBench::test_score[MMStar]", False, True),
        ("test_bench.py::TestMMBench::test_score[MMStarr]", False, False),
    ],
)
def test_paths_and_node_ids(
    pytester: pytest.Pytester, module: Path, argument: str, sample: bool, score: bool
) -> None:
    arguments = [argument] if argument else []
    assert select(pytester, "test_sample", *arguments) is sample
    assert select(pytester, "test_score", *arguments) is score


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("own_suite", True),
        ("own_suite.test_bench", True),
        ("own_suite.test_bench::TestMMBench::test_sample[MMStar-17]", True),
        ("own_suite.test_bench::TestMMBench::test_sample[POPE-17]", False),
        ("test_other.py", False),
    ],
)
def test_modules_of_installed_packages(
    pytester: pytest.Pytester, argument: str, expected: bool
) -> None:
    pytester.makepyfile(test_other="def test_sample(): ...")
    site = pytester.mkdir("site")
    pytester.syspathinsert(site)
    package = site / "own_suite"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "test_bench.py").write_text(SOURCE, encoding="utf-8")
    assert select(pytester, "test_sample", "--pyargs", argument) is expected


def test_the_folder_of_the_session_is_no_keyword(
    pytester: pytest.Pytester, module: Path
) -> None:
    folder = pytester.path.name
    assert folder.startswith("test_the_folder")
    assert select(pytester, "test_sample", "-k", f"not {folder}", str(module))


def test_several_node_ids_are_taken_together(
    pytester: pytest.Pytester, module: Path
) -> None:
    ids = [
        f"test_bench.py::TestMMBench::test_sample[{i}]" for i in ("POPE-1", "MMStar-2")
    ]
    assert select(pytester, "test_sample", *ids)
    assert select(pytester, "test_sample", *ids, dataset="POPE")
    assert not select(pytester, "test_sample", *ids, dataset="MMBench")


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        (["test_bench.py::TestMMBench::test_sample[MMStar-3]"], True),
        (["test_bench.py::TestMMBench::test_sample[POPE-3]"], False),
        (["test_other.py::test_sample"], False),
        (["elsewhere/test_x.py::test_y"], True),  # out of reach: everything runs
        ([], True),
    ],
)
def test_last_failed(
    pytester: pytest.Pytester, module: Path, failed: list[str], expected: bool
) -> None:
    cache = pytester.mkpydir(".pytest_cache") / "v" / "cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").write_text(json.dumps(dict.fromkeys(failed, True)))
    arguments = ["--lf", "test_bench.py", "test_other.py"]
    assert select(pytester, "test_sample", *arguments) is expected
