"""The judge inside the sandbox: what ms-vlmeval asks it, and what became of each unit.

A unit is what ms-vlmeval judges at once: a row, or all rotations of a question. It
runs until it needs a reply that is not there; then the open questions of all units
go out together, and the units that waited begin anew with what has come. There are
no threads, because what bounds a comparison in time is an alarm (`fixes.py`), and
the same replies lead to the same results in whatever order they come.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.job import NO_REPLY, JudgedUnit, current_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pytest_vlmeval.sandbox.inside.job import Job, Question

    Inputs = tuple[Any, ...] | dict[str, Any] | Any

# What ms-vlmeval's own client of a judge sends unless told otherwise (api/gpt.py:45).
DEFAULTS: dict[str, Any] = {"max_tokens": 2048, "temperature": 0}
# The scales that the prompts of MMBench-Video, MMVet and LLaVABench give.
RATINGS = {"0", "1", "2", "3"}
LLAVA_POINTS = (0, 10)
# The most that MMDU's prompt lets a judge give.
FULL_POINTS = 10


class _Pending(BaseException):
    """Ends a unit at a question without a reply; passes by `except Exception`."""

    def __init__(self, question: Question) -> None:
        self.question = question


class Judge:
    """Stands in for ms-vlmeval's judges: its questions are those of the current unit.

    Where a run has no judge it never has a reply, and says so at once. ms-vlmeval then
    falls back on what exact matching found, without a network call and, as its own
    retries do not wait, without delay.
    """

    fail_msg = NO_REPLY

    def __init__(self, **settings: Any) -> None:
        self._job = current_job()
        self._settings = {
            "system": settings.get("system_prompt"),
            **{name: settings.get(name, DEFAULTS[name]) for name in DEFAULTS},
        }
        if self._job.judge_tokens is not None:
            self._settings["max_tokens"] = self._job.judge_tokens

    def working(self) -> bool:
        """Claim to work; some datasets refuse to score otherwise."""
        return True

    def generate(self, message: object, **settings: object) -> str:
        """Return the reply to a prompt; NO_REPLY where it is empty or there is none."""
        if self._job.ask is None:
            return NO_REPLY
        if not isinstance(message, str):
            raise VlmEvalError(
                "ms-vlmeval shows its judge more than a text for this dataset, which "
                "is not supported. --vlm-mode=infer collects its answers."
            )
        unit = self._job.unit
        if unit is None:
            raise RuntimeError("a judge was asked outside of a unit")
        # What failed was tried again as often as it should be.
        if unit.failed or unit.key in self._job.not_judged:
            return NO_REPLY
        said = {name: settings.get(name, self._settings[name]) for name in DEFAULTS}
        question: Question = {**self._settings, **said, "prompt": message}
        if unit.position == len(unit.exchanges):
            earlier = [each.question for each in unit.exchanges]
            raise _Pending({**question, "attempt": earlier.count(question)})
        exchange = unit.exchanges[unit.position]
        unit.position += 1
        return (exchange.text or "").strip() or NO_REPLY


class UnitKind(NamedTuple):
    """How the results of one of ms-vlmeval's functions are read.

    `usable` tells from a result and the last reply whether the judge decided.
    `assume` gives the result that stands for a right or a wrong answer, from what was
    judged, which of the two, and the result that is not usable. `unanswered`
    is the result where there is nothing to judge; None takes ms-vlmeval's own.
    """

    usable: Callable[[Any, str], bool]
    assume: Callable[[Any, bool, Any], object]
    unanswered: object = None


def _succeeded(result: Any, _reply: str) -> bool:
    return bool(result["log"].endswith("Succeed"))


def _assume_yes_no(inputs: Any, right: bool, _result: Any) -> object:
    answer = str(inputs[1]["answer"])
    return answer if right else {"yes": "No", "no": "Yes"}.get(answer.lower())


def _assume_formula(inputs: Any, right: bool, _result: Any) -> object:
    line = inputs[1]
    multiple = line.get("question_type") == "multi_choice"
    said = str(line["answer_option" if multiple else "answer"])
    return {"log": "not judged", "res": said if right else ""}


def _is_within(result: Any, scale: tuple[float, float]) -> bool:
    return all(scale[0] <= points <= scale[1] for points in result)


def read_points(cell: Any) -> int | None:
    """Return what a judge's number counts in MMDU (dataset/image_mt.py:81), if any."""
    try:
        return min(max(int(cell), 0), FULL_POINTS)
    except (TypeError, ValueError, OverflowError):
        return None


def _assume_conversation(_inputs: Any, right: bool, result: Any) -> object:
    """Return full points if there are none, or, as ms-vlmeval does, none at all."""
    if not right:
        return result
    dimensions = import_module("vlmeval.dataset.image_mt").MMDUDataset.DIMS
    table = pd.DataFrame(
        [
            [FULL_POINTS if read_points(cell) is None else cell for cell in row]
            for row in result["res"].reindex(columns=dimensions).to_numpy(object)
        ],
        columns=dimensions,
    )
    return {**result, "res": table}


_CHOICE = UnitKind(
    lambda result, reply: True,
    lambda _inputs, right, _result: {"hit": int(right), "log": "not judged"},
)
_FORMULA = UnitKind(_succeeded, _assume_formula)
# By the name of the function that judges one unit.
KINDS = {
    # Their reply is read in extract_answer_from_item, which `fix_choices` watches.
    "eval_vanilla": _CHOICE,
    "eval_circular_group": _CHOICE,
    "extract_option": UnitKind(
        lambda result, reply: True,
        lambda inputs, right, _result: inputs[1]["answer"] if right else "Z",
    ),
    # The prompt offers "Unknown" for what is neither yes nor no.
    "YOrN_auxeval": UnitKind(
        lambda result, reply: result != "Unknown" or "unknown" in reply.lower(),
        _assume_yes_no,
    ),
    "MATH_V_auxeval": _FORMULA,
    "MathVista_auxeval": _FORMULA,
    "MMVet_auxeval": UnitKind(
        lambda result, reply: (
            _succeeded(result, reply) and _is_within([result["score"]], (0, 1))
        ),
        lambda _inputs, right, _result: {"log": "not judged", "score": float(right)},
    ),
    "LLaVABench_atomeval": UnitKind(
        lambda result, reply: _is_within(result, LLAVA_POINTS),
        lambda _inputs, right, _result: [1.0, 10.0] if right else [10.0, 1.0],
        # No answer is worth no points; the worst that a judge gives is 1.
        unanswered=[10.0, 0.0],
    ),
    "mmdu_score": UnitKind(
        # Each turn of a conversation has points in all dimensions.
        lambda result, reply: set(result["log"].split("\n")) == {"Succeed"},
        _assume_conversation,
    ),
    "MMLongBench_auxeval": UnitKind(
        lambda result, reply: "Extracted answer:" in result["res"],
        lambda inputs, right, _result: {
            "log": "not judged",
            "res": "",
            "pred": str(inputs[1]["answer"]) if right else "",
        },
    ),
    # MMBench-Video calls the judge itself.
    "generate": UnitKind(
        lambda result, reply: result in RATINGS,
        lambda _inputs, right, _result: "3" if right else "0",
    ),
}
_ANY = UnitKind(lambda result, reply: True, lambda inputs, right, result: None)


def judge_units(
    job: Job,
    judge: Callable[..., object],
    inputs: Sequence[Inputs],
    keys: Iterable[Any],
) -> list[object]:
    """Judge all units, and give their results in the order of `inputs`.

    `keys` name them by the row's index. A unit that the judge did not decide counts
    as wrong, or as right in the best case. One judged before is not judged again.
    """
    kind = KINDS.get(getattr(judge, "__name__", ""), _ANY)
    named = dict(zip(map(str, keys), inputs, strict=True))
    for key in named.keys() - job.units.keys():
        job.units[key] = JudgedUnit(key)
    waiting = [key for key in named if not job.units[key].done]
    done = len(named) - len(waiting)
    while waiting:
        questions = {}
        for key in waiting:
            question = _run_until_asked(job, job.units[key], judge, kind, named[key])
            if question is None:
                done += 1
                job.on_progress(done, len(named))
            else:
                questions[key] = question
        waiting = list(questions)
        if questions:
            _ask(job, questions)
    return [
        kind.assume(each, job.best_case, job.units[key].result)
        if job.units[key].unusable
        else job.units[key].result
        for key, each in named.items()
    ]


def _run_until_asked(
    job: Job,
    unit: JudgedUnit,
    judge: Callable[..., object],
    kind: UnitKind,
    inputs: Inputs,
) -> Question | None:
    """Run a unit to its end, or to the question that it gives."""
    job.unit, unit.position, unit.unusable = unit, 0, False
    try:
        if isinstance(inputs, dict):
            unit.result = judge(**inputs)
        else:
            given = inputs if isinstance(inputs, tuple | list) else [inputs]
            unit.result = judge(*given)
    except _Pending as pending:
        return pending.question
    finally:
        job.unit = None
    unit.done = True
    if unit.exchanges and not kind.usable(unit.result, unit.last_reply):
        unit.unusable = True
    if unit.key in job.not_judged and kind.unanswered is not None:
        unit.result = kind.unanswered
    return None


def _ask(job: Job, questions: dict[str, Question]) -> None:
    assert job.ask is not None
    asked = [{**question, "unit": key} for key, question in questions.items()]
    replies = job.ask(asked)
    for (key, question), reply in zip(questions.items(), replies, strict=True):
        job.units[key].add(question, reply)
