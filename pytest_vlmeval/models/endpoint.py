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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
from pytest_vlmeval.models.bounded import (
    ENCODINGS,
    Bound,
    ReplyTooLargeError,
    UnreadableBodyError,
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
from pytest_vlmeval.models.refusals import MemberRefusal, read_refusal
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


class ServerCheck:
    """Judges what an endpoint answers at the start; errors are `VlmEvalError`.

    `role` is what the model is there for, as its texts name the options of that.
    """

    def __init__(
        self, model: str, api_base: str, reader: ReplyReader, role: Role
    ) -> None:
        self._model = model
        self._api_base = api_base
        self._reader = reader
        self._role = role
        self._option = option_prefix(role)
        # `transformers serve` lists only what its cache holds, if it has one at all,
        # and loads at the first request, which may take minutes.
        self._named_by_path = model.startswith("/")

    def no_server(self, reason: str) -> VlmEvalError:
        """Describe how to start a server where none answered."""
        parts = urlsplit(self._api_base)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        whose = "judge's " if self._role == "judge" else ""
        return VlmEvalError(
            f"No {whose}server answers at {self._api_base} ({reason}). Start one "
            "there:\n"
            f"    swift deploy --model CHECKPOINT_OR_MODEL_ID "
            f"--served_model_name {shlex.quote(self._model)} --port {port}\n"
            f"or give the URL of another with {self._option}api-base, or run without "
            + (
                "a judge with --vlm-judge=exact_matching."
                if self._role == "judge"
                else "a server with --vlm-model=demo."
            )
        )

    def read_status(self, status: int, body: bytes) -> Listing:
        """Return what an HTTP error in place of the list means; raise for a bad key."""
        words = self._reader.words(body)
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
            raise VlmEvalError(
                f"The server at {self._api_base} refuses the API key, or the lack of "
                f"one: it answered {status}{said}. {key_advice(self._role)}"
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
        words = self._reader.words(body) or "an empty body"
        return Listing(problem=f"answered with what is not a list of models: {words}")

    def is_settled(self, listing: Listing) -> bool:
        """Return whether no request is needed to know that the model can be asked."""
        return self._named_by_path or listing.find(self._model) is not None

    def explain(self, listing: Listing, error: RequestError | None) -> str:
        """Describe how it goes on after a real request; raise where it cannot.

        `error` is why that got no answer, None where it got one.
        """
        if error is not None:
            words = str(error)
            self._check_key(error.status or 0, words.partition(": ")[2])
            if not self._may_be_of_the_request(error):
                raise self._refused(listing, error)
            outcome = f"A request for {self._model!r} was refused ({words})"
        else:
            outcome = f"A request for {self._model!r} was answered"
        if listing.problem:
            return (
                f"{self._api_base}/models {listing.problem.rstrip('.')}. {outcome}, so "
                "that the run goes on."
            )
        return (
            f"The server at {self._api_base} does not list {self._model!r}, but: "
            f"{self._shown(listing)}. {outcome}, so that the run goes on."
        )

    def _may_be_of_the_request(self, error: RequestError) -> bool:
        """Return whether a refusal is about the request, and not about the model."""
        if error.status == 429:
            return True
        words = str(error)
        named = re.search(rf"""[`'"]{re.escape(self._model)}[`'"]""", words)
        of_the_model = named or _NO_SUCH_MODEL.search(words)
        return error.status in {400, 413, 422} and not of_the_model

    def _refused(self, listing: Listing, error: RequestError) -> VlmEvalError:
        if not listing.problem:
            return self._not_served(listing, error)
        if error.status in {404, 405} and listing.status in {404, 405, None}:
            return VlmEvalError(
                f"{self._api_base}/models {listing.problem.rstrip('.')}, and a request "
                f"to {self._api_base}/chat/completions was refused: {error}. Either "
                "this is not the base URL of an OpenAI-compatible API, which mostly "
                f"ends in /v1: give it with {self._option}api-base. Or the server does "
                f"not serve {self._model!r}: give the name with --vlm-{self._role}."
            )
        if error.kind == "protocol":
            return VlmEvalError(
                f"{self._api_base}/models {listing.problem.rstrip('.')}, and a request "
                f"for {self._model!r} has no answer: {error}. Is this the base URL of "
                "an OpenAI-compatible API? Such URLs mostly end in /v1. Give it with "
                f"{self._option}api-base."
            )
        return VlmEvalError(
            f"The server at {self._api_base} cannot be asked: its list of models "
            f"{listing.problem.rstrip('.')}, and a request for {self._model!r} has no "
            f"answer: {error}. See its log, give the URL of another with "
            f"{self._option}api-base, or the name that it serves with "
            f"--vlm-{self._role}."
        )

    def _not_served(self, listing: Listing, error: RequestError) -> VlmEvalError:
        question = did_you_mean(self._model, listing.entries, most=1)
        return VlmEvalError(
            f"The server at {self._api_base} does not serve {self._model!r}.{question} "
            f"It serves: {self._shown(listing)}. Give one of these with "
            f"--vlm-{self._role}. It was asked all the same, and refused: {error}"
        )

    def _shown(self, listing: Listing) -> str:
        names = list(listing.entries)
        shown = printable(", ".join(names[:NAMES_SHOWN])) or "none"
        if len(names) > NAMES_SHOWN:
            shown += f" and {len(names) - NAMES_SHOWN} more"
        return shown


# The loggers of what sends a request; a filter does not count for those below it.
_LOGGERS = ("httpx2", "httpx", "openai", "openai._base_client", "aiohttp.client")


class _Hiding(logging.Filter):
    """Puts *** in the place of each text that is secret."""

    def __init__(self) -> None:
        super().__init__()
        self.secrets: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, without the secrets in it."""
        text = record.getMessage()
        if any(secret in text for secret in self.secrets):
            for secret in sorted(self.secrets, key=len, reverse=True):
                text = text.replace(secret, "***")
            record.msg, record.args = text, ()
        return True


_HIDING = _Hiding()


def hide_in_logs(values: Iterable[str]) -> None:
    """Let no log of this process show these texts, nor their forms in a URL."""
    forms = {
        form for value in values for form in (value, quote(value), quote_plus(value))
    }
    _HIDING.secrets |= forms - {""}
    if _HIDING.secrets:
        for name in _LOGGERS:
            # A filter is added once, however often it is given.
            logging.getLogger(name).addFilter(_HIDING)


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


class _Connections:
    """A pool of connections; a retired one is closed after its last request."""

    def __init__(self, client: AsyncOpenAI) -> None:
        self.client = client
        self.in_use = 0
        self.retired = False


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
        self._learned.look(self.api_base, model)
        self._ssl_context = ssl.create_default_context()
        self._defaults = model, max_tokens, temperature, form.left_out
        self._writer = BodyWriter(*self._defaults, self._limit_name)
        self._reader = ReplyReader(self.api_base, api_key, *form.secrets)
        self._check = ServerCheck(model, self.api_base, self._reader, role)
        self._headers = _headers(with_key=bool(api_key))
        self._evidence: Mapping[str, str] = {}
        hide_in_logs(value for _, value in form.query)
        # Where the server itself has sent us, by the paths of the API.
        self._moved: dict[str, str] = {}
        self._refused = ""
        self._current: _Connections | None = None
        self._open: set[_Connections] = set()

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
        async with self._new_client() as client:
            listing = await self._list_models(client)
            entry = listing.find(self._model)
            self._evidence = read_entry(entry) if entry is not None else {}
            if self._check.is_settled(listing):
                return
            # What gave no list within seconds gets no minute for an answer.
            limit_s = SILENT_TRY_LIMIT_S if listing.lost else TRY_LIMIT_S
            error = await self._try(client, limit_s)
        if listing.lost and error is not None and error.kind in _LOST:
            raise self._check.no_server(listing.lost)
        if listing.moved and isinstance(error, _MovedError):
            raise VlmEvalError(listing.moved)
        self._learned.announce(self._check.explain(listing, error))

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
            body = await self._deliver(client, request, limit_s)
        except RequestError as error:
            return error
        return self._reader.explain_no_completion(body)

    async def ask(self, request: Request) -> Reply:
        """Send one prompt and wait for its answer; `RequestError` without one.

        Raises `OutageError` where the server takes no request as they are to be sent.
        """
        if self._refused:
            raise OutageError(self._refused)
        connections = self._connections()
        connections.in_use += 1
        try:
            data = await self._deliver(connections.client, request, self._timeout_s)
        except RequestError as error:
            if (error.status or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self._retire(connections)
            raise
        except OutageError as error:
            self._refused = str(error)
            raise
        except Exception as error:
            # What a frame of the libraries holds, a traceback may print: the headers.
            raise self._reader.bug(error) from None
        finally:
            connections.in_use -= 1
            if connections.retired and not connections.in_use:
                await self._close(connections)
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
            f"{self.api_base} takes the token limit as {name} and not as max_tokens: "
            f"it is sent so from now on ({prefix}max-tokens-name={name} says it at "
            "once)."
        )

    def _refuse(self, error: _MemberRefusedError) -> OutageError:
        """Describe which option sends a member otherwise; nothing more is asked."""
        prefix, said = option_prefix(self._role), str(error).rstrip(".")
        if error.refusal.member == "max_tokens":
            return OutageError(
                f"No request is taken with its token limit: {said}. "
                f"{prefix}max-tokens-name=NAME sends it under another name, and "
                f"{prefix}max-tokens=none leaves it out."
            )
        return OutageError(
            f"No request is taken with its temperature: {said}. "
            f"{prefix}temperature=none leaves it out, so that the server's own counts, "
            f"and {prefix}temperature=T sends another. Both change the answers, and so "
            "are never done without being asked for."
        )

    async def _post(
        self, client: AsyncOpenAI, request: Request, limit_s: float, limit_name: str
    ) -> bytes:
        """Send one request; every failure is a `RequestError`."""
        writer = self._writer_for(limit_name)
        body = await _write(writer, request)
        try:
            async with asyncio.timeout(limit_s):
                return await self._exchange(client, "/chat/completions", body)
        except TimeoutError:
            raise RequestError(
                f"{self.api_base} gave no answer within {limit_s:g} s",
                kind="timeout",
                retryable=True,
            ) from None
        except APIStatusError as error:
            raise self._status_error(error, writer, request) from None
        except (APIConnectionError, aiohttp.ClientError) as error:
            raise RequestError(
                f"the connection to {self.api_base} failed: {_reason(error)}",
                kind="connection",
                retryable=True,
            ) from None
        except ReplyTooLargeError:
            raise RequestError(
                f"{self.api_base} sent a reply of more than {self._max_reply_mb:g} MB, "
                "which is not read any further (--vlm-max-reply-mb)",
                kind="protocol",
                retryable=False,
            ) from None

    def _writer_for(self, limit_name: str) -> BodyWriter:
        if self._writer.max_tokens_name != limit_name:
            self._writer = BodyWriter(*self._defaults, limit_name)
        return self._writer

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
        for connections in tuple(self._open):
            await self._close(connections)

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
                    "response": [Bound(int(1e6 * self._max_reply_mb))],
                },
                limits=httpx2.Limits(
                    max_connections=self._concurrency, keepalive_expiry=IDLE_LIMIT_S
                ),
            ),
        )

    def _connections(self) -> _Connections:
        if self._current is None:
            self._current = _Connections(self._new_client())
            self._open.add(self._current)
        return self._current

    def _retire(self, connections: _Connections) -> None:
        """Let no further request use these connections.

        After a 500 servers close the connection without saying so, and the next
        request on it would be lost.
        """
        connections.retired = True
        if self._current is connections:
            self._current = None

    async def _close(self, connections: _Connections) -> None:
        self._open.discard(connections)
        await connections.client.close()

    def _status_error(
        self, error: APIStatusError, writer: BodyWriter, request: Request
    ) -> RequestError:
        status = error.status_code
        content = error.response.content
        words = self._reader.words(content) or "no message"
        if self._reader.is_filtered(content):
            return RequestError(
                f"a filter of {self.api_base} stopped the prompt ({status}): {words}",
                kind="filtered",
                status=status,
                retryable=False,
            )
        text = f"{self.api_base} answered {status}: {words}"
        refusal = None
        if status in {400, 422}:
            refusal = read_refusal(content, writer.max_tokens_name)
        if refusal is not None and writer.sends(refusal.member, request):
            return _MemberRefusedError(text, status, refusal)
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

    def __init__(self, message: str, status: int, refusal: MemberRefusal) -> None:
        super().__init__(message, kind="status", status=status, retryable=False)
        self.refusal = refusal


class _MovedError(RequestError):
    """A redirect that is not followed."""

    def __init__(self, message: str) -> None:
        super().__init__(message, kind="status", retryable=False)


async def _write(writer: BodyWriter, request: Request) -> bytes:
    """Write the body; a thread of its own does where images are made smaller."""
    if request.prompting.leaves_images:
        return writer.write(request)
    return await asyncio.to_thread(writer.write, request)


def _shown_url(url: str) -> str:
    """Return a URL as messages may show it: a server's redirect is any text."""
    return printable(shown_address(url))[:200]


def _headers(*, with_key: bool) -> dict[str, str | Omit]:
    """Headers of each request; `Omit` keeps out what openai would add of itself."""
    headers: dict[str, str | Omit] = {
        "Content-Type": "application/json",
        "Accept-Encoding": ENCODINGS,
        "OpenAI-Organization": Omit(),
        "OpenAI-Project": Omit(),
    }
    if not with_key:
        headers["Authorization"] = Omit()
    return headers


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
    if isinstance(last, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted: {last.verify_message}; SSL_CERT_FILE "
            "names the file of one that is"
        )
    number = last.errno if isinstance(last, OSError) else None
    if number is not None and number in errno.errorcode:
        return os.strerror(number)
    for cause in reversed(causes):
        for kind, words in _REASONS:
            if isinstance(cause, kind):
                return words
    return type(last).__name__
