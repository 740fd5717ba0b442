"""The commit that a session was started at, for whoever reads its results later."""

from __future__ import annotations

import subprocess
from pathlib import Path

LIMIT_S = 5.0


def find_revision(folder: Path) -> str:
    """Return the commit of a folder, with "-dirty" if it is changed; "" without git."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty"]
    command += ["--abbrev=10", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
