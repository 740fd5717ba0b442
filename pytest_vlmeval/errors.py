"""The one exception type for what a user can cause and mend."""

from __future__ import annotations


class VlmEvalError(Exception):
    """A problem that its reader can mend.

    The text says what was given, what is accepted, and what to do. It becomes a
    usage error at start-up and a failed item inside a test; any other exception is
    a bug and keeps its traceback.
    """


class NeedsJudgeError(VlmEvalError):
    """A dataset cannot be scored without a judge; its answers are kept."""
