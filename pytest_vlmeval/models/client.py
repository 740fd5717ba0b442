"""The seam between the engine and whatever answers: a request in, a reply out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.endings import Ending, find_ending
from pytest_vlmeval.prompt_settings import AS_IT_IS, Prompting

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vlmeval.prompts import Turn

ErrorKind = Literal[
    "connection",
    "timeout",
    "status",
    "protocol",
    "aborted",
    "filtered",
    "input",
    "replica",
    "bug",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt; its pictures are files of `media_folder`.

    Of several `turns` a client answers the last one, and has the `replies` to those
    before. `system` is a message ahead of it, that of the options too; `prompting` is
    what else they do to it on its way. `origin` tells a model that builds prompts of
    its own where it comes from: `dataset`, `index`, `kind`, `modality` and the file of
    `rows`. `max_tokens` and `temperature` are the client's own where None.
    """

    turns: tuple[Turn, ...]
    media_folder: Path
    replies: tuple[str, ...] = ()
    system: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    prompting: Prompting = AS_IT_IS
    origin: Mapping[str, str] | None = None

    @property
    def has_images(self) -> bool:
        """Whether any part of the prompt is more than text."""
        return any(part.kind != "text" for turn in self.turns for part in turn)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model answered; `text` may be empty, `reasoning` is what it thought.

    `finish_reason` is "stop", "length" (cut off at the token limit), "refusal",
    "unclosed_thought" (in the middle of the thoughts, though no limit was named), or
    what else the server says; `ending` is what it means. The token counts are 0 where
    it gives none, `system_fingerprint` (what it calls its configuration) is "".
    """

    text: str
    finish_reason: str
    reasoning: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    system_fingerprint: str = ""

    @property
    def ending(self) -> Ending:
        """How the answer ended."""
        return find_ending(self.finish_reason)


class OutageError(VlmEvalError):
    """Nothing answers any more; what still waits will not be asked."""


class StoppedError(OutageError):
    """Nothing more is asked, as the session ends; what is in flight goes on."""


class RequestError(Exception):
    """A request that got no answer; its text is one line with the server's words.

    `kind` is "connection" (refused, reset, broken off), "timeout" (past the
    deadline), "status" (an HTTP error, its code in `status`), "protocol" (a reply
    that holds no answer), "aborted" (an answer that the server broke off), "filtered"
    (a prompt that the server's filter stopped), "input" (the request itself cannot be
    made or read), "replica" (the process that has the model is gone) or "bug" (any
    other exception on the way).
    `retryable` says whether the same request may pass another time, and
    `retry_after_s` how long the server asked to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: ErrorKind,
        retryable: bool,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.status = status
        self.retryable = retryable
        self.retry_after_s = retry_after_s


class ModelClient(Protocol):
    """A model that can be asked; after `check`, all calls are on one event loop."""

    async def check(self) -> None:
        """Raise `VlmEvalError` if the model cannot be asked; takes seconds at most."""

    async def describe(self) -> Mapping[str, str]:
        """Return what tells which model this is (see `Evidence`), after `check`."""

    async def ask(self, request: Request) -> Reply:
        """Answer one prompt, or raise `RequestError`; makes a single attempt."""

    async def close(self) -> None:
        """Free connections and threads; nothing may be asked afterwards."""
