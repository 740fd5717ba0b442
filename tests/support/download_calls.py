"""A published table, a server that has it, and calls that fetch it in no time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.download import (
    DatasetFile,
    FileAccess,
    Patience,
    fetch_dataset,
)
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo

CONTENT = b"index\tquestion\n1\twhat\n" * 1_000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
OTHER_MD5 = hashlib.md5(b"other", usedforsecurity=False).hexdigest()


HURRY = Patience(attempts=3, first_wait_s=0.01, longest_wait_s=0.02)


def table(url: str | None, md5: str | None = MD5) -> DatasetInfo:
    """Give the record of a dataset with a published file."""
    return DatasetInfo(
        name="Table",
        class_name="ImageVQADataset",
        module="image_vqa",
        kind="vqa",
        url=url,
        md5=md5,
    )


def fetch(
    info: DatasetInfo,
    folder: Path,
    *,
    modified: bool = False,
    offline: bool = False,
    mirror: str | None = None,
    lines: list[str] | None = None,
    patience: Patience = HURRY,
) -> DatasetFile:
    """Fetch with both folders below one; `lines` takes what is announced."""
    return fetch_dataset(
        info,
        FileAccess(
            data_root=folder / "LMUData",
            cache_dir=folder / "cache",
            allow_modified=modified,
            offline=offline,
            mirror=mirror,
            announce=([] if lines is None else lines).append,
            patience=patience,
        ),
    )


def fail(
    info: DatasetInfo,
    folder: Path,
    *,
    offline: bool = False,
    modified: bool = False,
    mirror: str | None = None,
) -> str:
    """Give the text of the error that fetching ends with."""
    with pytest.raises(VlmEvalError) as caught:
        fetch(info, folder, offline=offline, modified=modified, mirror=mirror)
    return str(caught.value)


def files(folder: Path) -> list[str]:
    """Give the names of what lies in the data folder."""
    return sorted(path.name for path in (folder / "LMUData").iterdir())


def by_hand(folder: Path) -> str:
    """Give what every message about a missing file ends with."""
    path = folder / "LMUData" / "Table.tsv"
    return f"Put the file at {path}, or set LMUData to the folder that holds Table.tsv."
