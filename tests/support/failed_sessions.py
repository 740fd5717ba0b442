"""Sessions that fail: what they print, and a disk that is full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def error_of(result: pytest.RunResult) -> str:
    """Return the usage error of a run, line breaks and all; there must be just one."""
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str()
    assert text.count("ERROR: ") == 1
    return text.partition("ERROR: ")[2].strip()


def message_of(result: pytest.RunResult, beginning: str) -> str:
    """Return the line of a failed item that begins so."""
    found = [line for line in result.outlines if line.startswith(beginning)]
    assert found, result.stdout.str()
    return found[0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
