"""Scores a dataset by functions of the user's own, in this process."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.datasets.prepare import read_whole_samples
from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError, describe, log_error
from pytest_vlmeval.records import NO_ANSWER, UNDECIDED, Score, Verdict, is_right
from pytest_vlmeval.run.code_digest import find_code
from pytest_vlmeval.run.judge import Judgement, JudgeQuestions
from pytest_vlmeval.run.own_scoring import place_of, show_place

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.records import (
        Answer,
        JudgeQuestion,
        JudgeReply,
        PlanEntry,
        Sample,
    )
    from pytest_vlmeval.run.own_scoring import OwnScoring
    from pytest_vlmeval.run.scoring import AskJudge, Stored
    from pytest_vlmeval.settings import Settings

# The metric where there is no `aggregate`: the mean of the verdicts, by the name that
# most of ms-vlmeval's have.
MEAN = "Overall"
AGAIN = (
    "Correct it and run the same command again: the answers are stored, and only the "
    "scoring is repeated."
)
# Of so many failures the traceback is kept.
MOST_LOGGED = 5
# So many samples are scored at once where each waits for a judge.
JUDGED_AT_ONCE = 16


class OwnScorer:
    """Scores one dataset by functions of the user's own."""

    def __init__(self, settings: Settings, library: Library, own: OwnScoring) -> None:
        self._settings = settings
        self._library = library
        self._own = own
        # By judge and answer: what was made of it, or why nothing could be.
        self._tried: dict[tuple[str, str, int], Verdict | VlmEvalError] = {}
        self._logged = 0
        self._read: dict[str, Mapping[str, Sample]] = {}

    def score(
        self,
        entry: PlanEntry,
        stored: Stored,
        usable: Collection[str],
        name: str,
        ask: AskJudge | None,
    ) -> Score:
        """Score the answers; `VlmEvalError` if the functions fail, and where."""
        found = self.attempt(entry, stored, name, ask)
        failures = [each for each in found.values() if isinstance(each, VlmEvalError)]
        if failures:
            many = (
                f"{self._own.name} fails at {len(failures)} of {len(usable)} answers, "
                "the first: "
            )
            raise VlmEvalError(
                f"{entry.dataset} has no score: {many if len(failures) > 1 else ''}"
                f"{failures[0]} {AGAIN}"
            )
        verdicts = tuple(each for each in found.values() if isinstance(each, Verdict))
        metrics = self._aggregate(entry, verdicts)
        best = self._aggregate(
            entry,
            [replace(v, value=1.0) if v.state in UNDECIDED else v for v in verdicts],
        )
        main = next(iter(metrics))
        return Score(
            dataset=entry.dataset,
            metrics=metrics,
            main_metric=main,
            value=100 * metrics[main],
            best=100 * best[main],
            samples=len(entry.indexes),
            answered=len(usable),
            correct=sum(is_right(each.value) for each in verdicts),
            undecided=sum(each.state in UNDECIDED for each in verdicts),
            modified=entry.modified,
            data_version=entry.version,
            scorer=f"{entry.scorer}:{name}",
            judge=name,
            scoring="own",
            notes=self._library.prepared(entry.dataset).notes,
            verdicts=verdicts,
        )

    def attempt(
        self, entry: PlanEntry, stored: Stored, name: str, ask: AskJudge | None
    ) -> Mapping[str, Verdict | VlmEvalError]:
        """Return what is made of each answer, in the order of the dataset.

        A `VlmEvalError` is why there is no verdict on one. Raises NeedsJudgeError.
        """
        if self._own.wants_judge and ask is None:
            raise NeedsJudgeError(
                f"{entry.dataset} has no score: {self._own.name} asks a judge, and "
                "there is none. Name one with --vlm-judge=NAME "
                "--vlm-judge-api-base=URL; the answers are stored."
            )
        keys = {
            index: (name, index, each.seq)
            for index, each in stored.items()
            if each is not None and each.answer.is_usable
        }
        missing = {i for i, key in keys.items() if key not in self._tried}
        if missing:
            prepared = self._library.prepared(entry.dataset)
            samples = read_whole_samples(prepared, missing)

            def judge(sample: Sample) -> None:
                each = stored[sample.index]
                assert each is not None
                asking = ask and partial(ask, fingerprint=entry.fingerprint)
                key = keys[sample.index]
                self._tried[key] = self._try(sample, each.answer, asking)

            if self._own.wants_judge:
                with ThreadPoolExecutor(JUDGED_AT_ONCE, "vlmeval-scoring") as threads:
                    list(threads.map(judge, samples))
            else:
                for sample in samples:
                    judge(sample)
        return {
            index: self._tried[keys[index]]
            if index in keys
            else Verdict(index=index, value=None, reason=NO_ANSWER)
            for index in stored
        }

    def _try(
        self,
        sample: Sample,
        answer: Answer,
        ask: Callable[[Sequence[JudgeQuestion]], list[JudgeReply]] | None,
    ) -> Verdict | VlmEvalError:
        own, where = self._own, f"{sample.dataset}-{sample.index}"
        given: list[Any] = [sample, answer]
        asked = _Asked(ask, sample.index)
        if own.wants_judge:
            given.append(JudgeQuestions({"judge": asked}))
        try:
            said = own.score(*given)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # pytest.fail and sys.exit too
            return self._failure(error, own.name, own.score, sample)
        verdict = _verdict(said, sample.index)
        if verdict is None:
            return VlmEvalError(
                f"{own.name} ({place_of(own.score)}) returned {_value(said)} for "
                f"{where}. It has to return a number from 0 to 1, a bool or a Verdict."
            )
        if verdict.state == "matched" and asked.exchanges:
            verdict = replace(verdict, state="judged")
        return replace(verdict, exchanges=tuple(asked.exchanges))

    def _failure(
        self,
        error: BaseException,
        name: str,
        function: Callable[..., object],
        sample: Sample | None,
        dataset: str = "",
    ) -> VlmEvalError:
        """Return what is said of an exception in a function of the user's own."""
        place = _raised_at(error, function)
        dataset = sample.dataset if sample else dataset
        if self._logged >= MOST_LOGGED:
            where = f"{dataset}-{sample.index}" if sample else dataset
            return VlmEvalError(
                f"{name} ({place}) for {where} failed: {describe(error)}."
            )
        self._logged += 1
        doing = f"{name} ({place}) for"
        index = sample.index if sample else ""
        return VlmEvalError(log_error(self._settings, error, doing, dataset, index))

    def _aggregate(
        self, entry: PlanEntry, verdicts: Sequence[Verdict]
    ) -> dict[str, float]:
        """Return the metrics, the main one first, from 0 to 1."""
        own = self._own
        if own.aggregate is None:
            return self._means(entry, verdicts)
        name = f"{own.name.removesuffix('score')}aggregate"
        try:
            if own.wants_samples:
                said = own.aggregate(tuple(verdicts), self._samples(entry))
            else:
                said = own.aggregate(tuple(verdicts))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            failure = self._failure(error, name, own.aggregate, None, entry.dataset)
            raise VlmEvalError(
                f"{entry.dataset} has no score: {failure} {AGAIN}"
            ) from None
        place = place_of(own.aggregate)
        head = f"{entry.dataset} has no score: {name} ({place}) returned "
        needs = "It has to return metrics by name, at least one: {'mean': 0.5}."
        if not isinstance(said, Mapping) or not said:
            raise VlmEvalError(f"{head}{_value(said)}. {needs}")
        found: dict[str, float] = {}
        for metric, value in said.items():
            number = _number(value)
            if not isinstance(metric, str) or not metric or number is None:
                raise VlmEvalError(
                    f"{head}{_value(value)} as {metric!r}. {needs} Names are texts, "
                    "and values finite numbers."
                )
            found[metric] = number
        main, value = next(iter(found.items()))
        if not 0 <= value <= 1:
            raise VlmEvalError(
                f"{head}{value:g} as {main}, the main metric. The first metric has to "
                "be a number from 0 to 1, as verdicts are; others may be any."
            )
        return found

    def _samples(self, entry: PlanEntry) -> Mapping[str, Sample]:
        """Return the samples that were asked, by their indexes."""
        if entry.dataset not in self._read:
            prepared = self._library.prepared(entry.dataset)
            self._read[entry.dataset] = {
                each.index: each
                for each in read_whole_samples(prepared, set(entry.indexes))
            }
        return self._read[entry.dataset]

    def _means(self, entry: PlanEntry, verdicts: Sequence[Verdict]) -> dict[str, float]:
        """Return the mean of the verdicts, of all and of each category."""
        values = {each.index: each.value or 0.0 for each in verdicts}
        categories: dict[str, list[float]] = {}
        for row in self._library.rows(entry.dataset):
            if row.category is not None and row.index in values:
                categories.setdefault(row.category, []).append(values[row.index])
        found = {MEAN: _mean(values.values())}
        if len(categories) > 1:
            found |= {
                name: _mean(each) for name, each in categories.items() if name != MEAN
            }
        return found


class _Asked:
    """A judge as a function asks it about one sample; counts what it was asked."""

    def __init__(
        self,
        ask: Callable[[Sequence[JudgeQuestion]], list[JudgeReply]] | None,
        index: str,
    ) -> None:
        self._ask = ask
        self._index = index
        self.exchanges: list[int] = []

    def ask(self, questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        assert self._ask is not None
        replies = self._ask([replace(each, unit=self._index) for each in questions])
        self.exchanges += [each.number for each in replies if each.number]
        return replies


def _mean(values: Iterable[float]) -> float:
    every = list(values)
    return math.fsum(every) / len(every)


def _raised_at(error: BaseException, function: Callable[..., object]) -> str:
    """Return the file and line of the function's own file where it failed."""
    code = find_code(function)
    frames = traceback.extract_tb(error.__traceback__)
    if code is None:
        return "no file"
    own = [each for each in frames if each.filename == code.co_filename]
    line = own[-1].lineno if own else None
    return show_place(code.co_filename, line or code.co_firstlineno)


def _number(value: object) -> float | None:
    """Return a finite number, of numpy too; None for anything else."""
    if not isinstance(value, bool | int | float):
        # A scalar of numpy or torch.
        item = getattr(value, "item", None)
        try:
            value = item() if callable(item) else None
        except (TypeError, ValueError, RuntimeError):
            return None
        if not isinstance(value, bool | int | float):
            return None
    return float(value) if math.isfinite(value) else None


def _verdict(said: object, index: str) -> Verdict | None:
    """Return the verdict that a function gave in one of its forms; None if it is none.

    A judgement counts as it is, with its state.
    """
    if isinstance(said, Judgement):
        value = None if said.value is None else _number(said.value)
        if said.value is not None and (value is None or not 0 <= value <= 1):
            return None
        return Verdict(
            index=index, value=value, reason=said.error or said.reply, state=said.state
        )
    if isinstance(said, Verdict):
        if said.value is None:
            undecided = said.state in UNDECIDED
            return replace(said, index=index) if undecided else None
        value = _number(said.value)
        if value is None or not 0 <= value <= 1:
            return None
        return replace(said, index=index, value=value)
    value = _number(said)
    if value is None or not 0 <= value <= 1:
        return None
    return Verdict(index=index, value=value)


def _value(said: object) -> str:
    """Return what a function returned, as a message shows it."""
    text = repr(said)
    return text if len(text) <= 80 else f"{text[:80]}… ({type(said).__name__})"
