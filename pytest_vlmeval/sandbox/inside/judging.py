"""The judge inside the sandbox: what ms-vlmeval asks it, and what became of each unit.

A unit is what ms-vlmeval judges at once: a row, or all rotations of a question. It
runs until it needs a reply that is not there; then the open questions of all units
go out together, and the units that waited begin anew with what has come. There are
no threads, because what bounds a comparison in time is an alarm (`fixes.py`), and
the same replies lead to the same results in whatever order they come.
"""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import sys
from concurrent.futures import Future
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.job import (
    NO_REPLY,
    Exchange,
    JudgedUnit,
    current_job,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

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


class Judge:
    """Stands in for ms-vlmeval's judges: its questions are those of the current unit.

    Where a run has no judge it never has a reply, and says so at once. ms-vlmeval then
    falls back on what exact matching found, without a network call and, as its own
    retries do not wait, without delay.
    """

    fail_msg = NO_REPLY

    def __init__(self, model: object = None, **settings: Any) -> None:
        self._job = current_job()
        # Some name their files after it (dataset/charxiv.py:205).
        self.model = str(model or self._job.method)
        self._settings = {
            "system": settings.get("system_prompt"),
            **{name: settings.get(name, DEFAULTS[name]) for name in DEFAULTS},
        }
        if self._job.judge_tokens is not None:
            self._settings["max_tokens"] = self._job.judge_tokens

    def working(self) -> bool:
        """Claim to work; some datasets refuse to score otherwise."""
        return True

    def generate(self, message: object = None, *_given: object, **named: Any) -> str:
        """Return the reply to a prompt; NO_REPLY where it is empty or there is none."""
        job = self._job
        if job.ask is None:
            return NO_REPLY
        shown, text = _parts_of(named.pop("prompt", message))
        said = {name: named.get(name, self._settings[name]) for name in DEFAULTS}
        question: Question = {**self._settings, **said, "prompt": text, **shown}
        unit = job.unit
        if unit is None:
            return _ask_outside(job, question)
        # What failed was tried again as often as it should be.
        if unit.failed or unit.key in job.not_judged:
            return NO_REPLY
        if unit.position == len(unit.exchanges):
            earlier = [each.question for each in unit.exchanges]
            question = {**question, "attempt": earlier.count(question)}
            unit.pending = unit.pending or question
            raise _Pending
        exchange = unit.exchanges[unit.position]
        unit.position += 1
        return (exchange.text or "").strip() or NO_REPLY

    def generate_inner(
        self, inputs: object, **named: Any
    ) -> tuple[int, str, dict[str, object]]:
        """Return the reply as ms-vlmeval's clients do: a code, 0 if it is one."""
        text = self.generate(inputs, **named)
        return (-1 if text == NO_REPLY else 0), text, {}


def _parts_of(message: object) -> tuple[dict[str, str], str]:
    """Return the text of a prompt, and whether its row's images are `shown` with it.

    They come before the text or after it; ms-vlmeval's clients send parts one by one.
    """
    parts = message if isinstance(message, list) else [message]
    texts: list[str] = []
    shown: dict[str, str] = {}
    for part in parts:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if isinstance(part, dict) and "content" in part:  # with a role
            inner, text = _parts_of(part["content"])
            shown = {**inner, **shown}
            texts.append(text)
        elif kind == "image":
            shown.setdefault("shown", "after" if texts else "before")
        elif kind == "text":
            texts.append(str(part["value"] if isinstance(part, dict) else part))
        else:
            raise VlmEvalError(
                f"ms-vlmeval shows its judge a part of the type {kind}, which is not "
                "supported. --vlm-mode=infer collects its answers."
            )
    return shown, "\n".join(texts)


# Runs of an evaluation in which all questions without a reply go out together; in
# further ones each is asked as it comes up, as what it is depends on the one before.
RUNS_AT_ONCE = 4


def _ask_outside(job: Job, question: Question) -> str:
    """Return the reply to what is asked outside of a unit.

    Where there is none yet the run goes on as without one, and begins anew once what
    it asked has replies; of questions that only repeat one that is open none is kept.
    """
    key, loose = _row_asked_about(job), job.loose
    if key in job.not_judged:
        return NO_REPLY
    name = json.dumps(question, sort_keys=True, default=str)
    said, used = loose.said.setdefault(name, []), loose.used.get(name, 0)
    if used == len(said):
        if loose.runs <= RUNS_AT_ONCE:
            prompt = question["prompt"]
            asked = {each["prompt"] for _, each in loose.open.values()}
            if prompt not in asked and NO_REPLY not in prompt:
                loose.open[name] = key, question
            return NO_REPLY
        _ask_loose(job, {name: (key, question)})
    loose.used[name] = used + 1
    return (said[used].text or "").strip() or NO_REPLY


def ask_open_questions(job: Job) -> bool:
    """Ask what the last run left open; return whether there was anything."""
    questions = dict(job.loose.open)
    if questions:
        _ask_loose(job, questions)
    return bool(questions)


def _ask_loose(job: Job, questions: dict[str, tuple[str, Question]]) -> None:
    assert job.ask is not None
    asked = [
        {**question, "attempt": len(job.loose.said[name]), "unit": key}
        for name, (key, question) in questions.items()
    ]
    replies = job.ask(asked)
    for (name, (key, question)), reply in zip(questions.items(), replies, strict=True):
        exchange = Exchange(question=question, **reply)
        job.loose.said[name].append(exchange)
        if key in job.asked:
            unit = job.loose.units.setdefault(key, JudgedUnit(key))
            unit.exchanges.append(exchange)
            unit.unusable = unit.failed


def _row_asked_about(job: Job) -> str:
    """Return the index of the row that the callers are at, "" if there is none."""
    frame = sys._getframe(1)
    known = set(job.asked)
    while frame is not None and frame.f_code.co_name != "evaluate_general":
        if "/vlmeval/" in frame.f_code.co_filename:
            for value in list(frame.f_locals.values()):
                if (index := _index_of(value)) in known:
                    return index
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def _index_of(value: object) -> str:
    """Return the index of a row, "" for what is none."""
    if isinstance(value, pd.Series | dict) and "index" in value:
        return str(value["index"])
    return ""


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
# Of another class's function: what it makes of no reply stays.
_ANY = UnitKind(
    lambda result, reply: bool(reply.strip()), lambda inputs, right, result: result
)
# Those of KINDS that only mean in their own class what the row of KINDS says.
_OWN_ONLY = {"generate", "extract_option"}


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
    name = getattr(judge, "__name__", "")
    kind = KINDS.get(name, _ANY)
    if job.is_general:
        kind = _ANY if name in _OWN_ONLY else kind
        keys = _distinct_keys(job, inputs, keys)
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


def _distinct_keys(
    job: Job, inputs: Sequence[Inputs], keys: Iterable[Any]
) -> list[str]:
    """Name units by the rows that they are about, each by a name of its own.

    A class may judge in several stages, and several things of a row.
    """
    known = set(job.asked)
    given = [str(key) for key in keys]
    if len(given) != len(inputs):
        given = [""] * len(inputs)
    found: dict[str, None] = {}
    for number, (key, each) in enumerate(zip(given, inputs, strict=True)):
        if key not in known:
            values = each.values() if isinstance(each, dict) else [each]
            key = _row_of([each, *values]) or key
        name = key or str(number)
        if job.stages or name in found or name not in known:
            name = f"{name}/{job.stages}.{number}"
        found[name] = None
    job.stages += 1
    return list(found)


@contextmanager
def in_units() -> Iterator[None]:
    """Let what classes give to threads and processes be judged in units, in order."""
    upstream = {(owner, name): getattr(owner, name) for owner, name in _POOLS}
    # What modules imported by name; others get them where they import them.
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("vlmeval."):
            for place, original in upstream.items():
                for name, value in list(vars(module).items()):
                    if value is original:
                        setattr(module, name, _POOLS[place])
    for (owner, name), stand_in in _POOLS.items():
        setattr(owner, name, stand_in)
    try:
        yield
    finally:
        for (owner, name), original in upstream.items():
            setattr(owner, name, original)


class _Task(NamedTuple):
    """A call that a class wants to be made elsewhere, and who waits for its result."""

    future: Future[Any]
    function: Callable[..., object]
    given: tuple[Any, ...]
    named: dict[str, Any]

    def run(self) -> tuple[object, Exception | None]:
        """Return the result, or what was raised."""
        try:
            return self.function(*self.given, **self.named), None
        except Exception as error:
            return None, error


class _Later(Future[Any]):
    """A result that is there once it is wanted."""

    def __init__(self, pool: _Pool) -> None:
        super().__init__()
        self._pool = pool

    def result(self, timeout: float | None = None) -> Any:
        self._pool.run()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._pool.run()
        return super().exception(timeout)

    get = result
    wait = result


class _Pool:
    """Stands in for pools of threads and processes: each call is a unit."""

    def __init__(self, *_given: object, **_settings: object) -> None:
        self._waiting: list[_Task] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.run()

    def run(self) -> None:
        """Make the calls that wait."""
        tasks, self._waiting = self._waiting, []
        if not tasks:
            return
        job = current_job()
        if job.unit is not None:  # within one already
            found: list[Any] = [task.run() for task in tasks]
        else:
            keys = [_row_of((*task.given, *task.named.values())) for task in tasks]
            found = judge_units(job, _Task.run, [(task,) for task in tasks], keys)
        for task, (result, error) in zip(tasks, found, strict=True):
            if error is None:
                task.future.set_result(result)
            else:
                task.future.set_exception(error)

    def submit(
        self, fn: Callable[..., object], /, *given: Any, **named: Any
    ) -> Future[Any]:
        """Take a call."""
        future = _Later(self)
        self._waiting.append(_Task(future, fn, given, named))
        return future

    def apply_async(
        self,
        func: Callable[..., object],
        args: Sequence[Any] = (),
        kwds: dict[str, Any] | None = None,
        **_options: object,
    ) -> Future[Any]:
        """Take a call."""
        return self.submit(func, *args, **(kwds or {}))

    def map(
        self, fn: Callable[..., object], *given: Iterable[Any], **_options: object
    ) -> list[Any]:
        """Make a call for each of what is given, side by side."""
        columns = [each for each in given if not isinstance(each, int)]
        return self.starmap(fn, zip(*columns, strict=False))

    imap = imap_unordered = map

    def starmap(
        self, fn: Callable[..., object], given: Iterable[Any], *_options: object
    ) -> list[Any]:
        """Make a call with each tuple of what is given."""
        futures = [self.submit(fn, *each) for each in given]
        return [future.result() for future in futures]

    def close(self, *_given: object, **_options: object) -> None:
        """End it once all calls are made."""
        self.run()

    shutdown = join = terminate = close


def _row_of(values: Iterable[Any]) -> str:
    """Return the index of the first row among values, or in tuples of them."""
    for value in values:
        inner = _row_of(value) if isinstance(value, tuple | list) else ""
        if index := _index_of(value) or inner:
            return index
    return ""


def _in_order(fs: Iterable[Future[Any]], timeout: float | None = None) -> Any:
    for future in list(fs):
        future.exception(timeout)
        yield future


_POOLS: dict[tuple[Any, str], Any] = {
    (concurrent.futures, "ThreadPoolExecutor"): _Pool,
    (concurrent.futures, "ProcessPoolExecutor"): _Pool,
    (concurrent.futures, "as_completed"): _in_order,
    (multiprocessing, "Pool"): _Pool,
}


def _run_until_asked(
    job: Job,
    unit: JudgedUnit,
    judge: Callable[..., object],
    kind: UnitKind,
    inputs: Inputs,
) -> Question | None:
    """Run a unit to its end, or to the question that it gives."""
    job.unit, unit.position, unit.unusable = unit, 0, False
    unit.pending = None
    try:
        if isinstance(inputs, dict):
            unit.result = judge(**inputs)
        else:
            given = inputs if isinstance(inputs, tuple | list) else [inputs]
            unit.result = judge(*given)
    except _Pending:
        return unit.pending
    finally:
        job.unit = None
    # A bare `except:` lets it go on (dataset/utils/mme_reasoning.py:1178).
    if unit.pending is not None:
        return unit.pending
    unit.done = True
    if unit.exchanges and not kind.usable(unit.result, unit.last_reply):
        unit.unusable = True
    if unit.key in job.not_judged and kind.unanswered is not None:
        unit.result = kind.unanswered
    return None


def _ask(job: Job, questions: dict[str, Question]) -> None:
    assert job.ask is not None
    # A unit of a class that nobody looked at may be one of several of a row.
    asked = [
        {**question, "unit": key if key in job.asked else key.rpartition("/")[0]}
        if job.is_general
        else {**question, "unit": key}
        for key, question in questions.items()
    ]
    replies = job.ask(asked)
    for (key, question), reply in zip(questions.items(), replies, strict=True):
        job.units[key].add(question, reply)
