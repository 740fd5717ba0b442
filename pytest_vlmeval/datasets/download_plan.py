"""What is to be downloaded, and how large it is, before the first byte."""

from __future__ import annotations

import http.client
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.datasets.files import GB, data_path, is_url, size_text, source_of
from pytest_vlmeval.datasets.hub import is_cached, repository_size
from pytest_vlmeval.datasets.transfer import open_url
from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vlmeval.records import DatasetInfo, Hub

ASKED_AT_ONCE = 16
# All sizes together; what is not known by then counts as unknown.
DEADLINE_S = 5.0


class _Source(NamedTuple):
    """Where a file is, or with hubs the repository that is to be downloaded."""

    place: str
    hubs: tuple[Hub, ...] = ()


class PlannedDownload(NamedTuple):
    """A missing file or repository; `size` in bytes, None where it is not known."""

    name: str
    source: str
    size: int | None


class DownloadPlan(NamedTuple):
    """What some datasets miss, largest first, unknown sizes last."""

    downloads: tuple[PlannedDownload, ...]

    @property
    def known_bytes(self) -> int:
        """The sum of the sizes that are known."""
        return sum(each.size or 0 for each in self.downloads)

    def summary(self) -> str:
        """Give one line for all."""
        unknown = [each.name for each in self.downloads if each.size is None]
        known = len(self.downloads) - len(unknown)
        parts = []
        if known:
            noun = "dataset" if known == 1 else "datasets"
            parts.append(f"{known} {noun}, {size_text(self.known_bytes)}")
        if unknown:
            parts.append(f"of unknown size: {', '.join(unknown)}")
        return f"to download: {'; '.join(parts)}"


def plan_downloads(
    infos: Iterable[DatasetInfo],
    *,
    data_root: Path,
    mirror: str | None = None,
    offline: bool = False,
    hubs: Sequence[Hub] = (),
    deadline_s: float = DEADLINE_S,
) -> DownloadPlan:
    """Ask for the sizes of the files that are missing, all at once; never raises.

    Datasets without an address (bundled ones, one's own) and, when `offline`, those
    on a server are left out: this does not download them. So are repositories of
    which one of the `hubs` has files in its cache.
    """
    missing: dict[_Source, str] = {}
    for info in infos:
        for source in (
            _missing_file(info, data_root, mirror, offline),
            _missing_repository(info, mirror, offline, hubs),
        ):
            # Presets share their files: they are downloaded once.
            if source is not None:
                missing.setdefault(source, info.name)
    sizes = _sizes(set(missing), deadline_s)
    planned = [
        PlannedDownload(name, source.place, sizes.get(source))
        for source, name in missing.items()
    ]
    # Stable, so that equals keep the order they were asked for in.
    planned.sort(key=lambda each: -1 if each.size is None else each.size, reverse=True)
    return DownloadPlan(tuple(planned))


def _missing_file(
    info: DatasetInfo, data_root: Path, mirror: str | None, offline: bool
) -> _Source | None:
    source = source_of(info, mirror)
    if info.path or source is None or data_path(info, data_root).is_file():
        return None
    return _Source(source) if info.url and not (offline and is_url(source)) else None


def _missing_repository(
    info: DatasetInfo, mirror: str | None, offline: bool, hubs: Sequence[Hub]
) -> _Source | None:
    in_folder = mirror is not None and not is_url(mirror)
    if not info.repository or not hubs or offline or in_folder:
        return None
    if is_cached(info.repository, hubs):
        return None
    return _Source(info.repository, tuple(hubs))


def check_plan(plan: DownloadPlan, max_gb: float) -> None:
    """Raise VlmEvalError when the known sizes are more than `max_gb` together."""
    if plan.known_bytes <= max_gb * GB:
        return
    lines = [
        f"  {'unknown' if each.size is None else size_text(each.size):>8}  {each.name}"
        for each in plan.downloads
    ]
    raise VlmEvalError(
        f"The selected datasets have {size_text(plan.known_bytes)} to download, more "
        f"than --vlm-download-max-gb={max_gb:g}:\n"
        + "\n".join(lines)
        + "\nChoose fewer datasets with -m core (the usual eight), -k or "
        "--vlm-data=NAME,NAME, or allow more with --vlm-download-max-gb. Nothing was "
        "downloaded."
    )


def _sizes(sources: set[_Source], deadline_s: float) -> dict[_Source, int]:
    if not sources:
        return {}
    found: dict[_Source, int] = {}

    def ask(source: _Source) -> None:
        size = _size(source, deadline_s)
        if size is not None:
            found[source] = size

    pool = ThreadPoolExecutor(ASKED_AT_ONCE)
    wait([pool.submit(ask, source) for source in sources], timeout=deadline_s)
    # A late answer no longer counts; its thread ends at its own deadline.
    pool.shutdown(wait=False, cancel_futures=True)
    return dict(found)


def _size(source: _Source, timeout_s: float) -> int | None:
    if source.hubs:
        # The preferred one may not have it, where a class only knows the other.
        sizes = (repository_size(source.place, hub, timeout_s) for hub in source.hubs)
        return next((size for size in sizes if size is not None), None)
    with suppress(OSError, http.client.HTTPException, ValueError):
        if not is_url(source.place):
            return Path(source.place).stat().st_size
        with open_url(source.place, method="HEAD", timeout_s=timeout_s) as response:
            return int(response.headers["Content-Length"])
    return None
