"""What a test of one's own may ask a judge, and how its reply is read.

Each form is a schema: it writes the instruction how to reply, and reads the reply.
What does not fit it is unclear; nothing is guessed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.judge import Judge
from pytest_vlmeval.records import JudgeQuestion, JudgeReply, VerdictState

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
    """Say how to reply, from the schema that will read it."""
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


class JudgePanel:
    """The fixture `vlm_judge`: asks the run's judge, or all of several.

    Of several judges that decided the majority counts, on a scale the middle one.
    Replies are kept in the store, and the same question is not asked twice.
    """

    def __init__(self, judges: Mapping[str, Judge]) -> None:
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
            for name, judge in self._judges.items()
        }
        if len(each) == 1:
            return next(iter(each.values()))
        return _of_several(each, unite)


def _form(name: str, kind: object, description: str) -> type[Form]:
    return create_model(  # type: ignore[no-any-return, call-overload]
        "Form", __base__=Form, **{name: (kind, Field(description=description))}
    )


def _judgement(
    reply: JudgeReply, form: type[Form], convert: Callable[[str], T]
) -> Judgement[T]:
    numbers = (reply.number,)
    if reply.text is None:
        return Judgement(
            value=None, state="judge_failed", error=reply.error, exchanges=numbers
        )
    try:
        read = read_reply(form, reply.text)
    except ValueError as error:
        return Judgement(
            value=None,
            state="judge_unclear",
            reply=reply.text,
            error=str(error),
            exchanges=numbers,
        )
    (said,) = read.model_dump().values()
    return Judgement(
        value=convert(said), state="judged", reply=reply.text, exchanges=numbers
    )


def _of_several(
    each: Mapping[str, Judgement[T]], unite: Callable[[Sequence[T]], T | None]
) -> Judgement[T]:
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


def _most_common(values: Sequence[T]) -> T | None:
    first, *others = Counter(values).most_common(2)
    return None if others and others[0][1] == first[1] else first[0]


def _middle(values: Sequence[int]) -> int | None:
    return sorted(values)[(len(values) - 1) // 2]
