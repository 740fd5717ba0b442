"""What is written for other programs, read by those programs' own libraries."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import openpyxl
import pandas as pd
import pytest

from pytest_vlmeval.records import GateResult
from pytest_vlmeval.reports.export import (
    as_results,
    format_summary,
    load_schema,
    write_export,
)
from pytest_vlmeval.reports.record import RunReport, compare, load_run
from pytest_vlmeval.run.store import Store
from tests.support.report_store import DATASET, HOSTILE, SESSION, fill_store
from tests.support.run_fixtures import Project

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
