"""What the gate of a baseline says of a comparison, line by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_vlmeval.gates import blocks
from pytest_vlmeval.gates.outcome import GateOutcome

if TYPE_CHECKING:
    from pytest_vlmeval.gates.false_discoveries import Adjusted
    from pytest_vlmeval.gates.paired import Comparison

# More samples than this are counted, not named.
MOST_NAMED = 20

TITLES: Mapping[GateOutcome, str] = {
    "passed": "is not worse than its baseline.",
    "failed": "is worse than its baseline.",
    "inconclusive": "is below its baseline, which may be chance.",
}


def decide(it: Comparison, adjusted: Adjusted | None = None) -> GateOutcome:
    """Return what a comparison says; with `adjusted`, among all gates of the run.

    It fails where a drop beyond the margin is shown at the level, passes where none is
    seen, and is inconclusive where one is seen that may be chance.
    """
    if adjusted.is_alarm if adjusted else it.p_value <= it.level:
        return "failed"
    return "inconclusive" if it.change < -it.margin - 1e-9 else "passed"


def describe_comparison(it: Comparison, adjusted: Adjusted | None) -> list[blocks.Line]:
    """Say what changed, how sure that is, and what could have been seen."""
    interval = (
        f"[{100 * it.low:+.2f}, {100 * it.high:+.2f}], "
        f"{100 * (1 - 2 * it.level):g} % {it.interval_method}"
    )
    what = f"{it.p_value:.3g} that so many are lost by chance"
    if it.margin:
        points = f"{100 * it.margin:g} points"
        what = f"{it.p_value:.3g} of a true drop that is not more than {points}"
    among = f"; {adjusted.text}" if adjusted else ""
    if it.smallest is None:
        power = "so few samples show no drop four times in five, however large"
    else:
        power = f"a drop of {100 * it.smallest:.1f} points is found four times in five"
    return [
        ("change", f"{100 * it.change:+.2f} points of right answers {interval}"),
        ("p", f"{what} ({it.method}, level {it.level:g}){among}"),
        ("flips", f"{it.lost:,} lost (right, now wrong), {it.gained:,} gained"),
        ("power", power),
    ]


def lost_line(lost: Sequence[str]) -> blocks.Line | None:
    """Name the samples that were lost; None where none was."""
    if not lost:
        return None
    named = ", ".join(lost[:MOST_NAMED])
    rest = len(lost) - MOST_NAMED
    return "lost", named + (f" and {rest:,} more" if rest > 0 else "")
