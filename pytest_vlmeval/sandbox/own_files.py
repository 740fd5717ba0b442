"""The files of a user's own: a table, and the images that it names.

Only regular files are read, and none without a bound. A FIFO would keep its reader
waiting and a device has no end, so what a path is, is asked again of what was opened:
between two looks it may become something else.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Iterator

GZIP = b"\x1f\x8b"
# A line with several images in base64 is shorter by far.
LONGEST_LINE = 2**28


class UnfitFileError(OSError):
    """A file that is not read, whatever it holds; `strerror` says why."""

    def __init__(self, reason: str, path: Path) -> None:
        super().__init__(0, reason, str(path))


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file to be read; raises OSError, UnfitFileError for others."""
    # Opening some devices has effects, so they are not opened at all.
    _check(path, path.stat().st_mode)
    # Where it has become a FIFO meanwhile, opening it does not wait for a writer.
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check(path, os.fstat(number).st_mode)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def read_regular(path: Path, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes; raises OSError as above."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = b"" if size > limit else file.read(limit + 1)
    if max(size, len(data)) > limit:
        raise UnfitFileError(f"it has {size:,} bytes, more than {limit:,}", path)
    return data


def _check(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise UnfitFileError("it is a folder", path)
    if not stat.S_ISREG(mode):
        kind = "FIFO" if stat.S_ISFIFO(mode) else "device or a socket"
        raise UnfitFileError(f"it is a {kind}, not a regular file", path)


def read_cells(path: Path) -> Iterator[list[str]]:
    """Give the lines of a TSV that are not blank, each as its cells; also of a `.gz`.

    Raises csv.Error, UnicodeDecodeError, EOFError or OSError where it is none.
    """
    # An image is a cell of any length up to that of its line.
    csv.field_size_limit(LONGEST_LINE)
    with open_regular(path) as file:
        packed = file.read(2) == GZIP
        file.seek(0)
        plain = gzip.GzipFile(fileobj=file) if packed else file
        with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as text:
            yield from filter(None, csv.reader(_lines(text), "excel-tab"))


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise csv.Error(f"a line has more than {LONGEST_LINE:,} characters")
        yield line
