"""The files of any dataset: one table by its address, or the repositories of a hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.datasets.download import DatasetFile, fetch_dataset
from pytest_vlmeval.datasets.hub import HubAccess
from pytest_vlmeval.datasets.videos import VideoFiles, fetch_videos
from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vlmeval.datasets.transfer import Announce
    from pytest_vlmeval.records import DatasetInfo, Hub
    from pytest_vlmeval.sandbox.process import Sandbox


class FileAccess(NamedTuple):
    """Where files lie, and how missing ones are had.

    `mirror` is a URL or a folder; of the `hubs` the first is preferred.
    """

    data_root: Path
    cache_dir: Path
    allow_modified: bool
    offline: bool
    mirror: str | None
    hubs: Sequence[Hub]
    announce: Announce


def fetch_files(
    info: DatasetInfo, sandbox: Sandbox, access: FileAccess
) -> DatasetFile | VideoFiles:
    """Give a dataset's files, downloading what is missing; raises VlmEvalError.

    Only the first time of a video dataset needs the sandbox.
    """
    if not info.module:
        raise VlmEvalError(
            f"{info.name} is a collection of other datasets; name those instead: "
            f"{', '.join(info.members)}."
        )
    if info.modality != "video":
        return _fetch_table(info, access)
    return fetch_videos(
        info,
        # Some have their rows at one address and their videos on a hub.
        _fetch_table(info, access) if info.url else None,
        sandbox=sandbox,
        access=HubAccess(
            python=sandbox.python,
            hubs=access.hubs,
            cache_dir=access.cache_dir,
            offline=access.offline,
            mirror=access.mirror,
            announce=access.announce,
        ),
        data_root=access.data_root,
        allow_modified=access.allow_modified,
    )


def _fetch_table(info: DatasetInfo, access: FileAccess) -> DatasetFile:
    return fetch_dataset(
        info,
        data_root=access.data_root,
        cache_dir=access.cache_dir,
        allow_modified=access.allow_modified,
        offline=access.offline,
        mirror=access.mirror,
        announce=access.announce,
    )
