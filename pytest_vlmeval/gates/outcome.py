"""What a gate found: the record that tests, the store and all reports share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

# An early stop fails nothing: it says why a score is of fewer samples.
Gate = Literal["completeness", "threshold", "baseline", "early stop"]
GateOutcome = Literal["passed", "failed", "inconclusive"]
# What becomes of an inconclusive gate: of `rule` what the rule says.
Inconclusive = Literal["pass", "fail", "rule"]

# The only rule that takes what cannot be told for a failure.
STRICT_RULE = "confident-above"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval of a gate's value, in the value's unit.

    `level` is that of the interval, 0.9 for the two bounds of which each holds with
    0.95; `method` names it in words.
    """

    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryShare:
    """How many of a category's samples are right."""

    category: str
    correct: int
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GateResult:
    """What one gate says of one metric of a dataset.

    `metric` is ms-vlmeval's name, "" where the gate is about no metric; `rule` is how
    the gate decides ("point", "confident-below", "confident-above", or what a gate of
    its own calls it). `value`, `expected` (the threshold or the baseline's value),
    `margin` and `interval` are in the metric's unit. `samples` counts what the value
    is made of, `clusters` the independent units among them. `p_value` is one-sided
    and of this gate alone; `adjusted_p_value` also counts the other gates of the
    run. `lost` were right in the baseline and are wrong now, `gained` the other way.
    `worst` are the categories with the smallest share of right answers.
    `needed_samples` would tell a difference of this size. `file` is the baseline that
    was compared with. `message` is all that in one readable block. `fails` says whether
    the test fails: an inconclusive gate may do either.
    """

    dataset: str
    gate: Gate
    outcome: GateOutcome
    message: str
    metric: str = ""
    rule: str = ""
    value: float | None = None
    interval: Interval | None = None
    samples: int = 0
    clusters: int = 0
    expected: float | None = None
    margin: float = 0.0
    p_value: float | None = None
    adjusted_p_value: float | None = None
    lost: int | None = None
    gained: int | None = None
    worst: tuple[CategoryShare, ...] = ()
    needed_samples: int | None = None
    file: str = ""
    fails: bool = False

    @property
    def is_note(self) -> bool:
        """Whether it only says why a score is of fewer samples, and is no gate."""
        return self.gate == "early stop"


def is_failure(outcome: GateOutcome, rule: str, inconclusive: Inconclusive) -> bool:
    """Whether an outcome fails its test.

    Where nothing else is said, an inconclusive gate fails only under the rule that
    wants proof of a good value.
    """
    if outcome != "inconclusive":
        return outcome == "failed"
    if inconclusive == "rule":
        return rule == STRICT_RULE
    return inconclusive == "fail"


def explain_failures(results: Iterable[GateResult]) -> str | None:
    """Return the messages of the gates that fail their test; None if none does."""
    messages = [result.message for result in results if result.fails]
    return "\n\n".join(messages) if messages else None


def as_record(result: GateResult) -> dict[str, Any]:
    """Return a result as plain data, for JSON."""
    return asdict(result)


def from_record(record: Mapping[str, Any]) -> GateResult:
    """Make a result of what `as_record` gave."""
    interval = record["interval"]
    return GateResult(
        **{
            **record,
            "interval": None if interval is None else Interval(**interval),
            "worst": tuple(CategoryShare(**each) for each in record["worst"]),
        }
    )


def describe_interval(interval: Interval) -> str:
    """Write an interval as reports show it: `[60.12, 67.90], 95 % Wilson`."""
    level = f"{100 * interval.level:g} %"
    return f"[{interval.low:.2f}, {interval.high:.2f}], {level} {interval.method}"


def properties_of(result: GateResult) -> list[tuple[str, object]]:
    """Return what a JUnit report says of a gate, each name once per gate and metric."""
    name = f"{result.gate} gate"
    if result.metric:
        name = f"{name} of {result.metric}"
    found: list[tuple[str, object | None]] = [
        ("outcome", result.outcome),
        ("value", result.value),
        ("interval", result.interval and describe_interval(result.interval)),
        ("samples", result.samples or None),
        ("clusters", result.clusters or None),
        ("expected", result.expected),
        ("margin", result.margin or None),
        ("rule", result.rule or None),
        ("p-value", result.p_value),
        ("adjusted p-value", result.adjusted_p_value),
        ("lost", result.lost),
        ("gained", result.gained),
        ("needed samples", result.needed_samples),
        ("reason", result.message),
    ]
    return [(f"{name}: {key}", value) for key, value in found if value is not None]
