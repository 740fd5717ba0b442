"""Baselines: made, compared with, missing, unlike, incomplete; runs side by side."""

from __future__ import annotations

import json
import shlex
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.prepare import IndexRow
from pytest_vlmeval.gates.baseline import BaselineGate
from pytest_vlmeval.gates.baseline_file import (
    Baseline,
    BaselinePlace,
    find_differences,
    make_baseline,
    read_baseline,
    write_baseline,
)
from pytest_vlmeval.gates.measures import Units, make_units
from pytest_vlmeval.records import (
    DatasetInfo,
    GateResult,
    PromptPart,
    Sample,
    Score,
    SoundScore,
    Verdict,
)
from pytest_vlmeval.settings.groups import BaselineSettings
from tests.support.baseline_files import git_diff
from tests.support.baseline_projects import (
    BASELINE,
    COUNT,
    RIGHT,
    SCORES,
    baseline_of,
    worsen,
)
from tests.support.failed_sessions import error_of
from tests.support.run_fixtures import Project, endpoint, properties
from tests.support.server_fixtures import ServerProcess

PATH = Path("__baselines__/tiny/Table.json")
GRADED = DatasetInfo(name="Table", class_name="ImageVQADataset", module="m", kind="vqa")
CIRCULAR = replace(GRADED, class_name="ImageMCQDataset", kind="multiple_choice")


class Table:
    """A dataset of `count` samples, of which `shared` in a row show one image."""

    def __init__(
        self,
        count: int,
        *,
        info: DatasetInfo = GRADED,
        shared: int = 1,
        grouped: int = 1,
    ) -> None:
        self.info = info
        self.samples = {
            str(number): Sample(
                dataset="Table",
                index=str(number),
                prompt=(
                    (
                        PromptPart(kind="image", media=f"{number // shared}.png"),
                        PromptPart(kind="text", text=f"question {number}"),
                    ),
                ),
                reference="right",
                category="odd" if number % 2 else "even",
                group=str(number // grouped) if grouped > 1 else None,
            )
            for number in range(count)
        }

    def score(self, values: Sequence[float | None]) -> Score:
        """Give the score of these verdicts, in percent of their mean."""
        known = [value or 0 for value in values]
        share = 100 * sum(known) / len(known)
        return Score(
            dataset="Table",
            metrics={"Overall": share},
            main_metric="Overall",
            value=share,
            best=share,
            samples=len(values),
            answered=len(values),
            correct=sum(value >= 0.5 for value in known),
            undecided=0,
            modified=False,
            scorer="code",
            judge="exact_matching",
            verdicts=tuple(
                Verdict(index=str(number), value=value)
                for number, value in enumerate(values)
            ),
        )

    @property
    def rows(self) -> dict[str, IndexRow]:
        """What names the samples."""
        return {
            each.index: IndexRow(each.index, each.category, each.group, each.reference)
            for each in self.samples.values()
        }

    @property
    def shown(self) -> list[list[int]]:
        """The number of the image of each sample."""
        images = [each.prompt[0][0].media for each in self.samples.values()]
        return [[int(name.removesuffix(".png"))] for name in images]

    def baseline(self, score: Score, temperature: float = 0.0) -> Baseline:
        """Give the baseline that such a score makes."""
        return make_baseline(
            score,
            model="tiny",
            checksum="c0",
            rows=list(self.rows.values()),
            prompts=[each.prompt[0][1].text for each in self.samples.values()],
            generation={"temperature": temperature},
            package_version="0.0.20",
            plugin_version="0.1.0",
        )

    def gate(
        self, score: Score, level: float = 0.95, margin: float = 0
    ) -> BaselineGate:
        """Give the gate of a score."""

        def find_units(score: Score) -> Units | None:
            rows = self.rows.values()
            return make_units(score, self.info, rows, shown=self.shown, splits=dict)

        return BaselineGate(
            score=score,
            lacking=(),
            current=self.baseline(score),
            place=BaselinePlace(PATH, PATH),
            settings=BaselineSettings(level=level, margin=margin),
            inconclusive="rule",
            find_units=find_units,
        )

    def compare(
        self,
        before: Sequence[float | None],
        after: Sequence[float | None],
        level: float = 0.95,
    ) -> GateResult:
        """Compare verdicts with those of a baseline that was written and read."""
        text = write_baseline(self.baseline(self.score(before)))
        gate = self.gate(self.score(after), level)
        return gate.compare(read_baseline(PATH, text))


def by_defect(score: Score, *indexes: int) -> Score:
    """Give a score some of whose verdicts rest on a known defect."""
    verdicts = tuple(
        replace(each, corrected=0.0, rests_on_defect=True)
        if int(each.index) in indexes
        else each
        for each in score.verdicts
    )
    count = len(indexes)
    left = SoundScore(defects=count, value=score.value - count, metrics={})
    return replace(score, verdicts=verdicts, differing=count, sound=left)


def test_a_gain_by_defects_hides_no_loss() -> None:
    """Of 100 samples 30 were right; now 40 others are, by a defect."""
    table = Table(100)
    before, after = [1.0] * 30 + [0.0] * 70, [0.0] * 30 + [1.0] * 40 + [0.0] * 30
    old, new = table.score(before), table.score(after)
    plain = table.gate(new).compare(table.baseline(old))
    assert (plain.outcome, plain.fails) == ("passed", False)
    new = by_defect(new, *range(30, 70))
    found = table.gate(new).compare(table.baseline(old))
    assert (found.outcome, found.fails, found.value) == ("failed", True, 40)
    lines = found.message.splitlines()
    assert lines[0] == (
        "Table is worse than its baseline without the verdicts that rest on a known "
        "defect of ms-vlmeval's scoring, and did not before."
    )
    assert "  without   40 verdicts that are new counted as wrong" in lines
    assert "40 of 100 verdicts rest on a known defect" in found.message
    assert "--snapshot-update" in found.message


def test_a_baseline_keeps_which_verdicts_rest_on_a_defect() -> None:
    """So what rested on one before and does now is no loss."""
    table = Table(100)
    score = by_defect(table.score([1.0] * 50 + [0.0] * 50), *range(40))
    text = write_baseline(table.baseline(score))
    assert text.count('"right by a defect"') == 40
    baseline = read_baseline(PATH, text)
    assert set(baseline.defects) == set(table.baseline(score).defects)
    found = table.gate(score).compare(baseline)
    assert (found.outcome, found.fails) == ("passed", False)
    assert "40 of 100 verdicts rest on a known defect" in found.message
    plain = write_baseline(table.baseline(table.score([1.0] * 100)))
    assert "defect" not in plain


def test_rotations_of_a_question_are_lost_once() -> None:
    table = Table(80, info=CIRCULAR, grouped=4)
    result = table.compare([1.0] * 80, [0.0] * 16 + [1.0] * 64)
    # Four questions of twenty: too few, though sixteen samples changed.
    assert (result.outcome, result.p_value) == ("inconclusive", 1 / 16)
    assert result.clusters == 20
    assert "exact McNemar" in result.message


def test_samples_of_one_image_are_no_independent_evidence() -> None:
    lost = [0.0] * 10 + [1.0] * 90
    apart = Table(100).compare([1.0] * 100, lost)
    together = Table(100, shared=10).compare([1.0] * 100, lost)
    assert apart.outcome == "failed"
    assert together.outcome == "inconclusive"
    assert (apart.clusters, together.clusters) == (100, 10)
    assert "100 in 10 clusters" in together.message


def test_grades_are_compared_by_bootstrap_and_keep_their_rounding() -> None:
    table = Table(60)
    grades = [(number % 7) / 7 for number in range(60)]
    same = table.compare(grades, grades)
    assert (same.outcome, same.p_value) == ("passed", 1.0)
    worse = table.compare(grades, [max(0.0, value - 0.1) for value in grades])
    assert worse.outcome == "failed"
    assert "paired bootstrap (BCa)" in worse.message
    assert worse.interval is not None
    assert worse.interval.low < worse.interval.high < worse.expected  # type: ignore[operator]


def test_many_lost_samples_are_counted_and_the_first_named() -> None:
    result = Table(100).compare([1.0] * 100, [0.0] * 50 + [1.0] * 50)
    line = next(row for row in result.message.split("\n") if row.startswith("  lost"))
    assert line.split("  ")[-1].startswith("0, 1, 2, ")
    assert line.endswith("18, 19 and 30 more")
    assert (result.lost, result.gained, len(result.flips)) == (50, 0, 50)
    worst = next(row for row in result.message.split("\n") if "worst" in row)
    assert "even 25/50 (50 %), odd 25/50 (50 %)" in worst


def test_a_better_score_passes_and_tells_what_it_could_have_seen() -> None:
    result = Table(40).compare([0.0] * 20 + [1.0] * 20, [1.0] * 40)
    assert result.outcome == "passed"
    assert result.message.startswith("Table is not worse than its baseline.")
    assert "a drop of" in result.message
    assert result.needed_samples is None
    tiny = Table(4).compare([1.0] * 4, [1.0] * 4)
    assert "so few samples show no drop four times in five" in tiny.message


def test_what_has_no_single_verdicts_is_compared_as_a_whole() -> None:
    table = Table(10)
    before = replace(table.score([None] * 10), value=60.0)
    after = replace(table.score([None] * 10), value=55.0)
    baseline = table.baseline(before)
    result = table.gate(after).compare(baseline)
    assert result.outcome == "inconclusive"
    assert "single samples have no verdicts" in result.message
    assert table.gate(after, margin=5).compare(baseline).outcome == "passed"
    assert table.gate(before).compare(baseline).outcome == "passed"


def test_every_difference_is_said() -> None:
    table = Table(10)
    baseline = table.baseline(table.score([1.0] * 10))
    assert find_differences(baseline, baseline) == []
    other = replace(
        table.baseline(table.score([1.0] * 8), temperature=0.5),
        model="small",
        scoring={"method": "published", "judge": "gpt", "ms-vlmeval": "0.0.21"},
    )
    assert find_differences(baseline, other) == [
        "model: tiny in the baseline, now small",
        "the subset: 10 samples in the baseline, now 8, of them 0 others "
        "(--vlm-limit, --vlm-sample, --vlm-seed)",
        "generation: temperature: 0.0 in the baseline, now 0.5 (--vlm-temperature=0)",
        "scoring: judge: exact_matching in the baseline, now gpt",
        "scoring: ms-vlmeval: 0.0.20 in the baseline, now 0.0.21",
    ]


def test_a_changed_prompt_is_another_run() -> None:
    table = Table(10)
    score = table.score([1.0] * 10)
    before = table.baseline(score)
    part = PromptPart(kind="text", text="another question")
    first = table.samples["0"]
    table.samples["0"] = replace(first, prompt=((first.prompt[0][0], part),))
    (difference,) = find_differences(before, table.baseline(score))
    assert difference.startswith("the prompts or references (digest): ")
    table.samples["0"] = replace(first, reference="another")
    assert find_differences(before, table.baseline(score))


@pytest.mark.parametrize(
    ("level", "outcome"), [(0.96, "failed"), (0.97, "inconclusive")]
)
def test_the_level_is_that_of_the_settings(level: float, outcome: str) -> None:
    result = Table(40).compare([1.0] * 40, [0.0] * 5 + [1.0] * 35, level=level)
    assert (result.outcome, result.p_value) == (outcome, 1 / 32)


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
    updated.stdout.fnmatch_lines(["gates: no gate was set; 1 baseline written"])
    assert baseline_of(gated).exists()
    result = gated.ask(server.url)
    result.assert_outcomes(passed=COUNT + 2)
    result.stdout.fnmatch_lines(
        ["gates: 2 passed; without a threshold: MathVision_MINI"]
    )
    # Another model in its place is not taken for the first baseline.
    server.control(default="C")
    worse = gated.ask(server.url, "--snapshot-update", "--vlm-fresh")
    worse.stdout.fnmatch_lines(
        [
            "gates: no gate was set; 1 baseline written",
            "gates: MathVision_MINI: this score is now the baseline *. It was 100.00 "
            "and is *, * lost and 0 gained.",
        ]
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
            "To run without baselines, leave out --vlm-require-baseline."
            if more
            else "To run without baselines, add --vlm-allow-missing-baseline, or to "
            "the ini file vlm_allow_missing_baseline = true.",
        ]
    )
    assert not baseline_of(gated).exists()
    assert (
        gated.ask(server.url).ret == 0
        if more
        else gated.ask(server.url, "--vlm-allow-missing-baseline").ret == 0
    )


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
                f"gates: Cannot compare MathVision_MINI with its baseline {BASELINE}: "
                "the baseline was made with other settings",
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
    # Where CI is set, pytest shows messages whole in its list of failures, too.
    (line,) = {it for it in result.outlines if it.endswith(" --snapshot-update")}
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
