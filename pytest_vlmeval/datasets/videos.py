"""Video datasets: how their videos are shown, and where their files are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.datasets.download import DatasetFile
from pytest_vlmeval.datasets.files import md5_of_file, write_whole
from pytest_vlmeval.datasets.hub import SnapshotRequest
from pytest_vlmeval.datasets.unpacking import unpacking
from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pytest_vlmeval.datasets.hub import HubAccess
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.sandbox.calls import Shelf
    from pytest_vlmeval.sandbox.process import Sandbox

DEFAULT_FRAMES = 8
# What differs between presets without changing which files they need.
SHOWING = {"nframe", "fps", "pack", "use_subtitle"}
# Repositories of one dataset that are asked for, one after the other.
MOST_SNAPSHOTS = 8


class VideoFiles(NamedTuple):
    """A dataset's table and the snapshots of repositories that its videos are in."""

    file: DatasetFile
    shelf: Shelf


def is_preset(info: DatasetInfo) -> bool:
    """Whether a dataset's name fixes how its videos are shown."""
    return "dataset" in info.settings


def show_videos(
    info: DatasetInfo, nframe: int | None, fps: float | None
) -> DatasetInfo:
    """Give a video dataset with the settings of its frames; a preset keeps its own."""
    if info.modality != "video" or is_preset(info):
        return info
    frames = {"nframe": nframe or DEFAULT_FRAMES} if fps is None else {"fps": fps}
    return dataclasses.replace(info, settings={**info.settings, **frames})


def check_frames_apply(
    infos: Iterable[DatasetInfo], nframe: int | None, fps: float | None
) -> None:
    """Raise VlmEvalError where options of frames are given and only presets chosen."""
    videos = [info for info in infos if info.modality == "video"]
    option = f"--vlm-nframe={nframe}" if nframe else f"--vlm-fps={fps or 0:g}"
    if (nframe or fps) and videos and all(map(is_preset, videos)):
        names = ", ".join(info.name for info in videos)
        raise VlmEvalError(
            f"{option} changes nothing: the name of a preset says how its videos are "
            f"shown ({names}). Leave the option out, or choose "
            f"{videos[0].settings['dataset']}."
        )


def describe_videos(info: DatasetInfo, video_url: bool) -> tuple[str, ...]:
    """Say for a score how videos were shown; nothing for other datasets."""
    if info.modality != "video":
        return ()
    if video_url:
        return ("videos sent as their files",)
    fps = info.settings.get("fps", -1)
    if isinstance(fps, int | float) and fps > 0:
        noun = "frame" if fps == 1 else "frames"
        return (f"{fps:g} {noun} per second of video",)
    count = info.settings.get("nframe", 0)
    return (f"{count} {'frame' if count == 1 else 'frames'} per video",)


def fetch_videos(
    info: DatasetInfo,
    table: DatasetFile | None,
    *,
    sandbox: Sandbox,
    access: HubAccess,
    data_root: Path,
    allow_modified: bool,
) -> VideoFiles:
    """Give a video dataset's table, bringing the repositories that its class wants.

    `table` is the file of a dataset whose rows have a URL of their own. What was found
    is remembered until one of the files is gone or changed, so that the next time
    needs neither network nor sandbox. Raises VlmEvalError.
    """
    shelf: Shelf = {
        "hub": access.hubs[0].kind,
        "snapshots": [],
        "table": str(table.path) if table else None,
        "data_root": str(data_root),
        "any_checksum": allow_modified,
    }
    found = _find(info, shelf, sandbox, access)
    shelf["snapshots"] = found["snapshots"]
    tables = found["tables"]
    modified = _check_published(info, tables, allow_modified)
    checksums = [each["checksum"] for each in tables]
    file = DatasetFile(
        Path(tables[0]["path"]),
        checksums[0] if len(tables) == 1 else _digest(checksums),
        modified or (table is not None and table.modified),
    )
    return VideoFiles(file, shelf)


def _find(
    info: DatasetInfo, shelf: Shelf, sandbox: Sandbox, access: HubAccess
) -> dict[str, Any]:
    """Give what was found before, or find it and remember it."""
    from filelock import FileLock

    memory = access.cache_dir / "videos" / f"{_key(info, shelf, access)}.json"
    found = _recall(memory, access.cache_dir)
    if found is not None:
        return found
    locks = access.cache_dir / "locks"
    for folder in (locks, memory.parent, Path(shelf["data_root"])):
        folder.mkdir(parents=True, exist_ok=True)
    # Classes of one module unpack the same repositories.
    with FileLock(locks / f"videos-{info.module}.lock"):
        found = _recall(memory, access.cache_dir)
        if found is None:
            found = _locate(info, shelf, sandbox, access, memory.with_suffix(".note"))
            write_whole(memory, json.dumps(found))
    return found


def _locate(
    info: DatasetInfo, shelf: Shelf, sandbox: Sandbox, access: HubAccess, note: Path
) -> dict[str, Any]:
    from pytest_vlmeval.sandbox.calls import locate_in_sandbox

    snapshots: list[dict[str, Any]] = []
    for _ in range(MOST_SNAPSHOTS):
        folders = [str(each["folder"]) for each in snapshots]
        if folders:
            access.announce(
                f"looking for the videos of {info.name} in {folders[-1]}; what is "
                "packed there is unpacked, once"
            )
        with unpacking(folders, note):
            found = locate_in_sandbox(sandbox, info, {**shelf, "snapshots": snapshots})
        if "needs" not in found:
            return {"tables": found["tables"], "snapshots": snapshots}
        folder = access.bring(SnapshotRequest(**found["needs"]), info.name)
        snapshots.append({**found["needs"], "folder": str(folder)})
    raise VlmEvalError(
        f"{info.name}: ms-vlmeval asked for more than {MOST_SNAPSHOTS} repositories: "
        f"{', '.join(each['repository'] for each in snapshots)}."
    )


def _recall(memory: Path, cache_dir: Path) -> dict[str, Any] | None:
    """Give what was found before, if all of it is still there as it was."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found: dict[str, Any] = json.loads(memory.read_text(encoding="utf-8"))
        tables = all(
            md5_of_file(Path(each["path"]), cache_dir) == each["checksum"]
            for each in found["tables"]
        )
        if tables and all(Path(each["folder"]).is_dir() for each in found["snapshots"]):
            return found
    return None


def _check_published(
    info: DatasetInfo, tables: Iterable[Mapping[str, Any]], allow_modified: bool
) -> bool:
    """Tell whether a table is neither the published one nor made by ms-vlmeval."""
    modified = False
    for table in tables:
        if table["made"] or table["published"] in ("", table["checksum"]):
            continue
        modified = True
        if not allow_modified:
            raise VlmEvalError(
                f"{info.name}: {table['path']} is not the published file: its MD5 is "
                f"{table['checksum']}, the published one {table['published']}. Remove "
                "it to have it downloaded again, or evaluate it as it is with "
                "--vlm-allow-modified-data; its score is then marked as modified."
            )
    return modified


def _key(info: DatasetInfo, shelf: Shelf, access: HubAccess) -> str:
    """Name what decides which files a dataset has."""
    settings = {k: v for k, v in info.settings.items() if k not in SHOWING}
    caches = [[hub.kind, str(hub.cache)] for hub in access.hubs]
    return _digest(
        [
            info.class_name,
            settings.setdefault("dataset", info.name),
            sorted(settings.items()),
            caches,
            shelf["table"],
            shelf["data_root"],
            access.mirror,
        ]
    )


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
