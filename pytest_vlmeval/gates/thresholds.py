"""Thresholds: the file of them, and what a metric is worth against one."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from pytest_vlmeval.errors import VlmEvalError, did_you_mean
from pytest_vlmeval.gates.completeness import name_defect
from pytest_vlmeval.gates.message import (
    Line,
    defects_line,
    needed_line,
    samples_line,
    see_line,
    title_of,
    value_line,
    worst_line,
    write_block,
)
from pytest_vlmeval.gates.statistics import Bounds, surely_below
from pytest_vlmeval.records import GateOutcome, GateResult, Inconclusive, is_failure
from pytest_vlmeval.settings.option import dataset_name, is_repository, is_table

if TYPE_CHECKING:
    from pytest_vlmeval.gates.measures import Metric
    from pytest_vlmeval.gates.statistics import Adjusted, Estimate
    from pytest_vlmeval.records import CategoryShare, Score, Stop

FILE_NAME = "thresholds.toml"
DEFAULT_LEVEL = 0.95
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
WORDS = re.compile(r"[a-z]+|[0-9]+")
# Shorter words, as in small and large, tell models apart by a letter.
SHORTEST_TYPO = 4
ALIKE = 0.75

Level = Annotated[float, Field(ge=0.5, lt=1)]


class Rule:
    """How a value is held against its threshold: here, as it is.

    An inconclusive value fails under a `strict` rule if nothing else is said. With
    `may_alarm` a small p-value fails the gate, which could be a false alarm.
    `why_whole` says why no first samples can decide, "" if they can.
    """

    name = "point"
    strict = False
    may_alarm = False
    why_whole = "the rule point looks at the value of all samples"

    def p_value(self, estimate: Estimate, minimum: float) -> float | None:
        """Return the p-value of what is to be shown unlikely; None for nothing."""
        return None

    def outcome(self, *, reached: bool, shown: bool) -> GateOutcome:
        """Return what is found; `shown` says whether the p-value is small enough."""
        return "passed" if reached else "failed"

    def bounds(self, minimum: float, sizes: Sequence[int], level: float) -> Bounds:
        """Return which shares of all samples, in clusters of `sizes`, decide."""
        raise NotImplementedError(self.why_whole)


class ConfidentBelow(Rule):
    """A value fails that is shown to be below its threshold."""

    name = "confident-below"
    may_alarm = True
    why_whole = ""

    def p_value(self, estimate: Estimate, minimum: float) -> float:
        """Return the p-value of a true value of at least the threshold."""
        return estimate.p_below(minimum)

    def outcome(self, *, reached: bool, shown: bool) -> GateOutcome:
        """Return "failed" only for what is shown to be below."""
        if reached:
            return "passed"
        return "failed" if shown else "inconclusive"

    def bounds(self, minimum: float, sizes: Sequence[int], level: float) -> Bounds:
        """Return the threshold, and what is as far below it as a test wants."""
        return Bounds(passes=minimum, fails=surely_below(minimum, sizes, level))


class ConfidentAbove(Rule):
    """A value passes that is shown to be above its threshold."""

    name = "confident-above"
    strict = True
    why_whole = ""

    def p_value(self, estimate: Estimate, minimum: float) -> float:
        """Return the p-value of a true value of at most the threshold."""
        return estimate.p_above(minimum)

    def outcome(self, *, reached: bool, shown: bool) -> GateOutcome:
        """Return "passed" only for what is shown to be above."""
        if not reached:
            return "failed"
        return "passed" if shown else "inconclusive"

    def bounds(self, minimum: float, sizes: Sequence[int], level: float) -> Bounds:
        """Return what is as far above the threshold as a test wants, and itself."""
        off = surely_below(1 - minimum, sizes, level)
        return Bounds(passes=None if off is None else 1 - off, fails=minimum)


POINT, DEFAULT_RULE = Rule(), ConfidentBelow()
RULES: Mapping[str, Rule] = {
    each.name: each for each in (POINT, DEFAULT_RULE, ConfidentAbove())
}


def _rules() -> str:
    *most, last = (f'"{name}"' for name in RULES)
    return f"{', '.join(most)} or {last}"


def _check_rule(name: str) -> str:
    if name not in RULES:
        raise ValueError("Input should be " + _rules().replace('"', "'"))
    return name


RuleName = Annotated[str, AfterValidator(_check_rule)]


class _Terms(BaseModel):
    """How it is decided whether a minimum is reached."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    min: FiniteFloat | None
    rule: RuleName = DEFAULT_RULE.name
    level: Level = DEFAULT_LEVEL
    source: str = ""
    accept_defects: bool = False
    published: bool = False


class _Demand(_Terms):
    """What one metric has to reach."""

    min: FiniteFloat


class _DatasetDemands(_Terms):
    """What a dataset's score has to reach, and its further metrics.

    An empty table says that it has to reach nothing.
    """

    min: FiniteFloat | None = None
    metrics: dict[str, _Demand] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _demands_something(self) -> _DatasetDemands:
        if self.min is None and not self.metrics and self.model_fields_set:
            raise ValueError("give min, or metrics with a min each")
        if self.min is not None and 0 < self.min < 1:
            raise ValueError(
                f"min = {self.min:g} looks like a share: a score goes from 0 to 100"
            )
        return self


_FILE = TypeAdapter(dict[str, dict[str, _DatasetDemands]])


class Threshold(NamedTuple):
    """What a metric of a dataset has to reach; `metric` is "" for its score.

    `minimum` is in the metric's unit, the score's from 0 to its scale. `level` is
    that of the one confidence bound that decides. Unless it may `accept_defects`, it
    has to be reached without the verdicts that rest on a known defect, too. A
    `published` one is for all samples of the published data, and for nothing else.
    """

    dataset: str
    metric: str
    minimum: float
    rule: str
    level: float
    pattern: str
    source: str
    accept_defects: bool = False
    published: bool = False


class Thresholds:
    """The thresholds of one file; `path` is None where there is none."""

    def __init__(
        self, path: Path | None, demands: Mapping[str, Mapping[str, _DatasetDemands]]
    ) -> None:
        self.path = path
        self._demands = demands

    def of(self, model: str, dataset: str) -> Sequence[Threshold]:
        """Return the thresholds of a dataset: those of the closest pattern that has it.

        The model's own name is closer than any pattern, a longer pattern than a
        shorter one. None where that has an empty table of it.
        """
        patterns = [each for each in self._demands if _fits(model, each)]
        patterns.sort(key=lambda each: (each == model, len(each)), reverse=True)
        for pattern in patterns:
            for name, demands in self._demands[pattern].items():
                if dataset_name(name) == dataset:
                    return [
                        Threshold(
                            dataset,
                            metric,
                            each.min,
                            each.rule,
                            each.level,
                            pattern,
                            each.source,
                            each.accept_defects,
                            each.published,
                        )
                        for metric, each in (("", demands), *demands.metrics.items())
                        if each.min is not None
                    ]
        return ()

    def describe(self, thresholds: Iterable[Threshold]) -> str:
        """Name thresholds by what their file says."""
        told = ", ".join(
            f"{each.metric or 'min'} = {each.minimum:g} of [{each.pattern}]"
            for each in thresholds
        )
        return f"{told} in {self.path}"

    def without_score(self, threshold: Threshold, why: str) -> GateResult:
        """Return the failure of a threshold that there is no score for."""
        name = threshold.dataset
        return GateResult(
            dataset=name,
            gate="threshold",
            metric=threshold.metric,
            outcome="failed",
            rule=threshold.rule,
            expected=threshold.minimum,
            message=(
                f"{name} has a threshold and no score to hold against it "
                f"({self.describe([threshold])}). {why}"
            ),
            fails=True,
        )

    def explain_missed(self, model: str, dataset: str) -> str:
        """Explain that a dataset's thresholds are all of other models, and what to do.

        "" where it has none, and where an empty table says so: one of the model and
        the dataset, or of the model. One of a pattern says nothing of a model whose
        own name stands there in another spelling.
        """
        having = {
            pattern: name
            for pattern, demands in self._demands.items()
            for name in demands
            if dataset_name(name) == dataset
        }
        if any(_fits(model, pattern) for pattern in having):
            return ""
        empty = [each for each, demands in self._demands.items() if not demands]
        if model in empty:
            return ""
        missed = list(having)
        if any(_fits(model, each) for each in empty):
            missed = [each for each in having if is_typo(each, model)]
        if not missed:
            return ""
        key = f"{_key(model)}.{_key(having[missed[0]])}"
        none = key if model in self._demands else _key(model)
        return (
            f"{self.path} has thresholds of it for {', '.join(missed)}, and none for "
            f"{model}.{did_you_mean(model, missed)} Correct that name, or add [{key}] "
            f"with a min, or the empty table [{none}] if it is to have none."
        )

    def check(self, model: str, datasets: Iterable[str]) -> None:
        """Raise `VlmEvalError` for a misspelt dataset or model.

        `datasets` are all that ms-vlmeval knows, the bundled ones and the session's
        own. A table of the user's own that is not among them is named by its path, from
        the folder of the file of thresholds.
        """
        known = list(datasets)
        for pattern, demands in self._demands.items():
            for name in demands:
                self._check_dataset(pattern, name, known)
        self._check_model(model)

    def _check_dataset(self, pattern: str, name: str, known: Sequence[str]) -> None:
        assert self.path is not None
        if dataset_name(name) in known:
            return
        if is_table(name):
            if is_repository(name) or (self.path.parent / name).exists():
                return
            known = [
                each.name for each in self.path.parent.glob("*") if is_table(each.name)
            ]
        accepted = (
            "a dataset that `pytest --vlm-list` shows, or the path of a table of your "
            f"own from {self.path.parent}"
        )
        raise VlmEvalError(
            f"{self.path}: [{pattern!r}.{name!r}] names no dataset."
            f"{did_you_mean(name, known)} Accepted is {accepted}."
        )

    def _check_model(self, model: str) -> None:
        # An empty table of all models says nothing of how this one is spelt.
        if any(
            _fits(model, pattern)
            for pattern, demands in self._demands.items()
            if demands or pattern != "*"
        ):
            return
        for pattern in self._demands:
            if not set(pattern) & set("*?[") and is_typo(pattern, model):
                raise VlmEvalError(
                    f"{self.path}: no threshold is for the model {model!r}, but there "
                    f"are some for {pattern!r}. If it is the same model, write its "
                    "name alike in both places, or a pattern (* and ? stand for any "
                    f"text and letter). If not, say so by an empty table: [{model!r}]."
                )


def load_thresholds(given: Path | None, folders: Iterable[Path]) -> Thresholds:
    """Read the file that is given, else those beside the benchmarks.

    Raises `VlmEvalError` for a file that cannot be read, is not of this form, or
    where there are several.
    """
    if given is not None:
        return _read(given)
    found = [folder / FILE_NAME for folder in dict.fromkeys(folders)]
    found = [path for path in found if path.is_file()]
    if not found:
        return Thresholds(None, {})
    if len(found) > 1:
        raise VlmEvalError(
            f"There are thresholds in {' and in '.join(map(str, found))}. Name the "
            "file that counts with --vlm-thresholds=FILE."
        )
    return _read(found[0])


def _read(path: Path) -> Thresholds:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise VlmEvalError(
            f"The thresholds in {path} cannot be read: {error}. Give a readable TOML "
            "file in UTF-8 with --vlm-thresholds=FILE."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise VlmEvalError(
            f"{path} is not TOML: {error}. A name with a dot, a blank or a * needs "
            'quotes: ["qwen2.5-vl*".MMStar].'
        ) from None
    try:
        return Thresholds(path, _FILE.validate_python(content))
    except ValidationError as error:
        raise VlmEvalError(_explain(path, error)) from None


def _explain(path: Path, error: ValidationError) -> str:
    lines = [f"{path} has thresholds that are not accepted:"]
    for each in error.errors():
        place = ".".join(map(str, each["loc"]))
        what = each["msg"].removeprefix("Value error, ")
        hint = ""
        if each["type"] == "extra_forbidden":
            word = str(each["loc"][-1])
            what = "is not known." + did_you_mean(word, [*_DatasetDemands.model_fields])
        elif not isinstance(each["input"], dict):
            hint = f" (given: {each['input']!r})"
        lines.append(f"  {place}: {what}{hint}")
    lines.append(
        f"Accepted is [MODEL.DATASET] with min, rule ({_rules()}), level (0.5 to 1), "
        "source (a text), accept_defects and published (true or false), and "
        "[MODEL.DATASET.metrics.NAME] with the same for a further metric."
    )
    return "\n".join(lines)


def _fits(model: str, pattern: str) -> bool:
    return model == pattern or fnmatchcase(model, pattern)


def _key(name: str) -> str:
    """Write a name as a key of TOML."""
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name, ensure_ascii=False)


def _letters(name: str) -> str:
    return "".join(WORDS.findall(name.lower()))


def is_typo(pattern: str, model: str) -> bool:
    """Return whether two names differ by what no two models do.

    That is by case and signs between words, by the owner's name before a slash, or in
    one word of four letters and more, slightly. Numbers tell models apart, as do single
    letters.
    """
    if ("/" in pattern) != ("/" in model):
        pattern, model = (each.rpartition("/")[2] for each in (pattern, model))
    if _letters(pattern) == _letters(model):
        return True
    ours, theirs = (WORDS.findall(name.lower()) for name in (pattern, model))
    if len(ours) != len(theirs):
        return False
    unlike = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    return (
        len(unlike) == 1
        and all(word.isalpha() and len(word) >= SHORTEST_TYPO for word in unlike[0])
        and difflib.SequenceMatcher(None, *unlike[0]).ratio() >= ALIKE
    )


TITLES: dict[GateOutcome, str] = {
    "passed": "reaches its threshold.",
    "failed": "is below its threshold.",
    "inconclusive": "is too close to its threshold to tell.",
}


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
        return POINT if self.estimate is None else RULES[self.threshold.rule]

    @property
    def p_value(self) -> float | None:
        """The p-value of what the rule wants shown; None if it wants nothing."""
        if self.estimate is None:
            return None
        return self.rule.p_value(self.estimate, self.threshold.minimum)


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
    threshold, estimate = it.threshold, it.estimate
    reached = it.metric.value >= threshold.minimum
    p_value, limit = it.p_value, 1 - threshold.level
    if it.rule.may_alarm and adjusted is not None:
        p_value, limit = adjusted
    shown = p_value is not None and p_value <= limit
    outcome = (stop and stop.outcome("threshold")) or it.rule.outcome(
        reached=reached, shown=shown
    )
    needed = None
    if estimate is not None and outcome == "inconclusive":
        needed = estimate.needed(threshold.minimum)
    result = GateResult(
        dataset=it.score.dataset,
        gate="threshold",
        metric=it.metric.name or it.score.main_metric,
        outcome=outcome,
        rule=it.rule.name,
        value=it.metric.value,
        interval=estimate.interval if estimate else None,
        samples=estimate.samples if estimate else it.score.samples,
        clusters=estimate.clusters if estimate else 0,
        expected=threshold.minimum,
        p_value=it.p_value,
        adjusted_p_value=adjusted and adjusted.p_value,
        worst=it.worst,
        needed_samples=needed,
        fails=is_failure(outcome, inconclusive, strict=it.rule.strict),
        message="",
    )
    if not result.fails and it.sound is not None:
        sound = decide(it.sound, inconclusive=inconclusive)
        if sound.fails:
            return _without_defects(it, result, sound)
    return replace(result, message=_message(it, result, adjusted, stop))


def _message(
    it: Assessment,
    result: GateResult,
    adjusted: Adjusted | None,
    stop: Stop | None,
) -> str:
    p_value = None
    if it.p_value is not None:
        least = "least" if it.rule.may_alarm else "most"
        said = f"{it.p_value:.3g} of a true value of at {least} the threshold"
        p_value = "p", f"{said}; {adjusted.text}" if adjusted else said
    return write_block(
        title_of(result, f"{result.dataset}: {result.metric} {TITLES[result.outcome]}"),
        [
            *_begin(it, result),
            p_value,
            samples_line(result.samples, result.clusters),
            ("stopped", stop.reason) if stop else None,
            needed_line(result.needed_samples, result.samples),
            worst_line(it.worst),
            defects_line(it.score),
            see_line(result.dataset),
        ],
    )


def _without_defects(
    it: Assessment, result: GateResult, sound: GateResult
) -> GateResult:
    """Fail what passes only by verdicts that rest on a known defect."""
    message = write_block(
        f"{result.dataset}: {result.metric} is below its threshold without the "
        f"verdicts that rest on {name_defect(it.score)}.",
        [
            *_begin(it, result, sound),
            defects_line(it.score),
            ("accept", "with accept_defects = true beside min in thresholds.toml"),
            samples_line(result.samples, result.clusters),
            see_line(result.dataset),
        ],
    )
    return replace(result, outcome="failed", fails=True, message=message)


def _begin(
    it: Assessment, result: GateResult, sound: GateResult | None = None
) -> Sequence[Line | None]:
    """Return the lines of the value and its threshold, which any message begins by."""
    scale = None if it.metric.name else it.score.scale
    threshold, rule = it.threshold, result.rule
    said = f"{threshold.minimum:.2f} for {threshold.pattern}, rule {rule}"
    if rule != threshold.rule:
        said += f" ({threshold.rule} needs an interval)"
    elif it.rule is not POINT:
        said += f" at level {threshold.level:g}"
    without = sound and value_line(sound.value or 0, scale, sound.interval)[1]
    return [
        value_line(it.metric.value, scale, result.interval),
        ("without", without) if without else None,
        ("threshold", said),
        ("source", threshold.source) if threshold.source else None,
    ]
