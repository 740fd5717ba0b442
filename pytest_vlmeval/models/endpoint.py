"""The client of an OpenAI-compatible endpoint, and the check of it before a run.

A list of models is evidence and no proof: some servers have none, or one that leaves
out deployments, variants and adapters. Where it decides nothing, one real request does.

httpx logs the URL of each request, openai that of each response.

The only importer of openai. Its transport here is aiohttp's (the extra
`openai[aiohttp]`), which costs half the processor time of the default one.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import re
import shlex
import ssl
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, urljoin, urlsplit

import aiohttp
import httpx2
from openai import (
    APIConnectionError,
    APIStatusError,
    AsyncOpenAI,
    DefaultAioHttpClient,
    Omit,
    Timeout,
)

from pytest_vlmeval.errors import VlmEvalError, did_you_mean, printable
from pytest_vlmeval.models.addresses import (
    is_public,
    is_without_tls,
    nearby_bases,
    speaks_tls,
    swap_scheme,
)
from pytest_vlmeval.models.bounded import (
    ENCODINGS,
    ReplyTooLargeError,
    UnreadableBodyError,
    bound,
)
from pytest_vlmeval.models.chat import BodyWriter, ReplyReader, retry_after_s
from pytest_vlmeval.models.client import (
    OutageError,
    Request,
    RequestError,
    Role,
    is_loopback,
    normalize_api_base,
    origin,
)
from pytest_vlmeval.models.evidence import read_entry
from pytest_vlmeval.models.pool import Learned
from pytest_vlmeval.models.refusals import MemberRefusal, is_filtered, read_refusal
from pytest_vlmeval.records import PromptPart
from pytest_vlmeval.settings.groups import PLAIN, RequestForm
from pytest_vlmeval.settings.option import ApiKey, shown_address

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import Reply

NAMES_SHOWN = 20
# Where a server names a model; Gemini's and Ollama's own lists use the others.
_NAMES = ("id", "name", "model")
_NO_SUCH_MODEL = re.compile(
    r"\bmodels?\b[^.]{0,60}?(?:\bnot\b|n't\b|\bno longer\b|\bunknown\b|\binvalid\b)"
    r"|\b(?:unknown|invalid|unsupported|no such|not a valid)\b[^.]{0,20}?\bmodel"
    r"|\bnot in the model_list\b|model_not_found",
    re.IGNORECASE,
)


def option_prefix(role: Role) -> str:
    """Return how the options about a model or a judge begin."""
    return "--vlm-judge-" if role == "judge" else "--vlm-"


def key_advice(role: Role) -> str:
    """Describe how the key of a model or a judge is given."""
    if role == "judge":
        return (
            "Set VLM_JUDGE_API_KEY, or give a file that holds the key with "
            "--vlm-judge-api-key-file."
        )
    return "Set VLM_API_KEY, or give a file that holds the key with --vlm-api-key-file."


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What came of GET /models: the `entries` by their names, or the `problem`.

    `status` is that of an HTTP error, None where there was none. `lost` says why
    nothing came back, `moved` that it would have been from another place.
    """

    entries: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    problem: str = ""
    status: int | None = None
    lost: str = ""
    moved: str = ""

    def find(self, model: str) -> Mapping[str, object] | None:
        """Return the entry of a model, by any of the names that a server gives it."""
        if model in self.entries:
            return self.entries[model]
        for entry in self.entries.values():
            names = [str(entry.get(name)) for name in _NAMES]
            if model in names or f"models/{model}" in names:
                return entry
        return None


@dataclass(frozen=True, slots=True)
class ServerCheck:
    """Judges what an endpoint answers at the start; errors are `VlmEvalError`.

    `role` is what the model is there for, as its texts name the options of that.
    """

    model: str
    api_base: str
    reader: ReplyReader
    role: Role
    has_key: bool = True

    def no_server(self, reason: str) -> VlmEvalError:
        """Describe how to start a server where none answered, or how to reach it."""
        parts = urlsplit(self.api_base)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        whose, without = "", "a server with --vlm-model=demo"
        if self.role == "judge":
            whose, without = "judge's ", "a judge with --vlm-judge=exact_matching"
        advice = (
            "Start one there:\n"
            f"    swift deploy --model CHECKPOINT_OR_MODEL_ID "
            f"--served_model_name {shlex.quote(self.model)} --port {port}\n"
            "or give"
        )
        if is_public(self.api_base):
            advice = (
                "Check the address, and this machine's access to the internet: "
                f"`curl {shlex.quote(f'{self.api_base}/models')}` has to answer, and "
                "HTTPS_PROXY names a proxy if one is needed. Or give"
            )
        return VlmEvalError(
            f"No {whose}server answers at {self.api_base} ({reason}). {advice} the URL "
            f"of another with {option_prefix(self.role)}api-base, or run without "
            f"{without}."
        )

    def other_scheme(self) -> VlmEvalError:
        """Explain that the server speaks https where http is given, or the reverse."""
        right = swap_scheme(self.api_base)
        speaks = "https" if right.startswith("https") else "http, without TLS"
        return VlmEvalError(
            f"The server at {self.api_base} speaks {speaks}. Give "
            f"{option_prefix(self.role)}api-base={right}"
        )

    def other_path(self, listing: Listing, right: str) -> VlmEvalError:
        """Explain that the API is at another path of the server."""
        return VlmEvalError(
            f"No API is at {self.api_base}: {self.api_base}/models "
            f"{listing.problem.rstrip('.')}. There is one at {right}: give "
            f"{option_prefix(self.role)}api-base={right}"
        )

    def read_status(self, status: int, body: bytes) -> Listing:
        """Return what an HTTP error in place of the list means; raise for a bad key."""
        words = self.reader.words(body)
        # A key may be one for chat alone: of a 403 the request decides.
        if status != HTTPStatus.FORBIDDEN:
            self._check_key(status, words)
        said = f" ({words})" if words else ""
        return Listing(problem=f"answered {status}{said}", status=status)

    def _check_key(self, status: int, words: str) -> None:
        # swift says 400 where others say 401.
        refused_by_swift = status == 400 and "api key" in words.lower()
        if status in {401, 403} or refused_by_swift:
            said = f" ({words})" if words else ""
            wrong = "refuses the API key" if self.has_key else "requires an API key"
            raise VlmEvalError(
                f"The server at {self.api_base} {wrong}: it answered {status}{said}. "
                f"{key_advice(self.role)}"
            )

    def read_models(self, body: bytes) -> Listing:
        """Read a list of models in any of the shapes that servers give it."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            value = value.get("data", value.get("models"))
        entries = {}
        for each in value if isinstance(value, list) else ():
            entry = each if isinstance(each, dict) else {"id": each}
            name = next((entry[key] for key in _NAMES if entry.get(key)), None)
            if isinstance(name, str):
                entries[name] = entry
        if entries or value == []:
            return Listing(entries=entries)
        words = self.reader.words(body) or "an empty body"
        return Listing(problem=f"answered with what is not a list of models: {words}")

    def explain(self, listing: Listing, error: RequestError | None) -> str:
        """Describe how it goes on after a real request; raise where it cannot.

        `error` is why that got no answer, None where it got one.
        """
        if error is not None:
            words = str(error)
            self._check_key(error.status or 0, words.partition(": ")[2])
            if not self._may_be_of_the_request(error):
                raise self._refused(listing, error)
            outcome = f"A request for {self.model!r} was refused ({words})"
        else:
            outcome = f"A request for {self.model!r} was answered"
        if listing.problem:
            return (
                f"{self.api_base}/models {listing.problem.rstrip('.')}. {outcome}, so "
                "that the run goes on."
            )
        return (
            f"The server at {self.api_base} does not list {self.model!r}, but: "
            f"{self._shown(listing)}. {outcome}, so that the run goes on."
        )

    def _may_be_of_the_request(self, error: RequestError) -> bool:
        """Return whether a refusal is about the request, and not about the model."""
        if error.status == 429:
            return True
        words = str(error)
        named = re.search(rf"""[`'"]{re.escape(self.model)}[`'"]""", words)
        of_the_model = named or _NO_SUCH_MODEL.search(words)
        return error.status in {400, 413, 422} and not of_the_model

    def _refused(self, listing: Listing, error: RequestError) -> VlmEvalError:
        option = option_prefix(self.role)
        if not listing.problem:
            question = did_you_mean(self.model, listing.entries, most=1)
            return VlmEvalError(
                f"The server at {self.api_base} does not serve {self.model!r}."
                f"{question} It serves: {self._shown(listing)}. Give one of these with "
                f"--vlm-{self.role}. It was asked all the same, and refused: {error}"
            )
        problem = listing.problem.rstrip(".")
        if error.status in _NOT_FOUND and listing.status in {*_NOT_FOUND, None}:
            return VlmEvalError(
                f"{self.api_base}/models {problem}, and {error}. Either this is not "
                "the base URL of an OpenAI-compatible API, which mostly ends in /v1: "
                f"give it with {option}api-base. Or the server does not serve "
                f"{self.model!r}: give the name with --vlm-{self.role}."
            )
        if error.kind == "protocol":
            return VlmEvalError(
                f"{self.api_base}/models {problem}, and a request for {self.model!r} "
                f"has no answer: {error}. Is this the base URL of an OpenAI-compatible "
                f"API? Such URLs mostly end in /v1. Give it with {option}api-base."
            )
        return VlmEvalError(
            f"The server at {self.api_base} cannot be asked: its list of models "
            f"{problem}, and a request for {self.model!r} has no answer: {error}. See "
            f"its log, give the URL of another with {option}api-base, or the name that "
            f"it serves with --vlm-{self.role}."
        )

    def _shown(self, listing: Listing) -> str:
        names = list(listing.entries)
        more = len(names) - NAMES_SHOWN
        shown = printable(", ".join(names[:NAMES_SHOWN])) or "none"
        return f"{shown} and {more} more" if more > 0 else shown


# The loggers of what sends a request; a filter does not count for those below it.
_LOGGERS = ("httpx2", "httpx", "openai", "openai._base_client", "aiohttp.client")


_HIDDEN: set[str] = set()


def _hide(record: logging.LogRecord) -> bool:
    """Let every record through, with *** in the place of each text that is secret."""
    text = record.getMessage()
    if any(secret in text for secret in _HIDDEN):
        for secret in sorted(_HIDDEN, key=len, reverse=True):
            text = text.replace(secret, "***")
        record.msg, record.args = text, ()
    return True


def hide_in_logs(values: Iterable[str]) -> None:
    """Let no log of this process show these texts, nor their forms in a URL."""
    for value in filter(None, values):
        _HIDDEN.update((value, quote(value), quote_plus(value)))
    if _HIDDEN:
        for name in _LOGGERS:
            # A filter is added once, however often it is given.
            logging.getLogger(name).addFilter(_hide)


CHECK_LIMIT_S = 5.0
# A server may load or compile what it needs at its first request.
TRY_LIMIT_S = 60.0
SILENT_TRY_LIMIT_S = 10.0
_LOST = ("connection", "timeout")
TRY_TOKENS = 16
MOST_REDIRECTS = 4
MOST_CAUSES = 20
CONNECT_LIMIT_S = 10.0
# Shorter than the 5 s after which uvicorn, below swift and vLLM, closes an idle
# connection: a request sent at that moment would be lost.
IDLE_LIMIT_S = 4.0
MAX_REPLY_MB = 32.0
_RETRYABLE = {408, 409, 429}
_NOT_FOUND = {404, 405}
WITHOUT_TLS = "it does not speak TLS"


class EndpointClient:
    """Asks one model of one OpenAI-compatible endpoint; never retries by itself.

    But for two things that would fail each request alike: a token limit that the server
    wants under another name, and another place of the same server.

    `timeout_s` is the deadline of a request from first to last byte, `concurrency` the
    most connections, `max_reply_mb` the longest reply (10^6 bytes). `max_tokens` and
    `temperature` are not sent where None; `form` is how else requests are written.
    `role` tells messages about a model from those about a judge. `learned` keeps what
    is found out for other clients of the endpoint. Raises `VlmEvalError` for an
    unusable URL or key.
    """

    def __init__(
        self,
        *,
        model: str,
        api_base: str,
        api_key: str | None,
        max_tokens: int | None,
        temperature: float | None,
        timeout_s: float,
        concurrency: int,
        max_reply_mb: float = MAX_REPLY_MB,
        role: Role = "model",
        form: RequestForm = PLAIN,
        learned: Learned | None = None,
    ) -> None:
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise VlmEvalError(
                "The API key holds a line break or another character that cannot be "
                f"sent. {key_advice(role)}"
            )
        self.api_base = normalize_api_base(api_base, role)
        self._model = model
        self._api_key = ApiKey(api_key) if api_key else None
        self._timeout_s = timeout_s
        self._concurrency = concurrency
        self._max_reply_mb = max_reply_mb
        self._role = role
        self._form = form
        self._learned = Learned() if learned is None else learned
        self._ssl_context = ssl.create_default_context()
        self._writer = BodyWriter(model, max_tokens, temperature, form.left_out)
        self._reader = ReplyReader(self.api_base, api_key, *form.secrets)
        has_key = bool(api_key or form.headers or form.query)
        self._check = ServerCheck(model, self.api_base, self._reader, role, has_key)
        # `Omit` keeps out what openai would add of itself.
        self._headers: dict[str, str | Omit] = {
            "Content-Type": "application/json",
            "Accept-Encoding": ENCODINGS,
            "OpenAI-Organization": Omit(),
            "OpenAI-Project": Omit(),
            **({} if api_key else {"Authorization": Omit()}),
        }
        self._evidence: Mapping[str, str] = {}
        hide_in_logs(value for _, value in form.query)
        # Where the server itself has sent us, by the paths of the API.
        self._moved: dict[str, str] = {}
        self._refused = ""
        # What is open, with its requests; a retired one closes after the last of them.
        self._in_use: Counter[AsyncOpenAI] = Counter()
        self._current: AsyncOpenAI | None = None

    @property
    def _limit_name(self) -> str:
        """What the token limit is called: by the options, by the server, by OpenAI."""
        found = self._learned.token_limit_name(self.api_base, self._model)
        return self._form.max_tokens_name or found or "max_tokens"

    async def check(self) -> None:
        """Ask which models are served; `VlmEvalError` if ours cannot be asked.

        Where the list of models does not say it, one small request does. Uses
        connections of its own, so that it may run on another event loop.
        """
        self._learned.raise_ended(self._role)
        async with self._new_client() as client:
            listing = await self._list_models(client)
            entry = listing.find(self._model)
            self._evidence = read_entry(entry) if entry is not None else {}
            # `transformers serve` lists only what its cache holds, if it has one at
            # all, and loads at the first request, which may take minutes.
            if entry is not None or self._model.startswith("/"):
                return
            # What gave no list within seconds gets no minute for an answer.
            limit_s = SILENT_TRY_LIMIT_S if listing.lost else TRY_LIMIT_S
            error = await self._try(client, limit_s)
            if listing.problem and error is not None:
                await self._look_around(client, listing, error)
        if listing.lost and error is not None and error.kind in _LOST:
            raise self._check.no_server(listing.lost)
        if listing.moved and isinstance(error, _MovedError):
            raise VlmEvalError(listing.moved)
        self._learned.announce(self._check.explain(listing, error))

    async def _look_around(
        self, client: AsyncOpenAI, listing: Listing, error: RequestError
    ) -> None:
        """Raise `VlmEvalError` if the API is there under a similar address.

        A key goes only where it was to go: no further than to another path.
        """
        if self.api_base.startswith("https:"):
            if listing.lost == WITHOUT_TLS:
                raise self._check.other_scheme()
        elif (listing.status == 400 or listing.lost in _MAYBE_TLS) and (
            await speaks_tls(self.api_base)
        ):
            raise self._check.other_scheme()
        if error.status in _NOT_FOUND or error.kind == "protocol":
            for base in nearby_bases(self.api_base):
                if await self._lists_models(client, base):
                    raise self._check.other_path(listing, base)

    async def _lists_models(self, client: AsyncOpenAI, base: str) -> bool:
        try:
            async with asyncio.timeout(CHECK_LIMIT_S):
                body = await client.get(
                    f"{base}/models",
                    cast_to=bytes,
                    options={"headers": self._headers},
                )
        except (TimeoutError, APIConnectionError, APIStatusError):
            return False
        except (aiohttp.ClientError, ReplyTooLargeError):
            return False
        return bool(self._check.read_models(body).entries)

    async def _list_models(self, client: AsyncOpenAI) -> Listing:
        try:
            async with asyncio.timeout(CHECK_LIMIT_S):
                body = await self._exchange(client, "/models", None)
        except TimeoutError:
            lost = f"no answer within {CHECK_LIMIT_S:.0f} s"
            return Listing(problem=f"cannot be read ({lost})", lost=lost)
        except _MovedError as error:
            moved = str(error)
            return Listing(problem=f"cannot be read ({moved.rstrip('.')})", moved=moved)
        except APIStatusError as error:
            return self._check.read_status(error.status_code, error.response.content)
        except (APIConnectionError, aiohttp.ClientError) as error:
            lost = _reason(error)
            return Listing(problem=f"cannot be read ({lost})", lost=lost)
        except ReplyTooLargeError:
            said = f"answered with more than {self._max_reply_mb:g} MB"
            return Listing(problem=said)
        return self._check.read_models(body)

    async def describe(self) -> Mapping[str, str]:
        """Return what the server's list of models says of ours, as `check` read it."""
        return self._evidence

    async def _try(self, client: AsyncOpenAI, limit_s: float) -> RequestError | None:
        """Send the smallest request there is; return why it got no answer."""
        request = Request(
            turns=((PromptPart(kind="text", text="Hi"),),),
            media_folder=Path(),
            max_tokens=TRY_TOKENS,
        )
        try:
            limit_s = min(limit_s, self._timeout_s)
            self._reader.first_choice(await self._deliver(client, request, limit_s))
        except RequestError as error:
            return error
        # Whatever its message holds: a short one may be empty, or end in a thought.
        return None

    async def ask(self, request: Request) -> Reply:
        """Send one prompt and wait for its answer; `RequestError` without one.

        Raises `OutageError` where the server takes no request as they are to be sent.
        """
        if self._refused:
            raise OutageError(self._refused)
        if self._current is None:
            self._current = self._new_client()
        client = self._current
        self._in_use[client] += 1
        try:
            data = await self._deliver(client, request, self._timeout_s)
        except RequestError as error:
            # After a 500 servers close the connection without saying so, and the next
            # request on it would be lost: others are used from now on.
            is_broken = (error.status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR
            if is_broken and client is self._current:
                self._current = None
            if error.kind == "connection":
                self._learned.raise_ended(self._role)
            raise
        except OutageError as error:
            self._refused = str(error)
            raise
        except Exception as error:
            # What a frame of the libraries holds, a traceback may print: the headers.
            raise self._reader.bug(error) from None
        finally:
            self._in_use[client] -= 1
            if client is not self._current and not self._in_use[client]:
                del self._in_use[client]
                await client.close()
        return self._reader.read(data, request.prompting.tag_pairs)

    async def _deliver(
        self, client: AsyncOpenAI, request: Request, limit_s: float
    ) -> bytes:
        """Send a request, by the name of the token limit that the server takes."""
        name = self._limit_name
        try:
            return await self._post(client, request, limit_s, name)
        except _MemberRefusedError as error:
            if error.refusal.member != "max_tokens" or self._form.max_tokens_name:
                raise self._refuse(error) from None
            # Another request may have found it out meanwhile.
            asked_for = self._limit_name
            asked_for = error.refusal.instead if asked_for == name else asked_for
            if asked_for == name:
                raise self._refuse(error) from None
            first = error
        try:
            data = await self._post(client, request, limit_s, asked_for)
        except _MemberRefusedError as error:
            if error.refusal.member == "max_tokens":
                raise self._refuse(first) from None
            self._rename(asked_for)
            raise self._refuse(error) from None
        self._rename(asked_for)
        return data

    def _rename(self, name: str) -> None:
        """Call the token limit so from now on, in all processes."""
        if self._limit_name == name:
            return
        self._learned.keep_token_limit_name(self.api_base, self._model, name)
        prefix = option_prefix(self._role)
        self._learned.announce(
            f"{self.api_base} requires {name} instead of max_tokens. Using {name}; "
            f"with {prefix}max-tokens-name={name} no request is refused first."
        )

    def _refuse(self, error: _MemberRefusedError) -> OutageError:
        """Describe which option sends a member otherwise; nothing more is asked."""
        prefix = option_prefix(self._role)
        said = str(error).removeprefix(f"{self.api_base} answered {error.status}: ")
        said = said.rstrip(".")
        if error.refusal.member == "max_tokens":
            return OutageError(
                f"{self.api_base} refuses max_tokens: {said}. Set "
                f"{prefix}max-tokens-name=NAME to send it under another name, or "
                f"{prefix}max-tokens=none to leave it out."
            )
        return OutageError(
            f"{self.api_base} refuses temperature={error.sent['temperature']:g}: "
            f"{said}. Set {prefix}temperature=none to leave it out, or "
            f"{prefix}temperature=T to send another. Both change the answers."
        )

    async def _post(
        self, client: AsyncOpenAI, request: Request, limit_s: float, limit_name: str
    ) -> bytes:
        """Send one request; every failure is a `RequestError`."""
        write = self._writer.write
        if request.prompting.leaves_images:
            body = write(request, limit_name)
        else:  # a thread of its own makes images smaller
            body = await asyncio.to_thread(write, request, limit_name)
        try:
            async with asyncio.timeout(limit_s):
                return await self._exchange(client, "/chat/completions", body)
        except TimeoutError:
            raise RequestError(
                f"{self.api_base} gave no answer within {limit_s:g} s", kind="timeout"
            ) from None
        except APIStatusError as error:
            raise self._status_error(error, request, limit_name) from None
        except (APIConnectionError, aiohttp.ClientError) as error:
            raise RequestError(
                f"the connection to {self.api_base} failed: {_reason(error)}",
                kind="connection",
            ) from None
        except ReplyTooLargeError:
            raise RequestError(
                f"{self.api_base} sent a reply of more than {self._max_reply_mb:g} MB, "
                "which is not read any further (--vlm-max-reply-mb)",
                kind="protocol",
                retryable=False,
            ) from None

    async def _exchange(
        self, client: AsyncOpenAI, path: str, body: bytes | None
    ) -> bytes:
        """Send a GET, or a POST with a `body`; go after the server where it moves to.

        Only within the same scheme, host and port, so that no key leaves them.
        """
        for _ in range(MOST_REDIRECTS):
            url = self._moved.get(path) or self.api_base + path
            try:
                if body is None:
                    return await client.get(
                        url, cast_to=bytes, options={"headers": self._headers}
                    )
                return await client.post(
                    url,
                    cast_to=bytes,
                    content=body,
                    options={"headers": self._headers},
                )
            except APIStatusError as error:
                if not 300 <= error.status_code < 400:
                    raise
                target = error.response.headers.get("location", "")
                self._moved[path] = self._follow(url, target, error.status_code, body)
        raise _MovedError(
            f"{self.api_base}{path} redirects again and again, last to "
            f"{_shown_url(self._moved.pop(path))}. Give the URL that answers with "
            f"{option_prefix(self._role)}api-base."
        )

    def _follow(self, url: str, target: str, status: int, body: bytes | None) -> str:
        """Return the URL of a redirect; `_MovedError` for one that is not followed."""
        said = f"{_shown_url(url)} answered {status}"
        option = f"{option_prefix(self._role)}api-base"
        try:
            moved = urljoin(url, target) if target else ""
            here, there = origin(url), printable(origin(moved)) if moved else ""
        except ValueError:
            moved = ""
        if not moved:
            raise _MovedError(
                f"{said}, a redirect without a valid address. See the server's log, or "
                f"give the URL of another with {option}."
            )
        if here != there:
            raise _MovedError(
                f"{said}: {here} redirects to {there}, and requests with their key go "
                f"only to the server that was named. If {there} is the right one, "
                f"give its URL with {option}."
            )
        if body is not None and status not in {307, 308}:
            raise _MovedError(
                f"{said}, a redirect to {_shown_url(moved)} that would make the "
                f"request one without a prompt. Give the URL that answers with "
                f"{option}."
            )
        return moved.partition("#")[0].partition("?")[0]

    async def _dress(self, request: httpx2.Request) -> None:
        """Add the query and the headers of the options to a request on its way."""
        if self._form.query:
            request.url = request.url.copy_merge_params(dict(self._form.query))
        for name, value in self._form.headers:
            request.headers[name] = value

    async def close(self) -> None:
        """Close all connections; requests still under way fail."""
        self._current = None
        for client in tuple(self._in_use):
            await client.close()

    def _new_client(self) -> AsyncOpenAI:
        return AsyncOpenAI(
            # Without a key openai would take one from the environment that was
            # meant for another server; the headers below then leave it out.
            api_key=self._api_key or "none",
            base_url=self.api_base,
            max_retries=0,
            # The deadline is kept here, by asyncio: openai's is one between reads.
            timeout=Timeout(None, connect=min(CONNECT_LIMIT_S, self._timeout_s)),
            http_client=DefaultAioHttpClient(
                verify=self._ssl_context,
                # A proxy of the environment cannot reach this machine's loopback.
                trust_env=not is_loopback(self.api_base),
                # The key, and what else headers hold, would go along.
                follow_redirects=False,
                event_hooks={
                    "request": [self._dress],
                    "response": [partial(bound, int(1e6 * self._max_reply_mb))],
                },
                limits=httpx2.Limits(
                    max_connections=self._concurrency, keepalive_expiry=IDLE_LIMIT_S
                ),
            ),
        )

    def _status_error(
        self, error: APIStatusError, request: Request, limit_name: str
    ) -> RequestError:
        status = error.status_code
        content = error.response.content
        words = self._reader.words(content) or "no message"
        if is_filtered(content):
            return RequestError(
                f"a filter of {self.api_base} stopped the prompt ({status}): {words}",
                kind="filtered",
                status=status,
            )
        # Where nothing is, the whole address tells what is wrong with it.
        url = self.api_base + ("/chat/completions" if status in _NOT_FOUND else "")
        text = f"{url} answered {status}: {words}"
        refusal = None
        if status in {400, 422}:
            refusal = read_refusal(content, limit_name)
        if refusal is not None and refusal.member in self._writer.members(request):
            return _MemberRefusedError(
                text, status, refusal, self._writer.members(request)
            )
        retryable = status in _RETRYABLE or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        # What is not asked again is no reason to let all others wait.
        wait_s = retry_after_s(error.response.headers) if retryable else None
        return RequestError(
            text,
            kind="status",
            status=status,
            retryable=retryable,
            retry_after_s=wait_s,
        )


class _MemberRefusedError(RequestError):
    """A member of the request that the server does not take as it is."""

    def __init__(
        self,
        message: str,
        status: int,
        refusal: MemberRefusal,
        sent: Mapping[str, object],
    ) -> None:
        super().__init__(message, kind="status", status=status)
        self.refusal = refusal
        self.sent = sent


class _MovedError(RequestError):
    """A redirect that is not followed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="status")


def _shown_url(url: str) -> str:
    """Return a URL as messages may show it: a server's redirect is any text."""
    return printable(shown_address(url))[:200]


# What libraries say of these is the text of their objects, with URL and headers.
_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (aiohttp.ClientPayloadError, "broken off in the middle of an answer"),
    (aiohttp.ServerDisconnectedError, "Server disconnected"),
    (aiohttp.ServerTimeoutError, "no connection in time"),
    (aiohttp.ClientHttpProxyError, "the proxy refused it"),
    (aiohttp.ClientProxyConnectionError, "the proxy cannot be reached"),
    (aiohttp.ClientConnectorDNSError, "the name of the host is not known"),
    (aiohttp.ClientResponseError, "what came back is not HTTP"),
    (aiohttp.InvalidURL, "the URL is not valid"),
    (TimeoutError, "no connection in time"),
)


# What comes of a request without TLS where it is wanted; some servers answer 400.
_MAYBE_TLS = {
    os.strerror(errno.ECONNRESET),
    *(words for kind, words in _REASONS if kind is aiohttp.ServerDisconnectedError),
    *(words for kind, words in _REASONS if kind is aiohttp.ClientResponseError),
}


def _reason(error: BaseException) -> str:
    """Return the cause of a lost connection in the system's words where it has any.

    openai says "Connection error." of everything, and its transport calls a reset
    connection a timeout: what happened stands at the end of the chain of causes. What
    else a library says is not repeated: the texts of its objects hold URLs and headers.
    """
    causes = [error]
    while (cause := causes[-1].__cause__) is not None and len(causes) < MOST_CAUSES:
        causes.append(cause)
    for cause in causes:
        if isinstance(cause, aiohttp.ClientPayloadError):
            return _REASONS[0][1]
        if isinstance(cause, UnreadableBodyError):  # words of our own
            return str(cause)
    last = causes[-1]
    if any(map(is_without_tls, causes)):
        return WITHOUT_TLS
    if isinstance(last, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted: {last.verify_message}; SSL_CERT_FILE "
            "names the file of one that is"
        )
    if isinstance(last, ssl.SSLError):
        # Its number is one of OpenSSL's own.
        words = getattr(last, "reason", None) or "error"
        return f"no TLS connection: {words.replace('_', ' ').lower()}"
    number = last.errno if isinstance(last, OSError) else None
    if number is not None and number in errno.errorcode:
        return os.strerror(number)
    for cause in reversed(causes):
        for kind, words in _REASONS:
            if isinstance(cause, kind):
                return words
    return type(last).__name__
