"""What becomes of answers in ms-vlmeval's file of predictions, held against it."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.own import OWN
from tests.support.sandbox_tables import (
    describe,
    prepare,
    rows_of,
    score,
    values,
    write_table,
)

if TYPE_CHECKING:
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox

ROOT = Path(__file__).parents[2]
# Both sides in one process of the sandbox's interpreter.
SCRIPT = """
import json, runpy, sys, tempfile
from pathlib import Path
root, columns = Path(sys.argv[1]), json.loads(sys.argv[2])
runpy.run_path(str(root / "pytest_vlmeval/sandbox/bootstrap.py"))["enter_packages"]()
import pandas as pd
from vlmeval.smp import file
from pytest_vlmeval.sandbox.inside.prediction_files import through_a_file
found = []
for texts in columns:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "theirs.xlsx"))
        table = pd.DataFrame({"index": range(len(texts)), "prediction": texts})
        file.dump(table, path)
        theirs = [str(each) for each in file.load(path)["prediction"]]
        ours = through_a_file(texts, Path(folder, "ours.xlsx"), formulas=True)
        files = sorted(each.name for each in Path(folder).iterdir())
        found.append([theirs, ours, files])
print(json.dumps(found))
"""
TEXTS = [
    *("=B", "{=1+1}", "007", "a\r\nb", "1e5", "Null", "null", " 7", "+1", "#", "-1"),
    *("None", "none", "NONE", "NA", "N/A", "n/a", "nan", "NaN", "-nan", "<NA>"),
    *("#N/A", "#NA", "1.#IND", "-1.#QNAN", "None.", " NA", "Nathan", "A = B", "@A"),
    *("http://127.0.0.1/a", "see https://a.example", "mailto:a@b.example", "file:x"),
    *("\x0bA", "_x0041_", "B\tC", "B\nC", "  B  ", "True", "x" * 40_000, "Ä, 五月"),
]
COLUMNS = [
    TEXTS,
    ["12", "7", "007"],
    ["12", "7.50", "1e3"],
    ["12", "nan"],
    ["True", "false"],
    ["12", "A"],
    ["A", "B. red", "no"],
]


def test_answers_come_back_as_from_ms_vlmeval(
    sandbox_environment: SandboxEnvironment,
) -> None:
    # One by one, so that none hides another, and in columns, whose kind counts.
    columns = [*COLUMNS, *([text, "A word"] for text in TEXTS)]
    command = [str(sandbox_environment.python), "-c", SCRIPT, str(ROOT)]
    done = subprocess.run(
        [*command, json.dumps(columns)], check=True, capture_output=True, text=True
    )
    changed = 0
    for texts, (theirs, ours, files) in zip(
        columns, json.loads(done.stdout), strict=True
    ):
        assert ours == theirs, texts
        assert files == ["theirs.xlsx"]
        changed += theirs != texts
    # The rest has nothing in it that a file changes.
    assert 20 < changed < len(columns) - 10


@pytest.mark.parametrize("name", ["OCRVQA_TEST", "my_table"])
def test_only_published_scores_of_benchmarks_have_it(
    sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    rows = rows_of(["=7", "blue", "red", "two"])
    info = describe(write_table(tmp_path / f"{name}.tsv", rows), "ImageVQADataset")
    own = name == "my_table"
    prepared = prepare(replace(info, rules=OWN) if own else info, sandbox, tmp_path)
    answers = [(0, "=7"), (1, "blue"), (2, "")]
    found = score(sandbox, prepared, answers)
    assert list(values(found.verdicts).values()) == [float(own), 1, 0]
    found = score(sandbox, prepared, answers, scoring="corrected")
    assert list(values(found.verdicts).values()) == [1, 1, 0]
