"""Two runs of the store side by side at the end of a session."""

from __future__ import annotations

import pytest

from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess

COUNT = 40
RIGHT = {f"<{index}>": str(10 * index) for index in range(1, COUNT + 1, 2)}
SELECT = ("-k", "test_score")


def test_another_run_is_compared_with_power_and_lost_samples(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(COUNT)
    server.control(answers=RIGHT, default="B")
    project.ask(server.url, *SELECT).assert_outcomes(passed=1)
    ((first,),) = project.stored("SELECT run_id FROM runs")
    wrong = dict.fromkeys(list(RIGHT)[:8], "0")
    server.control(answers={**RIGHT, **wrong}, default="B")
    result = project.ask(
        server.url, "--vlm-fresh", f"--vlm-compare-with={first}", *SELECT
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            f"tiny-vlm (*) against tiny-vlm ({first})",
            "MathVision_MINI: 100.00 % before, 80.00 % now, of 40 samples that both "
            "have",
            "  accuracy -20.0 points, 90 % CI [[]-*, -*[]]; p = 0.00781, exact "
            "McNemar, two-sided; CI by paired score (Tango)",
            "  so many samples show a drop of * points with a power of 80 %, one of 2 "
            "points with * %",
            "  8 lost, 0 gained",
            "  dataset          sample  before  now",
            "  ---------------  ------  ------  -----",
            "  MathVision_MINI  1       right   wrong",
            "  MathVision_MINI  3       right   wrong",
        ]
    )


@pytest.mark.slow
def test_what_cannot_be_compared_is_said(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(COUNT)
    server.control(answers=RIGHT, default="B")
    project.ask(server.url, *SELECT).assert_outcomes(passed=1)
    asked = len(server.requests())
    ((first,),) = project.stored("SELECT run_id FROM runs")
    fresh = ("--vlm-fresh", "--vlm-compare-with=nothing")
    unknown = project.ask(server.url, *fresh, *SELECT)
    assert unknown.ret == pytest.ExitCode.USAGE_ERROR
    unknown.stderr.fnmatch_lines(
        [
            "ERROR: The store has no other run 'nothing'. Its other runs are: "
            f"{first} (tiny-vlm). Name one by its id, the beginning of its id, or its "
            "model."
        ]
    )
    assert project.stored("SELECT run_id FROM runs") == [(first,)]
    itself = project.ask(server.url, "--vlm-compare-with=tiny-vlm", "-n", "2", *SELECT)
    assert itself.ret == pytest.ExitCode.USAGE_ERROR
    itself.stderr.fnmatch_lines(
        [
            "ERROR: --vlm-compare-with=tiny-vlm is the run * of this session itself. "
            "Name another by its id; --vlm-runs lists them.",
        ]
    )
    assert len(server.requests()) == asked
    table = project.data_root / "MathVision_MINI.tsv"
    table.write_text(table.read_text().replace("Question <2>", "Question <2> again"))
    # The model's name means its newest run beside the session's own.
    other = project.ask(
        server.url, "--vlm-fresh", "--vlm-compare-with=tiny-vlm", *SELECT
    )
    other.stdout.fnmatch_lines(
        ["MathVision_MINI: not compared, its data or prompts were others then"]
    )
    # What the refusal advised: now the list has another, to be named by its id.
    listed = project.run("--vlm-runs").stdout.str()
    ids = {str(run) for (run,) in project.stored("SELECT run_id FROM runs")}
    assert len(ids) == 2
    assert all(run in listed for run in ids)
    named = project.ask(server.url, f"--vlm-compare-with={first}", *SELECT)
    named.stdout.fnmatch_lines([f"tiny-vlm (*) against tiny-vlm ({first})"])
