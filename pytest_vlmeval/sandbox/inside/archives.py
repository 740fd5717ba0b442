"""Archives that ms-vlmeval's classes unpack: they stay in their folder, and in bounds.

A small file may hold zeros for a whole disk. What datasets pack are pictures, videos
and text, which hardly shrink.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from pytest_vlmeval.sandbox.inside.job import ContainedError

# An archive may hold so many times its own size, and always so many bytes.
MOST_TIMES = 200
ALWAYS_BYTES = 2**30


def bound_archives() -> None:
    """Refuse archives that hold far more than they are, as they are read."""
    # A class that unpacks a tar takes what Python 3.14 does not: members that lie
    # outside of the folder, links to there, devices.
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    _bound_zips()
    _bound_tars()


def _check(name: object, held: int, packed: int) -> None:
    if held > max(ALWAYS_BYTES, MOST_TIMES * packed):
        raise ContainedError(
            f"the sandbox does not unpack {name}: of {packed:,} bytes it would make "
            f"{held:,} or more, over {MOST_TIMES} times as many"
        )


def _size(file: Any) -> int:
    place = file.tell()
    size: int = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size


def _bound_zips() -> None:
    """Check the sizes in the list of members; no more than these is unpacked."""
    upstream = zipfile.ZipFile.__init__

    def __init__(self: zipfile.ZipFile, *given: Any, **named: Any) -> None:
        upstream(self, *given, **named)
        if self.mode == "r" and self.fp is not None:
            held = sum(each.file_size for each in self.infolist())
            _check(self.filename, held, _size(self.fp))

    zipfile.ZipFile.__init__ = __init__  # type: ignore[method-assign]


def _bound_tars() -> None:
    """Add up the sizes of members as they are found, before their content is read."""
    upstream = tarfile.TarFile.next

    def following(self: tarfile.TarFile) -> tarfile.TarInfo | None:
        member = upstream(self)
        if member is None or not isinstance(self.name, str):
            return member
        # The first member is given twice.
        known = vars(self).setdefault("sizes", {})
        if member.offset not in known:
            known[member.offset] = member.size
            vars(self)["held"] = held = vars(self).get("held", 0) + member.size
            _check(self.name, held, Path(self.name).stat().st_size)
        return member

    tarfile.TarFile.next = following  # type: ignore[method-assign]
