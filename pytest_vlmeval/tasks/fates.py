"""What becomes of a field of a task file: an option, a refusal, or nothing, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from pytest_vlmeval.tasks.tree import kind_of


@dataclass(frozen=True, slots=True)
class Becomes:
    """The field is an option, by this name; `read` gives its text, None for nothing."""

    option: str
    read: Callable[[Any], str | None] = str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """The field is honoured together with others; `note` says how."""

    note: str


@dataclass(frozen=True, slots=True)
class Idle:
    """The field changes nothing here, and is named with the reason.

    It is not named where it has one of the values `unless`.
    """

    reason: str
    unless: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """The field would change results in a way that is not offered: an error.

    It is taken where it has one of the values `unless`, which change nothing.
    """

    reason: str
    unless: tuple[object, ...] = (False,)


Fate = Becomes | Read | Idle | Refused


def whether(value: object) -> str:
    """Give the text of a flag."""
    return "yes" if value else "no"


def unless(nothing: object) -> Callable[[object], str | None]:
    """Give what reads a value that means nothing where it is `nothing`."""
    return lambda value: None if value == nothing else str(value)


def _expect(accepts: str, *kinds: type) -> AfterValidator:
    def check(value: Any) -> Any:
        # A flag is a number to Python, and none to a reader of the file.
        flag = isinstance(value, bool) and bool not in kinds
        if value is None or (isinstance(value, kinds) and not flag):
            return value
        raise PydanticCustomError(
            "kind",
            "is {kind}, and takes {accepts}",
            {"kind": kind_of(value), "accepts": accepts},
        )

    return AfterValidator(check)


# What a field may hold; empty (null) always means that it is not there.
Text = Annotated[Any, _expect("a text (in quotes, if it looks like a number)", str)]
Number = Annotated[Any, _expect("a number", int, float, str)]
Flag = Annotated[Any, _expect("true or false", bool)]
Mapping = Annotated[Any, _expect("a mapping", dict)]
Several = Annotated[Any, _expect("a list", list, str)]
Anything = Any
