"""What has no baseline to be compared with: missing, unlike, broken, incomplete."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.support.baseline_projects import (
    BASELINE,
    COUNT,
    RIGHT,
    baseline_of,
)
from tests.support.failed_sessions import error_of
from tests.support.run_fixtures import Project, endpoint, properties
from tests.support.server_fixtures import ServerProcess

OTHER = BASELINE.with_name("Other.json")


def test_the_first_score_passes_without_a_baseline(
    gated: Project, server: ServerProcess
) -> None:
    page = gated.pytester.path / "report.html"
    result, cases = gated.junit(*endpoint(server.url), f"--vlm-report={page}")
    result.assert_outcomes(passed=COUNT + 2)
    result.stdout.fnmatch_lines(
        [
            "gates: no gate was set",
            "gates: no baselines yet: --snapshot-update makes today's scores the "
            "baseline",
        ]
    )
    assert result.stdout.str().count("no baselines yet") == 1
    found = properties(cases["test_no_regression[MathVision_MINI]"])
    assert found["gates"] == "no gate was set"
    assert reason_of(found).endswith(
        "= 100.00 passes without one (the model has none yet)."
    )
    text = page.read_text(encoding="utf-8")
    assert "No gate was set" in text
    # As the line says; the baseline counts from then on.
    updated = gated.ask(server.url, "--snapshot-update")
    updated.assert_outcomes(passed=COUNT + 2)
    assert baseline_of(gated).exists()
    result = gated.ask(server.url)
    result.assert_outcomes(passed=COUNT + 2)
    result.stdout.fnmatch_lines(
        ["gates: 2 passed; without a threshold: MathVision_MINI"]
    )


@pytest.mark.parametrize("why", ["others", "required"])
def test_a_missing_baseline_fails_with_the_command_that_makes_it(
    gated: Project, server: ServerProcess, why: str
) -> None:
    more: tuple[str, ...] = ()
    if why == "others":
        other = gated.pytester.path / OTHER
        other.parent.mkdir(parents=True)
        other.write_text("{}")
    else:
        more = ("--vlm-require-baseline",)
    result = gated.ask(server.url, *more)
    result.assert_outcomes(passed=COUNT + 1, failed=1)
    assert result.ret == 1
    command = f"pytest *--vlm-model=tiny-vlm --vlm-api-base={server.url} *"
    result.stdout.fnmatch_lines(
        [
            "No baseline for MathVision_MINI and model tiny-vlm, so a regression "
            "cannot be detected.",
            "To make this score the baseline:",
            f"    {command} --snapshot-update",
            "It uses the stored answers and writes "
            f"{BASELINE}, which is to be committed.",
            "To run without baselines, add --vlm-allow-missing-baseline, or to the "
            "ini file vlm_allow_missing_baseline = true.",
        ]
    )
    assert not baseline_of(gated).exists()


def test_a_missing_baseline_may_be_allowed_and_is_said(
    gated: Project, server: ServerProcess
) -> None:
    other = gated.pytester.path / OTHER
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    arguments = (*endpoint(server.url), "--vlm-allow-missing-baseline")
    result, cases = gated.junit(*arguments)
    result.assert_outcomes(passed=COUNT + 2)
    assert "no baselines yet" not in result.stdout.str()
    reason = reason_of(properties(cases["test_no_regression[MathVision_MINI]"]))
    assert reason.startswith(
        f"MathVision_MINI has no baseline for tiny-vlm ({BASELINE}): "
    )
    assert reason.endswith(
        "= 100.00 passes without one (--vlm-allow-missing-baseline)."
    )


def test_allowed_and_required_exclude_each_other(
    gated: Project, server: ServerProcess
) -> None:
    result = gated.ask(
        server.url, "--vlm-allow-missing-baseline", "--vlm-require-baseline"
    )
    assert error_of(result) == (
        "--vlm-require-baseline and --vlm-allow-missing-baseline exclude each other: a "
        "score without a baseline either fails or passes. Give one of them."
    )


def reason_of(found: dict[str, str]) -> str:
    """Return why the gate of the baseline passed."""
    (reason,) = (
        text
        for name, text in found.items()
        if name.startswith("baseline gate") and name.endswith(": reason")
    )
    return reason


UNLIKE = {
    "--vlm-limit=10": (
        "the subset: 40 samples in the baseline, now 10, of them 0 others "
        "(--vlm-limit, --vlm-sample, --vlm-seed)"
    ),
    "--vlm-max-tokens=100": (
        "generation: max_tokens: 2048 in the baseline, now 100 (--vlm-max-tokens=2048)"
    ),
}
CONTENTS = (b"<<<<<<< HEAD\n", b"\xff\xfe\x00")


@pytest.mark.slow
def test_unlike_runs_and_broken_baselines_are_not_compared(
    gated: Project, server: ServerProcess
) -> None:
    select = ("-k", "test_no_regression")
    gated.ask(server.url, "--snapshot-update", *select).assert_outcomes(passed=1)
    for option, line in UNLIKE.items():
        result = gated.ask(server.url, *select, option)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            [
                f"Cannot compare MathVision_MINI with its baseline {BASELINE}: the "
                "baseline was made with other settings:",
                f"  {line}",
                "Run with the baseline's settings, or make this run the baseline: the "
                "same command with --snapshot-update. To leave this gate out: -k 'not "
                "test_no_regression'.",
            ]
        )
    path = baseline_of(gated)
    kept = path.read_bytes()
    # What that advises, of the last of these.
    gated.ask(server.url, *select).assert_outcomes(passed=1)
    again = gated.ask(server.url, *select, "--vlm-max-tokens=2048")
    again.assert_outcomes(passed=1)
    gated.ask(server.url, "-k", "not test_no_regression", option).assert_outcomes(
        passed=COUNT + 1
    )
    made = gated.ask(server.url, *select, option, "--snapshot-update")
    made.assert_outcomes(passed=1)
    gated.ask(server.url, *select, option).assert_outcomes(passed=1)
    for content in CONTENTS:
        path.write_bytes(content)
        result = gated.ask(server.url, *select)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines([f"MathVision_MINI: *{BASELINE} *"])
        assert path.read_bytes() == content
        if "Fix it, or remove it." in result.stdout.str():
            path.unlink()
        gated.ask(server.url, *select, "--snapshot-update").assert_outcomes(passed=1)
        assert path.read_bytes() == kept
    table = gated.data_root / "MathVision_MINI.tsv"
    table.write_text(table.read_text().replace("Question <2>", "Question <2> again"))
    result = gated.ask(server.url, *select)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "  the data (checksum of the file): * in the baseline, now *",
            "  the prompts or references (digest): * in the baseline, now *",
        ]
    )


def test_a_baseline_of_an_earlier_version_says_how_it_is_written_anew(
    gated: Project, server: ServerProcess
) -> None:
    select = ("-k", "test_no_regression")
    gated.ask(server.url, "--snapshot-update", *select).assert_outcomes(passed=1)
    path = baseline_of(gated)
    kept = path.read_text()
    old = json.loads(kept) | {
        "format": 1,
        "verdicts": {"": {"1-40": "+" * COUNT}},
    }
    path.write_text(json.dumps(old, indent=1))
    result = gated.ask(server.url, *select)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            f"MathVision_MINI: *{BASELINE} has format 1, of an earlier version of "
            "pytest-vlmeval, and this version reads format 2. Run the same command "
            "with --snapshot-update: it writes the file anew from the stored answers, "
            "and `git diff` shows the scores before and after.",
            "To make this score the baseline:",
            "    pytest * --snapshot-update",
        ]
    )
    assert json.loads(path.read_text()) == old
    # The command of the message, which asks nothing again.
    asked = len(server.requests())
    (line,) = (it for it in result.outlines if it.endswith(" --snapshot-update"))
    gated.run(*shlex.split(line)[1:]).assert_outcomes(passed=1)
    assert len(server.requests()) == asked
    assert path.read_text() == kept
    gated.ask(server.url, *select).assert_outcomes(passed=1)


@pytest.mark.slow
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
            f"MathVision_MINI is not written to {BASELINE}, as it is not complete. "
            "MathVision_MINI: 1 of 40 samples has no usable answer and counts as wrong "
            "in *. The items of these samples say why; the same command asks only them "
            "again."
        ]
    )
    assert not baseline_of(gated).exists()
    server.control(answers=RIGHT, default="B")
    gated.ask(server.url, "--snapshot-update", *select).assert_outcomes(passed=1)
    server.control(rules=[{"contains": "<2>", "status": 400, "message": "no"}])
    again = gated.ask(server.url, "--vlm-fresh", *select)
    begin = f"MathVision_MINI is not compared with {BASELINE}, as it is not complete. "
    again.stdout.fnmatch_lines([f"{begin}MathVision_MINI: 1 of 40 samples has *"])
    # What is lacking may be something else, and is what has to be fixed.
    server.control(answers=RIGHT, default="B", rules=[{"finish_reason": "length"}])
    cut = gated.ask(server.url, "--vlm-fresh", *select)
    cut.stdout.fnmatch_lines(
        [
            f"{begin}MathVision_MINI: 40 of 40 answers were cut off at the token limit*"
            " Raise --vlm-max-tokens, or allow more with --vlm-max-cut-off."
        ]
    )
    allowed = gated.ask(server.url, "--vlm-max-cut-off=100", *select)
    allowed.assert_outcomes(passed=1)


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
