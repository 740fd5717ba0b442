"""Baselines as a user has them: made, committed, compared with, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.run_fixtures import Project, endpoint, properties
from tests.server_fixtures import ServerProcess

COUNT = 40
RIGHT = {f"<{index}>": str(10 * index) for index in range(1, COUNT + 1, 2)}
BASELINE = Path("__baselines__/tiny-vlm/MathVision_MINI.json")
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


@pytest.fixture
def gated(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """Give a project of 40 samples, all answered right, in which baselines count."""
    monkeypatch.delenv("PYTEST_ADDOPTS")
    monkeypatch.delenv("VLM_ALLOW_MISSING_BASELINE")
    project.write_math(COUNT)
    server.control(answers=RIGHT, default="B")
    return project


def worsen(server: ServerProcess, lost: int) -> None:
    """Let the server answer so many of the odd samples wrong."""
    wrong = dict.fromkeys(list(RIGHT)[:lost], "0")
    server.control(answers={**RIGHT, **wrong}, default="B")


def baseline_of(project: Project) -> Path:
    """Return where the project's baseline lies."""
    return project.pytester.path / BASELINE


def test_a_missing_baseline_fails_with_the_command_that_makes_it(
    gated: Project, server: ServerProcess
) -> None:
    result = gated.ask(server.url)
    result.assert_outcomes(passed=COUNT + 1, failed=1)
    assert result.ret == 1
    command = f"pytest *--vlm-model=tiny-vlm --vlm-api-base={server.url} *"
    result.stdout.fnmatch_lines(
        [
            "MathVision_MINI has no baseline for tiny-vlm yet, so nothing tells "
            "whether * = 100.00 is a regression.",
            "To make this score the baseline:",
            f"    {command} --snapshot-update",
            "Nothing is asked again (the answers are stored); it writes "
            f"{BASELINE}, which is to be committed.",
            "To run without baselines, add --vlm-allow-missing-baseline, or to the "
            'ini file vlm_allow_missing_baseline = "yes".',
        ]
    )
    assert not baseline_of(gated).exists()


def test_a_missing_baseline_may_be_allowed_and_is_said(
    gated: Project, server: ServerProcess
) -> None:
    arguments = (*endpoint(server.url), "--vlm-allow-missing-baseline")
    result, cases = gated.junit(*arguments)
    result.assert_outcomes(passed=COUNT + 2)
    found = properties(cases["test_no_regression[MathVision_MINI]"])
    (reason,) = (
        text
        for name, text in found.items()
        if name.startswith("baseline gate") and name.endswith(": reason")
    )
    assert reason.startswith(
        f"MathVision_MINI has no baseline for tiny-vlm ({BASELINE}): "
    )
    assert reason.endswith(
        "= 100.00 passes without one (--vlm-allow-missing-baseline)."
    )


def test_a_baseline_is_made_once_and_the_same_run_passes(
    gated: Project, server: ServerProcess
) -> None:
    made = gated.ask(server.url, "--snapshot-update")
    made.assert_outcomes(passed=COUNT + 2)
    made.stdout.fnmatch_lines(["1 snapshot generated."])
    text = baseline_of(gated).read_text()
    again = gated.ask(server.url, "-n", "2")
    again.assert_outcomes(passed=COUNT + 2)
    again.stdout.fnmatch_lines(["1 snapshot passed."])
    # As --snapshot-update of the same run writes nothing new.
    same = gated.ask(server.url, "--snapshot-update", "-n", "2")
    same.stdout.fnmatch_lines(["1 snapshot passed."])
    assert baseline_of(gated).read_text() == text
    assert len(server.requests()) == COUNT


def test_a_regression_fails_and_names_what_was_lost(
    gated: Project, server: ServerProcess
) -> None:
    gated.ask(server.url, "--snapshot-update")
    worsen(server, 8)
    arguments = (*endpoint(server.url), "--vlm-fresh")
    result, cases = gated.junit(*arguments)
    result.assert_outcomes(passed=COUNT - 8 + 1, xfailed=8, failed=1)
    result.stdout.fnmatch_lines(
        [
            "MathVision_MINI is worse than its baseline.",
            "  value     80.00 of 100 [[]*[]], 90 % paired score (Tango), around the "
            "baseline",
            f"  baseline  100.00 in {BASELINE}",
            "  change    -20.00 points of right answers [[]-*, -*[]], 90 % paired "
            "score (Tango)",
            "  p         0.00391 that so many are lost by chance (exact McNemar test, "
            "level 0.05)",
            "  flips     8 lost (right, now wrong), 0 gained",
            "  power     a drop of * points is found four times in five",
            "  lost      1, 3, 5, 7, 9, 11, 13, 15",
            "  samples   40",
        ]
    )
    found = properties(cases["test_no_regression[MathVision_MINI]"])
    kept = {name.rpartition(": ")[2]: value for name, value in found.items()}
    assert (kept["outcome"], kept["lost"], kept["gained"]) == ("failed", "8", "0")
    assert kept["expected"] == "100.0"
    assert gated.stored("SELECT outcome, fails FROM gates WHERE gate = 'baseline'") == [
        ("passed", 0),
        ("failed", 1),
    ]
    # Nothing but --snapshot-update changes a baseline.
    assert json.loads(baseline_of(gated).read_text())["value"] == 100


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
    every = gated.ask(server.url, "--vlm-gate-samples=all")
    every.assert_outcomes(passed=COUNT - 5 + 2, failed=5)
    every.stdout.fnmatch_lines(
        [
            "MathVision_MINI-1 is wrong (--vlm-gate-samples=all): answered 0, "
            "reference 10"
        ]
    )


def test_few_flips_are_inconclusive_and_say_how_many_samples_would_tell(
    gated: Project, server: ServerProcess
) -> None:
    gated.ask(server.url, "--snapshot-update")
    worsen(server, 3)
    result, cases = gated.junit(*endpoint(server.url), "--vlm-fresh")
    result.assert_outcomes(passed=COUNT - 3 + 2, xfailed=3)
    found = properties(cases["test_no_regression[MathVision_MINI]"])
    kept = {name.rpartition(": ")[2]: value for name, value in found.items()}
    assert kept["outcome"] == "inconclusive"
    assert int(kept["needed samples"]) > COUNT
    assert "is below its baseline, which may be chance. It passes" in kept["reason"]


def test_the_level_and_the_margin_decide(gated: Project, server: ServerProcess) -> None:
    gated.ask(server.url, "--snapshot-update")
    worsen(server, 8)
    gated.ask(server.url, "--vlm-fresh").assert_outcomes(
        passed=COUNT - 8 + 1, xfailed=8, failed=1
    )
    for option in ("--vlm-level=0.001", "--vlm-margin=20"):
        gated.ask(server.url, option).assert_outcomes(passed=COUNT - 8 + 2, xfailed=8)
    five = gated.ask(server.url, "--vlm-margin=5")
    five.assert_outcomes(passed=COUNT - 8 + 1, xfailed=8, failed=1)
    five.stdout.fnmatch_lines(
        ["  p *of a true drop that is not more than 5 points (paired score test*"]
    )


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (
            "--vlm-limit=10",
            "the subset: 40 samples in the baseline, now 10, of them 0 others "
            "(--vlm-limit, --vlm-sample, --vlm-seed)",
        ),
        (
            "--vlm-max-tokens=100",
            "generation: max_tokens: 2048 in the baseline, now 100",
        ),
    ],
)
def test_unlike_runs_are_not_compared(
    gated: Project, server: ServerProcess, option: str, line: str
) -> None:
    gated.ask(server.url, "--snapshot-update")
    result = gated.ask(server.url, "-k", "test_no_regression", option)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            f"MathVision_MINI cannot be compared with its baseline {BASELINE}, which "
            "is of another kind of run:",
            f"  {line}",
            "Run with the baseline's settings, or make this run the baseline: the same "
            "command with --snapshot-update. To leave this gate out: -k 'not "
            "test_no_regression'.",
        ]
    )


def test_other_data_are_not_compared(gated: Project, server: ServerProcess) -> None:
    gated.ask(server.url, "--snapshot-update")
    table = gated.data_root / "MathVision_MINI.tsv"
    table.write_text(table.read_text().replace("Question <2>", "Question <2> again"))
    result = gated.ask(server.url, "-k", "test_no_regression")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "  the data (checksum of the file): * in the baseline, now *",
            "  the prompts or references (digest): * in the baseline, now *",
        ]
    )


@pytest.mark.parametrize("content", [b"<<<<<<< HEAD\n", b"\xff\xfe\x00"])
def test_a_broken_baseline_is_named_and_kept(
    gated: Project, server: ServerProcess, content: bytes
) -> None:
    gated.ask(server.url, "--snapshot-update")
    path = baseline_of(gated)
    path.write_bytes(content)
    result = gated.ask(server.url, "-k", "test_no_regression")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"MathVision_MINI: *{BASELINE} *"])
    assert path.read_bytes() == content


def test_a_score_that_lacks_samples_is_neither_compared_nor_written(
    gated: Project, server: ServerProcess
) -> None:
    server.control(
        answers=RIGHT,
        default="B",
        rules=[{"contains": "<2>", "status": 400, "message": "no"}],
    )
    select = ("-k", "test_no_regression")
    first = gated.ask(server.url, "--snapshot-update", *select)
    first.assert_outcomes(failed=1)
    first.stdout.fnmatch_lines(
        [
            f"MathVision_MINI is not written to {BASELINE}: 1 of 40 samples have no "
            "usable answer, 0 no verdict of the judge. *"
        ]
    )
    assert not baseline_of(gated).exists()
    server.control(answers=RIGHT, default="B")
    gated.ask(server.url, "--snapshot-update", *select).assert_outcomes(passed=1)
    server.control(rules=[{"contains": "<2>", "status": 400, "message": "no"}])
    again = gated.ask(server.url, "--vlm-fresh", *select)
    again.stdout.fnmatch_lines([f"MathVision_MINI is not compared with {BASELINE}: *"])


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


def test_what_cannot_be_scored_has_no_baseline(
    gated: Project, server: ServerProcess
) -> None:
    select = ("-k", "test_no_regression", "--snapshot-update", "-rs")
    result = gated.ask(server.url, "--vlm-mode=infer", *select)
    result.assert_outcomes(skipped=1)
    (gated.data_root / "MathVision_MINI.tsv").write_text("index\tquestion\nx\n")
    broken = gated.ask(server.url, *select)
    broken.assert_outcomes(failed=1)
    assert not baseline_of(gated).exists()
    assert not (gated.pytester.path / "__snapshots__").exists()


def test_the_demo_passes_its_committed_baseline(
    gated: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmarks = Path(__file__).parent.parent / "benchmarks"
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
