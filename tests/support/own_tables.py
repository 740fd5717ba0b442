"""Tables of one's own, as the library opens them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_vlmeval.datasets.download import FileAccess
from pytest_vlmeval.sandbox.inside.tables import digest_files


def access(folder: Path) -> FileAccess:
    """Give what is kept in a folder of a test."""
    return FileAccess(
        cache_dir=folder / "cache", digest=digest, data_root=folder / "LMUData"
    )


def digest(files: Sequence[Path]) -> list[tuple[str, str]]:
    """Read files as the sandbox does, in this process."""
    return list(digest_files([str(file) for file in files])["digests"])
