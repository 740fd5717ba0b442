"""`--vlm-scoring=vlmevalkit` gives what VLMEvalKit gave for the recorded corpus."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from pytest_vlmeval.gates.completeness import describe_defects
from pytest_vlmeval.records import VLMEVALKIT_COMMIT, JudgeReply, Score
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from pytest_vlmeval.sandbox.inside.scoring import flatten
from pytest_vlmeval.sandbox.inside.vlmevalkit import CLASSES
from tests.support.documentation import ROOT, read
from tests.support.judged_rows import rows_only
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

    from pytest_vlmeval.records import JudgeQuestion
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
