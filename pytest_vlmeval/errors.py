"""The one exception type for what a user can cause and fix."""

from __future__ import annotations

import re
import unicodedata

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


def describe(error: BaseException) -> str:
    """Return an exception's class and the beginning of its text, in one line."""
    text = printable(" ".join(str(error)[:TEXT_LIMIT].split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class VlmEvalError(Exception):
    """A problem that its reader can fix.

    The text says what was given, what is accepted, and what to do. It becomes a
    usage error at start-up and a failed item inside a test; any other exception is
    a bug and keeps its traceback. What of it comes from tables, paths and servers
    stands there as `printable` makes it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shorten_words(printable(message)))


class NeedsJudgeError(VlmEvalError):
    """A dataset cannot be scored without a judge; its answers are kept."""


class AnswerlessError(VlmEvalError):
    """A table of one's own has no column of answers."""


class NotAskedError(VlmEvalError):
    """A sample is not asked, because its dataset's gates are decided without it."""
