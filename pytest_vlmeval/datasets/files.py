"""Where datasets' files lie, are taken from and are known by; no file is moved here."""

from __future__ import annotations

import hashlib
import json
import urllib.parse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.leftovers import write_held
from pytest_vlmeval.sandbox.own_files import open_regular

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo

GB = 10**9


def data_path(info: DatasetInfo, data_root: Path) -> Path:
    """Give where a dataset's file lies, or will lie."""
    return info.path or data_root / f"{info.settings.get('dataset', info.name)}.tsv"


def source_of(info: DatasetInfo, mirror: str | None) -> str | None:
    """Give the URL or, with a folder as mirror, the path a file is taken from."""
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
    """Give the MD5 of a file, remembered until its size or time changes.

    MD5 because ms-vlmeval publishes it; it tells versions apart, no more.
    """
    stat = path.stat()
    where = str(path.absolute())
    state = [where, stat.st_size, stat.st_mtime_ns]
    key = hashlib.sha256(where.encode()).hexdigest()[:32]
    memory = cache_dir / "checksums" / f"{key}.json"
    with suppress(OSError, ValueError, TypeError):
        *known, checksum = json.loads(memory.read_text(encoding="utf-8"))
        if known == state:
            return str(checksum)
    with open_regular(path) as file:
        checksum = hashlib.file_digest(file, new_md5).hexdigest()
    # A cache that cannot be written costs time only.
    with suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_whole(memory, json.dumps([*state, checksum]))
    return checksum


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or all of the new one."""
    write_held(path, text.encode())


def size_text(size: int) -> str:
    """Give bytes as `480 MB` or `12.3 GB` (10^6 and 10^9 bytes)."""
    if size >= GB:
        return f"{size / GB:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 10**6 else "< 1 MB"


def new_md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)
