"""What a gate says: one block that is read from top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_vlmeval.gates.completeness import describe_defects
from pytest_vlmeval.records import (
    CategoryShare,
    GateResult,
    Interval,
    Score,
    describe_interval,
)

if TYPE_CHECKING:
    from pytest_vlmeval.gates.paired import Comparison

Line = tuple[str, str]


def title_of(result: GateResult, finding: str) -> str:
    """Return a gate's first line, and what follows from an inconclusive outcome."""
    if result.outcome != "inconclusive":
        return finding
    return f"{finding} It {'fails' if result.fails else 'passes'} (--vlm-inconclusive)."


def write_block(title: str, lines: Sequence[Line | None]) -> str:
    """Return a title and what it is about, the names in a column of their own."""
    kept = [line for line in lines if line is not None]
    width = max((len(name) for name, _ in kept), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in kept)])


def value_line(value: float, scale: float | None, interval: Interval | None) -> Line:
    """Describe what a value is, and between which it lies."""
    of = "" if scale is None else f" of {scale:g}"
    if interval is None:
        return "value", f"{value:.2f}{of}, no interval: single verdicts do not make it"
    return "value", f"{value:.2f}{of} {describe_interval(interval)}"


def samples_line(samples: int, clusters: int) -> Line:
    """Say of how many independent samples it is made."""
    if clusters in (0, samples):
        return "samples", f"{samples:,}"
    return "samples", (f"{samples:,} in {clusters:,} clusters (of one image or group)")


def worst_line(worst: Sequence[CategoryShare]) -> Line | None:
    """Name the worst categories; None if there are none to compare."""
    if not worst:
        return None
    said = (
        f"{each.category} {each.correct}/{each.samples} "
        f"({100 * each.correct / each.samples:.0f} %)"
        for each in worst
    )
    return "worst", ", ".join(said)


def needed_line(needed: int | None, samples: int) -> Line | None:
    """Describe how many samples would tell; None if no number would."""
    if needed is None or needed <= samples:
        return None
    return "needed", (
        f"about {needed:,} samples to tell a difference of this size four times in five"
    )


def change_text(it: Comparison, p_value: float) -> str:
    """Write how the share of right answers changed, and how sure that is."""
    return (
        f"accuracy {100 * it.change:+.1f} points, {100 * (1 - 2 * it.alpha):g} % CI "
        f"[{100 * it.low:+.1f}, {100 * it.high:+.1f}]; p = {p_value:.3g}, {it.method}"
    )


def defects_line(score: Score) -> Line | None:
    """Count the verdicts that rest on a defect; None if there is none."""
    said = describe_defects(score)
    return None if said is None else ("defects", said)


def see_line(dataset: str) -> Line:
    """Describe where the samples are seen."""
    return "see", (
        f"the same command with -k 'test_sample and {dataset}' --vlm-wrong=xfail -rx "
        "lists the wrong answers, from the store"
    )
