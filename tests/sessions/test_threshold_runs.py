"""Thresholds in whole sessions: what passes and fails, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.gated_tables import (
    answers,
    block,
    newest_gates,
    thresholds_of,
    write_own,
)
from tests.support.run_fixtures import (
    Project,
    endpoint,
    math_rows,
    properties,
    write_table,
)
from tests.support.server_fixtures import ServerProcess
from tests.support.task_files import swift_task, write_task

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
  see        the same command with -k 'test_sample and one' --vlm-wrong=xfail -rx *
"""


def test_rules_decide_and_every_message_is_one_block(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
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
        "none: Overall = 0.00. No threshold for tiny-vlm in "
        f"{thresholds_of(project)}: any score passes."
    )
    assert found["threshold gate of Overall: interval"].startswith("[0.00, ")
    for how, passed in (("fail", 2), ("pass", 4)):
        again = project.ask(server.url, *SELECT, f"--vlm-inconclusive={how}")
        again.assert_outcomes(passed=passed, failed=8 - passed)
    # What the block advises, whatever the environment or an ini file says.
    monkeypatch.setenv("VLM_WRONG", "pass")
    asked = len(server.requests())
    advised = ("-k", "test_sample and one", "--vlm-wrong=xfail", "-rx")
    seen = project.ask(server.url, *advised)
    # `one` is also in `none`.
    seen.assert_outcomes(passed=10, xfailed=30 + 40)
    assert seen.stdout.str().count("answered blue, reference red") == 30 + 40
    assert len(server.requests()) == asked


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


PUBLISHED = """
["*"]
[tiny-vlm.DemoChoice]
min = 99
published = true
[tiny-vlm.MathVision_MINI]
min = 99
published = true
[tiny-vlm.'own.tsv']
min = 99
published = true
"""
OF_ALL = """
from pytest_vlmeval import Benchmark

class TestAll(Benchmark):
    datasets = ["DemoChoice", "MathVision_MINI", "own.tsv"]
"""


@pytest.mark.parametrize("workers", [[], ["-n", "2"]], ids=["one", "xdist"])
def test_a_published_threshold_is_for_all_samples_of_the_published_data(
    project: Project, server: ServerProcess, workers: Sequence[str]
) -> None:
    """A few samples, a table of one's own or a changed file are held against none."""
    write_own(project, "own")
    project.write_math(4)
    project.pytester.makepyfile(test_own=OF_ALL, test_math="")
    server.control(default="Z")
    path = thresholds_of(project)
    path.write_text(PUBLISHED)
    said = f"vlmeval: the published thresholds in {path} do not apply ("
    whole = project.ask(server.url, *SELECT, *workers)
    whole.assert_outcomes(passed=2, failed=1)
    whole.stdout.fnmatch_lines(["DemoChoice: Overall is below its threshold."])
    line = f"{said}MathVision_MINI: modified data; own: a table of your own)"
    assert whole.outlines.count(line) == 1
    part, cases = project.junit(
        *endpoint(server.url), *SELECT, "--vlm-limit=3", *workers
    )
    part.assert_outcomes(passed=3)
    limited = "only some samples are asked, by --vlm-limit=3"
    line = f"{said}DemoChoice, MathVision_MINI: {limited}; own: a table of your own)"
    assert part.outlines.count(line) == 1
    part.stdout.fnmatch_lines(["gates: no gate was set"])
    found = properties(cases["test_score[DemoChoice]"])
    assert found["gates"] == "no gate was set"
    assert found["threshold gate of Overall: reason"] == (
        "DemoChoice: Overall = 0.00. The published threshold min = 99 of [tiny-vlm] in "
        f"{path} does not apply ({limited})."
    )
    # A threshold of the project's own is for whatever is asked.
    path.write_text(PUBLISHED.replace("published = true", ""))
    own = project.ask(server.url, *SELECT, "--vlm-limit=3", *workers)
    own.assert_outcomes(failed=3)
    assert "do not apply" not in own.stdout.str()


def test_a_task_file_of_a_few_samples_is_not_held_against_a_paper(
    project: Project, server: ServerProcess, installed: Path
) -> None:
    """By the thresholds that ship, which are those of the seed's own model."""
    server.control(models=["qwen-vl-chat"], default="B")
    rows = [
        {"index": str(n), "question": f"<{n}>?", "A": "red", "B": "blue"}
        | {"answer": "A", "category": "c", "image": row["image"]}
        for n, row in enumerate(math_rows(8))
    ]
    write_table(project.data_root / "ScienceQA_VAL.tsv", rows)
    model = {"api_base": f"{server.url}/chat/completions"}
    task = swift_task(model=model, data=["ScienceQA_VAL"], limit=6)
    write_task(project.pytester.path / "task.json", task)
    result = project.run("--vlm-config=task.json", "--vlm-allow-modified-data")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "vlmeval: the published thresholds in "
            f"{installed}/benchmarks/thresholds.toml do not apply (ScienceQA_VAL: only "
            "some samples are asked, by --vlm-limit=6)",
            "gates: no gate was set",
        ]
    )
