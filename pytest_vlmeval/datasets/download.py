"""Brings a dataset's file to where ms-vlmeval's users keep theirs, and checks it."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.datasets.files import (
    data_path,
    is_url,
    md5_of_file,
    new_md5,
    source_of,
)
from pytest_vlmeval.datasets.transfer import (
    PATIENCE,
    Announce,
    PartFile,
    Patience,
    TransferError,
    receive_file,
)
from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vlmeval.records import DatasetInfo, Hub


class FileAccess(NamedTuple):
    """Where files lie, and how missing ones are had.

    `mirror` is a URL or a folder; of the `hubs` the first is preferred.
    """

    data_root: Path
    cache_dir: Path
    allow_modified: bool = False
    offline: bool = False
    mirror: str | None = None
    hubs: Sequence[Hub] = ()
    announce: Announce = lambda line: None
    patience: Patience = PATIENCE


class DatasetFile(NamedTuple):
    """A dataset's file on disk; `modified` says that it is not a published one."""

    path: Path
    checksum: str
    modified: bool


def fetch_dataset(
    info: DatasetInfo, access: FileAccess, place: Path | None = None
) -> DatasetFile:
    """Give the dataset's file, downloading it to `data_root/NAME.tsv` if missing.

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
        raise VlmEvalError(
            f"{info.name}: {path} is not the published file: its MD5 is {checksum}, "
            f"{info.published}. Remove it to have it downloaded again, or "
            "evaluate it as it is with --vlm-allow-modified-data; its score is then "
            "marked as modified."
        )
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
    """Give a further file of a dataset, in the same way; raises VlmEvalError."""
    return fetch_dataset(
        replace(info, url=url, md5=md5, versions=(), path=None), access, path
    ).path


def _bring(info: DatasetInfo, path: Path, access: FileAccess) -> None:
    source = _allowed_source(info, path, access)
    bring = _Bringing(
        info,
        path,
        source,
        access.allow_modified,
        access.announce,
        access.patience,
    )
    bring.locked(access.cache_dir / "locks")


def _allowed_source(info: DatasetInfo, path: Path, access: FileAccess) -> str:
    source = source_of(info, access.mirror)
    if source is None:
        raise _cannot_download(info, path, None, "ms-vlmeval names no URL for it")
    if access.offline and is_url(source):
        raise _cannot_download(info, path, source, "--vlm-offline is set")
    return source


class _Bringing(NamedTuple):
    """One missing file on its way from `source` to `path`."""

    info: DatasetInfo
    path: Path
    source: str
    allow_modified: bool
    announce: Announce
    patience: Patience

    def locked(self, locks: Path) -> None:
        """Bring the file, or wait until the process that is at it has it."""
        from filelock import FileLock, Timeout

        try:
            locks.mkdir(parents=True, exist_ok=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(locks / f"download-{self.info.name}.lock")
            try:
                lock.acquire(timeout=1)
            except Timeout:
                self.announce(f"waiting for the download of {self.info.name}")
                lock.acquire()
            try:
                if not self.path.is_file():
                    self._bring()
            finally:
                lock.release()
        except (OSError, TransferError) as error:
            raise self._error(_reason(error)) from error

    def _bring(self) -> None:
        part = _part_of(self.path)
        if is_url(self.source):
            receive_file(
                self.source,
                part,
                name=self.info.name,
                announce=self.announce,
                patience=self.patience,
            )
        else:
            shutil.copyfile(self.source, part.path)
        with part.path.open("rb") as file:
            checksum = hashlib.file_digest(file, new_md5).hexdigest()
        published = self.info.is_published(checksum)
        if not published and self.allow_modified:
            # Once it lies there it would be taken for the dataset by every run.
            if self.path.suffix == ".tsv" and not _may_be_table(part.path):
                part.discard()
                raise self._error("what came is no table with names and rows")
            self.announce(
                f"downloaded {self.info.name}: its MD5 is {checksum}, "
                f"{self.info.published}; it is evaluated as modified data"
            )
        elif not published:
            part.discard()
            raise self._error(
                f"what came has the MD5 {checksum}, {self.info.published}. Where "
                "its publisher has changed the file, --vlm-allow-modified-data takes "
                "it, and marks its score as modified"
            )
        part.finish(self.path)

    def _error(self, reason: str) -> VlmEvalError:
        return _cannot_download(self.info, self.path, self.source, reason)


def _may_be_table(path: Path) -> bool:
    """Whether a file begins with names of columns, with tabs between, and goes on."""
    with path.open("rb") as file:
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
