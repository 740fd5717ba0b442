"""Families that only a judge can score, with a scripted one inside the sandbox."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pytest_vlmeval.sandbox
from tests.sandbox_tables import CLASSES, write_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from tests.sandbox_tables import Row

BOOTSTRAP = Path(pytest_vlmeval.sandbox.__file__).with_name("bootstrap.py")
# The judge replies by the text that it is asked about.
CODE = f"""
import json, pathlib, runpy
runpy.run_path({str(BOOTSTRAP)!r})["enter_packages"]()
from pytest_vlmeval.sandbox.inside import containment
containment.install()
from pytest_vlmeval.sandbox.inside import scoring

task = json.loads(pathlib.Path("task.json").read_text())

class Scripted:
    def working(self):
        return True

    def generate(self, prompt, **settings):
        return next(reply for said, reply in task["replies"].items() if said in prompt)

found = scoring.score(
    task["info"],
    "rows.tsv",
    task["answers"],
    lambda done, total: None,
    scoring=task["scoring"],
    judge=Scripted(),
)
pathlib.Path("found.json").write_text(json.dumps(found, allow_nan=False))
"""


def judge(
    environment: SandboxEnvironment,
    folder: Path,
    class_name: str,
    rows: Sequence[Row],
    answers: Mapping[str, str],
    replies: Mapping[str, str],
    scoring: str = "published",
) -> dict[str, Any]:
    """Score answers with a judge that has these replies."""
    module, _ = CLASSES[class_name]
    info = {"name": class_name, "class_name": class_name, "module": module}
    task = {
        "info": info,
        "answers": list(answers.items()),
        "replies": replies,
        "scoring": scoring,
    }
    write_table(folder / "rows.tsv", rows)
    (folder / "task.json").write_text(json.dumps(task))
    done = subprocess.run(
        [environment.python, "-I", "-X", "utf8", "-c", CODE],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"HOME": str(folder), "LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def verdicts(found: dict[str, Any]) -> list[float | None]:
    """Give the values of all verdicts in order."""
    return [verdict["value"] for verdict in found["verdicts"]]


def test_mmvet_with_two_of_its_six_capabilities(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    rows: list[Row] = [
        {"index": "v1", "question": "x?", "answer": "1<AND>2", "category": "ocr,math"},
        {"index": "v2", "question": "y?", "answer": "a<OR>b", "category": "ocr"},
    ]
    answers = {"v1": "one is right", "v2": "neither"}
    replies = {"one is right": "0.5", "neither": "0.0"}
    found = judge(sandbox_environment, tmp_path, "MMVet", rows, answers, replies)
    assert verdicts(found) == [0.5, 0]
    assert (found["main_metric"], found["value"]) == ("Overall/acc", 25)
    assert found["metrics"]["math/acc"] == 50
    assert found["metrics"]["spat/tot"] == 0
    assert "spat/acc" not in found["metrics"]


def test_llava_bench_and_a_reply_without_scores(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    rows: list[Row] = [
        {
            "index": number,
            "question": "Describe it.",
            "category": "conv",
            "caption": "A red box.",
            "gpt4_ans": "A red box.",
            "image_path": f"{number}.jpg",
        }
        for number in range(2)
    ]
    answers = {"0": "a box", "1": "a dog"}
    replies = {"a box": "8 6\nbecause", "a dog": "I cannot say"}
    found = judge(sandbox_environment, tmp_path, "LLaVABench", rows, answers, replies)
    assert verdicts(found) == [0.6, None]
    assert found["verdicts"][0]["reason"] == "6 points, GPT-4's answer 8"
    assert found["verdicts"][1]["reason"] == "the judge's reply has no two scores"
    # ms-vlmeval counts such a reply as -1 for both: 5 of 7 points.
    assert found["main_metric"] == "overall/Relative Score (main)"
    assert found["value"] == 71.4


@pytest.mark.parametrize(
    ("answers", "expected", "f1"),
    [
        ({"0": "three", "1": "none such"}, [1, 1], 1),
        ({"0": "four"}, [0], 0),
        ({"1": "none such"}, [1], None),
    ],
)
def test_documents_with_nothing_right_or_nothing_answerable(
    sandbox_environment: SandboxEnvironment,
    tmp_path: Path,
    answers: dict[str, str],
    expected: list[float],
    f1: float | None,
) -> None:
    rows: list[Row] = [
        {
            "index": number,
            "question": "How many?",
            "doc_id": "a.pdf",
            "answer": answer,
            "answer_format": answer_format,
            "evidence_pages": pages,
            "evidence_sources": "['Chart']",
            "image_path": "['a_1.jpg']",
        }
        for number, (answer, answer_format, pages) in enumerate(
            [("3", "Int", "[1]"), ("Not answerable", "Str", "[]")]
        )
    ]
    reply = "Extracted answer: {}\nAnswer format: Integer"
    replies = {
        "Analysis: three": reply.format("3"),
        "Analysis: four": reply.format("4"),
        "Analysis: none such": reply.format("Not answerable"),
    }
    found = judge(sandbox_environment, tmp_path, "MMLongBench", rows, answers, replies)
    assert verdicts(found) == expected
    assert found["main_metric"] == "overall_acc/avg_score"
    assert found["value"] == 100 * sum(expected) / len(expected)
    assert found["metrics"].get("overall_f1/avg_score") == f1


@pytest.mark.parametrize(("scoring", "right"), [("published", 0), ("corrected", 1)])
def test_math_vista_reads_a_list_from_the_judge(
    sandbox_environment: SandboxEnvironment, tmp_path: Path, scoring: str, right: int
) -> None:
    rows: list[Row] = [
        {
            "index": 0,
            "question": "Which two?",
            "answer": "[1, 2]",
            "question_type": "free_form",
            "answer_type": "list",
            "answer_option": "",
            "choices": "",
            "task": "reading",
            "skills": "['maps']",
        }
    ]
    replies = {"between 1 and 2": "[1, 2]"}
    answers = {"0": "between 1 and 2"}
    found = judge(
        sandbox_environment, tmp_path, "MathVista", rows, answers, replies, scoring
    )
    assert verdicts(found) == [right]
    assert (found["main_metric"], found["value"]) == ("Overall/acc", 100 * right)
    assert found["scoring"] == scoring
