"""Brings a dataset's file to where ms-vlmeval's users keep theirs, and checks it."""

from __future__ import annotations

import hashlib
import http.client
import json
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from typing import IO

    from pytest_vlmeval.records import DatasetInfo

TIMEOUT_S = 30.0
CHUNK_BYTES = 2**20


class DatasetFile(NamedTuple):
    """A dataset's file on disk; `modified` says that it is not the published one."""

    path: Path
    checksum: str
    modified: bool


class _ConnectionCutError(Exception):
    """The server sent less than it announced."""


def fetch_dataset(
    info: DatasetInfo,
    *,
    data_root: Path,
    cache_dir: Path,
    allow_modified: bool,
    offline: bool,
) -> DatasetFile:
    """Give the dataset's file, downloading it to `data_root/NAME.tsv` if missing.

    A file that is there is never overwritten. Raises VlmEvalError when there is no
    file and none can be had, and, unless `allow_modified`, for another checksum than
    the published one.
    """
    path = info.path or data_root / f"{info.name}.tsv"
    if not path.is_file():
        if info.path is not None:
            raise VlmEvalError(
                f"{info.name}: there is no file {path}. Name a .tsv file that exists."
            )
        _download(info, path, cache_dir=cache_dir, offline=offline)
    checksum = md5_of_file(path, cache_dir)
    modified = info.md5 is not None and checksum != info.md5
    if modified and not allow_modified:
        raise VlmEvalError(
            f"{info.name}: {path} is not the published file: its MD5 is {checksum}, "
            f"the published one {info.md5}. Remove it to have it downloaded again, or "
            "evaluate it as it is with --vlm-allow-modified-data; its score is then "
            "marked as modified."
        )
    return DatasetFile(path, checksum, modified)


def md5_of_file(path: Path, cache_dir: Path) -> str:
    """Give the MD5 of a file, remembered until its size or time changes.

    MD5 because ms-vlmeval publishes it; it tells versions apart, no more.
    """
    stat = path.stat()
    where = str(path.absolute())
    state = [where, stat.st_size, stat.st_mtime_ns]
    key = hashlib.sha256(where.encode()).hexdigest()[:32]
    memory = cache_dir / "checksums" / f"{key}.json"
    with suppress(OSError, ValueError):
        *known, checksum = json.loads(memory.read_text(encoding="utf-8"))
        if known == state:
            return str(checksum)
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, _md5).hexdigest()
    # A cache that cannot be written costs time only.
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_whole(memory, json.dumps([*state, checksum]))
    return checksum


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or all of the new one."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        file.write(text)
    Path(file.name).replace(path)


def _md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)


def _download(info: DatasetInfo, path: Path, *, cache_dir: Path, offline: bool) -> None:
    from filelock import FileLock

    if offline or not info.url:
        reason = "--vlm-offline is set" if offline else "ms-vlmeval names no URL for it"
        raise _cannot_download(info, path, reason)
    locks = cache_dir / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"download-{info.name}.lock"):
            if not path.is_file():
                _download_locked(info, path)
    except urllib.error.HTTPError as error:
        with error:
            reason = f"the server answered {error.code} {error.reason}"
        raise _cannot_download(info, path, reason) from error
    except (OSError, http.client.HTTPException, _ConnectionCutError) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise _cannot_download(info, path, reason) from error


def _download_locked(info: DatasetInfo, path: Path) -> None:
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        part = Path(file.name)
        try:
            checksum = _receive(str(info.url), file)
        except BaseException:
            part.unlink()
            raise
    if info.md5 is not None and checksum != info.md5:
        part.unlink()
        raise _cannot_download(
            info,
            path,
            f"what the server sent has the MD5 {checksum}, the published file "
            f"{info.md5}",
        )
    part.chmod(0o644)
    part.replace(path)


def _receive(url: str, file: IO[bytes]) -> str:
    digest = _md5()
    received = 0
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        announced = response.headers.get("Content-Length")
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            digest.update(chunk)
            received += len(chunk)
    if announced is not None and received != int(announced):
        raise _ConnectionCutError(
            f"the connection was cut after {received} of {announced} bytes"
        )
    return digest.hexdigest()


def _cannot_download(info: DatasetInfo, path: Path, reason: str) -> VlmEvalError:
    source = f" from {info.url}" if info.url else ""
    return VlmEvalError(
        f"{info.name}: its file is missing and cannot be downloaded{source}: {reason}. "
        f"Put the file at {path}, or set LMUData to the folder that holds "
        f"{path.name}."
    )
