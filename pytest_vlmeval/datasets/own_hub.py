"""A repository of a hub as a table of the user's own: its files, and their images."""

from __future__ import annotations

import glob
import json
import math
import posixpath
import re
import time
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.datasets.download import GB, digest, remember, size_text
from pytest_vlmeval.datasets.hub import (
    TITLES,
    bring_repository,
    find_mirror,
    list_repository,
)
from pytest_vlmeval.errors import VlmEvalError, did_you_mean
from pytest_vlmeval.sandbox.own_formats import ACCEPTED, FORMATS
from pytest_vlmeval.settings.option import Repository, read_repository

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pytest_vlmeval.datasets.download import FileAccess

SHOWN_FILES = 8
# For as long the processes of a session do not ask a hub anew.
FRESH_S = 60.0
# Of files that are downloaded by their names.
MOST_NAMES = 500
# Files that hold no rows, whatever the end of their names.
NO_TABLES = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json"}
# What ends the name of one of several files of a split.
SHARD = re.compile(r"-(\d{5})-of-(\d{5})(?:-[0-9a-f]{16})?$")


class HubTable(NamedTuple):
    """A split of a repository that is on disk.

    `root` is the folder of all files of the repository, `inside` that which the files
    really lie in, `revision` the commit, "" where the hub has none.
    """

    place: str
    repository: Repository
    files: Sequence[Path]
    root: Path
    inside: Path
    revision: str
    sizes: Mapping[str, int]

    @property
    def source(self) -> str:
        """The hub and the repository, without a revision."""
        return f"{TITLES[self.repository.hub]} {self.repository.name}"

    @property
    def version(self) -> str:
        """The repository at its commit, for reports."""
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.repository.name}{at}"

    @property
    def archives(self) -> Sequence[str]:
        """The ZIP archives of the repository, in which images may be."""
        return [path for path in self.sizes if path.lower().endswith(".zip")]

    def bring_archive(self, path: str, access: FileAccess) -> Path:
        """Download an archive that is not here yet; return its file.

        Raises VlmEvalError if it cannot be had.
        """
        file = self.root / path
        if not file.is_file():
            if access.offline:
                raise VlmEvalError(
                    f"{self.place}: its images are in {path}, which is not on disk, "
                    "and --vlm-offline is set. Run the same command once without it."
                )
            _check_size(self.place, [self.sizes[path]], access)
            _bring(self.place, self.repository, [glob.escape(path)], access)
        return file

    def bring_images(self, paths: Iterable[str], access: FileAccess) -> None:
        """Download the images that the table names and that are not here yet."""
        beside = self.files[0].parent.relative_to(self.root).as_posix()
        named = {posixpath.normpath(f"{beside}/{path}") for path in paths}
        missing = sorted(
            path
            for path in named & self.sizes.keys()
            if not (self.root / path).exists()
        )
        if not missing or access.offline:
            return
        _check_size(self.place, [self.sizes[path] for path in missing], access)
        if len(missing) > MOST_NAMES:
            # Each name would be compared with each file of the repository.
            folders = {posixpath.dirname(path) for path in missing}
            missing = [
                f"{folder}/*" if folder else "*" for folder in map(glob.escape, folders)
            ]
        else:
            missing = [glob.escape(path) for path in missing]
        _bring(self.place, self.repository, missing, access)


def bring_table(place: str, access: FileAccess) -> HubTable:
    """Return the files of the split that `place` names, downloaded if they are missing.

    Raises VlmEvalError where it is open which are meant, or where they cannot be had.
    """
    try:
        repository = read_repository(place)
    except ValueError:
        hub = place[:3]
        raise VlmEvalError(
            f"{place} names no repository. Give {hub}OWNER/NAME, {hub}OWNER/NAME:SPLIT "
            f"or {hub}OWNER/NAME@REVISION:SPLIT."
        ) from None
    from filelock import FileLock

    locks = access.cache_dir / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"hub-{digest(place)[:16]}.lock"):
        return _bring_table(place, repository, access)


class _Listing(NamedTuple):
    """All files of a repository: their sizes in bytes, the commit, and their folder.

    The commit is "" where the hub has none, the folder where nothing is on disk.
    """

    sizes: Mapping[str, int]
    commit: str = ""
    folder: str = ""


def _bring_table(place: str, repository: Repository, access: FileAccess) -> HubTable:
    wanted = _request(repository, None)
    mirror = find_mirror(wanted, access)
    if mirror is not None:
        folder = _bring(place, repository, None, access)
        listing = _Listing(_sizes_in(folder), "", str(folder))
    else:
        known = [wanted[name] for name in ("hub", "repository", "revision")]
        caches = [str(hub.cache) for hub in access.hubs if hub.kind == repository.hub]
        key = digest([*known, caches])[:32]
        memory = access.cache_dir / "own" / f"hub-{key}.json"
        listing, access = _list(place, repository, memory, access)
    chosen = choose_split(place, repository, listing.sizes)
    _check_whole(place, chosen)
    folder = Path(listing.folder)
    if not listing.folder or any(not (folder / path).is_file() for path in chosen):
        if not access.offline:
            _check_size(place, [listing.sizes[path] for path in chosen], access)
        folder = _bring(place, repository, list(map(glob.escape, chosen)), access)
        remember(memory, [listing.sizes, listing.commit, str(folder)])
    is_snapshot = folder.parent.name == "snapshots"
    return HubTable(
        place=place,
        repository=repository,
        files=[folder / path for path in chosen],
        root=folder,
        inside=mirror or (folder.parents[1] if is_snapshot else folder),
        revision=listing.commit
        or (folder.name if is_snapshot else repository.revision),
        sizes=listing.sizes,
    )


def _list(
    place: str, repository: Repository, memory: Path, access: FileAccess
) -> tuple[_Listing, FileAccess]:
    """Return the files of a repository, and the access that brings them.

    What the hub gave before serves as well offline, and while the hub is away: that
    access is offline then. It serves too where another process has just asked.
    """
    before = _Listing({})
    age_s = math.inf
    with suppress(OSError, ValueError, TypeError):
        before = _Listing(*json.loads(memory.read_text(encoding="utf-8")))
        age_s = time.time() - memory.stat().st_mtime
    if before.sizes and (access.offline or 0 <= age_s < FRESH_S):
        return before, access
    if access.offline:  # with what the hub's own client has, all of it
        folder = _bring(place, repository, None, access)
        return _Listing(_sizes_in(folder), "", str(folder)), access
    try:
        sizes, commit = list_repository(_request(repository, None), place, access)
    except VlmEvalError as error:
        if not before.sizes:
            raise
        said = str(error).removeprefix(f"{place}: ").partition(" (")[0]
        access.announce(f"{place}: {said}; what is on disk is used")
        return before, access._replace(offline=True)
    # Without a commit it is the client who knows whether a file has changed.
    unchanged = commit and commit == before.commit
    listing = _Listing(sizes, commit, before.folder if unchanged else "")
    remember(memory, listing)
    return listing, access


def _request(repository: Repository, allow: Sequence[str] | None) -> dict[str, Any]:
    return {
        "hub": repository.hub,
        "repository": repository.name,
        "revision": repository.revision or None,
        "allow": allow,
        "ignore": None,
    }


def _bring(
    place: str,
    repository: Repository,
    allow: Sequence[str] | None,
    access: FileAccess,
) -> Path:
    return bring_repository(
        _request(repository, allow), place, access.client(repository.hub), access
    )


def _sizes_in(folder: Path) -> dict[str, int]:
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def splits_of(paths: Iterable[str]) -> dict[str, list[str]]:
    """Return the tables of a repository by their names, each with its files in order.

    `data/test-00000-of-00002.parquet` belongs to `test`, `en/dev.csv` is `en/dev`. What
    would have the same name in two formats has its suffix in its name.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(paths):
        plain = path.removesuffix(".gz")
        suffix = PurePosixPath(plain).suffix.lower()
        name = PurePosixPath(plain).name
        if suffix not in FORMATS or name in NO_TABLES or path.startswith("."):
            continue
        stem = SHARD.sub("", plain[: -len(suffix)])
        stem = re.sub(r"/\d{4}$", "", stem).removeprefix("data/")
        found.setdefault((stem, suffix), []).append(path)
    stems = [stem for stem, _ in found]
    return {
        stem + (suffix if stems.count(stem) > 1 else ""): files
        for (stem, suffix), files in found.items()
    }


def choose_split(
    place: str, repository: Repository, sizes: Mapping[str, int]
) -> Sequence[str]:
    """Return the files of the split that is meant; VlmEvalError if that is open."""
    splits = splits_of(sizes)
    name = repository.split
    bare = place.removesuffix(f":{name}") if name else place
    if not splits:
        shown = ", ".join(sorted(sizes)[:SHOWN_FILES]) or "none"
        more = " and others" if len(sizes) > SHOWN_FILES else ""
        raise VlmEvalError(
            f"{place}: the repository has no table ({ACCEPTED}). Its files are "
            f"{shown}{more}."
        )
    fitting = [
        split
        for split in splits
        if not name or split == name or split.endswith(f"/{name}")
    ]
    if name in splits:
        fitting = [name]
    if len(fitting) == 1:
        return splits[fitting[0]]
    if fitting:
        raise VlmEvalError(
            f"{place}: the repository has several tables: {_shown(fitting)}. Name "
            f"one, as {bare}:{fitting[0]}."
        )
    raise VlmEvalError(
        f"{place}: the repository has no table {name!r}."
        f"{did_you_mean(name, splits)} It has {_shown(splits)}."
    )


def _shown(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - SHOWN_FILES
    return ", ".join(listed[:SHOWN_FILES]) + (f" and {more} more" if more > 0 else "")


def _check_whole(place: str, files: Sequence[str]) -> None:
    """Raise VlmEvalError where files of a split are missing, by their own count."""
    for path in files:
        plain = path.removesuffix(".gz")
        found = SHARD.search(plain[: -len(PurePosixPath(plain).suffix)])
        if found is not None and int(found[2]) != len(files):
            raise VlmEvalError(
                f"{place}: by its name, {path} is one of {int(found[2])} files, and "
                f"the repository has {len(files)} of them. Name another split or "
                "revision."
            )


def _check_size(place: str, sizes: Sequence[int], access: FileAccess) -> None:
    total = sum(sizes)
    if access.max_gb is not None and total > access.max_gb * GB:
        raise VlmEvalError(
            f"{place} has {size_text(total)} to download, more than "
            f"--vlm-download-max-gb={access.max_gb:g}. Name a smaller split, or allow "
            "more with that option. Nothing was downloaded."
        )
