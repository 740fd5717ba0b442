"""The seam between the engine and whatever answers: a request in, a reply out."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.groups import AS_IT_IS, Prompting
from pytest_vlmeval.settings.option import shown_address

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vlmeval.records import Turn

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
# How an answer ended, in the words of servers: their `finish_reason` and what it means.
# "broken_off": the server gave up in the middle; "unknown": a word of its own.
Ending = Literal["complete", "cut_off", "filtered", "refused", "broken_off", "unknown"]

TOOL_CALLS = "tool_calls"
# Our own word: the server says that the answer is whole, but it ends in a thought.
UNCLOSED_THOUGHT = "unclosed_thought"
_TOOLS = frozenset([TOOL_CALLS, "tool_call", "tool_use", "function_call"])
# As servers write them, in lower case: OpenAI, vLLM, SGLang, LMDeploy, TGI,
# TensorRT-LLM, Anthropic, Bedrock, Gemini, Cohere, Mistral, watsonx, DashScope, Zhipu,
# DeepSeek.
_ENDINGS: dict[Ending, frozenset[str]] = {
    "complete": frozenset(
        "stop eos eos_token end_turn stop_sequence stop_token complete completed "
        "finish finished normal null unspecified".split()
    )
    | _TOOLS,
    "cut_off": frozenset(
        "length max_tokens max_token model_length max_length max_new_tokens "
        "max_output_tokens max_completion_tokens token_limit error_limit "
        "model_context_window_exceeded context_length_exceeded".split()
    )
    | {UNCLOSED_THOUGHT},
    "filtered": frozenset(
        "content_filter content_filtered content_filtering safety image_safety "
        "recitation image_recitation prohibited_content image_prohibited_content "
        "blocklist spii language sensitive guardrail_intervened guardrails "
        "error_toxic moderation data_inspection_failed".split()
    ),
    "refused": frozenset(["refusal", "refused"]),
    "broken_off": frozenset(
        "abort aborted error cancelled canceled user_cancel timeout time_limit "
        "network_error not_finished insufficient_system_resource".split()
    ),
}
_BY_WORD = {word: ending for ending, words in _ENDINGS.items() for word in words}


def _normalize(finish_reason: str) -> str:
    word = re.sub(r"[\s-]+", "_", finish_reason.strip().lower())
    return word.removeprefix("finish_reason_")


def find_ending(finish_reason: str) -> Ending:
    """Return what a finish_reason means, in whatever case and spelling."""
    word = _normalize(finish_reason)
    return _BY_WORD.get(word, "unknown") if word else "complete"


def is_cut_off(finish_reason: str) -> bool:
    """Return whether a limit of tokens ended the answer, or the thoughts before it."""
    return find_ending(finish_reason) == "cut_off"


def calls_tools(finish_reason: str) -> bool:
    """Return whether a finish_reason says that the model called a tool."""
    return _normalize(finish_reason) in _TOOLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt; its images are files of `media_folder`.

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


PASSING = frozenset({"connection", "timeout", "protocol", "aborted", "replica"})


class RequestError(Exception):
    """A request that got no answer; its text is one line with the server's words.

    `kind` is "connection" (refused, reset, broken off), "timeout" (past the
    deadline), "status" (an HTTP error, its code in `status`), "protocol" (a reply
    that holds no answer), "aborted" (an answer that the server broke off), "filtered"
    (a prompt that the server's filter stopped), "input" (the request itself cannot be
    made or read), "replica" (the process that has the model is gone) or "bug" (any
    other exception on the way).
    `retryable` says whether the same request may pass another time (by itself of
    `PASSING` kinds alone), and `retry_after_s` how long the server asked to wait.
    """

    def __init__(
        self,
        message: str,
        *,
        kind: ErrorKind,
        retryable: bool | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind
        self.status = status
        self.retryable = kind in PASSING if retryable is None else retryable
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        """Travel between processes without a traceback."""
        return partial(RequestError, **vars(self)), self.args


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


_EXAMPLE = "http://127.0.0.1:8000/v1"
# A URL of any scheme, or a host with a port, or one with a dot and a path: no key is.
_ADDRESS = re.compile(r"\w+://|[\w.-]+:\d+(?:/|$)|[\w-]+(?:\.[\w-]+)+/|localhost\b")


Role = Literal["model", "judge"]


def normalize_api_base(url: str, role: Role = "model") -> str:
    """Return the base below which `/chat/completions` and `/models` lie.

    `/chat/completions` and slashes at the end are taken off; a URL without any path
    gets `/v1`, every other path is kept. Raises `VlmEvalError` for what is not an
    http(s) URL, and for one that carries a user, a query or a fragment: such are
    often secrets, so that they are not repeated in the text. `role` is whose it is.
    """
    given = url.strip()
    shown = shown_address(given)
    prefix = "judge-" if role == "judge" else ""
    if not re.match(r"https?://", given, re.IGNORECASE):
        if not _ADDRESS.match(given):
            raise VlmEvalError(
                "The API base that was given is not an address. It is not shown, as it "
                f"may be a key. Give a URL such as {_EXAMPLE}, and a key with "
                f"VLM_{prefix.upper().replace('-', '_')}API_KEY or "
                f"--vlm-{prefix}api-key-file."
            )
        if "://" not in given:
            raise VlmEvalError(
                f"The API base {shown!r} has no scheme. Write it with http:// "
                f"or https:// in front, such as {_EXAMPLE}."
            )
        raise VlmEvalError(
            f"The API base {shown!r} is not an http or https URL. Give one "
            f"such as {_EXAMPLE}."
        )
    try:
        parts = urlsplit(given)
        netloc = _netloc(parts.hostname, parts.port)
    except ValueError:
        netloc = ""
    if not netloc:
        raise VlmEvalError(
            f"The API base {shown!r} has no valid host and port. Give a URL "
            f"such as {_EXAMPLE}."
        )
    if "@" in parts.netloc or parts.fragment:
        raise VlmEvalError(
            f"The API base for {netloc} carries a user, a query or a fragment, which "
            f"are not accepted. Give a URL such as {_EXAMPLE}, and the key with "
            f"VLM_{prefix.upper().replace('-', '_')}API_KEY or "
            f"--vlm-{prefix}api-key-file."
        )
    if parts.query:
        raise VlmEvalError(
            f"The API base for {netloc} carries a query. Give the URL without the ? "
            f"and what follows it, and that with --vlm-{prefix}api-query, such as "
            f"--vlm-{prefix}api-query=api-version=2024-10-21: what it holds is never "
            "shown."
        )
    path = re.sub(r"/*(/chat/completions)?/*$", "", parts.path)
    return f"{parts.scheme}://{netloc}{path or '/v1'}"


def origin(url: str) -> str:
    """Return scheme, host and port of a URL; ValueError for one without them."""
    parts = urlsplit(url)
    standard = {"http": 80, "https": 443}
    if parts.scheme not in standard:
        raise ValueError
    port = None if parts.port == standard[parts.scheme] else parts.port
    netloc = _netloc(parts.hostname, port)
    if not netloc:
        raise ValueError
    return f"{parts.scheme}://{netloc}"


def _netloc(host: str | None, port: int | None) -> str:
    """Return `host:port` as it stands in a URL, "" for a host that cannot be one."""
    if not host or not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
        return ""
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def is_loopback(api_base: str) -> bool:
    """Return whether a base points at this machine, where no proxy can reach for us."""
    host = urlsplit(api_base).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
