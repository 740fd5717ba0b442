"""What a model thought, told apart from what it answered."""

from __future__ import annotations

import re
from typing import NamedTuple

# Qwen, DeepSeek, GLM and most others; Kimi.
_OPENED = re.compile(r"\s*(<think>|◁think▷)")
_CLOSED = re.compile(r"</think>|◁/think▷")


class Thoughts(NamedTuple):
    """A text in two; `closed` is false where it ends in the middle of the thoughts."""

    reasoning: str
    answer: str
    closed: bool


def split_thoughts(text: str) -> Thoughts:
    """Part a text at the last tag that closes thoughts.

    The tag that opens them may be missing: templates that put it at the end of the
    prompt leave it out of the answer. Without any tag there are no thoughts.
    """
    closing = None
    for closing in _CLOSED.finditer(text):  # noqa: B007 - the last one counts
        pass
    before, after = "", text
    if closing is not None:
        before, after = text[: closing.start()], text[closing.end() :].strip()
    opening = _OPENED.match(before)
    reasoning = before[opening.end() :] if opening else before
    opened_again = _OPENED.match(after)
    if opened_again:
        unfinished = after[opened_again.end() :]
        return Thoughts((reasoning + unfinished).strip(), "", closed=False)
    return Thoughts(reasoning.strip(), after, closed=True)
