"""The bodies of replies, unpacked and read up to a bound, whatever a server sends."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
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
        self._stream = stream
        self._unpacker = _unpacker(encoding)
        self._limit = limit
        self._cut = cut

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the body in parts."""
        received = unpacked = 0
        async for chunk in self._stream:
            received += len(chunk)
            for part in self._unpacker.unpack(chunk, self._limit + 1 - unpacked):
                unpacked += len(part)
                if unpacked > self._limit and self._cut:
                    yield part[: self._limit - unpacked]
                    return
                if unpacked > self._limit:
                    raise ReplyTooLargeError
                yield part
            if received > self._limit:  # of what unpacks to nothing
                if self._cut:
                    return
                raise ReplyTooLargeError

    async def aclose(self) -> None:
        """Let go of the connection; a body that has not ended ends it."""
        await self._stream.aclose()


class _Plain:
    def unpack(self, chunk: bytes, most: int) -> Iterator[bytes]:
        """Yield the chunk as it is."""
        yield chunk[:most]


class _Zipped:
    """Unpacks gzip, one member or several, and zlib."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_ANY_HEADER)

    def unpack(self, chunk: bytes, most: int) -> Iterator[bytes]:
        """Yield what a chunk unpacks to, at most so many bytes."""
        while chunk and most > 0:
            if self._inflate.eof:
                self._inflate = zlib.decompressobj(_ANY_HEADER)
            try:
                part = self._inflate.decompress(chunk, most)
            except zlib.error:
                raise UnreadableBodyError("its compressed body is damaged") from None
            chunk = self._inflate.unused_data
            most -= len(part)
            if part:
                yield part


def _unpacker(encoding: str) -> _Plain | _Zipped:
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return _Plain()
    if name in ("gzip", "x-gzip", "deflate"):
        return _Zipped()
    raise UnreadableBodyError(
        f"its body is compressed by {name[:40]!r}, though only {ENCODINGS} were asked "
        "for"
    )


class Bound:
    """Sets the bounds of the responses of a client, before they are read.

    `limit` is that of a reply; an HTTP error and a list of models are cut instead.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit

    async def __call__(self, response: httpx2.Response) -> None:
        """Replace the body of a response by a bounded one."""
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        is_error = response.status_code >= HTTPStatus.BAD_REQUEST
        response.stream = BoundedStream(
            response.stream,
            response.headers.pop("content-encoding", ""),
            min(self._limit, ERROR_BYTES) if is_error else self._limit,
            cut=is_error or response.request.method == "GET",
        )
