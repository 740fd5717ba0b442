"""Repositories of the hubs and the other files of a dataset, in the hubs' caches."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import threading
import time
import urllib.parse
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.datasets.download import (
    data_path,
    digest,
    fetch_dataset,
    fetch_file,
    is_url,
    md5_of_file,
    open_url,
    remember,
    unpacking,
)
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.calls import locate_in_sandbox
from pytest_vlmeval.sandbox.inside.families import with_adapter
from pytest_vlmeval.sandbox.own_files import not_published, replacing
from pytest_vlmeval.sandbox.shelf import Shelf
from pytest_vlmeval.settings.option import HUBS, is_repository, shown_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_vlmeval.datasets.download import Announce, FileAccess
    from pytest_vlmeval.records import DatasetInfo, Hub
    from pytest_vlmeval.sandbox.process import Sandbox

SCRIPT = Path(__file__).parent.parent / "sandbox" / "hub_client.py"
REPORT_S = 5.0
PAGE_SIZE = 200
TITLES = {"huggingface": "Hugging Face", "modelscope": "ModelScope"}
ENDPOINTS = {"huggingface": "HF_ENDPOINT", "modelscope": "MODELSCOPE_ENDPOINT"}
PREFIXES = {hub: prefix for prefix, hub in HUBS.items()}
CACHES = {"huggingface": "HF_HUB_CACHE", "modelscope": "MODELSCOPE_CACHE"}


def bring_repository(
    wanted: Mapping[str, Any], dataset: str, python: Path, access: FileAccess
) -> Path:
    """Return the folder with a repository's files; raises VlmEvalError.

    `wanted` names the `hub`, the `repository` and its `revision`; `allow` and `ignore`
    are patterns as the hub's client, which `python` has, takes them.
    """
    source = find_mirror(wanted, access)
    if source is not None:
        return _link_mirror(source, wanted["repository"], dataset, access)
    answer = _run_client({**wanted, "offline": access.offline}, python, access.announce)
    if "folder" in answer:
        return Path(answer["folder"])
    raise VlmEvalError(_failure(wanted, dataset, answer["error"], access))


def list_repository(
    wanted: Mapping[str, Any], dataset: str, access: FileAccess
) -> tuple[dict[str, int], str]:
    """Return the sizes of a repository's files, in bytes, and its commit.

    The commit is "" where the hub has none. Raises VlmEvalError.
    """
    python = access.client(wanted["hub"])
    answer = _run_client({**wanted, "listed": True}, python, access.announce)
    if "error" in answer:
        raise VlmEvalError(_failure(wanted, dataset, answer["error"], access))
    return answer["files"], answer["commit"]


def find_mirror(wanted: Mapping[str, Any], access: FileAccess) -> Path | None:
    """Return the mirror's own folder of a repository, None without one."""
    if access.mirror is None or is_url(access.mirror):
        return None
    return Path(access.mirror).absolute() / str(wanted["repository"])


def _link_mirror(
    source: Path, repository: str, dataset: str, access: FileAccess
) -> Path:
    """Return a folder with links to a mirror's files, which may be read-only.

    ms-vlmeval unpacks archives beside them.
    """
    if not source.is_dir():
        raise VlmEvalError(
            f"{dataset}: --vlm-data-mirror={access.mirror} has no folder "
            f"{repository}. Put the files of that repository there, or "
            "leave the option out."
        )
    folder = access.cache_dir / "mirrored" / digest(str(source))
    for path in sorted(source.rglob("*")):
        if path.is_file():
            link = folder / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                link.symlink_to(path.resolve())
    return folder


def _run_client(
    request: Mapping[str, object], python: Path, announce: Announce
) -> dict[str, Any]:
    with subprocess.Popen(
        [python, "-I", "-X", "utf8", SCRIPT, json.dumps(request)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        progress = _Progress(str(request["repository"]), announce)
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
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer
    return {"error": f"its client ended without an answer: {progress.last}"}


def _failure(
    wanted: Mapping[str, Any], dataset: str, reason: str, access: FileAccess
) -> str:
    kind, repository = wanted["hub"], wanted["repository"]
    hub = next(each for each in access.hubs if each.kind == kind)
    other = next(each for each in access.hubs if each.kind != kind)
    switch = f"VLMEVALKIT_USE_MODELSCOPE={int(other.kind == 'modelscope')}"
    if is_repository(dataset):
        switch = f"--vlm-data={PREFIXES[other.kind]}{repository}"
    by_hand = f"--vlm-data-mirror=FOLDER takes its files from FOLDER/{repository}"
    if access.offline:
        return (
            f"{dataset}: --vlm-offline is set, and the repository {repository} is not "
            f"complete in the cache of {TITLES[kind]}, {hub.cache} ({reason}). Run "
            f"once without --vlm-offline, set {CACHES[kind]} to the cache that has it, "
            f"or {switch} to look into that of {TITLES[other.kind]}; {by_hand}."
        )
    return (
        f"{dataset}: the repository {repository} cannot be downloaded from "
        f"{TITLES[kind]}, {shown_address(hub.endpoint)} ({reason}). {ENDPOINTS[kind]} "
        f"takes another address of the hub, {switch} {TITLES[other.kind]} instead; "
        f"{by_hand}; with --vlm-offline what is on disk is used."
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
    """Return whether a hub's cache has any file of a repository."""
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
        for folder in folders:
            with suppress(OSError):
                if any(folder.iterdir()):
                    return True
    return False


def repository_size(repository: str, hub: Hub, timeout_s: float) -> int | None:
    """Ask a hub how large a repository is, in bytes; None if it does not say."""
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


# What differs between presets without changing which files they need.
SHOWING = {"nframe", "fps", "pack", "use_subtitle"}
# Repositories and files of one dataset, which are asked for one after the other.
MOST_NEEDS = 48
# Files of a repository that hold questions; of others, size and name are compared.
TABLE_SUFFIXES = {".csv", ".json", ".jsonl", ".parquet", ".tsv", ".txt"}


class DatasetFiles(NamedTuple):
    """All files of a dataset, and what they are known by.

    `table` holds its rows; None where its class makes them from what is on the
    `shelf`, which has the repositories and further files. `tables` are all that were
    found, those in repositories too. `checksum` is the MD5 of the one table, or a
    digest of all; `content` adds what else decides the samples. `modified` says that
    a table is not the published one.
    """

    table: Path | None
    tables: tuple[Path, ...]
    shelf: Shelf
    checksum: str
    content: str
    modified: bool

    @property
    def place(self) -> Path:
        """Where a user finds the dataset: its table, or else a repository or file."""
        if self.tables:
            return self.tables[0]
        folders = [each["folder"] for each in self.shelf.snapshots]
        return Path([*folders, *self.shelf.files.values()][0])


def fetch_files(
    info: DatasetInfo, sandbox: Sandbox, access: FileAccess
) -> DatasetFiles:
    """Return all files of a dataset, downloading what is missing; raises VlmEvalError.

    What its class wants beside its table was found out in the sandbox, and is
    remembered until one of the files is gone or changed, so that the next time needs
    neither network nor sandbox. A scored class of images wants no more than its table.
    """
    if not info.module:
        raise VlmEvalError(
            f"{info.name} is a collection of other datasets; name those instead: "
            f"{', '.join(info.members)}."
        )
    is_video = info.modality == "video"
    alone = with_adapter(info.class_name) is not None and not is_video
    named = info.url or info.path
    # Some have their rows at one address and their images or videos elsewhere.
    has_table = named or (not is_video and data_path(info, access.data_root).is_file())
    table = fetch_dataset(info, access) if alone or has_table else None
    shelf = Shelf(
        hub=access.hubs[0].kind if access.hubs else "huggingface",
        table=str(table.path) if table else None,
        data_root=str(access.data_root),
        # A table that came here is known, or allowed whatever it is.
        any_checksum=access.allow_modified
        or (table is not None and table.checksum != info.md5),
    )
    found: dict[str, Any] = {"tables": [], "snapshots": [], "files": {}, "content": ""}
    if not alone:
        found |= _Search(info, shelf, sandbox, access).find()
    if found.get("no_table"):
        table = fetch_dataset(info, access)
        shelf.table = str(table.path)
    shelf.snapshots, shelf.files = found["snapshots"], found["files"]
    modified = _check_published(info, found["tables"], shelf, access.allow_modified)
    checksums = [str(each["checksum"]) for each in found["tables"]]
    paths = [Path(each["path"]) for each in found["tables"]]
    if table is not None:
        checksums, paths = checksums or [table.checksum], paths or [table.path]
    return DatasetFiles(
        table=table.path if table else None,
        tables=tuple(paths),
        shelf=shelf,
        checksum=checksums[0]
        if len(checksums) == 1
        else digest(checksums or found["content"]),
        content=found["content"],
        modified=modified or (table is not None and table.modified),
    )


class _Search(NamedTuple):
    """One dataset whose files are looked for."""

    info: DatasetInfo
    shelf: Shelf
    sandbox: Sandbox
    access: FileAccess

    def find(self) -> dict[str, Any]:
        """Return what was found before, or find it and remember it."""
        from filelock import FileLock

        cache_dir = self.access.cache_dir
        kind = "videos" if self.info.modality == "video" else "located"
        memory = cache_dir / kind / f"{self._key()}.json"
        found = self._recall(memory)
        if found is not None:
            return found
        locks = cache_dir / "locks"
        for folder in (locks, memory.parent, self.access.data_root):
            folder.mkdir(parents=True, exist_ok=True)
        # Classes of one module unpack the same repositories.
        with FileLock(locks / f"{kind}-{self.info.module}.lock"):
            found = self._recall(memory)
            if found is None:
                found = self._locate(memory.with_suffix(".note"))
                if not found.get("no_table"):
                    remember(memory, found)
        return found

    def _locate(self, note: Path) -> dict[str, Any]:
        shelf = replace(self.shelf, snapshots=[], files={})
        for _ in range(MOST_NEEDS):
            folders = [str(each["folder"]) for each in shelf.snapshots]
            if folders:
                what = "videos" if self.info.modality == "video" else "files"
                self.access.announce(
                    f"looking for the {what} of {self.info.name} in {folders[-1]}; "
                    "what is packed there is unpacked, once"
                )
            with unpacking(folders, note):
                found = locate_in_sandbox(self.sandbox, self.info, shelf)
            if found.get("no_table"):
                return found
            if "needs" not in found:
                return {
                    "tables": found["tables"],
                    "snapshots": shelf.snapshots,
                    "files": shelf.files,
                    "content": _content(
                        shelf.snapshots, shelf.files, self.access.cache_dir
                    ),
                }
            self._bring(found["needs"], shelf)
        wanted = [each["repository"] for each in shelf.snapshots]
        raise VlmEvalError(
            f"{self.info.name}: ms-vlmeval asked for more than {MOST_NEEDS} "
            f"repositories and files: "
            f"{', '.join([*wanted, *shelf.files])}."
        )

    def _bring(self, needs: dict[str, Any], shelf: Shelf) -> None:
        access = self.access
        if "url" in needs:
            url, place = needs["url"], access.data_root / needs["name"]
            path = fetch_file(self.info, url, place, needs["md5"], access)
            shelf.files[url] = str(path)
            return
        python = self.sandbox.python
        folder = bring_repository(needs, self.info.name, python, access)
        snapshot = {**needs, "folder": str(folder)}
        source = find_mirror(needs, access)
        if source is not None:
            snapshot["source"] = str(source)
        shelf.snapshots.append(snapshot)

    def _recall(self, memory: Path) -> dict[str, Any] | None:
        """Return what was found before, if all of it is still there as it was."""
        cache_dir = self.access.cache_dir
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            found: dict[str, Any] = json.loads(memory.read_text(encoding="utf-8"))
            tables = all(
                md5_of_file(Path(each["path"]), cache_dir) == each["checksum"]
                for each in found["tables"]
            )
            if not all(Path(each["folder"]).is_dir() for each in found["snapshots"]):
                return None
            content = _content(found["snapshots"], found["files"], cache_dir)
            if tables and content == found["content"]:
                return found
        return None

    def _key(self) -> str:
        """Name what decides which files a dataset has."""
        info, shelf, access = self.info, self.shelf, self.access
        settings = {k: v for k, v in info.settings.items() if k not in SHOWING}
        caches = [[hub.kind, str(hub.cache)] for hub in access.hubs]
        return digest(
            [
                info.class_name,
                settings.setdefault("dataset", info.name),
                sorted(settings.items()),
                caches,
                shelf.table,
                shelf.data_root,
                access.mirror,
            ]
        )


def _content(
    snapshots: Iterable[Mapping[str, Any]], files: Mapping[str, str], cache_dir: Path
) -> str:
    """Return a digest of what the repositories and files hold, tables by their bytes.

    What ms-vlmeval unpacked into a repository's folder is no link and does not count,
    where the repository's own files are links.
    """
    parts: list[object] = [
        [url, md5_of_file(Path(path), cache_dir)] for url, path in files.items()
    ]
    for snapshot in snapshots:
        folder = Path(snapshot["folder"])
        inside = sorted(path for path in folder.rglob("*") if path.is_file())
        links = [path for path in inside if path.is_symlink()]
        parts.append(snapshot["repository"])
        for path in links or inside:
            known: object = path.stat().st_size
            if path.suffix in TABLE_SUFFIXES:
                known = md5_of_file(path, cache_dir)
            parts.append([path.relative_to(folder).as_posix(), known])
    return digest(parts) if parts else ""


def _check_published(
    info: DatasetInfo,
    tables: Iterable[Mapping[str, Any]],
    shelf: Shelf,
    allow_modified: bool,
) -> bool:
    """Return whether a table is neither the published one nor made by ms-vlmeval."""
    modified = False
    for table in tables:
        if table["made"] or table["published"] in ("", table["checksum"]):
            continue
        if info.md5 is not None and info.is_published(table["checksum"]):
            continue
        modified = True
        if not allow_modified:
            said = (
                f"its MD5 is {table['checksum']}, the published one "
                f"{table['published']}"
            )
            remedy = replacing(Path(table["path"]), shelf.snapshots)
            raise not_published(info.name, table["path"], said, remedy)
    return modified
