"""The client of an OpenAI-compatible endpoint: sends prompts, names what went wrong.

The only importer of openai. Its transport here is aiohttp's (the extra
`openai[aiohttp]`), which costs half the processor time of the default one.
"""

from __future__ import annotations

import asyncio
import errno
import os
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp
import httpx2  # what openai itself is built on
from openai import (
    APIConnectionError,
    APIStatusError,
    AsyncOpenAI,
    DefaultAioHttpClient,
    Omit,
    Timeout,
)

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.api_base import is_loopback, normalize_api_base
from pytest_vlmeval.models.bounded import ENCODINGS, Bound, ReplyTooLargeError
from pytest_vlmeval.models.chat import BodyWriter, ReplyReader, retry_after_s
from pytest_vlmeval.models.client import RequestError
from pytest_vlmeval.models.server_check import ServerCheck, key_advice
from pytest_vlmeval.option_values import ApiKey
from pytest_vlmeval.prompt_settings import AS_IT_IS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_vlmeval.models.client import Reply, Request
    from pytest_vlmeval.models.server_check import Role

CHECK_LIMIT_S = 5.0
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

    `timeout_s` is the deadline of a request from first to last byte, `concurrency`
    the most connections, `max_reply_mb` the longest reply (10^6 bytes). `max_tokens`
    and `temperature` are not sent where None. `role` tells messages about a model
    from those about a judge. Raises `VlmEvalError` for an unusable URL or key.
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
    ) -> None:
        if api_key and not (api_key.isascii() and api_key.isprintable()):
            raise VlmEvalError(
                "The API key holds a line break or another character that cannot be "
                f"sent. {key_advice(role)}"
            )
        self.api_base = normalize_api_base(api_base)
        self._url = f"{self.api_base}/chat/completions"
        self._api_key = ApiKey(api_key) if api_key else None
        self._timeout_s = timeout_s
        self._concurrency = concurrency
        self._max_reply_mb = max_reply_mb
        self._ssl_context = ssl.create_default_context()
        self._writer = BodyWriter(model, max_tokens, temperature)
        self._reader = ReplyReader(self.api_base, api_key)
        self._check = ServerCheck(model, self.api_base, self._reader, role)
        self._headers = _headers(with_key=bool(api_key))
        self._evidence: Mapping[str, str] = {}
        self._current: _Connections | None = None
        self._open: set[_Connections] = set()

    async def check(self) -> None:
        """Ask which models are served; `VlmEvalError` if ours cannot be asked.

        Uses connections of its own, so that it may run on another event loop.
        """
        try:
            async with asyncio.timeout(CHECK_LIMIT_S), self._new_client() as client:
                body = await client.get(
                    "/models", cast_to=bytes, options={"headers": self._headers}
                )
        except TimeoutError:
            raise self._check.no_server(
                f"no answer within {CHECK_LIMIT_S:.0f} s"
            ) from None
        except APIStatusError as error:
            self._check.read_status(error.status_code, error.response.content)
        except (APIConnectionError, aiohttp.ClientError) as error:
            raise self._check.no_server(_reason(error)) from None
        else:
            self._check.read_models(body)
            self._evidence = self._check.read_evidence(body)

    async def describe(self) -> Mapping[str, str]:
        """Return what the server's list of models says of ours, as `check` read it."""
        return self._evidence

    async def ask(self, request: Request) -> Reply:
        """Send one prompt and wait for its answer; `RequestError` without one."""
        body = await self._write(request)
        connections = self._connections()
        connections.in_use += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                data = await connections.client.post(
                    self._url,
                    cast_to=bytes,
                    content=body,
                    options={"headers": self._headers},
                )
        except TimeoutError:
            raise RequestError(
                f"{self.api_base} gave no answer within {self._timeout_s:g} s",
                kind="timeout",
                retryable=True,
            ) from None
        except APIStatusError as error:
            if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self._retire(connections)
            raise self._status_error(error) from None
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
        except Exception as error:
            # What a frame of the libraries holds, a traceback may print: the headers.
            raise self._reader.bug(error) from None
        finally:
            connections.in_use -= 1
            if connections.retired and not connections.in_use:
                await self._close(connections)
        return self._reader.read(data, request.prompting.tag_pairs)

    async def _write(self, request: Request) -> bytes:
        """Write the body; a thread of its own does where pictures are made smaller."""
        if request.prompting == AS_IT_IS:
            return self._writer.write(request)
        return await asyncio.to_thread(self._writer.write, request)

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
                limits=httpx2.Limits(
                    max_connections=self._concurrency, keepalive_expiry=IDLE_LIMIT_S
                ),
                event_hooks={"response": [Bound(int(1e6 * self._max_reply_mb))]},
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

    def _status_error(self, error: APIStatusError) -> RequestError:
        status = error.status_code
        body = error.response.content
        words = self._reader.words(body) or "no message"
        if self._reader.is_filtered(body):
            return RequestError(
                f"a filter of {self.api_base} stopped the prompt ({status}): {words}",
                kind="filtered",
                status=status,
                retryable=False,
            )
        return RequestError(
            f"{self.api_base} answered {status}: {words}",
            kind="status",
            status=status,
            retryable=status in _RETRYABLE
            or status >= HTTPStatus.INTERNAL_SERVER_ERROR,
            retry_after_s=retry_after_s(error.response.headers),
        )


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


def _reason(error: BaseException) -> str:
    """Give the cause of a lost connection in the system's words where it has any.

    openai says "Connection error." of everything, and its transport calls a reset
    connection a timeout: what happened stands at the end of the chain of causes.
    """
    while error.__cause__ is not None:
        error = error.__cause__
        if isinstance(error, aiohttp.ClientPayloadError):
            return "broken off in the middle of an answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted: {error.verify_message}; SSL_CERT_FILE "
            "names the file of one that is"
        )
    number = error.errno if isinstance(error, OSError) else None
    if number is not None and number in errno.errorcode:
        return os.strerror(number)
    return " ".join(str(error).split()) or type(error).__name__
