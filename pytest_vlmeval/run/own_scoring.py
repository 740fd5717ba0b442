"""Functions of the user's own that score or ask, and which datasets they score."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_vlmeval.datasets.own_questions import OwnQuestions
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.run.code_digest import digest_code, find_code


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnScoring:
    """Functions of the user's own that score: `score(sample, answer)` and `aggregate`.

    `name` is that of `score`, as `TestMine.score`. `digest` names their code: what
    they call in the user's modules is part of it. `wants_judge` says that `score` takes
    the judge as its third argument, `wants_samples` that `aggregate` takes the samples
    as its second.
    """

    name: str
    score: Callable[..., object]
    aggregate: Callable[..., object] | None
    digest: str
    wants_judge: bool
    wants_samples: bool

    @property
    def label(self) -> str:
        """What tells its verdicts from those of other functions, and of older code."""
        return f"{self.name} {self.digest}"


def make_scoring(
    owner: str,
    score: object,
    aggregate: object = None,
    *,
    revision: str = "",
) -> OwnScoring:
    """Return the scoring by functions; `VlmEvalError` for some that cannot be called.

    `owner` is the class or the dataset that has them, "" for a function alone, and
    `revision` what the user says that they are, beside their code.
    """
    name = f"{owner}.score" if owner else getattr(score, "__qualname__", "score")
    if score is None and aggregate is not None:
        raise VlmEvalError(
            f"{owner} has aggregate and no score: aggregate makes metrics of the "
            "verdicts that score gives. Add def score(self, sample, answer)."
        )
    if not callable(score) or not (aggregate is None or callable(aggregate)):
        which = name if not callable(score) else f"{owner}.aggregate"
        raise VlmEvalError(
            f"{which} is a {type(score if which == name else aggregate).__name__} and "
            "cannot be called. It has to be a function."
        )
    place = place_of(score)
    for function in filter(None, (score, aggregate)):
        if inspect.iscoroutinefunction(function):
            raise VlmEvalError(
                f"{name} ({place}) is asynchronous. Scoring calls plain functions: "
                "write def without async."
            )
    taken = _positional(score)
    if taken is None or not 2 <= taken <= 3:
        raise VlmEvalError(
            f"{name} ({place}) has to take (sample, answer), or (sample, answer, "
            f"judge); it takes {inspect.signature(score)}."
        )
    gathered = 1 if aggregate is None else _positional(aggregate)
    if gathered is None or not 1 <= gathered <= 2:
        assert callable(aggregate)
        raise VlmEvalError(
            f"{owner}.aggregate ({place_of(aggregate)}) has to take (verdicts), or "
            f"(verdicts, samples); it takes {inspect.signature(aggregate)}."
        )
    if not isinstance(revision, str):
        raise VlmEvalError(
            f"{owner}.scoring is a {type(revision).__name__}. It has to be a text, "
            'which names the state of the scoring: scoring = "2".'
        )
    return OwnScoring(
        name=name,
        score=score,
        aggregate=aggregate,
        digest=digest_code([score, aggregate], revision),
        wants_judge=taken == 3,
        wants_samples=gathered == 2,
    )


def make_questions(owner: str, make: object) -> OwnQuestions:
    """Return what makes the questions of rows; `VlmEvalError` if it cannot be called.

    `owner` is the class that has the function.
    """
    name = f"{owner}.questions"
    if not callable(make):
        raise VlmEvalError(
            f"{name} is a {type(make).__name__} and cannot be called. It has to be a "
            "function."
        )
    place = place_of(make)
    if inspect.iscoroutinefunction(make) or inspect.isasyncgenfunction(make):
        raise VlmEvalError(
            f"{name} ({place}) is asynchronous. Preparing calls plain functions: write "
            "def without async."
        )
    if _positional(make) != 1:
        raise VlmEvalError(
            f"{name} ({place}) has to take (row); it takes {inspect.signature(make)}."
        )
    return OwnQuestions(
        name=name, make=make, place=place, digest=digest_code([make], "")
    )


def _positional(function: Callable[..., object]) -> int | None:
    """Return how many positional arguments a function needs; None if others."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    needed = [each for each in found if each.default is each.empty]
    if any(each.kind is each.VAR_POSITIONAL for each in found):
        return None
    if any(each.kind is each.KEYWORD_ONLY for each in needed):
        return None
    return sum(each.kind is not each.VAR_KEYWORD for each in needed)


def place_of(function: object) -> str:
    """Return the file and the line where a function begins."""
    code = find_code(function)
    if code is None:
        return "no file"
    return show_place(code.co_filename, code.co_firstlineno)


def show_place(file: str, line: int) -> str:
    """Return a place in a file, from the working directory if it is in there."""
    path = Path(file)
    here = Path.cwd()
    shown = path.relative_to(here) if path.is_relative_to(here) else path
    return f"{shown}:{line}"


class Scorings:
    """Which datasets of a session a function of the user's own scores.

    Tests declare theirs; for others it is what the dataset itself brings, which
    `bundled` returns.
    """

    def __init__(self, bundled: Callable[[str], OwnScoring | None]) -> None:
        self._bundled = bundled
        # Of each dataset who scores it, and by which classes it is declared.
        self._declared: dict[str, dict[str, tuple[OwnScoring | None, str]]] = {}
        self._made: dict[object, OwnScoring | None] = {}
        self._found: dict[str, OwnScoring | None] = {}
        self._refusals: dict[str, None] = {}

    def declare(
        self,
        dataset: str,
        who: str,
        source: object,
        make: Callable[[], OwnScoring | None],
    ) -> None:
        """Take note of what a class, `who`, scores a dataset by; None for nothing.

        It is made once of each `source`, as the digest of its code takes a while.
        """
        if source not in self._made:
            try:
                self._made[source] = make()
            except VlmEvalError as error:
                self._refusals[str(error)] = None
                return
        own = self._made[source]
        known = self._declared.setdefault(dataset, {})
        known.setdefault("" if own is None else own.label, (own, who))

    def check(self, datasets: Iterable[str]) -> None:
        """Raise `VlmEvalError` for functions that cannot score, or of two classes."""
        for dataset in datasets:
            self.of(dataset)
        for dataset, known in self._declared.items():
            if len(known) > 1:
                told = [
                    f"{who} by {'the usual scoring' if own is None else own.name}"
                    for own, who in known.values()
                ]
                self._refusals[
                    f"{dataset} would be scored in {len(known)} ways in one session: "
                    f"{', '.join(told)}. A dataset has one score. Select one of the "
                    "classes (-k, or the path of its file), or give one of them a copy "
                    "of the table under another name. Nothing was asked."
                ] = None
        if self._refusals:
            raise VlmEvalError("\n".join(self._refusals))

    def of(self, dataset: str) -> OwnScoring | None:
        """Return what scores a dataset; None where ms-vlmeval does."""
        for own, _ in self._declared.get(dataset, {}).values():
            if own is not None:
                return own
        if dataset not in self._found:
            self._found[dataset] = None
            try:
                self._found[dataset] = self._bundled(dataset)
            except VlmEvalError as error:
                self._refusals[str(error)] = None
        return self._found[dataset]
