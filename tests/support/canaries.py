"""Keys and passwords that may be nowhere: canaries, and the search for them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.run_fixtures import Project

CANARIES = {
    "key": "canary-key-71f0d2c4",
    "judge": "canary-judge-'\"9b3a",
    "openai": "canary-openai-55ce",
    "password": "canary-password-e01d",
    "proxy": "canary-proxy-c4b7",
    "hub": "hf_canary-hub-8d2e",
}
PROC = Path("/proc")


def forms(secret: str) -> list[bytes]:
    """Give every way in which a secret may stand in a file."""
    return [
        secret.encode(),
        secret.encode("utf-16-le"),
        base64.b64encode(secret.encode())[:-4],
        urllib.parse.quote(secret).encode(),
        json.dumps(secret)[1:-1].encode(),
        repr(secret)[1:-1].encode(),
        secret[: len(secret) // 2 + 4].encode(),
        secret[-8:].encode(),
    ]


def leaks(written: Mapping[str, bytes]) -> list[str]:
    """Name what holds a secret, and what stands around it."""
    return [
        f"{where}: {name}: {content[max(at - 90, 0) : at + 30]!r}"
        for where, content in written.items()
        for name, secret in CANARIES.items()
        for form in set(forms(secret))
        if (at := content.find(form)) >= 0
    ]


def written_below(*folders: Path) -> dict[str, bytes]:
    """Read every file below the folders."""
    return {
        str(file): file.read_bytes()
        for folder in folders
        for file in folder.rglob("*")
        if file.is_file() and not file.name.endswith(".key")
    }


@contextmanager
def watched_processes() -> Iterator[dict[str, bytes]]:
    """Collect the command lines of all processes of the machine while it lasts."""
    seen: dict[str, bytes] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            for folder in PROC.glob("[0-9]*"):
                try:
                    line = (folder / "cmdline").read_bytes()
                    seen[f"process {folder.name}"] = line
                    name = (folder / "comm").read_bytes()
                    seen[f"name of process {folder.name}"] = name
                except OSError:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


class Watched:
    """Runs pytest in a project; keeps all that was said, written and started."""

    def __init__(self, project: Project, run_cache: Path) -> None:
        self._folders = (project.pytester.path, run_cache)
        self._folder = project.pytester.path
        (self._folder / "tmp").mkdir()
        self.keys = self._folder.parent / f"{self._folder.name}-keys"
        self.keys.mkdir()

    def key_file(self, name: str) -> Path:
        """Write a key where only its reader looks."""
        file = self.keys / f"{name}.key"
        file.write_text(CANARIES[name] + "\n", encoding="utf-8")
        return file

    def run(
        self, *arguments: str, environ: Mapping[str, str] = {}
    ) -> tuple[str, list[str]]:
        """Run once; give the output and what leaked anywhere."""
        with watched_processes() as processes:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", *arguments],
                cwd=self._folder,
                env={**os.environ, "TMPDIR": str(self._folder / "tmp"), **environ},
                capture_output=True,
                timeout=300,
            )
        assert len(processes) > 2 or not PROC.is_dir()
        output = {"stdout": done.stdout, "stderr": done.stderr}
        written = written_below(*self._folders)
        return (
            (done.stdout + done.stderr).decode(errors="replace"),
            leaks({**output, **written, **processes}),
        )


@pytest.fixture
def watched(project: Project, run_cache: Path) -> Watched:
    """Give what runs pytest under watch in the test's project."""
    return Watched(project, run_cache)
