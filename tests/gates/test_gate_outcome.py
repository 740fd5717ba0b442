"""What gates find: their record, when it fails a test, and many in one session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vlmeval.gates.thresholds import RULES
from pytest_vlmeval.records import (
    NO_RULE,
    CategoryShare,
    GateOutcome,
    GateResult,
    Inconclusive,
    Interval,
    explain_failures,
    is_failure,
    properties_of,
)
from pytest_vlmeval.reports.terminal import format_markdown
from pytest_vlmeval.run.store import Store
from tests.support.gated_tables import (
    answers,
    gates,
    newest_gates,
    thresholds_of,
    write_own,
)
from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess

RESULT = GateResult(
    dataset="Data",
    gate="threshold",
    metric="Overall",
    outcome="failed",
    rule="confident-below",
    value=50.0,
    interval=Interval(low=41.2, high=58.8, level=0.9, method="Wilson"),
    samples=100,
    clusters=80,
    expected=60.0,
    p_value=0.02,
    lost=3,
    gained=1,
    worst=(CategoryShare(category="counting", correct=1, samples=9),),
    needed_samples=640,
    message="Data: too low.",
    fails=True,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.close()


def test_the_store_gives_back_what_it_was_given(store: Store) -> None:
    bare = GateResult(
        dataset="Data", gate="completeness", outcome="passed", message="complete"
    )
    store.save_gates("session", "run", [RESULT, bare])
    store.save_gates("other session", "run", [replace(bare, dataset="Else")])
    assert store.load_gates("session") == (bare, RESULT)


def test_the_newest_result_of_a_session_counts(store: Store) -> None:
    store.save_gates("session", "run", [RESULT])
    newer = replace(RESULT, outcome="passed", fails=False)
    store.save_gates("session", "run", [newer])
    assert store.load_gates("session") == (newer,)


@pytest.mark.parametrize(
    ("outcome", "rule", "inconclusive", "fails"),
    [
        ("passed", "confident-above", "fail", False),
        ("failed", "confident-below", "pass", True),
        ("inconclusive", "confident-below", "rule", False),
        ("inconclusive", "confident-above", "rule", True),
        ("inconclusive", "confident-above", "pass", False),
        ("inconclusive", "confident-below", "fail", True),
    ],
)
def test_what_fails_a_test(
    outcome: GateOutcome, rule: str, inconclusive: Inconclusive, fails: bool
) -> None:
    assert is_failure(outcome, inconclusive, strict=RULES[rule].strict) == fails


def test_failures_are_told_together_and_only_they() -> None:
    fine = replace(RESULT, fails=False, message="fine")
    other = replace(RESULT, message="Data: incomplete.")
    assert explain_failures([fine]) is None
    assert explain_failures([RESULT, fine, other]) == (
        "Data: too low.\n\nData: incomplete."
    )


def test_junit_has_the_interval_and_the_reason() -> None:
    found = dict(properties_of(RESULT, every=False))
    start = "threshold gate of Overall"
    assert f"{start}: p-value" not in found
    assert found[f"{start}: interval"] == "[41.20, 58.80], 90 % Wilson"
    assert found[f"{start}: reason"] == "Data: too low."
    assert found[f"{start}: outcome"] == "failed"
    assert found.items() < dict(properties_of(RESULT, every=True)).items()


def test_what_had_nothing_to_hold_a_score_against_is_not_called_passed() -> None:
    empty = replace(
        RESULT, outcome="passed", rule=NO_RULE, fails=False, message="No threshold."
    )
    assert ("threshold gate of Overall: outcome", "not set") in properties_of(
        empty, every=False
    )
    table = format_markdown("m", [empty])
    assert table.startswith("## vlmeval: m, no gate was set\n")
    assert "| not set |" in table
    assert "| passed |" not in table


def test_a_table_with_an_inconclusive_gate_is_not_headed_by_passes() -> None:
    unsure = replace(RESULT, outcome="inconclusive", fails=False)
    fine = replace(RESULT, outcome="passed", fails=False)
    heading = format_markdown("m", [unsure, fine]).partition("\n")[0]
    assert heading == "## vlmeval: m, no gate fails, 1 inconclusive"
    heading = format_markdown("m", [fine]).partition("\n")[0]
    assert heading == "## vlmeval: m, every gate passes"


NAMES = ("a", "b", "c", "d", "e")
FDR = "--vlm-fdr=0.05"
SCORES = ("-k", "not test_sample")
# The gates from last to first.
REVERSED = [
    f"test_own.py::TestOwn::{test}[{name}]"
    for name in reversed(NAMES)
    for test in ("test_no_regression", "test_score")
]


@pytest.fixture
def five(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """Give five tables of 20 samples with thresholds, and with baselines all right."""
    monkeypatch.delenv("PYTEST_ADDOPTS")
    monkeypatch.delenv("VLM_ALLOW_MISSING_BASELINE")
    write_own(project, *NAMES)
    demands = "\n".join(f"['*'.'{name}.tsv']\nmin = 80" for name in NAMES)
    thresholds_of(project).write_text(demands)
    answers(server)
    made = project.ask(server.url, "--snapshot-update", *SCORES)
    made.assert_outcomes(passed=10)
    return project


def adjusted(project: Project) -> dict[tuple[str, str], object]:
    """Return the adjusted p-values of the newest gates that have one."""
    return {
        key: gate["adjusted_p_value"]
        for key, gate in newest_gates(project).items()
        if gate["adjusted_p_value"] is not None
    }


def outcome(project: Project, dataset: str, gate: str) -> tuple[object, object]:
    found = newest_gates(project)[dataset, gate]
    return found["outcome"], found["fails"]


@pytest.mark.slow
def test_all_gates_share_the_false_alarms(five: Project, server: ServerProcess) -> None:
    """One that alone would be an alarm is none among ten; with others it may be.

    Lost are 5 of 20 in c: p = 1/32 (McNemar), times 10 gates.
    """
    answers(server, c=5)
    result = five.ask(server.url, "--vlm-fresh", FDR, *SCORES)
    result.assert_outcomes(passed=10)
    assert newest_gates(five)["c", "baseline"]["p_value"] == 1 / 32
    assert outcome(five, "c", "baseline") == ("inconclusive", False)
    assert adjusted(five)["c", "baseline"] == pytest.approx(10 / 32)
    assert len(adjusted(five)) == 10

    # Now e is never answered: it has no score, and its gates count no more. Of eight
    # p-values a's of its threshold, 0.0321 (P(X <= 12) of a binomial of 20 and 0.8), is
    # the sixth, after b's two, a's of its baseline and those of c and d, 1/32 each.
    no: dict[str, object] = {"contains": "e <", "status": 400, "message": "no"}
    answers(server, no, a=8, b=15, c=5, d=5)
    result = five.ask(server.url, "--vlm-fresh", FDR, *SCORES)
    result.assert_outcomes(passed=2, failed=8)
    result.stdout.fnmatch_lines(
        [
            "*e has no score: none of its samples was answered.",
            "c is worse than its baseline.",
            "  change *, exact McNemar; 0.0429 among all gates, alarm up to 0.05",
        ]
    )
    found = adjusted(five)
    for key in (("a", "threshold"), ("c", "baseline"), ("d", "baseline")):
        assert found[key] == pytest.approx(0.0321 * 8 / 6, abs=2e-4)
        assert outcome(five, *key) == ("failed", True)
    assert outcome(five, "c", "threshold") == ("inconclusive", False)
    # Without the baselines it is the second of four.
    result = five.ask(server.url, FDR, "-k", "test_score")
    result.assert_outcomes(passed=3, failed=2)
    assert outcome(five, "a", "threshold") == ("inconclusive", False)
    assert adjusted(five)["a", "threshold"] == pytest.approx(0.0321 * 4 / 2, abs=2e-4)


def three_fail(
    project: Project, server: ServerProcess, summary: Path, *arguments: str
) -> tuple[object, list[str]]:
    """Run in a store of its own; give what gates found, and the summary's lines."""
    summary.write_text("# Of another step\n")
    result = project.ask(server.url, FDR, *arguments)
    result.assert_outcomes(passed=7, failed=3)
    result.stdout.fnmatch_lines(["gates: 3 failed, 7 passed, 5 inconclusive"])
    found = gates(project)
    project.store.unlink()
    return found, summary.read_text().splitlines()


@pytest.mark.slow
def test_neither_processes_nor_the_order_change_what_gates_find(
    five: Project,
    server: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers(server, a=8, b=15, c=5, d=5)
    five.store.unlink()
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    found, lines = three_fail(five, server, summary, *SCORES)
    again, same_lines = three_fail(five, server, summary, *REVERSED, "-n", "3")
    assert found == again
    assert lines == same_lines
    title = "## vlmeval: tiny-vlm, 3 of 15 gates fail"
    assert lines[:2] == ["# Of another step", title]
    flips = lines.index("### 33 lost and 0 gained since the baseline")
    assert flips == 5 + 15 + 1
    assert sum(line.endswith("| right | wrong |") for line in lines[flips:]) == 33
    (line,) = (line for line in lines if line.startswith("| b | threshold: Overall | "))
    assert line.startswith("| b | threshold: Overall | failed | 25.00 | [12.74, ")
    assert "90 % Wilson | 80.00 | b: Overall is below its" in line
    assert "<br>  threshold  80.00 for *, rule confident-below" in line

    # What cannot be written is told, and changes nothing of the gates.
    nowhere = tmp_path / "no" / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(nowhere))
    result = five.ask(server.url, "-k", "test_score and d")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "gates: 1 passed, 1 inconclusive",
            f"GITHUB_STEP_SUMMARY={nowhere} cannot be written (No such file or "
            "directory). Point it at a writable file, or unset it.",
        ]
    )
