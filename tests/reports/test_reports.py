"""Reports of sessions and of stored runs: their commands, figures and images."""

from __future__ import annotations

import base64
import contextlib
import html
import io
import os
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

from pytest_vlmeval.gates.baseline_file import find_flips
from pytest_vlmeval.records import FlippedSample, GateResult, wilson
from pytest_vlmeval.reports.comparison import format_comparison
from pytest_vlmeval.reports.export import load_schema
from pytest_vlmeval.reports.flips import (
    MOST_LINES,
    MOST_ROWS,
    Flips,
    flips_of_gates,
    format_flips,
    write_flips,
)
from pytest_vlmeval.reports.html import embed_images
from pytest_vlmeval.reports.record import Before, RunReport, load_run, with_baseline
from pytest_vlmeval.reports.summary import (
    LEVEL,
    OUTCOMES,
    find_share,
    percentiles,
    summarize,
)
from pytest_vlmeval.reports.terminal import format_markdown
from pytest_vlmeval.run.store import Store
from tests.support.baseline_files import make, make_verdicts
from tests.support.report_store import fill_store
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


COUNT = 120


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunReport]:
    """Give an artificial run with 24 images."""
    folder = tmp_path_factory.mktemp("report")
    run_id = fill_store(folder, folder / "cache", COUNT, images=24)
    store = Store(folder)
    yield load_run(store, folder / "cache", run_id)
    store.close()


def test_wilson_interval_of_a_published_example() -> None:
    # R. G. Newcombe, Two-sided confidence intervals for the single proportion, 1998,
    # doi 10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E, table I.
    for part, whole, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        bounds = wilson(part / whole, whole, 0.975)
        assert tuple(round(each, 4) for each in bounds) == (low, high)
    # Reports show the level of gates: each bound holds with 95 %.
    share = find_share(81, 263)
    assert (share.low, share.high) == wilson(81 / 263, 263, 0.95)
    assert LEVEL == 0.9


def test_percentiles_by_the_nearest_rank() -> None:
    assert percentiles([]) == {}
    assert percentiles(list(range(1, 101))) == {50: 50, 95: 95, 99: 99}
    assert percentiles([7]) == {50: 7, 95: 7, 99: 7}


def test_figures_of_a_dataset(report: RunReport) -> None:
    (dataset,) = report.datasets
    summary = summarize(dataset)
    assert sum(summary.counts.values()) == COUNT
    assert summary.counts["failed"] == 1
    assert summary.cut_off == 1
    assert sum(bin.count for bin in summary.lengths) == COUNT - 2
    assert sum(summary.confusion.values()) == COUNT
    assert [each.share.whole for each in summary.categories] == [30, 30, 30, 30]
    assert summary.interval is not None
    low, high = summary.interval
    assert dataset.score is not None
    assert low < dataset.score.value < high


def webp(data: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format == "WEBP"
    return image


def test_images_are_embedded_once_and_made_smaller(report: RunReport) -> None:
    images = embed_images(report, 30)
    assert len(images.found) == 24
    assert (images.left_out, images.unreadable) == (0, 0)
    assert {webp(each).size for each in images.found.values()} == {(448, 336)}
    size = sum(map(len, images.found.values()))
    fewer = embed_images(report, size / 1e6 * 0.6)
    assert fewer.side == 384
    assert len(fewer.found) == 24
    assert {webp(each).size for each in fewer.found.values()} == {(384, 288)}


def test_without_room_what_is_not_right_keeps_its_images(report: RunReport) -> None:
    (dataset,) = report.datasets
    # An image of its own for each sample, so that it is clear whose it is.
    samples = [each for each in dataset.samples if each.index != "5"][:24]
    shown = replace(report, datasets=(replace(dataset, samples=tuple(samples)),))
    wanted = {each.prompt[0][0].media for each in samples if each.outcome != "correct"}
    whole = embed_images(shown, 30).found
    size = sum(map(len, whole.values()))
    images = embed_images(shown, size / 1e6 * 0.4)
    assert 4 < len(wanted) < len(images.found) < len(whole)
    assert set(list(images.found)[: len(wanted)]) == wanted
    assert images.left_out == len(whole) - len(images.found)
    assert sum(map(len, images.found.values())) <= size * 0.4
    assert embed_images(shown, 0).left_out == len(whole)


def test_a_image_that_cannot_be_read_is_counted(
    report: RunReport, tmp_path: Path
) -> None:
    (tmp_path / "media").mkdir()
    (dataset,) = report.datasets
    sample = dataset.samples[0]
    (tmp_path / "media" / sample.prompt[0][0].media).write_bytes(b"GIF89a nothing")
    broken = replace(dataset, folder=tmp_path, samples=(sample,))
    images = embed_images(replace(report, datasets=(broken,)), 30)
    assert (len(images.found), images.unreadable, images.left_out) == (0, 1, 0)


def test_runs_without_common_samples(report: RunReport) -> None:
    assert format_comparison(replace(report, compared_with="x (1)")) == [
        f"artificial ({report.run_id}) against x (1)",
        "",
        "Artificial: the other run has none of its samples",
    ]


SAMPLES = (
    FlippedSample(index="7", before="right", now="wrong", is_lost=True),
    FlippedSample(index="a|b", before="0.75", now="none", is_lost=True),
    FlippedSample(index="9", before="wrong", now="right", is_lost=False),
)
GATE = GateResult(
    dataset="Data",
    gate="baseline",
    outcome="failed",
    message="Data is worse than its baseline.",
    rule="paired",
    lost=2,
    gained=1,
    flips=SAMPLES,
    fails=True,
)


def many(count: int) -> tuple[FlippedSample, ...]:
    """Give so many samples that were lost."""
    return tuple(replace(SAMPLES[0], index=str(number)) for number in range(count))


def test_both_have_the_same_rows() -> None:
    found = flips_of_gates([GATE, replace(GATE, dataset="Same", flips=())])
    assert format_flips(found) == [
        "dataset  sample  before  now",
        "-------  ------  ------  -----",
        "Data     7       right   wrong",
        "Data     a|b     0.75    none",
        "Data     9       wrong   right",
    ]
    assert write_flips(found, "the baseline") == [
        "### 2 lost and 1 gained since the baseline",
        "",
        "| dataset | sample | before | now |",
        "| --- | --- | --- | --- |",
        "| Data | 7 | right | wrong |",
        "| Data | a\\|b | 0.75 | none |",
        "| Data | 9 | wrong | right |",
    ]
    page = format_markdown("tiny", [GATE])
    assert "\n".join(write_flips(found, "the baseline")) in page
    # Its parts are set off, or the second table would be text.
    assert "\n\n### 2 lost" in page


def test_nothing_flipped() -> None:
    assert format_flips([]) == write_flips([Flips("Data", ())], "the baseline") == []
    assert "###" not in format_markdown("tiny", [replace(GATE, flips=())])


def test_both_are_bounded_and_count_the_rest() -> None:
    found = [Flips("one", many(500)), Flips("two", many(3))]
    lines = format_flips(found)
    assert len(lines) <= MOST_LINES + 3
    assert sum(line.startswith("two") for line in lines) == 3
    shown = len(lines) - 3
    assert lines[-1] == f"and {503 - shown} more, which the HTML report shows"
    page = write_flips(found, "the baseline")
    assert page[0] == "### 503 lost and 0 gained since the baseline"
    assert page[-1] == f"And {503 - (len(page) - 6)} more."
    crowd = [Flips(f"set {number}", many(9)) for number in range(2 * MOST_ROWS)]
    page = write_flips(crowd, "the baseline")
    assert len(page) == MOST_ROWS + 6
    assert len("\n".join(page)) < 65_536


def test_those_lost_come_first() -> None:
    verdicts = make_verdicts(60)
    turned = tuple(replace(each, value=0.0 if each.value else 1.0) for each in verdicts)
    found = find_flips(make(verdicts), make(turned))
    assert len(found) == 60
    lost = [each.is_lost for each in found]
    assert lost == sorted(lost, reverse=True)
    assert {(each.before, each.now) for each in found} == {
        ("right", "wrong"),
        ("wrong", "right"),
        ("none", "right"),
    }


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")


def test_all_outcomes_are_explained() -> None:
    table = PAGE.partition("| outcome | meaning |")[2].partition("##")[0]
    assert set(re.findall(r"`(\w+)`", table)) == set(OUTCOMES)
    names = load_schema()["properties"]["datasets"]["items"]["properties"]["outcomes"]
    assert set(names["propertyNames"]["enum"]) == set(OUTCOMES)


def test_files_exist() -> None:
    for path in re.findall(r"pytest_vlmeval/[\w./]+", PAGE):
        assert (ROOT / path).is_file()
