"""The end of a session of 65 datasets: a table, and at most a screen after it."""

from __future__ import annotations

import re

import pytest

from tests.support.gated_tables import answers, thresholds_of, write_own
from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess

NAMES = [f"table{n:02}" for n in range(65)]
LOST, WRONG = NAMES[:12], NAMES[:30]
SCREEN, WIDTH = 24, 100


@pytest.fixture
def many(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """Give 65 tables of two questions, of which 12 get no answer and 18 are wrong."""
    for name in ("VLM_WRONG", "VLM_ALLOW_MISSING_BASELINE", "PYTEST_ADDOPTS"):
        monkeypatch.delenv(name)
    # In a CI, pytest does not cut its lines.
    monkeypatch.setenv("CI", "true")
    write_own(project, *NAMES, samples=2)
    refused = [
        {"contains": f"{name} <1>", "status": 400, "message": "too large"}
        for name in LOST
    ]
    answers(server, *refused, **dict.fromkeys(WRONG, 1))
    return project


def after_the_table(result: pytest.RunResult) -> list[str]:
    """Return what stands below the row of the last dataset, as wide as a screen."""
    lines = result.outlines
    last = max(n for n, line in enumerate(lines) if line.startswith(f"{NAMES[-1]} "))
    return [
        line[start : start + WIDTH]
        for line in lines[last + 1 :]
        for start in range(0, max(len(line), 1), WIDTH)
    ]


def messages(result: pytest.RunResult) -> str:
    """Return what failed, as pytest shows it above the table."""
    text = result.stdout.str()
    return text.partition("= FAILURES =")[2].partition("= vlmeval =")[0]


@pytest.mark.parametrize(
    "workers", [(), pytest.param(("-n2",), marks=pytest.mark.slow)], ids=["one", "two"]
)
def test_failures_of_many_datasets_fit_a_screen(
    many: Project, server: ServerProcess, workers: tuple[str, ...]
) -> None:
    other = many.pytester.path / "__baselines__" / "tiny-vlm" / "other.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    thresholds_of(many).write_text(
        "".join(
            f"[tiny-vlm.'{name}.tsv']\nmin = 90\nrule = 'point'\n" for name in NAMES
        )
    )
    result = many.ask(server.url, *workers)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = result.parseoutcomes()
    assert (outcomes["failed"], outcomes["wrong"]) == (12 + 30 + 65, 30)
    end = after_the_table(result)
    assert len(end) <= SCREEN, "\n".join(end)
    text = "\n".join(after_the_table(result)).replace("\n", "")
    # Each fact once, with some of the names.
    for fact, names in (
        ("and model tiny-vlm, so a regression cannot be detected", 52),
        ("Overall is below its threshold", 29),
        ("is not compared with __baselines__/tiny-vlm/", 11),
        ("samples has no usable answer", 11),
    ):
        assert text.count(fact) == 1, fact
        _, _, rest = text.partition(fact)
        assert f" and {names - 1} more)" in rest.partition("gates: ")[0], fact
    assert "FAILED test_own.py::TestOwn::test_no_regression - 65 datasets" in text
    assert "FAILED test_own.py::TestOwn::test_score - 30 datasets" in text
    assert re.search(
        r"FAILED test_own.py::TestOwn::test_sample - 12 samples of 12 datasets.*: "
        rf"table..-1 has no usable answer: {server.url} answered 400: too large",
        text,
    )
    assert text.count("(-v names all)") == 1
    # What is the same of many is told once above the table, too, with all names.
    told = messages(result)
    assert told.count("has no usable answer: ") == 1
    assert told.count("so a regression cannot be detected") == 1
    assert told.count("below its threshold") == 2
    # Workers end in any order.
    lost = told[: told.index("TestOwn.test_score")]
    assert re.search(r"TestOwn.test_sample\[table..-1\] and 11 more", lost)
    assert set(re.findall(r"table..(?=-1)", lost)) == set(LOST)
    assert re.search(r"test_no_regression\[table..\] and 52 more", told)
    # All of it on demand, from the store.
    page = many.pytester.path / "all.html"
    verbose = many.ask(server.url, "-v", f"--vlm-report={page}", *workers).stdout.str()
    text = page.read_text(encoding="utf-8")
    for name in NAMES:
        assert f"baseline for {name} and" in text or f"{name} is not compared" in text
        assert f"FAILED test_own.py::TestOwn::test_no_regression[{name}]" in verbose


def test_answers_of_two_sessions_are_one_line(
    many: Project, server: ServerProcess
) -> None:
    many.ask(server.url, "-k", "test_score and not table5")
    result = many.ask(server.url, "-k", "test_score", "--vlm-min-answered=50")
    assert result.ret == 0
    end = after_the_table(result)
    assert len(end) <= SCREEN, "\n".join(end)
    # Those without an answer are asked again, and refused again.
    (line,) = (line for line in result.outlines if " answers: " in line)
    assert line.startswith("130 answers: 32 asked now, 98 from the store (")
    assert f", {server.url}), " in line


def test_missing_baselines_of_a_first_run_are_told_once(
    many: Project, server: ServerProcess
) -> None:
    result = many.ask(server.url, "--vlm-min-answered=50", "-k", "not test_sample")
    assert result.ret == 0
    end = after_the_table(result)
    assert len(end) <= SCREEN, "\n".join(end)
    assert sum("no baselines yet" in line for line in end) == 1


def test_what_flipped_in_many_datasets_fits_a_screen_too(
    many: Project, server: ServerProcess
) -> None:
    answers(server)
    scores = ("-k", "not test_sample", "--snapshot-update")
    assert many.ask(server.url, *scores).ret == 0
    thresholds_of(many).write_text(
        "".join(f"[tiny-vlm.'{name}.tsv']\nmin = 90\n" for name in NAMES)
    )
    lost = [
        {"contains": f"{name} <1>", "status": 400, "message": "too large"}
        for name in LOST
    ]
    answers(server, *lost, **dict.fromkeys(NAMES, 1))
    page = f"--vlm-report={many.pytester.path / 'all.html'}"
    result = many.ask(server.url, "--vlm-fresh", "--vlm-inconclusive=fail", page)
    end = after_the_table(result)
    assert len(end) <= SCREEN, "\n".join(end)
    text = "".join(end)
    # Of those without an answer nothing is compared.
    assert text.count("below its baseline") == 1
    assert text.count("may be chance") == 1
    assert text.count("too close to its threshold") == 1
    assert "dataset  sample  before  now" in result.stdout.str()
