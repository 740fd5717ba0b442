"""The files of any dataset: its table, and what else its class wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.datasets.download import DatasetFile, FileAccess, fetch_dataset
from pytest_vlmeval.datasets.files import data_path
from pytest_vlmeval.datasets.locating import DatasetFiles, locate_files
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.scored import is_scored

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.sandbox.process import Sandbox


def fetch_files(
    info: DatasetInfo, sandbox: Sandbox, access: FileAccess
) -> DatasetFiles:
    """Give a dataset's files, downloading what is missing; raises VlmEvalError.

    Only the first time of a dataset that may want more than its table needs the
    sandbox.
    """
    if not info.module:
        raise VlmEvalError(
            f"{info.name} is a collection of other datasets; name those instead: "
            f"{', '.join(info.members)}."
        )
    if info.modality != "video" and is_scored(info):
        return _table_alone(info, access)
    # Some have their rows at one address and their pictures or videos elsewhere.
    table = fetch_dataset(info, access) if _has_table(info, access) else None
    return locate_files(info, table, sandbox, access) or _table_alone(info, access)


def _has_table(info: DatasetInfo, access: FileAccess) -> bool:
    if info.url or info.path:
        return True
    return info.modality != "video" and data_path(info, access.data_root).is_file()


def _table_alone(info: DatasetInfo, access: FileAccess) -> DatasetFiles:
    file: DatasetFile = fetch_dataset(info, access)
    return DatasetFiles(
        table=file.path,
        tables=(file.path,),
        shelf={
            "hub": "huggingface",
            "snapshots": [],
            "files": [],
            "table": str(file.path),
            "data_root": str(access.data_root),
            "any_checksum": access.allow_modified,
        },
        checksum=file.checksum,
        content="",
        modified=file.modified,
    )
