"""`--vlm-scoring`: what VLMEvalKit gave for the recorded corpus, what the papers do."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from pytest_vlmeval.gates.completeness import describe_defects
from pytest_vlmeval.records import VLMEVALKIT_COMMIT, JudgeReply, Score
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from pytest_vlmeval.sandbox.inside.metrics import flatten
from pytest_vlmeval.sandbox.inside.reading import last_named_option, nearest_option
from pytest_vlmeval.sandbox.inside.vlmevalkit import CLASSES
from tests.support.documentation import ROOT, read
from tests.support.judged_rows import FAMILIES, rows_only
from tests.support.run_fixtures import endpoint, properties, write_table
from tests.support.sandbox_tables import cell, draw, score, values
from tests.support.upstream_tables import answer_all
from tests.support.vlmevalkit_corpus import (
    GRADED,
    OPTION_SETS,
    read_corpus,
    readings,
    tables,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_vlmeval.records import JudgeQuestion, Scoring
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.run_fixtures import Project
    from tests.support.sandbox_tables import Row
    from tests.support.server_fixtures import ServerProcess

CORPUS = read_corpus()
LETTERS = "ABCDE"


def test_the_corpus_is_of_these_answers_and_this_version() -> None:
    assert CORPUS["commit"] == VLMEVALKIT_COMMIT
    assert [tuple(row[:2]) for row in CORPUS["readings"]] == readings()
    assert CORPUS["tables"].keys() == {*tables(), "MMVet"}


def test_every_option_is_read_as_vlmevalkit_does(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows: list[Row] = [
        {
            "index": n,
            "question": "Which?",
            "answer": "A",
            **{letter: OPTION_SETS[which].get(letter, "") for letter in LETTERS},
        }
        for n, (which, _) in enumerate(readings())
    ]
    prepared = rows_only(tmp_path, "ImageMCQDataset", rows, "MMStar")
    answers = [(n, said) for n, (_, said) in enumerate(readings())]
    found = score(sandbox, prepared, answers, scoring="vlmevalkit")
    assert found.scoring == "vlmevalkit"
    expected = [None if each == "Z" else each for _, _, each in CORPUS["readings"]]
    assert [each.extracted for each in found.verdicts] == expected
    assert [each.value for each in found.verdicts] == [each == "A" for each in expected]
    published = score(sandbox, prepared, answers)
    differing = {
        said
        for (_, said), new, old in zip(
            readings(), found.verdicts, published.verdicts, strict=True
        )
        if new.extracted != old.extracted
    }
    assert len(differing) > 30
    assert all("answer" in said.lower() for said in differing)


@pytest.mark.parametrize("name", tables())
def test_every_metric_is_that_of_vlmevalkit(
    sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    class_name, rows, styles = tables()[name]
    prepared = rows_only(tmp_path, class_name, rows, name)
    answers = answer_all(rows, styles)
    ours = score(sandbox, prepared, answers, scoring="vlmevalkit")
    known = CORPUS["tables"][name]
    expected = flatten(pd.DataFrame(**known["result"]))
    if class_name in ("MathVista", "MathVision"):
        expected[ours.main_metric] = expected.pop("Overall/acc")
    assert {key: ours.metrics[key] for key in expected} == pytest.approx(expected)
    assert set(ours.metrics) - set(expected) <= {"Overall"}
    verdicts = values(ours.verdicts)
    assert known["verdicts"] == {k: verdicts[k] for k in known["verdicts"]}
    assert ours.scoring == ("vlmevalkit" if class_name in CLASSES else "published")


def test_the_judge_of_mmvet_has_as_many_tokens(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    name, rows = GRADED
    prepared = rows_only(tmp_path, name, [{"index": 0, **rows[0]}])
    tokens: list[int | None] = []

    def judge(questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        tokens.extend(each.max_tokens for each in questions)
        return [JudgeReply(number=1, text="0.5") for _ in questions]

    told = [
        score_in_sandbox(
            sandbox, prepared, [("0", ["red"])], judge=judge, scoring=each
        ).scoring
        for each in ("published", "vlmevalkit", "corrected")
    ]
    assert told == ["published", "vlmevalkit", "published"]
    assert tokens == [3, *CORPUS["tables"]["MMVet"]["judge_tokens"], 3]


def test_the_page_names_every_difference() -> None:
    page = read(ROOT / "docs" / "scoring.md")
    assert VLMEVALKIT_COMMIT in page
    for each in CORPUS["differences"]:
        assert f"| `{each}` |" in page, each


def test_a_defect_is_that_of_the_method(sandbox: Sandbox, tmp_path: Path) -> None:
    """VLMEvalKit reads "blue" as B: it is neither ms-vlmeval's error, nor right."""
    rows: list[Row] = [
        {"index": 0, "question": "Which?", "answer": "B", "A": "warm", "B": "cold"}
    ]
    prepared = rows_only(tmp_path, "ImageMCQDataset", rows, "MMStar")
    said = [(0, "The answer is blue, as far as I can tell from this image")]
    published = score(sandbox, prepared, said)
    assert (published.value, published.sound) == (0, None)
    found = score(sandbox, prepared, said, scoring="vlmevalkit")
    assert (found.value, found.verdicts[0].corrected) == (100, 0)
    assert found.sound is not None
    told = Score(
        dataset="MMStar",
        metrics=found.metrics,
        main_metric="Overall",
        value=found.value,
        best=found.best,
        samples=1,
        answered=1,
        correct=1,
        undecided=0,
        modified=False,
        scorer="",
        judge="",
        scoring=found.scoring,
        differing=1,
        sound=found.sound,
    )
    assert describe_defects(told) == (
        "1 of 1 verdicts rest on a known defect of VLMEvalKit's scoring "
        "(docs/datasets.md#known-defects-of-the-published-scoring), without them it is "
        "0.00; --vlm-scoring=corrected decides them without it"
    )


SENTENCE = "The correct answer is **B**. Here's why: it is what stands beside the lamp"


@pytest.mark.slow
def test_a_score_is_named_by_its_method_everywhere(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the table, JUnit, results.json and baselines, which keep methods apart."""
    monkeypatch.delenv("PYTEST_ADDOPTS")
    monkeypatch.delenv("VLM_ALLOW_MISSING_BASELINE")
    rows = [
        {
            "index": str(number),
            "question": f"Which one <{number}>?",
            "A": "red",
            "B": "green",
            "C": "blue",
            "answer": "B",
            "image": cell(draw(number)),
        }
        for number in range(8)
    ]
    write_table(project.data_root / "MMStar.tsv", rows)
    project.pytester.makepyfile(
        test_star="""
        from pytest_vlmeval import Benchmark

        class TestStar(Benchmark):
            datasets = ["MMStar"]
        """
    )
    server.control(default=SENTENCE)
    first = project.ask(server.url, "-k", "test_score or no_regression")
    first.stdout.fnmatch_lines(["MMStar * 0.00 of 100 *modified data*"])
    by_kit = ("--vlm-scoring=vlmevalkit", "--vlm-export=export")
    page = "--vlm-report=report.html"
    made = project.ask(server.url, "--snapshot-update", *by_kit, "-k", "no_regression")
    made.assert_outcomes(passed=1)
    every = "--vlm-properties=all"
    result, cases = project.junit(*endpoint(server.url), *by_kit, page, every)
    result.assert_outcomes(passed=10)
    result.stdout.fnmatch_lines(["MMStar * 100.00 of 100 *vlmevalkit scoring*"])
    told = properties(cases["test_score[MMStar]"])
    assert (told["scoring"], told["score"]) == ("vlmevalkit", "100.0")
    method = f"vlmevalkit@{VLMEVALKIT_COMMIT[:12]}"
    assert told["scorer"].split(":")[-2] == method
    found = json.loads((project.pytester.path / "export/results.json").read_text())
    assert found["datasets"][0]["score"]["scoring"] == "vlmevalkit"
    folder = project.pytester.path
    tag = '<span class="tag">vlmevalkit scoring</span>'
    assert tag in (folder / "report.html").read_text("utf-8")
    named = "| MMStar (modified data) (vlmevalkit scoring) | Overall | 100.00 of 100 |"
    assert named in (folder / "export" / "summary.md").read_text("utf-8")
    sent = len(server.requests())
    other = project.ask(server.url, "--vlm-scoring=corrected", "-k", "no_regression")
    other.assert_outcomes(failed=1)
    other.stdout.fnmatch_lines(
        [
            f"*scoring: VLMEvalKit: {VLMEVALKIT_COMMIT[:12]} in the *, now unset*",
            "*scoring: method: vlmevalkit in the baseline, now corrected*",
        ]
    )
    assert len(server.requests()) == sent


METHODS: tuple[Scoring, ...] = ("published", "vlmevalkit", "corrected")
CHOICES = ["Yes", "No"]
SIZES = ["9", "12", "18", "18"]
# Of a question of MathVista the options, or the type and the precision of its answer;
# the answer, what the judge reads, whether that is right by each method, and why.
REPLIES: list[tuple[object, str, str, list[int], str]] = [
    (CHOICES, "Yes", "A", [1, 1, 1], "Succeed"),
    (CHOICES, "No", "I cannot say", [0, 0, 0], "names no option, A is the nearest"),
    (CHOICES, "No", "N/A", [0, 0, 1], "names no option, B is the nearest"),
    (CHOICES, "No", "E", [0, 0, 1], "names no option, B is the nearest"),
    (["red", "blue"], "blue", "(B), or is it (A)?", [0, 0, 1], "no option, B is"),
    (
        ["60-k", "k"],
        "60-k",
        "It is 50-kk",
        [0, 0, 1],
        "no option, A is the nearest",
    ),
    (SIZES, "18", "D", [0, 0, 1], "Succeed"),
    (SIZES, "18", "18", [0, 0, 1], "Succeed"),
    (SIZES, "18", "A", [0, 0, 0], "Succeed"),
    (("integer", ""), "12", "12.0", [0, 0, 1], "Succeed"),
    (("integer", ""), "1200", "1,200", [0, 0, 1], "Succeed"),
    (("integer", ""), "12", "13", [0, 0, 0], "Succeed"),
    (("float", "2"), "0.21", "0.214", [0, 0, 1], "Succeed"),
    (("float", ""), "0.21", "0.214", [0, 0, 1], "Succeed"),
    (("float", "3"), "0.21", "0.214", [0, 0, 0], "Succeed"),
    (("float", "1"), "1.5", "inf", [0, 0, 0], "Succeed"),
    (("list", ""), "[1, 2]", "[1, 2]", [0, 0, 1], "Succeed"),
]


def vista_row(index: int, kind: object, answer: str) -> Row:
    """Give a question of MathVista."""
    options = kind if isinstance(kind, list) else []
    typed, precision = kind if isinstance(kind, tuple) else ("text", "")
    return {
        "index": index,
        "question": "Which?",
        "choices": repr(options),
        "answer": answer,
        "answer_option": "ABCD"[options.index(answer)] if options else "",
        "question_type": "multi_choice" if options else "free_form",
        "answer_type": typed,
        "precision": precision,
        "task": "counting",
        "skills": "['numbers']",
    }


# What a judge makes of an empty answer, by class: it is right.
EMPTY = {
    "ImageMCQDataset": "B",
    "ImageYORNDataset": "Yes",
    "MathVision": "3",
    "MMVet": "1.0",
    "LLaVABench": "10 10",
    "MMLongBench": "Extracted answer: 3\nAnswer format: Int",
}


@pytest.mark.parametrize("method", METHODS)
def test_a_reply_about_mathvista_is_compared_as_in_the_paper(
    sandbox: Sandbox, tmp_path: Path, method: Scoring
) -> None:
    rows = [vista_row(n, kind, answer) for n, (kind, answer, *_) in enumerate(REPLIES)]
    prepared = rows_only(tmp_path, "MathVista", rows, "MathVista_MINI")

    def judge(asked: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        texts = [REPLIES[int(each.unit)][2] for each in asked]
        return [JudgeReply(number=n, text=text) for n, text in enumerate(texts, 1)]

    answers = [(str(n), ["?"]) for n in range(len(rows))]
    found = score_in_sandbox(sandbox, prepared, answers, judge=judge, scoring=method)
    expected = [row[3][METHODS.index(method)] for row in REPLIES]
    assert [each.value for each in found.verdicts] == expected
    for each, (*_, why) in zip(found.verdicts, REPLIES, strict=True):
        assert (why if method == "corrected" else "Succeed") in each.reason


def test_without_a_judge_no_option_of_mathvista_is_guessed(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = [vista_row(n, CHOICES, "No") for n in range(3)]
    prepared = rows_only(tmp_path, "MathVista", rows, "MathVista_MINI")
    said = [(0, "N/A"), (1, ""), (2, "(B)")]
    found = score(sandbox, prepared, said, scoring="corrected")
    assert list(values(found.verdicts).values()) == [0, 0, 1]
    assert [each.unread for each in found.verdicts] == [True, True, False]


def test_numbers_that_are_said_are_compared_as_in_the_paper(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    kinds = [("integer", ""), ("float", "1"), ("float", "1"), ("integer", "")]
    known = ["12", "1.5", "1.5", "0"]
    rows = [vista_row(n, kind, known[n]) for n, kind in enumerate(kinds)]
    prepared = rows_only(tmp_path, "MathVista", rows, "MathVista_MINI")
    said = [(0, "12.0"), (1, "1.49"), (2, "1.4"), (3, "0.0")]
    found = [score(sandbox, prepared, said, scoring=each) for each in METHODS]
    right = [list(values(each.verdicts).values()) for each in found]
    assert right == [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 1]]


@pytest.mark.parametrize("class_name", ["MathVista", *EMPTY])
def test_an_empty_answer_is_judged_but_for_corrected_scoring(
    sandbox: Sandbox, tmp_path: Path, class_name: str
) -> None:
    """ms-vlmeval asks what an empty text says: its judge guesses, and may be right."""
    row, reply = vista_row(0, CHOICES, "Yes"), "A"
    if class_name != "MathVista":
        row, reply = {"index": 0, **FAMILIES[class_name][0]}, EMPTY[class_name]
    prepared = rows_only(tmp_path, class_name, [row])
    told = []
    for method in METHODS:
        asked: list[JudgeQuestion] = []

        def judge(
            questions: Sequence[JudgeQuestion], asked: list[JudgeQuestion] = asked
        ) -> list[JudgeReply]:
            asked += questions
            return [JudgeReply(number=1, text=reply) for _ in questions]

        found = score_in_sandbox(
            sandbox, prepared, [("0", [" "])], judge=judge, scoring=method
        )
        told.append((found.value, len(asked)))
    assert told == [(100, 1), (100, 1), (0, 0)]


def test_the_option_named_last_is_that_of_mmmu_without_a_judge(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    said = "Neither fits well, but (A) is warm and (B) is the colour of most of them"
    row = {"index": "validation_1", "question": "Which?", "answer": "B"}
    rows: list[Row] = [{**row, "A": "red", "B": "blue", "split": "validation"}]
    prepared = rows_only(tmp_path, "MMMUDataset", rows, "MMMU_DEV_VAL")
    answers = [("validation_1", [said])]
    found = score_in_sandbox(sandbox, prepared, answers, scoring="corrected")
    (verdict,) = found.verdicts
    assert (verdict.value, verdict.extracted, verdict.unread) == (1, "B", False)

    def judge(questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        return [JudgeReply(number=1, text="A") for _ in questions]

    judged = score_in_sandbox(
        sandbox, prepared, answers, judge=judge, scoring="corrected"
    )
    assert (judged.value, judged.verdicts[0].state) == (0, "judged")
    # It is the rule of MMMU's authors, and of nobody else.
    (tmp_path / "other").mkdir()
    other = rows_only(tmp_path / "other", "ImageMCQDataset", rows, "MMStar")
    found = score_in_sandbox(sandbox, other, answers, scoring="corrected")
    assert (found.value, found.verdicts[0].unread) == (0, True)


OPTIONS = {"A": "red", "B": "dark blue", "C": "", "D": "12"}


@pytest.mark.parametrize(
    ("text", "last", "nearest"),
    [
        ("(A) or (B)", "B", "A"),
        ("(B), not (A).", "A", "B"),
        ("A B", "B", "A"),
        ("It may be A, but B is more likely", "B", "B"),
        ("One of them is Dark Blue, the other one is red.", "A", "B"),
        ("dark blue", None, "B"),
        ("nothing at all that is known here", None, "B"),
        ("", None, "C"),
        ("13", None, "D"),
        ("reed", None, "A"),
    ],
)
def test_guesses_of_the_papers(text: str, last: str | None, nearest: str) -> None:
    assert last_named_option(text, OPTIONS) == last
    assert nearest_option(text, OPTIONS) == nearest


def test_the_nearest_option_to_no_answer_is_at_chance() -> None:
    """Of 2,000 questions with two to five options, drawn with their answers."""
    chance = random.Random(16)
    words = ["yes", "no", "12", "3.5", "red", "the left one", "N", "None", "14 cm"]
    for reply in ("N/A", "I cannot say", "?", "The answer is not in the image."):
        right = expected = 0.0
        for _ in range(2000):
            options = dict(
                zip("ABCDE", chance.sample(words, chance.randint(2, 5)), strict=False)
            )
            right += nearest_option(reply, options) == chance.choice([*options])
            expected += 1 / len(options)
        assert abs(right - expected) < 4 * expected**0.5, reply


def write(path: Path, value: object) -> None:
    """Write a file of a repository."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, str(ROOT / "bench" / "papers.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_checkout_that_is_not_there(tmp_path: Path) -> None:
    done = run("--mathvista", tmp_path / "none")
    assert done.returncode == 2
    assert done.stderr.endswith(
        f"error: {tmp_path}/none is no folder: give the checkout of the repository\n"
    )


def test_the_table_of_the_papers(
    tmp_path: Path, sandbox_environment: SandboxEnvironment
) -> None:
    """Four answers of one model of MathVista, two of MMMU, two about one figure."""
    vista = {
        str(n): {
            "query": "Which?",
            "choices": CHOICES,
            "answer": "Yes",
            "question_type": "multi_choice",
            "answer_type": "text",
            "precision": None,
            "metadata": {"task": "counting", "skills": ["numbers"]},
            "response": response,
            "extraction": extraction,
            "true_false": right,
        }
        for n, (response, extraction, right) in enumerate(
            [
                ("Yes", "Yes", True),
                ("", "A", True),
                ("The answer is (B).", "A", True),
                ("It cannot be told.", "Yess", True),
            ]
        )
    }
    write(tmp_path / "v/results/bard/output_bard.json", vista)
    options = {"all_choices": ["A", "B"], "index2ans": {"A": "red", "B": "blue"}}
    choice = {"question_type": "multiple-choice", "answer": "A", **options}
    write(
        tmp_path / "m/mmmu/example_outputs/qwen_vl/Art/output.json",
        [
            {"id": "validation_Art_1", "response": "A", **choice},
            {"id": "validation_Art_2", "response": "?", **choice},
        ],
    )
    figure = dict.fromkeys(["set_id", "figure_id"], "0")
    figure |= {"category": "VD", "subcategory": "ocr", "visual_input": "1"}
    asked = [
        {**figure, "question_id": str(n), "question": f"{n}?", "gt_answer": str(n)}
        for n in range(2)
    ]
    write(tmp_path / "h/HallusionBench.json", asked)
    write(
        tmp_path / "h/HallusionBench_result_sample.json",
        [{**each, "model_prediction": "Yes, it is."} for each in asked],
    )
    found = run(
        *("--mathvista", tmp_path / "v", "--mmmu", tmp_path / "m"),
        *("--hallusionbench", tmp_path / "h"),
        *("--sandbox-python", sandbox_environment.python),
    )
    assert found.returncode == 0, found.stderr
    lines = found.stdout.splitlines()
    columns = "| answers | paper | published | vlmevalkit | corrected | as the paper "
    assert lines[0] == f"{columns}reads and guesses |"
    assert "| MathVista, Bard | 34.8 | 75.0 | 75.0 | 50.0 | 100.0 |" in lines
    assert "| MathVista, LLaVA | 26.1 | - | - | - | - |" in lines
    assert (
        "- MathVista, Bard: +0 -1 answers that say another option than GPT-4 read; "
        "+0 -1 empty answers for which GPT-4 gave one"
    ) in lines
    missing = tmp_path / "v/results/llava/output_llava_llama_2_13b.json"
    assert f"- MathVista, LLaVA: no {missing}" in lines
    (qwen,) = (line for line in lines if line.startswith("| MMMU, Qwen-VL"))
    assert qwen.startswith("| MMMU, Qwen-VL | 35.9 | 50.0 | 50.0 | 50.0 | 7")
    assert (
        "- MMMU, Qwen-VL: 1 of 2 answers name no option: the paper guesses one" in lines
    )
    scores = " | ".join(["50.0"] * 3)
    assert f"| HallusionBench's sample, aAcc | - | {scores} | - |" in lines


def test_the_command_wants_a_checkout() -> None:
    found = run()
    assert found.returncode == 2
    assert "name the checkout of at least one repository" in found.stderr


def test_the_table_stands_on_the_page() -> None:
    page = read(ROOT / "docs" / "scoring.md")
    for name in ("Bard", "IDEFICS", "InstructBLIP", "MiniGPT-4", "mPLUG-Owl"):
        assert f"| MathVista, {name} | " in page
    assert "| MMMU, Qwen-VL | 35.9 | " in page
    assert "python bench/papers.py --mathvista" in page
