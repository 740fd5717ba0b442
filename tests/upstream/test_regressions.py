"""Baselines as a user has them: made, committed, compared with."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.baseline_files import git_diff
from tests.support.baseline_projects import BASELINE, COUNT, SCORES, baseline_of, worsen
from tests.support.run_fixtures import Project, endpoint, properties
from tests.support.server_fixtures import ServerProcess

OWN_TEST = """
import pytest
from pytest_vlmeval import Benchmark

class TestMath(Benchmark):
    datasets = ["MathVision_MINI"]

@pytest.mark.vlm("MathVision_MINI")
def test_own(vlm_score, snapshot):
    assert vlm_score == snapshot

def test_something_else(snapshot):
    assert {"colour": "red"} == snapshot
"""


@pytest.mark.slow
def test_a_baseline_is_made_once_and_the_same_run_passes(
    gated: Project, server: ServerProcess
) -> None:
    made = gated.ask(server.url, "--snapshot-update", *SCORES)
    made.assert_outcomes(passed=2)
    made.stdout.fnmatch_lines(["1 snapshot generated."])
    text = baseline_of(gated).read_text()
    again = gated.ask(server.url, "-n", "2", *SCORES)
    again.assert_outcomes(passed=2)
    again.stdout.fnmatch_lines(["1 snapshot passed."])
    # As --snapshot-update of the same run writes nothing new.
    same = gated.ask(server.url, "--snapshot-update", "-n", "2", *SCORES)
    same.stdout.fnmatch_lines(["1 snapshot passed."])
    assert baseline_of(gated).read_text() == text
    assert len(server.requests()) == COUNT


EIGHT_LOST = [
    "MathVision_MINI is worse than its baseline.",
    "  value     80.00 of 100 [[]*[]], 90 % paired score (Tango), around the baseline",
    f"  baseline  100.00 in {BASELINE}",
    "  change    accuracy -20.0 points, 90 % CI [[]-*, -*[]]; p = 0.00391, exact "
    "McNemar",
    "  test      one-sided, level 0.95; CI by paired score (Tango)",
    "  flips     8 lost (right, now wrong), 0 gained",
    "  power     a drop of * points is found four times in five",
    "  lost      1, 3, 5, 7, 9, 11, 13, 15",
    "  samples   40",
]


def properties_of_gate(cases: Mapping[str, ET.Element]) -> dict[str, str]:
    """Return what JUnit has of the baseline's gate, by its last words."""
    found = properties(cases["test_no_regression[MathVision_MINI]"])
    return {name.rpartition(": ")[2]: value for name, value in found.items()}


@pytest.mark.slow
def test_a_regression_fails_and_names_what_was_lost(
    gated: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    gated.ask(server.url, "--snapshot-update", *SCORES)
    worsen(server, 8)
    summary = gated.pytester.path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    arguments = (*endpoint(server.url), "--vlm-fresh")
    result, cases = gated.junit(*arguments)
    result.assert_outcomes(passed=COUNT - 8 + 1, xfailed=8, failed=1)
    result.stdout.fnmatch_lines(EIGHT_LOST)
    # The terminal and the CI's summary have the same table.
    page = summary.read_text().splitlines()
    assert "### 8 lost and 0 gained since the baseline" in page
    for index in range(1, 16, 2):
        cells = ("MathVision_MINI", str(index), "right", "wrong")
        assert f"| {' | '.join(cells)} |" in page
        assert any(tuple(line.split()) == cells for line in result.outlines)
    kept = properties_of_gate(cases)
    assert (kept["outcome"], kept["lost"], kept["gained"]) == ("failed", "8", "0")
    assert kept["expected"] == "100.0"
    assert gated.stored("SELECT outcome, fails FROM gates WHERE gate = 'baseline'") == [
        ("passed", 0),
        ("failed", 1),
    ]
    # Nothing but --snapshot-update changes a baseline.
    assert json.loads(baseline_of(gated).read_text())["value"] == 100
    # The level and the margin decide.
    for option in ("--vlm-level=0.999", "--vlm-margin=20"):
        gated.ask(server.url, option, *SCORES).assert_outcomes(passed=2)
    five = gated.ask(server.url, "--vlm-margin=5", *SCORES)
    five.assert_outcomes(passed=1, failed=1)
    five.stdout.fnmatch_lines(
        [
            "  change *; p = *, paired score test (Tango)",
            "  test      one-sided, a drop of more than 5 points, level 0.95; CI by *",
        ]
    )
    # Of few flips none can tell; how many samples would is said.
    worsen(server, 3)
    result, cases = gated.junit(*arguments, *SCORES, "--vlm-properties=all")
    result.assert_outcomes(passed=2)
    kept = properties_of_gate(cases)
    assert kept["outcome"] == "inconclusive"
    assert int(kept["needed samples"]) > COUNT
    assert "is below its baseline, which may be chance. It passes" in kept["reason"]


@pytest.mark.slow
def test_a_new_baseline_is_reviewed_line_by_line(
    gated: Project, server: ServerProcess, tmp_path: Path
) -> None:
    select = ("-k", "test_no_regression", "--snapshot-update", "--vlm-fresh")
    gated.ask(server.url, *select).assert_outcomes(passed=1)
    before = baseline_of(gated).read_text()
    worsen(server, 1)
    gated.ask(server.url, *select).assert_outcomes(passed=1)
    lines = git_diff(tmp_path, before, baseline_of(gated).read_text())
    flips = [line.strip(",") for line in lines if line[1:4] == "   "]
    assert flips == ['-   "1": "right"', '+   "1": "wrong"']
    # Nothing else changes but scores.
    names = {line[1:].split(":")[0].strip().strip('"') for line in lines}
    assert names - {"1"} <= {"value", "correct", *json.loads(before)["metrics"]}
    assert "value" in names


@pytest.mark.slow
def test_exactly_the_regressed_samples_fail_where_asked_to(
    gated: Project, server: ServerProcess
) -> None:
    worsen(server, 3)
    gated.ask(server.url, "--snapshot-update")
    # 1, 3 and 5 were wrong before: 1 to 9 are wrong now.
    worsen(server, 5)
    gated.ask(server.url, "--vlm-fresh").assert_outcomes(
        passed=COUNT - 5 + 2, xfailed=5
    )
    result = gated.ask(server.url, "--vlm-gate-samples=regressed")
    result.assert_outcomes(passed=COUNT - 5 + 2, xfailed=3, failed=2)
    lines = [
        f"MathVision_MINI-{index} was right in the baseline and is wrong now "
        f"(--vlm-gate-samples=regressed): answered 0, reference {10 * index}"
        for index in (7, 9)
    ]
    result.stdout.fnmatch_lines(lines)
    every = gated.ask(server.url, "--vlm-wrong=fail")
    every.assert_outcomes(passed=COUNT - 5 + 2, failed=5)
    every.stdout.fnmatch_lines(
        ["MathVision_MINI-1 is wrong (--vlm-wrong=fail): answered 0, reference 10"]
    )


@pytest.mark.slow
def test_own_tests_share_the_baseline_and_updates_remove_no_other(
    gated: Project, server: ServerProcess
) -> None:
    gated.pytester.makepyfile(test_math=OWN_TEST)
    other = gated.pytester.path / "__baselines__" / "other" / "MathVision_MINI.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    select = ("-k", "not test_sample")
    made = gated.ask(server.url, "--snapshot-update", *select)
    made.assert_outcomes(passed=4)
    gated.ask(server.url, *select).assert_outcomes(passed=4)
    # The whole folder, where syrupy takes what no test has used for a leftover.
    again = gated.ask(server.url, "--snapshot-update", ".")
    again.assert_outcomes(passed=COUNT + 4)
    assert other.read_text() == "{}"
    assert baseline_of(gated).exists()
    worsen(server, 8)
    result = gated.ask(server.url, "--vlm-fresh", "-k", "test_own")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["MathVision_MINI is worse than its baseline."])


def test_new_baselines_alone_may_be_written(
    gated: Project, server: ServerProcess
) -> None:
    select = ("-k", "test_no_regression", "--snapshot-update-new-only")
    gated.ask(server.url, *select).assert_outcomes(passed=1)
    text = baseline_of(gated).read_text()
    worsen(server, 8)
    gated.ask(server.url, "--vlm-fresh", *select).assert_outcomes(failed=1)
    assert baseline_of(gated).read_text() == text


def test_the_demo_passes_its_committed_baseline(
    gated: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmarks = Path(__file__).parents[2] / "benchmarks"
    result = gated.run(
        "--vlm-model=demo",
        str(benchmarks / "test_demo.py"),
        # The benchmark's own folder is not the test's to write to.
        f"--vlm-work-dir={gated.store.parent}",
        "-k",
        "not test_sample",
    )
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["3 snapshots passed."])
