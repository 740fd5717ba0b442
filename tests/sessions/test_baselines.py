"""The gate of a baseline on scores at hand: groups, images, captions, differences."""

from __future__ import annotations

from collections.abc import Sequence
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
        "generation: temperature: 0.0 in the baseline, now 0.5",
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
