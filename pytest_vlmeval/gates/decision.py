"""From a threshold and what a metric is worth to a gate's result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pytest_vlmeval.gates import blocks
from pytest_vlmeval.gates.defects import describe_defects, name_defect
from pytest_vlmeval.gates.outcome import (
    GateOutcome,
    GateResult,
    Inconclusive,
    is_failure,
)

if TYPE_CHECKING:
    from pytest_vlmeval.gates.early_stop import Stop
    from pytest_vlmeval.gates.false_discoveries import Adjusted
    from pytest_vlmeval.gates.intervals import Estimate
    from pytest_vlmeval.gates.measures import Metric
    from pytest_vlmeval.gates.outcome import CategoryShare
    from pytest_vlmeval.gates.thresholds import Rule, Threshold
    from pytest_vlmeval.records import Score

TITLES: dict[GateOutcome, str] = {
    "passed": "{dataset}: {metric} reaches its threshold.",
    "failed": "{dataset}: {metric} is below its threshold.",
    "inconclusive": "{dataset}: {metric} is too close to its threshold to tell.",
}
WHAT_FOLLOWS = {True: "fails", False: "passes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """A metric beside its threshold; `estimate` is None where it has no interval.

    `sound` is the same without the verdicts that rest on a known defect, None where
    there are none, or they are accepted.
    """

    score: Score
    threshold: Threshold
    metric: Metric
    estimate: Estimate | None
    worst: tuple[CategoryShare, ...]
    sound: Assessment | None = None

    @property
    def rule(self) -> Rule:
        """The rule that can be followed: without an interval the value decides."""
        return "point" if self.estimate is None else self.threshold.rule

    @property
    def p_value(self) -> float | None:
        """The p-value of what the rule wants shown; None where it wants nothing."""
        if self.estimate is None or self.rule == "point":
            return None
        if self.rule == "confident-above":
            return self.estimate.p_above(self.threshold.minimum)
        return self.estimate.p_below(self.threshold.minimum)

    @property
    def raises_alarm(self) -> bool:
        """Whether a small p-value fails the gate, which could be a false alarm."""
        return self.rule == "confident-below"


def decide(
    it: Assessment,
    *,
    inconclusive: Inconclusive,
    adjusted: Adjusted | None = None,
    stop: Stop | None = None,
) -> GateResult:
    """Return what a gate found: what decided it early, where something did.

    `adjusted`, which counts the other gates of the run, decides instead of the gate's
    own p-value. What passes has to pass without the verdicts that rest on a defect.
    """
    stopped = stop and stop.outcome("threshold")
    outcome = stopped or _outcome(it, adjusted)
    fails = is_failure(outcome, it.rule, inconclusive)
    estimate = it.estimate
    needed = None
    if estimate is not None and outcome == "inconclusive":
        needed = estimate.needed(it.threshold.minimum)
    result = GateResult(
        dataset=it.score.dataset,
        gate="threshold",
        metric=it.metric.name or it.score.main_metric,
        outcome=outcome,
        rule=it.rule,
        value=it.metric.value,
        interval=None if estimate is None else estimate.interval,
        samples=it.score.samples if estimate is None else estimate.samples,
        clusters=0 if estimate is None else estimate.clusters,
        expected=it.threshold.minimum,
        p_value=it.p_value,
        adjusted_p_value=adjusted and adjusted.p_value,
        worst=it.worst,
        needed_samples=needed,
        fails=fails,
        message="",
    )
    result = replace(result, message=_message(it, result, adjusted, stop))
    if result.fails or it.sound is None:
        return result
    sound = decide(it.sound, inconclusive=inconclusive)
    return _refuse(it, result, sound) if sound.fails else result


def _refuse(it: Assessment, result: GateResult, sound: GateResult) -> GateResult:
    """Fail what passes only by verdicts that rest on a known defect."""
    scale = None if it.metric.name else it.score.scale
    message = blocks.write_block(
        f"{result.dataset}: {result.metric} is below its threshold without the "
        f"verdicts that rest on {name_defect(it.score)}.",
        [
            blocks.value_line(it.metric.value, scale, result.interval),
            ("without", blocks.value_line(sound.value or 0, scale, sound.interval)[1]),
            ("threshold", _threshold(it)),
            ("source", it.threshold.source) if it.threshold.source else None,
            ("defects", describe_defects(it.score) or ""),
            ("accept", "with accept_defects = true beside min in thresholds.toml"),
            blocks.samples_line(result.samples, result.clusters),
            blocks.see_line(result.dataset),
        ],
    )
    return replace(result, outcome="failed", fails=True, message=message)


def _message(
    it: Assessment,
    result: GateResult,
    adjusted: Adjusted | None,
    stop: Stop | None,
) -> str:
    title = TITLES[result.outcome].format(dataset=result.dataset, metric=result.metric)
    if result.outcome == "inconclusive":
        title += f" It {WHAT_FOLLOWS[result.fails]} (--vlm-inconclusive)."
    scale = None if it.metric.name else it.score.scale
    return blocks.write_block(
        title,
        [
            blocks.value_line(it.metric.value, scale, result.interval),
            ("threshold", _threshold(it)),
            ("source", it.threshold.source) if it.threshold.source else None,
            _p(it, adjusted),
            blocks.samples_line(result.samples, result.clusters),
            ("stopped", stop.reason) if stop else None,
            blocks.needed_line(result.needed_samples, result.samples),
            blocks.worst_line(it.worst),
            _defects(it),
            blocks.see_line(result.dataset),
        ],
    )


def _defects(it: Assessment) -> blocks.Line | None:
    said = describe_defects(it.score)
    return None if said is None else ("defects", said)


def _outcome(it: Assessment, adjusted: Adjusted | None) -> GateOutcome:
    reached = it.metric.value >= it.threshold.minimum
    p_value, limit = it.p_value, 1 - it.threshold.level
    if p_value is None:
        return "passed" if reached else "failed"
    if it.raises_alarm:
        if adjusted is not None:
            p_value, limit = adjusted
        if reached:
            return "passed"
        return "failed" if p_value <= limit else "inconclusive"
    if not reached:
        return "failed"
    return "passed" if p_value <= limit else "inconclusive"


def _threshold(it: Assessment) -> str:
    said = f"{it.threshold.minimum:.2f} for {it.threshold.pattern}, rule {it.rule}"
    if it.rule != it.threshold.rule:
        said += f" ({it.threshold.rule} needs an interval)"
    elif it.rule != "point":
        said += f" at level {it.threshold.level:g}"
    return said


def _p(it: Assessment, adjusted: Adjusted | None) -> blocks.Line | None:
    if it.p_value is None:
        return None
    least = "least" if it.raises_alarm else "most"
    said = f"{it.p_value:.3g} of a true value of at {least} the threshold"
    if adjusted is not None:
        said += f"; {adjusted.text}"
    return "p", said
