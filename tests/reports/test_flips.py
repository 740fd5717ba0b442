"""The table of what flipped: the same rows on a terminal and in Markdown."""

from __future__ import annotations

from dataclasses import replace

from pytest_vlmeval.gates.baseline_file import find_flips
from pytest_vlmeval.records import FlippedSample, GateResult
from pytest_vlmeval.reports.flips import (
    MOST_LINES,
    MOST_ROWS,
    Flips,
    flips_of_gates,
    format_flips,
    write_flips,
)
from pytest_vlmeval.reports.terminal import format_markdown
from tests.support.baseline_files import make, make_verdicts

SAMPLES = (
    FlippedSample(index="7", before="right", now="wrong", is_lost=True),
    FlippedSample(index="a|b", before="0.75", now="none", is_lost=True),
    FlippedSample(index="9", before="wrong", now="right", is_lost=False),
)
GATE = GateResult(
    dataset="Data",
    gate="baseline",
    outcome="failed",
    message="Data is worse than its baseline.",
    rule="paired",
    lost=2,
    gained=1,
    flips=SAMPLES,
    fails=True,
)


def many(count: int) -> tuple[FlippedSample, ...]:
    """Give so many samples that were lost."""
    return tuple(replace(SAMPLES[0], index=str(number)) for number in range(count))


def test_both_have_the_same_rows() -> None:
    found = flips_of_gates([GATE, replace(GATE, dataset="Same", flips=())])
    assert format_flips(found) == [
        "dataset  sample  before  now",
        "-------  ------  ------  -----",
        "Data     7       right   wrong",
        "Data     a|b     0.75    none",
        "Data     9       wrong   right",
    ]
    assert write_flips(found, "the baseline") == [
        "### 2 lost and 1 gained since the baseline",
        "",
        "| dataset | sample | before | now |",
        "| --- | --- | --- | --- |",
        "| Data | 7 | right | wrong |",
        "| Data | a\\|b | 0.75 | none |",
        "| Data | 9 | wrong | right |",
    ]
    page = format_markdown("tiny", [GATE])
    assert "\n".join(write_flips(found, "the baseline")) in page
    # Its parts are set off, or the second table would be text.
    assert "\n\n### 2 lost" in page


def test_nothing_flipped() -> None:
    assert format_flips([]) == write_flips([Flips("Data", ())], "the baseline") == []
    assert "###" not in format_markdown("tiny", [replace(GATE, flips=())])


def test_both_are_bounded_and_count_the_rest() -> None:
    found = [Flips("one", many(500)), Flips("two", many(3))]
    lines = format_flips(found)
    assert len(lines) <= MOST_LINES + 3
    assert sum(line.startswith("two") for line in lines) == 3
    shown = len(lines) - 3
    assert lines[-1] == f"and {503 - shown} more, which the HTML report shows"
    page = write_flips(found, "the baseline")
    assert page[0] == "### 503 lost and 0 gained since the baseline"
    assert page[-1] == f"And {503 - (len(page) - 6)} more."
    crowd = [Flips(f"set {number}", many(9)) for number in range(2 * MOST_ROWS)]
    page = write_flips(crowd, "the baseline")
    assert len(page) == MOST_ROWS + 6
    assert len("\n".join(page)) < 65_536


def test_those_lost_come_first() -> None:
    verdicts = make_verdicts(60)
    turned = tuple(replace(each, value=0.0 if each.value else 1.0) for each in verdicts)
    found = find_flips(make(verdicts), make(turned))
    assert len(found) == 60
    lost = [each.is_lost for each in found]
    assert lost == sorted(lost, reverse=True)
    assert {(each.before, each.now) for each in found} == {
        ("right", "wrong"),
        ("wrong", "right"),
        ("none", "right"),
    }
