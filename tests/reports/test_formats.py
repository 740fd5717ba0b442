"""What is written for other programs, read by those programs' own libraries."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import NamedTuple

import jsonschema
import openpyxl
import pandas as pd
import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import GateResult, Score
from pytest_vlmeval.reports.export import (
    as_results,
    format_summary,
    load_schema,
    write_export,
)
from pytest_vlmeval.reports.outputs import format_result, write_result_tables
from pytest_vlmeval.reports.record import RunReport, compare, load_run
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.sandbox.inside.metrics import flatten
from tests.support.report_store import DATASET, HOSTILE, SESSION, fill_store
from tests.support.run_fixtures import Project, endpoint, properties
from tests.support.server_fixtures import ServerProcess

COUNT = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the stores of two runs over the same samples."""
    folder = tmp_path_factory.mktemp("formats")
    fill_store(folder / "new", folder / "cache", COUNT, images=4)
    fill_store(folder / "old", folder / "other", COUNT, images=4, seed=8)
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> RunReport:
    """Give the newer run, compared with the older, with a gate that failed."""
    reports = []
    for name in ("new", "old"):
        store = Store(folder / name)
        run = store.runs()[0]
        gate = GateResult(
            dataset=DATASET,
            gate="threshold",
            outcome="failed",
            message="Overall 60 is below 70.\nn = 300 | p = 0.01 <b>",
            metric="Overall",
            fails=True,
        )
        store.save_gates(SESSION, run.run_id, [gate])
        reports.append(load_run(store, folder / "cache", run.run_id))
        store.close()
    return compare(*reports)


@pytest.fixture(scope="module")
def export(report: RunReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that the run was written into."""
    folder = tmp_path_factory.mktemp("export")
    notes = write_export(report, folder, "tsv")
    assert notes == [
        "Artificial: no prediction file, because its prepared data is gone from "
        "--vlm-cache-dir"
    ]
    return folder


def test_json_does_not_call_passed_what_had_nothing_to_hold_against(
    report: RunReport,
) -> None:
    (dataset,) = report.datasets
    found = []
    for rule in ("none", "first", "written", ""):
        gate = replace(dataset.gates[0], outcome="passed", rule=rule)
        changed = replace(report, datasets=(replace(dataset, gates=(gate,)),))
        results = json.loads(json.dumps(as_results(changed)))
        jsonschema.validate(results, load_schema())
        found.append(results["datasets"][0]["gates"][0]["outcome"])
    assert found == ["not_set", "not_set", "written", "passed"]


def test_json_is_what_its_schema_says(report: RunReport, export: Path) -> None:
    schema = load_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    results = json.loads((export / "results.json").read_text(encoding="utf-8"))
    jsonschema.validate(results, schema)
    (dataset,) = results["datasets"]
    assert dataset["name"] == DATASET
    assert dataset["samples"] == COUNT == sum(dataset["outcomes"].values())
    assert dataset["score"]["correct"] == dataset["outcomes"]["correct"]
    assert dataset["gates"][0]["outcome"] == "failed"
    assert results["account"]["model"]["answers"] > 0
    assert results["run"]["commit"] == "0123456789-dirty"
    flips = dataset["regressed"], dataset["fixed"]
    samples = report.datasets[0].samples
    assert flips == tuple(
        sum(each.flip == flip for each in samples) for flip in ("regressed", "fixed")
    )


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["version"], 2),
        (["datasets", 0, "outcomes"], {"right": 1}),
        (["datasets", 0, "score", "value"], "60"),
        (["datasets", 0, "gates", 0, "outcome"], "maybe"),
        (["more"], 1),
    ],
)
def test_the_schema_refuses_what_is_wrong(
    report: RunReport, path: list[str | int], value: object
) -> None:
    results = json.loads(json.dumps(as_results(report)))
    place = results
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(results, load_schema())


def test_pandas_reads_the_samples_in_one_line(export: Path) -> None:
    table = pd.read_parquet(export / "samples.parquet")
    assert list(table["index"]) == [str(number) for number in range(COUNT)]
    assert set(table["outcome"]) >= {"correct", "wrong", "failed", "empty"}
    assert list(table["index"][table["cut_off"]]) == ["51", "154", "257"]
    hostile = HOSTILE.replace("\x00", "�").replace("\x1b", "�")
    assert table["answer"][3] == hostile
    text = pd.read_csv(export / "results.csv", keep_default_na=False)
    assert list(text.columns) == list(table.columns)
    assert text["answer"][3] == hostile
    assert list(text["outcome"]) == list(table["outcome"])


def test_pandas_reads_the_scores_in_one_line(export: Path, report: RunReport) -> None:
    table = pd.read_parquet(export / "scores.parquet")
    main = table[table["main"]]
    score = report.datasets[0].score
    assert score is not None
    assert list(main["metric"]) == ["Overall"]
    assert list(main["value"]) == [pytest.approx(score.value)]


def test_the_summary_is_a_table(report: RunReport) -> None:
    lines = format_summary(report).splitlines()
    assert lines[0] == "# artificial"
    assert lines[2].startswith("Run `")
    assert ", compared with artificial (" in lines[2]
    score = report.datasets[0].score
    assert score is not None
    assert f"| Artificial (modified data) | Overall | {score.value:.2f} of 100 |" in (
        "\n".join(lines)
    )
    assert f"Artificial: 3 of {COUNT} answers were cut off at the token limit" in lines
    reason = "Overall 60 is below 70.<br>n = 300 \\| p = 0.01 &lt;b>"
    assert f"| Artificial | threshold | failed | {reason} |" in lines
    table = lines.index("| dataset | sample | before | now |")
    flips = [each for each in report.datasets[0].samples if each.flip]
    lost = sum(each.flip == "regressed" for each in flips)
    assert lines[table - 2] == (
        f"### {lost} lost and {len(flips) - lost} gained since {report.compared_with}"
    )
    assert len(lines) == table + 2 + len(flips)
    assert lines[-1] == f"| Artificial | {flips[-1].index} | wrong | right |"


def test_the_summary_of_all_datasets_fits_a_comment(report: RunReport) -> None:
    """GitHub takes 65,536 characters; here 65 datasets pass three gates, one fails."""
    (dataset,) = report.datasets
    (failed,) = dataset.gates
    passed = tuple(
        replace(failed, gate=gate, outcome="passed", fails=False, message=f"ok{LONG}")
        for gate in ("completeness", "threshold", "baseline")
    )
    every = [
        replace(dataset, dataset=f"Dataset_number_{number}", gates=passed)
        for number in range(65)
    ]
    text = format_summary(replace(report, datasets=(dataset, *every)))
    assert text.count("| passed | ok |") == 3 * 65
    assert "n = 300" in text
    assert "\nAnd " in text
    assert len(text) < 65_536


LONG = "\n  value  50.00 of 100, and more of it" * 20


DEMO = """
from pytest_vlmeval import Benchmark

class TestDemo(Benchmark):
    datasets = ["DemoChoice"]
"""


@pytest.fixture
def demo(project: Project) -> Project:
    """Give a project with a dataset of the demo model."""
    project.pytester.makepyfile(test_demo=DEMO)
    return project


@pytest.mark.parametrize("kind", ["tsv", "xlsx"])
def test_predictions_have_the_layout_of_ms_vlmeval(demo: Project, kind: str) -> None:
    result = demo.run(
        "--vlm-model=demo", "--vlm-export=out", f"--vlm-predictions={kind}"
    )
    result.stdout.fnmatch_lines(["vlmeval: results: */out"])
    path = demo.pytester.path / "out" / "demo" / f"demo_DemoChoice.{kind}"
    table = pd.read_csv(path, sep="\t") if kind == "tsv" else pd.read_excel(path)
    assert "image" not in table.columns
    assert list(table["index"]) == list(range(1, 41))
    rows = demo.stored("SELECT sample_index, text FROM answers")
    stored = {str(index): text for index, text in rows}
    said = [stored[str(index)] for index in table["index"]]
    assert list(table["prediction"]) == said


def test_excel_keeps_what_looks_like_a_formula(tmp_path: Path) -> None:
    from pytest_vlmeval.reports.export import _as_tsv, _as_xlsx

    table = [["prediction"], ["=1+1"], ["007"], ["\x00" * 3]]
    content, changed = _as_xlsx(table)
    (tmp_path / "a.xlsx").write_bytes(content)
    sheet = openpyxl.load_workbook(tmp_path / "a.xlsx").active
    assert sheet is not None
    cells = [(row[0].value, row[0].data_type) for row in sheet.iter_rows(min_row=2)]
    assert cells == [("=1+1", "s"), ("007", "s"), ("�" * 3, "s")]
    assert changed == 1
    # What is said then: --vlm-predictions=tsv keeps them.
    lines = _as_tsv(table).decode().splitlines()
    assert lines == ["prediction", "=1+1", "007", "\x00" * 3]


HOSTILE_TEXT = "\x00\x1b[31m\ud800 ]]> <b>&amp; \u202e" + "x" * 5_000


class Element(NamedTuple):
    """What the published schema says of an element: attributes, and children."""

    required: AbstractSet[str]
    optional: AbstractSet[str] = frozenset()
    children: AbstractSet[str] = frozenset()


# The structure that Jenkins publishes for its reports (xunit-plugin, junit-10.xsd),
# with the properties of a test case, which its JUnit plugin, GitLab and Allure read.
OUTCOME = Element(set(), {"type", "message"})
STREAM = Element(set())
SCHEMA: Mapping[str, Element] = {
    "testsuites": Element(
        set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}
    ),
    "testsuite": Element(
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": Element(
        {"name"},
        {"time", "classname", "group"},
        {"skipped", "error", "failure", "system-out", "system-err", "properties"},
    ),
    "properties": Element(set(), set(), {"property"}),
    "property": Element({"name", "value"}),
    "skipped": OUTCOME,
    "error": OUTCOME,
    "failure": OUTCOME,
    "system-out": STREAM,
    "system-err": STREAM,
}
TIME = re.compile(r"\d*(\.\d*)?")


def violations(element: ET.Element) -> list[str]:
    """Return where a report is not as the schema says."""
    found = []
    rule = SCHEMA[element.tag]
    names = set(element.attrib)
    if missing := rule.required - names:
        found.append(f"{element.tag} lacks {missing}")
    if more := names - rule.required - rule.optional:
        found.append(f"{element.tag} has {more}")
    if not TIME.fullmatch(element.get("time", "0")):
        found.append(f"{element.tag} has the time {element.get('time')}")
    for child in element:
        if child.tag not in rule.children:
            found.append(f"{element.tag} holds {child.tag}")
        else:
            found += violations(child)
    return found


@pytest.fixture
def failing(project: Project, server: ServerProcess) -> list[str]:
    """Give what runs four samples, one of them failed, one hostile."""
    project.write_math(4)
    rules = [
        {
            "contains": "<1>",
            "status": 400,
            "message": f"no image {HOSTILE_TEXT[:20]!r}",
        },
        {"contains": "<3>", "answer": HOSTILE_TEXT},
    ]
    server.control(default="B", rules=rules)
    return endpoint(server.url)


def read_by_gitlab(case: ET.Element) -> str:
    """Tell a case's status as GitLab does (lib/gitlab/ci/parsers/test/junit.rb).

    The first element that is there decides, whatever its attributes.
    """
    for tag, status in (
        ("failure", "failed"),
        ("error", "failed"),
        ("skipped", "skipped"),
    ):
        if case.find(tag) is not None:
            return status
    return "passed"


def read_by_jenkins(case: ET.Element) -> str:
    """Tell a case's status as Jenkins does (junit-plugin, CaseResult.getStatus).

    It is skipped whatever else is there, and failed by any error or failure.
    """
    if case.find("skipped") is not None:
        return "skipped"
    found = [case.find("error"), case.find("failure")]
    return "passed" if found == [None, None] else "failed"


def read_by_dorny(case: ET.Element) -> str:
    """Tell a case's status as GitHub's dorny/test-reporter (python-xunit) does."""
    tags = {child.tag for child in case}
    if tags & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in tags else "passed"


def read_by_mikepenz(case: ET.Element) -> str:
    """Tell a case's status as GitHub's mikepenz/action-junit-report does."""
    tags = {child.tag for child in case}
    if "skipped" in tags or case.get("status") in ("disabled", "ignored"):
        return "skipped"
    return "failed" if tags & {"failure", "error"} else "passed"


READERS: Mapping[str, Callable[[ET.Element], str]] = {
    "GitLab": read_by_gitlab,
    "Jenkins": read_by_jenkins,
    "dorny": read_by_dorny,
    "mikepenz": read_by_mikepenz,
}


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
@pytest.mark.parametrize(
    ("given", "shown", "code", "line"),
    [
        # The default: in the terminal apart, in JUnit no failure, and not "skipped".
        ([], "passed", 0, "=* 2 passed, *2 wrong in *"),
        (["--vlm-wrong=pass"], "passed", 0, "=* 2 passed, *2 wrong in *"),
        (["--vlm-wrong=xfail"], "skipped", 0, "=* 2 passed, *2 xfailed in *"),
        (["--vlm-wrong=fail"], "failed", 1, "=* 2 failed, 2 passed* in *"),
    ],
    ids=["default", "pass", "xfail", "fail"],
)
def test_all_readers_show_wrong_answers_as_asked(
    project: Project,
    server: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
    workers: list[str],
    given: list[str],
    shown: str,
    code: int,
    line: str,
) -> None:
    monkeypatch.delenv("VLM_WRONG")
    project.write_math(3)
    server.control(default="B")
    result, cases = project.junit(*endpoint(server.url), *given, *workers)
    assert result.ret == code
    result.stdout.fnmatch_lines([line])
    root = ET.parse(project.pytester.path / "junit.xml").getroot()
    assert violations(root) == []
    # GitLab keeps one of those whose names are the same.
    names = [
        (each.get("classname"), each.get("name")) for each in root.iter("testcase")
    ]
    assert len(set(names)) == len(names) == 4
    for name, read in READERS.items():
        found = {case: read(element) for case, element in cases.items()}
        assert found == {
            "test_sample[MathVision_MINI-1]": shown,
            "test_sample[MathVision_MINI-2]": "passed",
            "test_sample[MathVision_MINI-3]": shown,
            "test_score[MathVision_MINI]": "passed",
        }, name
    wrong = cases["test_sample[MathVision_MINI-1]"]
    told = properties(wrong)
    assert told["verdict"] == "wrong"
    reason = "answered B, reference 10"
    assert told.get("wrong") == (reason if shown == "passed" else None)
    message = "".join(each.get("message", "") for each in wrong)
    if shown == "failed":
        reason = f"MathVision_MINI-1 is wrong (--vlm-wrong=fail): {reason}"
        assert message == f"Failed: {reason}"
    else:
        assert message == ("" if shown == "passed" else reason)


def test_wrong_answers_are_marked_while_it_runs(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLM_WRONG")
    project.write_math(3)
    # As each option, in the ini file too.
    project.pytester.makeini("[pytest]\nvlm_wrong = pass\n")
    server.control(default="B")
    result = project.ask(server.url)
    result.stdout.fnmatch_lines(["test_math.py w.w. *"])
    verbose = project.ask(server.url, "-v", "-n2")
    verbose.stdout.fnmatch_lines_random(
        [
            "*WRONG*test_sample[[]MathVision_MINI-1[]]*",
            "*PASSED*test_sample[[]MathVision_MINI-2[]]*",
        ]
    )
    refused = project.ask(server.url, "--vlm-wrong=skip")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    refused.stderr.fnmatch_lines(
        ["*--vlm-wrong=skip is not accepted: --vlm-wrong takes pass, xfail or fail*"]
    )


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
def test_junit_is_as_its_readers_expect(
    project: Project, failing: list[str], workers: list[str]
) -> None:
    _, cases = project.junit(*failing, *workers)
    root = ET.parse(project.pytester.path / "junit.xml").getroot()
    assert violations(root) == []
    failed = cases["test_sample[MathVision_MINI-1]"].find("failure")
    assert failed is not None
    assert "MathVision_MINI-1 has no usable answer: " in failed.attrib["message"]
    wrong = cases["test_sample[MathVision_MINI-3]"].find("skipped")
    assert wrong is not None
    assert wrong.attrib["type"] == "pytest.xfail"
    assert wrong.attrib["message"].endswith("reference 30")
    score = properties(cases["test_score[MathVision_MINI]"])
    assert score["samples"] == "4"
    assert score["answered"] == "3"
    # Each name once, which is how tables of them are made.
    for case in cases.values():
        names = [each.attrib["name"] for each in case.iter("property")]
        assert len(set(names) - {"note"}) == len([n for n in names if n != "note"])


def test_the_check_finds_what_is_wrong() -> None:
    bad = ET.fromstring(
        '<testsuites><testsuite name="a" tests="1" errors="0" more="1">'
        '<testcase time="1,x"><image/></testcase></testsuite></testsuites>'
    )
    assert violations(bad) == [
        "testsuite lacks {'failures'}",
        "testsuite has {'more'}",
        "testcase lacks {'name'}",
        "testcase has the time 1,x",
        "testcase holds image",
    ]


@pytest.fixture
def all_plugins(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pytest load all plugins that are installed, as it does for users."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    monkeypatch.delenv("PYTEST_PLUGINS")


@pytest.mark.usefixtures("all_plugins")
@pytest.mark.parametrize(
    "workers",
    [[], pytest.param(["-n2"], marks=pytest.mark.slow)],
    ids=["one", "xdist"],
)
def test_pytest_html_shows_the_images_of_failed_samples(
    project: Project, failing: list[str], workers: list[str]
) -> None:
    options = ["--html=report.html", "--self-contained-html"]
    project.run(*failing, *workers, *options)
    page = (project.pytester.path / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp;base64,UklGR") == 1
    assert "MathVision_MINI-1, image 1" in page


@pytest.mark.usefixtures("all_plugins")
@pytest.mark.parametrize(
    ("wrong", "html", "allure"),
    [
        ("pass", "Passed", "passed"),
        ("xfail", "XFailed", "skipped"),
        ("fail", "Failed", "failed"),
    ],
)
def test_html_and_allure_show_wrong_answers_as_asked(
    project: Project, server: ServerProcess, wrong: str, html: str, allure: str
) -> None:
    project.write_math(2)
    server.control(default="B")
    options = ["--html=report.html", "--self-contained-html", "--alluredir=allure"]
    project.ask(server.url, f"--vlm-wrong={wrong}", *options)
    page = (project.pytester.path / "report.html").read_text(encoding="utf-8")
    blob = re.search(r'data-jsonblob="([^"]*)"', page)
    assert blob is not None
    tests = json.loads(unescape(blob[1]))["tests"]
    shown = {
        name.rpartition("::")[2]: each[-1]["result"] for name, each in tests.items()
    }
    assert shown == {
        "test_sample[MathVision_MINI-1]": html,
        "test_sample[MathVision_MINI-2]": "Passed",
        "test_score[MathVision_MINI]": "Passed",
    }
    folder = project.pytester.path / "allure"
    results = [json.loads(file.read_text()) for file in folder.glob("*-result.json")]
    assert {each["name"]: each["status"] for each in results} == {
        "test_sample[MathVision_MINI-1]": allure,
        "test_sample[MathVision_MINI-2]": "passed",
        "test_score[MathVision_MINI]": "passed",
    }


@pytest.mark.usefixtures("all_plugins")
@pytest.mark.parametrize(
    "workers",
    [[], pytest.param(["-n2"], marks=pytest.mark.slow)],
    ids=["one", "xdist"],
)
def test_allure_shows_the_images_of_failed_samples(
    project: Project, failing: list[str], workers: list[str]
) -> None:
    project.run(*failing, *workers, "--alluredir=allure")
    folder = project.pytester.path / "allure"
    results = [json.loads(file.read_text()) for file in folder.glob("*-result.json")]
    attached = {
        result["name"]: result["attachments"]
        for result in results
        if result.get("attachments")
    }
    (only,) = [
        each
        for found in attached.values()
        for each in found
        if each["type"] == "image/webp"
    ]
    assert only["name"] == "MathVision_MINI-1, image 1"
    assert (folder / only["source"]).read_bytes()[8:12] == b"WEBP"


def score_of(
    metrics: Mapping[str, float], main: str = "Overall", dataset: str = "Data"
) -> Score:
    """Give a score with these metrics."""
    return Score(
        dataset=dataset,
        metrics=metrics,
        main_metric=main,
        value=50.0,
        best=50.0,
        samples=8,
        answered=7,
        correct=4,
        undecided=0,
        modified=False,
        scorer="code",
        judge="exact_matching",
    )


def rows_of(text: str) -> list[dict[str, str]]:
    """Read a table as EvalScope's summarizer does: dicts by the columns' names."""
    return list(csv.DictReader(io.StringIO(text)))


OWN = {"samples": "8", "answered": "7", "run": "run-1"}


def test_a_table_without_splits_has_one_row_as_ms_vlmeval_s() -> None:
    """What `report_acc` makes of multiple choice (dataset/utils/multiple_choice.py)."""
    upstream = pd.DataFrame({"split": ["none"], "Overall": [0.5], "a/b": [0.25]})
    text = format_result(score_of(flatten(upstream)), "run-1")
    assert rows_of(text) == [
        {"split": "none", "Overall": "0.5", "a/b": "0.25", **OWN},
    ]
    again = pd.read_csv(io.StringIO(text))[list(upstream)]
    pd.testing.assert_frame_equal(again, upstream)


def test_splits_and_subjects_are_rows() -> None:
    upstream = pd.DataFrame(
        {"split": ["dev", "validation"], "Overall": [0.5, 0.75], "c/d": [0.25, 1.0]}
    )
    found = flatten(upstream)
    text = format_result(score_of(found, "validation/Overall"), "run-1")
    assert rows_of(text) == [
        {"split": "validation", "Overall": "0.75", "c/d": "1.0", **OWN},
        {"split": "dev", "Overall": "0.5", "c/d": "0.25", **OWN},
    ]
    # Exact matching is told by the run, and is no part of ms-vlmeval's names.
    metrics = {"Overall/acc (exact matching)": 50.0, "Overall/tot": 8, "algebra/acc": 1}
    text = format_result(score_of(metrics, "Overall/acc (exact matching)"), "run-1")
    assert rows_of(text) == [
        {"split": "Overall", "acc": "50.0", "tot": "8", **OWN},
        {"split": "algebra", "acc": "1", "tot": "", **OWN},
    ]


def test_each_dataset_has_a_table_that_is_written_anew(tmp_path: Path) -> None:
    scores = [score_of({"Overall": 0.5}), score_of({"Overall": 1.0}, dataset="O'her")]
    for run in ("run-1", "run-2"):
        lines = write_result_tables(scores, tmp_path, model="org/m 1", run_id=run)
        assert lines == [f"2 result tables: {tmp_path}/org_m_1/org_m_1_*_acc.csv"]
    names = sorted(path.name for path in (tmp_path / "org_m_1").iterdir())
    assert names == ["org_m_1_Data_acc.csv", "org_m_1_O_her_acc.csv"]
    table = tmp_path / "org_m_1" / names[0]
    assert [row["run"] for row in rows_of(table.read_text())] == ["run-2"]
    assert write_result_tables([], tmp_path, model="m", run_id="run-1") == []


def test_a_file_of_another_program_stays(tmp_path: Path) -> None:
    path = tmp_path / "m" / "m_Data_acc.csv"
    path.parent.mkdir()
    theirs = b"split,Overall\nnone,0.25\n"
    path.write_bytes(theirs)
    scores = [score_of({"Overall": 0.5})]
    for _ in range(2):
        lines = write_result_tables(scores, tmp_path, model="m", run_id="run-1")
        assert lines == [
            f"{path} is of another program and stays as it is; the result table of "
            "Data is m_Data_acc_vlmeval.csv beside it",
            f"1 result table: {path.with_stem(f'{path.stem}_vlmeval')}",
        ]
    assert path.read_bytes() == theirs
    beside = path.with_name("m_Data_acc_vlmeval.csv")
    assert rows_of(beside.read_text())[0]["Overall"] == "0.5"
    beside.write_bytes(theirs)
    with pytest.raises(VlmEvalError) as caught:
        write_result_tables(scores, tmp_path, model="m", run_id="run-1")
    assert str(caught.value) == (
        f"The result table of Data is not written: {beside} and m_Data_acc.csv are of "
        "another program. Move them, or give another work_dir; the run store has the "
        "score."
    )
    assert beside.read_bytes() == theirs


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("")
    with pytest.raises(VlmEvalError) as caught:
        write_result_tables(
            [score_of({"Overall": 0.5})], tmp_path, model="m", run_id="run-1"
        )
    assert str(caught.value).startswith(
        f"The result table {tmp_path}/m/m_Data_acc.csv cannot be written ("
    )
