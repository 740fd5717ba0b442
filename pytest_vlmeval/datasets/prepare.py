"""From a dataset's file to samples on disk, once for all runs and processes."""

from __future__ import annotations

import hashlib
import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.datasets.access import fetch_files
from pytest_vlmeval.datasets.prepared import AT_ONCE, COLUMNS, count_samples
from pytest_vlmeval.datasets.videos import describe_videos
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.leftovers import HeldFolder, sweep
from pytest_vlmeval.records import PreparedDataset
from pytest_vlmeval.sandbox.rows import text_array

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.download import FileAccess
    from pytest_vlmeval.datasets.locating import DatasetFiles
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.sandbox.process import Progress, Sandbox

# Counts changes in what is written, so that older folders are not read.
FORMAT = 4
# Ends the name of a folder that is being filled, before what tells it from others.
PART = ".part-"


def prepare_dataset(
    info: DatasetInfo,
    access: FileAccess,
    *,
    sandbox: Sandbox,
    sandbox_fingerprint: str,
    video_url: bool = False,
    on_progress: Progress | None = None,
) -> PreparedDataset:
    """Give the dataset ready to be asked, without the sandbox if it was before.

    `video_url` keeps videos where else their frames are cut. Raises VlmEvalError for
    a file that is missing, not the published one, or no table that ms-vlmeval reads.
    """
    files = fetch_files(info, sandbox, access)
    key = _key(info, files, sandbox_fingerprint, video_url)
    folder = _place(access.cache_dir, info.name, key)
    if not folder.is_dir():
        _Preparation(info, files, sandbox, video_url, on_progress).fill(folder)
    return PreparedDataset(
        info=info,
        folder=folder,
        fingerprint=f"{info.name}-{key}",
        checksum=files.checksum,
        modified=files.modified,
        sample_count=count_samples(folder),
        version=info.name_version(files.checksum),
        notes=describe_videos(info, video_url),
    )


def find_prepared(cache_dir: Path, name: str, fingerprint: str) -> Path | None:
    """Return the folder of a dataset that was prepared before; None if it is gone."""
    folder = _place(cache_dir, name, fingerprint.removeprefix(f"{name}-"))
    return folder if (folder / "samples.parquet").is_file() else None


def _place(cache_dir: Path, name: str, key: str) -> Path:
    return cache_dir / "prepared" / name / key


def _key(
    info: DatasetInfo, files: DatasetFiles, sandbox_fingerprint: str, video_url: bool
) -> str:
    parts: list[object] = [
        FORMAT,
        info.class_name,
        info.module,
        files.checksum,
        sandbox_fingerprint,
    ]
    if files.content:
        parts.append(files.content)
    if info.modality == "video":
        parts += [sorted(info.settings.items()), video_url]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class _Preparation(NamedTuple):
    """One dataset on its way from its files to a folder of samples."""

    info: DatasetInfo
    files: DatasetFiles
    sandbox: Sandbox
    video_url: bool
    on_progress: Progress | None

    def fill(self, folder: Path) -> None:
        """Write the folder, whole or not at all; raises VlmEvalError."""
        from filelock import FileLock

        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / f".{folder.name}.lock"):
                if not folder.is_dir():
                    self._fill_locked(folder)
        except OSError as error:
            raise VlmEvalError(
                f"{self.info.name} cannot be prepared in {folder.parent}: "
                f"{error.strerror}. --vlm-cache-dir takes another folder."
            ) from error

    def _fill_locked(self, folder: Path) -> None:
        # What killed processes left of any dataset takes as much space as it does.
        sweep(folder.parent.parent, f"*/.*{PART}*")
        with HeldFolder(f".{folder.name}{PART}", folder.parent) as part:
            if not self._write(part):
                place = self.files.place
                raise VlmEvalError(f"{self.info.name}: {place} has no row to ask.")
            _write_parquet(part)
            part.chmod(0o755)
            part.rename(folder)

    def _write(self, part: Path) -> int:
        from pytest_vlmeval.sandbox import calls

        if self.info.modality != "video":
            return calls.prepare_in_sandbox(
                self.sandbox,
                self.info,
                self.files.table,
                part,
                self.on_progress,
                shelf=self.files.shelf,
            )
        return calls.prepare_videos_in_sandbox(
            self.sandbox,
            self.info,
            self.files.shelf,
            part,
            video_url=self.video_url,
            on_progress=self.on_progress,
        )


def _write_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = folder / "samples.jsonl"
    # Large: all prompts together may have more than 2 GB.
    schema = pa.schema([(name, pa.large_string()) for name in COLUMNS])
    with (
        lines.open(encoding="utf-8", errors="surrogatepass") as file,
        pq.ParquetWriter(
            folder / "samples.parquet", schema, write_page_checksum=True
        ) as writer,
    ):
        while part := list(islice(file, AT_ONCE)):
            rows = [json.loads(line) for line in part]
            for row in rows:
                row["prompt"] = json.dumps(row["prompt"], ensure_ascii=False)
            columns = [text_array([row[name] for row in rows]) for name in COLUMNS]
            writer.write_batch(pa.record_batch(columns, schema=schema))
    lines.unlink()
