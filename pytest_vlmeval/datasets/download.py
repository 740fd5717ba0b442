"""Brings a dataset's file to where ms-vlmeval's users keep theirs, and checks it.

What has arrived lies in a `.part` file; the note beside it names the address and the
version (ETag or Last-Modified) it belongs to, so that two versions are never mixed.

Its classes take a folder that exists for one that is complete, so archives that were
half unpacked when a process was killed would never be unpacked again.
"""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import json
import shutil
import socket
import ssl
import sys
import time
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DataVersion
from pytest_vlmeval.sandbox.environment import waiting_lock, write_held
from pytest_vlmeval.sandbox.own_files import not_published, open_regular

if TYPE_CHECKING:
    from collections.abc import Sequence
    from email.message import Message

    from pytest_vlmeval.records import DatasetInfo, Hub

GB = 10**9


def data_path(info: DatasetInfo, data_root: Path) -> Path:
    """Return where a dataset's file lies, or will lie."""
    return info.path or data_root / f"{info.settings.get('dataset', info.name)}.tsv"


def source_of(info: DatasetInfo, mirror: str | None) -> str | None:
    """Return the URL or, with a folder as mirror, the path a file is taken from."""
    if mirror is None:
        return info.url
    published = urllib.parse.urlsplit(info.url or f"{info.name}.tsv").path
    name = published.rsplit("/", 1)[-1]
    if is_url(mirror):
        return f"{mirror.rstrip('/')}/{name}"
    return str(Path(mirror) / urllib.parse.unquote(name))


def is_url(source: str) -> bool:
    """Tell a URL from a path."""
    return source.lower().startswith(("http://", "https://"))


def md5_of_file(path: Path, cache_dir: Path) -> str:
    """Return the MD5 of a file, remembered until its size or time changes.

    MD5 because ms-vlmeval publishes it; it tells versions apart, no more.
    """
    stat = path.stat()
    where = str(path.absolute())
    state = [where, stat.st_size, stat.st_mtime_ns]
    memory = cache_dir / "checksums" / f"{digest(where)}.json"
    with suppress(OSError, ValueError, TypeError):
        *known, checksum = json.loads(memory.read_text(encoding="utf-8"))
        if known == state:
            return str(checksum)
    with open_regular(path) as file:
        checksum = hashlib.file_digest(file, new_md5).hexdigest()
    remember(memory, [*state, checksum])
    return checksum


def digest(parts: object) -> str:
    """Return 32 signs that tell plain data from others."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def remember(memory: Path, data: object) -> None:
    """Keep data as JSON; a cache that cannot be written costs time only."""
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_held(memory, json.dumps(data).encode())


def size_text(size: int) -> str:
    """Return bytes as `480 MB` or `12.3 GB` (10^6 and 10^9 bytes)."""
    if size >= GB:
        return f"{size / GB:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 10**6 else "< 1 MB"


def new_md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)


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
        """Return the version of `url` that this is the start of; empty for none."""
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
    patience: Patience,
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
        except _InterruptedError as problem:
            failures = 1 if part.size > farthest else failures + 1
            farthest = max(farthest, part.size)
            if not problem.retry or failures >= patience.attempts:
                if not part.version(url):
                    part.discard()
                times = f" (tried {failures} times)" if problem.retry else ""
                raise TransferError(f"{problem}{times}") from problem
            wait_s = patience.first_wait_s * 2 ** (failures - 1)
            wait_s = min(problem.wait_s or wait_s, patience.longest_wait_s)
            announce(f"downloading {name}: {problem}; again in {wait_s:.0f} s")
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
                raise _InterruptedError(
                    f"the server answered {error.code} {error.reason}",
                    retry=error.code in RETRIED or error.code >= 500,
                    wait_s=_retry_after(error.headers),
                ) from error
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
            etag = response.headers.get("ETag", "")
            # A weak tag holds for files that differ in their bytes.
            weak = etag[:2] in ("", "W/")
            part.start(url, response.headers.get("Last-Modified", "") if weak else etag)
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


def _continues(headers: Message, have: int, version: str) -> bool:
    """Return whether a partial answer continues the part, in the same version."""
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
    free = shutil.disk_usage(part.path.parent).free
    if total is not None and total - have > free:
        raise TransferError(
            f"{(total - have) / 1e9:.1f} GB are to come, and the disk of "
            f"{part.path.parent} has {free / 1e9:.1f} GB free"
        )
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
    # A bad certificate, or a name that nobody has, will not be fixed in a second.
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
    """Return `downloading NAME: 120 of 480 MB, 12 MB/s, 0:30 left`; bytes, bytes/s."""
    speed_text = f"{speed / 1e6:.{0 if speed >= 1e7 else 1}f} MB/s"
    if total is None:
        return f"downloading {name}: {have / 1e6:.0f} MB, {speed_text}"
    left = int((total - have) / max(speed, 1.0))
    return (
        f"downloading {name}: {have / 1e6:.0f} of {total / 1e6:.0f} MB, {speed_text}, "
        f"{left // 60}:{left % 60:02d} left"
    )


class FileAccess(NamedTuple):
    """Where files lie, and how missing ones are had.

    `mirror` is a URL or a folder; of the `hubs` the first is preferred. `own_paths`
    says whether images that a user's own table names may lie outside of its folder.
    `digest` gives for each of them a digest of its content or why it has none: whoever
    reads such files does so in the sandbox. `client` gives the interpreter that has a
    hub's client, and no repository of the user's own is downloaded that has more than
    `max_gb`. `announce` gets what is worth a line.
    """

    data_root: Path
    cache_dir: Path
    allow_modified: bool = False
    offline: bool = False
    mirror: str | None = None
    hubs: Sequence[Hub] = ()
    announce: Announce = lambda line: None
    patience: Patience = Patience()
    own_paths: Literal["any", "inside"] = "any"
    client: Callable[[str], Path] = lambda hub: Path(sys.executable)
    max_gb: float | None = None
    digest: Callable[[Sequence[Path]], Sequence[tuple[str, str]]] = lambda files: ()


class DatasetFile(NamedTuple):
    """A dataset's file on disk; `modified` says that it is not a published one."""

    path: Path
    checksum: str
    modified: bool


def fetch_dataset(
    info: DatasetInfo, access: FileAccess, place: Path | None = None
) -> DatasetFile:
    """Return the dataset's file, downloading it to `data_root/NAME.tsv` if missing.

    `place` is where else it lies. A mirror stands in for the published address, under
    the same file name. A file that is there is never overwritten. Raises VlmEvalError
    when there is no file and none can be had, and, unless `allow_modified`, for
    another checksum than the published one.
    """
    path = place or data_path(info, access.data_root)
    if not path.is_file():
        if info.path is not None:
            raise VlmEvalError(
                f"{info.name}: there is no file {path}. Name a .tsv file that exists."
            )
        if path.exists():
            raise VlmEvalError(
                f"{info.name}: {path} is not a regular file. Remove it to have the "
                "dataset's file downloaded."
            )
        _bring(info, path, access)
    else:
        _drop_part(info, path, access.cache_dir / "locks")
    checksum = info.checksum or md5_of_file(path, access.cache_dir)
    modified = not info.is_published(checksum)
    if modified and not access.allow_modified:
        said = f"its MD5 is {checksum}, {info.published}"
        remedy = "Remove it to have it downloaded again"
        raise not_published(info.name, path, said, remedy)
    return DatasetFile(path, checksum, modified)


def _part_of(path: Path) -> PartFile:
    return PartFile(path.with_name(f".{path.name}.part"))


def _drop_part(info: DatasetInfo, path: Path, locks: Path) -> None:
    """Remove what is left of a download of a file that is there, if none goes on."""
    part = _part_of(path)
    if not part.path.exists():
        return
    from filelock import FileLock, Timeout

    with suppress(OSError, Timeout):
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"download-{info.name}.lock", timeout=0):
            part.discard()


def fetch_file(
    info: DatasetInfo, url: str, path: Path, md5: str | None, access: FileAccess
) -> Path:
    """Return a further file of a dataset, in the same way; raises VlmEvalError."""
    return fetch_dataset(
        replace(info, url=url, md5=md5, versions=(), path=None), access, path
    ).path


def _bring(info: DatasetInfo, path: Path, access: FileAccess) -> None:
    """Bring a missing file, or wait until the process that is at it has it."""
    source = source_of(info, access.mirror)
    if source is None:
        raise _cannot_download(info, path, None, "ms-vlmeval names no URL for it")
    if access.offline and is_url(source):
        raise _cannot_download(info, path, source, "--vlm-offline is set")
    locks = access.cache_dir / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with waiting_lock(
            locks / f"download-{info.name}.lock",
            lambda: access.announce(f"waiting for the download of {info.name}"),
        ):
            if not path.is_file():
                _bring_locked(info, path, source, access)
    except (OSError, TransferError) as error:
        raise _cannot_download(info, path, source, _reason(error)) from error


def _bring_locked(
    info: DatasetInfo, path: Path, source: str, access: FileAccess
) -> None:
    part = _part_of(path)
    if is_url(source):
        receive_file(
            source,
            part,
            name=info.name,
            announce=access.announce,
            patience=access.patience,
        )
    else:
        shutil.copyfile(source, part.path)
    with part.path.open("rb") as file:
        checksum = hashlib.file_digest(file, new_md5).hexdigest()
    if not info.is_published(checksum):
        # Every run would take it for the dataset once it is there.
        if access.allow_modified and path.suffix == ".tsv" and not _may_be_table(part):
            part.discard()
            raise TransferError("what came is no table with names and rows")
        if not access.allow_modified:
            part.discard()
            raise TransferError(
                f"what came has the MD5 {checksum}, {info.published}. Where its "
                "publisher has changed the file, --vlm-allow-modified-data takes it, "
                "and marks its score as modified"
            )
        access.announce(
            f"downloaded {info.name}: its MD5 is {checksum}, {info.published}; it is "
            "evaluated as modified data"
        )
    part.finish(path)


def _may_be_table(part: PartFile) -> bool:
    """Return whether a file begins as a table: names with tabs between, and rows."""
    with part.path.open("rb") as file:
        return b"\t" in file.readline() and bool(file.readline().strip())


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return (
            f"{error.strerror} ({error.filename})" if error.filename else error.strerror
        )
    return str(error)


def _cannot_download(
    info: DatasetInfo, path: Path, source: str | None, reason: str
) -> VlmEvalError:
    origin = f" from {source}" if source else ""
    return VlmEvalError(
        f"{info.name}: its file is missing and cannot be downloaded{origin}: {reason}. "
        f"Put the file at {path}, or set LMUData to the folder that holds "
        f"{path.name}."
    )


VERSIONS = Path(__file__).with_name("versions.toml")


@lru_cache(maxsize=1)
def load_versions() -> Mapping[str, tuple[DataVersion, ...]]:
    """Return those that are known of each dataset, the oldest first."""
    tables = tomllib.loads(VERSIONS.read_text(encoding="utf-8"))
    return {
        name: tuple(
            DataVersion(**{**entry, "date": entry["date"].isoformat()})
            for entry in entries
        )
        for name, entries in tables.items()
    }


@contextmanager
def unpacking(folders: Iterable[str], note: Path) -> Iterator[None]:
    """Take away what appears in the folders when the work in them fails.

    `note` is a file that lasts while they are worked on; one that is found was left
    by a process that died, and what that one unpacked is taken away first.
    """
    with suppress(OSError, ValueError):
        _restore(json.loads(note.read_text(encoding="utf-8")))
    before = {
        folder: sorted(entry.name for entry in Path(folder).iterdir())
        for folder in folders
    }
    write_held(note, json.dumps(before).encode())
    try:
        yield
    except BaseException:
        _restore(before)
        raise
    finally:
        note.unlink(missing_ok=True)


def _restore(before: Mapping[str, list[str]]) -> None:
    for folder, names in before.items():
        for entry in Path(folder).iterdir():
            if entry.name in names:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
