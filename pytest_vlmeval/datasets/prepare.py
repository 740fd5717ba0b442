"""From a dataset's file to samples on disk, once for all runs and processes."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.datasets.access import fetch_files
from pytest_vlmeval.datasets.videos import describe_videos
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.prompts import Sample, parts_of, read_prompt
from pytest_vlmeval.records import PreparedDataset

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from pytest_vlmeval.datasets.download import FileAccess
    from pytest_vlmeval.datasets.locating import DatasetFiles
    from pytest_vlmeval.prompts import Turn
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.sandbox.process import Progress, Sandbox

# Counts changes in what is written, so that older folders are not read.
FORMAT = 2
_REFERENCES = ("index", "reference")
COLUMNS = ("index", "category", "group", "reference", "error", "prompt")


@dataclass(frozen=True, slots=True)
class IndexRow:
    """What names and sorts a sample, without its prompt."""

    index: str
    category: str | None
    group: str | None
    reference: str | None


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
        sample_count=_count_samples(folder),
        notes=describe_videos(info, video_url),
    )


def find_prepared(cache_dir: Path, name: str, fingerprint: str) -> Path | None:
    """Return the folder of a dataset that was prepared before; None if it is gone."""
    folder = _place(cache_dir, name, fingerprint.removeprefix(f"{name}-"))
    return folder if (folder / "samples.parquet").is_file() else None


def _place(cache_dir: Path, name: str, key: str) -> Path:
    return cache_dir / "prepared" / name / key


def read_samples(prepared: PreparedDataset) -> list[Sample]:
    """Give all samples in the dataset's order."""
    return read_samples_of(prepared.folder, prepared.info.name)


def read_samples_of(folder: Path, name: str) -> list[Sample]:
    """Give all samples of the dataset that was prepared in a folder."""
    return [
        Sample(
            dataset=name,
            index=index,
            category=category,
            group=group,
            reference=reference,
            error=error,
            prompt=read_prompt(prompt),
        )
        for index, category, group, reference, error, prompt in _rows(folder, COLUMNS)
    ]


def read_references(folder: Path) -> dict[str, str | None]:
    """Give what each sample of a prepared dataset is compared with, by index."""
    rows = _rows(folder, _REFERENCES)
    return {str(index): reference for index, reference in rows}


class Prompts:
    """The prompts of a prepared dataset, by index, as the JSON they are kept in."""

    def __init__(self, prepared: PreparedDataset) -> None:
        table = _table(prepared.folder, ("index", "error", "prompt")).combine_chunks()
        self._rows = {
            index: row for row, index in enumerate(table["index"].to_pylist())
        }
        self._errors = table["error"]
        self._prompts = table["prompt"]

    def text(self, index: str) -> str:
        """Return what names all of a prompt, its media by their content; "" if none."""
        row = self._rows[index]
        return "" if self._errors[row].is_valid else str(self._prompts[row])

    def media(self, index: str) -> frozenset[str]:
        """Return the files of a prompt's pictures and videos."""
        parts = parts_of(read_prompt(self.text(index) or "[]"))
        return frozenset(part.media for part in parts if part.media)

    def count_media(self, index: str) -> tuple[int, int]:
        """Return how many pictures and how many videos a prompt has."""
        text = self.text(index)
        # In a JSON text quotes stand like this only where a part begins.
        return text.count('["image", "'), text.count('["video", "')

    def turns(self, index: str) -> tuple[Turn, ...]:
        """Return a prompt; `VlmEvalError` for a row that has none."""
        row = self._rows[index]
        if self._errors[row].is_valid:
            raise VlmEvalError(str(self._errors[row]))
        return read_prompt(str(self._prompts[row]))


def read_index(prepared: PreparedDataset) -> list[IndexRow]:
    """Give what names the samples, in the dataset's order, without their prompts."""
    # A category is that of thousands of samples: kept once.
    once: dict[str | None, str | None] = {}
    return [
        IndexRow(index, *(once.setdefault(text, text) for text in rest))
        for index, *rest in _rows(prepared.folder, IndexRow.__slots__)
    ]


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
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            if not self._write(part):
                place = self.files.place
                raise VlmEvalError(f"{self.info.name}: {place} has no row to ask.")
            _write_parquet(part)
            part.chmod(0o755)
            part.rename(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

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
    columns: dict[str, list[str | None]] = {name: [] for name in COLUMNS}
    with lines.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            row["prompt"] = json.dumps(row["prompt"], ensure_ascii=False)
            for name, values in columns.items():
                values.append(row[name])
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    pq.write_table(
        pa.table(columns, schema=schema),
        folder / "samples.parquet",
        write_page_checksum=True,
    )
    lines.unlink()


def _count_samples(folder: Path) -> int:
    import pyarrow.parquet as pq

    with _readable(folder):
        return int(pq.read_metadata(folder / "samples.parquet").num_rows)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Say what a damaged folder of the cache means; it is never replaced unasked."""
    import pyarrow as pa

    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise VlmEvalError(
            f"{folder / 'samples.parquet'} is damaged or gone: {reason}. Remove the "
            f"folder {folder}, and the dataset is prepared again; answers are kept in "
            "the run store."
        ) from None


def _rows(folder: Path, columns: Sequence[str]) -> zip[tuple[str, ...]]:
    table = _table(folder, columns)
    with _readable(folder):
        return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _table(folder: Path, columns: Sequence[str]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Arrow's own memory, in huge pages, would cost 28 MB; threads and the machinery of
    # data sets 50.
    pa.set_memory_pool(pa.system_memory_pool())
    with (
        _readable(folder),
        pq.ParquetFile(
            folder / "samples.parquet", page_checksum_verification=True
        ) as file,
    ):
        return file.read(columns=list(columns), use_threads=False)
