"""One file over HTTP: taken up where it was cut, asked for again where that may help.

What has arrived lies in a `.part` file; the note beside it names the address and the
version (ETag or Last-Modified) it belongs to, so that two versions are never mixed.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from email.message import Message

TIMEOUT_S = 30.0
CHUNK_BYTES = 2**20
RETRIED = {408, 429}

Announce = Callable[[str], None]


class Patience(NamedTuple):
    """How often a server is asked again, and how long is waited before.

    `attempts` in a row that bring nothing new end a transfer. A wait starts at
    `first_wait_s`, doubles, and like the server's own Retry-After never exceeds
    `longest_wait_s`. Progress is told every `report_s`.
    """

    attempts: int = 4
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    report_s: float = 5.0


PATIENCE = Patience()


class TransferError(Exception):
    """A file cannot be had; the text says why."""


class _InterruptedError(Exception):
    """One attempt failed; another may do better if `retry`, after `wait_s` if given."""

    def __init__(
        self, reason: str, *, retry: bool, wait_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.retry = retry
        self.wait_s = wait_s


class PartFile:
    """What has arrived of a file, and the note of what it is a part of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._note = path.with_name(path.name + ".json")

    @property
    def size(self) -> int:
        """Bytes that have arrived."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> str:
        """Give the version of `url` that this is the start of; empty for none."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            note = json.loads(self._note.read_text(encoding="utf-8"))
            if note["url"] == url:
                return str(note["version"])
        return ""

    def start(self, url: str, version: str) -> None:
        """Forget what has arrived and note what comes."""
        self.discard()
        note = json.dumps({"url": url, "version": version})
        self._note.write_text(note, encoding="utf-8")

    def discard(self) -> None:
        """Remove both files."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Put the whole file in its place, at once."""
        self.path.replace(target)
        self._note.unlink(missing_ok=True)


def receive_file(
    url: str,
    part: PartFile,
    *,
    name: str,
    announce: Announce,
    patience: Patience = PATIENCE,
) -> None:
    """Bring all of `url` into `part`.

    Raises TransferError when the server has no such file or stays away, OSError when
    the disk does not take it; what has arrived is kept for the next time.
    """
    meter = _Meter(name, announce, patience.report_s)
    farthest = part.size
    failures = 0
    while True:
        try:
            return _attempt(url, part, meter)
        except _InterruptedError as trouble:
            failures = 1 if part.size > farthest else failures + 1
            farthest = max(farthest, part.size)
            if not trouble.retry or failures >= patience.attempts:
                if not part.version(url):
                    part.discard()
                times = f" (tried {failures} times)" if trouble.retry else ""
                raise TransferError(f"{trouble}{times}") from trouble
            wait_s = patience.first_wait_s * 2 ** (failures - 1)
            wait_s = min(trouble.wait_s or wait_s, patience.longest_wait_s)
            announce(f"downloading {name}: {trouble}; again in {wait_s:.0f} s")
        time.sleep(wait_s)


def _attempt(url: str, part: PartFile, meter: _Meter) -> None:
    have, version = part.size, part.version(url)
    if not version:
        have = 0
    headers = {"Range": f"bytes={have}-", "If-Range": version} if have else {}
    try:
        response = open_url(url, headers=headers)
    except urllib.error.HTTPError as error:
        with error:
            if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise _refusal(error) from error
        # Nothing lies beyond what is here: it is whole, or of another version.
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return
        raise _start_over(part) from error
    except (OSError, http.client.HTTPException) as error:
        raise _failure(error) from error
    with response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if resumed and not _continues(response.headers, have, version):
            raise _start_over(part)
        if not resumed:
            have = 0
            part.start(url, _version(response.headers))
        _write(response, part, have, meter)


def open_url(
    url: str,
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> http.client.HTTPResponse:
    """Ask for a URL, TLS verified; the errors are urllib's and http.client's."""
    plain = {"Accept-Encoding": "identity", "User-Agent": "pytest-vlmeval"}
    request = urllib.request.Request(
        url, headers={**plain, **(headers or {})}, method=method
    )
    response: http.client.HTTPResponse = urllib.request.urlopen(
        request, timeout=timeout_s
    )
    return response


def _start_over(part: PartFile) -> _InterruptedError:
    part.discard()
    return _InterruptedError("the file has changed on the server", retry=True)


def _version(headers: Message) -> str:
    etag = headers.get("ETag", "")
    # A weak tag holds for files that differ in their bytes.
    return headers.get("Last-Modified", "") if etag[:2] in ("", "W/") else etag


def _continues(headers: Message, have: int, version: str) -> bool:
    """Whether a partial answer goes on where the part ends, in the same version."""
    given = headers.get("Content-Range", "")
    found = (headers.get("ETag"), headers.get("Last-Modified"))
    return given.startswith(f"bytes {have}-") and (
        version in found or found == (None, None)
    )


def _write(
    response: http.client.HTTPResponse, part: PartFile, have: int, meter: _Meter
) -> None:
    length = response.headers.get("Content-Length")
    total = have + int(length) if length is not None else None
    _check_space(part.path.parent, have, total)
    meter.begin(have, total)
    with part.path.open("ab" if have else "wb") as file:
        while chunk := _read(response):
            file.write(chunk)
            have += len(chunk)
            meter.show(have)
    if total is not None and have != total:
        raise _InterruptedError(
            f"the connection was cut after {have} of {total} bytes", retry=True
        )


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        # What one call of the socket brings, so that a cut loses nothing.
        return response.read1(CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _failure(error) from error


def _check_space(folder: Path, have: int, total: int | None) -> None:
    free = shutil.disk_usage(folder).free
    if total is not None and total - have > free:
        raise TransferError(
            f"{(total - have) / 1e9:.1f} GB are to come, and the disk of {folder} has "
            f"{free / 1e9:.1f} GB free"
        )


def _refusal(error: urllib.error.HTTPError) -> _InterruptedError:
    return _InterruptedError(
        f"the server answered {error.code} {error.reason}",
        retry=error.code in RETRIED or error.code >= 500,
        wait_s=_retry_after(error.headers),
    )


def _retry_after(headers: Message) -> float | None:
    """Read Retry-After: seconds, or a date."""
    given = headers.get("Retry-After", "")
    with suppress(ValueError):
        return max(0.0, float(given))
    with suppress(ValueError):
        until = email.utils.parsedate_to_datetime(given)
        return max(0.0, until.timestamp() - time.time())
    return None


def _failure(error: Exception) -> _InterruptedError:
    cause = getattr(error, "reason", error)
    # A bad certificate, or a name that nobody has, will not be mended in a second.
    lasting = isinstance(cause, ssl.SSLCertVerificationError) or (
        isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME
    )
    return _InterruptedError(str(cause) or type(cause).__name__, retry=not lasting)


class _Meter:
    """Says every few seconds how far a transfer has come."""

    def __init__(self, name: str, announce: Announce, every_s: float) -> None:
        self._name = name
        self._announce = announce
        self._every_s = every_s
        self._spoke_at = time.monotonic()

    def begin(self, have: int, total: int | None) -> None:
        """Take where an attempt starts."""
        self._began_at = time.monotonic()
        self._began_with = have
        self._total = total

    def show(self, have: int) -> None:
        """Speak if it is time to."""
        now = time.monotonic()
        if now - self._spoke_at < self._every_s:
            return
        self._spoke_at = now
        speed = (have - self._began_with) / max(now - self._began_at, 1e-3)
        self._announce(progress_line(self._name, have, self._total, speed))


def progress_line(name: str, have: int, total: int | None, speed: float) -> str:
    """Give `downloading NAME: 120 of 480 MB, 12 MB/s, 0:30 left`; bytes, bytes/s."""
    speed_text = f"{speed / 1e6:.{0 if speed >= 1e7 else 1}f} MB/s"
    if total is None:
        return f"downloading {name}: {have / 1e6:.0f} MB, {speed_text}"
    left = int((total - have) / max(speed, 1.0))
    return (
        f"downloading {name}: {have / 1e6:.0f} of {total / 1e6:.0f} MB, {speed_text}, "
        f"{left // 60}:{left % 60:02d} left"
    )
