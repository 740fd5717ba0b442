"""What answers say before they are scored: how many look right, and what they cost."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pytest_vlmeval.reports.summary import Share, wilson

if TYPE_CHECKING:
    from pytest_vlmeval.store.answers import StoredAnswer

_OPTION = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")
_WORD = re.compile(r"\w+")


def looks_right(reference: str, text: str) -> bool | None:
    """Tell at a glance whether an answer is right; None where a glance cannot.

    Only for references that are a letter or yes and no: the first letter that stands
    alone, or the first word. ms-vlmeval scores all answers together in the end, by
    rules of its own, and its score alone counts.
    """
    if len(reference) == 1 and reference.isupper():
        found = _OPTION.search(text)
        return found is not None and found[0] == reference
    if reference.lower() in ("yes", "no"):
        word = _WORD.search(text.lower())
        return word is not None and word[0] == reference.lower()
    return None


class Tally:
    """Counts the answers of one dataset as they arrive, each once.

    `references` gives each sample's index with what its answer is compared with.
    """

    def __init__(
        self, session_id: str, references: Iterable[tuple[str, str | None]]
    ) -> None:
        self._session_id = session_id
        # Only those that a glance can tell: other references may be long.
        self._references = {
            index: sys.intern(reference)
            for index, reference in references
            if reference and looks_right(reference, "") is not None
        }
        self._right: dict[tuple[str, int], bool] = {}
        self.retries = 0
        self.tokens = 0

    def add(self, stored: StoredAnswer) -> None:
        """Take in an answer, the newest for its sample."""
        answer = stored.answer
        if stored.session_id == self._session_id:
            self.retries += answer.retries
            self.tokens += answer.prompt_tokens + answer.completion_tokens
        reference = self._references.get(answer.index)
        if answer.is_usable and reference:
            right = looks_right(reference, answer.text)
            if right is not None:
                self._right[answer.index, answer.repeat] = right

    @property
    def right(self) -> Share | None:
        """How many answers look right, with the interval; None where none can tell."""
        if not self._right:
            return None
        return wilson(sum(self._right.values()), len(self._right))
