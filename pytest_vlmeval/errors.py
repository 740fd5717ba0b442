"""The one exception type for what a user can cause and fix, and the log of others."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TEXT_LIMIT = 300  # characters of another library's exception in a message
WORD_BEGIN, WORD_END = 200, 100
_LONG_WORD = re.compile(r"\S{600,}")
# Joins letters and emoji, and does nothing else.
_JOINERS = {"\n", "\t", "\u200c", "\u200d"}


def printable(text: str) -> str:
    """Return a text with escapes for what a terminal, or a reader's eye, would obey.

    Models, judges, servers and datasets may hold control characters, marks that turn
    the direction of writing, and halves of characters that no file can. Blanks of any
    script stay: names have them.
    """
    if text.isprintable():
        return text
    return "".join(
        sign
        if sign.isprintable() or sign in _JOINERS or unicodedata.category(sign) == "Zs"
        else sign.encode("unicode_escape").decode()
        for sign in text
    )


def shorten_words(text: str) -> str:
    """Return a text whose very long words, as paths of 5,000 signs, are shortened."""

    def shorten(found: re.Match[str]) -> str:
        word = found[0]
        return f"{word[:WORD_BEGIN]}...{word[-WORD_END:]} ({len(word)} characters)"

    return _LONG_WORD.sub(shorten, text)


def find_nearest(
    word: str, known: Iterable[str], *, most: int = 1, cutoff: float = 0.6
) -> list[str]:
    """Return the known words closest to `word`, the closest first."""
    import difflib

    by_small = {each.lower(): each for each in known}
    near = difflib.get_close_matches(word.lower(), by_small, n=most, cutoff=cutoff)
    return [by_small[each] for each in near]


def did_you_mean(
    word: str, known: Iterable[str], *, most: int = 3, cutoff: float = 0.6
) -> str:
    """Return a sentence with the known words closest to `word`, "" without any."""
    names = " or ".join(find_nearest(word, known, most=most, cutoff=cutoff))
    return f" Did you mean {names}?" if names else ""


def describe(error: BaseException) -> str:
    """Return an exception's class and the beginning of its text, in one line."""
    text = printable(" ".join(str(error)[:TEXT_LIMIT].split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class VlmEvalError(Exception):
    """A problem that its reader can fix.

    The text says what was given, what is accepted, and what to do. It becomes a
    usage error at start-up and a failed item inside a test; any other exception is
    a bug, and what `log_error` makes of it. What of it comes from tables, paths and
    servers stands there as `printable` makes it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shorten_words(printable(message)))


class NeedsJudgeError(VlmEvalError):
    """A dataset cannot be scored without a judge; its answers are kept."""


class AnswerlessError(VlmEvalError):
    """A table of the user's own has no column of answers."""


class NotAskedError(VlmEvalError):
    """A sample is not asked, because its dataset's gates are decided without it."""


LOG_NAME = "errors.log"
# Of what fails for each of 100,000 samples not every traceback has to be kept.
LARGEST_LOG = 10_000_000
# Shorter texts would be found everywhere, and are no secrets.
SHORTEST_SECRET = 4
_HUB_TOKEN = re.compile(r"\bhf_[\w-]{4,}")


class HasWorkDir(Protocol):
    """The settings of a run, as far as the log needs them."""

    @property
    def work_dir(self) -> Path:
        """The folder of the log."""


def log_error(
    settings: HasWorkDir,
    error: BaseException,
    doing: str,
    dataset: str = "",
    sample: str = "",
) -> str:
    """Append an unexpected exception to the log; return the one line about it.

    `doing` is what failed, for which `dataset` and `sample`: "scoring". The log is
    `errors.log` in the work dir. It has the traceback, and no key.
    """
    import traceback
    from datetime import UTC, datetime

    what = " ".join(filter(None, (doing, "-".join(filter(None, (dataset, sample))))))
    text = str(error)
    # What comes from the sandbox is a traceback by itself.
    is_nested = text.startswith("Traceback")
    said = text.strip().splitlines()[-1] if is_nested else describe(error)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    entry = f"{at} {what}: dataset {dataset or '-'}, sample {sample or '-'}\n"
    file = settings.work_dir / LOG_NAME
    where = f"The traceback is in {file}"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8", errors="backslashreplace") as log:
            if log.tell() < LARGEST_LOG:
                entry += "".join(traceback.format_exception(error))
            else:
                entry += f"{said}\n"
            log.write(_masked(entry + "\n", settings))
    except OSError as problem:
        where = f"The traceback cannot be written to {file}: {problem.strerror}"
    line = " ".join(_masked(said, settings).split())
    return printable(f"{what} failed unexpectedly: {line}. {where}.")


def _masked(text: str, settings: object) -> str:
    """Return a text without what is secret: keys, passwords, tokens of a hub."""
    for secret in sorted(set(_secrets(settings)), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _HUB_TOKEN.sub("***", text)


def _secrets(value: object) -> Iterator[str]:
    """Yield the texts of settings that do not show themselves, and their forms."""
    import json
    from dataclasses import fields, is_dataclass
    from urllib.parse import quote, unquote, urlsplit

    if isinstance(value, str):
        password = urlsplit(value).password if "://" in value else None
        if type(value).__repr__ is not str.__repr__:
            password = str(value)
        for form in filter(None, (password, password and unquote(password))):
            forms = form, quote(form), json.dumps(form)[1:-1], repr(form)[1:-1]
            yield from (each for each in forms if len(each) >= SHORTEST_SECRET)
    elif isinstance(value, tuple):
        for each in value:
            yield from _secrets(each)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _secrets(getattr(value, field.name))
