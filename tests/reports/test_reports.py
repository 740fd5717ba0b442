"""Reports of sessions and of stored runs, from the command line."""

from __future__ import annotations

import contextlib
import html
import os
import re
import signal
import sqlite3
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from pytest_vlmeval.reports.record import Before, load_run, with_baseline
from pytest_vlmeval.run.store import Store
from tests.support.run_fixtures import Project, endpoint
from tests.support.server_fixtures import ServerProcess


@pytest.fixture
def demo(project: Project) -> Project:
    """Give a project with two datasets of the demo model."""
    project.pytester.makepyfile(
        test_demo="""
        from pytest_vlmeval import Benchmark

        class TestDemo(Benchmark):
            datasets = ["DemoChoice", "DemoOpen"]
        """
    )
    return project


def test_a_stored_run_is_reported_later(demo: Project) -> None:
    demo.run("--vlm-model=demo", "--vlm-limit=3")
    demo.run("--vlm-model=demo", "--vlm-data=DemoChoice")
    result = demo.run("--vlm-mode=report", "--vlm-report=later.html")
    path = demo.pytester.path / "later.html"
    result.stdout.fnmatch_lines([f"report: {path} (* MB)"])
    assert result.ret == 0
    assert "collected" not in result.stdout.str()
    page = path.read_text(encoding="utf-8")
    # Of each dataset the session that took most of it.
    assert "2 datasets · 43 samples" in page
    # Of the newer session, which found three answers of the older one.
    assert '<span class="tag stored">3 answers from the store</span>' in page
    assert " --vlm-model=demo --vlm-data=DemoChoice</pre>" in page
    assert f"<dt>pytest</dt><dd>{version('pytest')}</dd>" in page


def test_the_runs_of_a_store(demo: Project, server: ServerProcess) -> None:
    demo.run("--vlm-model=demo")
    demo.write_math(4)
    server.control(default="B")
    demo.ask(server.url, "test_math.py")
    result = demo.run("--vlm-runs")
    result.stdout.re_match_lines(
        [
            r"run  +model  +last session  +commit  +dataset  +score$",
            r"[-0-9a-f]+-1  tiny-vlm  \d+-\d\d-\d\d \d\d:\d\d UTC  -  +Math"
            r"Vision_MINI  Overall/acc \(exact matching\) 50\.00 of 100 \(4 sam",
            r"[-0-9a-f]+-1  demo  +\d+-\d\d-\d\d .* DemoChoice  +Overall 92\.50 of 100",
            r" +DemoOpen +Overall 95\.00 of 100 \(40 samples\)$",
        ],
        consecutive=False,
    )
    # Each run by what its last session scored it with, found again or not.
    for scoring, named in (("corrected", ", corrected"), ("published", "")):
        demo.ask(server.url, "test_math.py", f"--vlm-scoring={scoring}")
        listed = demo.run("--vlm-runs").stdout.str()
        assert re.search(rf"Overall/acc \(exact .*\(4 samples{named}\)\n", listed)


def test_two_runs_are_compared(project: Project, server: ServerProcess) -> None:
    project.write_math(10)
    server.control(default="B")
    project.ask(server.url)
    server.control(default="C", answers={"<2>": "B", "<1>": "10"})
    project.ask(server.url, "--vlm-temperature=0.5")
    query = "SELECT run_id FROM runs ORDER BY json_extract(settings, '$.temperature')"
    old, new = (str(run) for (run,) in project.stored(query))
    for given, named in (
        ([], "none"),
        ([old], old),
        ([old, new, "x"], f"{old}, {new}, x"),
    ):
        result = project.run("--vlm-compare", *given)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(
            [
                f"ERROR: --vlm-compare takes two runs, A and B, and was given {named}. "
                "Name two of those that pytest --vlm-runs lists, and nothing behind "
                "them."
            ]
        )
    listed = project.run("--vlm-runs").stdout.str()
    assert old in listed
    assert new in listed
    result = project.run("--vlm-compare", old, new, "--vlm-report=c.html")
    result.stdout.fnmatch_lines(
        [
            f"tiny-vlm ({new}) against tiny-vlm ({old})",
            "MathVision_MINI: 50.00 % before, 20.00 % now, of 10 samples that both "
            "have",
            # 90 %: each bound holds with 95 %.
            "  accuracy -30.0 points, 90 % CI [[]-*, +*[]]; p = 0.375, exact McNemar, "
            "two-sided; CI by paired score (Tango)",
            "  4 lost, 1 gained",
            "  dataset          sample  before  now",
            *(f"  MathVision_MINI  {index} * right   wrong" for index in (4, 6, 8, 10)),
            "  MathVision_MINI  1       wrong   right",
            "report: *c.html (* MB)",
        ]
    )
    page = (project.pytester.path / "c.html").read_text(encoding="utf-8")
    assert f"Compared with <b>tiny-vlm ({old})</b>" in page
    # Other data are other questions, whatever their names are.
    project.write_math(11)
    project.ask(server.url, "--vlm-temperature=0.7")
    query = "SELECT run_id FROM runs ORDER BY created_at DESC LIMIT 1"
    ((other,),) = project.stored(query)
    result = project.run("--vlm-compare", old, str(other))
    result.stdout.fnmatch_lines(
        ["MathVision_MINI: not compared, its data or prompts were others then"]
    )
    result.stdout.no_fnmatch_line("*% before*")


def test_flips_against_the_baseline(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS")
    project.write_math(10)
    server.control(default="B")
    project.ask(server.url, "--snapshot-update")
    server.control(default="C", answers={"<2>": "B", "<1>": "10"})
    result = project.ask(server.url, "--vlm-fresh", "--vlm-report=report.html")
    result.stdout.fnmatch_lines(["vlmeval: report: *"])
    store = Store(project.store.parent)
    run = store.runs()[0]
    cache = Path(os.environ["VLM_CACHE_DIR"])
    report = load_run(store, cache, run.run_id)
    store.close()
    (dataset,) = report.datasets
    assert report.compared_with == "the baseline"
    flips = {each.index: each.flip for each in dataset.samples if each.flip}
    assert flips == {
        **dict.fromkeys("468", "regressed"),
        "10": "regressed",
        "1": "fixed",
    }
    # The baseline has verdicts alone; its answers are in the store.
    before = {each.before.text for each in dataset.samples if each.before and each.flip}
    assert before == {"B"}
    page = (project.pytester.path / "report.html").read_text(encoding="utf-8")
    assert "Compared with <b>the baseline</b>" in page
    for index in "468":
        assert f"sample=MathVision_MINI/{index}" in html.unescape(page)
    assert f"<dd>{server.url} <span" in page
    assert "--vlm-fresh --vlm-report=report.html</pre>" in page
    # A store that has not got them says so in the page.
    elsewhere = replace(dataset, past=())
    assert with_baseline(elsewhere).samples[3].before == Before(
        outcome="correct", value=1.0
    )
    # A baseline that is another by now says nothing of what the gate saw.
    (gate,) = (each for each in dataset.gates if each.gate == "baseline")
    changed = replace(gate, expected=1.0)
    bare = replace(dataset, samples=(replace(dataset.samples[3], before=None),))
    assert with_baseline(replace(bare, gates=(gate,))).samples[0].flip == "regressed"
    assert with_baseline(replace(bare, gates=(changed,))).samples[0].before is None


def test_what_cannot_be_reported_is_explained(project: Project) -> None:
    work_dir = project.pytester.path / ".vlmeval"
    result = project.run("--vlm-runs")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            f"ERROR: There is no run store in {work_dir}. Run a benchmark first, or "
            "name the folder of another store with --vlm-work-dir."
        ]
    )
    Store(work_dir).close()
    assert project.run("--vlm-runs").outlines == ["The store has no run yet."]
    for arguments, message in (
        (
            ["--vlm-mode=report"],
            "--vlm-mode=report writes the reports of a stored run, and none is named: "
            "give --vlm-report=FILE.html, --vlm-export=DIR, or both.",
        ),
        (
            ["--vlm-mode=report", "--vlm-report=a.html", "--vlm-model=x"],
            "The store has no run of the model x. Run a benchmark first.",
        ),
        (
            ["--vlm-mode=report", "--vlm-report=a.html", "--vlm-run=x"],
            "The store has no run 'x'. Its runs are: none. Name one by its id, the "
            "beginning of its id, or its model.",
        ),
        (
            ["--vlm-mode=report", "--vlm-report=a.pdf"],
            "--vlm-report=a.pdf is not accepted: --vlm-report takes a file that ends "
            "in .html.",
        ),
    ):
        result = project.run(*arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert f"ERROR: {message}" in result.errlines


def test_a_report_that_cannot_be_written_fails_the_session(demo: Project) -> None:
    (demo.pytester.path / "file").touch()
    result = demo.run("--vlm-model=demo", "--vlm-limit=2", "--vlm-report=file/a.html")
    path = demo.pytester.path / "file" / "a.html"
    result.stdout.fnmatch_lines(
        [
            f"vlmeval: The report {path} cannot be written: File exists. Name another "
            "file; --vlm-mode=report writes it from the store at any time."
        ]
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def wait_for_answers(project: Project, count: int) -> None:
    """Wait until the store has as many answers."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        # The file is there before its tables.
        with contextlib.suppress(sqlite3.OperationalError):
            if len(project.stored("SELECT seq FROM answers")) == count:
                return
        time.sleep(0.2)
    raise AssertionError("the answers did not arrive")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
def test_an_interrupted_run_has_its_report(
    project: Project, server: ServerProcess, workers: list[str]
) -> None:
    project.write_math(6)
    server.control(default="B", rules=[{"contains": "<5>", "latency_s": 600}])
    arguments = [*endpoint(server.url), "--vlm-report=report.html", *workers]
    # Answers in flight are waited for, as long as a request may take.
    arguments.append("--vlm-timeout=15")
    process = project.start(*arguments)
    wait_for_answers(project, 5)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert "vlmeval: report: " in output
    page = (project.pytester.path / "report.html").read_text(encoding="utf-8")
    assert "1 dataset · 6 samples" in page
    assert '<li><span class="swatch missing"' in page
