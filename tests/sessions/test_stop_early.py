"""Datasets whose asking stops once their gates are decided."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.gated_tables import thresholds_of, write_own
from tests.support.run_fixtures import (
    Project,
    endpoint,
    image_bytes,
    properties,
    write_table,
)
from tests.support.server_fixtures import ServerProcess

COUNT = 1_500
EARLY = "--vlm-stop-early"
BENCHMARK = """
from pytest_vlmeval import Benchmark

class TestOwn(Benchmark):
    datasets = ["one.tsv"]
"""
TOLD = re.compile(r"one stopped after (\d+) of 1,500 samples")


def write_one(project: Project, count: int = COUNT, images: int = 40) -> None:
    """Write a table of open questions, and its benchmark."""
    shown = [base64.b64encode(image_bytes(n)).decode() for n in range(images)]
    rows = [
        {
            "index": str(n),
            "question": f"one <{n}>?",
            "answer": "red",
            "image": shown[n % images],
        }
        for n in range(count)
    ]
    write_table(project.pytester.path / "one.tsv", rows)
    project.pytester.makepyfile(test_own=BENCHMARK)


def demand(project: Project, minimum: float, more: str = "") -> None:
    text = f"['*'.'one.tsv']\nmin = {minimum}\n{more}"
    thresholds_of(project).write_text(text)


def answers(server: ServerProcess, wrong_in_ten: int) -> None:
    """Answer `red`, but for the questions that end on so many of ten digits."""
    rules = [{"contains": f"{n}>", "answer": "blue"} for n in range(wrong_in_ten)]
    server.control(default="red", rules=rules)


def check_stopped(
    server: ServerProcess, result: pytest.RunResult, cases: dict[str, ET.Element]
) -> int:
    """Check what is said of a stop; return how many samples counted."""
    assert result.ret == pytest.ExitCode.OK
    asked = len(server.requests())
    found = properties(cases["test_score[one]"])
    reason = found["early stop gate: reason"]
    told = TOLD.match(reason)
    assert told is not None
    counted = int(told[1])
    # Beside those that count, the next look's were asked meanwhile.
    assert counted <= asked < COUNT / 4
    assert reason.endswith(
        " of 1,500 samples: Overall of all would be at least 70.00, with an error of "
        "at most 0.05, so its threshold is reached (--vlm-stop-early)."
    )
    assert found["samples"] == str(counted)
    assert found["threshold gate of Overall: outcome"] == "passed"
    assert found["completeness gate: outcome"] == "passed"
    said = f"stopped    {reason.removesuffix('.')}"
    assert said in found["threshold gate of Overall: reason"]
    result.stdout.fnmatch_lines([f"gates: {reason}"])
    return counted


@pytest.mark.slow
def test_a_model_far_above_its_threshold_is_asked_little(
    project: Project, server: ServerProcess
) -> None:
    write_one(project)
    answers(server, wrong_in_ten=1)
    demand(project, 70)
    arguments = [*endpoint(server.url), EARLY]
    result, cases = project.junit(*arguments)
    counted = check_stopped(server, result, cases)
    outcomes = result.parseoutcomes()
    assert outcomes["skipped"] == COUNT - counted
    assert outcomes["passed"] + outcomes["xfailed"] == counted + 1
    (skipped,) = {
        case.attrib["message"]
        for each in cases.values()
        for case in each.iter("skipped")
        if not case.attrib["type"].endswith("xfail")
    }
    reason = properties(cases["test_score[one]"])["early stop gate: reason"]
    assert skipped == f"not asked: {reason.removesuffix('.')}"
    # Of the looks only the one that decided is kept.
    assert project.stored("SELECT count(*) FROM scores") == [(1,)]
    assert project.stored("SELECT count(*) FROM verdicts") == [(counted,)]
    # The same again asks nothing, and finds the same.
    asked = len(server.requests())
    _, again = project.junit(*arguments, "-k", "test_score")
    found = properties(again["test_score[one]"])
    assert found["early stop gate: reason"] == reason
    assert len(server.requests()) == asked
    # Without the option the rest is asked.
    whole = project.run(*endpoint(server.url), "-k", "test_score")
    whole.assert_outcomes(passed=1)
    assert len(server.requests()) == COUNT


@pytest.mark.slow
def test_several_processes_stop_alike(project: Project, server: ServerProcess) -> None:
    write_one(project)
    answers(server, wrong_in_ten=1)
    demand(project, 70)
    result, cases = project.junit(*endpoint(server.url), EARLY, "-n", "2")
    counted = check_stopped(server, result, cases)
    assert result.parseoutcomes()["skipped"] == COUNT - counted


def test_a_model_far_below_its_threshold_stops_and_fails(
    project: Project, server: ServerProcess
) -> None:
    write_one(project)
    answers(server, wrong_in_ten=6)
    demand(project, 70)
    result = project.ask(server.url, EARLY, "-k", "test_score")
    result.assert_outcomes(failed=1)
    assert len(server.requests()) < COUNT / 4
    result.stdout.fnmatch_lines(
        [
            "one: Overall is below its threshold.",
            "  stopped    one stopped after * of 1,500 samples: Overall of all would "
            "be at most *, with an error of at most 0.05, so its threshold is not "
            "reached (--vlm-stop-early)",
        ]
    )


def test_a_model_at_its_threshold_is_asked_all(
    project: Project, server: ServerProcess
) -> None:
    write_one(project, 200)
    answers(server, wrong_in_ten=3)
    demand(project, 69)
    result, cases = project.junit(*endpoint(server.url), EARLY, "-k", "test_score")
    result.assert_outcomes(passed=1)
    assert len(server.requests()) == 200
    found = properties(cases["test_score[one]"])
    assert not [name for name in found if name.startswith("early stop")]
    assert found["samples"] == "200"


WHOLE = {
    "none": ("", "it has no threshold"),
    "exact": ("rule = 'point'", "the rule point looks at the value of all samples"),
    "more": ("metrics.Overall.min = 0.5", "it has thresholds of further metrics"),
}


def test_what_cannot_stop_early_is_asked_whole_and_says_why(
    project: Project, server: ServerProcess
) -> None:
    write_own(project, *WHOLE, samples=60)
    answers(server, wrong_in_ten=0)
    demands = (
        f"['*'.'{name}.tsv']\nmin = 50\n{more}"
        for name, (more, _) in WHOLE.items()
        if more
    )
    thresholds_of(project).write_text("\n".join(demands))
    result = project.ask(server.url, EARLY, "-k", "test_score")
    result.assert_outcomes(passed=3)
    assert len(server.requests()) == 180
    for name, (_, why) in WHOLE.items():
        said = f"--vlm-stop-early does not apply to {name}: {why}"
        result.stdout.fnmatch_lines([f"*{said}", f"gates: {said}."])


EXCLUDED = [
    (
        "--vlm-mode=infer",
        "--vlm-stop-early and --vlm-mode=infer exclude each other: samples are scored "
        "while others are asked. Give --vlm-mode=all, or leave --vlm-stop-early out.",
    ),
    (
        "--vlm-fdr=0.05",
        "--vlm-stop-early and --vlm-fdr exclude each other: the one decides each gate "
        "by itself, the other all together. Leave one of them out.",
    ),
    (
        "--vlm-repeat=3",
        "--vlm-stop-early and --vlm-repeat=3 exclude each other: a gate is decided "
        "early only by samples that are asked once. Leave one of them out.",
    ),
]


@pytest.mark.parametrize(("option", "says"), EXCLUDED)
def test_what_excludes_stopping_early_is_a_usage_error(
    project: Project, option: str, says: str
) -> None:
    write_one(project, 1)
    result = project.ask("http://127.0.0.1:9/v1", EARLY, option, "--vlm-temperature=1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {says}"])


def test_a_judge_is_asked_once_of_what_several_looks_score(
    project: Project, server: ServerProcess, vlm_server: Callable[..., ServerProcess]
) -> None:
    shown = base64.b64encode(image_bytes(0)).decode()
    rows = [
        {
            "index": str(n),
            "question": f"Which <{n}>?",
            "A": "red",
            "B": "blue",
            "answer": "A",
            "category": "colour",
            "image": shown,
        }
        for n in range(600)
    ]
    write_table(project.data_root / "MMStar.tsv", rows)
    project.pytester.makepyfile(test_own=BENCHMARK.replace("one.tsv", "MMStar"))
    (project.pytester.path / "thresholds.toml").write_text("['*'.MMStar]\nmin = 85")
    wrong = {"contains": "3>", "answer": "B"}
    server.control(default="pick number 1", rules=[wrong])
    judge = vlm_server(judge="good", models=["judge"])
    arguments = [f"--vlm-judge-api-base={judge.url}", "--vlm-judge=judge"]
    result, cases = project.junit(
        *endpoint(server.url), *arguments, EARLY, "-k", "test_score"
    )
    result.assert_outcomes(passed=1)
    found = properties(cases["test_score[MMStar]"])
    counted = int(found["samples"])
    # More than one look, so that what the first one asked is not asked again.
    assert 50 < counted < 600
    right = int(found["correct"])
    assert len(judge.requests()) == right
    assert found["threshold gate of Overall: outcome"] == "passed"


FEW = 400
TOLD_OF_FEW = re.compile(r"one stopped after (\d+) of 400 samples: ")
WORSE = (
    "the paired test of all would find it worse than its baseline, with an error of at "
    "most 0.05 (--vlm-stop-early)"
)
SCORES = ("-k", "not test_sample")


@pytest.fixture
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
    made.stdout.fnmatch_lines([f"*--vlm-stop-early does not apply to one: {said}."])
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
    told = TOLD_OF_FEW.match(str(gates["early stop"]["message"]))
    assert told is not None
    return int(told[1])


@pytest.mark.usefixtures("comparing")
@pytest.mark.slow
def test_a_regression_is_found_with_few_samples_and_told_everywhere(
    project: Project, server: ServerProcess
) -> None:
    make_baseline(project, server, FEW)
    text = baseline_of(project).read_text()
    # Half of what was right is lost: 40 % of all.
    answers(server, wrong_in_ten=6)
    before = len(server.requests())
    page = project.pytester.path / "report.html"
    arguments = (EARLY, "--vlm-fresh", f"--vlm-report={page}", *SCORES)
    result = project.ask(server.url, *arguments)
    result.assert_outcomes(passed=1, failed=1)
    assert asked_since(server, before) < FEW / 4
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
    assert asked_since(server, before) == FEW


@pytest.mark.usefixtures("comparing")
@pytest.mark.slow
def test_what_keeps_its_baseline_and_its_threshold_stops_when_both_are_known(
    project: Project, server: ServerProcess
) -> None:
    make_baseline(project, server, FEW)
    demand(project, 50)
    before = len(server.requests())
    arguments = (EARLY, "--vlm-fresh", "--vlm-margin=10", *SCORES)
    result = project.ask(server.url, *arguments)
    result.assert_outcomes(passed=2)
    found = gates_of(project)
    reason = str(found["early stop"]["message"])
    assert TOLD_OF_FEW.match(reason)
    assert reason.endswith(
        "samples: Overall of all would be at least 50.00, with an error of at most "
        "0.05, so its threshold is reached; the paired test of all would not find it "
        "worse than its baseline, with an error of at most 0.05 (--vlm-stop-early)."
    )
    assert found["baseline"]["outcome"] == found["threshold"]["outcome"] == "passed"
    asked = asked_since(server, before)
    assert asked < FEW
    # Several processes find the same, and ask nothing again.
    project.ask(server.url, *arguments[:1], *arguments[2:], "-n", "2").assert_outcomes(
        passed=2
    )
    assert str(gates_of(project)["early stop"]["message"]) == reason
    assert asked_since(server, before) == asked


WHOLE_COMPARED = [
    (
        ["--vlm-gate-samples=regressed"],
        "--vlm-gate-samples=regressed looks at every sample",
    ),
    (["--vlm-wrong=fail"], "--vlm-wrong=fail looks at every sample"),
    (["--vlm-max-tokens=9"], "its baseline was made with other settings"),
]


@pytest.mark.usefixtures("comparing")
@pytest.mark.slow
def test_what_needs_all_samples_says_why(
    project: Project, server: ServerProcess
) -> None:
    make_baseline(project, server, 80)
    for options, why in WHOLE_COMPARED:
        before = len(server.requests())
        result = project.ask(server.url, EARLY, "--vlm-fresh", *options, *SCORES)
        result.stdout.fnmatch_lines(
            [f"*--vlm-stop-early does not apply to one: {why}."]
        )
        assert asked_since(server, before) == 80
    baseline_of(project).unlink()
    result = project.ask(server.url, EARLY, *SCORES)
    result.stdout.fnmatch_lines(
        [
            "*--vlm-stop-early does not apply to one: there is no baseline of it, "
            "which is made of all samples",
            "gates: no baselines yet: --snapshot-update makes today's scores *",
        ]
    )
