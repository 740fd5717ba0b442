"""Datasets whose asking stops once it is known whether they keep their baseline."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.sessions.test_stop_early import EARLY, answers, demand, write_one
from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess

COUNT = 400
TOLD = re.compile(r"one stopped after (\d+) of 400 samples: ")
WORSE = (
    "the paired test of all would find it worse than its baseline, with an error of at "
    "most 0.05 (--vlm-stop-early)"
)
SCORES = ("-k", "not test_sample")


@pytest.fixture(autouse=True)
def comparing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gates of baselines be among the tests, and fail without one."""
    monkeypatch.delenv("PYTEST_ADDOPTS")
    monkeypatch.delenv("VLM_ALLOW_MISSING_BASELINE")


def make_baseline(project: Project, server: ServerProcess, count: int) -> None:
    """Make a baseline, 80 % of which are right."""
    write_one(project, count)
    answers(server, wrong_in_ten=2)
    made = project.ask(server.url, EARLY, "--snapshot-update", *SCORES)
    made.assert_outcomes(passed=2)
    said = "its score becomes the baseline, which is of all samples"
    made.stdout.fnmatch_lines([f"*one is asked whole (--vlm-stop-early): {said}."])
    assert len(server.requests()) == count


def baseline_of(project: Project) -> Path:
    return project.pytester.path / "__baselines__/tiny-vlm/one.json"


def asked_since(server: ServerProcess, before: int) -> int:
    return len(server.requests()) - before


def gates_of(project: Project) -> dict[str, dict[str, object]]:
    """Return the newest session's gates by kind."""
    rows = project.stored("SELECT result FROM gates ORDER BY decided_at, gate")
    found = [json.loads(str(result)) for (result,) in rows]
    return {str(gate["gate"]): gate for gate in found}


def stopped_after(gates: Mapping[str, Mapping[str, object]]) -> int:
    """Return the number of samples that were enough, as the message has it."""
    told = TOLD.match(str(gates["early stop"]["message"]))
    assert told is not None
    return int(told[1])


@pytest.mark.slow
def test_a_regression_is_found_with_few_samples_and_told_everywhere(
    project: Project, server: ServerProcess
) -> None:
    make_baseline(project, server, COUNT)
    text = baseline_of(project).read_text()
    # Half of what was right is lost: 40 % of all.
    answers(server, wrong_in_ten=6)
    before = len(server.requests())
    page = project.pytester.path / "report.html"
    arguments = (EARLY, "--vlm-fresh", f"--vlm-report={page}", *SCORES)
    result = project.ask(server.url, *arguments)
    result.assert_outcomes(passed=1, failed=1)
    assert asked_since(server, before) < COUNT / 4
    found = gates_of(project)
    counted = stopped_after(found)
    assert counted <= asked_since(server, before)
    reason = f"one stopped after {counted} of 400 samples: {WORSE}"
    result.stdout.fnmatch_lines(
        [
            "one is worse than its baseline.",
            "  value     * of 100 [[]*[]], 90 % *",
            "  baseline  * of the same samples, 80.00 of all, in __baselines__/*",
            f"  samples   {counted} in * clusters (of one image or group)",
            f"  stopped   {reason}",
            f"gates: {reason}.",
        ]
    )
    gate = found["baseline"]
    assert (gate["outcome"], gate["samples"]) == ("failed", counted)
    assert isinstance(gate["lost"], int)
    assert gate["lost"] > 0 == gate["gained"]
    html = page.read_text(encoding="utf-8")
    assert f'<p class="note">{reason}.</p>' in html
    # No partial score takes the place of the baseline, which the rest is asked for.
    assert baseline_of(project).read_text() == text
    whole = project.ask(server.url, *SCORES)
    whole.assert_outcomes(passed=1, failed=1)
    assert asked_since(server, before) == COUNT


@pytest.mark.slow
def test_what_keeps_its_baseline_and_its_threshold_stops_when_both_are_known(
    project: Project, server: ServerProcess
) -> None:
    make_baseline(project, server, COUNT)
    demand(project, 50)
    before = len(server.requests())
    arguments = (EARLY, "--vlm-fresh", "--vlm-margin=10", *SCORES)
    result = project.ask(server.url, *arguments)
    result.assert_outcomes(passed=2)
    found = gates_of(project)
    reason = str(found["early stop"]["message"])
    assert TOLD.match(reason)
    assert reason.endswith(
        "samples: Overall of all would be at least 50.00, with an error of at most "
        "0.05, so its threshold is reached; the paired test of all would not find it "
        "worse than its baseline, with an error of at most 0.05 (--vlm-stop-early)."
    )
    assert found["baseline"]["outcome"] == found["threshold"]["outcome"] == "passed"
    asked = asked_since(server, before)
    assert asked < COUNT
    # Several processes find the same, and ask nothing again.
    project.ask(server.url, *arguments[:1], *arguments[2:], "-n", "2").assert_outcomes(
        passed=2
    )
    assert str(gates_of(project)["early stop"]["message"]) == reason
    assert asked_since(server, before) == asked


WHOLE = [
    (
        ["--vlm-gate-samples=regressed"],
        "--vlm-gate-samples=regressed looks at every sample",
    ),
    (["--vlm-max-tokens=9"], "its baseline is of another kind of run"),
]


@pytest.mark.slow
def test_what_needs_all_samples_says_why(
    project: Project, server: ServerProcess
) -> None:
    make_baseline(project, server, 80)
    for options, why in WHOLE:
        before = len(server.requests())
        result = project.ask(server.url, EARLY, "--vlm-fresh", *options, *SCORES)
        result.stdout.fnmatch_lines([f"*one is asked whole (--vlm-stop-early): {why}."])
        assert asked_since(server, before) == 80
    baseline_of(project).unlink()
    result = project.ask(server.url, EARLY, *SCORES)
    result.stdout.fnmatch_lines(
        [
            "one has no baseline for tiny-vlm yet, *",
            "gates: one is asked whole (--vlm-stop-early): there is no baseline of it, "
            "which is made of all samples.",
        ]
    )
