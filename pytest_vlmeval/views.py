"""What a test holds: a sample or a score, read from the store on demand."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NoReturn, TypeVar

import pytest

from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pytest_vlmeval.datasets.prepare import IndexRow
    from pytest_vlmeval.records import Answer, Score, Verdict
    from pytest_vlmeval.run import Run

T = TypeVar("T")

# Longer answers are shortened in reports; the store keeps them whole.
LONGEST_SHOWN = 2_000


def shorten(text: str, most: int = LONGEST_SHOWN) -> str:
    """Return `text`, cut at `most` characters with a note of its whole length."""
    if len(text) <= most:
        return text
    return f"{text[:most]}... ({len(text)} characters in all)"


def _fail(message: str) -> NoReturn:
    pytest.fail(message, pytrace=False)


def _or_fail(read: Callable[[], T]) -> T:
    """Return what `read` gives; fail the test with what it says instead.

    What only a judge could tell skips the test where there is none.
    """
    try:
        return read()
    except NeedsJudgeError as error:
        pytest.skip(str(error))
    except VlmEvalError as error:
        message = str(error)
    # Outside of the handler, so that pytest does not show the error a second time.
    _fail(message)


class SampleView:
    """One sample of a dataset; `answer` and `verdict` wait until they are there."""

    def __init__(self, run: Run, dataset: str, row: IndexRow) -> None:
        self._run = run
        self.dataset = dataset
        self.index = row.index
        self.reference = row.reference
        self.category = row.category

    def __repr__(self) -> str:
        """Name the sample."""
        return f"<sample {self.dataset}-{self.index}>"

    @cached_property
    def answer(self) -> Answer:
        """What the model answered; fails the test if nothing will ever come."""
        return _or_fail(lambda: self._run.answer(self.dataset, self.index))

    @cached_property
    def verdict(self) -> Verdict:
        """How the answer was judged; fails the test if it could not be."""
        return _or_fail(lambda: self._run.verdict(self.dataset, self.index))

    def _lacks_judge(self) -> bool:
        """Whether only a judge could score the answer, and there is none."""
        try:
            self._run.verdict(self.dataset, self.index)
        except NeedsJudgeError:
            return True
        except VlmEvalError:
            return False
        return False

    def properties(self) -> list[tuple[str, object]]:
        """Return what is known by now, for test reports."""
        found: list[tuple[str, object]] = [("dataset", self.dataset)]
        found.append(("index", self.index))
        if self.category is not None:
            found.append(("category", self.category))
        if self.reference is not None:
            found.append(("reference", shorten(self.reference)))
        answer: Answer | None = self.__dict__.get("answer")
        if answer is not None:
            found.append(("state", answer.state))
            found.append(("answer", shorten(answer.text)))
            found.append(("latency_ms", round(answer.latency_ms, 1)))
        verdict: Verdict | None = self.__dict__.get("verdict")
        if verdict is not None:
            found.append(("verdict", _describe(verdict)))
        return found

    def check(self) -> None:
        """Pass if the answer is right; xfail if wrong; fail if there is none.

        An answer that has no verdict of its own passes: one that only a judge can
        score, without a judge, and one of captions, which are scored as a whole.
        """
        answer = self.answer
        if answer.state != "answered":
            _fail(f"{self.dataset}-{self.index} has no usable answer: {_why(answer)}")
        if self._run.settings.mode == "infer":
            return
        if why := self._run.why_unscored(self.dataset):
            pytest.skip(why)
        if self._run.is_scored_as_a_whole(self.dataset) or self._lacks_judge():
            return
        verdict = self.verdict
        if verdict.value is None:
            _fail(f"{self.dataset}-{self.index} was not scored: {_why_not(verdict)}")
        if verdict.value < 0.5:
            said = verdict.extracted or answer.text
            reason = f"answered {shorten(said.strip(), 80)}, reference {self.reference}"
            raise pytest.xfail.Exception(reason, pytrace=False)


def _describe(verdict: Verdict) -> str:
    if verdict.value is None:
        return "unscored" if verdict.state == "matched" else verdict.state
    if verdict.value in (0.0, 1.0):
        return "correct" if verdict.value else "wrong"
    return f"{verdict.value:.3f}"


def _why_not(verdict: Verdict) -> str:
    """Say why the judge decided nothing, and what to do."""
    remedies = {
        "judge_failed": " The same command asks the judge again.",
        "judge_unclear": " Its prompt and all replies are in the store; another "
        "judge (--vlm-judge) may do better.",
    }
    end = "" if verdict.reason.endswith(".") else "."
    return shorten(verdict.reason) + end + remedies.get(verdict.state, "")


def _why(answer: Answer) -> str:
    """Say in a sentence why an answer cannot be used, and what to do."""
    if answer.state == "cut_off":
        return (
            f"it was cut off at the token limit after {answer.completion_tokens} "
            "tokens. Raise --vlm-max-tokens. It began: " + shorten(answer.text, 200)
        )
    if answer.state == "empty":
        return "the model returned an empty text."
    asked = f" (asked {answer.attempts} times)" if answer.attempts > 1 else ""
    return f"{answer.error}{asked}"


class ScoreView:
    """The score of a dataset; reading it waits until all samples have answers."""

    def __init__(self, run: Run, dataset: str) -> None:
        self._run = run
        self.dataset = dataset

    def __repr__(self) -> str:
        """Name the score."""
        return f"<score {self.dataset}>"

    @cached_property
    def record(self) -> Score:
        """The whole score, with its verdicts; fails the test if there is none."""
        self._skip_unscored()
        return _or_fail(lambda: self._run.score(self.dataset))

    @property
    def value(self) -> float:
        """The main metric, from 0 to the score's `scale`, mostly 100."""
        return self.record.value

    @property
    def metrics(self) -> Mapping[str, float]:
        """Every metric that ms-vlmeval computes, by its name there."""
        return self.record.metrics

    def _skip_unscored(self) -> None:
        if why := self._run.why_unscored(self.dataset):
            pytest.skip(self._submit(why))
        if self._run.settings.mode == "infer":
            pytest.skip("--vlm-mode=infer only asks; score with --vlm-mode=score")

    def _submit(self, why: str) -> str:
        """Write the answers where there is nothing to compare them with; say where."""
        written = _or_fail(lambda: self._run.submission(self.dataset))
        if written is None:
            return f"{why}, and none was answered"
        return f"{why}; its answers are in {written.file} ({written.format})"

    def properties(self) -> list[tuple[str, object]]:
        """Return what is known by now, for test reports."""
        score: Score | None = self.__dict__.get("record")
        if score is None:
            return [("dataset", self.dataset)]
        return [
            ("dataset", self.dataset),
            ("main_metric", score.main_metric),
            ("score", score.value),
            ("scale", f"0 to {score.scale:g}"),
            ("samples", score.samples),
            ("answered", score.answered),
            ("correct", score.correct),
            ("judge", score.judge),
            ("undecided", score.undecided),
            ("best_case", score.best),
            ("modified_data", str(score.modified).lower()),
            ("scorer", score.scorer),
            ("scoring", score.scoring),
            *(("note", note) for note in score.notes),
            *((f"metric: {name}", value) for name, value in score.metrics.items()),
            *self._judge_properties(),
        ]

    def _judge_properties(self) -> list[tuple[str, object]]:
        from pytest_vlmeval.agreement import compare_judges, describe

        scores = self._run.scores_by_judge(self.dataset)
        return [
            *((f"score by {each.judge}", each.value) for each in scores),
            *(
                (f"agreement of {each.first} and {each.second}", describe(each))
                for each in compare_judges(scores)
            ),
        ]

    def check(self) -> None:
        """Fail if samples are missing from the score, or the judge left some."""
        score = self.record
        missing = score.samples - score.answered
        if missing:
            _fail(
                f"{self.dataset}: {missing} of {score.samples} samples have no usable "
                f"answer and count as wrong in {score.main_metric} = "
                f"{score.value:.2f}. The items of these samples say why; the same "
                "command asks only them again."
            )
        if score.undecided:
            _fail(
                f"{self.dataset}: the judge ({score.judge}) did not decide "
                f"{score.undecided} of {score.samples} samples, which count as wrong "
                f"in {score.main_metric} = {score.value:.2f}; at best it is "
                f"{score.best:.2f}. The items of these samples say why."
            )


class UnpreparedView:
    """Stands for a dataset that could not be prepared: asking for anything fails."""

    def __init__(self, error: str) -> None:
        self._error = error

    def __getattr__(self, name: str) -> NoReturn:
        """Fail with the reason."""
        _fail(self._error)

    def check(self) -> NoReturn:
        """Fail with the reason."""
        _fail(self._error)
