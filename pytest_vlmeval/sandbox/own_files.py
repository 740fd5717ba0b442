"""The files of a user's own: a table, and the images that it names.

Only regular files are read, and none without a bound. A FIFO would keep its reader
waiting and a device has no end, so what a path is, is asked again of what was opened:
between two looks it may become something else. So is where it lies.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

OUTSIDE = "it lies outside of the dataset's own folders"
# No model takes an image as large, and Pillow opens none of as many pixels.
MOST_IMAGE_BYTES = 2**28
# ms-vlmeval takes a shorter text for the index of the row that has the image.
SHORTEST_IMAGE = 65
# Where an image stands in a question that is sent as it is written.
PLACE = "<image>"


class UnfitFileError(OSError):
    """A file that is not read, whatever it holds; `strerror` says why."""

    def __init__(self, reason: str, path: Path) -> None:
        super().__init__(0, reason, str(path))


def open_regular(path: Path, within: Sequence[Path] | None = None) -> io.BufferedReader:
    """Open a regular file to be read; raises OSError, UnfitFileError for others.

    With `within` it has to lie below one of these folders, which have no symlinks in
    their own paths.
    """
    # Opening some devices has effects, so they are not opened at all.
    check_regular(path, path.stat())
    # Where it has become a FIFO meanwhile, opening it does not wait for a writer.
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        check_regular(path, os.fstat(number))
        if within is not None and not lies_within(_place_of(number, path), within):
            raise UnfitFileError(OUTSIDE, path)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def _place_of(number: int, path: Path) -> Path:
    """Return where an open file lies, whatever its path has become since."""
    if sys.platform == "linux":
        return Path(f"/proc/self/fd/{number}").readlink()
    return path.resolve()


def lies_within(path: Path, folders: Sequence[Path]) -> bool:
    """Return whether a path without symlinks is one of these, or below."""
    return any(path.is_relative_to(folder) for folder in folders)


def not_published(dataset: str, path: object, said: str, remedy: str) -> VlmEvalError:
    """Return the error for a file of which `said` tells the MD5 and the published."""
    return VlmEvalError(
        f"{dataset}: {path} is not the published file: {said}. {remedy}, or evaluate "
        "it as it is with --vlm-allow-modified-data; its score is then marked as "
        "modified."
    )


def replacing(path: Path, snapshots: Sequence[Mapping[str, Any]]) -> str:
    """Describe how a file that is not the published one is replaced by it.

    A mirror's files are its owner's. huggingface_hub keeps what it downloaded beside a
    link, and only links to it again where the link alone is removed.
    """
    for snapshot in snapshots:
        if "source" in snapshot and path.is_relative_to(snapshot["folder"]):
            return f"Put the published file into {snapshot['source']}"
    if path.is_symlink():
        return f"Remove {path.resolve()}, its content, to have it downloaded again"
    return "Remove it to have it downloaded again"


def read_regular(path: Path, limit: int, within: Sequence[Path] | None = None) -> bytes:
    """Read a regular file of at most `limit` bytes; raises OSError as above."""
    with open_regular(path, within) as file:
        size = os.fstat(file.fileno()).st_size
        data = b"" if size > limit else file.read(limit + 1)
    if max(size, len(data)) > limit:
        raise UnfitFileError(f"it has {size:,} bytes, more than {limit:,}", path)
    return data


def check_regular(path: Path, status: os.stat_result) -> None:
    """Raise UnfitFileError for what is no regular file."""
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        raise UnfitFileError("it is a folder", path)
    if not stat.S_ISREG(mode):
        kind = "FIFO" if stat.S_ISFIFO(mode) else "device or a socket"
        raise UnfitFileError(f"it is a {kind}, not a regular file", path)
