"""Thresholds in whole sessions: what passes and fails, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.gated_tables import (
    answers,
    block,
    newest_gates,
    thresholds_of,
    write_own,
)
from tests.support.run_fixtures import Project, endpoint, properties
from tests.support.server_fixtures import ServerProcess

SELECT = ("-k", "test_score")
RULES = """
[tiny-vlm.'one.tsv']
min = 60
source = 'Table 3 of a paper'
[tiny-vlm.'below.tsv']
min = 80
[tiny-vlm.'above.tsv']
min = 80
rule = 'confident-above'
[tiny-vlm.'point.tsv']
min = 80
rule = 'point'
[tiny-vlm.'proven.tsv']
min = 40
rule = 'confident-above'
[tiny-vlm.'likely.tsv']
min = 70
rule = 'confident-above'
[tiny-vlm.'far.tsv']
min = 600
['other-*'.'none.tsv']
min = 60
[tiny-vlm.'none.tsv']
"""
NAMES = ("one", "below", "above", "point", "proven", "likely", "far", "none")
# What each gate finds, and whether it fails; `far` has none, as nothing reaches 600.
OUTCOMES = {
    "one": ("failed", True),
    "below": ("inconclusive", False),
    "above": ("failed", True),
    "point": ("failed", True),
    "proven": ("passed", False),
    "likely": ("inconclusive", True),
    "none": ("passed", False),
}
BLOCK = """
one: Overall is below its threshold.
  value      25.00 of 100 [12.07, 44.72], 90 % Wilson, clustered
  threshold  60.00 for tiny-vlm, rule confident-below at level 0.95
  source     Table 3 of a paper
  p          0.00351 of a true value of at least the threshold
  samples    40 in 20 clusters (of one image or group)
  worst      even 5/20 (25 %), odd 5/20 (25 %)
  see        the same command with -k 'test_sample and one' -rx lists the wrong *
"""


def test_rules_decide_and_every_message_is_one_block(
    project: Project, server: ServerProcess
) -> None:
    """Every table has 30 of 40 right, two to an image, but for one: 10; none: 0."""
    write_own(project, *NAMES, samples=40, shared=2)
    answers(server, **dict.fromkeys(NAMES, 10) | {"one": 30, "none": 40})
    thresholds_of(project).write_text(RULES)
    result, cases = project.junit(*endpoint(server.url), *SELECT)
    result.assert_outcomes(passed=3, failed=5)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = {
        name: (gate["outcome"], gate["fails"])
        for (name, kind), gate in newest_gates(project).items()
        if kind == "threshold"
    }
    assert outcomes == OUTCOMES
    result.stdout.fnmatch_lines(block(BLOCK), consecutive=True)
    result.stdout.fnmatch_lines(
        [
            "likely: Overall is too close to its threshold to tell. It fails "
            "(--vlm-inconclusive).",
            "  needed     about * samples to tell a difference of this size *",
            "*thresholds.toml: min = 600 for far can never be reached: Overall goes "
            "from 0 to 100.",
        ]
    )
    found = properties(cases["test_score[one]"])
    assert found["threshold gate of Overall: outcome"] == "failed"
    assert "90 % Wilson, clustered" in found["threshold gate of Overall: interval"]
    assert found["threshold gate of Overall: reason"].startswith("one: Overall is")
    assert found["completeness gate: outcome"] == "passed"
    found = properties(cases["test_score[none]"])
    assert found["threshold gate of Overall: reason"] == (
        "none: Overall = 0.00 passes whatever it is: no threshold is for tiny-vlm "
        f"({thresholds_of(project)})."
    )
    assert found["threshold gate of Overall: interval"].startswith("[0.00, ")
    for how, passed in (("fail", 2), ("pass", 4)):
        again = project.ask(server.url, *SELECT, f"--vlm-inconclusive={how}")
        again.assert_outcomes(passed=passed, failed=8 - passed)


def test_further_metrics_may_have_thresholds(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(20)
    server.control(default="B")
    thresholds_of(project).write_text(
        """
        [tiny-vlm.MathVision_MINI.metrics."counting/acc"]
        min = 90
        [tiny-vlm.MathVision_MINI.metrics."Overall/tot"]
        min = 30
        """
    )
    result = project.ask(server.url, *SELECT)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "MathVision_MINI: counting/acc is below its threshold.",
            "  value      50.00 [[]26.*], 90 % Wilson",
            "  samples    10",
            "MathVision_MINI: Overall/tot is below its threshold.",
            "  value      20.00, no interval: single verdicts do not make it",
            "  threshold  30.00 for tiny-vlm, rule point (confident-below needs an "
            "interval)",
        ]
    )


def test_a_misspelt_metric_fails_once_and_is_refused_then(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, "one")
    answers(server)
    thresholds_of(project).write_text("[tiny-vlm.'one.tsv'.metrics.Overal]\nmin = 60")
    says = (
        f"{thresholds_of(project)}: one has no metric 'Overal'. Did "
        "you mean Overall? It has: Overall, even, odd."
    )
    result = project.ask(server.url, *SELECT)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([says])
    asked = len(server.requests())
    result = project.ask(server.url, *SELECT, "--vlm-fresh")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {says}"])
    assert len(server.requests()) == asked


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one", "xdist"])
def test_a_misspelt_dataset_is_a_usage_error(
    project: Project, server: ServerProcess, workers: Sequence[str]
) -> None:
    write_own(project, "one")
    thresholds_of(project).write_text("['*'.MMStarr]\nmin = 60")
    result = project.ask(server.url, *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *'MMStarr'] names no dataset. Did you mean *"])
    assert not server.requests()
