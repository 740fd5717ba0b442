"""Repositories of the hubs: brought by the hubs' own clients into their own caches."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import subprocess
import threading
import time
import urllib.parse
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from pytest_vlmeval.datasets.files import is_url
from pytest_vlmeval.datasets.transfer import open_url
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_values import shown_address

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_vlmeval.datasets.transfer import Announce
    from pytest_vlmeval.records import Hub

SCRIPT = Path(__file__).parent.parent / "sandbox" / "snapshot.py"
REPORT_S = 5.0
PAGE_SIZE = 200
TITLES = {"huggingface": "Hugging Face", "modelscope": "ModelScope"}
ENDPOINTS = {"huggingface": "HF_ENDPOINT", "modelscope": "MODELSCOPE_ENDPOINT"}
CACHES = {"huggingface": "HF_HUB_CACHE", "modelscope": "MODELSCOPE_CACHE"}


class SnapshotRequest(NamedTuple):
    """A repository that ms-vlmeval asks for; patterns as its hub's client has them."""

    hub: str
    repository: str
    revision: str | None
    allow: list[str] | None
    ignore: list[str] | None


class HubAccess(NamedTuple):
    """How repositories are had: the hubs, the first preferred, or a mirror's folder.

    `python` is an interpreter that has the clients.
    """

    python: Path
    hubs: Sequence[Hub]
    cache_dir: Path
    offline: bool
    mirror: str | None
    announce: Announce

    def bring(self, request: SnapshotRequest, dataset: str) -> Path:
        """Give the folder with a repository's files; raises VlmEvalError."""
        source = self.mirrored(request)
        if source is not None:
            return self._link_mirror(source, request, dataset)
        answer = self._run({**request._asdict(), "offline": self.offline})
        if "folder" in answer:
            return Path(answer["folder"])
        raise VlmEvalError(self._failure(request, dataset, answer["error"]))

    def mirrored(self, request: SnapshotRequest) -> Path | None:
        """Return the mirror's own folder of a repository, None without one."""
        if self.mirror is None or is_url(self.mirror):
            return None
        return Path(self.mirror).absolute() / request.repository

    def _link_mirror(
        self, source: Path, request: SnapshotRequest, dataset: str
    ) -> Path:
        """Give a folder with links to a mirror's files, which may be read-only.

        ms-vlmeval unpacks archives beside them.
        """
        if not source.is_dir():
            raise VlmEvalError(
                f"{dataset}: --vlm-data-mirror={self.mirror} has no folder "
                f"{request.repository}. Put the files of that repository there, or "
                "leave the option out."
            )
        key = hashlib.sha256(str(source).encode()).hexdigest()[:16]
        folder = self.cache_dir / "mirrored" / key
        for path in sorted(source.rglob("*")):
            if path.is_file():
                link = folder / path.relative_to(source)
                link.parent.mkdir(parents=True, exist_ok=True)
                with suppress(FileExistsError):
                    link.symlink_to(path.resolve())
        return folder

    def _run(self, request: Mapping[str, object]) -> dict[str, str]:
        with subprocess.Popen(
            [self.python, "-I", "-X", "utf8", SCRIPT, json.dumps(request)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            progress = _Progress(str(request["repository"]), self.announce)
            reader = threading.Thread(target=progress.read, args=(process.stderr,))
            reader.start()
            try:
                lines = process.stdout.read().splitlines()
            except BaseException:
                process.kill()
                raise
            finally:
                reader.join()
        with suppress(IndexError, ValueError):
            answer: dict[str, str] = json.loads(lines[-1])
            return answer
        return {"error": f"its client ended without an answer: {progress.last}"}

    def _failure(self, request: SnapshotRequest, dataset: str, reason: str) -> str:
        title = TITLES[request.hub]
        hub = next(each for each in self.hubs if each.kind == request.hub)
        other = next(each for each in self.hubs if each.kind != request.hub)
        switch = f"VLMEVALKIT_USE_MODELSCOPE={int(other.kind == 'modelscope')}"
        by_hand = (
            f"--vlm-data-mirror=FOLDER takes its files from FOLDER/{request.repository}"
        )
        if self.offline:
            return (
                f"{dataset}: --vlm-offline is set, and the repository "
                f"{request.repository} is not complete in the cache of {title}, "
                f"{hub.cache} ({reason}). Run once without --vlm-offline, set "
                f"{CACHES[request.hub]} to the cache that has it, or {switch} to look "
                f"into that of {TITLES[other.kind]}; {by_hand}."
            )
        return (
            f"{dataset}: the repository {request.repository} cannot be downloaded from "
            f"{title}, {shown_address(hub.endpoint)} ({reason}). "
            f"{ENDPOINTS[request.hub]} takes another address of the hub, {switch} "
            f"{TITLES[other.kind]} instead; {by_hand}; with --vlm-offline what is on "
            "disk is used."
        )


class _Progress:
    """Passes on every few seconds what a hub's client says of its progress."""

    def __init__(self, name: str, announce: Announce) -> None:
        self._name = name
        self._announce = announce
        self._spoke_at = time.monotonic()
        self.last = "no output"

    def read(self, stream: IO[str]) -> None:
        # Universal newlines: each new state of a progress bar is a line.
        for line in stream:
            # Without bars and what moves a terminal's cursor.
            said = " ".join(re.sub(r"\|.*?\||\x1b\[\w*", " ", line).split())
            if not said:
                continue
            self.last = said
            if time.monotonic() - self._spoke_at >= REPORT_S:
                self._spoke_at = time.monotonic()
                self._announce(f"downloading {self._name}: {said}")


def is_cached(repository: str, hubs: Sequence[Hub]) -> bool:
    """Whether a hub's cache has files of a repository; not whether it has all."""
    owner, _, name = repository.partition("/")
    for hub in hubs:
        folders = (
            [hub.cache / f"datasets--{owner}--{name}" / "snapshots"]
            if hub.kind == "huggingface"
            else [
                hub.cache / "datasets" / f"{owner}--{name}" / "snapshots",
                hub.cache / "datasets" / owner / name.replace(".", "___"),
                hub.cache / "hub" / "datasets" / owner / name.replace(".", "___"),
            ]
        )
        if any(_has_entries(folder) for folder in folders):
            return True
    return False


def _has_entries(folder: Path) -> bool:
    with suppress(OSError):
        return any(folder.iterdir())
    return False


def repository_size(repository: str, hub: Hub, timeout_s: float) -> int | None:
    """Ask a hub how large a repository is, in bytes; None where it does not say."""
    read = _size_at_huggingface if hub.kind == "huggingface" else _size_at_modelscope
    with suppress(OSError, http.client.HTTPException, ValueError, TypeError, KeyError):
        return read(f"{hub.endpoint.rstrip('/')}", repository, timeout_s)
    return None


def _size_at_huggingface(endpoint: str, repository: str, timeout_s: float) -> int:
    url = f"{endpoint}/api/datasets/{repository}?blobs=true"
    with open_url(url, timeout_s=timeout_s) as response:
        files = json.load(response)["siblings"]
    return sum(int(file["size"]) for file in files)


def _size_at_modelscope(endpoint: str, repository: str, timeout_s: float) -> int:
    total = 0
    for page in range(1, 1_000):
        query = urllib.parse.urlencode(
            {
                "Revision": "master",
                "Recursive": "True",
                "PageNumber": page,
                "PageSize": PAGE_SIZE,
            }
        )
        url = f"{endpoint}/api/v1/datasets/{repository}/repo/tree?{query}"
        with open_url(url, timeout_s=timeout_s) as response:
            files = json.load(response)["Data"]["Files"]
        total += sum(int(file["Size"]) for file in files if file["Type"] == "blob")
        if len(files) < PAGE_SIZE:
            break
    return total
