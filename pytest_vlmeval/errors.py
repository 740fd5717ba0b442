"""The one exception type for what a user can cause and mend."""

from __future__ import annotations

TEXT_LIMIT = 300  # characters of another library's exception in a message
# Joins letters and emoji, and does nothing else.
_JOINERS = {"\n", "\t", "\u200c", "\u200d"}


def printable(text: str) -> str:
    """Return a text with escapes for what a terminal, or a reader's eye, would obey.

    Models, judges, servers and datasets may hold control characters, marks that turn
    the direction of writing, and halves of characters that no file can.
    """
    if text.isprintable():
        return text
    return "".join(
        sign
        if sign.isprintable() or sign in _JOINERS
        else sign.encode("unicode_escape").decode()
        for sign in text
    )


def describe(error: BaseException) -> str:
    """Return an exception's class and the beginning of its text, in one line."""
    text = printable(" ".join(str(error)[:TEXT_LIMIT].split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class VlmEvalError(Exception):
    """A problem that its reader can mend.

    The text says what was given, what is accepted, and what to do. It becomes a
    usage error at start-up and a failed item inside a test; any other exception is
    a bug and keeps its traceback.
    """


class NeedsJudgeError(VlmEvalError):
    """A dataset cannot be scored without a judge; its answers are kept."""


class NotAskedError(VlmEvalError):
    """A sample is not asked, because its dataset's gates are decided without it."""
