"""What is to be downloaded, and how large it is, before the first byte."""

from __future__ import annotations

import http.client
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.datasets.files import GB, data_path, is_url, size_text, source_of
from pytest_vlmeval.datasets.transfer import open_url
from pytest_vlmeval.errors import VlmEvalError

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo

ASKED_AT_ONCE = 16
# All sizes together; what is not known by then counts as unknown.
DEADLINE_S = 5.0


class PlannedDownload(NamedTuple):
    """One missing file; `size` in bytes, None where the server does not say."""

    name: str
    source: str
    size: int | None


class DownloadPlan(NamedTuple):
    """The missing files of some datasets, largest first, unknown sizes last."""

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
    deadline_s: float = DEADLINE_S,
) -> DownloadPlan:
    """Ask for the sizes of the files that are missing, all at once; never raises.

    Datasets without an address (bundled ones, one's own, those of a hub) and, when
    `offline`, those on a server are left out: this does not download them.
    """
    sources = {}
    for info in infos:
        source = source_of(info, mirror)
        if info.path or source is None or data_path(info, data_root).is_file():
            continue
        if info.url and not (offline and is_url(source)):
            sources[info.name] = source
    sizes = _sizes(set(sources.values()), deadline_s)
    planned = [
        PlannedDownload(name, source, sizes.get(source))
        for name, source in sources.items()
    ]
    # Stable, so that equals keep the order they were asked for in.
    planned.sort(key=lambda each: -1 if each.size is None else each.size, reverse=True)
    return DownloadPlan(tuple(planned))


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


def _sizes(sources: set[str], deadline_s: float) -> dict[str, int]:
    if not sources:
        return {}
    found: dict[str, int] = {}

    def ask(source: str) -> None:
        size = _size(source, deadline_s)
        if size is not None:
            found[source] = size

    pool = ThreadPoolExecutor(ASKED_AT_ONCE)
    wait([pool.submit(ask, source) for source in sources], timeout=deadline_s)
    # A late answer no longer counts; its thread ends at its own deadline.
    pool.shutdown(wait=False, cancel_futures=True)
    return dict(found)


def _size(source: str, timeout_s: float) -> int | None:
    with suppress(OSError, http.client.HTTPException, ValueError):
        if not is_url(source):
            return Path(source).stat().st_size
        with open_url(source, method="HEAD", timeout_s=timeout_s) as response:
            return int(response.headers["Content-Length"])
    return None
