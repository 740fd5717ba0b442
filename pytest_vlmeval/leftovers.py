"""What a killed process left behind, told from what a living one uses by a lock.

A temporary file or folder is locked by its process as long as that lives; the system
takes the lock away however it ends. So what is locked is in use, and what is not may
go. A name is given only to what is locked already.
"""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

# What is on its way to its name; empty, and there for less than a millisecond.
UNNAMED = ".vlmeval-new-"


class HeldFolder:
    """A temporary folder of this process, removed when it is closed."""

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        """Make the folder below `parent`, after removing those that nobody holds."""
        parent = parent or Path(tempfile.gettempdir())
        sweep(parent, f"{glob.escape(prefix)}*")
        unnamed = Path(tempfile.mkdtemp(prefix=UNNAMED, dir=parent))
        self._lock: int | None = _lock(unnamed)
        self.path = parent / f"{prefix}{secrets.token_hex(6)}"
        unnamed.rename(self.path)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Path:
        """Give its path."""
        return self.path

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove it."""
        self.close()


def write_held(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a file so that a reader sees the one before or all of the new one.

    What killed processes left of theirs is removed. Raises OSError.
    """
    prefix = f".{path.name}."
    sweep(path.parent, f"{glob.escape(prefix)}*.new")
    number, name = tempfile.mkstemp(prefix=UNNAMED, dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part = part.rename(path.with_name(f"{prefix}{secrets.token_hex(4)}.new"))
            file.write(content)
            file.flush()
            if mode is not None:
                os.fchmod(number, mode)
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sweep(folder: Path, pattern: str) -> None:
    """Remove the files and folders of this pattern that no living process holds."""
    with suppress(OSError):
        for path in list(folder.glob(pattern)):
            remove_abandoned(path)


def remove_abandoned(path: Path) -> bool:
    """Remove a file or folder that no living process holds; whether it is gone."""
    if path.is_symlink() or not path.exists() or path.stat().st_uid != os.getuid():
        return False
    lock = _lock(path)
    if lock is None:
        return False
    try:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(lock)
    return not path.exists()


def _lock(path: Path) -> int | None:
    """Lock a file or folder for this process; None if another one has it."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number
