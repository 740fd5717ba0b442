"""From the same server, the same numbers: white space, cut-off and empty replies."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pytest_vlmeval.records import NO_REPLY
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.sandbox.inside.scoring import flatten
from tests.support.run_fixtures import Project, endpoint, math_rows, properties
from tests.support.sandbox_tables import CLASSES, Row, cell, draw, write_table
from tests.support.server_fixtures import ServerProcess

SCRIPT = Path(__file__).parents[1] / "support" / "upstream_answers.py"
# What the server says of each row, with the row's reference for REF, and how it ended.
REPLIES = [
    ("REF", "stop"),
    ("REF\r\n", "stop"),
    ("\n\n REF", "stop"),
    ("REF\u3000\t", "stop"),
    # Two more characters make a small distance of a large one.
    ("$12.50\r\n", "stop"),
    ("12\n\n", "stop"),
    ("", "stop"),
    (" \n", "stop"),
    ("REF", "length"),
    ("REF, as one can see in the upper le", "length"),
    ("The upper left corner of this", "length"),
    (" ", "length"),
]
REFERENCES = ["red", "12.60", "Paris", "two dogs", "$99.99", "12.9", "A", "no", "x"]


def question(name: str, number: int) -> str:
    return f"<{name} {number}> What is it?"


def rows_of(name: str, class_name: str) -> list[Row]:
    """Give rows in the layout of a dataset, as many as there are replies."""
    rows: list[Row] = []
    for number in range(len(REPLIES)):
        reference = REFERENCES[number % len(REFERENCES)]
        row: Row = {
            "index": number,
            "question": question(name, number),
            "answer": reference,
            "category": "FR",
            "split": "test" if name == "MTVQA_TEST" else "val",
            "image": cell(draw(1)),
        }
        if class_name == "ImageMCQDataset":
            options = {"A": "red", "B": "blue", "C": "12", "D": "Paris"}
            row = {**row, **options, "answer": "ABCD"[number % 4]}
        if class_name == "ImageYORNDataset":
            row = {**row, "answer": ["Yes", "No"][number % 2]}
        if class_name == "OCRBench":
            kind = "Handwritten Mathematical Expression Recognition"
            kinds = ["Regular Text Recognition", kind]
            row = {**row, "answer": str([reference]), "category": kinds[number % 2]}
        if name == "TextVQA_VAL":
            row = {**row, "answer": str([reference] * 10)}
        rows.append(row)
    return rows


DATASETS = {
    "DocVQA_VAL": "ImageVQADataset",
    "ChartQA_TEST": "ImageVQADataset",
    "TextVQA_VAL": "ImageVQADataset",
    "OCRVQA_TEST": "ImageVQADataset",
    "MTVQA_TEST": "MTVQADataset",
    "OCRBench": "OCRBench",
    "MMStar": "ImageMCQDataset",
    "POPE": "ImageYORNDataset",
}


def reply(row: Row, number: int) -> dict[str, object]:
    text, finish_reason = REPLIES[number]
    reference = str(row["answer"]).partition(",")[0].strip("[]'")
    answer = text.replace("REF", reference)
    return {"answer": answer, "finish_reason": finish_reason}


def ask_upstream(
    environment: SandboxEnvironment, job: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Give what ms-vlmeval's client, files and rules make of the same server."""
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [environment.python, "-X", "utf8", SCRIPT, "job.json", "found.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"HOME": str(folder), "LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


@pytest.mark.slow
def test_the_same_server_has_the_same_score(
    project: Project,
    server: ServerProcess,
    sandbox_environment: SandboxEnvironment,
    tmp_path: Path,
) -> None:
    tables = {name: rows_of(name, kind) for name, kind in DATASETS.items()}
    rules: list[dict[str, object]] = []
    asked = []
    for name, rows in tables.items():
        path = write_table(project.data_root / f"{name}.tsv", rows)
        rules += [
            {"contains": f"<{name} {number}>", **reply(row, number)}
            for number, row in enumerate(rows)
        ]
        asked.append(
            {
                "name": name,
                "class_name": DATASETS[name],
                "module": CLASSES[DATASETS[name]][0],
                "tsv": str(path),
                "questions": [(str(n), question(name, n)) for n in range(len(rows))],
            }
        )
    server.control(rules=rules)
    project.pytester.makepyfile(
        "from pytest_vlmeval import Benchmark\n"
        f"class TestAll(Benchmark):\n    datasets = {list(DATASETS)}\n"
    )
    project.run(*endpoint(server.url), "--vlm-export=out", "--vlm-min-answered=0", "-q")
    out = project.pytester.path / "out"
    results = json.loads((out / "results.json").read_text())["datasets"]
    job = {"url": f"{server.url}/chat/completions", "datasets": asked}
    upstream = ask_upstream(sandbox_environment, job, tmp_path)
    assert [each["name"] for each in results] == list(DATASETS)
    for ours in results:
        theirs = upstream[ours["name"]]
        expected = flatten(pd.DataFrame(**theirs["result"]))
        found = ours["score"]["metrics"]
        assert {key: found[key] for key in expected} == pytest.approx(expected), ours
        # Two were empty, and one before its limit; three of the cut off have a text.
        assert (ours["answered"], ours["cut_off"]) == (9, 4)
        assert ours["outcomes"]["empty"] == 3
        file = out / "tiny-vlm" / f"tiny-vlm_{ours['name']}.tsv"
        table = pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)
        said = dict(zip(table["index"], table["prediction"], strict=True))
        assert said == theirs["predictions"]
        assert list(said.values()).count(NO_REPLY) == 3
    values = {each["name"]: each["score"]["value"] for each in results}
    # The distance of "$12.50" to "$99.99" is too large, that of "$12.50\r\n" not.
    assert values["DocVQA_VAL"] == pytest.approx(100 * sum(found_anls()) / 12)


def found_anls() -> Sequence[float]:
    """Give what each reply is worth to DocVQA by hand."""
    return [1, 1, 1, 1, 0, 0.5, 0, 0, 1, 0, 0, 0]


def judged(project: Project, sample: str) -> list[str]:
    """Return what the judge was asked about a sample's answer."""
    query = "SELECT prompt FROM exchanges"
    return [str(p) for (p,) in project.stored(query) if f"<{sample}>" in str(p)]


@pytest.mark.slow
def test_the_judge_sees_what_was_cut_off_and_what_stands_for_an_empty_reply(
    project: Project,
    server: ServerProcess,
    vlm_server: Callable[..., ServerProcess],
) -> None:
    """Published scoring counts what it makes of that; corrected an empty one never."""
    project.write_math(6, math_rows(6))
    cut = {"answer": "So it is 3", "finish_reason": "length"}
    rules = [
        {"contains": "<1>", "answer": " "},
        {"contains": "<3>", **cut},
        {"contains": "<5>", "answer": "a secret", "finish_reason": "content_filter"},
    ]
    server.control(default="B\n", rules=rules)
    # A judge that makes up answers: the right ones.
    says = {"Question <1>?": "10", "Question <3>?": "30", "Question <5>?": "50"}
    judge = vlm_server(answers=says, default="no", models=["judge"])
    arguments = [
        *endpoint(server.url),
        "--vlm-judge=judge",
        f"--vlm-judge-api-base={judge.url}",
        "--vlm-max-cut-off=20",
        "--vlm-export=out",
    ]
    result, cases = project.junit(*arguments, "-rx")
    # The empty and the filtered answer, and the score that lacks both.
    result.assert_outcomes(passed=4, failed=3)
    result.stdout.fnmatch_lines(
        [
            "MathVision_MINI: 2 of 6 samples have no usable answer and count as wrong "
            "in Overall/acc = 83.33, but for 1 empty answers that ms-vlmeval counts "
            "(--vlm-scoring=corrected does not). *",
            "MathVision_MINI * 6 * 4 * 5 *83.33 of 100  2 without a usable answer (1 "
            "empty, 1 filtered), 1 cut off at the token limit, *",
        ]
    )
    (shown,) = judged(project, "1")
    assert NO_REPLY in shown
    (shown,) = judged(project, "3")
    assert "So it is 3" in shown
    assert not judged(project, "5")
    assert "a secret" not in str(judge.requests())
    said = properties(cases["test_sample[MathVision_MINI-3]"])
    assert (said["state"], said["verdict"]) == ("cut_off", "correct")
    (dataset,) = json.loads((project.pytester.path / "out/results.json").read_text())[
        "datasets"
    ]
    # What only the judge made up of an empty answer is marked as a defect.
    score = dataset["score"]
    assert score["without_defects"]["defects"] == 1
    assert score["without_defects"]["value"] == pytest.approx(400 / 6)
    # The same from the store alone: nothing of it is lost, and none is asked.
    requests = len(server.requests())
    scored = project.run(*arguments, "--vlm-mode=score")
    scored.assert_outcomes(passed=4, failed=3)
    scored.stdout.fnmatch_lines(["MathVision_MINI * 6 * 4 * 5 *83.33 of 100*"])
    assert len(server.requests()) == requests
    corrected = project.run(*arguments, "--vlm-mode=score", "--vlm-scoring=corrected")
    corrected.stdout.fnmatch_lines(["MathVision_MINI * 6 * 4 * 4 *66.67 of 100*"])
