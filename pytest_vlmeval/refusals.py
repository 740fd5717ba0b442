"""What a server refuses: how to fix it, and when it refuses every sample of a dataset.

A refusal is a status that asking again does not change: 400, 413 and the like.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import RequestError

# As many samples in a row that are refused alike, and the dataset is asked no further.
MOST_REFUSALS = 10
# From so many on a sample is asked alone at once, as each refusal is confirmed alone.
ALONE_FROM = 3

SMALLER = (
    "Send smaller images by --vlm-max-pixels=PIXELS or --vlm-image-size=PIXELS, or "
    "let the server take longer requests"
)
LONGER = "vLLM: --max-model-len, swift: --max_model_len"
CAUSES = (
    "Likely causes: images too large (--vlm-max-pixels=PIXELS makes them smaller), a "
    "prompt beyond the server's context length, a model without a chat template. The "
    "server's log says more."
)
_TOO_LONG = re.compile(
    r"context.?(length|window|size)|max_model_len|too many .{0,20}tokens"
    r"|(input|prompt|request|message)s? .{0,20}too (long|large)"
    r"|longer than the .{0,20}(model|maximum|limit)|exceed\w* .{0,40}(token|length)"
    r"|(token|length) .{0,30}exceed|entity too large|payload too large",
    re.IGNORECASE,
)
_NO_TEMPLATE = re.compile(r"chat.?template", re.IGNORECASE)
# What differs from sample to sample in words that are alike: numbers, names, ids.
_OWN = re.compile(r"\w*\d\w*")


def find_fix(error: RequestError) -> str:
    """Return how to fix what a server refused, if its words tell; "" otherwise."""
    words = str(error)
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return f"{SMALLER}."
    if error.status is None or error.retryable:
        return ""
    if _TOO_LONG.search(words):
        return f"{SMALLER} ({LONGER})."
    if _NO_TEMPLATE.search(words):
        return (
            "Start the server with a chat template (vLLM: --chat-template, swift: "
            "--template)."
        )
    return ""


def explain(error: RequestError) -> str:
    """Return the text of an error, with its fix where there is one."""
    fix = find_fix(error)
    return f"{str(error).rstrip('.')}. {fix}" if fix else str(error)


@dataclass(slots=True)
class _Row:
    """Refusals that are alike, with no answer between them: of which samples."""

    alike: tuple[int | None, str] = (None, "")
    samples: set[str] = field(default_factory=set)


class Refusals:
    """Counts the refusals in a row of each dataset, and says which are given up.

    `names` has the datasets by their fingerprints; `announce` is told once of each.
    All calls are on one event loop.
    """

    def __init__(
        self, names: Mapping[str, str], announce: Callable[[str], None]
    ) -> None:
        self._names = names
        self._announce = announce
        self._rows: dict[str, _Row] = {}
        self._given_up: dict[str, str] = {}
        # One is confirmed at a time, so that none is sent after the last that counts.
        self.confirming = asyncio.Lock()

    def why_given_up(self, fingerprint: str) -> str:
        """Say why nothing more is asked of a dataset; "" as long as it is."""
        return self._given_up.get(fingerprint, "")

    def is_suspect(self, fingerprint: str) -> bool:
        """Whether a sample had better be asked alone at once."""
        row = self._rows.get(fingerprint)
        return row is not None and len(row.samples) >= ALONE_FROM

    def note_answer(self, fingerprint: str) -> None:
        """Take in that a sample was answered."""
        self._rows.pop(fingerprint, None)

    def note_refusal(self, fingerprint: str, index: str, error: RequestError) -> None:
        """Take in that a sample failed; what is no refusal neither counts nor ends."""
        if error.kind != "status" or error.retryable:
            return
        alike = error.status, _OWN.sub("#", str(error))
        row = self._rows.get(fingerprint)
        if row is None or row.alike != alike:
            row = self._rows[fingerprint] = _Row(alike)
        row.samples.add(index)
        if len(row.samples) >= MOST_REFUSALS and fingerprint not in self._given_up:
            self._give_up(fingerprint, error)

    def _give_up(self, fingerprint: str, error: RequestError) -> None:
        name = self._names[fingerprint]
        words = str(error).rstrip(".")
        self._given_up[fingerprint] = (
            f"not asked, as the server refused {MOST_REFUSALS} samples of {name} in a "
            f"row alike: {words}. {find_fix(error) or CAUSES} The next command asks "
            "this sample again."
        )
        self._announce(
            f"asks no more of {name}, as the server refused {MOST_REFUSALS} of its "
            f"samples in a row alike: {words}. {find_fix(error) or CAUSES}"
        )
