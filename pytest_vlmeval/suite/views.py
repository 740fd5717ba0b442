"""What a test holds: a sample or a score, read from the store on demand."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NoReturn, TypeVar

import pytest

from pytest_vlmeval.errors import (
    NeedsJudgeError,
    NotAskedError,
    VlmEvalError,
    printable,
)
from pytest_vlmeval.models.client import find_ending
from pytest_vlmeval.reports.wording import (
    describe_corrected,
    describe_cut_off,
    describe_repeats,
    describe_verdict,
    list_score,
    shorten,
    why_undecided,
    why_unusable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pytest_vlmeval.datasets.prepare import IndexRow
    from pytest_vlmeval.records import Answer, GateResult, Score, Verdict
    from pytest_vlmeval.run import Run

T = TypeVar("T")


def _fail(message: str) -> NoReturn:
    pytest.fail(printable(message), pytrace=False)


def _or_fail(read: Callable[[], T], *, may_skip: bool = True) -> T:
    """Return what `read` gives; fail the test with what it says instead.

    What is not asked, or only a judge could tell where there is none, skips the test
    where it `may_skip`.
    """
    try:
        return read()
    except VlmEvalError as error:
        if may_skip and isinstance(error, NeedsJudgeError | NotAskedError):
            pytest.skip(str(error))
        message = str(error)
    # Outside of the handler, so that pytest does not show the error a second time.
    _fail(message)


@lru_cache(maxsize=1_000)
def _describe_origin(answer: Answer) -> list[tuple[str, object]]:
    """Return whether the session asked itself, or what answered when."""
    if not answer.from_store:
        return [("answer_from", "this session")]
    at = datetime.fromtimestamp(answer.answered_at, UTC).isoformat(timespec="seconds")
    where = ", ".join(filter(None, ("the store", answer.endpoint)))
    return [_property("answer_from", where), ("answered_at", at)]


def _property(name: str, value: str) -> tuple[str, object]:
    """Return what thousands of reports hold: kept once."""
    return name, value


class SampleView:
    """One sample of a dataset; `answer` and `verdict` wait until they are there."""

    def __init__(self, run: Run, dataset: str, row: IndexRow, folder: Path) -> None:
        self._run = run
        self._folder = folder
        self.dataset = dataset
        self.index = row.index
        self.reference = row.reference
        self.category = row.category
        # Why an answer is wrong whose item passes, "" for any other, once checked.
        self.wrong = ""

    def __repr__(self) -> str:
        """Name the sample."""
        return f"<sample {self.dataset}-{self.index}>"

    @cached_property
    def answer(self) -> Answer:
        """What the model answered (at first); fails the test if nothing will come."""
        return _or_fail(lambda: self._run.answer(self.dataset, self.index))

    @property
    def answers(self) -> tuple[Answer, ...]:
        """What the model answered each time (`--vlm-repeat`), as `answer`."""
        if self._run.settings.repeat == 1:
            return (self.answer,)
        return _or_fail(lambda: self._run.answers(self.dataset, self.index))

    @cached_property
    def verdict(self) -> Verdict:
        """How the answer was judged; fails the test if it could not be."""
        return _or_fail(lambda: self._run.verdict(self.dataset, self.index))

    def _check_answers(self) -> None:
        answers = self.answers
        for number, answer in enumerate(answers, 1):
            # The score fails, and those that were refused: the rest would repeat it.
            if answer.state == "not_asked":
                pytest.skip(answer.error)
            if not answer.is_usable:
                which = f" in repeat {number} of {len(answers)}"
                _fail(
                    f"{self.dataset}-{self.index} has no usable answer"
                    f"{which if len(answers) > 1 else ''}: {why_unusable(answer)}"
                )

    def _lacks_judge(self) -> bool:
        """Return whether only a judge could score the answer, and there is none."""
        try:
            self._run.verdict(self.dataset, self.index)
        except NeedsJudgeError:
            return True
        except VlmEvalError:
            return False
        return False

    def properties(self) -> list[tuple[str, object]]:
        """Return what is known by now, for test reports."""
        found: list[tuple[str, object]] = [_property("dataset", self.dataset)]
        found.append(("index", self.index))
        if self.category is not None:
            found.append(_property("category", self.category))
        if self.reference is not None:
            found.append(_property("reference", shorten(self.reference)))
        answer: Answer | None = self.__dict__.get("answer")
        if answer is not None:
            found.append(_property("state", answer.state))
            found.append(("answer", shorten(answer.cell)))
            found.append(("latency_ms", round(answer.latency_ms, 1)))
            if find_ending(answer.finish_reason) == "unknown":
                found.append(_property("finish_reason", answer.finish_reason))
            if answer.from_cache:
                found.append(("from_cache", "true"))
            found += _describe_origin(answer)
        verdict: Verdict | None = self.__dict__.get("verdict")
        if verdict is not None:
            found.append(_property("verdict", describe_verdict(verdict)))
            if verdict.unread:
                found.append(_property("unread", "true"))
            if corrected := describe_corrected(verdict):
                found.append(_property("corrected_verdict", corrected))
            if verdict.repeats:
                found.append(("right", describe_repeats(verdict)))
        if self.wrong:
            found.append(("wrong", self.wrong))
        return found

    def check(self) -> None:
        """Pass if the answer is right; fail if there is none.

        If it is wrong, do what `--vlm-wrong` says: pass, xfail or fail.

        An answer that has no verdict of its own passes: one that only a judge can
        score, without a judge, and one that is scored with all others, as captions.
        """
        self._check_answers()
        if self._run.settings.mode == "infer":
            return
        if self._lacks_judge():
            return
        verdict = self.verdict
        if verdict.is_part_of_whole:
            return
        if verdict.value is None:
            why = why_undecided(verdict)
            _fail(f"{self.dataset}-{self.index} was not scored: {why}")
        if verdict.value < 0.5:
            said = verdict.extracted or self.answer.cell
            known = shorten(str(self.reference))
            reason = f"answered {shorten(said.strip(), 80)}, reference {known}"
            if verdict.why_lost:
                reason += f": wrong, because {shorten(verdict.why_lost)}"
            if self.answer.state == "cut_off":
                reason += f" ({describe_cut_off(self.answer)})"
            if verdict.repeats:
                reason += f" (right {describe_repeats(verdict)})"
            if corrected := describe_corrected(verdict):
                reason += f" (--vlm-scoring=corrected: {corrected})"
            self._gate(reason)
            if self._run.settings.wrong == "xfail":
                raise pytest.xfail.Exception(printable(reason), pytrace=False)
            self.wrong = printable(reason)

    def _gate(self, reason: str) -> None:
        """Fail a wrong sample where --vlm-wrong or --vlm-gate-samples says so."""
        run, name = self._run, self.dataset
        gating = run.gating
        if why := _or_fail(lambda: gating.why_gated(name, self.index, self._folder)):
            _fail(f"{name}-{self.index} {why}: {reason}")


class ScoreView:
    """The score of a dataset; reading it waits until all samples have answers."""

    def __init__(self, run: Run, dataset: str, folder: Path) -> None:
        self._run = run
        self._folder = folder
        self._baseline: GateResult | None = None
        self.dataset = dataset

    def __repr__(self) -> str:
        """Name the score."""
        return f"<score {self.dataset}>"

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        """Hold the score against its baseline, which `other` is a snapshot of.

        Fails the test where the score does not pass, with all that is to be said.
        """
        from syrupy.assertion import SnapshotAssertion

        if not isinstance(other, SnapshotAssertion):
            return NotImplemented
        from pytest_vlmeval.suite.snapshots import hold_against

        gating = self._run.gating
        if why := self._needs_judge:
            self._baseline = gating.baseline_without_score(
                self.dataset, self._folder, why
            )
            if self._baseline is None:
                pytest.skip(why)
            _fail(self._baseline.message)
        score = self.record
        self._baseline = _or_fail(
            lambda: gating.against_baseline(
                score, self._folder, lambda gate: hold_against(gate, other)
            )
        )
        if self._baseline.fails:
            _fail(self._baseline.message)
        return True

    @cached_property
    def record(self) -> Score:
        """The whole score, with its verdicts; fails the test if there is none."""
        self._skip_where_only_asked()
        return _or_fail(lambda: self._run.score(self.dataset), may_skip=False)

    @cached_property
    def _needs_judge(self) -> str:
        """Why there is no score for want of a judge; "" if that is not so."""
        self._skip_where_only_asked()
        try:
            self._run.score(self.dataset)
        except NeedsJudgeError as error:
            return str(error)
        except VlmEvalError:
            return ""
        return ""

    @property
    def value(self) -> float:
        """The main metric, from 0 to the score's `scale`, mostly 100."""
        return self.record.value

    @property
    def metrics(self) -> Mapping[str, float]:
        """Every metric that ms-vlmeval computes, by its name there."""
        return self.record.metrics

    @cached_property
    def gates(self) -> Sequence[GateResult]:
        """What the gates of the score found: completeness and thresholds."""
        _ = self.record
        return _or_fail(lambda: self._run.gating.results(self.dataset), may_skip=False)

    def _skip_where_only_asked(self) -> None:
        """Skip under --vlm-mode=infer, the only mode that asks what has no score."""
        if self._run.settings.mode != "infer":
            return
        why = self._run.why_unscored(self.dataset)
        if not why:
            pytest.skip("--vlm-mode=infer only asks; score with --vlm-mode=score")
        # There is nothing to compare the answers with, so they are written to a file.
        written = _or_fail(lambda: self._run.submission(self.dataset))
        answers = ", and none was answered"
        if written is not None:
            answers = f"; its answers are in {written.file} ({written.format})"
        pytest.skip(f"{self.dataset} cannot be scored: {why}{answers}")

    def properties(self) -> list[tuple[str, object]]:
        """Return what is known by now, for test reports."""
        score: Score | None = self.__dict__.get("record")
        if score is None:
            return [("dataset", self.dataset)]
        from pytest_vlmeval.records import NO_GATE, properties_of
        from pytest_vlmeval.run.judge import compare_judges, describe_agreement

        scores = self._run.scores_by_judge(self.dataset)
        every = self._run.settings.properties == "all"
        # What gates found, where they were asked.
        gates: Sequence[GateResult] = self.__dict__.get("gates", ())
        baseline = () if self._baseline is None else (self._baseline,)
        found = (*gates, *baseline)
        nothing = found and not any(gate.is_set for gate in found)
        return [
            *list_score(score, every=every),
            *((f"score by {each.judge}", each.value) for each in scores),
            *(
                (
                    f"agreement of {each.first} and {each.second}",
                    describe_agreement(each),
                )
                for each in compare_judges(scores)
            ),
            *(pair for gate in found for pair in properties_of(gate, every=every)),
            *([("gates", NO_GATE)] if nothing else []),
        ]

    def check(self) -> None:
        """Fail if a gate does: the score is incomplete, or below its threshold.

        A dataset that only a judge could score, without one, fails where it has a
        threshold, and is skipped else.
        """
        from pytest_vlmeval.records import explain_failures

        if why := self._needs_judge:
            lacking = self._run.gating.results_without_score(self.dataset, why)
            if message := explain_failures(lacking):
                _fail(message)
            pytest.skip(why)
        if message := explain_failures(self.gates):
            _fail(message)


class UnpreparedView:
    """Stands for a dataset that could not be prepared: asking for anything fails."""

    def __init__(self, error: str) -> None:
        self._error = error

    def __getattr__(self, name: str) -> NoReturn:
        """Fail with the reason."""
        _fail(self._error)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> NoReturn:
        """Fail with the reason."""
        _fail(self._error)

    def check(self) -> NoReturn:
        """Fail with the reason."""
        _fail(self._error)
