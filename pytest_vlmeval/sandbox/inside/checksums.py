"""Tables are known by their checksums before ms-vlmeval looks at them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytest_vlmeval.sandbox.inside.job import current_job


class _AnyChecksum(str):
    """A checksum that a class takes for the published one, whichever that is."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def mend_checksums(module: Any) -> None:
    """Answer smp/file.py:372: a table of another checksum is downloaded over."""
    upstream = module.md5

    def md5(path: str) -> str:
        job = current_job()
        if str(path) in job.tables:
            return _AnyChecksum()  # checked before it came here
        if not Path(path).exists():  # dataset/worldsense.py:150
            return ""
        checksum = str(upstream(path))
        shelf = job.shelf
        if shelf is None or not str(path).endswith(".tsv"):
            return checksum
        shelf.checksums.setdefault(str(path), checksum)
        return _AnyChecksum(checksum) if shelf.any_checksum else checksum

    module.md5 = md5
