"""What ms-vlmeval unpacks into a repository's folder is there as a whole or not at all.

Its classes take a folder that exists for one that is complete, so archives that were
half unpacked when a process was killed would never be unpacked again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from pytest_vlmeval.datasets.files import write_whole


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
    write_whole(note, json.dumps(before))
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
