"""Result tables beside a task's store: ms-vlmeval's values, and nothing replaced."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import Score
from pytest_vlmeval.reports.outputs import format_result, write_result_tables
from pytest_vlmeval.sandbox.inside.scoring import flatten


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
            f"1 result table: {tmp_path}/m/m_*_acc.csv",
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
