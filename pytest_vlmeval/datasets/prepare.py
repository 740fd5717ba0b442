"""From a dataset's file to samples on disk, once for all runs and processes."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.datasets.download import fetch_dataset
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import PreparedDataset, PromptPart, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vlmeval.datasets.download import DatasetFile
    from pytest_vlmeval.datasets.transfer import Announce
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.sandbox.process import Progress, Sandbox

# Counts changes in what is written, so that older folders are not read.
FORMAT = 1
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
    *,
    data_root: Path,
    cache_dir: Path,
    sandbox: Sandbox,
    sandbox_fingerprint: str,
    allow_modified: bool,
    offline: bool,
    mirror: str | None = None,
    announce: Announce = lambda line: None,
    on_progress: Progress | None = None,
) -> PreparedDataset:
    """Give the dataset ready to be asked, without the sandbox if it was before.

    Raises VlmEvalError for a file that is missing, not the published one, or not a
    table that ms-vlmeval can read.
    """
    _check_supported(info)
    file = fetch_dataset(
        info,
        data_root=data_root,
        cache_dir=cache_dir,
        allow_modified=allow_modified,
        offline=offline,
        mirror=mirror,
        announce=announce,
    )
    key = _key(info, file.checksum, sandbox_fingerprint)
    folder = cache_dir / "prepared" / info.name / key
    if not folder.is_dir():
        _prepare(info, file, folder, sandbox, on_progress)
    return PreparedDataset(
        info=info,
        folder=folder,
        fingerprint=f"{info.name}-{key}",
        checksum=file.checksum,
        modified=file.modified,
        sample_count=_count_samples(folder),
    )


def read_samples(prepared: PreparedDataset) -> list[Sample]:
    """Give all samples in the dataset's order."""
    name = prepared.info.name
    return [
        Sample(
            dataset=name,
            index=index,
            category=category,
            group=group,
            reference=reference,
            error=error,
            prompt=tuple(_part(*part) for part in json.loads(prompt)),
        )
        for index, category, group, reference, error, prompt in _rows(prepared, COLUMNS)
    ]


def read_index(prepared: PreparedDataset) -> list[IndexRow]:
    """Give what names the samples, in the dataset's order, without their prompts."""
    return [IndexRow(*row) for row in _rows(prepared, IndexRow.__slots__)]


def _check_supported(info: DatasetInfo) -> None:
    if info.modality == "video":
        raise VlmEvalError(
            f"{info.name} is a video dataset, and those cannot be prepared yet. Leave "
            "it out with --vlm-data."
        )
    if info.members:
        raise VlmEvalError(
            f"{info.name} is a collection of other datasets; name those instead: "
            f"{', '.join(info.members)}."
        )


def _key(info: DatasetInfo, checksum: str, sandbox_fingerprint: str) -> str:
    parts = [FORMAT, info.class_name, info.module, checksum, sandbox_fingerprint]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _prepare(
    info: DatasetInfo,
    file: DatasetFile,
    folder: Path,
    sandbox: Sandbox,
    on_progress: Progress | None,
) -> None:
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if not folder.is_dir():
                _prepare_locked(info, file, folder, sandbox, on_progress)
    except OSError as error:
        raise VlmEvalError(
            f"{info.name} cannot be prepared in {folder.parent}: {error.strerror}. "
            "--vlm-cache-dir takes another folder."
        ) from error


def _prepare_locked(
    info: DatasetInfo,
    file: DatasetFile,
    folder: Path,
    sandbox: Sandbox,
    on_progress: Progress | None,
) -> None:
    from pytest_vlmeval.sandbox.calls import prepare_in_sandbox

    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        count = prepare_in_sandbox(sandbox, info, file.path, part, on_progress)
        if not count:
            raise VlmEvalError(f"{info.name}: {file.path} has no row to ask.")
        _write_parquet(part)
        part.chmod(0o755)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


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
    pq.write_table(pa.table(columns, schema=schema), folder / "samples.parquet")
    lines.unlink()


def _count_samples(folder: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(folder / "samples.parquet").num_rows)


def _rows(prepared: PreparedDataset, columns: Sequence[str]) -> zip[tuple[str, ...]]:
    import pyarrow.parquet as pq

    table = pq.read_table(
        prepared.folder / "samples.parquet", columns=list(columns), memory_map=True
    )
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _part(kind: str, content: str, media_type: str = "") -> PromptPart:
    if kind == "image":
        return PromptPart(kind="image", media=content, media_type=media_type)
    return PromptPart(kind="text", text=content)
