"""The bodies of replies, unpacked and read up to a bound, whatever a server sends."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from http import HTTPStatus

import httpx2

# What a client accepts; it unpacks these itself, so that a small body stays small.
ENCODINGS = "gzip, deflate"
ERROR_BYTES = 1_000_000  # of the body of an HTTP error that are read
_ANY_HEADER = 32 + zlib.MAX_WBITS


class ReplyTooLargeError(Exception):
    """A body is longer than the bound; nothing more of it is read."""


class UnreadableBodyError(httpx2.DecodingError):
    """A body is compressed in a way that cannot be undone."""


async def bound(limit: int, response: httpx2.Response) -> None:
    """Replace the body of a response, before it is read, by a bounded one.

    `limit` is that of a reply; an HTTP error and a list of models are cut instead.
    """
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    is_error = response.status_code >= HTTPStatus.BAD_REQUEST
    response.stream = BoundedStream(
        response.stream,
        response.headers.pop("content-encoding", ""),
        min(limit, ERROR_BYTES) if is_error else limit,
        cut=is_error or response.request.method == "GET",
    )


class BoundedStream(httpx2.AsyncByteStream):
    """The unpacked body of a response, at most `limit` bytes of it.

    A longer one ends there where `cut` is true, else raises `ReplyTooLargeError`.
    """

    def __init__(
        self,
        stream: httpx2.AsyncByteStream,
        encoding: str,
        limit: int,
        *,
        cut: bool,
    ) -> None:
        name = encoding.strip().lower()
        if name not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise UnreadableBodyError(
                f"its body is compressed by {name[:40]!r}, though only {ENCODINGS} "
                "were asked for"
            )
        self._stream = stream
        self._is_plain = name in {"", "identity"}
        self._inflate: zlib._Decompress | None = None
        self._limit = limit
        self._cut = cut

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body in parts."""
        received = unpacked = 0
        async for chunk in self._stream:
            received += len(chunk)
            rest = chunk
            while rest:
                part, rest = self._unpack(rest, self._limit + 1 - unpacked)
                unpacked += len(part)
                if unpacked > self._limit and self._cut:
                    yield part[: self._limit - unpacked]
                    return
                if unpacked > self._limit:
                    raise ReplyTooLargeError
                if part:
                    yield part
            if received > self._limit:  # of what unpacks to nothing
                if self._cut:
                    return
                raise ReplyTooLargeError

    def _unpack(self, chunk: bytes, most: int) -> tuple[bytes, bytes]:
        """Unpack gzip or zlib to at most so many bytes; return the next member too."""
        if self._is_plain:
            return chunk[:most], b""
        if self._inflate is None or self._inflate.eof:
            self._inflate = zlib.decompressobj(_ANY_HEADER)
        try:
            part = self._inflate.decompress(chunk, most)
        except zlib.error:
            raise UnreadableBodyError("its compressed body is damaged") from None
        return part, self._inflate.unused_data

    async def aclose(self) -> None:
        """Let go of the connection; a body that has not ended ends it."""
        await self._stream.aclose()
