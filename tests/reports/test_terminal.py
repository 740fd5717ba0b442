"""What the terminal shows beside a score, and what never reaches it."""

from __future__ import annotations

import pytest

from pytest_vlmeval.errors import (
    NeedsJudgeError,
    NotAskedError,
    VlmEvalError,
    printable,
    shorten_words,
)
from pytest_vlmeval.records import Score
from pytest_vlmeval.reports.progress import DatasetResult
from pytest_vlmeval.reports.terminal import format_table
from tests.support.run_fixtures import (
    Project,
    endpoint,
    math_rows,
    properties,
    write_table,
)
from tests.support.server_fixtures import ServerProcess

NOTE = "Chinese is split by character"


def result(dataset: str, *notes: str) -> DatasetResult:
    """Give the result of a dataset whose score has these notes."""
    score = Score(
        dataset=dataset,
        metrics={"Exact_Match": 0.5},
        main_metric="Exact_Match",
        value=50,
        best=50,
        samples=2,
        answered=2,
        correct=1,
        undecided=0,
        modified=False,
        scorer="x",
        judge="exact_matching",
        notes=notes,
    )
    return DatasetResult(
        dataset=dataset, samples=2, answered=2, modified=False, score=score
    )


def test_each_note_stands_once_below_the_table() -> None:
    lines = format_table([result("A", NOTE), result("B"), result("C", NOTE)])
    assert lines == [
        "dataset  samples  answered  correct  main metric",
        "-------  -------  --------  -------  ------------------------",
        "A              2         2        1  Exact_Match 50.00 of 100",
        "B              2         2        1  Exact_Match 50.00 of 100",
        "C              2         2        1  Exact_Match 50.00 of 100",
        f"A, C: {NOTE}",
    ]


def write_vista(project: Project) -> None:
    """Put a MathVista_MINI with one question about a text in place."""
    (row,) = math_rows(1)
    more = {
        "question_type": "free_form",
        "answer_type": "text",
        "precision": "",
        "task": "t",
        "skills": "['s']",
        "unit": "",
        "choices": "[]",
        "answer": "May",
    }
    write_table(project.data_root / "MathVista_MINI.tsv", [{**row, **more}])
    project.pytester.makepyfile(
        test_vista="""
        from pytest_vlmeval import Benchmark

        class TestVista(Benchmark):
            datasets = ["MathVista_MINI"]
        """
    )


def test_a_corrected_score_is_named_so(project: Project, server: ServerProcess) -> None:
    write_vista(project)
    server.control(default="May")
    published, cases = project.junit(*endpoint(server.url))
    published.stdout.fnmatch_lines(["MathVista_MINI * 0.00 of 100  modified data"])
    told = properties(cases["test_score[MathVista_MINI]"])
    assert (told["scoring"], told["scale"]) == ("published", "0 to 100")
    corrected, cases = project.junit(
        *endpoint(server.url), "--vlm-scoring=corrected", "--vlm-mode=score"
    )
    corrected.stdout.fnmatch_lines(
        ["MathVista_MINI * 100.00 of 100  modified data, corrected scoring"]
    )
    told = properties(cases["test_score[MathVista_MINI]"])
    assert (told["scoring"], told["score"]) == ("corrected", "100.0")


# Colours, a title, a bell, NUL, C1 controls, and marks that turn the writing around.
OBEYED = "\x1b\x07\x00\x08\x0d\x7f\x9b\x9d\u202e\u2066\u200f"


@pytest.mark.parametrize("kind", [VlmEvalError, NeedsJudgeError, NotAskedError])
def test_no_error_says_what_a_terminal_obeys(kind: type[VlmEvalError]) -> None:
    said = str(kind(f"row 1: {OBEYED}.png\n\tnext"))
    assert said == f"row 1: {printable(OBEYED)}.png\n\tnext"
    assert not [sign for sign in OBEYED if sign in said]
    assert "\\x1b\\x07\\x00" in said


def test_letters_and_blanks_of_any_script_stay() -> None:
    text = "全角\u3000空 naïve\u00a0ünï \u0645\u0646 👩\u200d🔬"
    assert printable(text) == text


def test_a_very_long_path_is_shortened() -> None:
    path = "/start/" + "x" * 5_000 + "/end.png"
    said = str(VlmEvalError(f"row 1: {path} is none. Write it anew."))
    assert said == (
        f"row 1: {path[:200]}...{path[-100:]} (5015 characters) is none. Write it anew."
    )
    assert shorten_words(path[:500]) == path[:500]
