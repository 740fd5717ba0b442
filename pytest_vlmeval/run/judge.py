"""The judges of a run: asked like the model, never twice, and held against each other.

Every question and what came back lie in the store. A reply that is there is used
again; a failure is kept too, but asked again by the next command.

Each form is a schema: it writes the instruction how to reply, and reads the reply.
What does not fit it is unclear; nothing is guessed.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Generic, Literal, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import OutageError, Request, StoppedError
from pytest_vlmeval.models.open import create_judge_pool
from pytest_vlmeval.models.pool import Concurrency, Pool, StandingPool
from pytest_vlmeval.records import (
    UNANSWERED,
    Answer,
    JudgeQuestion,
    JudgeReply,
    PromptPart,
    Score,
    Verdict,
    VerdictState,
    is_right,
)
from pytest_vlmeval.run.engine import Asker, failed_answer
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store.asking import identify_question
from pytest_vlmeval.settings.groups import AS_ASKED, JudgeAsking, Prompting

if TYPE_CHECKING:
    from pytest_vlmeval.models.server import Servers
    from pytest_vlmeval.records import Turn
    from pytest_vlmeval.settings import Settings
    from pytest_vlmeval.settings.groups import JudgeEndpoint

# As many failures in a row, each after its retries, and nothing more is asked.
MOST_FAILURES = 10


class Judge:
    """Asks one judge: with retries, breaker and accounts as the model is asked.

    `make_pool` opens its endpoints, those that cannot be asked set aside. `asking` is
    what changes each question. What is asked goes to the account of the run and session
    `asked_in` ("": none).
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        store: Store,
        make_pool: Callable[[Collection[str]], Pool],
        *,
        asking: JudgeAsking = AS_ASKED,
        asked_in: tuple[str, str] = ("", ""),
    ) -> None:
        self.name = name
        self._settings = settings
        self._asking = asking
        self._prompting = Prompting(extra_body=asking.extra_body)
        self._store = store
        self._make_pool = make_pool
        self._asked_in = asked_in
        self._aside: Collection[str] = ()
        self._standing = StandingPool(lambda: make_pool(self._aside))

    def check(self) -> dict[str, str]:
        """Return why endpoints cannot be asked; `VlmEvalError` if none of them can."""

        async def check() -> dict[str, str]:
            pool = self._make_pool(())
            try:
                return await pool.check()
            finally:
                await pool.close()

        errors = asyncio.run(check())
        self._aside = tuple(errors)
        return errors

    def ask(
        self, questions: Sequence[JudgeQuestion], fingerprint: str = ""
    ) -> list[JudgeReply]:
        """Return a reply for each question, from the store where there is one.

        The same question is asked once, on account of the dataset that first does.
        Call it outside of an event loop.
        """
        questions = [self._asking.change(question) for question in questions]
        names = [identify_question(self.name, question) for question in questions]
        known = self._store.find_replies(names)
        missing = {
            name: question
            for name, question in zip(names, questions, strict=True)
            if name not in known
        }
        if missing:
            ask_all = partial(self._ask_all, missing, fingerprint)
            known |= self._standing.run(ask_all)
        return [known[name] for name in names]

    def halt(self) -> None:
        """Ask nothing more, as the session ends; from any thread."""
        self._standing.stop()

    def close(self) -> None:
        """Close its connections."""
        self._standing.close()

    async def _ask_all(
        self, questions: Mapping[str, JudgeQuestion], fingerprint: str, pool: Pool
    ) -> dict[str, JudgeReply]:
        doing = f"Asking the judge {self.name} about"
        asker = Asker(self._settings, pool, self.name, doing=doing)
        loop = asyncio.get_running_loop()
        failed_in_a_row = 0

        async def ask(name: str, question: JudgeQuestion) -> tuple[str, JudgeReply]:
            nonlocal failed_in_a_row
            try:
                async with pool.place():
                    request = Request(
                        turns=(_turn_of(question),),
                        media_folder=_folder_of(question),
                        system=question.system,
                        max_tokens=question.max_tokens,
                        temperature=question.temperature,
                        prompting=self._prompting,
                    )
                    answer = await asker.ask(fingerprint, name, request, placed=True)
                    unanswered = answer.state in UNANSWERED
                    failed_in_a_row = failed_in_a_row + 1 if unanswered else 0
                    if failed_in_a_row == MOST_FAILURES:
                        pool.break_off(
                            f"not asked, as {MOST_FAILURES} in a row failed: "
                            f"{answer.error}"
                        )
                    return name, await keep(question, answer)
            except StoppedError as error:
                return name, JudgeReply(number=0, text=None, error=str(error))
            except OutageError as error:
                failed = failed_answer(fingerprint, name, str(error))
                return name, await keep(question, failed)

        async def keep(question: JudgeQuestion, answer: Answer) -> JudgeReply:
            record = partial(self._store.record_reply, self.name, question, answer)
            write = partial(record, *self._asked_in)
            return await loop.run_in_executor(executor, write)

        # However long the store takes, the requests in flight go on.
        with ThreadPoolExecutor(1, "vlmeval-exchanges") as executor:
            tasks = [
                asyncio.create_task(ask(name, question))
                for name, question in questions.items()
            ]
            try:
                found = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                self._store.record_failures(*self._asked_in, asker.take_failures())
        return dict(found)


def _turn_of(question: JudgeQuestion) -> Turn:
    """Return the parts of a question, its text before its images or behind them."""
    text = PromptPart(kind="text", text=question.prompt)
    images = tuple(
        PromptPart(
            kind="image",
            media=image.name,
            media_type=mimetypes.guess_type(image.name)[0] or "",
        )
        for image in question.images
    )
    return (*images, text) if question.first else (text, *images)


def _folder_of(question: JudgeQuestion) -> Path:
    return question.images[0].parent if question.images else Path()


def ask_majority(
    judges: Mapping[str, Judge],
    chosen: Mapping[str, str | None],
    questions: Sequence[JudgeQuestion],
    fingerprint: str = "",
) -> list[JudgeReply]:
    """Reply as the judge whose verdict on a unit counts, or not at all.

    All of them were asked before; nothing is asked that was not.
    """
    replies = {}
    for name, judge in judges.items():
        theirs = [each for each in questions if chosen.get(each.unit) == name]
        replies[name] = iter(judge.ask(theirs, fingerprint))
    return [
        JudgeReply(number=0, text=None, error="no majority")
        if name is None
        else next(replies[name])
        for name in (chosen.get(question.unit) for question in questions)
    ]


def create_judges(
    settings: Settings,
    store: Store,
    concurrency: Concurrency,
    servers: Servers,
    asked_in: tuple[str, str] = ("", ""),
) -> dict[str, Judge]:
    """Make the judges of a run by their names; nothing is connected yet.

    `asked_in` is the run and the session that pay for what is asked.
    """

    def make_pool(endpoint: JudgeEndpoint, aside: Collection[str]) -> Pool:
        placed = replace(
            endpoint, api_bases=servers.judge_addresses(endpoint.api_bases)
        )
        return create_judge_pool(settings, placed, concurrency, aside, servers.learned)

    return {
        endpoint.label: Judge(
            endpoint.label,
            settings,
            store,
            partial(make_pool, endpoint),
            asking=endpoint.asking,
            asked_in=asked_in,
        )
        for endpoint in settings.judges
    }


T = TypeVar("T")

NONE_OF_THEM = "none"
SYSTEM = (
    "You judge answers to questions. Go by what is written below only, and follow the "
    "format of the reply to the letter."
)
MAX_TOKENS = 512
_FENCED = re.compile(r"```(?:json)?[^\S\n]*\n(.*)\n[^\S\n]*```", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement(Generic[T]):
    """What a judge made of a question; `value` is None unless it was "judged".

    `state` is otherwise "judge_failed", as no reply came, or "judge_unclear", as the
    reply does not have the form, or several judges have no majority. `reply` is the
    text as it came, `error` says what is wrong, and `exchanges` are the numbers in
    the store. Of several judges `each` has what each of them said, by name.
    """

    value: T | None
    state: VerdictState
    reply: str = ""
    error: str = ""
    exchanges: tuple[int, ...] = ()
    each: Mapping[str, Judgement[T]] | None = None


class Form(BaseModel):
    """The reply to a question; what it holds beyond the fields does not matter."""

    model_config = ConfigDict(strict=True)


def write_instruction(form: type[Form]) -> str:
    """Describe how to reply, from the schema that will read it."""
    schema = form.model_json_schema()
    schema.pop("title", None)
    schema.pop("description", None)
    return (
        "Reply with one JSON object of this schema and nothing else:\n"
        f"{json.dumps(schema, ensure_ascii=False)}"
    )


def read_reply(form: type[Form], text: str) -> Form:
    """Read a JSON object, bare or in a code fence; ValueError for anything else."""
    fenced = _FENCED.fullmatch(text.strip())
    try:
        return form.model_validate_json(fenced[1] if fenced else text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(
            f"{place}: {first['msg']}" if place else first["msg"]
        ) from None


class AskedJudge(Protocol):
    """A judge as far as questions in a form need it."""

    def ask(self, questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        """Return a reply for each question."""


class JudgeQuestions:
    """Questions of a test, or of a user's own scoring, to a judge, or to several.

    Of several judges that decided the majority counts, on a scale the middle one.
    """

    def __init__(self, judges: Mapping[str, AskedJudge]) -> None:
        self._asked = judges

    def choice(
        self, question: str, answer: str, options: Sequence[str]
    ) -> Judgement[str]:
        """Ask which option an answer means: one of `options`, or "none"."""
        if not 2 <= len(set(options)) == len(options) <= len(ascii_uppercase):
            raise VlmEvalError(
                f"vlm_judge.choice takes 2 to {len(ascii_uppercase)} different "
                f"options; given: {list(options)!r}."
            )
        named = dict(zip(ascii_uppercase, options, strict=False))
        labels = (*named, NONE_OF_THEM)
        form = _form("choice", Literal[labels], "the option that the answer means")
        listed = "\n".join(f"{label}. {text}" for label, text in named.items())
        prompt = (
            "Which of the options does the answer mean? If it means none of them, or "
            f'more than one, choose "{NONE_OF_THEM}".\n\nQuestion: {question}\n'
            f"Options:\n{listed}\nAnswer: {answer}"
        )
        return self._ask(
            prompt, form, lambda said: named.get(said, NONE_OF_THEM), _most_common
        )

    def yes_no(self, question: str, answer: str) -> Judgement[bool]:
        """Ask a question about an answer that is true or not: "Is it polite?"."""
        form = _form("verdict", Literal["yes", "no"], "the reply to the question")
        prompt = f"Question about the answer: {question}\n\nAnswer: {answer}"
        return self._ask(prompt, form, lambda said: said == "yes", _most_common)

    def score(
        self, question: str, answer: str, *, scale: tuple[int, int], rubric: str
    ) -> Judgement[int]:
        """Ask for a whole number on a scale, both ends included, by a rubric."""
        low, high = scale
        if low >= high:
            raise VlmEvalError(
                "vlm_judge.score takes a scale (low, high) with low below high; "
                f"given: {scale!r}."
            )
        field = Field(ge=low, le=high, description="the score by the rubric")
        form = create_model("Form", __base__=Form, score=(int, field))
        prompt = (
            f"Score the answer from {low} to {high}.\n\nRubric: {rubric}\n\n"
            f"Question: {question}\nAnswer: {answer}"
        )
        return self._ask(prompt, form, int, _middle)

    def _ask(
        self,
        prompt: str,
        form: type[Form],
        convert: Callable[[str], T],
        unite: Callable[[Sequence[T]], T | None],
    ) -> Judgement[T]:
        question = JudgeQuestion(
            prompt=f"{prompt}\n\n{write_instruction(form)}",
            system=SYSTEM,
            max_tokens=MAX_TOKENS,
        )
        each = {
            name: _judgement(judge.ask([question])[0], form, convert)
            for name, judge in self._asked.items()
        }
        if len(each) == 1:
            return next(iter(each.values()))
        values = [said.value for said in each.values() if said.value is not None]
        value = unite(values) if values else None
        failed = any(said.state == "judge_failed" for said in each.values())
        state: VerdictState = "judge_failed" if failed else "judge_unclear"
        return Judgement(
            value=value,
            state=state if value is None else "judged",
            error="the judges have no majority" if value is None else "",
            exchanges=tuple(n for said in each.values() for n in said.exchanges),
            each=each,
        )


class JudgePanel(JudgeQuestions):
    """The fixture `vlm_judge`: asks the run's judge, or all of several.

    Replies are kept in the store, and the same question is not asked twice.
    """

    def __init__(self, judges: Mapping[str, Judge]) -> None:
        super().__init__(judges)
        self._judges = judges

    def check(self) -> None:
        """Raise `VlmEvalError` if one of the judges cannot be asked."""
        for judge in self._judges.values():
            judge.check()

    def halt(self) -> None:
        """Ask nothing more, as the session ends; from any thread."""
        for judge in self._judges.values():
            judge.halt()

    def close(self) -> None:
        """Close the connections of all judges."""
        for judge in self._judges.values():
            judge.close()


def _form(name: str, kind: object, description: str) -> type[Form]:
    return create_model(  # type: ignore[no-any-return, call-overload]
        "Form", __base__=Form, **{name: (kind, Field(description=description))}
    )


def _judgement(
    reply: JudgeReply, form: type[Form], convert: Callable[[str], T]
) -> Judgement[T]:
    value: T | None = None
    state: VerdictState = "judged"
    error = reply.error
    if reply.text is None:
        state = "judge_failed"
    else:
        try:
            (said,) = read_reply(form, reply.text).model_dump().values()
            value = convert(said)
        except ValueError as why:
            state, error = "judge_unclear", str(why)
    return Judgement(
        value=value,
        state=state,
        reply=reply.text or "",
        error=error,
        exchanges=(reply.number,),
    )


def _most_common(values: Sequence[T]) -> T | None:
    first, *others = Counter(values).most_common(2)
    return None if others and others[0][1] == first[1] else first[0]


def _middle(values: Sequence[int]) -> int | None:
    return sorted(values)[(len(values) - 1) // 2]


class Agreement(NamedTuple):
    """How far two judges agree on `samples` that both of them judged.

    `kappa` is None where both always say the same, right or wrong.
    """

    first: str
    second: str
    samples: int
    agreed: int
    kappa: float | None


def compare_judges(scores: Sequence[Score]) -> list[Agreement]:
    """Compare each two judges by their verdicts, right or wrong.

    What matched without a judge says nothing of them; rotations of one question,
    which have one verdict, count once.
    """
    judged = {
        score.judge: {
            verdict.index: verdict
            for verdict in score.verdicts
            if verdict.state == "judged"
        }
        for score in scores
    }
    found = []
    for first, second in combinations(judged, 2):
        pairs = {
            verdict.exchanges: (
                is_right(verdict.value),
                is_right(judged[second][index].value),
            )
            for index, verdict in judged[first].items()
            if index in judged[second]
        }
        found.append(
            Agreement(
                first=first,
                second=second,
                samples=len(pairs),
                agreed=sum(one == other for one, other in pairs.values()),
                kappa=cohen_kappa(list(pairs.values())),
            )
        )
    return found


def describe_agreement(agreement: Agreement) -> str:
    """Describe how far two judges agree."""
    counts = f"{agreement.agreed} of {agreement.samples} judged alike"
    if agreement.kappa is None:
        return f"{counts}, Cohen's kappa undefined"
    return f"{counts}, Cohen's kappa {agreement.kappa:.2f}"


def cohen_kappa(pairs: Sequence[tuple[bool, bool]]) -> float | None:
    """Return the agreement beyond chance of two raters, 1 at most.

    J. Cohen, A Coefficient of Agreement for Nominal Scales, 1960, doi
    10.1177/001316446002000104: (p_o - p_e) / (1 - p_e). None where p_e is 1.
    """
    if not pairs:
        return None
    count = len(pairs)
    observed = sum(one == other for one, other in pairs) / count
    firsts = sum(one for one, _ in pairs) / count
    seconds = sum(other for _, other in pairs) / count
    expected = firsts * seconds + (1 - firsts) * (1 - seconds)
    return None if expected == 1 else (observed - expected) / (1 - expected)


def choose_by_majority(scores: Sequence[Score]) -> Mapping[str, str | None]:
    """Name for each sample the judge whose verdict counts; None without a majority.

    Of the judges that decided, more say right or more say wrong; of these the one
    with the middle value counts, so that a graded verdict is one that was given.
    """
    by_index: dict[str, list[tuple[float, str]]] = {}
    for score in scores:
        for verdict in score.verdicts:
            given = by_index.setdefault(verdict.index, [])
            if verdict.value is not None:
                given.append((verdict.value, score.judge))
    return {index: _middle_of_most(given) for index, given in by_index.items()}


def _middle_of_most(given: Sequence[tuple[float, str]]) -> str | None:
    right = sorted(each for each in given if is_right(each[0]))
    wrong = sorted(each for each in given if not is_right(each[0]))
    if len(right) == len(wrong):
        return None
    most = max(right, wrong, key=len)
    return most[(len(most) - 1) // 2][1]


def unite(
    score: Score, scores: Sequence[Score], chosen: Mapping[str, str | None]
) -> Score:
    """Return the majority's score with each verdict linked to what all judges said."""
    by_judge = [{v.index: v for v in each.verdicts} for each in scores]
    verdicts = []
    for verdict in score.verdicts:
        theirs = [each[verdict.index] for each in by_judge]
        if all(each.state == "matched" for each in theirs):
            verdicts.append(verdict)
            continue
        exchanges = tuple(number for each in theirs for number in each.exchanges)
        if chosen[verdict.index] is None:
            said = zip((each.judge for each in scores), theirs, strict=True)
            words = ", ".join(f"{judge}: {_word(each)}" for judge, each in said)
            failed = any(each.state == "judge_failed" for each in theirs)
            verdict = replace(
                verdict,
                reason=f"the judges have no majority ({words})",
                state="judge_failed" if failed else "judge_unclear",
            )
        verdicts.append(replace(verdict, exchanges=exchanges))
    return replace(score, verdicts=tuple(verdicts))


def _word(verdict: Verdict) -> str:
    if verdict.value is None:
        return verdict.reason
    return "right" if is_right(verdict.value) else "wrong"
